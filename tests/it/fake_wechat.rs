//! Tests of fake-wechat itself. All other tests depend on it, so it must be as strict as WeChat Pay.

use std::collections::BTreeMap;

use fake_wechat::{API_KEY, FakeWechat, Options};
use md5::{Digest as _, Md5};

use test_support::http::call;

/// Signs v3 requests with a third, independent implementation, written from WeChat's document.
#[tokio::test(flavor = "multi_thread")]
async fn v3_takes_what_is_signed_and_documented_and_nothing_else() {
    use aws_lc_rs::{rand::SystemRandom, rsa::KeyPair, signature::RSA_PKCS1_SHA256};
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    const PATH: &str = "/v3/fund-app/mch-transfer/transfer-bills";
    let fake = FakeWechat::start(Options::loopback()).await.unwrap();
    let keys = fake.bill_keys("19").unwrap();
    let der: String = keys
        .key_pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let pair = KeyPair::from_pkcs8(&STANDARD.decode(der).unwrap()).unwrap();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let good = r#"{"appid":"wx1","out_bill_no":"B1","transfer_scene_id":"1000","openid":"o1","transfer_amount":100,"transfer_remark":"r","transfer_scene_report_infos":[{"info_type":"活动名称","info_content":"a"},{"info_type":"奖励说明","info_content":"r"}]}"#;
    let ask = async |body: &str, signed: &str, at: u64, mch_id: &str| {
        let message = format!("POST\n{PATH}\n{at}\nn0nce\n{signed}\n");
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            message.as_bytes(),
            &mut signature,
        )
        .unwrap();
        let authorization = format!(
            "WECHATPAY2-SHA256-RSA2048 mchid=\"{mch_id}\",nonce_str=\"n0nce\",signature=\"{}\",timestamp=\"{at}\",serial_no=\"{}\"",
            STANDARD.encode(signature),
            keys.serial_no
        );
        let headers = [
            ("Authorization", authorization.as_str()),
            ("Accept", "application/json"),
            ("Content-Type", "application/json"),
            ("User-Agent", "test"),
        ];
        let answer = call(fake.addr(), "POST", PATH, &headers, body.as_bytes()).await;
        assert!(answer.headers.contains_key("wechatpay-signature"));
        let object: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let word = object.get("code").or_else(|| object.get("state")).unwrap();
        (answer.status, word.as_str().unwrap().to_owned())
    };
    let of = |status, word: &str| (status, word.to_owned());
    assert_eq!(ask(good, "other bytes", now, "19").await, of(401, "SIGN_ERROR"));
    assert_eq!(ask(good, good, now - 400, "19").await, of(401, "SIGN_ERROR"));
    assert_eq!(
        ask(good, good, now, "20").await,
        of(401, "SIGN_ERROR"),
        "another's"
    );
    for bad in [
        good.replace("\"r\"", "\"r\",\"extra\":\"x\""),
        good.replace("\"a\"", "\"🎉\""),
        good.replace("100", "200000"),
        good.replace("奖励说明", "别的"),
    ] {
        assert_eq!(ask(&bad, &bad, now, "19").await, of(400, "PARAM_ERROR"), "{bad}");
    }
    assert_eq!(fake.books().payments().len(), 0);
    for _ in 0..2 {
        assert_eq!(ask(good, good, now, "19").await, of(200, "WAIT_USER_CONFIRM"));
    }
    let other = good.replace("100", "101");
    assert_eq!(ask(&other, &other, now, "19").await, of(400, "INVALID_REQUEST"));
    assert_eq!(fake.books().times_paid("B1"), 1);
    assert_eq!(
        call(fake.addr(), "POST", PATH, &[], good.as_bytes()).await.status,
        400,
        "without Accept and User-Agent"
    );
}

