//! Faults of upstreams and stores: the sidecar loses no order, pays none twice, and refuses none that may have been
//! paid.

use crate::support::sidecar::{APP, Encoding, OPENID, Payout, Sidecar, To, Upstream, embedded, in_redis};
use test_support::redis::Redis;
use test_support::until;

async fn on_files(upstream: &Upstream, more: &str) -> Sidecar {
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!("{}{}{more}", embedded(&dir), upstream.configuration());
    Sidecar::start_in(dir, &configuration, &[]).await
}

/// Every fault of a paying call: what the caller gets, whether the fake paid, and what a repeat ends with.
#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_wechat_before_and_after_paying() {
    let upstream = Upstream::start(To::Redpack).await;
    let sidecar = on_files(&upstream, "").await;
    for (n, (fault, told, paid)) in [
        ("reset-before", "SYSTEMERROR", 0),
        ("reset-after", "SYSTEMERROR", 1),
        ("hang-before", "SYSTEMERROR", 0),
        ("hang-after", "SYSTEMERROR", 1),
        ("status:502", "SYSTEMERROR", 0),
        ("status:404", "SYSTEMERROR", 0),
        ("status-after:500", "SYSTEMERROR", 1),
        ("error:SYSTEMERROR", "SYSTEMERROR", 0),
        ("error-after:SYSTEMERROR", "SYSTEMERROR", 1),
        ("error-after:PROCESSING", "SYSTEMERROR", 1),
        ("error-after:BRAND_NEW_CODE", "SYSTEMERROR", 1),
        ("error:FATAL_ERROR", "SYSTEMERROR", 0),
        ("error:FREQ_LIMIT", "FREQ_LIMIT", 0),
        ("error:NOTENOUGH", "NOTENOUGH", 0),
        ("fail-outer:no code", "SYSTEMERROR", 0),
        ("garbage", "SYSTEMERROR", 0),
        ("garbage-after", "SYSTEMERROR", 1),
        ("empty-after", "SYSTEMERROR", 1),
        ("truncate-after", "SYSTEMERROR", 1),
        ("redirect", "SYSTEMERROR", 0),
        ("wrong-amount", "SYSTEMERROR", 1),
    ]
    .into_iter()
    .enumerate()
    {
        let payout = Payout::new(&format!("F{n:02}"));
        upstream
            .fake
            .set_faults(format!("pay/F{n:02}={fault}*1").parse().unwrap());
        let first = sidecar.pay(Encoding::Json, &payout).await;
        assert_eq!(first.code(), told, "{fault}: {}", first.body);
        assert_eq!(
            upstream.fake.books().times_paid(&payout.order_no),
            paid,
            "{fault}"
        );
        assert_eq!(
            upstream.times_sent(&payout.order_no),
            1,
            "{fault}: nothing repeats by itself"
        );
        let repeat = sidecar.pay(Encoding::Xml, &payout).await;
        assert_eq!(repeat.code(), "SUCCESS", "{fault}: {}", repeat.body);
        assert_eq!(upstream.fake.books().times_paid(&payout.order_no), 1, "{fault}");
    }
}

/// The same with a handler that pays on each call: the sidecar never resends an order that may have been paid.
#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_a_handler_that_pays_on_each_call() {
    let upstream = Upstream::start(To::Handler { idempotent: false }).await;
    let sidecar = on_files(&upstream, "not_found_after = \"60s\"\n").await;
    for (n, (fault, told, paid)) in [
        ("reset-before", "SYSTEMERROR", 0),
        ("reset-after", "SYSTEMERROR", 1),
        ("hang-after", "SYSTEMERROR", 1),
        ("status:503", "SYSTEMERROR", 0),
        ("status:409", "SYSTEMERROR", 0),
        ("status-after:500", "SYSTEMERROR", 1),
        ("error-after:SYSTEMERROR", "SYSTEMERROR", 1),
        ("error-after:OF_THEIR_OWN", "SYSTEMERROR", 1),
        ("garbage-after", "SYSTEMERROR", 1),
        ("truncate-after", "SYSTEMERROR", 1),
        ("late:300ms", "SYSTEMERROR", 1),
    ]
    .into_iter()
    .enumerate()
    {
        let payout = Payout::new(&format!("G{n:02}"));
        upstream
            .fake
            .set_faults(format!("pay/G{n:02}={fault}*1").parse().unwrap());
        assert_eq!(sidecar.pay(Encoding::Json, &payout).await.code(), told, "{fault}");
        if paid == 1 {
            until("paid, at the latest by now", async || {
                upstream.fake.books().times_paid(&payout.order_no) == 1
            })
            .await;
            assert_eq!(
                sidecar.pay(Encoding::Json, &payout).await.code(),
                "SUCCESS",
                "{fault}: it was asked"
            );
        } else {
            for _ in 0..2 {
                let repeat = sidecar.pay(Encoding::Json, &payout).await.code();
                assert_eq!(
                    repeat, "SYSTEMERROR",
                    "{fault}: \"no such order\" is not believed yet"
                );
            }
        }
        assert_eq!(
            (
                upstream.times_sent(&payout.order_no),
                upstream.fake.books().times_paid(&payout.order_no)
            ),
            (1, paid),
            "{fault}"
        );
    }
}

