//! Transfer bills of WeChat Pay v3: the sidecar pays each once under every fault, believes only signed answers, and
//! follows a bill to its final state. Keys are in `bills_keys.rs`, notifications in `bills_notified.rs`.

use std::process::Command;

use serde_json::Value;

use crate::support::sidecar::{
    ADMIN, APP, BOTH, Encoding, MERCHANT, OPENID, OPERATOR, Payout, Sidecar, To, Upstream, embedded, in_redis,
};
use test_support::http::{Answer, call};
use test_support::redis::Redis;
use test_support::until;

pub const PUBLIC_KEY: To = To::Bill { certificates: false };
pub const CERTIFICATES: To = To::Bill { certificates: true };

pub async fn on_files(upstream: &Upstream, more: &str) -> Sidecar {
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!("{}{more}{}", embedded(&dir), upstream.configuration());
    Sidecar::start_in(dir, &configuration, &[]).await
}

pub async fn shown(sidecar: &Sidecar, order_no: &str) -> Value {
    let path = format!("/api/payouts/{MERCHANT}/{order_no}");
    let answer = call(sidecar.admin, "GET", &path, &OPERATOR, b"").await;
    serde_json::from_str(&answer.body).unwrap()
}

async fn cancel(sidecar: &Sidecar, order_no: &str) -> Answer {
    let path = format!("/api/payouts/{MERCHANT}/{order_no}/cancel");
    call(sidecar.admin, "POST", &path, &OPERATOR, b"{}").await
}

pub fn paid(upstream: &Upstream, order_no: &str) -> usize {
    upstream.fake.books().times_paid(order_no)
}

