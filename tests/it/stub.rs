//! The stand-in itself: that it is as strict as WeChat Pay, since every other test leans on it.

use std::collections::BTreeMap;

use md5::{Digest as _, Md5};
use payout_sidecar::stub::{API_KEY, Options, Stub};

use crate::support::http::call;

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

/// A third writing of the signature, so that neither side's is taken on its own word.
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

async fn post(stub: &Stub, path: &str, body: &str) -> String {
    let answer = call(
        stub.addr(),
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
    let stub = Stub::start(Options::loopback()).await.unwrap();
    let good = sendredpack("S1");
    assert_eq!(
        post(&stub, "sendredpack", &signed(&good, API_KEY)).await,
        "SUCCESS"
    );
    let mut again = good.clone();
    again.insert("nonce_str", "m".into());
    assert_eq!(
        post(&stub, "sendredpack", &signed(&again, API_KEY)).await,
        "SUCCESS",
        "re-entry: the first one's result"
    );
    assert_eq!(stub.books().times_paid("S1"), 1);
    for (name, value) in [("total_amount", "101"), ("re_openid", "o2"), ("remark", "other")] {
        let mut other = good.clone();
        other.insert(name, value.into());
        assert_eq!(
            post(&stub, "sendredpack", &signed(&other, API_KEY)).await,
            "FATAL_ERROR",
            "{name}"
        );
    }
    assert_eq!(
        post(&stub, "sendredpack", &signed(&sendredpack("S2"), "another key")).await,
        "SIGN_ERROR"
    );
    for extra in ["sign_type", "appid", "trade_type"] {
        let mut more = sendredpack("S2");
        more.insert(extra, "MD5".into());
        assert_eq!(
            post(&stub, "sendredpack", &signed(&more, API_KEY)).await,
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
            post(&stub, "sendredpack", &signed(&bad, API_KEY)).await,
            code,
            "{name}={value}"
        );
    }
    assert_eq!(post(&stub, "sendredpack", "not xml").await, "XML_ERROR");
    assert_eq!(stub.books().times_paid("S2"), 0);
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
    assert_eq!(post(&stub, "gethbinfo", &query("S1")).await, "SUCCESS");
    assert_eq!(post(&stub, "gethbinfo", &query("S2")).await, "NOT_FOUND");
}

#[tokio::test]
async fn its_books_and_faults_are_reached_over_http() {
    let stub = Stub::start(Options::loopback()).await.unwrap();
    assert_eq!(
        call(stub.addr(), "POST", "/_stub/faults", &[], b"pay=nonsense")
            .await
            .status,
        400
    );
    assert_eq!(
        call(
            stub.addr(),
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
    assert_eq!(post(&stub, "sendredpack", &body).await, "NOTENOUGH");
    assert_eq!(post(&stub, "sendredpack", &body).await, "SUCCESS");
    let payments = call(stub.addr(), "GET", "/_stub/payments", &[], b"").await;
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
        serde_json::from_str(&call(stub.addr(), "GET", "/_stub/requests", &[], b"").await.body).unwrap();
    assert_eq!(requests.as_array().unwrap().len(), 2);
}
