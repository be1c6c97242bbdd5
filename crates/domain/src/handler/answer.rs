//! What a handler's responses prove (`docs/handler.md`).

use crate::fields::Fields;
use crate::ids::{Fen, OrderKey};
use crate::outcome::{Class, Evidence, Finding, Found, Refusal};
use crate::text::kept;
use crate::wechat::codes::class_for_handler;
use crate::xml::{self, Nested};

/// HTTP statuses that cannot mean "paid" if no contract body says otherwise (`docs/handler.md`).
const REFUSING: [u16; 9] = [400, 401, 403, 404, 405, 413, 415, 422, 429];

/// The fields that decide what a response means.
const CODES: [&str; 3] = ["returnCode", "resultCode", "errCode"];

/// What a response to a payout proves.
#[must_use]
pub fn evidence(key: &OrderKey, amount: Fen, status: u16, body: &[u8]) -> Evidence {
    let Some(answer) = read(body) else {
        return without_contract(status);
    };
    if let Some(why) = contradiction(&answer, key, Some(amount)) {
        return Evidence::no_answer(&why);
    }
    let codes = (answer.characters("returnCode"), answer.characters("resultCode"));
    if codes != (Some("SUCCESS"), Some("SUCCESS"))
        && let Some(why) = ambiguity(&answer, &CODES)
    {
        return Evidence::no_answer(&why);
    }
    match codes {
        (Some("SUCCESS"), Some("SUCCESS")) => match answer.characters("errCode") {
            // WeChat's successes also carry `SUCCESS`, `0` and the like; a failure's code is a contradiction.
            Some(code) if class_for_handler(code).is_some() => {
                Evidence::no_answer(&format!("the handler answered success beside errCode {code}"))
            }
            Some(_) | None => Evidence::Accepted {
                fields: copied(&answer, &ACCEPTED),
            },
        },
        (Some("SUCCESS"), Some("FAIL")) => declined(&answer, Class::Unknown),
        // The contract says: the request was not accepted, so nothing was sent.
        (Some("FAIL"), None | Some("FAIL")) => declined(&answer, Class::RejectedUnprocessed),
        (code, result) => Evidence::no_answer(&format!(
            "the handler answered returnCode {code:?} and resultCode {result:?}"
        )),
    }
}

/// A failure in the contract's terms. `unlisted` is the class of a response without a code, and of a code that
/// WeChat's tables do not list.
fn declined(answer: &Fields<'_>, unlisted: Class) -> Evidence {
    let code = answer.characters("errCode");
    let text = answer
        .characters("errCodeDes")
        .or_else(|| answer.characters("returnMsg"))
        .unwrap_or_default();
    // "Not accepted" decides about an unlisted code only. A listed one wins, such as one that says "unknown" or
    // "conflict".
    let class = code.and_then(class_for_handler).unwrap_or(unlisted);
    Evidence::declined(class, code.unwrap_or("FAIL"), text)
}

fn without_contract(status: u16) -> Evidence {
    if !REFUSING.contains(&status) {
        return Evidence::no_answer(&format!(
            "the handler answered HTTP {status} without a contract body"
        ));
    }
    let code = match status {
        401 | 403 => "NO_AUTH",
        429 => "FREQ_LIMIT",
        _ => "PARAM_ERROR",
    };
    let text = format!("商户处理程序拒绝: 返回了 HTTP {status}");
    Evidence::declined(Class::RejectedUnprocessed, code, &text)
}

/// Reads a contract response in either encoding, whatever its `Content-Type` says; `None` if it is not one.
fn read(body: &[u8]) -> Option<Fields<'_>> {
    let text = std::str::from_utf8(body).ok()?;
    let text = text.trim_start_matches('\u{FEFF}').trim_start();
    let fields = match text.as_bytes().first()? {
        b'{' => crate::json::decode(text).ok()?,
        b'<' => xml::decode(text, Nested::Skip).ok()?,
        _ => return None,
    };
    let is_answer = fields
        .iter()
        .any(|(name, value)| super::is_alike(name, "returnCode") && !value.is_blank());
    is_answer.then_some(fields)
}

