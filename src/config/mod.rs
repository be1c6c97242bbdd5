//! The configuration: `config.toml` and the environment, read into values that are complete and checked.
//!
//! How the files fit together, in the direction a setting travels: `load` reads the file and `overlay` lays the
//! environment over it; `shape` (taken from the [`schema`]) reports unknown keys (`nearest`) and wrong kinds; one
//! deserialisation makes `raw`, with `units` and `secret_ref`; `resolve`, `stores`, `merchant` and `bill` turn that into the
//! [`Config`] below, by way of `check`. All mistakes are collected in `errors` and reported together. [`redacted`]
//! shows a `Config` without secrets: what is `Serialize` here is what it shows. Not at home here: watching for changes (`cli`), and the stores and listeners that are built from it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rustls::pki_types::DnsName;
use serde::Serialize;

use crate::redis::RedisUrl;
use crate::telemetry::traces::Settings;
use payout_domain::ids::{HandlerId, MchId, WxAppId};
use payout_domain::limits::Limits;
use payout_domain::route::{MerchantPattern, most_specific};
use payout_domain::secret::Secret;
use payout_domain::wechat::Product;
use payout_domain::wechat::v3::envelope::Apiv3Key;
use payout_domain::wechat::v3::request::Scene;
use payout_domain::wechat::v3::sign::{SigningKey, VerifyingKey};

pub use certificate::{Certificate, CertificateError};
pub use errors::{ConfigError, ConfigErrors, Location};
pub use load::{environment, load};
pub use raw::{HandlerFormat, LogFormat};
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

mod bill;

mod merchant;

mod address;

mod otlp;

mod certificate;

pub mod redacted;

pub mod schema;

#[cfg(test)]
#[expect(
    clippy::unwrap_in_result,
    reason = "a test that cannot write its file has nothing to return"
)]
mod tests;

/// A whole configuration: every value present, checked, and with its secrets and files read. It is serialised under the names
/// of the file, without any secret, see [`redacted`].
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// The main port.
    pub server: Server,
    /// The admin port.
    pub admin: Admin,
    /// Who may call.
    pub access: Access,
    /// What becomes of the contract's `clientIp`.
    #[serde(serialize_with = "redacted::client_ip")]
    pub client_ip: ClientIp,
    /// Where openids are found.
    pub identity: IdentitySource,
    /// Where payouts are recorded.
    pub ledger: Ledger,
    /// Limits of amounts and counts.
    pub limits: Limits,
    /// Whether answers show the openid instead of the user id.
    #[serde(rename = "answer", serialize_with = "redacted::answer")]
    pub reveal_openid: bool,
    /// Where other paths go. `None`: 404.
    #[serde(serialize_with = "redacted::backend")]
    pub backend: Option<Backend>,
    /// WeChat Pay's hosts and time-outs.
    pub wechat: Wechat,
    /// The upstreams, in the file's order. No two that take new orders have the same pattern.
    #[serde(rename = "merchant")]
    pub merchants: Vec<Merchant>,
    /// Logs.
    pub log: Log,
    /// Traces.
    pub telemetry: Telemetry,
    /// What works, but perhaps not as it was meant; for the log and for `check`. Shows no secret.
    pub warnings: Vec<String>,
    /// Every file this was read from, the configuration file first: those to watch.
    #[serde(serialize_with = "redacted::files")]
    pub files: Vec<PathBuf>,
    /// The same for the same content of all those files, within one process.
    #[serde(skip)]
    pub fingerprint: u64,
}

impl Config {
    /// The merchant entry for a new order: the most specific one that takes such. `None`: `NO_AUTH`.
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
    /// Where to listen.
    pub listen: SocketAddr,
    /// Largest body on the contract's paths, in bytes; at least 1.
    #[serde(serialize_with = "redacted::size")]
    pub max_body: usize,
    /// Time for a request's head; more than zero.
    #[serde(serialize_with = "redacted::span")]
    pub header_timeout: Duration,
    /// Time for the body of a contract call; more than zero.
    #[serde(serialize_with = "redacted::span")]
    pub body_timeout: Duration,
    /// Time that a connection is kept on which nothing is asked; more than zero.
    #[serde(serialize_with = "redacted::span")]
    pub idle_timeout: Duration,
    /// Time that a caller waits at most; more than zero.
    #[serde(serialize_with = "redacted::span")]
    pub request_timeout: Duration,
    /// Contract calls at the same time, and as many others; at least 1.
    pub max_in_flight: usize,
    /// Connections at the same time; at least 1.
    pub max_connections: usize,
    /// The memory that the process may use, in bytes; `None`: as its cgroup says.
    #[serde(serialize_with = "redacted::limit")]
    pub memory_limit: Option<u64>,
    /// Whether callers may begin with HTTP/2 without TLS.
    pub http2: bool,
    /// Time between SIGTERM and the end of new calls; may be zero.
    #[serde(serialize_with = "redacted::span")]
    pub lame_duck: Duration,
    /// Time for running payouts after that; may be zero.
    #[serde(serialize_with = "redacted::span")]
    pub drain_timeout: Duration,
    /// TLS of the main port.
    pub tls: Option<ServerTls>,
}

