//! The configuration file as written: one struct per section of `config.toml`, with its defaults.
//!
//! The doc comments of the fields become the descriptions of the JSON Schema, so they address the operator.
//! `#[default]` is the only place that states a default. This module checks only the form of a value; `resolve`
//! checks the rest. Every key with an example: config.toml.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smart_default::SmartDefault;

use super::secret_ref::SecretRef;
use super::units::{ByteSize, Span};

/// Settings of payout-sidecar.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) server: Server,
    pub(super) admin: Admin,
    pub(super) access: Access,
    pub(super) client_ip: ClientIp,
    pub(super) identity: Identity,
    pub(super) ledger: Ledger,
    pub(super) limits: Limits,
    pub(super) answer: Answer,
    pub(super) backend: Backend,
    pub(super) wechat: Wechat,
    /// Where payouts go. An order takes the entry that matches its `mch_id` and `wx_app_id` most specifically.
    pub(super) merchant: Vec<super::merchant::Keys>,
    pub(super) log: Log,
    pub(super) telemetry: Telemetry,
}

/// The main port: the contract's two paths, and all other paths, which it proxies.
#[derive(SmartDefault, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Server {
    /// Address and port to listen on.
    #[default = "0.0.0.0:8080"]
    pub(super) listen: String,
    /// Largest body on the contract's two paths. Proxied paths stream without a limit.
    #[default(ByteSize(bytesize::ByteSize::kib(64)))]
    pub(super) max_body: ByteSize,
    /// How long a caller may take to send the head of a request.
    #[default(Span::seconds(5))]
    pub(super) header_timeout: Span,
    /// How long a caller may take to send the body of a contract call.
    #[default(Span::seconds(5))]
    pub(super) body_timeout: Span,
    /// How long a connection may stay idle: no request in progress, or no progress in sending or receiving one.
    #[default(Span::seconds(75))]
    pub(super) idle_timeout: Span,
    /// How long a caller waits at most. Then it gets `SYSTEMERROR`, and the payout goes on in the background.
    #[default(Span::seconds(15))]
    pub(super) request_timeout: Span,
    /// The most concurrent contract calls, and separately the most concurrent proxied requests; a low memory
    /// limit lowers both. Further ones get 503.
    #[default = 1024]
    pub(super) max_in_flight: i64,
    /// The most concurrent connections. A further one replaces the connection that has been idle longest.
    #[default = 8192]
    pub(super) max_connections: i64,
    /// Memory that the process may use. Without it: the limit of its cgroup. The sidecar lowers
    /// `max_in_flight`, `max_connections` and `cache_entries` to what fits.
    pub(super) memory_limit: Option<ByteSize>,
    /// Whether callers may use HTTP/2 without TLS (prior knowledge). Over TLS the sidecar always offers HTTP/2.
    pub(super) http2: bool,
    /// How long the sidecar still takes calls after SIGTERM, while `/readyz` already answers 503.
    #[default(Span::seconds(3))]
    pub(super) lame_duck: Span,
    /// How long running payouts may take to finish after `lame_duck`.
    #[default(Span::seconds(25))]
    pub(super) drain_timeout: Span,
    /// TLS of the main port. Without it the main port speaks plain HTTP.
    pub(super) tls: Option<ServerTls>,
}

/// TLS of the main port. Paths are relative to the directory of the configuration file.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
pub(super) struct ServerTls {
    /// Path of the certificate chain (PEM).
    pub(super) cert: Option<String>,
    /// Path of the certificate's private key (PEM).
    pub(super) key: Option<String>,
    /// Path of a CA (PEM). Callers then need a client certificate that it issued. Without it they need none.
    pub(super) client_ca: Option<String>,
    /// Names, of which a caller's certificate must carry one as a subject alternative name: a DNS name or a URI
    /// (SPIFFE), without wildcards. Without it any certificate of `client_ca` is accepted.
    pub(super) client_names: Vec<String>,
}

/// The admin port: `/livez`, `/readyz`, `/metrics`, the console at `/`, and its API under `/api`.
#[derive(SmartDefault, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Admin {
    /// Address and port to listen on.
    #[default = "127.0.0.1:9090"]
    pub(super) listen: String,
    /// Token for the console at `/` and its API under `/api`. Without it, only callers on loopback whose `Host`
    /// is loopback can read them, and nobody can settle, cancel or drain.
    pub(super) token: Option<SecretRef>,
}

/// Who may call the main port. A call must satisfy every rule that is set.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Access {
    /// Addresses or CIDR ranges that may call. Empty: everybody.
    pub(super) allow_from: Vec<String>,
    /// Addresses or CIDR ranges of proxies whose `X-Forwarded-For` the sidecar trusts.
    pub(super) trusted_proxies: Vec<String>,
    /// Token that callers must send, as `Authorization: Bearer …` or `?token=…`.
    pub(super) token: Option<SecretRef>,
    /// Key of the `sign` that callers must send: a signature in WeChat v2's style over the request's fields,
    /// with `nonceStr`.
    pub(super) sign_key: Option<SecretRef>,
}

