//! The ledger's stores: runs the same suite over the file, one Redis and a Cluster, and tests what only one of them
//! has.

use std::sync::Arc;
use std::time::Duration;

use payout_domain::ids::LedgerTime;
use payout_domain::order::Order;
use payout_sidecar::clock::{Clock, SystemClock};
use payout_sidecar::ledger::redis::{RedisLedger, RedisSettings};
use payout_sidecar::payouts::ports::{Inserted, Ledger, Replaced};
use payout_sidecar::redis::{Options, RedisLink, RedisUrl};

use crate::suite;
use crate::support::file_ledger;
use test_support::redis::{Cluster, Redis};

const A1: &str = "payout:{19}:order:A1";

pub fn link(url: &str) -> RedisLink {
    let options = Options {
        connect_timeout: Duration::from_secs(1),
        response_timeout: Duration::from_secs(2),
        ca_pem: None,
    };
    RedisLink::new(RedisUrl::parse(url).unwrap(), options)
}

/// A ledger that creates its store if there is none.
pub fn ledger(url: &str) -> RedisLedger {
    ledger_of(url, true)
}

pub fn ledger_of(url: &str, create: bool) -> RedisLedger {
    ledger_by(url, create, Arc::new(SystemClock))
}

/// A ledger that reads the time from `clock`.
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
    assert_eq!(redis.cli(&["PTTL", A1]), "-1");
    ledger.replace(&pending, &suite::settled(&pending)).await.unwrap();
    let left: u64 = redis.cli(&["PTTL", A1]).parse().unwrap();
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
    let other = "{\"format\":9}";
    redis.cli(&["HSET", A1, "p", other, "c", other]);
    assert!(ledger.insert(&order).await.is_err());
    assert!(
        ledger
            .get(&order.key)
            .await
            .unwrap_err()
            .text
            .contains("unknown format 9")
    );
    assert_eq!(redis.cli(&["HMGET", A1, "p", "c"]), [other, other].join("\n"));
}

