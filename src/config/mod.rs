//! The configuration: `config.toml` and the environment, read into values that are complete and checked.
//!
//! The modules, in order of processing: `load` reads the file, and `overlay` applies the environment to it.
//! `shape`, which comes from the [`schema`], reports unknown keys (with `nearest`) and values of the wrong
//! kind. One deserialisation produces `raw`, with the types of `units` and `secret_ref`. `resolve`, `stores`
//! and `merchant` check it with the helpers of `check` and build the [`Config`] below. `errors` collects
//! all mistakes for one report. [`redacted`] shows a `Config` without secrets: it shows whatever is `Serialize`
//! here.
//!
//! Not here: watching the files for changes (`app`), and building the stores and listeners.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rustls::pki_types::DnsName;
use serde::Serialize;

use crate::http::base_url::BaseUrl;
use crate::redis::RedisUrl;
use crate::telemetry::traces::Settings;
use payout_domain::ids::{MchId, WxAppId};
use payout_domain::limits::Limits;
use payout_domain::route::most_specific;
use payout_domain::secret::Secret;

pub use certificate::{Certificate, CertificateError};
pub use errors::{ConfigError, ConfigErrors, Location};
pub use load::{environment, load};
pub use merchant::{BillMerchant, Handler, HandlerFormat, Merchant, To, WechatMerchant};
pub use raw::LogFormat;
pub use secret_ref::fingerprint;

mod load;

mod overlay;

mod shape;

mod nearest;

mod errors;

mod raw;

mod units;

mod secret_ref;

mod check;

mod resolve;

mod stores;

mod merchant;

mod address;

mod otlp;

mod certificate;

pub(crate) mod redacted;

pub(crate) mod schema;

#[cfg(test)]
#[expect(
    clippy::unwrap_in_result,
    reason = "a test that cannot write its file has nothing to return"
)]
mod tests;

/// A complete configuration: every value is present and checked, secrets and files are read. It serialises
/// under the file's key names and without any secret, see [`redacted`].
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// The main port.
    pub server: Server,
    /// The admin port.
    pub admin: Admin,
    /// Who may call the main port.
    pub access: Access,
    /// What the sidecar does with the contract's `clientIp`.
    #[serde(serialize_with = "redacted::client_ip")]
    pub client_ip: ClientIp,
    /// Where the sidecar looks up openids.
    pub identity: IdentitySource,
    /// Where the sidecar records payouts.
    pub ledger: Ledger,
    /// Limits of amounts and counts.
    pub limits: Limits,
    /// Whether responses show the openid instead of the user id.
    #[serde(rename = "answer", serialize_with = "redacted::answer")]
    pub reveal_openid: bool,
    /// Where all other paths go. `None`: 404.
    #[serde(serialize_with = "redacted::backend")]
    pub backend: Option<Backend>,
    /// WeChat Pay's hosts and timeouts.
    pub wechat: Wechat,
    /// The upstreams, in the file's order. No two that take new orders have the same pattern.
    #[serde(rename = "merchant")]
    pub merchants: Vec<Merchant>,
    /// Logs.
    pub log: Log,
    /// Traces.
    pub telemetry: Telemetry,
    /// Warnings for the log and for `check`: what works, but perhaps not as the operator meant it. Contains no
    /// secret.
    pub warnings: Vec<String>,
    /// Every file that the configuration was read from, the configuration file first. The watcher watches
    /// these.
    #[serde(serialize_with = "redacted::files")]
    pub files: Vec<PathBuf>,
    /// Hash of the content of all those files. Equal for equal content within one process.
    #[serde(skip)]
    pub fingerprint: u64,
}

impl Config {
    /// The entry for a new order: the most specific one that takes new orders. `None`: `NO_AUTH`.
    #[must_use]
    pub fn merchant(&self, mch_id: &MchId, wx_app_id: &WxAppId) -> Option<&Merchant> {
        most_specific(
            self.merchants
                .iter()
                .filter(|merchant| !merchant.settle_only)
                .map(|merchant| (&merchant.pattern, merchant)),
            mch_id,
            wx_app_id,
        )
    }
}

