//! The identity of a ledger in Redis: how it behaves when its store is missing, emptied, not writable, or partly
//! unavailable. `ledger.rs` tests the storage of orders.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use payout_domain::ids::LedgerTime;
use payout_domain::limits::{Charge, Counter, merchant_day};
use payout_domain::order::Order;
use payout_sidecar::clock::{Clock as _, SystemClock};
use payout_sidecar::ledger::redis::RedisLedger;
use payout_sidecar::payouts::ports::{Inserted, Ledger, ListFilter, Replaced, StoreError};

use crate::ledger::{ledger, ledger_of};
use crate::suite;
use crate::support::sidecar::{APP, Encoding, OPENID, Payout, Sidecar, To, Upstream, in_redis};
use test_support::http::{Answer, call};
use test_support::redis::{Cluster, Redis, Sentinels};
use test_support::until;

fn of(mch_id: &str, no: &str) -> Order {
    suite::order_of(mch_id, no, 100, 7, *suite::BASE)
}

fn charged(no: &str) -> Order {
    let mut order = suite::order(no, 100);
    order.charges = vec![Charge {
        counter: Counter::UserFen,
        name: "user-fen:20780:wx1:u".into(),
        amount: 100,
        limit: 1000,
    }];
    order
}

async fn is_claimed(ledger: &RedisLedger, order: &Order) -> bool {
    matches!(ledger.insert(order).await, Ok(Inserted::Done))
}

/// Checks that the ledger refuses to claim and to read the order, that it wrote nothing, and that both errors say why.
async fn is_refused(ledger: &RedisLedger, order: &Order, says: &str) {
    let claim = ledger.insert(order).await.unwrap_err();
    assert!(!claim.unsure && claim.text.contains(says), "{claim}");
    let look = ledger.get(&order.key).await.unwrap_err();
    assert!(look.text.contains(says), "{look}");
}

