//! Stores that lose data, refuse writes or are partly unavailable while sidecars run: compared with the upstream's
//! books, no order is paid twice, and no caller is told anything about an order whose record may be lost.

use std::collections::BTreeSet;

use tempfile::TempDir;

use crate::support::sidecar::{
    APP, Encoding, MERCHANT, OPENID, Payout, Sidecar, To, Upstream, embedded, in_redis,
};
use test_support::http::call;
use test_support::redis::{Cluster, Redis};
use test_support::until;

/// A handler that pays on each call: only the ledger prevents a second payment.
const PAYS_EACH_CALL: To = To::Handler { idempotent: false };

/// Keeps the user ids in a file, so that they survive whatever the ledger's Redis loses.
fn ledger_in_redis(dir: &TempDir, url: &str, create: bool) -> String {
    let stores = embedded(dir);
    let (identity, _file) = stores.split_once("[ledger]").unwrap();
    format!("{identity}[ledger]\nstore = \"redis\"\nurl = \"{url}\"\ncreate = {create}\n")
}

async fn start_on(upstream: &Upstream, url: &str, create: bool) -> Sidecar {
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!(
        "{}{}",
        ledger_in_redis(&dir, url, create),
        upstream
            .configuration()
            .replace(&format!("\"{MERCHANT}\""), "\"*\"")
    );
    Sidecar::start_in(dir, &configuration, &[]).await
}

fn order(mch_id: &str, order_no: &str) -> Payout {
    Payout {
        mch_id: mch_id.to_owned(),
        ..Payout::new(order_no)
    }
}

/// Sends all orders at once, and returns the code of each.
async fn codes(sidecar: &Sidecar, orders: &[Payout]) -> Vec<String> {
    let asked = orders.iter().map(|order| sidecar.pay(Encoding::Json, order));
    let answers = futures_util::future::join_all(asked).await;
    answers.iter().map(|answer| answer.code()).collect()
}

/// Whether an order is recorded with this state.
async fn is_shown(sidecar: &Sidecar, order: &Payout, state: &str) -> bool {
    let path = format!("/api/payouts/{}/{}", order.mch_id, order.order_no);
    let shown = call(sidecar.admin, "GET", &path, &[], b"").await;
    let shown: serde_json::Value = serde_json::from_str(&shown.body).unwrap_or_default();
    shown["state"] == state
}

async fn all_are_paid(sidecar: &Sidecar, orders: &[Payout]) {
    for (order, code) in orders.iter().zip(codes(sidecar, orders).await) {
        assert_eq!(code, "SUCCESS", "{order:?}");
    }
}

fn paid_once(upstream: &Upstream, orders: &[Payout], when: &str) {
    let twice: Vec<&str> = orders
        .iter()
        .map(|order| order.order_no.as_str())
        .filter(|order_no| upstream.times_sent(order_no) != 1)
        .collect();
    assert_eq!(twice, [""; 0], "not paid once, {when}");
}

/// Checks that the sidecar sends no repeat, answers `SYSTEMERROR`, and denies nothing in status answers.
async fn nothing_is_told(sidecar: &Sidecar, upstream: &Upstream, orders: &[Payout], when: &str) {
    let told = codes(sidecar, orders).await;
    paid_once(upstream, orders, when);
    for (order, code) in orders.iter().zip(told) {
        assert_eq!(code, "SYSTEMERROR", "{order:?} {when}");
        let status = sidecar.status(Encoding::Json, order).await;
        assert_eq!(status.code(), "SYSTEMERROR", "{order:?} {when}: status");
    }
}

fn twenty() -> Vec<Payout> {
    (0..20).map(|n| Payout::new(&format!("A{n}"))).collect()
}

/// Guards against noticing an emptied Redis only in a periodic check, seconds later: until then repeats would be paid
/// again.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_was_flushed_pays_no_repeat() {
    let redis = Redis::start();
    let upstream = Upstream::start(PAYS_EACH_CALL).await;
    let sidecar = start_on(&upstream, &redis.url(), true).await;
    let orders = twenty();
    all_are_paid(&sidecar, &orders).await;
    redis.cli(&["FLUSHALL"]);
    nothing_is_told(&sidecar, &upstream, &orders, "at once").await;
    until("it is noticed", async || !sidecar.is_ready().await).await;
    nothing_is_told(&sidecar, &upstream, &orders, "when it was noticed").await;
    let new = sidecar.pay(Encoding::Json, &Payout::new("B1")).await;
    assert_eq!(
        (new.code().as_str(), upstream.times_sent("B1")),
        ("SYSTEMERROR", 0)
    );
}