/// Where other paths go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// Scheme and authority without a slash at the end, e.g. `http://127.0.0.1:8000`.
    pub url: String,
    /// How long it may stand still; `None`: for ever. More than zero.
    #[serde(serialize_with = "redacted::span")]
    pub timeout: Option<Duration>,
}

/// TLS of a port.
#[derive(Clone, Debug, Serialize)]
pub struct ServerTls {
    /// The chain and its key, which belong together.
    #[serde(serialize_with = "redacted::certificate")]
    pub certificate: Arc<Certificate>,
    /// The CA certificates (PEM, at least one) whose certificates callers need; `None`: callers need none.
    #[serde(rename = "client_ca", serialize_with = "redacted::given")]
    pub client_ca_pem: Option<String>,
    /// Of these a caller's certificate must carry one; empty: every certificate of the CA is taken.
    pub client_names: Vec<ClientName>,
}

/// A name that a caller's certificate carries as a subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ClientName {
    /// A DNS name, in lower case.
    Dns(String),
    /// A URI, e.g. `spiffe://cluster.local/ns/pay/sa/tuzhan`.
    Uri(String),
}

impl ClientName {
    /// Reads a name: a URI where it has a scheme, else a DNS name. `None` where it is neither.
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

    /// Its text.
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
    /// Where to listen.
    pub listen: SocketAddr,
    /// Asked for under `/` and `/api`, and for whatever changes something; `None`: the two can be read from loopback only.
    pub token: Option<Secret>,
}

/// Who may call; every rule that is given must hold.
#[derive(Clone, Debug, Serialize)]
pub struct Access {
    /// Ranges that may call; empty: anyone.
    pub allow_from: Vec<IpNet>,
    /// Ranges whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// `Authorization: Bearer …` or `?token=…`.
    pub token: Option<Secret>,
    /// Key of the requests' `sign`.
    pub sign_key: Option<Secret>,
}

/// What becomes of the contract's `clientIp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientIp {
    /// The platform's value stays.
    Keep,
    /// It is overwritten by this address.
    #[serde(untagged)]
    Value(IpAddr),
}

/// How one Redis is reached.
#[derive(Clone, Debug, Hash, Serialize)]
pub struct RedisServer {
    /// The URL, which may hold a password.
    #[serde(serialize_with = "redacted::text")]
    pub url: RedisUrl,
    /// CA certificates (PEM, at least one) instead of the public roots.
    #[serde(rename = "ca", serialize_with = "redacted::given")]
    pub ca_pem: Option<String>,
}

/// Where openids are found.
#[derive(Clone, Debug, Hash, Serialize)]
#[serde(tag = "source", rename_all = "lowercase")]
pub enum IdentitySource {
    /// In Redis.
    Redis {
        /// The server.
        #[serde(flatten)]
        server: RedisServer,
        /// The key, with `{wxAppId}` and `{userId}` as the only placeholders.
        key: String,
        /// The field of the hash at `key`, with the same placeholders. `{userId}` is in one of the two.
        field: Option<String>,
        /// How long a found openid is kept; zero: never.
        #[serde(serialize_with = "redacted::span")]
        cache_ttl: Duration,
        /// How many are kept; 0: none.
        cache_entries: usize,
    },
    /// In a CSV file, re-read when it changes.
    File {
        /// Its path; not opened yet.
        #[serde(serialize_with = "redacted::path")]
        path: PathBuf,
    },
}

/// Where payouts are recorded, and for how long.
#[derive(Clone, Debug, Hash, Serialize)]
pub struct Ledger {
    /// The store.
    #[serde(flatten)]
    pub store: LedgerStore,
    /// Whether a start makes a ledger where the store holds none; false: `payout-sidecar ledger create` does, once.
    pub create: bool,
    /// How long settled records are kept; at least 365 days.
    #[serde(serialize_with = "redacted::span")]
    pub retention: Duration,
}

/// A store of payouts.
#[derive(Clone, Debug, Hash, Serialize)]
#[serde(tag = "store", rename_all = "lowercase")]
pub enum LedgerStore {
    /// Redis, for any number of replicas.
    Redis {
        /// The server.
        #[serde(flatten)]
        server: RedisServer,
        /// What all keys start with; no braces.
        prefix: String,
        /// How many replicas each claim waits for.
        wait_replicas: usize,
    },
    /// One embedded file, for one process.
    File {
        /// Its path; not opened yet.
        #[serde(serialize_with = "redacted::path")]
        path: PathBuf,
    },
}

/// WeChat Pay's hosts and time-outs.
#[derive(Clone, Debug, Serialize)]
pub struct Wechat {
    /// Scheme and authority, without a slash at the end. Plain `http` only towards this machine.
    pub base_url: String,
    /// Where connect failures move to; `None`: nowhere.
    pub backup_url: Option<String>,
    /// CA certificates (PEM, at least one) instead of the public roots.
    #[serde(rename = "ca", serialize_with = "redacted::given")]
    pub ca_pem: Option<String>,
    /// Time to connect; more than zero.
    #[serde(serialize_with = "redacted::span")]
    pub connect_timeout: Duration,
    /// Time for an answer; more than zero.
    #[serde(serialize_with = "redacted::span")]
    pub timeout: Duration,
    /// After how long of nothing but "no such order" an order is refused; more than zero.
    #[serde(serialize_with = "redacted::span")]
    pub not_found_after: Duration,
}

