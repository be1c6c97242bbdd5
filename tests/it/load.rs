//! Load tests: callers send payouts while the test kills sidecars and Redis and the upstream fails. `support::load`
//! then compares what callers were told with the upstream's books and the ledger.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::block_in_place;

use crate::support::load::{Load, unsettled};
use crate::support::sidecar::{APP, OPENID, Sidecar, To, Upstream, embedded, in_redis};
use test_support::redis::Redis;
use test_support::rng::Rng;
use test_support::until;

/// Short timeouts, so that orders settle during the test. `not_found_after` is longer than the fake takes for any late
/// payment.
fn impatient(upstream: &Upstream) -> String {
    let spans = "connect_timeout = \"1s\"\ntimeout = \"1s\"\nnot_found_after = \"3s\"";
    let long = "connect_timeout = \"3s\"\ntimeout = \"3s\"";
    let configuration = upstream.configuration();
    assert!(configuration.contains(long));
    let handler = "idempotent = false\ntimeout = \"3s\"";
    configuration.replace(long, spans).replace(
        handler,
        "idempotent = false\ntimeout = \"1s\"\nnot_found_after = \"3s\"",
    )
}

fn redis_with_a_user() -> Redis {
    let redis = Redis::start();
    redis.cli(&["SET", &format!("openid:{APP}:user-1"), OPENID]);
    redis
}

/// Draws the next few faults. No fault contradicts its meaning: the fake never sends a code or status that says "not
/// paid" for an order it has paid (`SEND_FAILED` could).
fn faults(rng: &mut Rng, to: To) -> String {
    let of_both = [
        "pay=reset-before",
        "pay=reset-after",
        "pay=reset-after",
        "pay=hang-after",
        "pay=hang-before",
        "pay=status:502",
        "pay=status-after:500",
        "pay=error:SYSTEMERROR",
        "pay=error-after:SYSTEMERROR",
        "pay=error-after:NEW_CODE",
        "pay=error:NOTENOUGH",
        "pay=garbage",
        "pay=garbage-after",
        "pay=empty-after",
        "pay=truncate-after",
        "pay=late:300ms",
        "pay=redirect",
        "pay=wrong-amount",
        "pay=delay:150ms",
        "any=delay:50ms",
        "query=status:500",
        "query=garbage",
        "query=reset-before",
        "query=truncate-after",
        "query=wrong-amount",
    ];
    let own = if to == (To::Handler { idempotent: false }) {
        [
            "pay=status:429",
            "pay=status:400",
            "pay=fail-outer:no",
            "pay=status:409",
        ]
    } else {
        [
            "pay=error:FREQ_LIMIT",
            "query=error:FREQ_LIMIT",
            "pay=fail-outer:no",
            "query=error:SYSTEMERROR",
        ]
    };
    let all = [&of_both[..], &own[..]].concat();
    let drawn = (0..3).map(|_| format!("{}*{}", all[rng.index(all.len())], 1 + rng.index(2)));
    drawn.collect::<Vec<_>>().join(";")
}

/// The refusals these faults can lead to; `FAIL` is a handler's refusal without a code.
const REFUSALS: [&str; 5] = ["FAIL", "NOTENOUGH", "FREQ_LIMIT", "PARAM_ERROR", "NO_AUTH"];

