//! Payouts: each is paid once, in both encodings, over every store and both kinds of upstream.

use crate::support::sidecar::{
    APP, BOTH, Encoding, MERCHANT, OPENID, Payout, Sidecar, To, Upstream, embedded, in_redis,
};
use test_support::redis::{Cluster, Redis, Sentinels};
use test_support::until;

/// Runs everything that can happen to an order, in both encodings.
async fn pays_once_and_answers_repeats(sidecar: &Sidecar, upstream: &Upstream, tag: &str) {
    for encoding in BOTH {
        let payout = Payout::new(&format!("{tag}{encoding:?}1"));
        let first = sidecar.pay(encoding, &payout).await;
        assert_eq!(
            (first.status, first.code().as_str()),
            (200, "SUCCESS"),
            "{}",
            first.body
        );
        assert_eq!(
            first.headers["content-type"],
            format!("{}; charset=utf-8", encoding.media())
        );
        assert_eq!(first.field("mchBillno"), payout.order_no);
        match upstream.to {
            To::Transfer | To::Bill { .. } => {
                assert_eq!(first.field("partnerTradeNo"), payout.order_no);
                assert_eq!(
                    (first.field("mchAppid"), first.field("mchid")),
                    (APP.into(), MERCHANT.into())
                );
                assert_eq!(first.field("paymentTime").len(), "2015-05-19 15:26:59".len());
                assert!(!first.field("paymentNo").is_empty());
            }
            To::Redpack | To::Handler { .. } => {
                assert_eq!(
                    first.field("reOpenid"),
                    "user-1",
                    "the platform is not told the openid"
                );
                assert_eq!(
                    (first.field("totalAmount"), first.field("wxappid")),
                    ("100".into(), APP.into())
                );
                assert!(!first.field("sendListid").is_empty());
            }
        }
        // A repeat in the other encoding, with other texts, gets the first answer.
        let other = if encoding == Encoding::Json {
            Encoding::Xml
        } else {
            Encoding::Json
        };
        let repeat = sidecar.pay(other, &payout.clone().with("environment", "x")).await;
        assert_eq!(repeat.fields(), first.fields());
        // The sidecar refuses another amount, user or app under the same number.
        let mut changed = payout.clone();
        changed.amount = "101".into();
        assert_eq!(sidecar.pay(encoding, &changed).await.code(), "PARAM_ERROR");
        let books = upstream.fake.books();
        assert_eq!(
            (
                books.times_paid(&payout.order_no),
                upstream.times_sent(&payout.order_no)
            ),
            (1, 1)
        );
        let payment = books
            .payments()
            .iter()
            .find(|p| p.order_no == payout.order_no)
            .unwrap();
        assert_eq!(
            (payment.openid.as_str(), payment.amount),
            (OPENID, 100),
            "the user id was mapped"
        );
        let address = ["client_ip", "spbill_create_ip", "clientIp"]
            .iter()
            .find_map(|name| payment.parameters.get(*name));
        assert_eq!(
            address.map(String::as_str),
            (!matches!(upstream.to, To::Bill { .. })).then_some("203.0.113.7"),
            "clientIp was rewritten, where the product has one"
        );

        let mut stranger = Payout::new(&format!("{tag}{encoding:?}2"));
        stranger.user = "user-9".into();
        assert_eq!(sidecar.pay(encoding, &stranger).await.code(), "OPENID_ERROR");
        assert_eq!(upstream.times_sent(&stranger.order_no), 0);

        let status = sidecar.status(encoding, &payout).await;
        let word = match upstream.to {
            To::Transfer => "SUCCESS",
            // The bill waits for its user.
            To::Bill { .. } => "PROCESSING",
            To::Redpack | To::Handler { .. } => "SENT",
        };
        assert_eq!(
            (status.code(), status.field("status")),
            ("SUCCESS".into(), word.into()),
            "{}",
            status.body
        );
        assert_eq!(
            sidecar.status(encoding, &Payout::new("NOBODY")).await.code(),
            "NOT_FOUND"
        );
    }
    refusals_and_doubts(sidecar, upstream, tag).await;
    fifty_at_once(sidecar, upstream, tag).await;
}