/// The client address of an order.
#[derive(SmartDefault, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ClientIp {
    /// Replaces `clientIp`: your public egress address. `keep` leaves the platform's value.
    #[default = "keep"]
    pub(super) value: String,
}

/// A kind of store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum StoreKind {
    /// Redis, at `url`.
    #[default]
    Redis,
    /// One file, at `path`.
    File,
}

/// Where the sidecar looks up the openid of a user id.
#[derive(SmartDefault, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Identity {
    /// `redis`, or `file`: a CSV `wx_app_id,user_id,openid`, which the sidecar reads again when it changes.
    pub(super) source: StoreKind,
    /// URL of the Redis: `redis://`, `rediss://`, `redis+sentinel://host:port,host:port/MASTER`,
    /// `redis+cluster://…`.
    pub(super) url: Option<SecretRef>,
    /// Path of a CA (PEM) for `rediss://`, which replaces the public roots.
    pub(super) ca: Option<String>,
    /// The Redis key. The sidecar fills in `{wxAppId}` and `{userId}`.
    #[default = "openid:{wxAppId}:{userId}"]
    pub(super) key: String,
    /// Field of the hash at `key` (`HGET`). Without it `key` holds a string (`GET`).
    pub(super) field: Option<String>,
    /// How long the sidecar caches an openid. `0s`: no cache.
    #[default(Span::seconds(60))]
    pub(super) cache_ttl: Span,
    /// The most openids in the cache. 0: no cache.
    #[default = 100_000]
    pub(super) cache_entries: i64,
    /// Path of the CSV file, for `source = "file"`.
    pub(super) path: Option<String>,
}

/// Where the sidecar records payouts.
#[derive(SmartDefault, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Ledger {
    /// `redis` for any number of replicas, `file` for one process.
    pub(super) store: StoreKind,
    /// URL of the Redis, in the forms of `identity.url`.
    pub(super) url: Option<SecretRef>,
    /// Path of a CA (PEM) for `rediss://`, which replaces the public roots.
    pub(super) ca: Option<String>,
    /// Prefix of all Redis keys. Must have no braces.
    #[default = "payout:"]
    pub(super) prefix: String,
    /// Whether startup creates a ledger if the store holds none. If `false`, run `payout-sidecar ledger create`
    /// once.
    pub(super) create: bool,
    /// How long the ledger keeps settled records, at least 365d. Unsettled records never expire.
    #[default(Span::days(400))]
    pub(super) retention: Span,
    /// The number of Redis replicas that must acknowledge each claim.
    pub(super) wait_replicas: i64,
    /// Path of the ledger's file, for `store = "file"`.
    pub(super) path: Option<String>,
}

/// Limits, each optional. A day is a day in Beijing.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    /// The most fen per payout.
    pub(super) max_amount: Option<i64>,
    /// The most fen per user and day.
    pub(super) per_user_per_day: Option<i64>,
    /// The most fen per merchant and day.
    pub(super) per_merchant_per_day: Option<i64>,
    /// The most payouts per user and day.
    pub(super) payouts_per_user_per_day: Option<i64>,
}

/// What responses show.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Answer {
    /// Whether responses show the openid instead of the user id.
    pub(super) reveal_openid: bool,
}

/// Where all other paths go.
#[derive(SmartDefault, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Backend {
    /// Scheme, host and port. Without it other paths get 404.
    pub(super) url: Option<String>,
    /// How long the backend may neither send nor take a byte. Then the caller gets 504, or the sidecar breaks
    /// off the response. `0s`: no limit. The limit does not apply to upgraded connections, nor to event streams
    /// that send data.
    #[default(Span::seconds(60))]
    pub(super) timeout: Span,
}

/// WeChat Pay, for merchants with `to = "wechat"`.
#[derive(SmartDefault, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wechat {
    /// Scheme and host. `https`, or `http` for a fake WeChat Pay on this machine.
    #[default = "https://api.mch.weixin.qq.com"]
    pub(super) base_url: String,
    /// Host that the sidecar uses when it cannot connect to `base_url`. Default: WeChat's backup host with
    /// WeChat's own `base_url`, none with another. Empty: none.
    pub(super) backup_url: Option<String>,
    /// Path of a CA (PEM), which replaces the public roots.
    pub(super) ca: Option<String>,
    /// How long connecting may take.
    #[default(Span::seconds(3))]
    pub(super) connect_timeout: Span,
    /// How long a response may take. Then the outcome is unknown, and the sidecar queries it.
    #[default(Span::seconds(10))]
    pub(super) timeout: Span,
    /// How long WeChat must answer nothing but "no such order" before the order counts as not paid.
    #[default(Span::hours(24))]
    pub(super) not_found_after: Span,
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// Text for reading.
    Text,
}

/// Logs, on standard output.
#[derive(SmartDefault, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Log {
    /// `json` or `text`.
    pub(super) format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`, optionally per module: `info,hyper=warn`.
    #[default = "info"]
    pub(super) level: String,
}

/// Traces.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Telemetry {
    /// URL of an OTLP collector. Without it, and without OTEL_EXPORTER_OTLP_ENDPOINT, the sidecar exports no
    /// traces.
    pub(super) otlp: Option<String>,
}