/// A second claim of the same order number, with another amount.
fn claimed_otherwise(no: &str) -> Order {
    suite::order_by(2, no, 101)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_full_tells_what_is_there_and_takes_nothing() {
    let redis = Redis::start();
    let ledger = ledger(&redis.url());
    let first = suite::order("A1", 100);
    assert!(matches!(ledger.insert(&first).await.unwrap(), Inserted::Done));
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    match ledger.insert(&claimed_otherwise("A1")).await.unwrap() {
        Inserted::Exists(stored) => assert_eq!(*stored, first),
        other => panic!("{other:?}"),
    }
    let second = suite::order("A2", 100);
    let error = ledger.insert(&second).await.unwrap_err();
    assert!(!error.unsure && error.text.contains("OOM"), "{error}");
    let error = ledger.replace(&first, &suite::settled(&first)).await.unwrap_err();
    assert!(!error.unsure && error.text.contains("OOM"), "{error}");
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(redis.cli(&["EXISTS", "payout:{19}:order:A2"]), "0");
    assert_eq!(ledger.get(&first.key).await.unwrap(), Some(first));
    assert!(matches!(ledger.insert(&second).await.unwrap(), Inserted::Done));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_lacks_a_part_or_has_another_claims_is_refused_and_left_alone() {
    let redis = Redis::start();
    let ledger = ledger(&redis.url());
    let (ours, other) = (suite::order("A1", 100), claimed_otherwise("A1"));
    assert!(matches!(ledger.insert(&other).await.unwrap(), Inserted::Done));
    let field = |name: &str| redis.cli(&["HGET", A1, name]);
    let of_other = ["p", "c"].map(field);
    assert!(matches!(ledger.remove(&other).await.unwrap(), Replaced::Done));
    for damage in [
        &["HDEL", A1, "p"][..],
        &["HDEL", A1, "c"],
        &["HSET", A1, "p", &of_other[0]],
        &["HSET", A1, "c", &of_other[1]],
        &["HSET", A1, "p", "", "c", &of_other[1]],
        &["HSET", A1, "p", &of_other[0], "c", ""],
        &["HSET", A1, "p", "", "c", ""],
    ] {
        assert!(matches!(ledger.insert(&ours).await.unwrap(), Inserted::Done));
        redis.cli(damage);
        let before = redis.cli(&["HMGET", A1, "p", "c"]);
        for order in [&ours, &other] {
            let results = [
                ledger.insert(order).await.map(|_| ()),
                ledger.replace(order, &suite::settled(order)).await.map(|_| ()),
                ledger.remove(order).await.map(|_| ()),
                ledger.get(&order.key).await.map(|_| ()),
                ledger.unsettled(9).await.map(|_| ()),
            ];
            for (nth, result) in results.into_iter().enumerate() {
                let error = result.unwrap_err();
                let says =
                    error.text.contains("the record of 19:A1") && error.text.contains("decides nothing");
                assert!(!error.unsure && says, "{damage:?}, {nth}: {error}");
            }
        }
        assert_eq!(redis.cli(&["HMGET", A1, "p", "c"]), before, "{damage:?}");
        redis.cli(&["DEL", A1]);
        for set in ["payout:{19}:due", "payout:{19}:log"] {
            redis.cli(&["ZREM", set, "A1"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_another_claim_of_the_same_version_writes_nothing() {
    let redis = Redis::start();
    let ledger = ledger(&redis.url());
    let (ours, mut other) = (suite::order("A1", 100), claimed_otherwise("A1"));
    ledger.insert(&ours).await.unwrap();
    other.version = ours.version;
    for (previous, next) in [(&other, suite::settled(&other)), (&ours, suite::settled(&other))] {
        match ledger.replace(previous, &next).await {
            Ok(Replaced::Moved(Some(found))) => assert_eq!(*found, ours),
            Err(error) => assert!(!error.unsure && error.text.contains("was not written"), "{error}"),
            done => panic!("{done:?}"),
        }
        assert_eq!(ledger.get(&ours.key).await.unwrap().as_ref(), Some(&ours));
    }
}

/// What a payout sends to Redis, read from Redis's own statistics.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_claim_pins_is_sent_once() {
    let redis = Redis::start();
    let ledger = ledger(&redis.url());
    let first = suite::order("A1", 100);
    // Loads the scripts, so that later calls send only their hashes.
    let before = suite::order("B1", 100);
    ledger.insert(&before).await.unwrap();
    ledger.replace(&before, &suite::settled(&before)).await.unwrap();
    let pinned = |name: &str| redis.cli(&["HGET", A1, name]);
    let seen = redis
        .seen_while(async || ledger.insert(&first).await.map(|_| ()).unwrap())
        .await;
    let calls = |seen: &str| -> Vec<String> {
        let lines = seen
            .lines()
            .filter(|line| line.contains("\"EVALSHA\"") && line.contains("A1"));
        lines.map(str::to_owned).collect()
    };
    let claims = calls(&seen);
    assert!(
        claims.len() == 1 && claims[0].contains("oX12abcdefghijk9f"),
        "{seen}"
    );
    let before = pinned("p");
    assert!(before.contains("oX12abcdefghijk9f"), "{before}");
    let next = suite::settled(&first);
    let seen = redis
        .seen_while(async || ledger.replace(&first, &next).await.map(|_| ()).unwrap())
        .await;
    let changes = calls(&seen);
    assert!(changes.len() == 1 && changes[0].contains("sendListid"), "{seen}");
    for line in seen.lines().filter(|line| line.contains("\"HSET\"")) {
        assert!(!line.contains("\"p\""), "{line}");
    }
    for parameter in ["oX12abcdefghijk9f", "user-1", "remark"] {
        assert!(!seen.contains(parameter), "{parameter}: {seen}");
    }
    assert_eq!(pinned("p"), before);
    assert_eq!(ledger.get(&first.key).await.unwrap(), Some(next));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_are_due_first_whosever_they_are() {
    let redis = Redis::start();
    let ledger = ledger(&redis.url());
    ledger.ready().await.unwrap();
    let begun = ledger.time().0 - 5000;
    let mut orders = Vec::new();
    for n in 0..12_i64 {
        let merchant = format!("{}", 20 + n % 3);
        let order = suite::due_of(&merchant, &format!("A{n}"), LedgerTime(begun + n));
        ledger.insert(&order).await.unwrap();
        orders.push(order.key.clone());
    }
    for five in orders.chunks(5) {
        assert_eq!(
            ledger.due(Duration::from_secs(9), 5, &|_| None).await.unwrap(),
            five
        );
    }
}
