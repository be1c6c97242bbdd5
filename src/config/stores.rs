//! Checks `[identity]` and `[ledger]`: which store, and the keys that it needs. This module opens no store and
//! connects to none.

use std::path::PathBuf;
use std::time::Duration;

use crate::openids::template::Template;
use crate::redis::RedisUrl;

use super::check::Check;
use super::raw;
use super::secret_ref::SecretRef;
use super::units::show;
use super::{IdentitySource, Ledger, LedgerStore, RedisServer};

/// WeChat knows an order number for 365 days; the ledger must not forget its record sooner (docs/promise.md).
const SHORTEST_RETENTION: Duration = Duration::from_secs(365 * 86_400);

/// Checks a Redis server. `section` holds its `url` and `ca`.
fn redis(
    url: Option<&SecretRef>,
    ca: Option<&str>,
    section: &str,
    check: &mut Check<'_>,
) -> Option<RedisServer> {
    let path = format!("{section}.url");
    let ca_pem = check.ca(ca, &format!("{section}.ca"));
    if url.is_none() {
        check.error(
            &path,
            "is missing: write e.g. url = \"redis://127.0.0.1:6379/0\", or choose \"file\" with a path",
        );
    }
    let url = RedisUrl::parse(check.secret(url, &path)?.expose());
    let url = check.take(&path, url);
    Some(RedisServer { url: url?, ca_pem })
}

/// Resolves the path of an embedded store relative to the configuration file's directory.
fn store_path(path: Option<&str>, at: &str, example: &str, check: &mut Check<'_>) -> Option<PathBuf> {
    match path {
        Some(path) if !path.is_empty() => Some(check.sources.locate(path)),
        Some(_) | None => {
            check.error(at, format!("is missing: write e.g. path = \"{example}\""));
            None
        }
    }
}

pub(super) fn identity(raw: &raw::Identity, check: &mut Check<'_>) -> Option<IdentitySource> {
    match raw.source {
        raw::StoreKind::File => {
            let idle = ["url", "ca", "key", "field", "cache_ttl", "cache_entries"];
            check.idle("identity", &idle, "source = \"file\"");
            let path = store_path(raw.path.as_deref(), "identity.path", "openids.csv", check);
            Some(IdentitySource::File { path: path? })
        }
        raw::StoreKind::Redis => {
            check.idle("identity", &["path"], "source = \"redis\"");
            let key = template(&raw.key, "identity.key", check);
            let field = raw
                .field
                .as_ref()
                .map(|field| template(field, "identity.field", check))
                .unwrap_or_default();
            if !key.names_user() && !field.names_user() {
                check.error(
                    "identity.key",
                    "must contain {userId} (or identity.field must): all users would share one openid",
                );
            }
            if !key.names_app() && !field.names_app() {
                let text = "does not contain {wxAppId}: right only if all payouts are made under one app";
                check.problems.warn("identity.key", text);
            }
            let cache_entries = check.count(raw.cache_entries, 0, "identity.cache_entries");
            let server = redis(raw.url.as_ref(), raw.ca.as_deref(), "identity", check);
            Some(IdentitySource::Redis {
                server: server?,
                key: raw.key.clone(),
                field: raw.field.clone(),
                cache_ttl: raw.cache_ttl.0,
                cache_entries,
            })
        }
    }
}

/// Checks the template of a key or a field.
fn template(text: &str, path: &str, check: &mut Check<'_>) -> Template {
    if text.is_empty() {
        check.error(path, "is empty: write e.g. \"openid:{wxAppId}:{userId}\"");
    }
    check.take(path, Template::parse(text)).unwrap_or_default()
}

pub(super) fn ledger(raw: &raw::Ledger, check: &mut Check<'_>) -> Option<Ledger> {
    if raw.retention.0 < SHORTEST_RETENTION {
        let text = "must be at least 365d, for so long does WeChat know an order number";
        check.error(
            "ledger.retention",
            format!("{text}, not {}", show(raw.retention.0)),
        );
    }
    let store = match raw.store {
        raw::StoreKind::File => {
            check.idle(
                "ledger",
                &["url", "ca", "prefix", "wait_replicas"],
                "store = \"file\"",
            );
            let path = store_path(raw.path.as_deref(), "ledger.path", "payouts.redb", check);
            LedgerStore::File { path: path? }
        }
        raw::StoreKind::Redis => {
            check.idle("ledger", &["path"], "store = \"redis\"");
            if raw.prefix.contains(['{', '}']) {
                check.error(
                    "ledger.prefix",
                    "must have no braces: they choose the slot in a Redis Cluster",
                );
            }
            let wait_replicas = check.count(raw.wait_replicas, 0, "ledger.wait_replicas");
            let server = redis(raw.url.as_ref(), raw.ca.as_deref(), "ledger", check);
            LedgerStore::Redis {
                server: server?,
                prefix: raw.prefix.clone(),
                wait_replicas,
            }
        }
    };
    if raw.create && raw.store == raw::StoreKind::Redis {
        let text = "is true, so a replica that starts after Redis was emptied would take the empty store for a new ledger";
        check.problems.warn(
            "ledger.create",
            format!("{text}: leave it out, and make the ledger once by `payout-sidecar ledger create`"),
        );
    }
    Some(Ledger {
        store,
        create: raw.create,
        retention: raw.retention.0,
    })
}
