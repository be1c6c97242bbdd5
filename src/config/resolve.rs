//! Turns the file's values into the program's: ranges, addresses, URLs, and rules between keys.
//!
//! Each check records its mistake and goes on with a substitute value, so one pass finds all mistakes. The
//! caller never gets a configuration with mistakes. `stores` checks the stores, `merchant` the merchants.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use payout_domain::ids::Millis;
use payout_domain::limits::Limits;
use payout_domain::wechat::Product;

use super::address::{self, Path};
use super::certificate::Certificate;
use super::check::Check;
use super::errors::Problems;
use super::raw;
use super::secret_ref::SecretSources;
use super::units::ByteSize;
use super::{
    Access, Admin, Backend, ClientIp, ClientName, Config, Log, Merchant, Server, ServerTls, Telemetry, To,
    Wechat,
};
use crate::http::base_url::BaseUrl;

/// WeChat Pay's own backup host. It belongs only to WeChat's own `base_url`.
const WECHAT_BACKUP_URL: &str = "https://api2.mch.weixin.qq.com";

/// Checks everything. Returns `None` if a store is missing; the mistakes are in `problems`.
pub(super) fn resolve(
    raw: &raw::Raw,
    sources: &mut SecretSources,
    now: Millis,
    problems: &mut Problems,
) -> Option<Config> {
    let mut check = Check {
        sources,
        now,
        problems,
    };
    let server = server(&raw.server, &mut check);
    let admin = admin(&raw.admin, &mut check);
    let access = access(&raw.access, &mut check);
    let client_ip = client_ip(&raw.client_ip, &mut check);
    let identity = super::stores::identity(&raw.identity, &mut check);
    let ledger = super::stores::ledger(&raw.ledger, &mut check);
    let limits = limits(&raw.limits, &mut check);
    let backend = backend(&raw.backend, &mut check);
    let wechat = wechat(&raw.wechat, &mut check);
    let merchants = super::merchant::merchants(&raw.merchant, wechat.as_ref(), &mut check);
    let log = log(&raw.log, &mut check);
    let otlp = super::otlp::otlp(raw.telemetry.otlp.as_deref(), &mut check);
    warn_of_open_access(&server, &access, &mut check);
    refuse_long_client_ip(client_ip, &merchants, &mut check);
    Some(Config {
        server,
        admin,
        access,
        client_ip,
        identity: identity?,
        ledger: ledger?,
        limits,
        reveal_openid: raw.answer.reveal_openid,
        backend,
        wechat: wechat?,
        merchants,
        log,
        telemetry: Telemetry { otlp },
        warnings: Vec::new(),
        files: Vec::new(),
        fingerprint: 0,
    })
}

fn socket(text: &str, path: &str, check: &mut Check<'_>) -> SocketAddr {
    let read = address::socket(text);
    check
        .take(path, read)
        .unwrap_or_else(|| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0))
}

fn server(raw: &raw::Server, check: &mut Check<'_>) -> Server {
    let max_body = usize::try_from(raw.max_body.0.as_u64()).unwrap_or(usize::MAX);
    if max_body == 0 {
        check.error("server.max_body", "must be at least 1 byte: write e.g. \"64KiB\"");
    }
    Server {
        listen: socket(&raw.listen, "server.listen", check),
        max_body,
        header_timeout: check.timeout(raw.header_timeout, "server.header_timeout"),
        body_timeout: check.timeout(raw.body_timeout, "server.body_timeout"),
        idle_timeout: check.timeout(raw.idle_timeout, "server.idle_timeout"),
        request_timeout: check.timeout(raw.request_timeout, "server.request_timeout"),
        max_in_flight: check.count(raw.max_in_flight, 1, "server.max_in_flight"),
        max_connections: check.count(raw.max_connections, 1, "server.max_connections"),
        memory_limit: memory_limit(raw.memory_limit, check),
        http2: raw.http2,
        lame_duck: check.pause(raw.lame_duck, "server.lame_duck"),
        drain_timeout: check.pause(raw.drain_timeout, "server.drain_timeout"),
        tls: raw.tls.as_ref().and_then(|tls| server_tls(tls, check)),
    }
}

/// The smallest memory limit that the sidecar can run with.
const LEAST_MEMORY: ByteSize = ByteSize(bytesize::ByteSize::mib(16));

fn memory_limit(raw: Option<ByteSize>, check: &mut Check<'_>) -> Option<u64> {
    let limit = raw?;
    if limit.0 < LEAST_MEMORY.0 {
        let text =
            format!("must be at least {LEAST_MEMORY}, not {limit}: write e.g. \"64MiB\", or leave it out");
        check.error("server.memory_limit", text);
    }
    Some(limit.0.as_u64())
}

