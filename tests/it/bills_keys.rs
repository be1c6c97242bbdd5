//! WeChat Pay v3's keys: platform certificates downloaded, shared, refreshed and rotated; the wrong key; the backup
//! host.

use std::sync::Arc;
use std::time::Duration;

use fake_wechat::{APIV3_KEY, FakeWechat, Options};
use payout_domain::contract::send::RequestCredentials;
use payout_domain::ids::{MchId, OrderKey, OrderNo, TradeRecordId, WxAppId};
use payout_domain::order::Destination;
use payout_domain::outcome::Found;
use payout_domain::wechat::v3::envelope::Apiv3Key;
use payout_domain::wechat::v3::sign::SigningKey;
use payout_sidecar::clock::SystemClock;
use payout_sidecar::payouts::ports::{OrderQuestion, Upstream as _};
use payout_sidecar::upstream::wechat_v2::Hosts;
use payout_sidecar::upstream::wechat_v3::{BillCredentials, BillUpstream};

use crate::bills::{CERTIFICATES, PUBLIC_KEY, faults, on_files, paid};
use crate::support::sidecar::{APP, Encoding, MERCHANT, Payout, Sidecar, Upstream, embedded};
use test_support::until;

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_platform_certificate_is_downloaded_when_it_is_met() {
    let upstream = Upstream::start(CERTIFICATES).await;
    let sidecar = on_files(&upstream, "").await;
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("ROT0")).await.code(),
        "SUCCESS"
    );
    upstream.fake.rotate_platform_certificate().unwrap();
    // The sidecar believes no answer until it may download certificates again. Meanwhile it pays nothing twice and
    // calls nothing refused.
    let payout = Payout::new("ROT1");
    until("the new certificate is known", async || {
        let code = sidecar.pay(Encoding::Json, &payout).await.code();
        assert!(code == "SYSTEMERROR" || code == "SUCCESS", "{code}");
        code == "SUCCESS"
    })
    .await;
    assert_eq!(paid(&upstream, "ROT1"), 1);
    assert_eq!(upstream.fake.books().times_asked("certificates", ""), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_share_one_download() {
    let upstream = Upstream::start(CERTIFICATES).await;
    let sidecar = on_files(&upstream, "").await;
    faults(&upstream, "certificates=delay:300ms");
    let orders: Vec<Payout> = (0..20).map(|n| Payout::new(&format!("MANY{n}"))).collect();
    let all = orders.iter().map(|order| sidecar.pay(Encoding::Json, order));
    for answer in futures_util::future::join_all(all).await {
        assert_eq!(answer.code(), "SUCCESS", "{}", answer.body);
    }
    assert_eq!(upstream.fake.books().times_asked("certificates", ""), 1);
}

#[tokio::test]
async fn platform_certificates_are_refreshed_in_the_background() {
    let fake = FakeWechat::start(Options::loopback()).await.unwrap();
    let keys = fake.bill_keys(MERCHANT).unwrap();
    let hosts = Hosts {
        base: format!("http://{}", fake.addr()).parse().unwrap(),
        backup: None,
        ca_pem: None,
        connect_timeout: Duration::from_secs(10),
        timeout: Duration::from_secs(10),
        name: "merchant".to_owned(),
        metrics: payout_sidecar::telemetry::metrics::Metrics::default(),
    };
    let credentials = BillCredentials {
        mch_id: MchId::parse(MERCHANT).unwrap(),
        serial_no: keys.serial_no,
        key: Arc::new(SigningKey::from_pem(&keys.key_pem).unwrap()),
        public_key: None,
        apiv3_key: Apiv3Key::new(APIV3_KEY).map(Arc::new),
    };
    let upstream = BillUpstream::new(hosts, credentials, None, Arc::new(SystemClock)).unwrap();
    let question = OrderQuestion {
        key: OrderKey {
            mch_id: MchId::parse(MERCHANT).unwrap(),
            order_no: OrderNo::parse("NONE").unwrap(),
        },
        wx_app_id: WxAppId::parse(APP).unwrap(),
        trade_record_id: TradeRecordId(1),
        upstream: Destination::TransferBill,
        encoding: payout_domain::encoding::Encoding::Json,
        expected: None,
    };
    let ask = async || {
        upstream
            .query(&question, &RequestCredentials::default())
            .await
            .found
    };
    let downloads = || fake.books().times_asked("certificates", "");
    assert_eq!((ask().await, downloads()), (Found::NoSuchOrder, 1));
    assert_eq!((ask().await, downloads()), (Found::NoSuchOrder, 1));
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(13 * 3600)).await;
    tokio::time::resume();
    assert_eq!(ask().await, Found::NoSuchOrder);
    until("looked up again", async || downloads() == 2).await;
    assert_eq!((ask().await, downloads()), (Found::NoSuchOrder, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_failures_move_to_the_backup_host_and_without_one_nothing_is_sent() {
    let upstream = Upstream::start(PUBLIC_KEY).await;
    let tls = upstream.fake.tls_addr().unwrap().port();
    let dead = test_support::free_port();
    let base = format!("base_url = \"https://localhost:{tls}\"");
    let nowhere = format!("base_url = \"https://localhost:{dead}\"");
    let backup = format!("{nowhere}\nbackup_url = \"https://localhost:{tls}\"");
    for (order_no, hosts, told, times) in [
        ("BACKBILL", backup, "SUCCESS", 1),
        ("NOWHERE", nowhere, "SYSTEMERROR", 0),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let configuration = upstream.configuration().replace(&base, &hosts);
        let configuration = format!("{}{configuration}", embedded(&dir));
        let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
        let answer = sidecar.pay(Encoding::Json, &Payout::new(order_no)).await;
        assert_eq!(answer.code(), told, "{}", answer.body);
        assert_eq!(upstream.times_sent(order_no), times);
        let is_free = answer.field("errCodeDes").contains("未发起付款");
        assert_eq!(is_free, times == 0, "{}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_platform_certificates_nothing_is_sent() {
    let upstream = Upstream::start(CERTIFICATES).await;
    let sidecar = on_files(&upstream, "").await;
    for fault in [
        "status:404",
        "spoilt:signature",
        "spoilt:serial",
        "spoilt:stale",
        "spoilt:absent",
        "garbage",
    ] {
        faults(&upstream, &format!("certificates={fault}"));
        let payout = Payout::new("NOCERT");
        let answer = sidecar.pay(Encoding::Json, &payout).await;
        assert_eq!(answer.code(), "SYSTEMERROR", "{fault}");
        assert!(
            answer.field("errCodeDes").contains("未发起付款"),
            "{}",
            answer.body
        );
        assert_eq!(upstream.times_sent("NOCERT"), 0, "{fault}");
    }
    faults(&upstream, "");
    until("paid in the end", async || {
        sidecar.pay(Encoding::Json, &Payout::new("NOCERT")).await.code() == "SUCCESS"
    })
    .await;
    assert_eq!(paid(&upstream, "NOCERT"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merchants_wrong_key_is_refused_before_processing_and_lost_is_nothing() {
    let upstream = Upstream::start(PUBLIC_KEY).await;
    let stranger = upstream.fake.bill_keys("1900000777").unwrap();
    let folder = upstream.dir.path().join(MERCHANT).join("v3");
    let good = std::fs::read_to_string(folder.join("apiclient_key.pem")).unwrap();
    let cert = std::fs::read_to_string(folder.join("apiclient_cert.pem")).unwrap();
    std::fs::write(folder.join("apiclient_key.pem"), stranger.key_pem).unwrap();
    std::fs::write(folder.join("apiclient_cert.pem"), stranger.cert_pem).unwrap();
    let mut sidecar = on_files(&upstream, "").await;
    let payout = Payout::new("WRONGKEY");
    assert_eq!(sidecar.pay(Encoding::Json, &payout).await.code(), "SIGN_ERROR");
    sidecar.kill();
    std::fs::write(folder.join("apiclient_key.pem"), good).unwrap();
    std::fs::write(folder.join("apiclient_cert.pem"), cert).unwrap();
    sidecar.launch(&[]).await;
    assert_eq!(sidecar.pay(Encoding::Json, &payout).await.code(), "SUCCESS");
    assert_eq!(paid(&upstream, "WRONGKEY"), 1);
}