/// The main port.
#[derive(Clone, Debug, Serialize)]
pub struct Server {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// Largest body on the contract's paths, in bytes. At least 1.
    #[serde(serialize_with = "redacted::size")]
    pub max_body: usize,
    /// How long a request's head may take. More than zero.
    #[serde(serialize_with = "redacted::span")]
    pub header_timeout: Duration,
    /// How long the body of a contract call may take. More than zero.
    #[serde(serialize_with = "redacted::span")]
    pub body_timeout: Duration,
    /// How long a connection may stay idle. More than zero.
    #[serde(serialize_with = "redacted::span")]
    pub idle_timeout: Duration,
    /// How long a caller waits at most. More than zero.
    #[serde(serialize_with = "redacted::span")]
    pub request_timeout: Duration,
    /// The most concurrent contract calls, and separately the most concurrent other requests. At least 1.
    pub max_in_flight: usize,
    /// The most concurrent connections. At least 1.
    pub max_connections: usize,
    /// The memory that the process may use, in bytes. `None`: the limit of its cgroup.
    #[serde(serialize_with = "redacted::limit")]
    pub memory_limit: Option<u64>,
    /// Whether callers may use HTTP/2 without TLS.
    pub http2: bool,
    /// How long the server still takes new calls after SIGTERM. May be zero.
    #[serde(serialize_with = "redacted::span")]
    pub lame_duck: Duration,
    /// How long running payouts may take after that. May be zero.
    #[serde(serialize_with = "redacted::span")]
    pub drain_timeout: Duration,
    /// TLS of the main port. `None`: plain HTTP.
    pub tls: Option<ServerTls>,
}

/// Where all other paths go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// `http`, without a path, e.g. `http://127.0.0.1:8000`.
    pub url: BaseUrl,
    /// How long the backend may make no progress. `None`: no limit. More than zero.
    #[serde(serialize_with = "redacted::span")]
    pub timeout: Option<Duration>,
}

/// TLS of a port.
#[derive(Clone, Debug, Serialize)]
pub struct ServerTls {
    /// The chain and its key, checked to belong together.
    #[serde(serialize_with = "redacted::certificate")]
    pub certificate: Arc<Certificate>,
    /// CA certificates (PEM, at least one). Callers need a certificate that one of them issued. `None`: callers
    /// need none.
    #[serde(rename = "client_ca", serialize_with = "redacted::given")]
    pub client_ca_pem: Option<String>,
    /// The names of which a caller's certificate must carry one. Empty: any certificate of the CA is accepted.
    pub client_names: Vec<ClientName>,
}

/// A subject alternative name of a caller's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ClientName {
    /// A DNS name, in lower case.
    Dns(String),
    /// A URI, e.g. `spiffe://cluster.local/ns/pay/sa/tuzhan`.
    Uri(String),
}

impl ClientName {
    /// Parses a name: a URI if it has a scheme, else a DNS name. Returns `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        if text
            .split_once("://")
            .is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty())
        {
            return Some(Self::Uri(text.to_owned()));
        }
        let name = DnsName::try_from(text).ok().filter(|_| !text.ends_with('.'))?;
        Some(Self::Dns(name.to_lowercase_owned().as_ref().to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Dns(name) | Self::Uri(name) => name,
        }
    }
}

/// The admin port.
#[derive(Clone, Debug, Serialize)]
pub struct Admin {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The token for `/` and `/api` and for every request that changes something. `None`: loopback callers may
    /// read the two, nobody may change anything.
    pub token: Option<Secret>,
}

/// Who may call the main port. A call must satisfy every rule that is set.
#[derive(Clone, Debug, Serialize)]
pub struct Access {
    /// Ranges that may call. Empty: everybody.
    pub allow_from: Vec<IpNet>,
    /// Ranges of proxies whose `X-Forwarded-For` the sidecar trusts.
    pub trusted_proxies: Vec<IpNet>,
    /// The token that callers send as `Authorization: Bearer …` or `?token=…`.
    pub token: Option<Secret>,
    /// The key of the requests' `sign`.
    pub sign_key: Option<Secret>,
}

/// What the sidecar does with the contract's `clientIp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientIp {
    /// Keep the platform's value.
    Keep,
    /// Replace it with this address.
    #[serde(untagged)]
    Value(IpAddr),
}