async fn refusals_and_doubts(sidecar: &Sidecar, upstream: &Upstream, tag: &str) {
    let set = |spec: String| upstream.fake.set_faults(spec.parse().unwrap());
    let refused = Payout::new(&format!("{tag}R1"));
    let is_bill = matches!(upstream.to, To::Bill { .. });
    let code = if is_bill { "NOT_ENOUGH" } else { "NOTENOUGH" };
    set(format!("pay/{tag}R=error:{code}*1"));
    assert_eq!(sidecar.pay(Encoding::Json, &refused).await.code(), code);
    assert_eq!(
        sidecar.pay(Encoding::Xml, &refused).await.code(),
        "SUCCESS",
        "certainly not paid: sent again"
    );
    assert_eq!(
        (
            upstream.times_sent(&refused.order_no),
            upstream.fake.books().times_paid(&refused.order_no)
        ),
        (2, 1)
    );

    let silent = Payout::new(&format!("{tag}U1"));
    set(format!("pay/{tag}U=reset-after*1"));
    assert_eq!(sidecar.pay(Encoding::Json, &silent).await.code(), "SYSTEMERROR");
    assert_eq!(
        sidecar.pay(Encoding::Json, &silent).await.code(),
        "SUCCESS",
        "the upstream was asked"
    );
    assert_eq!(
        (
            upstream.times_sent(&silent.order_no),
            upstream.fake.books().times_paid(&silent.order_no)
        ),
        // A bill that waits for its user is sent again under the same number, since no query returns its package.
        (if is_bill { 2 } else { 1 }, 1)
    );
}

async fn fifty_at_once(sidecar: &Sidecar, upstream: &Upstream, tag: &str) {
    let payout = Payout::new(&format!("{tag}F1"));
    upstream
        .fake
        .set_faults(format!("pay/{tag}F=delay:300ms").parse().unwrap());
    let all = (0..50).map(|n| sidecar.pay(BOTH[n % 2], &payout));
    let answers = futures_util::future::join_all(all).await;
    for answer in &answers {
        assert_eq!(
            (answer.code().as_str(), answer.fields()),
            ("SUCCESS", answers[0].fields())
        );
    }
    assert_eq!(upstream.times_sent(&payout.order_no), 1);
}