fn backend(raw: &raw::Backend, check: &mut Check<'_>) -> Option<Backend> {
    let timeout = check.pause(raw.timeout, "backend.timeout");
    let url = check.url(
        raw.url.as_deref()?,
        "backend.url",
        Path::Refused,
        "http://127.0.0.1:8000",
    )?;
    if url.is_tls() {
        let text = "must be http: the backend stands beside the sidecar, which speaks no TLS to it: write e.g. \"http://127.0.0.1:8000\"";
        check.error("backend.url", text);
    }
    Some(Backend {
        url,
        timeout: (!timeout.is_zero()).then_some(timeout),
    })
}

fn server_tls(raw: &raw::ServerTls, check: &mut Check<'_>) -> Option<ServerTls> {
    let mut file = |name: Option<&String>, path: &str, what: &str| match name {
        Some(name) => check.file_text(name, path),
        None => {
            check.error(
                path,
                format!("is missing: give the path of {what}, or leave server.tls out"),
            );
            None
        }
    };
    let cert = file(
        raw.cert.as_ref(),
        "server.tls.cert",
        "the certificate chain (PEM)",
    );
    let key = file(raw.key.as_ref(), "server.tls.key", "its private key (PEM)");
    let client_ca_pem = check.ca(raw.client_ca.as_deref(), "server.tls.client_ca");
    let read = Certificate::from_pem(cert?.expose(), key?.expose(), check.now);
    let certificate = check.certificate(read, "server.tls", "the main port")?;
    Some(ServerTls {
        certificate,
        client_names: client_names(&raw.client_names, raw.client_ca.is_some(), check),
        client_ca_pem,
    })
}

fn client_names(raw: &[String], has_ca: bool, check: &mut Check<'_>) -> Vec<ClientName> {
    const PATH: &str = "server.tls.client_names";
    if !has_ca && !raw.is_empty() {
        check.error(
            PATH,
            "says whom client_ca's certificates must name: give server.tls.client_ca too",
        );
    }
    if has_ca && raw.is_empty() {
        check.problems.warn(
            "server.tls.client_ca",
            "takes every certificate of that CA, whoever it was issued to: name the callers in server.tls.client_names"
                .to_owned(),
        );
    }
    let mut names = Vec::new();
    for (index, text) in raw.iter().enumerate() {
        let read = ClientName::parse(text).ok_or_else(|| {
            "must be a DNS name without wildcards, e.g. \"tuzhan.example\", or a URI, e.g. \
             \"spiffe://cluster.local/ns/pay/sa/tuzhan\""
                .to_owned()
        });
        names.extend(check.take(&format!("{PATH}[{index}]"), read));
    }
    names
}

fn admin(raw: &raw::Admin, check: &mut Check<'_>) -> Admin {
    let admin = Admin {
        listen: socket(&raw.listen, "admin.listen", check),
        token: check.secret(raw.token.as_ref(), "admin.token"),
    };
    if !admin.listen.ip().is_loopback() && raw.token.is_none() {
        check.problems.warn(
            "admin.listen",
            "is reached from beyond this machine, and no admin.token is set: /api answers loopback only, and nothing can be \
             settled, cancelled or drained by hand: set admin.token"
                .to_owned(),
        );
    }
    admin
}

fn access(raw: &raw::Access, check: &mut Check<'_>) -> Access {
    Access {
        allow_from: ranges(&raw.allow_from, "access.allow_from", check),
        trusted_proxies: ranges(&raw.trusted_proxies, "access.trusted_proxies", check),
        token: check.secret(raw.token.as_ref(), "access.token"),
        sign_key: check.secret(raw.sign_key.as_ref(), "access.sign_key"),
    }
}

fn ranges(texts: &[String], path: &str, check: &mut Check<'_>) -> Vec<IpNet> {
    let read = |(index, text): (usize, &String)| {
        let read = address::range(text);
        check.take(&format!("{path}[{index}]"), read)
    };
    texts.iter().enumerate().filter_map(read).collect()
}

fn client_ip(raw: &raw::ClientIp, check: &mut Check<'_>) -> ClientIp {
    if raw.value == "keep" {
        return ClientIp::Keep;
    }
    raw.value.parse().map_or_else(
        |_| {
            let text = format!("\"{}\" is neither an IP address nor \"keep\"", raw.value);
            check.error(
                "client_ip.value",
                format!("{text}: write the public address that your calls leave from"),
            );
            ClientIp::Keep
        },
        // Red packets accept only IPv4, and `::ffff:203.0.113.7` is an IPv4 address.
        |address: IpAddr| ClientIp::Value(address.to_canonical()),
    )
}

fn limits(raw: &raw::Limits, check: &mut Check<'_>) -> Limits {
    let mut positive = |limit: Option<i64>, key: &str| {
        let limit = limit?;
        if limit < 1 {
            let text = format!("must be a whole number from 1 on, not {limit}: leave it out for no limit");
            check.error(&format!("limits.{key}"), text);
        }
        Some(limit)
    };
    Limits {
        max_amount: positive(raw.max_amount, "max_amount"),
        per_user_per_day: positive(raw.per_user_per_day, "per_user_per_day"),
        per_merchant_per_day: positive(raw.per_merchant_per_day, "per_merchant_per_day"),
        payouts_per_user_per_day: positive(raw.payouts_per_user_per_day, "payouts_per_user_per_day"),
    }
}

