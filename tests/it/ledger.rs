//! The ledger's stores: the same suite over the file, over a Redis and over a Cluster, and what is each one's own.

use std::sync::Arc;
use std::time::Duration;

use payout_sidecar::clock::{Clock, SystemClock};
use payout_sidecar::ledger::redis::{RedisLedger, RedisSettings};
use payout_sidecar::payout::ports::Ledger;
use payout_sidecar::redis_link::{Options, RedisLink, RedisUrl};
use payout_sidecar::rules::term::{LedgerTime, MchId};

use crate::suite;
use crate::support::file_ledger;
use crate::support::redis::{Cluster, Redis};

pub fn link(url: &str) -> RedisLink {
    let options = Options {
        connect_timeout: Duration::from_secs(1),
        response_timeout: Duration::from_secs(2),
        ca_pem: None,
    };
    RedisLink::new(RedisUrl::parse(url).unwrap(), options)
}

/// A ledger that is made where there is none.
pub fn ledger(url: &str) -> RedisLedger {
    ledger_of(url, true)
}

pub fn ledger_of(url: &str, create: bool) -> RedisLedger {
    ledger_by(url, create, Arc::new(SystemClock))
}

/// The same, which goes by this clock.
pub fn ledger_by(url: &str, create: bool, clock: Arc<dyn Clock>) -> RedisLedger {
    let settings = RedisSettings {
        prefix: "payout:".into(),
        retention: Duration::from_secs(400 * 86_400),
        wait_replicas: 0,
        create,
    };
    RedisLedger::new(link(url), settings, clock)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_does_what_every_store_must() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Duration::from_secs(400 * 86_400);
    let ledger = file_ledger(&dir.path().join("payouts.redb"), retention, Arc::new(SystemClock)).await;
    suite::run(&ledger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_redis_does_what_every_store_must() {
    let redis = Redis::start();
    suite::run(&ledger(&redis.url())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_does_what_every_store_must() {
    let cluster = Cluster::start();
    suite::run(&ledger(&cluster.url())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settled_records_expire_and_unsettled_ones_do_not() {
    let redis = Redis::start();
    let ledger = ledger(&redis.url());
    let pending = suite::order("A1", 100);
    ledger.insert(&pending).await.unwrap();
    let key = "payout:{19}:order:A1";
    assert_eq!(redis.cli(&["PTTL", key]), "-1");
    ledger.replace(&pending, &suite::settled(&pending)).await.unwrap();
    let left: u64 = redis.cli(&["PTTL", key]).parse().unwrap();
    assert!((399 * 86_400_000..=400 * 86_400_000).contains(&left), "{left}");
    assert_eq!(redis.cli(&["TYPE", "payout:{19}:due"]), "none", "nothing is due");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_under_which_redis_may_forget_are_named() {
    let safe = Redis::start();
    assert_eq!(
        ledger(&safe.url()).warnings().await.unwrap(),
        Vec::<String>::new()
    );
    let forgetful = Redis::start_with(&["--appendonly", "no", "--maxmemory-policy", "allkeys-lru"], None);
    let warnings = ledger(&forgetful.url()).warnings().await.unwrap();
    assert!(
        warnings
            .iter()
            .any(|warning| warning.contains("maxmemory-policy is allkeys-lru")),
        "{warnings:?}"
    );
    assert!(
        warnings
            .iter()
            .any(|warning| warning.contains("appendonly is no")),
        "{warnings:?}"
    );
    let cluster = Cluster::start();
    assert_eq!(
        ledger(&cluster.url()).warnings().await.unwrap(),
        Vec::<String>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_is_refused_and_left_alone() {
    let redis = Redis::start();
    let ledger = ledger(&redis.url());
    ledger.ready().await.unwrap();
    let order = suite::order("A1", 100);
    redis.cli(&["HSET", "payout:{19}:order:A1", "v", "1", "r", "{\"format\":9}"]);
    assert!(ledger.insert(&order).await.is_err());
    assert!(
        ledger
            .get(&order.key)
            .await
            .unwrap_err()
            .text
            .contains("unknown format 9")
    );
    assert_eq!(
        redis.cli(&["HGET", "payout:{19}:order:A1", "r"]),
        "{\"format\":9}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_are_due_first_whosever_they_are() {
    let redis = Redis::start();
    let ledger = ledger(&redis.url());
    ledger.ready().await.unwrap();
    let begun = ledger.time().0 - 5000;
    let mut orders = Vec::new();
    for n in 0..12_i64 {
        let mut order = suite::due_at(&format!("A{n}"), LedgerTime(begun + n));
        order.key.mch_id = MchId::parse(&format!("{}", 20 + n % 3)).unwrap();
        ledger.insert(&order).await.unwrap();
        orders.push(order.key);
    }
    for five in orders.chunks(5) {
        assert_eq!(
            ledger.due(Duration::from_secs(9), 5, &|_| None).await.unwrap(),
            five
        );
    }
}