/// A status that cannot mean "paid" makes the order refused, and the sidecar sends a repeat again.
#[tokio::test(flavor = "multi_thread")]
async fn a_handlers_refusing_statuses() {
    let upstream = Upstream::start(To::Handler { idempotent: false }).await;
    let sidecar = on_files(&upstream, "").await;
    for status in [400, 401, 403, 404, 405, 413, 415, 422, 429] {
        let payout = Payout::new(&format!("ST{status}"));
        upstream
            .fake
            .set_faults(format!("pay/ST{status}=status:{status}*1").parse().unwrap());
        let code = sidecar.pay(Encoding::Json, &payout).await.code();
        assert!(
            ["PARAM_ERROR", "NO_AUTH", "FREQ_LIMIT"].contains(&code.as_str()),
            "{status}: {code}"
        );
        assert_eq!(
            sidecar.pay(Encoding::Json, &payout).await.code(),
            "SUCCESS",
            "{status}"
        );
        assert_eq!(upstream.fake.books().times_paid(&payout.order_no), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spent_number_answers_the_same_for_ever() {
    let upstream = Upstream::start(To::Redpack).await;
    let sidecar = on_files(&upstream, "").await;
    upstream
        .fake
        .set_faults("pay=error:SEND_FAILED*1".parse().unwrap());
    for _ in 0..3 {
        assert_eq!(
            sidecar.pay(Encoding::Json, &Payout::new("BURNT")).await.code(),
            "SEND_FAILED"
        );
    }
    assert_eq!(upstream.times_sent("BURNT"), 1);
}

/// The upstream rejects a second attempt unprocessed. That says nothing about the first, so the order stays unknown.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_before_processing_leaves_an_earlier_doubt() {
    let upstream = Upstream::start(To::Redpack).await;
    let sidecar = on_files(&upstream, "").await;
    upstream.fake.set_faults(
        "sendredpack=hang-before*1;sendredpack=error:FREQ_LIMIT*1"
            .parse()
            .unwrap(),
    );
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("DOOR")).await.code(),
        "SYSTEMERROR"
    );
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("DOOR")).await.code(),
        "SYSTEMERROR"
    );
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("DOOR")).await.code(),
        "SUCCESS"
    );
    assert_eq!(upstream.fake.books().times_paid("DOOR"), 1);
}

