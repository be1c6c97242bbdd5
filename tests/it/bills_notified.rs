//! Notifications of WeChat Pay v3: the sidecar accepts a notification that is signed, fresh and about a recorded bill,
//! and refuses any other. Repeated notifications change nothing.

use crate::bills::{PUBLIC_KEY, on_files, shown};
use crate::support::sidecar::{Encoding, Payout, Sidecar, Upstream};
use crate::support::wire::{status, tell};
use test_support::http::call;

/// Starts a sidecar with one completed bill while every query fails, so that only a notification can report the result.
async fn confirmed(order_no: &str, more: &str) -> (Upstream, Sidecar) {
    let upstream = Upstream::start(PUBLIC_KEY).await;
    let sidecar = on_files(&upstream, more).await;
    upstream.fake.set_faults("query=status:502".parse().unwrap());
    let answer = sidecar.pay(Encoding::Json, &Payout::new(order_no)).await;
    assert_eq!(answer.code(), "SUCCESS", "{}", answer.body);
    upstream.fake.set_status(order_no, "SUCCESS");
    (upstream, sidecar)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_taken_and_the_same_again_is_harmless() {
    let (upstream, sidecar) = confirmed("NOTE1", "").await;
    assert_eq!(upstream.fake.notify("NOTE1", "").await, Ok(204));
    let first = shown(&sidecar, "NOTE1").await;
    assert_eq!(first["upstreamStatus"], "SUCCESS");
    for how in ["again", "again", "", "platform"] {
        assert_eq!(upstream.fake.notify("NOTE1", how).await, Ok(204), "{how}");
        assert_eq!(shown(&sidecar, "NOTE1").await, first, "{how}");
    }
    assert_eq!(
        sidecar
            .status(Encoding::Json, &Payout::new("NOTE1"))
            .await
            .field("status"),
        "SUCCESS",
        "the record answers where the upstream does not"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_wechats_or_not_about_the_record_changes_nothing() {
    let (upstream, sidecar) = confirmed("NOTE2", "").await;
    let before = shown(&sidecar, "NOTE2").await;
    for (how, status) in [
        ("signature", 401),
        ("serial", 401),
        ("stale", 401),
        ("probe", 401),
        ("body", 401),
        ("absent", 401),
        ("event", 401),
        ("key", 401),
        ("merchant", 401),
        ("number", 404),
        ("amount", 409),
    ] {
        assert_eq!(upstream.fake.notify("NOTE2", how).await, Ok(status), "{how}");
        let after = shown(&sidecar, "NOTE2").await;
        assert_eq!(after["upstreamStatus"], before["upstreamStatus"], "{how}");
        assert_eq!(after["history"], before["history"], "{how}");
    }
    for (method, status) in [("GET", 405), ("PUT", 405), ("POST", 401)] {
        let answer = call(sidecar.main, method, "/notify/bill", &[], b"{}").await;
        assert_eq!(answer.status, status);
        assert!(answer.body.contains("\"code\":\"FAIL\""), "{}", answer.body);
    }
    assert_eq!(
        upstream.fake.notify("NOTE2", "").await,
        Ok(204),
        "the right one is taken"
    );
}

/// The sidecar refuses an ambiguous request before it checks the signature.
#[tokio::test(flavor = "multi_thread")]
async fn the_path_takes_strict_http_only() {
    let upstream = Upstream::start(PUBLIC_KEY).await;
    let sidecar = on_files(&upstream, "").await;
    let signed = "POST /notify/bill HTTP/1.1\r\nHost: a\r\nConnection: close\r\nWechatpay-Timestamp: 1\r\n\
                  Wechatpay-Nonce: n\r\nWechatpay-Serial: s\r\nWechatpay-Signature: s\r\n";
    for (rest, expected) in [
        ("Content-Length: 2\r\n\r\n{}", 401),
        ("Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 401),
        ("Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400),
        (
            "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            400,
        ),
        ("Content-Length: 2\n\r\n{}", 400),
        ("Transfer-Encoding: chunked\r\n\r\n2;\r\n{}\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\n\r\n", 400),
        (
            "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: 1\r\n\r\n",
            400,
        ),
        ("Host: a\r\nContent-Length: 2\r\n\r\n{}", 400),
    ] {
        let told = tell(sidecar.main, &format!("{signed}{rest}")).await;
        assert_eq!(status(&told), expected, "{rest:?}: {told}");
    }
}

/// WeChat Pay has no token of this platform. Its own signature admits it, and only to this one path.
#[tokio::test(flavor = "multi_thread")]
async fn the_platforms_rules_are_not_asked_of_wechat() {
    let upstream = Upstream::start(PUBLIC_KEY).await;
    let rules = "[access]\ntoken = \"t0ken\"\nsign_key = \"s1gn\"\n";
    let open = on_files(&upstream, "[access]\ntoken = \"t0ken\"\n").await;
    let body = Payout::new("NOTE3").body(Encoding::Json);
    let headers = [
        ("Content-Type", "application/json"),
        ("Authorization", "Bearer t0ken"),
    ];
    let paid = call(
        open.main,
        "POST",
        "/pay/sendApiRedPack",
        &headers,
        body.as_bytes(),
    )
    .await;
    assert_eq!(paid.code(), "SUCCESS", "{}", paid.body);
    upstream.fake.set_status("NOTE3", "SUCCESS");
    assert_eq!(upstream.fake.notify("NOTE3", "").await, Ok(204));
    assert_eq!(shown(&open, "NOTE3").await["upstreamStatus"], "SUCCESS");

    let closed = on_files(&upstream, rules).await;
    let without = [("Content-Type", "application/json")];
    for (path, status) in [("/notify/bill", 401), ("/notify/bill/", 401), ("/notify", 401)] {
        let answer = call(closed.main, "POST", path, &without, b"{}").await;
        assert_eq!(answer.status, status, "{path}");
        let by_wechats_rule = answer.body.contains("\"code\":\"FAIL\"");
        assert_eq!(by_wechats_rule, path == "/notify/bill", "{path}: {}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_ended_unpaid_is_told_too_and_an_unknown_one_is_settled() {
    let upstream = Upstream::start(PUBLIC_KEY).await;
    let sidecar = on_files(&upstream, "[limits]\nper_user_per_day = 200\n").await;
    upstream.fake.set_faults(
        "query=status:502;transfer-bills/LOSTNOTE=reset-after"
            .parse()
            .unwrap(),
    );
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("LAPSED")).await.code(),
        "SUCCESS"
    );
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("LOSTNOTE")).await.code(),
        "SYSTEMERROR"
    );
    upstream.fake.set_status("LAPSED", "FAIL");
    upstream.fake.set_status("LOSTNOTE", "SUCCESS");
    for order_no in ["LAPSED", "LOSTNOTE"] {
        assert_eq!(upstream.fake.notify(order_no, "").await, Ok(204));
        assert_eq!(shown(&sidecar, order_no).await["state"], "succeeded");
    }
    assert_eq!(shown(&sidecar, "LAPSED").await["upstreamStatus"], "FAIL");
    upstream.fake.set_status("LAPSED", "TRANSFERING");
    assert_eq!(upstream.fake.notify("LAPSED", "").await, Ok(204));
    assert_eq!(
        shown(&sidecar, "LAPSED").await["upstreamStatus"],
        "FAIL",
        "an old word"
    );
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("NEXT")).await.code(),
        "SUCCESS",
        "the lapsed one's limit is free"
    );
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("OVER")).await.code(),
        "AMOUNT_LIMIT"
    );
    // This should never happen: WeChat reports a payment after it reported the end. The sidecar then alerts an
    // operator.
    upstream.fake.set_status("LAPSED", "SUCCESS");
    assert_eq!(upstream.fake.notify("LAPSED", "").await, Ok(204));
    assert_eq!(shown(&sidecar, "LAPSED").await["upstreamStatus"], "SUCCESS");
    sidecar.logged("paid a bill that had ended unpaid").await;
}
