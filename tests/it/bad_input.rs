//! Malformed requests: the sidecar refuses each one, names the field and answers in the caller's encoding. It sends and
//! records nothing.

use crate::support::sidecar::{APP, BOTH, Encoding, MERCHANT, Payout, Sidecar, To, Upstream, embedded};
use test_support::http::{call, exchange, request};

async fn start() -> (Upstream, Sidecar) {
    let upstream = Upstream::start(To::Redpack).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!("{}{}", embedded(&dir), upstream.configuration());
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    (upstream, sidecar)
}

/// Checks that the upstream got no request and that the ledger has no record: the same number pays at once.
async fn nothing_happened(upstream: &Upstream, sidecar: &Sidecar, order_no: &str) {
    assert_eq!(upstream.fake.books().requests(), []);
    assert!(!sidecar.log().contains("payout changed"));
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new(order_no)).await.code(),
        "SUCCESS"
    );
}

/// Each row: the field, its value as JSON, its value as XML text (`None` where XML has no such type), and what the
/// answer says about it.
#[tokio::test(flavor = "multi_thread")]
async fn every_limit_of_every_field_in_both_encodings() {
    let (upstream, sidecar) = start().await;
    let long = |n: usize| "9".repeat(n);
    let chars = |n: usize| "备".repeat(n);
    let text = |t: &str| serde_json::Value::from(t).to_string();
    let amount = "amount must be an integer number of fen from 1 to 2147483647";
    let mut rows: Vec<(&str, String, Option<String>, String)> = Vec::new();
    for name in [
        "wxAppId",
        "mchId",
        "mchBillno",
        "openid",
        "amount",
        "actName",
        "remark",
        "tradeRecordId",
    ] {
        rows.push((
            name,
            "\"\"".into(),
            Some(String::new()),
            format!("{name} is required"),
        ));
        rows.push((name, "null".into(), None, format!("{name} is required")));
        rows.push((name, "{}".into(), None, format!("{name} must be")));
        rows.push((name, "[1]".into(), None, format!("{name} must be")));
        rows.push((name, "true".into(), None, format!("{name} must be")));
    }
    for (name, bad) in [
        ("wxAppId", "a b".to_owned()),
        ("wxAppId", "a:b".to_owned()),
        ("wxAppId", "{userId}".to_owned()),
        ("wxAppId", long(33)),
        ("mchId", "19x".to_owned()),
        ("mchId", long(33)),
        ("mchBillno", "A-1".to_owned()),
        ("mchBillno", "单号".to_owned()),
        ("mchBillno", long(33)),
        ("mchBillno", long(29)),
        ("openid", chars(129)),
        ("actName", chars(33)),
        ("remark", chars(257)),
        ("tradeRecordId", "9223372036854775808".to_owned()),
        ("tradeRecordId", "1.5".to_owned()),
        ("tradeRecordId", "x".to_owned()),
        ("sendName", chars(257)),
        ("wishing", chars(257)),
    ] {
        rows.push((name, text(&bad), Some(bad.clone()), format!("{name} must be")));
    }
    for bad in [
        "0",
        "-1",
        "2147483648",
        "99999999999999999999",
        "1.0",
        "1e2",
        "+1",
        " 1 ",
        "1 ",
        "0x1",
        "1,000",
        "一",
    ] {
        rows.push(("amount", text(bad), Some(bad.to_owned()), amount.into()));
    }
    for bad in [
        "0",
        "-1",
        "2147483648",
        "1.0",
        "1e2",
        "1.5",
        "99999999999999999999",
    ] {
        rows.push(("amount", bad.into(), None, amount.into()));
    }
    for name in [
        "wxAppId",
        "mchBillno",
        "openid",
        "actName",
        "remark",
        "sendName",
        "notifyWay",
        "environment",
        "clientIp",
    ] {
        rows.push((name, "7".into(), None, format!("{name} must be a string")));
    }
    rows.push((
        "remark",
        "\"a\\u0000b\"".into(),
        None,
        "remark must not hold control characters".into(),
    ));
    rows.push(("openid", "\"a\\u0007b\"".into(), None, "openid must be".into()));
    rows.push((
        "totalAmount",
        "101".into(),
        Some("101".into()),
        "amount and totalAmount must not differ".into(),
    ));
    assert!(rows.len() > 80);
    for (name, json, xml, says) in rows {
        for encoding in BOTH {
            let body = match (encoding, &xml) {
                (Encoding::Json, _) => with(encoding, name, &json),
                (Encoding::Xml, Some(xml)) => with(encoding, name, xml),
                (Encoding::Xml, None) => continue,
            };
            let answer = sidecar.post("/pay/sendApiRedPack", encoding, &body).await;
            assert_eq!(answer.status, 200, "{body}");
            assert_eq!(
                answer.headers["content-type"],
                format!("{}; charset=utf-8", encoding.media())
            );
            assert_eq!(answer.field("returnCode"), "FAIL", "{body}: {}", answer.body);
            assert_eq!(answer.code(), "PARAM_ERROR", "{body}");
            let told = answer.field("returnMsg");
            assert!(
                told.starts_with("参数格式校验错误: ") && told.contains(&says),
                "{body}: {told}, not {says}"
            );
            assert_eq!(answer.field("errCodeDes"), told);
            if name != "mchBillno" {
                assert_eq!(
                    answer.field("mchBillno"),
                    "BAD1",
                    "in every answer to a request that had one"
                );
            }
        }
    }
    nothing_happened(&upstream, &sidecar, "BAD1").await;
}

