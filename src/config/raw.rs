//! The file as it is written: one struct per section of `config.toml`, defaults included.
//!
//! The doc comments of the fields are the descriptions of the JSON Schema, and `#[default]` beside them is the only home of the
//! defaults. Nothing is checked here beyond the form of a value; `resolve` does that.
//! Document: specification, section 7.

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
    /// Where payouts go, matched by `mch_id`, then `wx_app_id`; the most specific entry wins.
    pub(super) merchant: Vec<Merchant>,
    pub(super) log: Log,
    pub(super) telemetry: Telemetry,
}

/// The main port: the two contract paths, and the proxied rest.
#[derive(SmartDefault, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Server {
    /// Address and port to listen on.
    #[default = "0.0.0.0:8080"]
    pub(super) listen: String,
    /// Largest body on the two contract paths; proxied paths stream without a limit.
    #[default(ByteSize(bytesize::ByteSize::kib(64)))]
    pub(super) max_body: ByteSize,
    /// How long a caller may take to send a request's head.
    #[default(Span::seconds(5))]
    pub(super) header_timeout: Span,
    /// How long a caller may take to send the body of one of the two contract calls.
    #[default(Span::seconds(5))]
    pub(super) body_timeout: Span,
    /// How long a connection is kept on which nothing is asked.
    #[default(Span::seconds(75))]
    pub(super) idle_timeout: Span,
    /// How long a caller waits at most; then it is told `SYSTEMERROR`, and the payout goes on in the background.
    #[default(Span::seconds(15))]
    pub(super) request_timeout: Span,
    /// Contract calls at the same time, and as many proxied requests, as far as the memory allows; one more is answered 503.
    #[default = 1024]
    pub(super) max_in_flight: i64,
    /// Connections at the same time; one more takes the place of the idlest.
    #[default = 8192]
    pub(super) max_connections: i64,
    /// Memory that the process may use; without it its cgroup's limit. `max_in_flight`, `max_connections` and `cache_entries`
    /// are lowered to what fits.
    pub(super) memory_limit: Option<ByteSize>,
    /// Whether callers may begin with HTTP/2 without TLS (prior knowledge). Over TLS it is always offered.
    pub(super) http2: bool,
    /// How long calls are still taken after SIGTERM, while `/readyz` is 503 already.
    #[default(Span::seconds(3))]
    pub(super) lame_duck: Span,
    /// How long running payouts may take to finish after that.
    #[default(Span::seconds(25))]
    pub(super) drain_timeout: Span,
    /// Serves the main port over TLS.
    pub(super) tls: Option<ServerTls>,
}

/// TLS of the main port. Paths are relative to the directory of the configuration file.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
pub(super) struct ServerTls {
    /// Path of the certificate chain (PEM).
    pub(super) cert: Option<String>,
    /// Path of its private key (PEM).
    pub(super) key: Option<String>,
    /// Path of the CA (PEM) whose certificates callers need; without it none are asked for.
    pub(super) client_ca: Option<String>,
    /// Names of which a caller's certificate must carry one: a DNS name, or a URI as of SPIFFE, of its subject alternative
    /// names; exact, no wildcards. Without it every certificate of the CA is taken.
    pub(super) client_names: Vec<String>,
}

/// The admin port: `/livez`, `/readyz`, `/metrics`, the console at `/`, its API under `/api`.
#[derive(SmartDefault, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Admin {
    /// Address and port to listen on.
    #[default = "127.0.0.1:9090"]
    pub(super) listen: String,
    /// Asked for under `/` and `/api`, and for whatever changes something. Without it these two can be read, not changed, by
    /// callers on loopback whose `Host` is loopback.
    pub(super) token: Option<SecretRef>,
}

/// Who may call; every rule that is given must hold.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Access {
    /// Addresses or CIDR ranges that may call; empty: anyone.
    pub(super) allow_from: Vec<String>,
    /// Addresses or CIDR ranges of proxies whose `X-Forwarded-For` is believed.
    pub(super) trusted_proxies: Vec<String>,
    /// Asked for as `Authorization: Bearer …` or `?token=…`.
    pub(super) token: Option<SecretRef>,
    /// Key of a WeChat-v2-style `sign` (with `nonceStr`) over the request's fields.
    pub(super) sign_key: Option<SecretRef>,
}

/// Which client address an order carries.
#[derive(SmartDefault, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ClientIp {
    /// Replaces `clientIp`: the customer's public egress address; `keep` leaves the platform's.
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