/// A repeat sends the parameters of the first request and ignores its own.
#[tokio::test(flavor = "multi_thread")]
async fn every_attempt_sends_the_first_ones_parameters() {
    let upstream = Upstream::start(To::Redpack).await;
    let sidecar = on_files(&upstream, "").await;
    upstream
        .fake
        .set_faults("sendredpack=reset-before*1".parse().unwrap());
    let first = Payout::new("SAME1").with("wishing", "第一");
    let second = Payout::new("SAME1").with("wishing", "第二");
    assert_eq!(sidecar.pay(Encoding::Json, &first).await.code(), "SYSTEMERROR");
    let mapping = format!("wx_app_id,user_id,openid\n{APP},user-1,oANOTHER000000000000000001\n");
    std::fs::write(sidecar.dir.path().join("openids.csv"), mapping).unwrap();
    sidecar.logged("the mapping was read again").await;
    assert_eq!(sidecar.pay(Encoding::Json, &second).await.code(), "SUCCESS");
    let sent: Vec<_> = upstream
        .fake
        .books()
        .requests()
        .iter()
        .filter(|asked| asked.endpoint == "sendredpack")
        .cloned()
        .collect();
    let parameters = |n: usize| {
        let mut fields = sent[n].fields.clone();
        (fields.remove("nonce_str"), fields.remove("sign"), fields)
    };
    assert_eq!(sent.len(), 2);
    assert_eq!(parameters(0).2, parameters(1).2);
    assert_ne!(
        parameters(0).0,
        parameters(1).0,
        "each attempt has a nonce of its own"
    );
    assert_eq!(
        sent[1].fields["re_openid"], OPENID,
        "a later mapping never redirects a retry"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_upstream_nothing_is_sent_and_the_number_stays_free() {
    for to in [To::Redpack, To::Handler { idempotent: false }] {
        let upstream = Upstream::start(to).await;
        let configuration = upstream.configuration();
        let dead = test_support::free_port();
        let nowhere = configuration
            .replace(
                &format!(":{}\"\nca", upstream.fake.tls_addr().unwrap().port()),
                &format!(":{dead}\"\nca"),
            )
            .replace(
                &format!("handler_url = \"http://{}", upstream.fake.addr()),
                &format!("handler_url = \"http://127.0.0.1:{dead}"),
            );
        assert_ne!(configuration, nowhere);
        let dir = tempfile::tempdir().unwrap();
        let stores = embedded(&dir);
        let mut sidecar = Sidecar::start_in(dir, &format!("{stores}{nowhere}"), &[]).await;
        let payout = Payout::new("DOWN1");
        let answer = sidecar.pay(Encoding::Json, &payout).await;
        assert_eq!(answer.code(), "SYSTEMERROR");
        assert!(
            answer.field("errCodeDes").contains("未发起付款"),
            "{}",
            answer.body
        );
        sidecar.kill();
        std::fs::write(
            sidecar.dir.path().join("config.toml"),
            format!("{stores}{configuration}"),
        )
        .unwrap();
        sidecar.launch(&[]).await;
        assert_eq!(sidecar.pay(Encoding::Json, &payout).await.code(), "SUCCESS");
        assert_eq!(upstream.fake.books().times_paid("DOWN1"), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_failures_move_to_the_backup_host() {
    let upstream = Upstream::start(To::Redpack).await;
    let tls = upstream.fake.tls_addr().unwrap().port();
    let dead = test_support::free_port();
    let configuration = upstream.configuration().replace(
        &format!("base_url = \"https://localhost:{tls}\""),
        &format!("base_url = \"https://localhost:{dead}\"\nbackup_url = \"https://localhost:{tls}\""),
    );
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!("{}{configuration}", embedded(&dir));
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("BACK1")).await.code(),
        "SUCCESS"
    );
    assert_eq!(upstream.times_sent("BACK1"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_certificates_pay_nothing_and_lose_nothing() {
    let upstream = Upstream::start(To::Redpack).await;
    let stranger = Upstream::start(To::Redpack).await;
    let own = upstream.dir.path().display().to_string();
    let other = stranger.dir.path().display().to_string();
    let good = upstream.configuration();
    // A server of another CA, a client certificate of another CA, and another merchant's client certificate.
    let wrong_ca = good.replace(&format!("{own}/stub-ca.crt"), &format!("{other}/stub-ca.crt"));
    let wrong_client = good.replace(&format!("{own}/1900000109"), &format!("{other}/1900000109"));
    let (cert, key) = upstream.fake.client_certificate("1900000777").unwrap();
    let swapped = tempfile::tempdir().unwrap();
    std::fs::write(swapped.path().join("apiclient_cert.pem"), cert).unwrap();
    std::fs::write(swapped.path().join("apiclient_key.pem"), key).unwrap();
    let wrong_merchant = good.replace(
        &format!("{own}/1900000109"),
        &swapped.path().display().to_string(),
    );
    for (n, (configuration, told)) in [
        (wrong_ca, "SYSTEMERROR"),
        (wrong_client, "SYSTEMERROR"),
        (wrong_merchant, "CA_ERROR"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_ne!(configuration, good);
        let dir = tempfile::tempdir().unwrap();
        let stores = embedded(&dir);
        let mut sidecar = Sidecar::start_in(dir, &format!("{stores}{configuration}"), &[]).await;
        let payout = Payout::new(&format!("CERT{n}"));
        assert_eq!(sidecar.pay(Encoding::Json, &payout).await.code(), told);
        assert_eq!(upstream.fake.books().times_paid(&payout.order_no), 0);
        sidecar.kill();
        std::fs::write(sidecar.dir.path().join("config.toml"), format!("{stores}{good}")).unwrap();
        sidecar.launch(&[]).await;
        assert_eq!(
            sidecar.pay(Encoding::Json, &payout).await.code(),
            "SUCCESS",
            "mended: the same number pays"
        );
        assert_eq!(upstream.fake.books().times_paid(&payout.order_no), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_nothing_is_sent_and_with_it_everything_goes_on() {
    let mut redis = Redis::start();
    redis.cli(&["SET", &format!("openid:{APP}:user-1"), OPENID]);
    let upstream = Upstream::start(To::Handler { idempotent: false }).await;
    let sidecar = Sidecar::start(&format!("{}{}", in_redis(&redis.url()), upstream.configuration())).await;
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("RD1")).await.code(),
        "SUCCESS"
    );
    redis.kill();
    for n in 0..3 {
        let answer = sidecar.pay(Encoding::Xml, &Payout::new(&format!("RD2{n}"))).await;
        assert_eq!(answer.code(), "SYSTEMERROR", "{}", answer.body);
    }
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("RD1")).await.code(),
        "SYSTEMERROR",
        "never \"refused\""
    );
    assert!(!sidecar.is_ready().await, "readiness asks the store");
    assert_eq!(
        test_support::http::call(sidecar.admin, "GET", "/livez", &[], b"")
            .await
            .status,
        200,
        "liveness does not"
    );
    assert_eq!(upstream.fake.books().payments().len(), 1);
    redis.restart();
    until("ready again", async || sidecar.is_ready().await).await;
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("RD1")).await.code(),
        "SUCCESS"
    );
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("RD20")).await.code(),
        "SUCCESS"
    );
    assert_eq!((upstream.times_sent("RD1"), upstream.times_sent("RD20")), (1, 1));
}

/// Redis reads the claim but does not answer. The claim may exist or not; the sidecar sends nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_sends_nothing() {
    let redis = Redis::start();
    redis.cli(&["SET", &format!("openid:{APP}:user-1"), OPENID]);
    let upstream = Upstream::start(To::Handler { idempotent: false }).await;
    let sidecar = Sidecar::start(&format!("{}{}", in_redis(&redis.url()), upstream.configuration())).await;
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("HG1")).await.code(),
        "SUCCESS"
    );
    redis.signal("STOP");
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("HG2")).await.code(),
        "SYSTEMERROR"
    );
    redis.signal("CONT");
    // The number stays usable whether or not Redis wrote the claim, and the order is paid once.
    until("paid", async || {
        sidecar.pay(Encoding::Json, &Payout::new("HG2")).await.code() == "SUCCESS"
    })
    .await;
    assert_eq!(
        (
            upstream.times_sent("HG2"),
            upstream.fake.books().times_paid("HG2")
        ),
        (1, 1)
    );
}

