//! The ledger's stores: the same suite over the file, over a Redis and over a Cluster, and what is each one's own.

use std::time::Duration;

use payout_sidecar::ledger::redis::{RedisLedger, RedisSettings};
use payout_sidecar::payout::ports::Ledger;
use payout_sidecar::redis_link::{Options, RedisLink, RedisUrl};

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

pub fn ledger(url: &str) -> RedisLedger {
    let settings = RedisSettings {
        prefix: "payout:".into(),
        retention: Duration::from_secs(400 * 86_400),
        wait_replicas: 0,
    };
    RedisLedger::new(link(url), settings)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_does_what_every_store_must() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Duration::from_secs(400 * 86_400);
    let ledger = file_ledger(&dir.path().join("payouts.redb"), retention).await;
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
async fn a_redis_that_has_forgotten_takes_no_more_orders() {
    let redis = Redis::start();
    let (one, other) = (ledger(&redis.url()), ledger(&redis.url()));
    one.ready().await.unwrap();
    one.ready().await.unwrap();
    other.ready().await.unwrap();
    redis.cli(&["FLUSHALL"]);
    let error = one.ready().await.unwrap_err();
    assert!(error.text.contains("was reset"), "{error}");
    assert!(one.insert(&suite::order("A1", 100)).await.is_err());
    // A fresh process makes a new mark; one that knew the old one is not fooled by it.
    ledger(&redis.url()).ready().await.unwrap();
    assert!(other.ready().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn merchants_that_were_lost_are_added_again() {
    let redis = Redis::start();
    let (one, other) = (ledger(&redis.url()), ledger(&redis.url()));
    let order = suite::order("A1", 100);
    one.insert(&order).await.unwrap();
    redis.cli(&["DEL", "payout:merchants"]);
    let at = order.due_at().unwrap();
    assert_eq!(
        one.due(at, at, 5).await.unwrap(),
        std::slice::from_ref(&order.key)
    );
    assert_eq!(
        other.due(at, at, 5).await.unwrap(),
        [order.key],
        "also by who never saw it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_are_due_first_whosever_they_are() {
    let redis = Redis::start();
    let ledger = ledger(&redis.url());
    let mut orders = Vec::new();
    for n in 0..12_i64 {
        let mut order = suite::order(&format!("A{n}"), 100);
        order.key.mch_id = serde_json::from_value(serde_json::json!(format!("{}", 20 + n % 3))).unwrap();
        if let payout_sidecar::rules::order::State::Pending(pending) = &mut order.state {
            pending.lease_until = payout_sidecar::rules::term::Millis(1000 + n);
        }
        ledger.insert(&order).await.unwrap();
        orders.push(order.key);
    }
    let now = payout_sidecar::rules::term::Millis(2000);
    let later = payout_sidecar::rules::term::Millis(9000);
    for five in orders.chunks(5) {
        assert_eq!(ledger.due(now, later, 5).await.unwrap(), five);
    }
}