/// Where the openid of a user id is found.
#[derive(SmartDefault, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Identity {
    /// `redis`, or `file`: a CSV `wx_app_id,user_id,openid`, re-read when it changes.
    pub(super) source: StoreKind,
    /// Of the Redis: `redis://`, `rediss://`, `redis+sentinel://host:port,host:port/MASTER`, `redis+cluster://…`.
    pub(super) url: Option<SecretRef>,
    /// Path of a CA (PEM) for `rediss://`, instead of the public roots.
    pub(super) ca: Option<String>,
    /// Redis key; `{wxAppId}` and `{userId}` are filled in.
    #[default = "openid:{wxAppId}:{userId}"]
    pub(super) key: String,
    /// Field of the hash at `key` (`HGET`); without it `key` is a string (`GET`).
    pub(super) field: Option<String>,
    /// How long a found openid is kept in the process; `0s`: never.
    #[default(Span::seconds(60))]
    pub(super) cache_ttl: Span,
    /// How many are kept at most; 0: none.
    #[default = 100_000]
    pub(super) cache_entries: i64,
    /// Path of the CSV of `source = "file"`.
    pub(super) path: Option<String>,
}

/// Where payouts are recorded.
#[derive(SmartDefault, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Ledger {
    /// `redis` for any number of replicas, `file` for one process.
    pub(super) store: StoreKind,
    /// Of the Redis, in the forms of `identity.url`.
    pub(super) url: Option<SecretRef>,
    /// Path of a CA (PEM) for `rediss://`, instead of the public roots.
    pub(super) ca: Option<String>,
    /// What the names of all keys start with.
    #[default = "payout:"]
    pub(super) prefix: String,
    /// Whether a start makes a ledger where the store holds none; `false`: `payout-sidecar ledger create` does, once.
    pub(super) create: bool,
    /// How long settled records are kept, at least 365d; unsettled ones never expire.
    #[default(Span::days(400))]
    pub(super) retention: Span,
    /// How many Redis replicas each claim waits for.
    pub(super) wait_replicas: i64,
    /// Path of the file of `store = "file"`.
    pub(super) path: Option<String>,
}

/// Limits, each optional. Days are Beijing days.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    /// Fen per payout.
    pub(super) max_amount: Option<i64>,
    /// Fen per user and day.
    pub(super) per_user_per_day: Option<i64>,
    /// Fen per merchant and day.
    pub(super) per_merchant_per_day: Option<i64>,
    /// Payouts per user and day.
    pub(super) payouts_per_user_per_day: Option<i64>,
}

/// What answers show.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Answer {
    /// Whether answers show the openid instead of the user id.
    pub(super) reveal_openid: bool,
}

/// Where every other path goes.
#[derive(SmartDefault, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Backend {
    /// Scheme, host and port; without it other paths are answered 404.
    pub(super) url: Option<String>,
    /// How long it may neither send nor take a byte; then 504, or the answer is broken off. `0s`: for ever. Upgraded
    /// connections and event streams that flow are not meant.
    #[default(Span::seconds(60))]
    pub(super) timeout: Span,
}

/// WeChat Pay, for merchants with `to = "wechat"`.
#[derive(SmartDefault, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wechat {
    /// Scheme and host; `https`, or `http` on this machine (a stand-in).
    #[default = "https://api.mch.weixin.qq.com"]
    pub(super) base_url: String,
    /// Where connect failures move to. When absent: WeChat's backup host beside WeChat's own `base_url`, none beside
    /// another.
    pub(super) backup_url: Option<String>,
    /// Path of a CA (PEM), instead of the public roots.
    pub(super) ca: Option<String>,
    /// How long connecting may take.
    #[default(Span::seconds(3))]
    pub(super) connect_timeout: Span,
    /// How long an answer may take.
    #[default(Span::seconds(10))]
    pub(super) timeout: Span,
    /// After how long of nothing but "no such order" an order counts as not paid.
    #[default(Span::hours(24))]
    pub(super) not_found_after: Span,
}

/// Which kind of upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum To {
    /// The customer's own service.
    Handler,
    /// WeChat Pay.
    Wechat,
}

/// The encoding towards a handler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HandlerFormat {
    /// Always JSON.
    Json,
    /// Always XML.
    Xml,
    /// The encoding of the platform's request.
    #[default]
    Same,
}

/// A product of WeChat Pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Product {
    /// Cash red packet, v2.
    Redpack,
    /// Mini-program red packet, v2.
    MiniProgramRedpack,
    /// Payment to balance, v2.
    Transfer,
    /// Merchant transfer, v3.
    TransferBill,
}