/// A valid request with one field replaced or added.
fn with(encoding: Encoding, name: &str, value: &str) -> String {
    let fields = [
        ("wxAppId", APP),
        ("mchId", MERCHANT),
        ("mchBillno", "BAD1"),
        ("openid", "user-1"),
        ("amount", "100"),
        ("clientIp", "10.0.0.1"),
        ("actName", "活动"),
        ("remark", "备注"),
        ("tradeRecordId", "1"),
    ];
    let others = fields.iter().filter(|(other, _)| *other != name);
    match encoding {
        Encoding::Json => {
            let mut parts: Vec<String> = others
                .map(|(name, value)| format!("\"{name}\":\"{value}\""))
                .collect();
            parts.push(format!("\"{name}\":{value}"));
            format!("{{{}}}", parts.join(","))
        }
        Encoding::Xml => {
            let parts: String = others
                .map(|(name, value)| format!("<{name}>{value}</{name}>"))
                .collect();
            format!("<request>{parts}<{name}><![CDATA[{value}]]></{name}></request>")
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_and_doubled_fields_are_named() {
    let (upstream, sidecar) = start().await;
    let good = Payout::new("BAD2");
    for encoding in BOTH {
        let body = good.body(encoding);
        for name in [
            "wxAppId",
            "mchId",
            "mchBillno",
            "openid",
            "amount",
            "actName",
            "remark",
            "tradeRecordId",
        ] {
            let renamed = body
                .replace(&format!("\"{name}\""), "\"other\"")
                .replace(&format!("<{name}>"), "<other>");
            let renamed = renamed.replace(&format!("</{name}>"), "</other>");
            let answer = sidecar.post("/pay/sendApiRedPack", encoding, &renamed).await;
            assert_eq!(answer.code(), "PARAM_ERROR");
            assert!(
                answer.field("returnMsg").contains(&format!("{name} is required")),
                "{}",
                answer.body
            );
            let twice = match encoding {
                Encoding::Json => body.replacen('{', &format!("{{\"{name}\":\"100\","), 1),
                Encoding::Xml => body.replacen("<xml>", &format!("<xml><{name}>100</{name}>"), 1),
            };
            let answer = sidecar.post("/pay/sendApiRedPack", encoding, &twice).await;
            assert!(
                answer
                    .field("returnMsg")
                    .contains(&format!("{name} is given twice")),
                "{}",
                answer.body
            );
        }
    }
    nothing_happened(&upstream, &sidecar, "BAD2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_bodies_are_refused_in_words() {
    let (upstream, sidecar) = start().await;
    let json = Payout::new("BAD3").body(Encoding::Json);
    let xml = Payout::new("BAD3").body(Encoding::Xml);
    let entity = xml
        .replace("<xml>", "<!DOCTYPE x [<!ENTITY a \"100\">]><xml>")
        .replace("<![CDATA[100]]>", "&a;");
    let bomb = format!("<xml>{}</xml>", "<a>".repeat(5000));
    let bodies: Vec<(Encoding, Vec<u8>, &str)> = vec![
        (Encoding::Json, b"".to_vec(), "ends too early"),
        (Encoding::Json, json[..json.len() / 2].into(), "ends too early"),
        (
            Encoding::Json,
            json.replacen('{', "[", 1).into(),
            "not one JSON object",
        ),
        (
            Encoding::Json,
            format!("{json}{json}").into(),
            "not one JSON object",
        ),
        (Encoding::Json, xml.clone().into(), "not one JSON object"),
        (Encoding::Json, [json.as_bytes(), b"\xff"].concat(), "not UTF-8"),
        (
            Encoding::Json,
            format!("{{\"a\":{}", "[".repeat(9000)).into(),
            "ends too early",
        ),
        (Encoding::Xml, b"".to_vec(), "ends too early"),
        (Encoding::Xml, xml[..xml.len() / 2].into(), "参数格式校验错误"),
        (Encoding::Xml, xml.replace("</xml>", "").into(), "ends too early"),
        (Encoding::Xml, entity.into(), "a DOCTYPE"),
        (
            Encoding::Xml,
            xml.replace("<![CDATA[100]]>", "&amount;").into(),
            "entity",
        ),
        (
            Encoding::Xml,
            xml.replace("<![CDATA[100]]>", "<fen>100</fen>").into(),
            "must hold text",
        ),
        (
            Encoding::Xml,
            xml.replace("<xml>", "<xml a=\"1\">").into(),
            "attributes",
        ),
        (Encoding::Xml, xml.replace("100", "1\u{1}00").into(), "U+0001"),
        (Encoding::Xml, bomb.into(), "must hold text"),
        (Encoding::Xml, json.clone().into(), "参数格式校验错误"),
    ];
    for (encoding, body, says) in bodies {
        let headers = [("Content-Type", encoding.media())];
        let answer = call(sidecar.main, "POST", "/pay/sendApiRedPack", &headers, &body).await;
        let shown = String::from_utf8_lossy(&body)
            .chars()
            .take(80)
            .collect::<String>();
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (200, "PARAM_ERROR"),
            "{shown}"
        );
        assert!(
            answer.field("returnMsg").contains(says),
            "{shown}: {}",
            answer.body
        );
        assert_eq!(
            answer.headers["content-type"],
            format!("{}; charset=utf-8", encoding.media())
        );
    }
    nothing_happened(&upstream, &sidecar, "BAD3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_http_has_a_status_and_a_contract_body() {
    let (upstream, sidecar) = start().await;
    let json = Payout::new("BAD4").body(Encoding::Json);
    let path = "/pay/sendApiRedPack";
    let large = vec![b' '; 70_000];
    let rows: [(&str, &[(&str, &str)], &[u8], u16); 10] = [
        ("GET", &[], b"", 405),
        (
            "PUT",
            &[("Content-Type", "application/json")],
            json.as_bytes(),
            405,
        ),
        (
            "POST",
            &[("Content-Type", "application/x-www-form-urlencoded")],
            b"a=1",
            415,
        ),
        ("POST", &[("Content-Type", "text/html")], json.as_bytes(), 415),
        (
            "POST",
            &[("Content-Type", "application/json; charset=GBK")],
            json.as_bytes(),
            415,
        ),
        (
            "POST",
            &[
                ("Content-Type", "application/json"),
                ("Content-Type", "application/xml"),
            ],
            json.as_bytes(),
            415,
        ),
        (
            "POST",
            &[("Content-Type", "application/json"), ("Content-Encoding", "gzip")],
            json.as_bytes(),
            415,
        ),
        ("POST", &[("Content-Type", "application/json")], &large, 413),
        ("POST", &[("Content-Type", "application/xml")], &large, 413),
        (
            "POST",
            &[("Content-Type", "text/html"), ("Accept", "application/xml")],
            json.as_bytes(),
            415,
        ),
    ];
    for (method, headers, body, status) in rows {
        let answer = call(sidecar.main, method, path, headers, body).await;
        assert_eq!(answer.status, status, "{method} {headers:?}");
        assert_eq!(
            (answer.field("returnCode"), answer.code()),
            ("FAIL".into(), "PARAM_ERROR".into())
        );
        let xml = headers
            .iter()
            .any(|(name, value)| *value == "application/xml" && (*name == "Accept" || status == 413));
        assert_eq!(
            answer.headers["content-type"].starts_with("application/xml"),
            xml,
            "{headers:?}"
        );
        assert!(status != 405 || answer.headers["allow"] == "POST");
    }
    // A chunked body declares no length, so the sidecar counts bytes as they arrive.
    let head = "POST /pay/sendApiRedPack HTTP/1.1\r\nHost: s\r\nConnection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut chunked = head.as_bytes().to_vec();
    for _ in 0..20 {
        chunked.extend_from_slice(format!("1000\r\n{}\r\n", " ".repeat(0x1000)).as_bytes());
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(
        exchange(sidecar.main, &chunked).await.map(|answer| answer.status),
        Some(413)
    );
    let broken = request(
        "POST",
        path,
        &[("Content-Type", "application/json\r\nBad Header")],
        b"{}",
    );
    assert_eq!(
        exchange(sidecar.main, &broken).await.map(|answer| answer.status),
        Some(400)
    );
    nothing_happened(&upstream, &sidecar, "BAD4").await;
}

/// Pays with each Content-Type in the table of `docs/api.md`, to show which encoding the sidecar reads it as.
#[tokio::test(flavor = "multi_thread")]
async fn every_content_type_of_the_contract_pays() {
    let (_upstream, sidecar) = start().await;
    let rows: [(&[(&str, &str)], Encoding); 14] = [
        (&[("Content-Type", "application/json")], Encoding::Json),
        (&[("Content-Type", "text/json; charset=utf-8")], Encoding::Json),
        (
            &[("Content-Type", "application/vnd.tuzhan.v2+json")],
            Encoding::Json,
        ),
        (
            &[("Content-Type", "application/xml; charset=UTF-8")],
            Encoding::Xml,
        ),
        (&[("Content-Type", "text/xml")], Encoding::Xml),
        (&[("Content-Type", "application/soap+xml")], Encoding::Xml),
        (&[], Encoding::Json),
        (&[], Encoding::Xml),
        (&[("Content-Type", "application/jsonxml")], Encoding::Json),
        (&[("Content-Type", "application/jsonxml")], Encoding::Xml),
        (&[("Content-Type", "text/plain")], Encoding::Xml),
        (&[("Content-Type", "application/octet-stream")], Encoding::Json),
        (
            &[("Content-Type", "application/json"), ("Accept", "*/*")],
            Encoding::Json,
        ),
        (&[("Content-Type", "text/plain; charset=utf-8")], Encoding::Json),
    ];
    for (n, (headers, encoding)) in rows.into_iter().enumerate() {
        let body = format!("\u{FEFF} {}", Payout::new(&format!("CT{n}")).body(encoding));
        let answer = call(
            sidecar.main,
            "POST",
            "/pay/sendApiRedPack",
            headers,
            body.as_bytes(),
        )
        .await;
        assert_eq!(
            answer.code(),
            "SUCCESS",
            "{headers:?} {encoding:?}: {}",
            answer.body
        );
        assert_eq!(
            answer.headers["content-type"],
            format!("{}; charset=utf-8", encoding.media()),
            "{headers:?}"
        );
    }
    for (accept, sent, answered) in [
        ("application/xml", Encoding::Json, Encoding::Xml),
        ("application/json", Encoding::Xml, Encoding::Json),
        (
            "application/xml, application/json",
            Encoding::Json,
            Encoding::Json,
        ),
    ] {
        let body = Payout::new(&format!("AC{answered:?}")).body(sent);
        let headers = [("Content-Type", sent.media()), ("Accept", accept)];
        let answer = call(
            sidecar.main,
            "POST",
            "/pay/sendApiRedPack",
            &headers,
            body.as_bytes(),
        )
        .await;
        assert_eq!(
            answer.headers["content-type"],
            format!("{}; charset=utf-8", answered.media())
        );
        assert_eq!(answer.code(), "SUCCESS");
    }
}

/// The older field names and number forms of `docs/api.md` pay too.
#[tokio::test(flavor = "multi_thread")]
async fn every_revisions_field_names_pay() {
    let (upstream, sidecar) = start().await;
    let older = |no: &str, amount: &str| {
        format!(
            r#"{{"wxAppId":"{APP}","mchId":"{MERCHANT}","mchBillno":"{no}","openid":"user-1",{amount},"actName":"a","remark":"r",
            "tradeRecordId":"9223372036854775807","sendName":"别名","wishing":"祝","environment":"prod","unknown":{{"a":[1,null]}}}}"#
        )
    };
    for (n, amount) in [
        r#""amount":100"#,
        r#""amount":"100""#,
        r#""totalAmount":100"#,
        r#""totalAmount":"100","amount":100"#,
    ]
    .into_iter()
    .enumerate()
    {
        let no = format!("REV{n}");
        let answer = sidecar
            .post("/pay/sendApiRedPack", Encoding::Json, &older(&no, amount))
            .await;
        assert_eq!(answer.code(), "SUCCESS", "{amount}: {}", answer.body);
        let books = upstream.fake.books();
        let payment = books
            .payments()
            .iter()
            .find(|payment| payment.order_no == no)
            .unwrap();
        assert_eq!(
            (payment.amount, payment.parameters["send_name"].as_str()),
            (100, "别名")
        );
        assert!(
            !payment.parameters.contains_key("environment") && !payment.parameters.contains_key("unknown")
        );
    }
}

/// `clientIp` may be absent only if the configuration supplies one.
#[tokio::test(flavor = "multi_thread")]
async fn the_client_address_is_needed_where_it_is_kept() {
    let upstream = Upstream::start(To::Redpack).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!(
        "{}{}",
        embedded(&dir),
        upstream.configuration().replace("203.0.113.7", "keep")
    );
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    let body = Payout::new("IP1").body(Encoding::Json);
    for (given, says) in [
        ("", "clientIp is required"),
        ("\"clientIp\":\"nowhere\",", "clientIp must be an IP address"),
        (
            "\"clientIp\":\"2001:db8::1\",",
            "clientIp must be an IPv4 address",
        ),
    ] {
        let body = body.replace("\"clientIp\":\"10.0.0.1\",", given);
        let answer = sidecar.post("/pay/sendApiRedPack", Encoding::Json, &body).await;
        assert_eq!(
            (answer.field("returnCode"), answer.code()),
            ("FAIL".into(), "PARAM_ERROR".into())
        );
        assert!(answer.field("returnMsg").contains(says), "{}", answer.body);
    }
    assert_eq!(
        sidecar
            .post("/pay/sendApiRedPack", Encoding::Json, &body)
            .await
            .code(),
        "SUCCESS"
    );
    let books = upstream.fake.books();
    assert_eq!(books.payments()[0].parameters["client_ip"], "10.0.0.1");
}

/// The fields that only status requests have.
#[tokio::test(flavor = "multi_thread")]
async fn status_requests_are_checked_too() {
    let (_upstream, sidecar) = start().await;
    let all = [
        ("wxAppId", APP),
        ("mchId", MERCHANT),
        ("mchBillno", "ST1"),
        ("tradeRecordId", "1"),
    ];
    for encoding in BOTH {
        for (missing, _) in all {
            let fields: Vec<_> = all.iter().copied().filter(|(name, _)| *name != missing).collect();
            let answer = sidecar
                .post("/pay/getApiRedPacketStatus", encoding, &encoding.write(&fields))
                .await;
            assert_eq!(answer.code(), "PARAM_ERROR");
            assert!(
                answer
                    .field("returnMsg")
                    .contains(&format!("{missing} is required")),
                "{}",
                answer.body
            );
        }
    }
}