/// Finds a deciding field under another spelling of its name and with another value. The handler may have meant
/// that one, so nothing but "paid" is believed of such a response.
fn ambiguity(answer: &Fields<'_>, deciding: &[&str]) -> Option<String> {
    answer.iter().find_map(|(name, value)| {
        let field = deciding.iter().find(|field| super::is_alike(name, field))?;
        let differs = !value.is_blank() && answer.characters(field) != Some(value.characters());
        differs.then(|| {
            format!("the handler's answer says something else in {name}, which may be meant for {field}")
        })
    })
}

/// What in a response cannot be about this order.
fn contradiction(answer: &Fields<'_>, key: &OrderKey, amount: Option<Fen>) -> Option<String> {
    for name in ["mchBillno", "partnerTradeNo"] {
        if answer
            .characters(name)
            .is_some_and(|no| no != key.order_no.as_str())
        {
            return Some(format!(
                "the handler's answer carries another order number in {name}"
            ));
        }
    }
    let amount = amount?;
    for name in ["totalAmount", "paymentAmount"] {
        if answer
            .characters(name)
            .is_some_and(|fen| fen.parse() != Ok(amount.get()))
        {
            return Some(format!("the handler's answer carries another amount in {name}"));
        }
    }
    None
}

/// The fields of a response to a payout that the platform gets: the contract's, without those that the sidecar sets
/// itself.
const ACCEPTED: [&str; 7] = [
    "sendListid",
    "hbpackage",
    "paymentNo",
    "paymentTime",
    "partnerTradeNo",
    "mchAppid",
    "mchid",
];

/// The fields of a response to a query that the platform gets: the contract's, without those that the sidecar sets
/// itself. Nothing else is passed on: a handler's other fields may hold the openid, which only `reveal_openid` may
/// show.
const REPORTED: [&str; 19] = [
    "reason",
    "detailId",
    "sendType",
    "hbType",
    "totalNum",
    "totalAmount",
    "sendTime",
    "refundTime",
    "refundAmount",
    "wishing",
    "remark",
    "actName",
    "partnerTradeNo",
    "appid",
    "openid",
    "paymentAmount",
    "transferTime",
    "paymentTime",
    "desc",
];

fn copied(answer: &Fields<'_>, names: &[&'static str]) -> Fields<'static> {
    let mut fields = Fields::new();
    for name in names {
        if let Some(text) = answer.characters(name) {
            fields.set(name, text.to_owned());
        }
    }
    fields
}