pub fn faults(upstream: &Upstream, spec: &str) {
    upstream.fake.set_faults(spec.parse().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bill_is_made_waits_for_its_user_and_is_followed_to_its_end() {
    for to in [PUBLIC_KEY, CERTIFICATES] {
        let upstream = Upstream::start(to).await;
        let sidecar = on_files(&upstream, "").await;
        for (encoding, order_no) in BOTH.into_iter().zip(["BILL1", "BILL2"]) {
            let payout = Payout::new(order_no);
            let answer = sidecar.pay(encoding, &payout).await;
            assert_eq!(answer.code(), "SUCCESS", "{}", answer.body);
            let fields = answer.fields();
            assert_eq!(
                (
                    fields["mchid"].as_str(),
                    fields["mchAppid"].as_str(),
                    fields["partnerTradeNo"].as_str()
                ),
                (MERCHANT, APP, order_no)
            );
            assert!(
                fields["hbpackage"].starts_with("stub-package-"),
                "{}",
                answer.body
            );
            assert_eq!(fields["paymentTime"].len(), "2015-05-19 15:26:59".len());
            assert_eq!(
                sidecar.pay(encoding, &payout).await.fields(),
                fields,
                "the stored answer"
            );

            let status = sidecar.status(encoding, &payout).await.fields();
            assert_eq!(
                (status["status"].as_str(), status["reason"].as_str()),
                ("PROCESSING", "WAIT_USER_CONFIRM")
            );
            assert_eq!(
                (status["openid"].as_str(), status["paymentAmount"].as_str()),
                ("user-1", "100")
            );
            assert_eq!(
                shown(&sidecar, order_no).await["upstreamStatus"],
                "WAIT_USER_CONFIRM"
            );

            upstream.fake.set_status(order_no, "SUCCESS");
            until("followed to its end", async || {
                shown(&sidecar, order_no).await["upstreamStatus"] == "SUCCESS"
            })
            .await;
            assert_eq!(sidecar.status(encoding, &payout).await.field("status"), "SUCCESS");
            assert_eq!(sidecar.pay(encoding, &payout).await.fields(), fields);
            assert_eq!((upstream.times_sent(order_no), paid(&upstream, order_no)), (1, 1));
        }
        let books = upstream.fake.books();
        let sent = books
            .requests()
            .iter()
            .find(|asked| asked.endpoint == "transfer-bills")
            .unwrap();
        let header = |name: &str| {
            sent.headers
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.as_str())
        };
        assert_eq!(header("accept"), Some("application/json"));
        assert!(header("user-agent").unwrap().starts_with("payout-sidecar/"));
        assert!(header("wechatpay-serial").is_some(), "{to:?}");
        assert_eq!(sent.fields["openid"], OPENID);
        assert_eq!(
            books.times_asked("certificates", ""),
            usize::from(to == CERTIFICATES)
        );
    }
}

/// Every fault of the paying call: what the caller gets, whether the fake paid, and what a repeat ends with.
#[tokio::test(flavor = "multi_thread")]
async fn every_fault_before_and_after_paying() {
    let upstream = Upstream::start(PUBLIC_KEY).await;
    let sidecar = on_files(&upstream, "").await;
    for (n, (fault, told, times)) in [
        ("reset-before", "SYSTEMERROR", 0),
        ("reset-after", "SYSTEMERROR", 1),
        ("hang-before", "SYSTEMERROR", 0),
        ("hang-after", "SYSTEMERROR", 1),
        ("status:502", "SYSTEMERROR", 0),
        ("status:404", "SYSTEMERROR", 0),
        ("status-after:500", "SYSTEMERROR", 1),
        ("error:SYSTEM_ERROR", "SYSTEMERROR", 0),
        ("error-after:SYSTEM_ERROR", "SYSTEMERROR", 1),
        ("error-after:BRAND_NEW_CODE", "SYSTEMERROR", 1),
        ("error-after:INVALID_REQUEST", "SYSTEMERROR", 1),
        ("error:FREQUENCY_LIMITED", "FREQUENCY_LIMITED", 0),
        ("error:NOT_ENOUGH", "NOT_ENOUGH", 0),
        ("garbage", "SYSTEMERROR", 0),
        ("garbage-after", "SYSTEMERROR", 1),
        ("empty-after", "SYSTEMERROR", 1),
        ("truncate-after", "SYSTEMERROR", 1),
        ("redirect", "SYSTEMERROR", 0),
        ("wrong-amount", "SYSTEMERROR", 1),
        ("spoilt:signature", "SYSTEMERROR", 1),
        ("spoilt:serial", "SYSTEMERROR", 1),
        ("spoilt:stale", "SYSTEMERROR", 1),
        ("spoilt:absent", "SYSTEMERROR", 1),
        ("spoilt:probe", "SYSTEMERROR", 1),
        ("spoilt:body", "SYSTEMERROR", 1),
        ("forged:NOT_ENOUGH", "SYSTEMERROR", 0),
        ("forged:PARAM_ERROR", "SYSTEMERROR", 0),
    ]
    .into_iter()
    .enumerate()
    {
        let payout = Payout::new(&format!("V{n:02}"));
        faults(&upstream, &format!("pay/V{n:02}={fault}*1"));
        let first = sidecar.pay(Encoding::Json, &payout).await;
        assert_eq!(first.code(), told, "{fault}: {}", first.body);
        assert_eq!(paid(&upstream, &payout.order_no), times, "{fault}");
        assert_eq!(
            upstream.times_sent(&payout.order_no),
            1,
            "{fault}: nothing repeats by itself"
        );
        let repeat = sidecar.pay(Encoding::Xml, &payout).await;
        assert_eq!(repeat.code(), "SUCCESS", "{fault}: {}", repeat.body);
        assert!(
            repeat.field("hbpackage").starts_with("stub-package-"),
            "{fault}: without it the user can never confirm: {}",
            repeat.body
        );
        assert_eq!(paid(&upstream, &payout.order_no), 1, "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attempt_sends_the_first_ones_parameters_under_a_nonce_of_its_own() {
    let upstream = Upstream::start(PUBLIC_KEY).await;
    let sidecar = on_files(&upstream, "").await;
    faults(&upstream, "transfer-bills=reset-after*1");
    let first = Payout::new("SAMEBILL");
    assert_eq!(sidecar.pay(Encoding::Json, &first).await.code(), "SYSTEMERROR");
    let mut other = first.body(Encoding::Json);
    other = other.replace("恭喜中奖", "别的文字");
    let answer = sidecar.post("/pay/sendApiRedPack", Encoding::Json, &other).await;
    assert_eq!(answer.code(), "SUCCESS", "{}", answer.body);
    let books = upstream.fake.books();
    let sent: Vec<_> = books
        .requests()
        .iter()
        .filter(|asked| asked.endpoint == "transfer-bills")
        .collect();
    assert_eq!((sent.len(), paid(&upstream, "SAMEBILL")), (2, 1));
    assert_eq!(sent[0].fields, sent[1].fields);
    let authorization = |n: usize| {
        let headers = &sent[n].headers;
        headers.iter().find(|(name, _)| name == "authorization").cloned()
    };
    assert_ne!(authorization(0), authorization(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_sending_it_is_paid_once_and_the_package_is_not_lost() {
    let upstream = Upstream::start(PUBLIC_KEY).await;
    let mut sidecar = on_files(&upstream, "").await;
    faults(&upstream, "transfer-bills=hang-after*1");
    let payout = Payout::new("KILLBILL");
    let address = sidecar.main;
    let body = payout.body(Encoding::Json);
    let asking = tokio::spawn(async move {
        let request = test_support::http::request(
            "POST",
            "/pay/sendApiRedPack",
            &[("Content-Type", "application/json")],
            body.as_bytes(),
        );
        test_support::http::exchange(address, &request).await
    });
    until("it is made", async || paid(&upstream, "KILLBILL") == 1).await;
    sidecar.kill();
    assert!(asking.await.unwrap().is_none());
    sidecar.launch(&[]).await;
    // The killed attempt's lease must run out first.
    until("answered", async || {
        sidecar.pay(Encoding::Json, &payout).await.code() == "SUCCESS"
    })
    .await;
    let answer = sidecar.pay(Encoding::Json, &payout).await;
    assert!(
        answer.field("hbpackage").starts_with("stub-package-"),
        "{}",
        answer.body
    );
    assert_eq!(paid(&upstream, "KILLBILL"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_settled_by_the_bills_end_without_a_repeat() {
    let upstream = Upstream::start(PUBLIC_KEY).await;
    let sidecar = on_files(&upstream, "").await;
    faults(&upstream, "transfer-bills=reset-after");
    for (order_no, end, state) in [("LOST1", "SUCCESS", "succeeded"), ("LOST2", "FAIL", "refused")] {
        let payout = Payout::new(order_no);
        assert_eq!(sidecar.pay(Encoding::Json, &payout).await.code(), "SYSTEMERROR");
        assert_eq!(
            sidecar.status(Encoding::Json, &payout).await.field("status"),
            "PROCESSING"
        );
        assert_eq!(shown(&sidecar, order_no).await["state"], "unknown");
        upstream.fake.set_status(order_no, end);
        until("settled", async || {
            shown(&sidecar, order_no).await["state"] == state
        })
        .await;
        assert_eq!((upstream.times_sent(order_no), paid(&upstream, order_no)), (1, 1));
    }
    let number_spent = sidecar.pay(Encoding::Json, &Payout::new("LOST2")).await;
    assert_eq!(number_spent.code(), "OVERDUE_CLOSE", "{}", number_spent.body);
    assert_eq!(upstream.times_sent("LOST2"), 1, "its number is spent");
}

/// The limit has room for one bill. A bill that ends unpaid returns its charges, so that the next one fits. Runs over
/// both stores.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_ends_unpaid_gives_its_limits_back() {
    let limits = "[limits]\nper_user_per_day = 150\n";
    let redis = Redis::start();
    redis.cli(&["SET", &format!("openid:{APP}:user-1"), OPENID]);
    let upstream = Upstream::start(PUBLIC_KEY).await;
    let in_redis = format!("{}{limits}{}", in_redis(&redis.url()), upstream.configuration());
    for (store, sidecar) in [
        ("F", on_files(&upstream, limits).await),
        ("R", Sidecar::start(&in_redis).await),
    ] {
        let orders: Vec<Payout> = (0..3).map(|n| Payout::new(&format!("LIM{store}{n}"))).collect();
        let first = sidecar.pay(Encoding::Json, &orders[0]).await;
        assert_eq!(first.code(), "SUCCESS", "{}", first.body);
        assert_eq!(
            sidecar.pay(Encoding::Json, &orders[1]).await.code(),
            "AMOUNT_LIMIT"
        );
        upstream.fake.set_status(&orders[0].order_no, "FAIL");
        until("followed to its end", async || {
            shown(&sidecar, &orders[0].order_no).await["upstreamStatus"] == "FAIL"
        })
        .await;
        let shown = shown(&sidecar, &orders[0].order_no).await;
        assert_eq!(shown["state"], "succeeded", "the order was accepted");
        assert_eq!(
            sidecar.pay(Encoding::Json, &orders[0]).await.fields(),
            first.fields(),
            "a repeat is answered and not sent"
        );
        let status = sidecar.status(Encoding::Json, &orders[0]).await.fields();
        assert_eq!(
            (status["status"].as_str(), status["reason"].as_str()),
            ("FAILED", "OVERDUE_CLOSE")
        );
        assert_eq!(sidecar.pay(Encoding::Json, &orders[1]).await.code(), "SUCCESS");
        assert_eq!(
            sidecar.pay(Encoding::Json, &orders[2]).await.code(),
            "AMOUNT_LIMIT"
        );
        assert_eq!(upstream.times_sent(&orders[0].order_no), 1);
    }
}

/// An operator cancels a bill that waits for its user; the sidecar follows it until WeChat reports `CANCELLED`.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_cancels_what_the_user_has_not_confirmed() {
    let upstream = Upstream::start(PUBLIC_KEY).await;
    let sidecar = on_files(&upstream, ADMIN).await;
    for order_no in ["CAN1", "CAN2", "CAN3"] {
        let code = sidecar.pay(Encoding::Json, &Payout::new(order_no)).await.code();
        assert_eq!(code, "SUCCESS");
    }
    let config = sidecar.dir.path().join("config.toml").display().to_string();
    let command = Command::new(env!("CARGO_BIN_EXE_payout-sidecar"))
        .args(["payout", "cancel", MERCHANT, "CAN1", "--config", &config])
        .env("PAYOUT_SIDECAR__ADMIN__LISTEN", sidecar.admin.to_string())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&command.stdout).into_owned();
    assert!(command.status.success(), "{printed}");
    assert!(printed.contains("CANCELING"), "{printed}");
    until("withdrawn", async || {
        shown(&sidecar, "CAN1").await["upstreamStatus"] == "CANCELLED"
    })
    .await;
    assert_eq!(
        sidecar
            .status(Encoding::Json, &Payout::new("CAN1"))
            .await
            .field("status"),
        "FAILED"
    );
    assert_eq!(cancel(&sidecar, "CAN1").await.status, 409, "it has ended");

    upstream.fake.set_status("CAN2", "TRANSFERING");
    let late = cancel(&sidecar, "CAN2").await;
    assert_eq!(
        (late.status, late.body.contains("INVALID_REQUEST")),
        (409, true),
        "{}",
        late.body
    );
    assert_eq!(shown(&sidecar, "CAN2").await["state"], "succeeded");

    faults(&upstream, "cancel-bill=spoilt:signature*1");
    assert_eq!(cancel(&sidecar, "CAN3").await.status, 502, "nobody knows");
    assert_eq!(cancel(&sidecar, "NONE").await.status, 404);
    let from_a_page = call(
        sidecar.admin,
        "POST",
        &format!("/api/payouts/{MERCHANT}/CAN3/cancel"),
        &[
            OPERATOR[0],
            OPERATOR[1],
            ("Origin", "https://elsewhere.example.com"),
        ],
        b"",
    )
    .await;
    assert_eq!(from_a_page.status, 403);
    sidecar.logged("an operator asked to cancel a payout").await;
}