/// One upstream, and whose payouts go there.
#[derive(SmartDefault, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Merchant {
    /// Merchant number; `*` or absent: any.
    #[default = "*"]
    pub(super) mch_id: String,
    /// App id; `*` or absent: any.
    #[default = "*"]
    pub(super) wx_app_id: String,
    /// `wechat`, or `handler`: the customer's own service.
    pub(super) to: Option<To>,
    /// Keeps an entry for asking about its old orders, beside a new one for the same merchant; no new order goes there.
    pub(super) settle_only: bool,

    /// Handler: scheme, host, port and perhaps a path; the contract's path is added.
    pub(super) handler_url: Option<String>,
    /// Handler: its name in the orders that are sent there; no other handler is asked about them. When absent: scheme,
    /// host, port and path of `handler_url`.
    pub(super) handler_id: Option<String>,
    /// Handler: the names or URLs that the same handler had before; its orders from then are asked about here.
    pub(super) formerly: Vec<String>,
    /// Handler: the encoding of its requests.
    pub(super) handler_format: HandlerFormat,
    /// Handler: whether it refuses a second payment of an order number by itself.
    pub(super) idempotent: bool,
    /// Handler: how long an answer may take.
    #[default(Span::seconds(10))]
    pub(super) timeout: Span,
    /// Handler: after how long of nothing but `NOT_FOUND` an order counts as not paid. When absent: twice `timeout`;
    /// 24h for an idempotent handler.
    pub(super) not_found_after: Option<Span>,
    /// Handler: whether it is given the credentials that a request carries.
    pub(super) forward_credentials: bool,
    /// Handler: sent with each call to it in `X-Handler-Token`, which is taken out of every proxied request: by it the handler
    /// tells the sidecar's calls from everybody else's. Visible ASCII.
    pub(super) handler_token: Option<SecretRef>,

    /// WeChat: which product pays.
    pub(super) product: Option<Product>,
    /// Red packets: the sender shown, at most 32 characters.
    pub(super) send_name: Option<String>,
    /// Red packets: the wish shown, at most 128 characters.
    pub(super) wishing: Option<String>,
    /// Red packets: WeChat's scene, e.g. `PRODUCT_2`; needed below 1 and above 200 yuan.
    pub(super) scene_id: Option<String>,
    /// WeChat v2: the API key, 32 characters (not the APIv3 key).
    pub(super) api_key: Option<SecretRef>,
    /// WeChat: the merchant's certificate (PEM).
    pub(super) cert: Option<SecretRef>,
    /// WeChat: the certificate's private key (PEM).
    pub(super) key: Option<SecretRef>,
    /// WeChat: `{ file = "…/apiclient_cert.p12" }` instead of both; its password is the merchant number.
    pub(super) p12: Option<SecretRef>,
    /// WeChat: whether the credentials that a request carries are used.
    pub(super) request_credentials: bool,

    /// v3: serial number of the merchant's certificate; taken from `cert` where that is given.
    pub(super) serial_no: Option<String>,
    /// v3: the APIv3 key, 32 characters, which opens notifications and platform certificates.
    pub(super) apiv3_key: Option<SecretRef>,
    /// v3: id of WeChat Pay's public key; without it, platform certificates are downloaded.
    pub(super) public_key_id: Option<String>,
    /// v3: WeChat Pay's public key (PEM).
    pub(super) public_key: Option<SecretRef>,
    /// v3: the transfer scene.
    pub(super) transfer_scene_id: Option<String>,
    /// v3: what the user sees that the money is for.
    pub(super) user_recv_perception: Option<String>,
    /// v3: what the scene asks to be reported; `{actName}` and `{remark}` are filled in.
    pub(super) scene_report_infos: Vec<SceneReportInfo>,
    /// v3: where WeChat sends notifications; its path is served on the main port.
    pub(super) notify_url: Option<String>,
}

/// One line of a scene's report.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SceneReportInfo {
    /// What is reported, in WeChat's words, e.g. `活动名称`.
    pub(super) info_type: String,
    /// The text; `{actName}` and `{remark}` are filled in.
    pub(super) info_content: String,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// Logs, on standard output.
#[derive(SmartDefault, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Log {
    /// `json` or `text`.
    pub(super) format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`, perhaps per module: `info,hyper=warn`.
    #[default = "info"]
    pub(super) level: String,
}

/// Traces.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Telemetry {
    /// URL of an OTLP collector; without it, and without OTEL_EXPORTER_OTLP_ENDPOINT, no traces are sent.
    pub(super) otlp: Option<String>,
}