/// How to reach a Redis.
#[derive(Clone, Debug, Hash, Serialize)]
pub struct RedisServer {
    /// The URL, which may hold a password.
    #[serde(serialize_with = "redacted::text")]
    pub url: RedisUrl,
    /// CA certificates (PEM, at least one) that replace the public roots.
    #[serde(rename = "ca", serialize_with = "redacted::given")]
    pub ca_pem: Option<String>,
}

/// Where the sidecar looks up openids.
#[derive(Clone, Debug, Hash, Serialize)]
#[serde(tag = "source", rename_all = "lowercase")]
pub enum IdentitySource {
    /// In Redis.
    Redis {
        /// The server.
        #[serde(flatten)]
        server: RedisServer,
        /// The key. `{wxAppId}` and `{userId}` are its only placeholders.
        key: String,
        /// The field of the hash at `key`, with the same placeholders. Key or field contains `{userId}`.
        field: Option<String>,
        /// How long the cache keeps a found openid. Zero: no cache.
        #[serde(serialize_with = "redacted::span")]
        cache_ttl: Duration,
        /// The most openids in the cache. 0: no cache.
        cache_entries: usize,
    },
    /// In a CSV file, which the sidecar reads again when it changes.
    File {
        /// Its path. Loading the configuration does not open it.
        #[serde(serialize_with = "redacted::path")]
        path: PathBuf,
    },
}

/// Where the sidecar records payouts, and for how long.
#[derive(Clone, Debug, Hash, Serialize)]
pub struct Ledger {
    /// The store.
    #[serde(flatten)]
    pub store: LedgerStore,
    /// Whether startup creates a ledger if the store holds none. If false, `payout-sidecar ledger create`
    /// creates it, once.
    pub create: bool,
    /// How long the ledger keeps settled records. At least 365 days.
    #[serde(serialize_with = "redacted::span")]
    pub retention: Duration,
}

/// The store of the ledger.
#[derive(Clone, Debug, Hash, Serialize)]
#[serde(tag = "store", rename_all = "lowercase")]
pub enum LedgerStore {
    /// Redis, for any number of replicas.
    Redis {
        /// The server.
        #[serde(flatten)]
        server: RedisServer,
        /// The prefix of all keys. Contains no braces.
        prefix: String,
        /// The number of replicas that must acknowledge each claim.
        wait_replicas: usize,
    },
    /// One embedded file, for a single process.
    File {
        /// Its path. Loading the configuration does not open it.
        #[serde(serialize_with = "redacted::path")]
        path: PathBuf,
    },
}

/// WeChat Pay's hosts and timeouts.
#[derive(Clone, Debug, Serialize)]
pub struct Wechat {
    /// Without a path. Plain `http` only to this machine.
    pub base_url: BaseUrl,
    /// The host to use when connecting to `base_url` fails. `None`: no backup.
    pub backup_url: Option<BaseUrl>,
    /// CA certificates (PEM, at least one) that replace the public roots.
    #[serde(rename = "ca", serialize_with = "redacted::given")]
    pub ca_pem: Option<String>,
    /// How long connecting may take. More than zero.
    #[serde(serialize_with = "redacted::span")]
    pub connect_timeout: Duration,
    /// How long a response may take. More than zero.
    #[serde(serialize_with = "redacted::span")]
    pub timeout: Duration,
    /// How long WeChat must answer nothing but "no such order" before the order is refused. More than zero.
    #[serde(serialize_with = "redacted::span")]
    pub not_found_after: Duration,
}

/// Logs.
#[derive(Clone, Debug, Serialize)]
pub struct Log {
    /// The format of a line.
    pub format: LogFormat,
    /// A level, or levels per module: `info,hyper=warn`. `tracing_subscriber::filter::Targets` can parse it.
    pub level: String,
}

/// Traces.
#[derive(Clone, Debug, Serialize)]
pub struct Telemetry {
    /// Where and how the sidecar exports traces. `None`: it exports none.
    #[serde(serialize_with = "redacted::otlp")]
    pub otlp: Option<Settings>,
}