/// One entry of `[[merchant]]`.
#[derive(Clone, Debug, Serialize)]
pub struct Merchant {
    /// The entry in messages, e.g. `merchant[0] 1900000109`.
    #[serde(skip)]
    pub name: String,
    /// Whose orders it is for.
    #[serde(flatten, serialize_with = "redacted::pattern")]
    pub pattern: MerchantPattern,
    /// Where they go.
    #[serde(flatten)]
    pub to: To,
    /// Whether it is kept for asking about its old orders only: no new order goes there.
    pub settle_only: bool,
}

/// Where a merchant's orders go.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "to", rename_all = "lowercase")]
pub enum To {
    /// To the customer's own service.
    Handler(Handler),
    /// To WeChat Pay v2.
    Wechat(WechatMerchant),
    /// To WeChat Pay v3, merchant transfer.
    #[serde(rename = "wechat")]
    TransferBill(BillMerchant),
}

/// A customer's handler.
#[derive(Clone, Debug, Serialize)]
pub struct Handler {
    /// `http` or `https`, without query and without a slash at the end; the contract's path is added.
    #[serde(rename = "handler_url")]
    pub url: String,
    /// What it is called in the orders that are sent there.
    #[serde(rename = "handler_id", serialize_with = "redacted::text")]
    pub id: HandlerId,
    /// What it was called before: its orders from then are asked about here.
    #[serde(serialize_with = "redacted::texts")]
    pub formerly: Vec<HandlerId>,
    /// The encoding towards it.
    #[serde(rename = "handler_format")]
    pub format: HandlerFormat,
    /// Whether it refuses doubles by order number.
    pub idempotent: bool,
    /// Time for an answer; more than zero.
    #[serde(serialize_with = "redacted::span")]
    pub timeout: Duration,
    /// After how long of nothing but `NOT_FOUND` an order is refused; at least `timeout`.
    #[serde(serialize_with = "redacted::span")]
    pub not_found_after: Duration,
    /// Whether it is given the request's credentials.
    pub forward_credentials: bool,
    /// What each call to it carries, so that it can tell one from a proxied request; visible ASCII.
    #[serde(rename = "handler_token")]
    pub token: Option<Secret>,
}

/// A merchant at WeChat Pay.
#[derive(Clone, Debug, Serialize)]
pub struct WechatMerchant {
    /// The product that pays.
    pub product: Product,
    /// The sender shown, 1 to 32 characters; empty only for [`Product::Transfer`].
    pub send_name: String,
    /// The wish shown, 1 to 128 characters; empty only for [`Product::Transfer`].
    pub wishing: String,
    /// WeChat's scene.
    pub scene_id: Option<String>,
    /// The API key, 32 characters; `None` only with `request_credentials`.
    pub api_key: Option<Secret>,
    /// The merchant's certificate and key; `None` only with `request_credentials`, or towards plain `http`.
    #[serde(serialize_with = "redacted::certificate")]
    pub certificate: Option<Arc<Certificate>>,
    /// Whether the credentials that a request carries are used.
    pub request_credentials: bool,
}

/// A merchant at WeChat Pay v3. Keys are parsed; `Debug` shows nothing of them.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "product", rename = "transfer-bill")]
pub struct BillMerchant {
    /// The merchant number, which v3 signs with.
    #[serde(skip)]
    pub mch_id: MchId,
    /// Signs requests.
    #[serde(serialize_with = "redacted::key")]
    pub key: Arc<SigningKey>,
    /// Serial number of the merchant's certificate, hexadecimal, upper case.
    pub serial_no: String,
    /// Opens notifications and platform certificates; `None` only with a public key and without notifications.
    #[serde(serialize_with = "redacted::key")]
    pub apiv3_key: Option<Arc<Apiv3Key>>,
    /// WeChat Pay's public key with its id; `None`: platform certificates are downloaded.
    #[serde(flatten, serialize_with = "redacted::public_key")]
    pub public_key: Option<(String, Arc<VerifyingKey>)>,
    /// What its bills say beside the request.
    #[serde(flatten, serialize_with = "redacted::scene")]
    pub scene: Scene,
    /// The path of `notify_url`, which is served on the main port.
    #[serde(skip)]
    pub notify_path: Option<String>,
}

/// Logs.
#[derive(Clone, Debug, Serialize)]
pub struct Log {
    /// The form of a line.
    pub format: LogFormat,
    /// A level, or levels per module: `info,hyper=warn`. Fit for `tracing_subscriber::filter::Targets`.
    pub level: String,
}

/// Traces.
#[derive(Clone, Debug, Serialize)]
pub struct Telemetry {
    /// Where they are exported to and how, where they are.
    #[serde(serialize_with = "redacted::otlp")]
    pub otlp: Option<Settings>,
}