/// What a response to a query says.
#[must_use]
pub fn finding(key: &OrderKey, expected: Option<Fen>, status: u16, body: &[u8]) -> Finding {
    let Some(answer) = read(body) else {
        return Finding::unclear(&format!(
            "the handler answered HTTP {status} without a contract body"
        ));
    };
    if let Some(why) = contradiction(&answer, key, expected) {
        return Finding::unclear(&why);
    }
    match (answer.characters("returnCode"), answer.characters("resultCode")) {
        (Some("SUCCESS"), Some("SUCCESS")) => {}
        (Some("SUCCESS"), Some("FAIL")) | (Some("FAIL"), None | Some("FAIL"))
            if answer.characters("errCode") == Some("NOT_FOUND") =>
        {
            return ambiguity(&answer, &CODES)
                .map_or_else(Finding::no_such_order, |why| Finding::unclear(&why));
        }
        (code, result) => {
            let error = answer.characters("errCode").unwrap_or("no errCode");
            return Finding::unclear(&format!(
                "the handler answered returnCode {code:?}, resultCode {result:?} and {error}"
            ));
        }
    }
    let Some(word) = answer.characters("status") else {
        return Finding::unclear("the handler's answer has no status");
    };
    if word == "FAILED"
        && let Some(why) = ambiguity(&answer, &CODES).or_else(|| ambiguity(&answer, &["status"]))
    {
        return Finding::unclear(&why);
    }
    let found = match word {
        "SENT" | "RECEIVED" | "RFUND_ING" | "REFUND" | "SUCCESS" => Found::Accepted {
            fields: copied(&answer, &ACCEPTED),
        },
        "FAILED" => Found::NotPaid(Refusal {
            code: "FAILED".to_owned(),
            text: kept(answer.characters("reason").unwrap_or("商户处理程序表示付款失败")),
            number_spent: false,
        }),
        // Whatever is not certain is still moving, also a word that we do not know.
        _ => Found::Moving,
    };
    let status = Some(kept(word));
    let report = copied(&answer, &REPORTED);
    Finding {
        found,
        status,
        report,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{MchId, OrderNo};

    fn key() -> OrderKey {
        OrderKey {
            mch_id: MchId::parse("19").unwrap(),
            order_no: OrderNo::parse("A1").unwrap(),
        }
    }

    fn outcome(status: u16, body: &str) -> String {
        match evidence(&key(), Fen::new(100).unwrap(), status, body.as_bytes()) {
            Evidence::Accepted { fields } => format!("accepted {}", crate::json::encode(&fields)),
            Evidence::Declined { class, code, .. } => format!("{class:?} {code}"),
            Evidence::NoAnswer { .. } => "unknown".into(),
            Evidence::NeverSent { .. } | Evidence::Opened { .. } => "something else".into(),
        }
    }

    #[test]
    fn answers_in_either_encoding_are_the_outcome() {
        for (status, body, says) in [
            (
                200,
                r#"{"returnCode":"SUCCESS","resultCode":"SUCCESS","sendListid":"1"}"#,
                "accepted {\"sendListid\":\"1\"}",
            ),
            (
                200,
                "<xml><returnCode>SUCCESS</returnCode><resultCode><![CDATA[SUCCESS]]></resultCode></xml>",
                "accepted {}",
            ),
            (
                200,
                r#"{"returnCode":"SUCCESS","resultCode":"SUCCESS","totalAmount":"100","mchBillno":"A1"}"#,
                "accepted {}",
            ),
            (
                200,
                r#"{"returnCode":"SUCCESS","resultCode":"SUCCESS","totalAmount":101}"#,
                "unknown",
            ),
            (
                200,
                r#"{"returnCode":"SUCCESS","resultCode":"SUCCESS","mchBillno":"A2"}"#,
                "unknown",
            ),
            (
                200,
                r#"{"returnCode":"SUCCESS","resultCode":"FAIL","errCode":"NOTENOUGH"}"#,
                "Refused NOTENOUGH",
            ),
            (
                200,
                r#"{"returnCode":"SUCCESS","resultCode":"FAIL","errCode":"SYSTEMERROR"}"#,
                "Unknown SYSTEMERROR",
            ),
            (
                200,
                r#"{"returnCode":"SUCCESS","resultCode":"FAIL","errCode":"OF_THEIR_OWN"}"#,
                "Unknown OF_THEIR_OWN",
            ),
            (
                200,
                r#"{"returnCode":"SUCCESS","resultCode":"FAIL"}"#,
                "Unknown FAIL",
            ),
            (
                200,
                r#"{"returnCode":"FAIL","returnMsg":"bad"}"#,
                "RejectedUnprocessed FAIL",
            ),
            (
                200,
                r#"{"returnCode":"FAIL","errCode":"SYSTEMERROR"}"#,
                "Unknown SYSTEMERROR",
            ),
            (
                200,
                r#"{"returnCode":"FAIL","errCode":"FATAL_ERROR"}"#,
                "Conflict FATAL_ERROR",
            ),
            (
                200,
                r#"{"returnCode":"FAIL","errCode":"DAY_OVER_LIMITED"}"#,
                "Unknown DAY_OVER_LIMITED",
            ),
            (
                200,
                r#"{"returnCode":"FAIL","errCode":"OF_THEIR_OWN"}"#,
                "RejectedUnprocessed OF_THEIR_OWN",
            ),
            (
                500,
                r#"{"returnCode":"SUCCESS","resultCode":"SUCCESS"}"#,
                "accepted {}",
            ),
            (200, r#"{"returnCode":"SUCCESS"}"#, "unknown"),
            (200, r#"{"ok":true}"#, "unknown"),
            (200, "", "unknown"),
            (204, "", "unknown"),
            (200, "<html>", "unknown"),
        ] {
            assert_eq!(outcome(status, body), says, "{status} {body}");
        }
    }

    #[test]
    fn what_is_kept_of_an_answers_texts_is_bounded() {
        let long = "长".repeat(1000);
        let body = |fields: &[(&str, &str)]| {
            let mut body = Fields::new();
            for (name, text) in fields {
                body.push((*name).into(), crate::fields::Value::Text((*text).into()))
                    .unwrap();
            }
            crate::json::encode(&body)
        };
        let mut texts = Vec::new();
        for fields in [
            [
                ("returnCode", "FAIL"),
                ("errCode", long.as_str()),
                ("errCodeDes", &long),
            ],
            [("returnCode", "SUCCESS"), ("resultCode", &long), ("errCode", "")],
            [
                ("returnCode", "SUCCESS"),
                ("resultCode", "FAIL"),
                ("returnMsg", &long),
            ],
        ] {
            match evidence(&key(), Fen::new(100).unwrap(), 200, body(&fields).as_bytes()) {
                Evidence::Declined { code, text, .. } => texts.extend([code, text]),
                Evidence::NoAnswer { why } => texts.push(why),
                other => panic!("{other:?}"),
            }
        }
        let ok = [("returnCode", "SUCCESS"), ("resultCode", "SUCCESS")];
        for fields in [
            [ok[0], ok[1], ("status", "FAILED"), ("reason", long.as_str())],
            [ok[0], ok[1], ("status", &long), ("reason", "")],
            [ok[0], ("resultCode", "FAIL"), ("errCode", &long), ("reason", "")],
        ] {
            let finding = finding(&key(), None, 200, body(&fields).as_bytes());
            texts.extend(finding.status);
            match finding.found {
                Found::NotPaid(refusal) => texts.push(refusal.text),
                Found::Unclear { why } => texts.push(why),
                Found::Moving => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(texts.len() >= 8, "{texts:?}");
        for text in texts {
            assert!(text.chars().count() <= 256, "{text}");
        }
    }

    #[test]
    fn an_answer_that_contradicts_itself_or_names_another_order_is_unknown() {
        for body in [
            r#"{"returnCode":"FAIL","resultCode":"SUCCESS","errCode":"NOTENOUGH"}"#,
            r#"{"returnCode":"FAIL","resultCode":"WHAT","errCode":"NOTENOUGH"}"#,
            r#"{"returnCode":"FAIL","errCode":"NOTENOUGH","mchBillno":"A2"}"#,
            r#"{"returnCode":"SUCCESS","resultCode":"FAIL","errCode":"NOTENOUGH","mchBillno":"A2"}"#,
            r#"{"returnCode":"SUCCESS","resultCode":"FAIL","errCode":"NOTENOUGH","partnerTradeNo":"A2"}"#,
            r#"{"returnCode":"SUCCESS","resultCode":"FAIL","errCode":"NOTENOUGH","totalAmount":"101"}"#,
            r#"{"returnCode":"SUCCESS","resultCode":"SUCCESS","errCode":"NOTENOUGH"}"#,
            r#"{"returnCode":"SUCCESS","resultCode":"SUCCESS","errCode":"SYSTEMERROR"}"#,
            r#"{"returnCode":"SUCCESS","resultCode":"SUCCESS","paymentAmount":"101"}"#,
        ] {
            assert_eq!(outcome(200, body), "unknown", "{body}");
        }
        for body in [
            r#"{"returnCode":"SUCCESS","resultCode":"SUCCESS","errCode":"SUCCESS"}"#,
            r#"{"returnCode":"SUCCESS","resultCode":"SUCCESS","errCode":"0"}"#,
        ] {
            assert_eq!(outcome(200, body), "accepted {}", "{body}");
        }
        let own = r#"{"returnCode":"SUCCESS","resultCode":"FAIL","errCode":"NOTENOUGH","mchBillno":"A1","totalAmount":100}"#;
        assert_eq!(outcome(200, own), "Refused NOTENOUGH");
        let absent = r#"{"returnCode":"SUCCESS","resultCode":"FAIL","errCode":"NOT_FOUND","mchBillno":"A2"}"#;
        assert!(matches!(
            finding(&key(), None, 200, absent.as_bytes()).found,
            Found::Unclear { .. }
        ));
    }

    /// As a handler in Go, C# or Java may spell them, or a handler that passes on WeChat's own response.
    #[test]
    fn an_answer_in_other_letters_is_no_refusal() {
        for (status, body) in [
            (
                400,
                r#"{"ReturnCode":"SUCCESS","ResultCode":"FAIL","ErrCode":"SYSTEMERROR"}"#,
            ),
            (422, r#"{"ReturnCode":"SUCCESS","ResultCode":"SUCCESS"}"#),
            (404, "<xml><return_code>SUCCESS</return_code></xml>"),
            (200, r#"{"returnCode":"FAIL","ErrCode":"SYSTEMERROR"}"#),
            (200, r#"{"returnCode":"FAIL","ResultCode":"SUCCESS"}"#),
            (
                200,
                r#"{"returnCode":"SUCCESS","resultCode":"FAIL","ResultCode":"SUCCESS","errCode":"NOTENOUGH"}"#,
            ),
            (
                200,
                r#"{"returnCode":"SUCCESS","resultCode":"FAIL","errCode":"NOTENOUGH","err_code":"SYSTEMERROR"}"#,
            ),
        ] {
            assert_eq!(outcome(status, body), "unknown", "{status} {body}");
        }
        let relayed = r#"{"returnCode":"SUCCESS","resultCode":"FAIL","errCode":"NOTENOUGH","return_code":"SUCCESS","result_code":"FAIL","err_code":"NOTENOUGH"}"#;
        assert_eq!(outcome(200, relayed), "Refused NOTENOUGH");
        let paid = r#"{"returnCode":"SUCCESS","resultCode":"SUCCESS","err_code":"0","Status":"1"}"#;
        assert_eq!(outcome(200, paid), "accepted {}");
        let blank = r#"{"returnCode":"FAIL","errCode":"NOTENOUGH","ResultCode":"","Error_Code":null}"#;
        assert_eq!(outcome(200, blank), "Refused NOTENOUGH");

        let found = |body: &str| finding(&key(), None, 200, body.as_bytes()).found;
        for unclear in [
            r#"{"ReturnCode":"SUCCESS","ResultCode":"FAIL","ErrCode":"NOT_FOUND"}"#,
            r#"{"returnCode":"SUCCESS","resultCode":"FAIL","errCode":"NOT_FOUND","ResultCode":"SUCCESS"}"#,
            r#"{"returnCode":"SUCCESS","resultCode":"SUCCESS","status":"FAILED","Status":"SENT"}"#,
        ] {
            assert!(matches!(found(unclear), Found::Unclear { .. }), "{unclear}");
        }
        let sent = r#"{"returnCode":"SUCCESS","resultCode":"SUCCESS","status":"SENT","err_code":"0"}"#;
        assert!(matches!(found(sent), Found::Accepted { .. }));
    }

    #[test]
    fn only_a_status_that_cannot_mean_paid_refuses() {
        for status in 100..=599 {
            let refuses = [400, 401, 403, 404, 405, 413, 415, 422, 429].contains(&status);
            assert_eq!(
                outcome(status, "<html>").starts_with("RejectedUnprocessed"),
                refuses,
                "{status}"
            );
            assert_eq!(outcome(status, "<html>") == "unknown", !refuses, "{status}");
        }
    }

    #[test]
    fn a_refusal_without_a_contract_body_has_the_code_that_fits_its_status() {
        for (status, code) in [
            (400, "PARAM_ERROR"),
            (401, "NO_AUTH"),
            (403, "NO_AUTH"),
            (404, "PARAM_ERROR"),
            (422, "PARAM_ERROR"),
            (429, "FREQ_LIMIT"),
        ] {
            assert_eq!(outcome(status, ""), format!("RejectedUnprocessed {code}"));
        }
    }

    #[test]
    fn no_such_order_must_be_said_in_the_contracts_words() {
        let found = |status, body: &str| finding(&key(), Fen::new(100).ok(), status, body.as_bytes()).found;
        assert_eq!(
            found(
                200,
                r#"{"returnCode":"SUCCESS","resultCode":"FAIL","errCode":"NOT_FOUND"}"#
            ),
            Found::NoSuchOrder
        );
        for absent in [
            r#"{"returnCode":"FAIL","errCode":"NOT_FOUND"}"#,
            r#"{"returnCode":"FAIL","resultCode":"FAIL","errCode":"NOT_FOUND"}"#,
        ] {
            assert_eq!(found(200, absent), Found::NoSuchOrder);
        }
        for unclear in [
            r#"{"returnCode":"FAIL","resultCode":"SUCCESS","errCode":"NOT_FOUND"}"#,
            r#"{"returnCode":"WHAT","errCode":"NOT_FOUND"}"#,
            r#"{"returnCode":"SUCCESS","resultCode":"FAIL","errCode":"SYSTEMERROR"}"#,
        ] {
            assert!(matches!(found(200, unclear), Found::Unclear { .. }), "{unclear}");
        }
        assert!(matches!(found(404, "not found"), Found::Unclear { .. }));
        assert!(matches!(found(404, ""), Found::Unclear { .. }));
        assert!(matches!(
            found(200, r#"{"returnCode":"SUCCESS","resultCode":"SUCCESS"}"#),
            Found::Unclear { .. }
        ));
    }

    #[test]
    fn a_report_holds_the_contracts_fields_and_no_other() {
        let body = r#"{"returnCode":"SUCCESS","resultCode":"SUCCESS","status":"SENT","mchBillno":"A1","mchId":"19","reason":"r",
            "totalAmount":"100","openid":"oREAL","reOpenid":"oREAL","re_openid":"oREAL","userOpenid":"oREAL","a b":"1","secret":"s"}"#;
        let report = finding(&key(), Fen::new(100).ok(), 200, body.as_bytes()).report;
        let names: Vec<_> = report.iter().map(|(name, _)| name).collect();
        // The answer replaces `openid` by the user id, unless the configuration reveals it.
        assert_eq!(names, ["reason", "totalAmount", "openid"]);
    }

    #[test]
    fn the_status_words_of_both_kinds_are_understood() {
        for (word, is) in [
            ("SENT", "a"),
            ("RECEIVED", "a"),
            ("RFUND_ING", "a"),
            ("REFUND", "a"),
            ("SUCCESS", "a"),
            ("FAILED", "n"),
            ("SENDING", "m"),
            ("PROCESSING", "m"),
            ("NEW_WORD", "m"),
        ] {
            let body = format!(
                r#"{{"returnCode":"SUCCESS","resultCode":"SUCCESS","status":"{word}","reason":"r"}}"#
            );
            let finding = finding(&key(), None, 200, body.as_bytes());
            assert_eq!(finding.status.as_deref(), Some(word));
            assert_eq!(finding.report.characters("reason"), Some("r"), "{word}");
            let letter = match finding.found {
                Found::Accepted { .. } => "a",
                Found::NotPaid(refusal) => {
                    assert_eq!(refusal.text, "r");
                    "n"
                }
                Found::Moving => "m",
                Found::Unclear { .. } => "u",
                Found::NoSuchOrder => "x",
            };
            assert_eq!(letter, is, "{word}");
        }
        let other = r#"{"returnCode":"SUCCESS","resultCode":"SUCCESS","status":"SENT","totalAmount":"7"}"#;
        assert!(matches!(
            finding(&key(), Fen::new(100).ok(), 200, other.as_bytes()).found,
            Found::Unclear { .. }
        ));
    }
}
