//! A configuration without its secrets, for `/api/config`, and in short for `check`.
//!
//! Built by hand: every part is taken apart by name, so that a new setting must be looked at here before it compiles.
//! A secret is shown as `[set]`, one that is not given as null.

use serde_json::{Value, json};

use crate::rules::limits::Limits;
use crate::rules::term::HandlerId;
use crate::secret::Secret;

use super::units::{ByteSize, show};
use super::{
    Access, Admin, Backend, BillMerchant, Certificate, ClientIp, ClientName, Config, Handler, HandlerFormat,
    IdentitySource, Ledger, LedgerStore, Log, LogFormat, Merchant, RedisServer, Server, ServerTls, Telemetry,
    To, Wechat, WechatMerchant,
};

/// The configuration as JSON, under the names of the file, without any secret.
#[must_use]
pub fn redacted(config: &Config) -> Value {
    let Config {
        server,
        admin: Admin {
            listen: admin_listen,
            token,
        },
        access,
        client_ip,
        identity,
        ledger,
        limits,
        reveal_openid,
        backend,
        wechat,
        merchants,
        log: Log { format, level },
        telemetry: Telemetry { otlp },
        warnings,
        files,
        fingerprint: _,
    } = config;
    json!({
        "server": show_server(server),
        "admin": { "listen": admin_listen.to_string(), "token": set(token.as_ref()) },
        "access": show_access(access),
        "client_ip": { "value": show_client_ip(*client_ip) },
        "identity": show_identity(identity),
        "ledger": show_ledger(ledger),
        "limits": show_limits(limits),
        "answer": { "reveal_openid": reveal_openid },
        "backend": show_backend(backend.as_ref()),
        "wechat": show_wechat(wechat),
        "merchant": merchants.iter().map(show_merchant).collect::<Vec<_>>(),
        "log": { "format": show_log_format(*format), "level": level },
        "telemetry": { "otlp": otlp.as_ref().map(|settings| &settings.url) },
        "warnings": warnings,
        "files": files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>(),
    })
}

/// What a person wants to see confirmed, one line each: where it listens, where it keeps what, who is paid how.
#[must_use]
pub fn summary(config: &Config) -> Vec<String> {
    let tls = if config.server.tls.is_some() { " (TLS)" } else { "" };
    let mut lines = vec![
        format!("main port   {}{tls}", config.server.listen),
        format!("admin port  {}", config.admin.listen),
        format!(
            "identity    {}",
            match &config.identity {
                IdentitySource::Redis {
                    server, key, field, ..
                } => format!(
                    "{}, {key}{}",
                    server.url,
                    field.as_ref().map_or_else(String::new, |f| format!(" field {f}"))
                ),
                IdentitySource::File { path } => path.display().to_string(),
            }
        ),
        format!(
            "ledger      {}, kept for {}",
            match &config.ledger.store {
                LedgerStore::Redis { server, prefix, .. } => format!("{}, {prefix}*", server.url),
                LedgerStore::File { path } => path.display().to_string(),
            },
            show(config.ledger.retention)
        ),
        format!(
            "backend     {}",
            config
                .backend
                .as_ref()
                .map_or("none: other paths are answered 404", |backend| &backend.url)
        ),
    ];
    lines.extend(config.merchants.iter().map(|merchant| {
        let to = match &merchant.to {
            To::Handler(handler) => format!("handler {}", handler.url),
            To::Wechat(wechat) => format!("{} at {}", product(wechat), config.wechat.base_url),
            To::TransferBill(bill) => {
                let notified = bill.notify_path.as_deref().map_or_else(String::new, |path| {
                    format!(", notifications at {path} of the main port")
                });
                format!("transfer-bill at {}{notified}", config.wechat.base_url)
            }
        };
        let old = if merchant.settle_only {
            ", no new orders"
        } else {
            ""
        };
        format!("{}: {to}{old}", merchant.name)
    }));
    lines
}

