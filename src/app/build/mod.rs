//! Builds stores, upstreams and the payout flow from a configuration.

mod merchants;

use std::sync::Arc;

use anyhow::Context as _;

pub(crate) use self::merchants::settings;
use crate::clock::Clock;
use crate::config::{self, Config, IdentitySource, LedgerStore, RedisServer, To};
use crate::ledger;
use crate::ledger::file::{FileKeeper, FileLedger};
use crate::ledger::keeper::Keeper;
use crate::ledger::redis::{RedisKeeper, RedisLedger, RedisSettings};
use crate::openids::cache::CacheSettings;
use crate::openids::file::FileIdentity;
use crate::openids::redis::RedisIdentity;
use crate::payouts::Payouts;
use crate::payouts::audit::Audit;
use crate::payouts::ports::{Identity, Ledger};
use crate::private;
use crate::redis::{self, Options, RedisLink};
use crate::rng::SystemRng;
use crate::server::budget::{Budget, Wanted};
use crate::telemetry::metrics::{Expiring, Metrics};

/// The connect and response timeouts towards Redis: longer than a command needs, shorter than a caller's timeouts.
const REDIS_CONNECT: std::time::Duration = std::time::Duration::from_secs(1);
const REDIS_RESPONSE: std::time::Duration = std::time::Duration::from_secs(2);

/// The payout flow on the configured stores.
///
/// # Errors
/// Names the store that cannot be opened, and why. A Redis that is down is no error here: the sidecar starts and is not
/// ready until Redis answers.
pub(crate) async fn payouts(
    config: &Config,
    clock: Arc<dyn Clock>,
    metrics: &Metrics,
) -> anyhow::Result<Payouts> {
    let settings = settings(config, &clock, metrics)?;
    let identity = identity(config, metrics).await?;
    let ledger: Arc<dyn Ledger> = match &config.ledger.store {
        LedgerStore::Redis {
            server,
            prefix,
            wait_replicas,
        } => {
            let settings = RedisSettings {
                prefix: prefix.clone(),
                retention: config.ledger.retention,
                wait_replicas: *wait_replicas,
                create: config.ledger.create,
            };
            let ledger = RedisLedger::new(link(server, "ledger", metrics), settings, Arc::clone(&clock));
            // A claim needs the ledger's time, so ask for it before the first request comes.
            if let Ok(Err(error)) = tokio::time::timeout(REDIS_RESPONSE, ledger.ready()).await {
                tracing::warn!(%error, "the ledger is not ready yet");
            }
            Arc::new(ledger)
        }
        LedgerStore::File { path } => {
            let syncs = metrics.stores.syncs.clone();
            let config::Ledger {
                create, retention, ..
            } = config.ledger;
            let ledger = FileLedger::open_counted(path, retention, create, Arc::clone(&clock), syncs);
            let ledger = ledger.context("[ledger] path")?;
            if std::fs::metadata(path).is_ok_and(|found| private::is_shared(&found)) {
                tracing::warn!(
                    path = %path.display(),
                    "others than this process's user may read the ledger, and in it who was paid: chmod 600"
                );
            }
            Arc::new(ledger)
        }
    };
    Ok(Payouts::new(
        Arc::new(ledger::instrumented::Instrumented::new(
            ledger,
            metrics,
            ledger_system(&config.ledger.store),
        )),
        Arc::new(crate::openids::instrumented::Instrumented::new(
            identity,
            metrics,
            identity_system(&config.identity),
        )),
        clock,
        Arc::new(SystemRng),
        vec![Arc::new(Audit), Arc::new(metrics.payouts.clone())],
        settings,
    ))
}

/// What the `ledger` commands use to create, inspect and repair the ledger as a whole.
///
/// # Errors
/// When the configured store cannot be addressed, then why.
pub(crate) fn keeper(config: &Config, clock: Arc<dyn Clock>) -> anyhow::Result<Box<dyn Keeper>> {
    Ok(match &config.ledger.store {
        LedgerStore::Redis { server, prefix, .. } => {
            let link = link(server, "ledger", &Metrics::default());
            let retention = config.ledger.retention;
            Box::new(RedisKeeper::new(link, prefix, retention, clock))
        }
        LedgerStore::File { path } => Box::new(FileKeeper::new(path)),
    })
}

/// The configured source of openids; Redis is behind a cache.
///
/// # Errors
/// When the file of the mapping cannot be used or its Redis cannot be addressed, then why.
pub(crate) async fn identity(config: &Config, metrics: &Metrics) -> anyhow::Result<Arc<dyn Identity>> {
    match &config.identity {
        IdentitySource::Redis {
            server,
            key,
            field,
            cache_ttl,
            cache_entries: _,
        } => {
            let means = crate::app::resources::means(config.server.memory_limit);
            let cache = CacheSettings {
                ttl: *cache_ttl,
                entries: Budget::of(means, Wanted::of(config)).cached,
            };
            let identity =
                RedisIdentity::new(link(server, "identity", metrics), key, field.as_deref(), cache);
            Ok(Arc::new(
                identity.map_err(anyhow::Error::msg).context("[identity]")?,
            ))
        }
        IdentitySource::File { path } => Ok(Arc::new(
            FileIdentity::open(path).await.context("[identity] path")?,
        )),
    }
}

/// The name of the ledger's store in spans.
fn ledger_system(store: &LedgerStore) -> &'static str {
    match store {
        LedgerStore::Redis { .. } => "redis",
        LedgerStore::File { .. } => "redb",
    }
}

/// The name of the identity store in spans.
fn identity_system(source: &IdentitySource) -> &'static str {
    match source {
        IdentitySource::Redis { .. } => "redis",
        IdentitySource::File { .. } => "csv",
    }
}

/// Logs that nothing can be changed over the admin port, if it has no token.
pub(crate) fn tell_access(config: &Config) {
    if config.admin.token.is_none() {
        tracing::info!(
            "no [admin] token is configured: /api is read-only, for callers on loopback, and nothing can be settled, \
             cancelled or drained over it"
        );
    }
}

/// Tells the metrics which merchants and certificates the configuration has.
pub(crate) fn describe(config: &Config, metrics: &Metrics) {
    let numbers = config
        .merchants
        .iter()
        .filter_map(|entry| entry.pattern.mch_id.clone());
    metrics.payouts.tell_apart(numbers.collect());
    let server = config.server.tls.as_ref().map(|tls| Expiring {
        owner: "server".to_owned(),
        not_after: tls.certificate.not_after(),
    });
    let merchants = config.merchants.iter().filter_map(|entry| match &entry.to {
        To::Wechat(merchant) => merchant.certificate.as_ref().map(|certificate| Expiring {
            owner: entry.name.clone(),
            not_after: certificate.not_after(),
        }),
        To::Handler(_) | To::TransferBill(_) => None,
    });
    let all: Vec<Expiring> = server.into_iter().chain(merchants).collect();
    metrics.certificates(&all);
}

/// A link to a configured Redis, with its circuit breaker in the metrics.
pub(crate) fn link(server: &RedisServer, name: &str, metrics: &Metrics) -> RedisLink {
    let options = Options {
        connect_timeout: REDIS_CONNECT,
        response_timeout: REDIS_RESPONSE,
        ca_pem: server.ca_pem.clone(),
    };
    let breaker = metrics.breakers().named(name, redis::BREAKER);
    RedisLink::behind(server.url.clone(), options, breaker)
}