/// The same after a restart of Redis without its data.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_restarts_without_its_data_pays_no_repeat() {
    let mut redis = Redis::start_with(&[], None);
    let upstream = Upstream::start(PAYS_EACH_CALL).await;
    let sidecar = start_on(&upstream, &redis.url(), true).await;
    let orders = twenty();
    all_are_paid(&sidecar, &orders).await;
    redis.kill();
    redis.restart();
    // Checks until the sidecar has noticed the loss, and once more afterwards.
    until("it is noticed", async || {
        nothing_is_told(&sidecar, &upstream, &orders, "while it comes back").await;
        let ready = call(sidecar.admin, "GET", "/readyz?stores", &[], b"").await;
        ready.body.contains("lost")
    })
    .await;
    nothing_is_told(&sidecar, &upstream, &orders, "when it was noticed").await;
}

/// Guards against a replica that starts on the emptied store and creates a new ledger: it would pay while the other
/// replica refuses.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_starts_on_a_flushed_redis_pays_no_repeat() {
    let redis = Redis::start();
    let upstream = Upstream::start(PAYS_EACH_CALL).await;
    let mut first = start_on(&upstream, &redis.url(), true).await;
    let orders = twenty();
    all_are_paid(&first, &orders).await;
    redis.cli(&["FLUSHALL"]);
    let second = start_on(&upstream, &redis.url(), false).await;
    nothing_is_told(&second, &upstream, &orders, "by a second replica").await;
    until("the first one notices", async || !first.is_ready().await).await;
    let eager = start_on(&upstream, &redis.url(), true).await;
    for (sidecar, which) in [
        (&first, "first"),
        (&second, "second"),
        (&eager, "one that may make ledgers"),
    ] {
        nothing_is_told(sidecar, &upstream, &orders, which).await;
    }
    // A restart does not accept the loss.
    first.kill();
    first.launch(&[]).await;
    nothing_is_told(&first, &upstream, &orders, "after a restart").await;
}

/// The user ids are lost together with the ledger. The repeat of a paid order must not be told that its user has no
/// openid.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_with_its_user_ids_is_not_told_openid_error() {
    let redis = Redis::start();
    redis.cli(&["SET", &format!("openid:{APP}:user-1"), OPENID]);
    let upstream = Upstream::start(PAYS_EACH_CALL).await;
    let sidecar = Sidecar::start(&format!("{}{}", in_redis(&redis.url()), upstream.configuration())).await;
    let orders = twenty();
    all_are_paid(&sidecar, &orders).await;
    redis.cli(&["FLUSHALL"]);
    nothing_is_told(&sidecar, &upstream, &orders, "at once").await;
    until("it is noticed", async || !sidecar.is_ready().await).await;
    nothing_is_told(&sidecar, &upstream, &orders, "when it was noticed").await;
}

/// Guards against a script that Redis stops half way: the order would stay pending forever, in no list, and use up the
/// user's limit.
#[tokio::test(flavor = "multi_thread")]
async fn what_redis_forbids_leaves_no_order_and_no_charge_behind() {
    for command in ["zadd", "pexpire"] {
        let redis = Redis::start();
        let upstream = Upstream::start(PAYS_EACH_CALL).await;
        let dir = tempfile::tempdir().unwrap();
        let configuration = format!(
            "{}[limits]\nper_user_per_day = 600\n{}",
            ledger_in_redis(&dir, &redis.url(), true),
            upstream.configuration()
        );
        let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
        let orders: Vec<Payout> = (0..6).map(|n| Payout::new(&format!("A{n}"))).collect();
        all_are_paid(&sidecar, &orders[..1]).await;
        redis.cli(&["ACL", "SETUSER", "default", &format!("-{command}")]);
        let told = codes(&sidecar, &orders[1..]).await;
        redis.cli(&["ACL", "SETUSER", "default", &format!("+{command}")]);
        for order in &orders[1..] {
            until(
                &format!("{command}: no order is left behind, repeated by nobody"),
                async || !is_shown(&sidecar, order, "pending").await,
            )
            .await;
        }
        for order in &orders[1..] {
            until(
                &format!("{command}: {} is paid, within the limit", order.order_no),
                async || {
                    let code = sidecar.pay(Encoding::Json, order).await.code();
                    assert!(
                        ["SUCCESS", "SYSTEMERROR", "PROCESSING"].contains(&code.as_str()),
                        "{command}: {code}"
                    );
                    code == "SUCCESS"
                },
            )
            .await;
        }
        paid_once(&upstream, &orders, command);
        let over = sidecar.pay(Encoding::Json, &Payout::new("B1")).await;
        assert_eq!(over.code(), "AMOUNT_LIMIT", "{command} {told:?}");
    }
}