fn sendredpack(order_no: &str) -> BTreeMap<&'static str, String> {
    [
        ("nonce_str", "n"),
        ("mch_billno", order_no),
        ("mch_id", "1900000109"),
        ("wxappid", "wx1"),
        ("send_name", "商户"),
        ("re_openid", "o1"),
        ("total_amount", "100"),
        ("total_num", "1"),
        ("wishing", "恭喜"),
        ("client_ip", "203.0.113.7"),
        ("act_name", "a"),
        ("remark", "r"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into()
}

/// A third, independent implementation of the v2 signature, so that the sidecar and the fake do not only confirm each
/// other.
fn signed(fields: &BTreeMap<&'static str, String>, key: &str) -> String {
    let joined: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let digest = Md5::digest(format!("{}&key={key}", joined.join("&")));
    let sign: String = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    let parts: String = fields
        .iter()
        .map(|(name, value)| format!("<{name}>{value}</{name}>"))
        .collect();
    format!("<xml>{parts}<sign>{sign}</sign></xml>")
}

async fn post(fake: &FakeWechat, path: &str, body: &str) -> String {
    let answer = call(
        fake.addr(),
        "POST",
        &format!("/mmpaymkttransfers/{path}"),
        &[],
        body.as_bytes(),
    )
    .await;
    let between = |from: &str, to: &str| {
        answer
            .body
            .split(from)
            .nth(1)
            .and_then(|rest| rest.split(to).next())
            .map(str::to_owned)
    };
    between("<err_code>", "</err_code>")
        .or_else(|| between("<result_code>", "</result_code>"))
        .unwrap_or(answer.body.clone())
}

#[tokio::test]
async fn it_signs_checks_and_pays_as_wechat_does() {
    let fake = FakeWechat::start(Options::loopback()).await.unwrap();
    let good = sendredpack("S1");
    assert_eq!(
        post(&fake, "sendredpack", &signed(&good, API_KEY)).await,
        "SUCCESS"
    );
    let mut again = good.clone();
    again.insert("nonce_str", "m".into());
    assert_eq!(
        post(&fake, "sendredpack", &signed(&again, API_KEY)).await,
        "SUCCESS",
        "re-entry: the first one's result"
    );
    assert_eq!(fake.books().times_paid("S1"), 1);
    for (name, value) in [("total_amount", "101"), ("re_openid", "o2"), ("remark", "other")] {
        let mut other = good.clone();
        other.insert(name, value.into());
        assert_eq!(
            post(&fake, "sendredpack", &signed(&other, API_KEY)).await,
            "FATAL_ERROR",
            "{name}"
        );
    }
    assert_eq!(
        post(&fake, "sendredpack", &signed(&sendredpack("S2"), "another key")).await,
        "SIGN_ERROR"
    );
    for extra in ["sign_type", "appid", "trade_type"] {
        let mut more = sendredpack("S2");
        more.insert(extra, "MD5".into());
        assert_eq!(
            post(&fake, "sendredpack", &signed(&more, API_KEY)).await,
            "SIGN_ERROR",
            "{extra}"
        );
    }
    for (name, value, code) in [
        ("client_ip", "2001:db8::1", "PARAM_ERROR"),
        ("total_num", "2", "PARAM_ERROR"),
        ("mch_billno", "S-2", "PARAM_ERROR"),
        ("remark", "", "PARAM_ERROR"),
        ("total_amount", "99", "MONEY_LIMIT"),
        ("total_amount", "20001", "MONEY_LIMIT"),
    ] {
        let mut bad = sendredpack("S2");
        bad.insert(name, value.into());
        if value.is_empty() {
            bad.remove(name);
        }
        assert_eq!(
            post(&fake, "sendredpack", &signed(&bad, API_KEY)).await,
            code,
            "{name}={value}"
        );
    }
    assert_eq!(post(&fake, "sendredpack", "not xml").await, "XML_ERROR");
    assert_eq!(fake.books().times_paid("S2"), 0);
    let query = |order_no: &str| {
        let fields = [
            ("nonce_str", "n"),
            ("mch_billno", order_no),
            ("mch_id", "1900000109"),
            ("appid", "wx1"),
            ("bill_type", "MCHT"),
        ];
        signed(
            &fields.map(|(name, value)| (name, value.to_owned())).into(),
            API_KEY,
        )
    };
    assert_eq!(post(&fake, "gethbinfo", &query("S1")).await, "SUCCESS");
    assert_eq!(post(&fake, "gethbinfo", &query("S2")).await, "NOT_FOUND");
}

#[tokio::test]
async fn its_books_and_faults_are_reached_over_http() {
    let fake = FakeWechat::start(Options::loopback()).await.unwrap();
    assert_eq!(
        call(fake.addr(), "POST", "/_stub/faults", &[], b"pay=nonsense")
            .await
            .status,
        400
    );
    assert_eq!(
        call(
            fake.addr(),
            "POST",
            "/_stub/faults",
            &[],
            b"pay=error:NOTENOUGH*1"
        )
        .await
        .status,
        200
    );
    let body = signed(&sendredpack("B1"), API_KEY);
    assert_eq!(post(&fake, "sendredpack", &body).await, "NOTENOUGH");
    assert_eq!(post(&fake, "sendredpack", &body).await, "SUCCESS");
    let payments = call(fake.addr(), "GET", "/_stub/payments", &[], b"").await;
    let payments: serde_json::Value = serde_json::from_str(&payments.body).unwrap();
    assert_eq!(
        (
            payments[0]["orderNo"].as_str(),
            payments[0]["amount"].as_i64(),
            payments.as_array().unwrap().len()
        ),
        (Some("B1"), Some(100), 1)
    );
    let requests: serde_json::Value =
        serde_json::from_str(&call(fake.addr(), "GET", "/_stub/requests", &[], b"").await.body).unwrap();
    assert_eq!(requests.as_array().unwrap().len(), 2);
}
