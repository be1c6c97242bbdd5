//! The rate at which the sidecar queries WeChat Pay about many unknown orders of one merchant.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::support::sidecar::{APP, Encoding, OPENID, Payout, Sidecar, To, Upstream, in_redis};
use test_support::http::call;
use test_support::redis::Redis;

/// The number of unknown orders.
const ORDERS: usize = 600;
/// The limit of queries per second, of both replicas together.
const PER_SECOND: u128 = 20;

/// Hundreds of orders are unknown at once. WeChat Pay answers 30 queries a second for a merchant, and callers' own
/// queries count too.
#[tokio::test(flavor = "multi_thread")]
async fn many_unknown_orders_are_asked_about_at_the_pace_that_wechat_pay_takes() {
    let redis = Redis::start();
    redis.cli(&["SET", &format!("openid:{APP}:user-1"), OPENID]);
    let upstream = Upstream::start(To::Redpack).await;
    // Paid without an answer. The first query settles each order.
    upstream
        .fake
        .set_faults("pay=error-after:SYSTEMERROR".parse().unwrap());
    let configuration = format!("{}{}", in_redis(&redis.url()), upstream.configuration());
    let replicas = [
        Sidecar::start(&configuration).await,
        Sidecar::start(&configuration).await,
    ];

    let begun = Instant::now();
    let asked = || {
        let requests = |call: &str| {
            upstream.fake.look(|books| {
                books
                    .requests()
                    .iter()
                    .filter(|asked| asked.endpoint == call)
                    .count()
            })
        };
        let (questions, passed) = (requests("gethbinfo"), begun.elapsed());
        // The first and the last second count as whole.
        let most = PER_SECOND * (passed.as_millis() + 2000) / 1000;
        assert!(questions as u128 <= most, "{questions} questions in {passed:?}");
        questions
    };
    let callers = (0..12).map(async |caller| {
        for n in (caller..ORDERS).step_by(12) {
            let payout = Payout::new(&format!("P{n}"));
            let told = replicas[n % 2].pay(Encoding::Json, &payout).await;
            assert_eq!(told.code(), "SYSTEMERROR");
            asked();
        }
    });
    join_all(callers).await;
    while asked() < ORDERS {
        assert!(
            begun.elapsed() < Duration::from_secs(150),
            "no more than {} of {ORDERS}",
            asked()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The sidecar forgets none of them.
    let unknown = async || {
        let listed = call(replicas[0].admin, "GET", "/api/payouts?state=unknown", &[], b"")
            .await
            .body;
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        listed["payouts"].as_array().unwrap().len()
    };
    test_support::until("all are settled", async || unknown().await == 0).await;
    assert_eq!(upstream.fake.books().payments().len(), ORDERS);
}