/// A Cluster of three masters, and thirty merchants.
struct Thirty {
    cluster: Cluster,
    merchants: Vec<String>,
}

impl Thirty {
    fn start() -> Self {
        let cluster = Cluster::start();
        for node in &cluster.nodes {
            node.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
        }
        Self {
            cluster,
            merchants: (20..50).map(|n| n.to_string()).collect(),
        }
    }

    /// One order for each merchant.
    fn orders(&self) -> Vec<Payout> {
        let of = |mch_id: &String| order(mch_id, &format!("A{mch_id}"));
        self.merchants.iter().map(of).collect()
    }

    /// A node that holds merchants' orders but none of the ledger's common keys, and those merchants.
    fn node_of_merchants_only(&self) -> (usize, BTreeSet<String>) {
        let keys = |node: &Redis| node.cli(&["KEYS", "payout:*"]);
        let has_marks = |keys: &str| keys.lines().any(|key| !key.contains('{'));
        let found = self.cluster.nodes.iter().position(|node| {
            let keys = keys(node);
            !keys.is_empty() && !has_marks(&keys)
        });
        let at = found.expect("two of three nodes have merchants only");
        let own = keys(&self.cluster.nodes[at]);
        let merchants = own.lines().filter_map(|key| {
            let (_, rest) = key.split_once('{')?;
            Some(rest.split_once('}')?.0.to_owned())
        });
        let known = merchants.filter(|mch_id| self.merchants.contains(mch_id));
        (at, known.collect())
    }
}

/// Guards against a single marker for the whole Cluster: it lies in one slot, so that the loss of another master would
/// go unnoticed.
#[tokio::test(flavor = "multi_thread")]
async fn one_flushed_master_of_a_cluster_pays_no_repeat() {
    let thirty = Thirty::start();
    let upstream = Upstream::start(PAYS_EACH_CALL).await;
    let sidecar = start_on(&upstream, &thirty.cluster.url(), true).await;
    let orders = thirty.orders();
    all_are_paid(&sidecar, &orders).await;
    let (flushed, merchants) = thirty.node_of_merchants_only();
    let (lost, kept): (Vec<Payout>, Vec<Payout>) = orders
        .into_iter()
        .partition(|order| merchants.contains(&order.mch_id));
    assert!(!lost.is_empty() && !kept.is_empty());
    thirty.cluster.nodes[flushed].cli(&["FLUSHALL"]);
    nothing_is_told(&sidecar, &upstream, &lost, "at once").await;
    all_are_paid(&sidecar, &kept).await;
    until("it is noticed", async || {
        let ready = call(sidecar.admin, "GET", "/readyz?stores", &[], b"").await;
        ready.body.contains("merchant")
    })
    .await;
    nothing_is_told(&sidecar, &upstream, &lost, "when it was noticed").await;
    all_are_paid(&sidecar, &kept).await;
    paid_once(&upstream, &kept, "of those that were kept");
}