async fn on_embedded_stores(to: To) {
    let upstream = Upstream::start(to).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!("{}{}", embedded(&dir), upstream.configuration());
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    assert!(sidecar.is_ready().await);
    pays_once_and_answers_repeats(&sidecar, &upstream, "E").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn red_packets_on_embedded_stores() {
    on_embedded_stores(To::Redpack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transfers_on_embedded_stores() {
    on_embedded_stores(To::Transfer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bills_on_embedded_stores() {
    on_embedded_stores(To::Bill { certificates: false }).await;
    on_embedded_stores(To::Bill { certificates: true }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_on_embedded_stores() {
    on_embedded_stores(To::Handler { idempotent: false }).await;
    on_embedded_stores(To::Handler { idempotent: true }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_upstream_on_one_redis() {
    let redis = Redis::start();
    redis.cli(&["SET", &format!("openid:{APP}:user-1"), OPENID]);
    for (to, tag) in [
        (To::Redpack, "A"),
        (To::Transfer, "B"),
        (To::Handler { idempotent: false }, "C"),
        (To::Bill { certificates: false }, "D"),
    ] {
        let upstream = Upstream::start(to).await;
        let sidecar =
            Sidecar::start(&format!("{}{}", in_redis(&redis.url()), upstream.configuration())).await;
        until("ready", async || sidecar.is_ready().await).await;
        pays_once_and_answers_repeats(&sidecar, &upstream, tag).await;
        assert!(
            !sidecar.log().contains("may forget"),
            "this Redis syncs and does not evict"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_redis_cluster() {
    let cluster = Cluster::start();
    cluster.set(&format!("openid:{APP}:user-1"), OPENID);
    let upstream = Upstream::start(To::Redpack).await;
    let sidecar = Sidecar::start(&format!(
        "{}{}",
        in_redis(&cluster.url()),
        upstream.configuration()
    ))
    .await;
    until("ready", async || sidecar.is_ready().await).await;
    pays_once_and_answers_repeats(&sidecar, &upstream, "K").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_sentinel_set_up_and_after_its_fail_over() {
    let mut sentinels = Sentinels::start();
    sentinels.servers[0].cli(&["SET", &format!("openid:{APP}:user-1"), OPENID]);
    let upstream = Upstream::start(To::Redpack).await;
    let configuration = format!(
        "{}wait_replicas = 1\n{}",
        in_redis(&sentinels.url()),
        upstream.configuration()
    );
    let sidecar = Sidecar::start(&configuration).await;
    until("ready", async || sidecar.is_ready().await).await;
    pays_once_and_answers_repeats(&sidecar, &upstream, "S").await;
    let before = Payout::new("SBEFORE");
    assert_eq!(sidecar.pay(Encoding::Json, &before).await.code(), "SUCCESS");
    sentinels.fail_over();
    // No replica is left to acknowledge a claim: the sidecar sends nothing and calls nothing refused.
    let waiting = Payout::new("SAFTER");
    assert_eq!(sidecar.pay(Encoding::Json, &waiting).await.code(), "SYSTEMERROR");
    assert_eq!(upstream.times_sent(&waiting.order_no), 0);
    // The link may leave the old master only a moment after the new one is there.
    until("the new master knows it", async || {
        sidecar.pay(Encoding::Json, &before).await.code() == "SUCCESS"
    })
    .await;
    assert_eq!(upstream.fake.books().times_paid(&before.order_no), 1);
    let alone = format!("{}{}", in_redis(&sentinels.url()), upstream.configuration());
    let sidecar = Sidecar::start(&alone).await;
    until("ready", async || sidecar.is_ready().await).await;
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("SALONE")).await.code(),
        "SUCCESS"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_on_one_redis_pay_an_order_once() {
    let redis = Redis::start();
    redis.cli(&["SET", &format!("openid:{APP}:user-1"), OPENID]);
    let upstream = Upstream::start(To::Handler { idempotent: false }).await;
    let configuration = format!("{}{}", in_redis(&redis.url()), upstream.configuration());
    let replicas = [
        Sidecar::start(&configuration).await,
        Sidecar::start(&configuration).await,
    ];
    upstream.fake.set_faults("pay=delay:300ms".parse().unwrap());
    let payout = Payout::new("TWO1");
    let all = (0..60).map(|n| replicas[n % 2].pay(BOTH[n % 2], &payout));
    let answers = futures_util::future::join_all(all).await;
    assert!(
        answers.iter().all(|answer| answer.code() == "SUCCESS"),
        "{:?}",
        answers.iter().map(|a| a.code()).collect::<Vec<_>>()
    );
    assert_eq!(
        (
            upstream.times_sent("TWO1"),
            upstream.fake.books().times_paid("TWO1")
        ),
        (1, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payout_costs_two_round_trips_before_the_upstream_and_no_connection_of_its_own() {
    let redis = Redis::start();
    redis.cli(&["SET", &format!("openid:{APP}:user-1"), OPENID]);
    let upstream = Upstream::start(To::Redpack).await;
    let no_cache = in_redis(&redis.url()).replace("[ledger]", "cache_entries = 0\n[ledger]");
    let sidecar = Sidecar::start(&format!("{no_cache}{}", upstream.configuration())).await;
    for n in 0..3 {
        assert_eq!(
            sidecar
                .pay(Encoding::Json, &Payout::new(&format!("W{n}")))
                .await
                .code(),
            "SUCCESS"
        );
    }
    let connections = redis.info("clients", "connected_clients");
    let to_upstream = upstream.fake.connections();
    redis.cli(&["CONFIG", "RESETSTAT"]);
    for n in 0..20 {
        assert_eq!(
            sidecar
                .pay(Encoding::Json, &Payout::new(&format!("T{n}")))
                .await
                .code(),
            "SUCCESS"
        );
    }
    let lookups = redis.calls("get");
    assert!(
        (20..30).contains(&lookups),
        "one lookup each, and now and then one of the ledger's mark: {lookups}"
    );
    // The settler also looks for due orders meanwhile, and runs its own script when it finds one.
    let scripts = redis.calls("evalsha");
    let most = 40 + redis.calls("zrangebyscore");
    assert!(
        (40..=most).contains(&scripts),
        "one claim and one record each, not {scripts}; {most} with the settler's"
    );
    assert_eq!(
        (
            redis.calls("eval"),
            redis.calls("script|load"),
            redis.calls("sadd")
        ),
        (0, 0, 0)
    );
    assert_eq!(
        upstream.fake.connections(),
        to_upstream,
        "the connection to the upstream is used again"
    );
    assert_eq!(redis.info("clients", "connected_clients"), connections);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mini_program_red_packet_where_the_request_asks_for_one() {
    let upstream = Upstream::start(To::Redpack).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!("{}{}", embedded(&dir), upstream.configuration());
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    for encoding in BOTH {
        let payout = Payout::new(&format!("MINI{encoding:?}")).with("notifyWay", "MINI_PROGRAM_JSAPI");
        let answer = sidecar.pay(encoding, &payout).await;
        assert_eq!(answer.code(), "SUCCESS", "{}", answer.body);
        assert!(
            answer.field("hbpackage").starts_with("sendid="),
            "{}",
            answer.body
        );
        assert_eq!(
            upstream
                .fake
                .books()
                .times_asked("sendminiprogramhb", &payout.order_no),
            1
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_gets_the_normalised_request_with_its_idempotency_key() {
    for (format, encoding) in [
        ("json", Encoding::Xml),
        ("xml", Encoding::Json),
        ("same", Encoding::Xml),
    ] {
        let upstream = Upstream::start(To::Handler { idempotent: true }).await;
        let dir = tempfile::tempdir().unwrap();
        let configuration = format!(
            "{}{}handler_format = \"{format}\"\n",
            embedded(&dir),
            upstream.configuration()
        );
        let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
        let payout = Payout::new("H1")
            .with("zone", "东区")
            .with("apiSecretKey", "marked-secret")
            .with("privateKey", "marked-secret")
            .with("certKey", "marked-secret");
        assert_eq!(sidecar.pay(encoding, &payout).await.code(), "SUCCESS");
        let books = upstream.fake.books();
        let asked = books
            .requests()
            .iter()
            .find(|asked| asked.endpoint == "send")
            .unwrap();
        let header = |name: &str| {
            asked
                .headers
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.as_str())
        };
        assert_eq!(header("idempotency-key"), Some(format!("{MERCHANT}:H1").as_str()));
        let media = if format == "json" {
            "application/json; charset=utf-8"
        } else {
            "application/xml; charset=utf-8"
        };
        assert_eq!(header("content-type"), Some(media), "{format}");
        let field = |name: &str| asked.fields.get(name).map(String::as_str);
        assert_eq!(
            (field("openid"), field("clientIp"), field("amount")),
            (Some(OPENID), Some("203.0.113.7"), Some("100"))
        );
        assert_eq!(
            (field("zone"), field("remark")),
            (Some("东区"), Some("恭喜中奖 <&>"))
        );
        assert!(
            !format!("{:?}", asked.fields).contains("marked-secret"),
            "credentials are not for a handler"
        );
        let log = sidecar.logged(r#""state":"succeeded""#).await;
        assert!(!log.contains("marked-secret"));
        assert!(
            !log.contains(OPENID) && !log.contains("user-1"),
            "people appear shortened"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn merchants_are_routed_and_unknown_ones_refused() {
    let upstream = Upstream::start(To::Redpack).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!("{}{}", embedded(&dir), upstream.configuration());
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    let mut payout = Payout::new("N1");
    payout.mch_id = "1900000999".into();
    let answer = sidecar.pay(Encoding::Json, &payout).await;
    assert_eq!(
        (answer.status, answer.code(), answer.field("returnCode")),
        (200, "NO_AUTH".into(), "FAIL".into())
    );
    assert_eq!(answer.field("mchBillno"), "N1");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_the_request_are_used_where_that_is_configured() {
    let upstream = Upstream::start(To::Redpack).await;
    let dir = tempfile::tempdir().unwrap();
    let merchant = format!(
        "[[merchant]]\nmch_id = \"{MERCHANT}\"\nto = \"wechat\"\nproduct = \"redpack\"\nsend_name = \"商户\"\nwishing = \"恭喜\"\n\
         request_credentials = true\n"
    );
    let (head, _) = upstream
        .configuration()
        .split_once("[[merchant]]")
        .map(|(h, t)| (h.to_owned(), t.to_owned()))
        .unwrap();
    let configuration = format!("{}{head}{merchant}", embedded(&dir));
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    let without = sidecar.pay(Encoding::Json, &Payout::new("Q1")).await;
    assert_eq!(
        without.code(),
        "SYSTEMERROR",
        "nothing to sign with: nothing is sent"
    );
    let (cert, key) = upstream.fake.client_certificate(MERCHANT).unwrap();
    for encoding in BOTH {
        let payout = Payout::new(&format!("Q{encoding:?}"))
            .with("apiSecretKey", fake_wechat::API_KEY)
            .with("certKey", &cert)
            .with("privateKey", &key);
        assert_eq!(sidecar.pay(encoding, &payout).await.code(), "SUCCESS");
    }
    let stored = std::fs::read(sidecar.dir.path().join("payouts.redb")).unwrap();
    let stored = String::from_utf8_lossy(&stored);
    assert!(
        !stored.contains("PRIVATE KEY") && !stored.contains(fake_wechat::API_KEY),
        "never stored"
    );
    assert!(!sidecar.log().contains("PRIVATE KEY") && !sidecar.log().contains(fake_wechat::API_KEY));
}

/// For both products, the status answer carries WeChat's values under the contract's names, and the order's result.
#[tokio::test(flavor = "multi_thread")]
async fn a_status_answer_has_every_field_of_its_product() {
    for (to, fields) in [
        (
            To::Redpack,
            &[
                "detailId",
                "sendType",
                "hbType",
                "totalNum",
                "totalAmount",
                "sendTime",
                "wishing",
                "remark",
                "actName",
            ][..],
        ),
        (
            To::Transfer,
            &[
                "partnerTradeNo",
                "appid",
                "openid",
                "paymentAmount",
                "transferTime",
                "paymentTime",
                "desc",
            ],
        ),
    ] {
        let upstream = Upstream::start(to).await;
        let dir = tempfile::tempdir().unwrap();
        let configuration = format!("{}{}", embedded(&dir), upstream.configuration());
        let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
        let payout = Payout::new("STAT1");
        assert_eq!(sidecar.pay(Encoding::Json, &payout).await.code(), "SUCCESS");
        for encoding in BOTH {
            let status = sidecar.status(encoding, &payout).await.fields();
            for name in fields {
                assert!(
                    status.get(*name).is_some_and(|value| !value.is_empty()),
                    "{to:?}: {name} in {status:?}"
                );
            }
            assert_eq!(
                (status["mchBillno"].as_str(), status["mchId"].as_str()),
                ("STAT1", MERCHANT)
            );
            assert!(
                !format!("{status:?}").contains(OPENID),
                "the openid is not revealed"
            );
        }
        let later = if to == To::Transfer {
            "PROCESSING"
        } else {
            "RECEIVED"
        };
        upstream.fake.set_status("STAT1", later);
        assert_eq!(
            sidecar.status(Encoding::Xml, &payout).await.field("status"),
            later
        );
        // If the upstream does not answer, the record supplies the answer.
        upstream.fake.set_faults("query=status:502".parse().unwrap());
        let remembered = sidecar.status(Encoding::Json, &payout).await;
        assert_eq!(
            (remembered.code(), remembered.field("status")),
            ("SUCCESS".into(), later.into())
        );
        upstream
            .fake
            .set_faults("pay=reset-before;query=status:502".parse().unwrap());
        let unsettled = Payout::new("STAT2");
        assert_eq!(
            sidecar.pay(Encoding::Json, &unsettled).await.code(),
            "SYSTEMERROR"
        );
        assert_eq!(
            sidecar.status(Encoding::Json, &unsettled).await.code(),
            "SYSTEMERROR"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openid_is_revealed_only_where_that_is_configured() {
    let upstream = Upstream::start(To::Transfer).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!(
        "{}[answer]\nreveal_openid = true\n{}",
        embedded(&dir),
        upstream.configuration()
    );
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    let payout = Payout::new("REV1");
    assert_eq!(sidecar.pay(Encoding::Json, &payout).await.code(), "SUCCESS");
    assert_eq!(
        sidecar.status(Encoding::Json, &payout).await.field("openid"),
        OPENID
    );
}