fn keys(redis: &Redis) -> BTreeSet<String> {
    redis.cli(&["KEYS", "*"]).lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_on_an_emptied_redis_is_refused_in_the_same_step() {
    let redis = Redis::start();
    let one = ledger(&redis.url());
    assert!(is_claimed(&one, &of("19", "A1")).await);
    assert!(one.get(&of("19", "A2").key).await.unwrap().is_none());
    assert!(
        one.get(&of("20", "A2").key).await.unwrap().is_none(),
        "of a merchant without orders"
    );
    redis.cli(&["FLUSHALL"]);
    // No readiness check has run since.
    is_refused(&one, &of("19", "A1"), "").await;
    is_refused(&one, &of("19", "A2"), "accept-loss").await;
    is_refused(&one, &of("20", "A2"), "accept-loss").await;
    let orders = keys(&redis).into_iter().filter(|key| key.contains("order"));
    assert_eq!(orders.count(), 0);
    let why = one.ready().await.unwrap_err();
    assert!(why.text.contains("was lost"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_costs_one_call_and_so_does_its_outcome() {
    let redis = Redis::start();
    let ledger = ledger(&redis.url());
    let pay = async |no: &str| {
        let claim = of("19", no);
        assert!(is_claimed(&ledger, &claim).await);
        let outcome = suite::settled(&claim);
        assert!(matches!(
            ledger.replace(&claim, &outcome).await.unwrap(),
            Replaced::Done
        ));
    };
    pay("A1").await;
    redis.cli(&["CONFIG", "RESETSTAT"]);
    let looked = || {
        redis
            .info("stats", "total_reads_processed")
            .parse::<u64>()
            .unwrap()
    };
    let of_a_look = (looked(), looked());
    let of_a_look = of_a_look.1 - of_a_look.0;
    let before = looked();
    for no in 0..100 {
        pay(&format!("B{no}")).await;
    }
    assert_eq!(looked() - before - of_a_look, 200);
    assert_eq!(redis.calls("evalsha"), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_forgotten_order_is_refused_and_the_others_go_on() {
    let redis = Redis::start();
    let one = ledger(&redis.url());
    for no in ["A1", "A2"] {
        assert!(is_claimed(&one, &of("19", no)).await);
    }
    redis.cli(&["DEL", "payout:{19}:order:A1"]);
    for ledger in [one, ledger(&redis.url())] {
        is_refused(&ledger, &of("19", "A1"), "forgotten the record of order 19:A1").await;
        assert_eq!(
            ledger.get(&of("19", "A2").key).await.unwrap(),
            Some(of("19", "A2"))
        );
        let page = ListFilter {
            limit: 9,
            ..ListFilter::default()
        };
        assert_eq!(ledger.list(&page).await.unwrap().orders, [of("19", "A2")]);
        assert_eq!(ledger.unsettled(9).await.unwrap(), [of("19", "A2")]);
    }
    assert!(is_claimed(&ledger(&redis.url()), &of("19", "A3")).await);
    assert_ne!(
        redis.cli(&["ZSCORE", "payout:{19}:log", "A1"]),
        "",
        "it is known to have been there"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_past_its_retention_is_no_loss() {
    let redis = Redis::start();
    let ledger = ledger(&redis.url());
    assert!(is_claimed(&ledger, &of("19", "A1")).await);
    redis.cli(&["DEL", "payout:{19}:order:A1"]);
    let long_ago = ledger.time().0 - 401 * 86_400_000;
    redis.cli(&["ZADD", "payout:{19}:log", &long_ago.to_string(), "A1"]);
    assert!(ledger.get(&of("19", "A1").key).await.unwrap().is_none());
    assert!(is_claimed(&ledger, &of("19", "A1")).await);
    redis.cli(&["ZADD", "payout:{19}:log", &long_ago.to_string(), "A2"]);
    let all = ListFilter {
        limit: 9,
        ..ListFilter::default()
    };
    assert_eq!(ledger.list(&all).await.unwrap().orders.len(), 1);
    assert_eq!(
        redis.cli(&["ZSCORE", "payout:{19}:log", "A2"]),
        "",
        "it leaves the log as it is met"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merchant_whose_log_is_gone_is_refused_and_the_others_go_on() {
    let redis = Redis::start();
    let (one, other) = (ledger(&redis.url()), ledger(&redis.url()));
    for mch_id in ["19", "20"] {
        assert!(is_claimed(&one, &of(mch_id, "A1")).await);
    }
    redis.cli(&["DEL", "payout:{19}:log"]);
    for ledger in [&one, &other, &ledger(&redis.url())] {
        is_refused(ledger, &of("19", "A2"), "forgotten the records of merchant 19").await;
        match ledger.insert(&of("20", "A1")).await.unwrap() {
            Inserted::Done => {}
            other => panic!("{other:?}"),
        }
        let why = ledger.ready().await.unwrap_err();
        assert!(why.text.contains("merchant 19:"), "{why}");
    }
    // An outcome is still recorded if the order's record exists, but the order cannot be claimed again.
    let claim = of("19", "A1");
    let mut again = claim.clone();
    again.version.number += 1;
    let error = one.replace(&claim, &again).await.unwrap_err();
    assert!(!error.unsure && error.text.contains("merchant 19"), "{error}");
    let outcome = suite::settled(&claim);
    assert!(matches!(
        one.replace(&claim, &outcome).await.unwrap(),
        Replaced::Done
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_is_made_by_a_person_and_taken_up_without_a_restart() {
    let redis = Redis::start();
    let waiting = ledger_of(&redis.url(), false);
    is_refused(&waiting, &of("19", "A1"), "run payout-sidecar ledger create").await;
    assert!(
        waiting
            .ready()
            .await
            .unwrap_err()
            .text
            .contains("holds no ledger")
    );
    assert_eq!(keys(&redis), BTreeSet::new());
    assert!(
        ledger(&redis.url()).ready().await.is_ok(),
        "create = true makes it"
    );
    waiting.ready().await.unwrap();
    assert!(is_claimed(&waiting, &of("19", "A1")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_starts_on_an_emptied_store_takes_it_for_no_new_ledger() {
    let redis = Redis::start();
    let one = ledger(&redis.url());
    assert!(is_claimed(&one, &of("19", "A1")).await);
    redis.cli(&["FLUSHALL"]);
    let late = ledger_of(&redis.url(), false);
    is_refused(&late, &of("19", "A1"), "holds no ledger").await;
    // The running replica notices the loss, and marks the store.
    assert!(one.ready().await.is_err());
    let eager = ledger(&redis.url());
    is_refused(&eager, &of("19", "A1"), "held a ledger that was lost").await;
    is_refused(&one, &of("19", "A1"), "was lost").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_a_ledger_is_no_empty_store() {
    let redis = Redis::start();
    assert!(is_claimed(&ledger(&redis.url()), &of("19", "A1")).await);
    redis.cli(&["DEL", "payout:ledger"]);
    let eager = ledger(&redis.url());
    is_refused(&eager, &of("20", "A1"), "may be the rest of one (payout:{19}:").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_ledger_is_not_taken_for_the_known_one() {
    let redis = Redis::start();
    let one = ledger(&redis.url());
    assert!(is_claimed(&one, &of("19", "A1")).await);
    redis.cli(&["FLUSHALL"]);
    let eager = ledger(&redis.url());
    assert!(is_claimed(&eager, &of("19", "A2")).await, "nobody had told it");
    is_refused(&one, &of("19", "A1"), "").await;
    assert!(one.ready().await.unwrap_err().text.contains("and no longer"));
    is_refused(&one, &of("20", "A1"), "and no longer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_half_made_is_made_and_what_a_fail_over_lost_is_seen() {
    let redis = Redis::start();
    let one = ledger(&redis.url());
    one.ready().await.unwrap();
    redis.cli(&["HSET", "payout:ledger", "m:19", "making"]);
    assert!(is_claimed(&one, &of("19", "A1")).await);
    assert_eq!(redis.cli(&["HGET", "payout:ledger", "m:19"]), "made");
    // A fail-over loses a merchant's records and the entry that says that there were any. A replica that knows of them
    // reports the loss.
    redis.cli(&["HDEL", "payout:ledger", "m:19"]);
    redis.cli(&[
        "DEL",
        "payout:{19}:log",
        "payout:{19}:due",
        "payout:{19}:order:A1",
    ]);
    assert!(one.ready().await.is_err());
    assert!(one.ready().await.unwrap_err().text.contains("merchant 19"));
    is_refused(&ledger(&redis.url()), &of("19", "A1"), "merchant 19").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_is_the_ledgers_and_goes_on_with_whoever_looks_after_it() {
    let redis = Redis::start();
    let one = ledger(&redis.url());
    assert_eq!(one.time(), LedgerTime(0));
    one.ready().await.unwrap();
    let stored = || -> i64 { redis.cli(&["HGET", "payout:ledger", "t"]).parse().unwrap() };
    let ahead = stored() + 86_400_000;
    redis.cli(&["HSET", "payout:ledger", "t", &ahead.to_string()]);
    let other = ledger(&redis.url());
    other.ready().await.unwrap();
    assert!((ahead..ahead + 5000).contains(&other.time().0));
    assert!(one.time() < other.time());
    one.ready().await.unwrap();
    assert!((ahead..ahead + 5000).contains(&one.time().0));
    tokio::time::sleep(Duration::from_millis(50)).await;
    one.ready().await.unwrap();
    assert!(stored() >= ahead + 50);
    redis.cli(&["HDEL", "payout:ledger", "t"]);
    assert!(one.ready().await.unwrap_err().text.contains("lost its time"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_acl_forbids_is_named_and_nothing_is_written() {
    for command in [
        "zadd", "pexpire", "set", "hset", "del", "zrem", "persist", "zscore", "hmget", "get",
    ] {
        let redis = Redis::start();
        ledger(&redis.url()).ready().await.unwrap();
        redis.cli(&["ACL", "SETUSER", "default", &format!("-{command}")]);
        let ledger = ledger(&redis.url());
        let why = ledger.ready().await.unwrap_err();
        assert!(
            why.text.contains(&format!("forbids {}", command.to_uppercase())) || command == "hmget",
            "{why}"
        );
        is_refused(&ledger, &charged("A1"), "").await;
        redis.cli(&["ACL", "SETUSER", "default", "+@all"]);
        let orders: Vec<_> = keys(&redis)
            .into_iter()
            .filter(|key| key.contains("{19}"))
            .collect();
        assert_eq!(orders, [""; 0], "{command}");
        ledger.ready().await.unwrap();
        assert!(is_claimed(&ledger, &charged("A1")).await, "{command}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forbidden_while_orders_are_claimed_leaves_none_behind() {
    for command in ["zadd", "hset", "set"] {
        let redis = Redis::start();
        let ledger = ledger(&redis.url());
        assert!(is_claimed(&ledger, &charged("A1")).await);
        let before = keys(&redis);
        let state = |redis: &Redis| {
            ["due", "log"].map(|set| redis.cli(&["ZRANGE", &format!("payout:{{19}}:{set}"), "0", "-1"]))
        };
        let (orders, sum) = (state(&redis), "payout:{19}:sum:user-fen:20780:wx1:u");
        redis.cli(&["ACL", "SETUSER", "default", &format!("-{command}")]);
        // No readiness check has run since.
        let claim = charged("A2");
        let error: StoreError = ledger.insert(&claim).await.unwrap_err();
        assert!(error.unsure, "a script may have been stopped half way: {error}");
        // So the caller removes the claim, however much of it exists.
        let _gone = ledger.remove(&claim).await.unwrap();
        redis.cli(&["ACL", "SETUSER", "default", "+@all"]);
        assert_eq!((keys(&redis), state(&redis)), (before, orders), "{command}");
        assert_eq!(redis.cli(&["GET", sum]), "100", "{command}");
        assert!(redis.cli(&["PTTL", sum]).parse::<i64>().unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_that_differ_from_the_records_are_mended() {
    let redis = Redis::start();
    let ledger = ledger(&redis.url());
    let name = merchant_day(SystemClock.now());
    let key = format!("payout:{{19}}:sum:{name}");
    let charges = vec![Charge {
        counter: Counter::MerchantFen,
        name: name.clone(),
        amount: 100,
        limit: 10_000,
    }];
    let mut orders = Vec::new();
    for n in 0..3 {
        let mut order = suite::order(&format!("A{n}"), 100);
        order.charges = charges.clone();
        assert!(is_claimed(&ledger, &order).await);
        orders.push(order);
    }
    // An order that was refused days ago and is claimed again today.
    let days_ago = suite::moment(suite::BASE.wall.0 - 3 * 86_400_000);
    let old = suite::order_of("19", "B1", 100, 7, days_ago);
    assert!(is_claimed(&ledger, &old).await);
    let mut again = old.clone();
    again.version.number += 1;
    again.charges = charges;
    assert!(matches!(
        ledger.replace(&old, &again).await.unwrap(),
        Replaced::Done
    ));

    let mch_id = &old.key.mch_id;
    let compare = async || ledger.compare_sums(mch_id).await.unwrap();
    let sum = || redis.cli(&["GET", &key]);
    assert_eq!(
        (compare().await, compare().await, sum()),
        (0, 0, "400".to_owned())
    );
    for wrong in [
        &["DEL", &key][..],
        &["INCRBY", &key, "500"],
        &["DECRBY", &key, "1"],
    ] {
        redis.cli(wrong);
        assert_eq!(compare().await, 0, "it may be on its way");
        assert_eq!((compare().await, sum()), (1, "400".to_owned()), "{wrong:?}");
        assert!(redis.cli(&["PTTL", &key]).parse::<i64>().unwrap() > 0);
    }
    // The forgotten order may have been paid, so its amount stays in the sum.
    redis.cli(&["DEL", "payout:{19}:order:A0"]);
    assert_eq!(
        (compare().await, compare().await, sum()),
        (0, 0, "400".to_owned())
    );
    assert!(matches!(ledger.remove(&orders[1]).await.unwrap(), Replaced::Done));
    assert_eq!(sum(), "300");
}

/// The index of the node that serves `key`.
fn home(cluster: &Cluster, key: &str) -> usize {
    let is_home = |node: &Redis| !node.cli(&["EXISTS", key]).starts_with("MOVED");
    cluster.nodes.iter().position(is_home).unwrap()
}

fn log_of(mch_id: &str) -> String {
    format!("payout:{{{mch_id}}}:log")
}

/// Starts a Cluster in which thirty merchants have one order each. Returns it with the ledger and the merchants'
/// numbers.
async fn thirty_merchants() -> (Cluster, RedisLedger, Vec<String>) {
    let cluster = Cluster::start();
    for node in &cluster.nodes {
        node.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let ledger = ledger(&cluster.url());
    let merchants: Vec<String> = (20..50).map(|n| n.to_string()).collect();
    for mch_id in &merchants {
        assert!(is_claimed(&ledger, &of(mch_id, "A1")).await);
    }
    ledger.ready().await.unwrap();
    (cluster, ledger, merchants)
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_a_master_that_is_away_stops_its_own_merchants_only() {
    for is_registrys in [false, true] {
        let (mut cluster, ledger, merchants) = thirty_merchants().await;
        let registry = home(&cluster, "payout:ledger");
        let killed = if is_registrys {
            registry
        } else {
            (registry + 1) % 3
        };
        let (away, here): (Vec<&String>, Vec<&String>) = merchants
            .iter()
            .partition(|mch_id| home(&cluster, &log_of(mch_id)) == killed);
        assert!(!away.is_empty() && !here.is_empty());
        cluster.nodes[killed].kill();
        let begun = Instant::now();
        for (n, mch_id) in here.iter().enumerate() {
            // A request for an unavailable merchant must not delay the others.
            assert!(!is_claimed(&ledger, &of(away[n % away.len()], "A2")).await);
            until("the others are claimed", async || {
                is_claimed(&ledger, &of(mch_id, "A2")).await
            })
            .await;
            assert!(is_claimed(&ledger, &of(mch_id, "A3")).await, "{mch_id}");
        }
        assert!(begun.elapsed() < Duration::from_secs(50), "{:?}", begun.elapsed());
        let mut due = BTreeSet::new();
        until("the others are due", async || {
            let taken = ledger
                .due(Duration::from_secs(60), 99, &|_| None)
                .await
                .unwrap_or_default();
            due.extend(taken.into_iter().map(|key| key.mch_id.as_str().to_owned()));
            due.len() == here.len()
        })
        .await;
        assert!(here.iter().all(|mch_id| due.contains(*mch_id)));
        until("those that are served are ready", async || {
            ledger.ready().await.is_ok()
        })
        .await;
        cluster.nodes[killed].restart();
        until("all are claimed again", async || {
            for mch_id in &away {
                if !is_claimed(&ledger, &of(mch_id, "A4")).await {
                    return false;
                }
            }
            true
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_one_emptied_master_is_noticed() {
    let (cluster, ledger, merchants) = thirty_merchants().await;
    let emptied = (home(&cluster, "payout:ledger") + 1) % 3;
    let (lost, kept): (Vec<&String>, Vec<&String>) = merchants
        .iter()
        .partition(|mch_id| home(&cluster, &log_of(mch_id)) == emptied);
    assert!(!lost.is_empty() && !kept.is_empty());
    cluster.nodes[emptied].cli(&["FLUSHALL"]);
    let restarted = ledger_of(&cluster.url(), true);
    for ledger in [&ledger, &restarted] {
        for mch_id in &lost {
            is_refused(ledger, &of(mch_id, "A1"), &format!("merchant {mch_id}")).await;
            is_refused(ledger, &of(mch_id, "A2"), &format!("merchant {mch_id}")).await;
        }
        for mch_id in &kept {
            assert!(ledger.insert(&of(mch_id, "A1")).await.is_ok());
        }
        let why = ledger.ready().await.unwrap_err();
        let names: Vec<&str> = lost.iter().map(|mch_id| mch_id.as_str()).collect();
        assert!(
            why.text.contains(&format!("merchant {}:", names.join(", "))),
            "{why}"
        );
    }
    drop(cluster);
}

/// The code that a sidecar answered: `errCode`, or else `resultCode`.
fn code(answer: &Answer) -> String {
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let code = ["errCode", "resultCode"]
        .iter()
        .find_map(|name| body[name].as_str());
    code.unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_sidecar_pays_again_what_redis_has_forgotten() {
    let redis = Redis::start();
    let upstream = Upstream::start(To::Handler { idempotent: false }).await;
    let identity = format!("openid:{APP}:user-1");
    redis.cli(&["SET", &identity, OPENID]);
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(run(dir.path(), &redis.url(), &["create"]).0, 0);
    let configuration = in_redis(&redis.url()).replace("create = true\n", "") + &upstream.configuration();
    let (one, other) = (
        Sidecar::start(&configuration).await,
        Sidecar::start(&configuration).await,
    );
    let pay = async |sidecar: &Sidecar, no: &str| {
        let payout = Payout::new(no);
        (
            code(&sidecar.pay(Encoding::Json, &payout).await),
            code(&sidecar.status(Encoding::Json, &payout).await),
        )
    };
    for n in 0..10 {
        assert_eq!(pay(&one, &format!("A{n}")).await.0, "SUCCESS");
    }
    redis.cli(&["FLUSHALL"]);
    // Without the mapping, and again with it: in neither case may an answer say that nothing was paid.
    for is_mapping_back in [false, true] {
        if is_mapping_back {
            redis.cli(&["SET", &identity, OPENID]);
        }
        let late = Sidecar::start(&configuration).await;
        for n in 0..10 {
            for sidecar in [&one, &other, &late] {
                let told = pay(sidecar, &format!("A{n}")).await;
                assert_eq!(told, ("SYSTEMERROR".to_owned(), "SYSTEMERROR".to_owned()));
            }
        }
        assert!(!late.is_ready().await);
    }
    let unready = call(one.admin, "GET", "/readyz", &[], b"").await;
    assert!(unready.body.contains("was lost"), "{}", unready.body);
    for n in 0..10 {
        assert_eq!(upstream.times_sent(&format!("A{n}")), 1);
    }
    assert_eq!(
        run(dir.path(), &redis.url(), &["accept-loss", "--reason", "a test"]).0,
        0
    );
    let restarted = Sidecar::start(&configuration).await;
    assert_eq!(pay(&restarted, "B1").await.0, "SUCCESS");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_whose_node_dies_while_it_is_moved_is_noticed() {
    let mut cluster = Cluster::start();
    for node in &cluster.nodes {
        node.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let ledger = ledger(&cluster.url());
    ledger.ready().await.unwrap();
    let registry = home(&cluster, "payout:ledger");
    let names = (20..99).map(|n| n.to_string());
    let mut elsewhere = names.filter(|mch_id| home(&cluster, &log_of(mch_id)) != registry);
    // For the first merchant the log is migrated in time, for the second only some orders.
    let (first, second) = (elsewhere.next().unwrap(), elsewhere.next().unwrap());
    for (mch_id, is_log_moved) in [(&first, true), (&second, false)] {
        for n in 0..10 {
            assert!(is_claimed(&ledger, &of(mch_id, &format!("A{n}"))).await);
        }
        let log = log_of(mch_id);
        let slot = cluster.nodes[0].cli(&["CLUSTER", "KEYSLOT", &log]);
        let (from, to) = (home(&cluster, &log), registry);
        let id = |node: usize| cluster.nodes[node].cli(&["CLUSTER", "MYID"]);
        let port = cluster.nodes[to].port.to_string();
        cluster.nodes[to].cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]);
        cluster.nodes[from].cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]);
        let mut moved: Vec<String> = (0..5)
            .map(|n| format!("payout:{{{mch_id}}}:order:A{n}"))
            .collect();
        if is_log_moved {
            moved.push(log);
        }
        for key in &moved {
            let told = cluster.nodes[from].cli(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
            assert_eq!(told, "OK");
        }
    }
    // The keys that were not migrated are lost with the node. The surviving node takes over its slots.
    for (mch_id, _) in [(&first, true), (&second, false)] {
        let log = log_of(mch_id);
        let slot = cluster.nodes[registry].cli(&["CLUSTER", "KEYSLOT", &log]);
        let id = cluster.nodes[registry].cli(&["CLUSTER", "MYID"]);
        for node in &cluster.nodes {
            node.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]);
        }
    }
    let dead = (registry + 1) % 3;
    cluster.nodes[dead].kill();
    let other = ledger_of(&cluster.url(), false);
    for ledger in [&ledger, &other] {
        for (mch_id, is_log_moved) in [(&first, true), (&second, false)] {
            for n in 5..10 {
                let order = of(mch_id, &format!("A{n}"));
                // Until the nodes agree on the slot's owner, the old one may answer that it has this very claim, and a
                // connection to the dead node may break under a command.
                until("the claim is refused as forgotten", async || {
                    let claim = ledger.insert(&order).await;
                    claim.is_err_and(|error| !error.unsure && error.text.contains("forgotten"))
                })
                .await;
                until("the look is refused as forgotten", async || {
                    let look = ledger.get(&order.key).await.unwrap_err();
                    look.text.contains("forgotten")
                })
                .await;
            }
            let new = of(mch_id, "B1");
            if is_log_moved {
                until(
                    "the log that was moved takes a new order",
                    async || match ledger.insert(&new).await {
                        Ok(inserted) => matches!(inserted, Inserted::Done),
                        Err(error) => {
                            assert!(!error.text.contains("forgotten"), "{error}");
                            false
                        }
                    },
                )
                .await;
            } else {
                until(
                    "a new order without the log is refused as forgotten",
                    async || {
                        let refused = ledger.insert(&new).await.unwrap_err();
                        !refused.unsure && refused.text.contains("forgotten")
                    },
                )
                .await;
            }
        }
    }
}

/// Runs `payout-sidecar ledger …` on a Redis. Returns the exit code and the output.
fn run(dir: &Path, url: &str, arguments: &[&str]) -> (i32, String) {
    let config = dir.join("config.toml");
    let merchant = "[[merchant]]\nmch_id = \"19\"\nto = \"handler\"\nhandler_url = \"http://127.0.0.1:1\"\n";
    std::fs::write(
        &config,
        format!(
            "[backend]\nurl = \"http://127.0.0.1:1\"\n[identity]\nsource = \"redis\"\nurl = \"{url}\"\n[ledger]\nstore = \"redis\"\nurl = \"{url}\"\n{merchant}"
        ),
    )
    .unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_payout-sidecar"))
        .arg("ledger")
        .args(arguments)
        .arg("--config")
        .arg(&config)
        .output()
        .unwrap();
    let output = [done.stdout, done.stderr].concat();
    let output = String::from_utf8(output).unwrap().trim_end().to_owned();
    eprintln!("$ payout-sidecar ledger {}\n{output}", arguments.join(" "));
    (done.status.code().unwrap(), output)
}

/// The ledger's identity in the output: the word after `ledger `.
fn identity(output: &str) -> String {
    let mut words = output.split("ledger ").skip(1).filter_map(|rest| rest.get(..32));
    words
        .find(|word| word.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .unwrap()
        .to_owned()
}

/// Runs the ledger commands through a ledger's whole life. `forget` deletes the keys with these prefixes; without any,
/// everything.
async fn a_ledgers_life(url: &str, forget: impl Fn(&[&str])) {
    let dir = tempfile::tempdir().unwrap();
    let ledger_command = |arguments: &[&str]| run(dir.path(), url, arguments);
    let place = format!("{} under \"payout:\"", crate::ledger::link(url).url());
    let accept = ["accept-loss", "--reason", "compared with the statement"];
    let none = format!("payout-sidecar: {place} holds no ledger: make one by payout-sidecar ledger create");
    assert_eq!(ledger_command(&["status"]), (1, none));
    let never = format!(
        "payout-sidecar: {place} holds no ledger, and nothing that may be left of one: make one by payout-sidecar ledger create"
    );
    assert_eq!(ledger_command(&accept), (1, never));
    let (code, output) = ledger_command(&["create"]);
    let id = identity(&output);
    assert_eq!((code, output), (0, format!("made ledger {id} in {place}")));
    assert_eq!(
        ledger_command(&["create"]),
        (1, format!("payout-sidecar: {place} holds ledger {id} already"))
    );
    let running = ledger_of(url, false);
    for mch_id in ["19", "20", "21"] {
        for no in ["A1", "A2"] {
            assert!(is_claimed(&running, &of(mch_id, no)).await);
        }
    }
    let whole = (0, format!("{place} holds ledger {id}, whole, 3 merchants"));
    assert_eq!(ledger_command(&["status"]), whole);
    assert_eq!(
        ledger_command(&accept),
        (
            1,
            format!("payout-sidecar: {place} has lost nothing of ledger {id}")
        )
    );

    // Loses one merchant's log, and one order of another merchant.
    forget(&["payout:{19}:log", "payout:{19}:due", "payout:{20}:order:A1"]);
    let lost = format!("{place} has lost records of merchant 19, 20 in ledger {id}");
    let mend = "restore it, or run payout-sidecar ledger accept-loss";
    assert_eq!(
        ledger_command(&["status"]),
        (1, format!("payout-sidecar: {lost}: {mend}"))
    );
    let (code, output) = ledger_command(&accept);
    let (goes_on, audit) = output.split_once('\n').unwrap();
    assert_eq!(
        (code, goes_on),
        (
            0,
            format!("{lost}; the loss is accepted, ledger {id} goes on").as_str()
        )
    );
    let audit: serde_json::Value = serde_json::from_str(audit).unwrap();
    for (name, value) in [
        ("target", "audit"),
        ("ledger", &id),
        ("reason", "compared with the statement"),
    ] {
        assert_eq!(audit[name], value, "{audit}");
    }
    assert_eq!(ledger_command(&["status"]), whole);
    // A sidecar that ran all the while continues. The merchant's remaining orders are known and due again.
    assert!(
        is_claimed(&running, &of("20", "A1")).await,
        "given up by a person"
    );
    assert!(matches!(
        running.insert(&of("19", "A1")).await,
        Ok(Inserted::Done | Inserted::Exists(_))
    ));
    assert_eq!(running.unsettled(99).await.unwrap().len(), 6);

    // Loses the ledger's own entry: the command finds the merchants by their keys.
    forget(&["payout:ledger"]);
    assert!(running.ready().await.is_err());
    let lost = format!("{place} has lost its ledger, and holds records of merchant 19, 20, 21");
    assert_eq!(
        ledger_command(&["status"]),
        (1, format!("payout-sidecar: {lost}: {mend}"))
    );
    assert_eq!(
        ledger_command(&["create"]).0,
        1,
        "what is left is not to be taken for nothing"
    );
    let (code, output) = ledger_command(&accept);
    let new = identity(&output);
    assert_ne!(new, id);
    assert_eq!(
        (code, output.lines().next().unwrap()),
        (
            0,
            format!("{lost}; the loss is accepted, ledger {new} takes its place: restart the sidecars that are running").as_str()
        )
    );
    let whole = (0, format!("{place} holds ledger {new}, whole, 3 merchants"));
    assert_eq!(ledger_command(&["status"]), whole);
    assert!(
        running.insert(&of("19", "A3")).await.is_err(),
        "it knows the other one"
    );
    let restarted = ledger_of(url, false);
    assert!(is_claimed(&restarted, &of("19", "A3")).await);

    // Loses everything, and a running replica notices.
    forget(&[]);
    assert!(restarted.ready().await.is_err());
    let lost = format!("{place} has lost its ledger");
    assert_eq!(
        ledger_command(&["status"]),
        (1, format!("payout-sidecar: {lost}: {mend}"))
    );
    assert_eq!(
        ledger_command(&["create"]),
        (
            1,
            format!("payout-sidecar: {place} held a ledger that was lost: {mend}")
        )
    );
    assert_eq!(ledger_command(&accept).0, 0);
    let (code, output) = ledger_command(&["status"]);
    let new = identity(&output);
    assert_eq!(
        (code, output),
        (0, format!("{place} holds ledger {new}, whole, 0 merchants"))
    );
    assert!(is_claimed(&ledger_of(url, false), &of("19", "A1")).await);
}

fn forget_in(redis: &Redis, keys: &[&str]) {
    if keys.is_empty() {
        redis.cli(&["FLUSHALL"]);
    }
    for key in keys {
        redis.cli(&["DEL", key]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledgers_life_in_one_redis() {
    let redis = Redis::start();
    a_ledgers_life(&redis.url(), |keys| forget_in(&redis, keys)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledgers_life_behind_sentinels() {
    let sentinels = Sentinels::start();
    a_ledgers_life(&sentinels.url(), |keys| forget_in(&sentinels.servers[0], keys)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledgers_life_in_a_cluster() {
    let cluster = Cluster::start();
    a_ledgers_life(&cluster.url(), |keys| {
        for node in &cluster.nodes {
            forget_in(node, keys);
        }
    })
    .await;
}