/// A node dies in the middle of a slot's migration, and some of a merchant's orders with it. The sidecar must notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_migrated_half_pays_no_repeat() {
    let mut thirty = Thirty::start();
    let upstream = Upstream::start(PAYS_EACH_CALL).await;
    let sidecar = start_on(&upstream, &thirty.cluster.url(), true).await;
    all_are_paid(&sidecar, &thirty.orders()).await;
    let (source, merchants) = thirty.node_of_merchants_only();
    let mch_id = merchants.first().unwrap();
    let orders: Vec<Payout> = (0..20).map(|n| order(mch_id, &format!("M{n}"))).collect();
    all_are_paid(&sidecar, &orders).await;

    let nodes = &thirty.cluster.nodes;
    let target = (source + 1) % 3;
    let slot = nodes[0].cli(&["CLUSTER", "KEYSLOT", &format!("payout:{{{mch_id}}}:order:M0")]);
    let ids = [source, target].map(|at| nodes[at].cli(&["CLUSTER", "MYID"]));
    nodes[target].cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[0]]);
    nodes[source].cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[1]]);
    let keys = nodes[source].cli(&["CLUSTER", "GETKEYSINSLOT", &slot, "1000"]);
    let is_kept = |order: &Payout| order.order_no.len() == 2;
    let stays = |key: &&str| {
        orders
            .iter()
            .any(|order| !is_kept(order) && key.ends_with(&format!(":{}", order.order_no)))
    };
    let port = nodes[target].port.to_string();
    for key in keys.lines().filter(|key| !stays(key)) {
        let moved = nodes[source].cli(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
        assert_eq!(moved, "OK", "{key}");
    }
    thirty.cluster.nodes[source].kill();
    // The operator assigns the slot to the node that already has a part of it.
    for at in [target, (source + 2) % 3] {
        let assigned = thirty.cluster.nodes[at].cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[1]]);
        assert_eq!(assigned, "OK");
    }
    let (kept, lost): (Vec<Payout>, Vec<Payout>) = orders.into_iter().partition(is_kept);
    assert!(!lost.is_empty() && !kept.is_empty());
    until("the slot is served by the other node", async || {
        nothing_is_told(&sidecar, &upstream, &lost, "while the slot has no node").await;
        codes(&sidecar, &kept).await.iter().all(|code| code == "SUCCESS")
    })
    .await;
    nothing_is_told(&sidecar, &upstream, &lost, "when the slot is served").await;
    paid_once(&upstream, &kept, "of those that were moved");
}

/// Guards against one unavailable Cluster master that stops the search for due orders of all merchants.
#[tokio::test(flavor = "multi_thread")]
async fn with_one_master_away_the_others_orders_settle() {
    let mut thirty = Thirty::start();
    let upstream = Upstream::start(PAYS_EACH_CALL).await;
    let sidecar = start_on(&upstream, &thirty.cluster.url(), true).await;
    upstream
        .fake
        .set_faults("pay/A=reset-after;query=status:502".parse().unwrap());
    let orders = thirty.orders();
    for order in &orders {
        assert_eq!(sidecar.pay(Encoding::Json, order).await.code(), "SYSTEMERROR");
        // The fake pays these other orders: the circuit breaker would open on an upstream that only fails.
        let other = Payout {
            order_no: format!("B{}", order.order_no),
            ..order.clone()
        };
        assert_eq!(sidecar.pay(Encoding::Json, &other).await.code(), "SUCCESS");
    }
    let (away, merchants) = thirty.node_of_merchants_only();
    thirty.cluster.nodes[away].kill();
    upstream.fake.set_faults("".parse().unwrap());
    for order in orders.iter().filter(|order| !merchants.contains(&order.mch_id)) {
        until("they settle, repeated by nobody", async || {
            is_shown(&sidecar, order, "succeeded").await
        })
        .await;
    }
    thirty.cluster.nodes[away].restart();
    until("the others follow", async || {
        codes(&sidecar, &orders)
            .await
            .iter()
            .all(|code| code == "SUCCESS")
    })
    .await;
    paid_once(&upstream, &orders, "in the end");
}

/// The embedded file is deleted under a running process. The process must not go on writing to the deleted file, and
/// its restart must not create a new ledger without the orders.
#[tokio::test(flavor = "multi_thread")]
async fn after_the_file_was_deleted_and_a_restart_no_repeat_is_paid() {
    let upstream = Upstream::start(PAYS_EACH_CALL).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!("{}{}", embedded(&dir), upstream.configuration());
    let mut sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    let orders = twenty();
    all_are_paid(&sidecar, &orders).await;
    // From here on the configuration does not allow a new ledger.
    let config = sidecar.dir.path().join("config.toml");
    std::fs::write(&config, configuration.replace("create = true", "create = false")).unwrap();
    std::fs::remove_file(sidecar.dir.path().join("payouts.redb")).unwrap();
    let new = sidecar.pay(Encoding::Json, &Payout::new("B1")).await.code();
    sidecar.kill();
    sidecar.launch(&[]).await;
    nothing_is_told(&sidecar, &upstream, &orders, "after a restart").await;
    assert_eq!((new.as_str(), upstream.times_sent("B1")), ("SYSTEMERROR", 0));
}