fn set(secret: Option<&Secret>) -> Option<&'static str> {
    secret.map(|_| "[set]")
}

fn show_server(server: &Server) -> Value {
    let Server {
        listen,
        max_body,
        header_timeout,
        body_timeout,
        idle_timeout,
        request_timeout,
        max_in_flight,
        max_connections,
        memory_limit,
        http2,
        lame_duck,
        drain_timeout,
        tls,
    } = server;
    json!({
        "listen": listen.to_string(),
        "max_body": u64::try_from(*max_body).map_or_else(|_| max_body.to_string(), |bytes| ByteSize(bytes).to_string()),
        "header_timeout": show(*header_timeout),
        "body_timeout": show(*body_timeout),
        "idle_timeout": show(*idle_timeout),
        "request_timeout": show(*request_timeout),
        "max_in_flight": max_in_flight,
        "max_connections": max_connections,
        "memory_limit": memory_limit.map(|bytes| ByteSize(bytes).to_string()),
        "http2": http2,
        "lame_duck": show(*lame_duck),
        "drain_timeout": show(*drain_timeout),
        "tls": tls.as_ref().map(|ServerTls { certificate, client_ca_pem, client_names }| json!({
            "certificate": show_certificate(certificate),
            "client_ca": client_ca_pem.as_ref().map(|_| "[given]"),
            "client_names": client_names.iter().map(ClientName::as_str).collect::<Vec<_>>(),
        })),
    })
}

fn show_backend(backend: Option<&Backend>) -> Value {
    match backend {
        None => json!({ "url": null }),
        Some(Backend { url, timeout }) => json!({
            "url": url,
            "timeout": show(timeout.unwrap_or_default()),
        }),
    }
}

fn show_access(access: &Access) -> Value {
    let Access {
        allow_from,
        trusted_proxies,
        token,
        sign_key,
    } = access;
    let texts = |ranges: &[ipnet::IpNet]| ranges.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "allow_from": texts(allow_from),
        "trusted_proxies": texts(trusted_proxies),
        "token": set(token.as_ref()),
        "sign_key": set(sign_key.as_ref()),
    })
}

fn show_client_ip(client_ip: ClientIp) -> String {
    match client_ip {
        ClientIp::Keep => "keep".into(),
        ClientIp::Value(address) => address.to_string(),
    }
}

fn show_identity(identity: &IdentitySource) -> Value {
    match identity {
        IdentitySource::Redis {
            server: RedisServer { url, ca_pem },
            key,
            field,
            cache_ttl,
            cache_entries,
        } => json!({
            "source": "redis",
            "url": url.to_string(),
            "ca": ca_pem.as_ref().map(|_| "[given]"),
            "key": key,
            "field": field,
            "cache_ttl": show(*cache_ttl),
            "cache_entries": cache_entries,
        }),
        IdentitySource::File { path } => json!({ "source": "file", "path": path.display().to_string() }),
    }
}

fn show_ledger(ledger: &Ledger) -> Value {
    let Ledger {
        store,
        create,
        retention,
    } = ledger;
    let retention = show(*retention);
    match store {
        LedgerStore::Redis {
            server: RedisServer { url, ca_pem },
            prefix,
            wait_replicas,
        } => json!({
            "store": "redis",
            "url": url.to_string(),
            "ca": ca_pem.as_ref().map(|_| "[given]"),
            "prefix": prefix,
            "wait_replicas": wait_replicas,
            "create": create,
            "retention": retention,
        }),
        LedgerStore::File { path } => json!({
            "store": "file",
            "path": path.display().to_string(),
            "create": create,
            "retention": retention,
        }),
    }
}

fn show_limits(limits: &Limits) -> Value {
    let Limits {
        max_amount,
        per_user_per_day,
        per_merchant_per_day,
        payouts_per_user_per_day,
    } = limits;
    json!({
        "max_amount": max_amount,
        "per_user_per_day": per_user_per_day,
        "per_merchant_per_day": per_merchant_per_day,
        "payouts_per_user_per_day": payouts_per_user_per_day,
    })
}

