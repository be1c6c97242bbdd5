//! `/metrics`: it shows what happened under the documented names, and callers cannot make it grow.

use std::collections::BTreeSet;

use crate::support::sidecar::{Encoding, MERCHANT, Payout, Sidecar, To, Upstream, embedded};
use test_support::http::call;
use test_support::until;

const UPSTREAM: &str = "merchant[0] 1900000109 https://localhost:";

async fn metrics(sidecar: &Sidecar) -> String {
    let answer = call(sidecar.admin, "GET", "/metrics", &[], b"").await;
    assert_eq!(answer.status, 200);
    assert!(answer.headers["content-type"].starts_with("application/openmetrics-text"));
    assert!(answer.body.ends_with("# EOF\n"));
    answer.body
}

async fn started() -> (Upstream, Sidecar) {
    let upstream = Upstream::start(To::Redpack).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!(
        "[limits]\nper_user_per_day = 1000\nper_merchant_per_day = 5000\n{}{}",
        embedded(&dir),
        upstream.configuration()
    );
    (upstream, Sidecar::start_in(dir, &configuration, &[]).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_counted_once() {
    let (upstream, sidecar) = started().await;
    upstream
        .fake
        .set_faults("pay/NO=error:NOTENOUGH;pay/WHO=hang-after".parse().unwrap());
    for (order_no, amount, told) in [
        ("YES1", "100", "SUCCESS"),
        ("YES1", "100", "SUCCESS"),
        ("YES2", "250", "SUCCESS"),
        ("NO1", "300", "NOTENOUGH"),
        ("WHO1", "400", "SYSTEMERROR"),
        ("MUCH", "900", "AMOUNT_LIMIT"),
    ] {
        let mut payout = Payout::new(order_no);
        payout.amount = amount.to_owned();
        assert_eq!(
            sidecar.pay(Encoding::Json, &payout).await.code(),
            told,
            "{order_no}"
        );
    }
    sidecar.status(Encoding::Xml, &Payout::new("YES1")).await;
    assert_eq!(
        call(sidecar.main, "GET", "/pay/sendApiRedPack", &[], b"")
            .await
            .status,
        405
    );
    call(sidecar.main, "GET", "/shop", &[], b"").await;
    let text = metrics(&sidecar).await;
    let lines: BTreeSet<&str> = text.lines().collect();
    for line in [
        format!("payout_orders_total{{mch_id=\"{MERCHANT}\",outcome=\"succeeded\"}} 2"),
        format!("payout_fen_total{{mch_id=\"{MERCHANT}\",outcome=\"succeeded\"}} 350"),
        format!("payout_orders_total{{mch_id=\"{MERCHANT}\",outcome=\"refused\"}} 1"),
        format!("payout_fen_total{{mch_id=\"{MERCHANT}\",outcome=\"refused\"}} 300"),
        format!("payout_orders_total{{mch_id=\"{MERCHANT}\",outcome=\"unknown\"}} 1"),
        format!("payout_orders_over_limit_total{{mch_id=\"{MERCHANT}\"}} 1"),
        "payout_http_requests_total{endpoint=\"send\",code=\"200\"} 6".to_owned(),
        "payout_http_requests_total{endpoint=\"send\",code=\"405\"} 1".to_owned(),
        "payout_http_requests_total{endpoint=\"status\",code=\"200\"} 1".to_owned(),
        "payout_http_requests_total{endpoint=\"proxy\",code=\"200\"} 1".to_owned(),
        format!(
            "payout_upstream_exchanges_total{{upstream=\"{UPSTREAM}{}\",result=\"silent\"}} 1",
            upstream.fake.tls_addr().unwrap().port()
        ),
        "payout_http_requests_in_flight{endpoint=\"send\"} 0".to_owned(),
        "payout_http_request_duration_seconds_count{endpoint=\"send\"} 7".to_owned(),
    ] {
        assert!(lines.contains(line.as_str()), "{line} is not in {text}");
    }
    assert!(text.contains("payout_tls_cert_not_after_seconds{owner=\"merchant[0] 1900000109\"}"));
    assert!(text.contains("payout_store_calls_total{store=\"ledger\",call=\"insert\",result=\"ok\"}"));

    // The table in the document lists exactly these families.
    let shown: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| {
            let (name, kind) = line.split_once(' ').unwrap();
            match kind {
                "counter" => format!("{name}_total"),
                "info" => format!("{name}_info"),
                _ => name.to_owned(),
            }
        })
        .collect();
    for page in [
        include_str!("../../docs/operate.md"),
        include_str!("../../docs/zh/operate.md"),
    ] {
        let documented: BTreeSet<String> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `payout_")?.split_once('`'))
            .map(|(name, _)| format!("payout_{name}"))
            .collect();
        assert_eq!(shown, documented);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_used_of_a_merchants_day_is_shown_beside_its_limit() {
    let (_upstream, mut sidecar) = started().await;
    let shows = async |sidecar: &Sidecar, used: i64, limit: i64| {
        until("the day's figures are shown", async || {
            let text = metrics(sidecar).await;
            [
                format!("payout_merchant_day_fen{{mch_id=\"{MERCHANT}\"}} {used}"),
                format!("payout_merchant_day_limit_fen{{mch_id=\"{MERCHANT}\"}} {limit}"),
            ]
            .iter()
            .all(|line| text.lines().any(|shown| shown == line))
        })
        .await;
    };
    shows(&sidecar, 0, 5000).await;
    let mut payout = Payout::new("DAY1");
    payout.amount = "300".to_owned();
    assert_eq!(sidecar.pay(Encoding::Json, &payout).await.code(), "SUCCESS");
    // The sidecar reads the ledger's figures at start, and then every 15 s.
    sidecar.kill();
    sidecar
        .launch(&[("PAYOUT_SIDECAR__LIMITS__PER_MERCHANT_PER_DAY", "6000")])
        .await;
    shows(&sidecar, 300, 6000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_cannot_make_it_grow() {
    let (_upstream, sidecar) = started().await;
    let ask = async |n: u32| {
        call(sidecar.main, "GET", &format!("/scan/{n}?token={n}"), &[], b"").await;
        let mut payout = Payout::new(&format!("G{n}"));
        payout.mch_id = format!("77{n}");
        assert_eq!(sidecar.pay(Encoding::Json, &payout).await.code(), "NO_AUTH");
        payout.mch_id = MERCHANT.to_owned();
        payout.user = format!("nobody-{n}");
        assert_eq!(sidecar.pay(Encoding::Xml, &payout).await.code(), "OPENID_ERROR");
    };
    // Store calls of background tasks appear too, one by one. There are a dozen kinds, whatever callers do.
    let series = async || {
        let text = metrics(&sidecar).await;
        let of_calls = text.lines().filter(|line| line.contains("payout_store_call"));
        assert!(of_calls.count() < 400, "{text}");
        text.lines()
            .filter(|line| !line.contains("payout_store_call"))
            .count()
    };
    ask(0).await;
    let before = series().await;
    for n in 1..200 {
        ask(n).await;
    }
    assert_eq!(series().await, before);
}