/// The settler resolves an unknown order without a repeat.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_order_is_settled_in_the_background() {
    let upstream = Upstream::start(To::Redpack).await;
    let sidecar = on_files(&upstream, "").await;
    upstream
        .fake
        .set_faults("sendredpack=reset-after*1".parse().unwrap());
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("BG1")).await.code(),
        "SYSTEMERROR"
    );
    sidecar.logged(r#""state":"succeeded""#).await;
    assert_eq!(upstream.times_sent("BG1"), 1);
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("BG1")).await.code(),
        "SUCCESS"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_across_both_replicas_and_are_given_back() {
    let redis = Redis::start();
    redis.cli(&["SET", &format!("openid:{APP}:user-1"), OPENID]);
    let upstream = Upstream::start(To::Redpack).await;
    let configuration = format!(
        "{}[limits]\nper_user_per_day = 500\n{}",
        in_redis(&redis.url()),
        upstream.configuration()
    );
    let replicas = [
        Sidecar::start(&configuration).await,
        Sidecar::start(&configuration).await,
    ];
    upstream
        .fake
        .set_faults("sendredpack/REF=error:NOTENOUGH*1".parse().unwrap());
    assert_eq!(
        replicas[0].pay(Encoding::Json, &Payout::new("REF1")).await.code(),
        "NOTENOUGH"
    );
    let orders: Vec<Payout> = (0..9).map(|n| Payout::new(&format!("LIM{n}"))).collect();
    let all = orders
        .iter()
        .enumerate()
        .map(|(n, order)| replicas[n % 2].pay(Encoding::Json, order));
    let codes: Vec<String> = futures_util::future::join_all(all)
        .await
        .iter()
        .map(|answer| answer.code())
        .collect();
    assert_eq!(
        codes.iter().filter(|code| *code == "SUCCESS").count(),
        5,
        "{codes:?}"
    );
    assert_eq!(
        codes.iter().filter(|code| *code == "AMOUNT_LIMIT").count(),
        4,
        "{codes:?}"
    );
    assert_eq!(upstream.fake.books().payments().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_empty_is_noticed_though_nobody_asks_for_readiness() {
    let redis = Redis::start();
    let user = format!("openid:{APP}:user-1");
    redis.cli(&["SET", &user, OPENID]);
    let upstream = Upstream::start(To::Handler { idempotent: false }).await;
    let configuration = format!("{}{}", in_redis(&redis.url()), upstream.configuration());
    let sidecar = Sidecar::start(&configuration).await;
    let pay = async |number: &str| sidecar.pay(Encoding::Json, &Payout::new(number)).await.code();
    assert_eq!(pay("E0").await, "SUCCESS");
    redis.cli(&["FLUSHALL"]);
    redis.cli(&["SET", &user, OPENID]);
    let mut tried = 0;
    until("the reset is noticed", async || {
        tried += 1;
        pay(&format!("E{tried}")).await == "SYSTEMERROR"
    })
    .await;
    assert_eq!(pay("E0").await, "SYSTEMERROR", "which was paid, and is forgotten");
    assert_eq!(upstream.times_sent("E0"), 1);
}