/// Callers use all of `sidecars` while the test repeatedly kills and restarts the first one and the upstream fails.
async fn survives_kills(tag: &'static str, to: To, seed: u64, redis: Option<Redis>) {
    let upstream = Arc::new(Upstream::start(to).await);
    let mut sidecars = Vec::new();
    match &redis {
        Some(redis) => {
            let configuration = format!("{}{}", in_redis(&redis.url()), impatient(&upstream));
            sidecars.push(Sidecar::start(&configuration).await);
            sidecars.push(Sidecar::start(&configuration).await);
        }
        None => {
            let dir = tempfile::tempdir().unwrap();
            let configuration = format!("{}{}", embedded(&dir), impatient(&upstream));
            sidecars.push(Sidecar::start_in(dir, &configuration, &[]).await);
        }
    }
    let addresses: Vec<SocketAddr> = sidecars.iter().map(|sidecar| sidecar.main).collect();
    let load = Load::new(tag, &upstream);
    let callers = load.begin(&upstream, &addresses, seed);
    let mut rng = Rng::new(seed);
    for _kill in 0..6 {
        for _change in 0..6 {
            upstream.fake.set_faults(faults(&mut rng, to).parse().unwrap());
            tokio::time::sleep(Duration::from_millis(60 + rng.index(60) as u64)).await;
        }
        sidecars[0].kill();
        sidecars[0].launch(&[]).await;
    }
    callers.stop().await;
    upstream.fake.set_faults("".parse().unwrap());
    let admin = sidecars[0].admin;
    load.settle_by_repeats(&upstream, addresses[0], admin).await;
    load.judge(&upstream, admin, &REFUSALS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_before_a_handler_that_pays_on_each_call_on_the_embedded_ledger() {
    survives_kills("HF", To::Handler { idempotent: false }, 1, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_one_of_two_replicas_before_a_handler_that_pays_on_each_call() {
    survives_kills(
        "HR",
        To::Handler { idempotent: false },
        2,
        Some(redis_with_a_user()),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_before_wechat_with_faults_on_the_embedded_ledger() {
    survives_kills("WF", To::Redpack, 3, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_one_of_two_replicas_before_wechat_with_faults() {
    survives_kills("WR", To::Redpack, 4, Some(redis_with_a_user())).await;
}

/// Kills and restarts Redis while two replicas pay. Finally kills the replicas while Redis is down: the ones that start
/// afterwards settle the orders in progress, without repeats.
async fn redis_dies(tag: &'static str, to: To, seed: u64) {
    let mut redis = redis_with_a_user();
    let upstream = Arc::new(Upstream::start(to).await);
    let configuration = format!("{}{}", in_redis(&redis.url()), impatient(&upstream));
    let mut sidecars = [
        Sidecar::start(&configuration).await,
        Sidecar::start(&configuration).await,
    ];
    let addresses: Vec<SocketAddr> = sidecars.iter().map(|sidecar| sidecar.main).collect();
    upstream.fake.set_faults("pay=delay:100ms".parse().unwrap());
    let load = Load::new(tag, &upstream);
    let callers = load.begin(&upstream, &addresses, seed);
    let mut rng = Rng::new(seed);
    for _kill in 0..4 {
        tokio::time::sleep(Duration::from_millis(600 + rng.index(300) as u64)).await;
        redis.kill();
        tokio::time::sleep(Duration::from_millis(50 + rng.index(500) as u64)).await;
        block_in_place(|| redis.restart());
    }
    // After Redis is back, the replicas record what they paid meanwhile.
    tokio::time::sleep(Duration::from_millis(300)).await;
    callers.stop().await;
    until(
        "everything settles after Redis has come back, repeated by nobody",
        async || unsettled(sidecars[0].admin).await.is_empty(),
    )
    .await;
    // At start: no process is left to record these orders. The fake paid some of them without an answer.
    upstream
        .fake
        .set_faults("pay=delay:100ms;pay=reset-after*3".parse().unwrap());
    let asked = || upstream.fake.books().requests().len();
    let before = asked();
    let callers = load.begin(&upstream, &addresses, seed + 1);
    until("payouts are on their way", async || asked() >= before + 20).await;
    redis.kill();
    tokio::time::sleep(Duration::from_millis(30)).await;
    for sidecar in &mut sidecars {
        sidecar.kill();
    }
    callers.stop().await;
    block_in_place(|| redis.restart());
    for sidecar in &mut sidecars {
        sidecar.launch(&[]).await;
    }
    let left = unsettled(sidecars[0].admin).await;
    assert!(!left.is_empty(), "something was under way");
    let asked = |order_no: &String| upstream.times_sent(order_no);
    let attempts: Vec<usize> = left.iter().map(asked).collect();
    until(
        "everything that was left settles, repeated by nobody",
        async || unsettled(sidecars[1].admin).await.is_empty(),
    )
    .await;
    assert_eq!(
        left.iter().map(asked).collect::<Vec<_>>(),
        attempts,
        "it is asked about, not sent"
    );
    load.judge(&upstream, sidecars[1].admin, &["NOT_FOUND"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_killed_under_load_before_a_handler_that_pays_on_each_call() {
    redis_dies("RH", To::Handler { idempotent: false }, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_killed_under_load_before_wechat() {
    redis_dies("RW", To::Redpack, 6).await;
}
