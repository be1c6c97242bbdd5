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
    let amount = "amount 金额不正确: 须为 1 至 2147483647 的整数(分)";
    let record_id = "tradeRecordId 不正确: 须为 64 位整数";
    let app = "wxAppId 格式不正确: 须为 1 至 32 位字母、数字、_ 或 -";
    let merchant = "mchId 商户号不正确: 须为 1 至 32 位数字";
    let number = "mchBillno 单号不正确: 须为 1 至 32 位字母或数字";
    let user = "openid 用户ID不正确: 须为 1 至 128 个字符, 不能含控制字符";
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
            format!("{name} 缺失或为空: 此字段必填"),
        ));
        rows.push((
            name,
            "null".into(),
            None,
            format!("{name} 缺失或为空: 此字段必填"),
        ));
        let no_text = match name {
            "amount" => amount.to_owned(),
            "tradeRecordId" => record_id.to_owned(),
            _ => format!("{name} 类型不正确: 须为字符串"),
        };
        rows.push((name, "{}".into(), None, no_text.clone()));
        rows.push((name, "[1]".into(), None, no_text.clone()));
        rows.push((name, "true".into(), None, no_text));
    }
    for (name, bad, says) in [
        ("wxAppId", "a b".to_owned(), app),
        ("wxAppId", "a:b".to_owned(), app),
        ("wxAppId", "{userId}".to_owned(), app),
        ("wxAppId", long(33), app),
        ("mchId", "19x".to_owned(), merchant),
        ("mchId", long(33), merchant),
        ("mchBillno", "A-1".to_owned(), number),
        ("mchBillno", "单号".to_owned(), number),
        ("mchBillno", long(33), number),
        (
            "mchBillno",
            long(29),
            "mchBillno 单号过长: 红包最多 28 位字母或数字",
        ),
        ("openid", chars(129), user),
        ("actName", chars(33), "actName 过长: 最多 32 个字符"),
        ("remark", chars(257), "remark 过长: 最多 256 个字符"),
        ("tradeRecordId", "9223372036854775808".to_owned(), record_id),
        ("tradeRecordId", "1.5".to_owned(), record_id),
        ("tradeRecordId", "x".to_owned(), record_id),
        ("sendName", chars(257), "sendName 过长: 最多 256 个字符"),
        ("wishing", chars(257), "wishing 过长: 最多 256 个字符"),
    ] {
        rows.push((name, text(&bad), Some(bad.clone()), says.to_owned()));
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
        rows.push((name, "7".into(), None, format!("{name} 类型不正确: 须为字符串")));
    }
    rows.push((
        "remark",
        "\"a\\u0000b\"".into(),
        None,
        "remark 含有控制字符: 请删除 (制表符、换行、回车除外)".into(),
    ));
    rows.push(("openid", "\"a\\u0007b\"".into(), None, user.into()));
    rows.push((
        "totalAmount",
        "101".into(),
        Some("101".into()),
        "amount 与 totalAmount 不一致: 请只传其一, 或传相同的值".into(),
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
            assert_eq!(told, says, "{body}");
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
            assert_eq!(
                answer.field("returnMsg"),
                format!("{name} 缺失或为空: 此字段必填"),
                "{}",
                answer.body
            );
            let twice = match encoding {
                Encoding::Json => body.replacen('{', &format!("{{\"{name}\":\"100\","), 1),
                Encoding::Xml => body.replacen("<xml>", &format!("<xml><{name}>100</{name}>"), 1),
            };
            let answer = sidecar.post("/pay/sendApiRedPack", encoding, &twice).await;
            assert_eq!(
                answer.field("returnMsg"),
                format!("{name} 重复: 同一字段只能出现一次"),
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
        (Encoding::Json, b"".to_vec(), "请求体不完整: JSON 提前结束"),
        (
            Encoding::Json,
            json[..json.len() / 2].into(),
            "请求体不完整: JSON 提前结束",
        ),
        (
            Encoding::Json,
            json.replacen('{', "[", 1).into(),
            "请求体须为一个 JSON 对象: 不能是数组、字符串、数字等",
        ),
        (
            Encoding::Json,
            format!("{json}{json}").into(),
            "列附近)还有其他内容",
        ),
        (
            Encoding::Json,
            xml.clone().into(),
            "请求体不是正确的 JSON: 第 1 行第 1 列附近有语法错误",
        ),
        (
            Encoding::Json,
            [json.as_bytes(), b"\xff"].concat(),
            "请求体不是 UTF-8 编码: 第 ",
        ),
        (
            Encoding::Json,
            format!("{{\"a\":{}", "[".repeat(9000)).into(),
            "请求体不完整: JSON 提前结束",
        ),
        (Encoding::Xml, b"".to_vec(), "请求体不完整: XML 提前结束"),
        (Encoding::Xml, xml[..xml.len() / 2].into(), "请求体不"),
        (
            Encoding::Xml,
            xml.replace("</xml>", "").into(),
            "请求体不完整: XML 提前结束",
        ),
        (
            Encoding::Xml,
            entity.into(),
            "请求体的 XML 根元素之前不能有 DOCTYPE: 请删除",
        ),
        (
            Encoding::Xml,
            xml.replace("<![CDATA[100]]>", "&amount;").into(),
            "amount 含有未定义的实体: 只能使用 &lt; &gt; &amp; &apos; &quot;",
        ),
        (
            Encoding::Xml,
            xml.replace("<![CDATA[100]]>", "<fen>100</fen>").into(),
            "amount 须为文本: 不能包含子元素",
        ),
        (
            Encoding::Xml,
            xml.replace("<xml>", "<xml a=\"1\">").into(),
            "请求体的 XML 元素不能有属性: 请删除属性",
        ),
        (
            Encoding::Xml,
            xml.replace("100", "1\u{1}00").into(),
            "请求体含有 XML 1.0 不允许的字符 U+0001: 请删除该字符",
        ),
        (Encoding::Xml, bomb.into(), "a 须为文本: 不能包含子元素"),
        (
            Encoding::Xml,
            json.clone().into(),
            "请求体的 XML 根元素之前不能有文本: 请删除",
        ),
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
        let says = match status {
            405 => "请求未受理: 请求方法须为 POST",
            413 => "请求未受理: 请求体过大, 最多 65536 字节",
            _ => "请求未受理: ",
        };
        let told = answer.field("returnMsg");
        assert!(
            told.starts_with(says) && (status != 415 || told.contains("Content-")),
            "{told}"
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
        ("", "clientIp 缺失或为空: 此字段必填"),
        (
            "\"clientIp\":\"nowhere\",",
            "clientIp 地址不正确: 须为 IP 地址, 不带端口",
        ),
        (
            "\"clientIp\":\"2001:db8::1\",",
            "clientIp 地址不正确: 红包须为 IPv4 地址",
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
            assert_eq!(
                answer.field("returnMsg"),
                format!("{missing} 缺失或为空: 此字段必填"),
                "{}",
                answer.body
            );
        }
    }
}
