//! Circuit breakers: an open circuit stops requests to a dead upstream or store, tells callers at once that nothing was
//! sent, tries again now and then, and appears in `/metrics`.

use std::time::Duration;

use crate::support::sidecar::{
    APP, Encoding, MERCHANT, OPENID, Payout, Sidecar, To, Upstream, embedded, in_redis,
};
use test_support::http::call;
use test_support::redis::Redis;
use test_support::until;

async fn circuits(sidecar: &Sidecar) -> Vec<(String, u8)> {
    let metrics = call(sidecar.admin, "GET", "/metrics", &[], b"").await;
    assert_eq!(metrics.status, 200);
    let shown = metrics.body.lines().filter_map(|line| {
        let rest = line.strip_prefix("payout_circuit_state{circuit=\"")?;
        let (name, state) = rest.split_once("\"} ")?;
        Some((name.to_owned(), state.parse().unwrap()))
    });
    shown.collect()
}

async fn state(sidecar: &Sidecar, part_of_name: &str) -> u8 {
    let all = circuits(sidecar).await;
    let found = all.iter().find(|(name, _)| name.contains(part_of_name));
    found.unwrap_or_else(|| panic!("no {part_of_name} in {all:?}")).1
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_hangs_is_not_asked_for_every_order() {
    let upstream = Upstream::start(To::Handler { idempotent: true }).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration =
        (embedded(&dir) + &upstream.configuration()).replace("timeout = \"3s\"\n", "timeout = \"300ms\"\n");
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    assert_eq!(state(&sidecar, "merchant[0]").await, 0);
    upstream.fake.set_faults("any=hang-before".parse().unwrap());
    let mut n = 0;
    // Five unanswered requests in a row open the circuit. Queries about unknown orders count too.
    until("the circuit opens", async || {
        n += 1;
        let answer = sidecar
            .pay(Encoding::Json, &Payout::new(&format!("HANG{n}")))
            .await;
        assert_eq!(answer.code(), "SYSTEMERROR");
        state(&sidecar, "merchant[0]").await == 2
    })
    .await;
    let mut turned_away = 0;
    for n in 0..20 {
        let order_no = format!("AWAY{n}");
        assert_eq!(
            sidecar.pay(Encoding::Json, &Payout::new(&order_no)).await.code(),
            "SYSTEMERROR"
        );
        turned_away += usize::from(upstream.times_sent(&order_no) == 0);
    }
    assert!(turned_away >= 15, "only {turned_away} of 20 were turned away");
    // The sidecar sent nothing for the orders it turned away, and removed their claims.
    let path = format!("/api/payouts/{MERCHANT}/AWAY0");
    let gone = call(sidecar.admin, "GET", &path, &[], b"").await;
    assert_eq!(gone.status, 404);

    upstream.fake.set_faults("".parse().unwrap());
    until("it is tried again, and answers", async || {
        sidecar.pay(Encoding::Json, &Payout::new("BACK")).await.code() == "SUCCESS"
    })
    .await;
    assert_eq!(state(&sidecar, "merchant[0]").await, 0);
    for order_no in (1..=n).map(|n| format!("HANG{n}")) {
        until("what was in doubt is paid when it is repeated", async || {
            sidecar.pay(Encoding::Json, &Payout::new(&order_no)).await.code() == "SUCCESS"
        })
        .await;
        assert_eq!(upstream.fake.books().times_paid(&order_no), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_is_seen_and_comes_back() {
    let redis = Redis::start();
    let upstream = Upstream::start(To::Redpack).await;
    redis.cli(&["SET", &format!("openid:{}:user-1", APP), OPENID]);
    let configuration = in_redis(&redis.url()) + &upstream.configuration();
    let sidecar = Sidecar::start(&configuration).await;
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("A1")).await.code(),
        "SUCCESS"
    );
    assert_eq!(
        (state(&sidecar, "ledger").await, state(&sidecar, "identity").await),
        (0, 0)
    );
    redis.signal("STOP");
    let mut n = 0;
    until("the ledger's circuit opens", async || {
        n += 1;
        let answer = sidecar
            .pay(Encoding::Json, &Payout::new(&format!("FROZEN{n}")))
            .await;
        assert_eq!(answer.code(), "SYSTEMERROR");
        state(&sidecar, "ledger").await == 2
    })
    .await;
    redis.signal("CONT");
    until("it is tried again, and answers", async || {
        sidecar.pay(Encoding::Json, &Payout::new("A2")).await.code() == "SUCCESS"
    })
    .await;
    assert_eq!(state(&sidecar, "ledger").await, 0);
    // Redis may have written a claim whose answer was lost. Such a claim settles like any other.
    tokio::time::sleep(Duration::from_millis(100)).await;
    for n in 1..=n {
        assert!(upstream.fake.books().times_paid(&format!("FROZEN{n}")) <= 1);
    }
}