fn wechat(raw: &raw::Wechat, check: &mut Check<'_>) -> Option<Wechat> {
    let base_url = wechat_url(&raw.base_url, "wechat.base_url", check);
    let is_default = base_url
        .as_ref()
        .is_some_and(|url| url.to_string() == raw::Wechat::default().base_url);
    // Payouts to a fake must never go to the real WeChat Pay, so its backup host is a default only with its own
    // host.
    let backup_url = match raw.backup_url.as_deref() {
        Some("") => None,
        Some(url) => wechat_url(url, "wechat.backup_url", check),
        None if is_default => WECHAT_BACKUP_URL.parse().ok(),
        None => None,
    };
    let is_fake = base_url.as_ref().is_some_and(BaseUrl::is_loopback);
    if let (Some(base), Some(backup)) = (&base_url, &backup_url)
        && base.is_loopback() != backup.is_loopback()
    {
        let text = "one of base_url and backup_url is on this machine, the other is not";
        check.error(
            "wechat.backup_url",
            format!("{text}: give both of the same WeChat Pay, or backup_url = \"\" for none"),
        );
    }
    let not_found_after = raw.not_found_after.0;
    if not_found_after.is_zero() {
        check.error(
            "wechat.not_found_after",
            "must be more than 0s: write e.g. \"24h\"",
        );
    } else if not_found_after < Duration::from_secs(3600) && !is_fake {
        let text = "is short: a request may still be on its way in WeChat Pay when it says that it knows no such order";
        check.problems.warn("wechat.not_found_after", text);
    }
    let ca_pem = check.ca(raw.ca.as_deref(), "wechat.ca");
    let connect_timeout = check.timeout(raw.connect_timeout, "wechat.connect_timeout");
    let timeout = check.timeout(raw.timeout, "wechat.timeout");
    Some(Wechat {
        base_url: base_url?,
        backup_url,
        ca_pem,
        connect_timeout,
        timeout,
        not_found_after,
    })
}

/// Parses the URL of a WeChat Pay host: `https`, or a fake on this machine.
fn wechat_url(url: &str, path: &str, check: &mut Check<'_>) -> Option<BaseUrl> {
    let url = check.url(url, path, Path::Refused, "https://api.mch.weixin.qq.com")?;
    if !url.is_tls() && !url.is_loopback() {
        check.error(
            path,
            "must be https: money does not travel over plain http, except to a stand-in on this machine",
        );
    }
    Some(url)
}

fn log(raw: &raw::Log, check: &mut Check<'_>) -> Log {
    let is_level = |text: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&text);
    let wrong = raw.level.split(',').find(|part| match part.split_once('=') {
        Some((module, level)) => module.is_empty() || !is_level(level),
        None => !is_level(part),
    });
    if let Some(wrong) = wrong {
        let levels = "write error, warn, info, debug or trace, perhaps per module: \"info,hyper=warn\"";
        check.error("log.level", format!("\"{wrong}\" is not a level: {levels}"));
    }
    Log {
        format: raw.format,
        level: raw.level.clone(),
    }
}

/// Warns if everybody who can reach the main port may order payouts.
fn warn_of_open_access(server: &Server, access: &Access, check: &mut Check<'_>) {
    let needs_certificate = server.tls.as_ref().is_some_and(|tls| tls.client_ca_pem.is_some());
    let Access {
        allow_from,
        trusted_proxies: _,
        token,
        sign_key,
    } = access;
    let open = allow_from.is_empty() && token.is_none() && sign_key.is_none() && !needs_certificate;
    if open && !server.listen.ip().is_loopback() {
        let text = "has no rule, so whoever reaches the main port may order payouts: give allow_from, token or sign_key";
        check.problems.warn("access", text);
    }
}

/// Red packets allow 15 characters for `client_ip`, which an IPv6 address exceeds. See docs/wechat-pay.md.
fn refuse_long_client_ip(client_ip: ClientIp, merchants: &[Merchant], check: &mut Check<'_>) {
    let pays_red_packets = merchants.iter().any(|merchant| match &merchant.to {
        // An order that is sent again keeps the address of its first attempt.
        To::Wechat(wechat) => wechat.product == Product::Redpack && !merchant.settle_only,
        To::Handler(_) | To::TransferBill(_) => false,
    });
    if let (ClientIp::Value(IpAddr::V6(_)), true) = (client_ip, pays_red_packets) {
        check.error(
            "client_ip.value",
            "must be an IPv4 address: WeChat's red packets take no other",
        );
    }
}
