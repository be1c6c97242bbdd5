//! Access rules: tokens, signatures, address lists and the in-flight limit, and the order in which the server checks
//! them. Rules of the admin port are in `admin_port.rs`.

use crate::support::sidecar::{Encoding, Payout, Sidecar, To, Upstream, embedded};
use test_support::http::call;

async fn with_access(rules: &str) -> (Upstream, Sidecar) {
    let upstream = Upstream::start(To::Redpack).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!("{}{rules}\n{}", embedded(&dir), upstream.configuration());
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    (upstream, sidecar)
}

async fn status(sidecar: &Sidecar, path: &str, headers: &[(&str, &str)], body: &[u8]) -> u16 {
    let headers = [&[("Content-Type", "application/json")], headers].concat();
    let answer = call(sidecar.main, "POST", path, &headers, body).await;
    if answer.status != 200 {
        assert_eq!(
            answer.field("returnCode"),
            "FAIL",
            "a refusal has a contract body"
        );
    }
    answer.status
}

#[tokio::test(flavor = "multi_thread")]
async fn only_addresses_that_are_allowed_get_in() {
    let (upstream, sidecar) =
        with_access("[access]\nallow_from = [\"192.0.2.0/24\"]\ntrusted_proxies = [\"127.0.0.0/8\"]").await;
    let path = "/pay/sendApiRedPack";
    let body = Payout::new("D1").body(Encoding::Json);
    for (forwarded, expected) in [
        (None, 403),
        (Some("198.51.100.1"), 403),
        (Some("192.0.2.9, 198.51.100.1"), 403),
        (Some("192.0.2.9, nonsense"), 403),
        (Some("198.51.100.1, 192.0.2.9"), 200),
        (Some("192.0.2.9, 127.0.0.9"), 200),
    ] {
        let headers: Vec<(&str, &str)> = forwarded.iter().map(|f| ("X-Forwarded-For", *f)).collect();
        assert_eq!(
            status(&sidecar, path, &headers, body.as_bytes()).await,
            expected,
            "{forwarded:?}"
        );
    }
    assert_eq!(upstream.fake.books().payments().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_asked_for_and_goes_no_further() {
    let (upstream, sidecar) = with_access("[access]\ntoken = \"t0ken-marked\"").await;
    let body = Payout::new("D2").body(Encoding::Json);
    let path = "/pay/sendApiRedPack";
    for headers in [
        &[][..],
        &[("Authorization", "Bearer wrong")],
        &[("Authorization", "Basic t0ken-marked")],
    ] {
        assert_eq!(
            status(&sidecar, path, headers, body.as_bytes()).await,
            401,
            "{headers:?}"
        );
    }
    assert_eq!(
        status(&sidecar, "/pay/sendApiRedPack?token=wrong", &[], body.as_bytes()).await,
        401
    );
    assert_eq!(upstream.fake.books().requests(), []);
    assert_eq!(
        status(
            &sidecar,
            path,
            &[("Authorization", "Bearer t0ken-marked")],
            body.as_bytes()
        )
        .await,
        200
    );
    assert_eq!(
        status(
            &sidecar,
            "/pay/sendApiRedPack?a=1&token=t0ken-marked",
            &[],
            body.as_bytes()
        )
        .await,
        200
    );
    let answer = call(sidecar.main, "GET", "/x?a=%201&token=t0ken-marked&b", &[], b"").await;
    assert!(
        answer.body.contains("\"path\":\"/x?a=%201&b\""),
        "{}",
        answer.body
    );
    let answer = call(
        sidecar.main,
        "GET",
        "/x",
        &[("Authorization", "Bearer t0ken-marked")],
        b"",
    )
    .await;
    assert!(
        answer.status == 200 && !answer.body.contains("marked"),
        "{}",
        answer.body
    );
    // The token is not forwarded under another spelling of its name, nor inside the `Referer` address.
    let headers = [("Referer", "http://shop/p?a=1&token=t0ken-marked&b")];
    let answer = call(
        sidecar.main,
        "GET",
        "/x?%74oken=t0ken-marked&a=%201",
        &headers,
        b"",
    )
    .await;
    assert!(
        answer.status == 200
            && answer.body.contains("\"path\":\"/x?a=%201\"")
            && !answer.body.contains("marked"),
        "{}",
        answer.body
    );
    assert!(answer.body.contains("http://shop/p?a=1&b"), "{}", answer.body);
    assert!(!sidecar.log().contains("marked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_request_is_checked_over_all_its_fields() {
    use payout_domain::fields::Fields;
    use payout_domain::secret::Secret;
    use payout_domain::wechat::sign::sign_md5;
    let (upstream, sidecar) = with_access("[access]\nsign_key = \"k3y\"").await;
    let unsigned = Payout::new("D3").with("nonceStr", "n1");
    let mut fields: Fields<'static> = serde_json::from_str(&unsigned.body(Encoding::Json)).unwrap();
    let signature = sign_md5(&fields, &Secret::new("k3y".into()));
    fields.set("sign", signature.clone());
    let mut changed = unsigned.clone().with("sign", &signature);
    changed.amount = "101".into();
    for body in [unsigned.body(Encoding::Json), changed.body(Encoding::Json)] {
        let answer = sidecar.post("/pay/sendApiRedPack", Encoding::Json, &body).await;
        assert_eq!(
            (answer.status, answer.field("returnCode"), answer.code()),
            (200, "FAIL".into(), "SIGN_ERROR".into())
        );
    }
    assert_eq!(upstream.fake.books().requests(), []);
    for encoding in [Encoding::Json, Encoding::Xml] {
        let answer = sidecar
            .pay(encoding, &unsigned.clone().with("sign", &signature))
            .await;
        assert_eq!(answer.code(), "SUCCESS", "{}", answer.body);
    }
}

/// Two requests with the same signed text are both refused: anyone who saw one of them could otherwise send the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_signature_fits_one_request_only() {
    use payout_domain::fields::Fields;
    use payout_domain::secret::Secret;
    use payout_domain::wechat::sign::sign_md5;
    let (upstream, sidecar) = with_access("[access]\nsign_key = \"k3y\"").await;
    let sign = |fields: &[(&str, &str)]| {
        let fields: Fields<'static> = serde_json::from_str(&Encoding::Json.write(fields)).unwrap();
        sign_md5(&fields, &Secret::new("k3y".into()))
    };
    let rest = [
        ("wxAppId", crate::support::sidecar::APP),
        ("mchId", crate::support::sidecar::MERCHANT),
        ("openid", "user-1"),
        ("clientIp", "10.0.0.1"),
        ("remark", "r"),
        ("tradeRecordId", "1"),
    ];
    let split: [(&str, &[(&str, &str)], &[(&str, &str)], &str); 2] = [
        (
            "S1",
            &[
                ("actName", "A&amount=9999&amountX="),
                ("amount", "100"),
                ("nonceStr", "n"),
            ],
            &[
                ("actName", "A"),
                ("amount", "9999"),
                ("amountX", "&amount=100"),
                ("nonceStr", "n"),
            ],
            "actName",
        ),
        (
            "S2",
            &[
                ("actName", "A"),
                ("amount", "100"),
                ("nonceStr", "n"),
                ("notifyWay", "MINI_PROGRAM_JSAPI"),
            ],
            &[
                ("actName", "A"),
                ("amount", "100"),
                ("nonceStr", "n&notifyWay=MINI_PROGRAM_JSAPI"),
            ],
            "nonceStr",
        ),
    ];
    for (order_no, signed, sent, named) in split {
        let with = |fields: &[(&'static str, &'static str)]| {
            [&rest, &[("mchBillno", order_no)][..], fields].concat()
        };
        let signature = sign(&with(signed));
        assert_eq!(signature, sign(&with(sent)), "one text");
        for fields in [with(sent), with(signed)] {
            let body = Encoding::Json.write(&[&fields[..], &[("sign", &signature)]].concat());
            let answer = sidecar.post("/pay/sendApiRedPack", Encoding::Json, &body).await;
            if order_no == "S2" && fields == with(signed) {
                assert_eq!(answer.code(), "SUCCESS", "what was signed: {}", answer.body);
                continue;
            }
            assert_eq!(
                (answer.status, answer.field("returnCode"), answer.code()),
                (200, "FAIL".into(), "SIGN_ERROR".into()),
                "{body}"
            );
            let by_name = if fields == with(sent) && order_no == "S1" {
                "amountX"
            } else {
                named
            };
            let rule = match by_name {
                "nonceStr" => "不正确, 只能含字母、数字和 _",
                _ => "的值不能含有",
            };
            assert!(
                answer
                    .field("returnMsg")
                    .contains(&format!("签名错误: {by_name} {rule}")),
                "{}",
                answer.body
            );
            assert_eq!(upstream.fake.books().payments().len(), 0);
        }
    }
    let payments = upstream.fake.books().payments().to_vec();
    assert_eq!(
        payments
            .iter()
            .map(|paid| (paid.order_no.as_str(), paid.amount))
            .collect::<Vec<_>>(),
        [("S2", 100)]
    );
}

/// The server answers 403 before 401, and both before it reads anything of the body.
#[tokio::test(flavor = "multi_thread")]
async fn the_rules_come_in_the_order_of_the_stack() {
    let (_upstream, sidecar) = with_access(
        "[access]\ntoken = \"t\"\nallow_from = [\"192.0.2.0/24\"]\ntrusted_proxies = [\"127.0.0.1\"]",
    )
    .await;
    let large = vec![b' '; 100_000];
    let path = "/pay/sendApiRedPack";
    assert_eq!(status(&sidecar, path, &[], &large).await, 403);
    assert_eq!(
        status(&sidecar, path, &[("X-Forwarded-For", "192.0.2.1")], &large).await,
        401
    );
    let known = [("X-Forwarded-For", "192.0.2.1"), ("Authorization", "Bearer t")];
    assert_eq!(status(&sidecar, path, &known, &large).await, 413);
}

/// A payout holds its in-flight permit until the sidecar has recorded it, even if the caller has disconnected.
#[tokio::test(flavor = "multi_thread")]
async fn hanging_up_frees_no_place() {
    let (upstream, sidecar) = with_access("[server]\nmax_in_flight = 1").await;
    upstream.fake.set_faults("pay/HUNG=delay:2s".parse().unwrap());
    let body = Payout::new("HUNG1").body(Encoding::Json);
    let headers = [("Content-Type", "application/json")];
    let bytes = test_support::http::request("POST", "/pay/sendApiRedPack", &headers, body.as_bytes());
    let address = sidecar.main;
    let caller = tokio::spawn(async move { test_support::http::exchange(address, &bytes).await });
    test_support::until("under way", async || upstream.times_sent("HUNG1") == 1).await;
    caller.abort();
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("NEXT1")).await.status,
        503
    );
    test_support::until("free again", async || {
        sidecar.pay(Encoding::Json, &Payout::new("NEXT1")).await.status == 200
    })
    .await;
    assert_eq!(upstream.fake.books().times_paid("HUNG1"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_too_many_is_turned_away_at_once() {
    let (upstream, sidecar) = with_access("[server]\nmax_in_flight = 2").await;
    upstream.fake.set_faults("pay/BUSY=delay:2s".parse().unwrap());
    let orders: Vec<Payout> = (0..6).map(|n| Payout::new(&format!("BUSY{n}"))).collect();
    let all = orders.iter().map(|order| sidecar.pay(Encoding::Json, order));
    let answers = futures_util::future::join_all(all).await;
    let turned_away: Vec<_> = answers.iter().filter(|answer| answer.status == 503).collect();
    assert_eq!(turned_away.len(), 4);
    assert!(
        turned_away
            .iter()
            .all(|answer| answer.headers["retry-after"] == "1" && answer.code() == "SYSTEMERROR")
    );
    assert_eq!(upstream.fake.books().payments().len(), 2);
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("AFTER")).await.code(),
        "SUCCESS",
        "places are given back"
    );
}