fn show_wechat(wechat: &Wechat) -> Value {
    let Wechat {
        base_url,
        backup_url,
        ca_pem,
        connect_timeout,
        timeout,
        not_found_after,
    } = wechat;
    json!({
        "base_url": base_url,
        "backup_url": backup_url,
        "ca": ca_pem.as_ref().map(|_| "[given]"),
        "connect_timeout": show(*connect_timeout),
        "timeout": show(*timeout),
        "not_found_after": show(*not_found_after),
    })
}

fn show_merchant(merchant: &Merchant) -> Value {
    let Merchant {
        name: _,
        pattern,
        to,
        settle_only,
    } = merchant;
    let mch_id = pattern.mch_id.as_ref().map_or("*", |id| id.as_str());
    let wx_app_id = pattern.wx_app_id.as_ref().map_or("*", |id| id.as_str());
    match to {
        To::Handler(Handler {
            url,
            id,
            formerly,
            format,
            idempotent,
            timeout,
            not_found_after,
            forward_credentials,
            token,
        }) => json!({
            "mch_id": mch_id,
            "wx_app_id": wx_app_id,
            "to": "handler",
            "settle_only": settle_only,
            "handler_url": url,
            "handler_id": id.as_str(),
            "formerly": formerly.iter().map(HandlerId::as_str).collect::<Vec<_>>(),
            "handler_format": match format {
                HandlerFormat::Json => "json",
                HandlerFormat::Xml => "xml",
                HandlerFormat::Same => "same",
            },
            "idempotent": idempotent,
            "timeout": show(*timeout),
            "not_found_after": show(*not_found_after),
            "forward_credentials": forward_credentials,
            "handler_token": set(token.as_ref()),
        }),
        To::TransferBill(BillMerchant {
            mch_id: _,
            key: _,
            serial_no,
            apiv3_key,
            public_key,
            scene,
            notify_path: _,
        }) => json!({
            "mch_id": mch_id,
            "wx_app_id": wx_app_id,
            "to": "wechat",
            "settle_only": settle_only,
            "product": "transfer-bill",
            "key": "[set]",
            "serial_no": serial_no,
            "apiv3_key": apiv3_key.as_ref().map(|_| "[set]"),
            "public_key_id": public_key.as_ref().map(|(id, _)| id),
            "public_key": public_key.as_ref().map(|_| "[given]"),
            "transfer_scene_id": scene.id,
            "user_recv_perception": scene.perception,
            "scene_report_infos": scene
                .reports
                .iter()
                .map(|(kind, content)| json!({ "info_type": kind, "info_content": content }))
                .collect::<Vec<_>>(),
            "notify_url": scene.notify_url,
        }),
        To::Wechat(wechat) => {
            let WechatMerchant {
                product: _,
                send_name,
                wishing,
                scene_id,
                api_key,
                certificate,
                request_credentials,
            } = wechat;
            json!({
                "mch_id": mch_id,
                "wx_app_id": wx_app_id,
                "to": "wechat",
                "settle_only": settle_only,
                "product": product(wechat),
                "send_name": send_name,
                "wishing": wishing,
                "scene_id": scene_id,
                "api_key": set(api_key.as_ref()),
                "certificate": certificate.as_ref().map(|certificate| show_certificate(certificate)),
                "request_credentials": request_credentials,
            })
        }
    }
}

/// A product under its name in the file.
fn product(wechat: &WechatMerchant) -> &'static str {
    use crate::rules::wechat::Product;
    match wechat.product {
        Product::Redpack => "redpack",
        Product::MiniProgramRedpack => "mini-program-redpack",
        Product::Transfer => "transfer",
    }
}

fn show_certificate(certificate: &Certificate) -> Value {
    json!({ "serial": certificate.serial(), "not_after_ms": certificate.not_after().0 })
}

fn show_log_format(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Json => "json",
        LogFormat::Text => "text",
    }
}
