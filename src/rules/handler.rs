//! A customer's handler: what it is sent, and what its answers prove. Document: specification, section 6, `to = "handler"`.

use std::net::IpAddr;

use super::contract::fault::Fault;
use super::contract::send::{CLIENT_IP, RequestCredentials, SendRequest};
use super::encoding::Encoding;
use super::fields::Fields;
use super::outcome::{Class, Evidence, Finding, Found, Refusal};
use super::term::{Fen, OpenId, OrderKey, TradeRecordId, WxAppId};
use super::wechat::codes::class_for_handler;
use super::xml::{self, Nested};

/// The path of both sides for paying. Source: specification, section 2.
pub const SEND_PATH: &str = "/pay/sendApiRedPack";
/// The path of both sides for asking. Source: specification, section 2.
pub const STATUS_PATH: &str = "/pay/getApiRedPacketStatus";

/// HTTP statuses that cannot mean "paid" where no contract body says otherwise. Source: specification, section 6.
const REFUSING: [u16; 9] = [400, 401, 403, 404, 405, 413, 415, 422, 429];

/// The normalised request: canonical names, the openid instead of the user id, the address that `[client_ip]` says,
/// and what the contract does not know, unchanged.
///
/// # Errors
/// When there is no client address, or the encoding is XML and cannot carry a field, then `PARAM_ERROR` by name.
pub fn parameters(
    request: &SendRequest,
    openid: &OpenId,
    client_ip: Option<IpAddr>,
    encoding: Encoding,
) -> Result<Fields<'static>, Fault> {
    let client_ip = client_ip.ok_or_else(|| Fault::missing(CLIENT_IP))?;
    let mut fields = Fields::with_capacity(16);
    fields.set("wxAppId", request.wx_app_id.as_str().to_owned());
    fields.set("mchId", request.mch_id.as_str().to_owned());
    fields.set("mchBillno", request.order_no.as_str().to_owned());
    fields.set("openid", openid.as_str().to_owned());
    fields.set_number("amount", request.amount.get());
    fields.set(CLIENT_IP, client_ip.to_string());
    fields.set("actName", request.act_name.clone());
    fields.set("remark", request.remark.clone());
    fields.set_number("tradeRecordId", request.trade_record_id.0);
    for (name, text) in [
        ("sendName", &request.send_name),
        ("wishing", &request.wishing),
        ("notifyWay", &request.notify_way),
        ("environment", &request.environment),
    ] {
        if let Some(text) = text {
            fields.set(name, text.clone());
        }
    }
    for (name, value) in request.others.iter() {
        fields
            .push(name.to_owned().into(), value.clone())
            .map_err(|error| Fault::body(&error.to_string()))?;
    }
    // What cannot be written must be refused now: after the claim it would be too late.
    encoding
        .encode(&fields)
        .map_err(|error| Fault::field(&error.field, "holds what XML cannot carry"))?;
    Ok(fields)
}

/// The request body as it is sent. Credentials are added at the last moment; they are never part of the recorded
/// parameters.
#[must_use]
pub fn body(parameters: &Fields<'static>, credentials: &RequestCredentials, encoding: Encoding) -> String {
    if credentials.is_empty() {
        return encoding.encode(parameters).unwrap_or_default();
    }
    let mut fields = parameters.clone();
    for (name, secret) in [
        ("privateKey", &credentials.private_key),
        ("certKey", &credentials.cert_key),
        ("apiSecretKey", &credentials.api_secret_key),
    ] {
        if let Some(secret) = secret {
            fields.set(name, secret.expose().to_owned());
        }
    }
    encoding.encode(&fields).unwrap_or_default()
}

/// The question how an order stands.
#[must_use]
pub fn question(key: &OrderKey, app: &WxAppId, record_id: TradeRecordId) -> Fields<'static> {
    let mut fields = Fields::with_capacity(4);
    fields.set("wxAppId", app.as_str().to_owned());
    fields.set("mchId", key.mch_id.as_str().to_owned());
    fields.set("mchBillno", key.order_no.as_str().to_owned());
    fields.set_number("tradeRecordId", record_id.0);
    fields
}

/// What an answer to a payout proves.
#[must_use]
pub fn evidence(key: &OrderKey, amount: Fen, status: u16, body: &[u8]) -> Evidence {
    let Some(answer) = read(body) else {
        return without_contract(status);
    };
    match (answer.characters("returnCode"), answer.characters("resultCode")) {
        (Some("SUCCESS"), Some("SUCCESS")) => match contradiction(&answer, key, Some(amount)) {
            None => Evidence::Accepted {
                fields: kept(&answer),
            },
            Some(why) => Evidence::NoAnswer { why },
        },
        (Some("SUCCESS"), Some("FAIL")) => declined(&answer, Class::Unknown),
        // The contract: the request was not taken, nothing was sent.
        (Some("FAIL"), _) => declined(&answer, Class::Door),
        (code, result) => Evidence::NoAnswer {
            why: format!("the handler answered returnCode {code:?} and resultCode {result:?}"),
        },
    }
}

/// A failure in the contract's terms. `unlisted` is the class of a code that neither the contract nor WeChat knows, and
/// of an answer without a code.
fn declined(answer: &Fields<'_>, unlisted: Class) -> Evidence {
    let code = answer.characters("errCode").unwrap_or_default().to_owned();
    let text = answer
        .characters("errCodeDes")
        .or_else(|| answer.characters("returnMsg"))
        .unwrap_or_default()
        .to_owned();
    let class = match (class_for_handler(&code), unlisted) {
        // "Not taken" clears a code nobody knows, but never one that says "unknown" or "conflict" itself.
        (Class::Unknown, Class::Door)
            if !matches!(code.as_str(), "SYSTEMERROR" | "PROCESSING" | "SEND_FAILED") =>
        {
            Class::Door
        }
        (class, _) => class,
    };
    let code = if code.is_empty() { "FAIL".to_owned() } else { code };
    Evidence::Declined { class, code, text }
}

fn without_contract(status: u16) -> Evidence {
    if !REFUSING.contains(&status) {
        return Evidence::NoAnswer {
            why: format!("the handler answered HTTP {status} without a contract body"),
        };
    }
    let code = match status {
        401 | 403 => "NO_AUTH",
        429 => "FREQ_LIMIT",
        _ => "PARAM_ERROR",
    };
    Evidence::Declined {
        class: Class::Door,
        code: code.to_owned(),
        text: format!("商户处理程序拒绝: the handler answered HTTP {status}"),
    }
}

/// Reads a contract answer in either encoding, whatever its `Content-Type` claims; `None` where it is none.
fn read(body: &[u8]) -> Option<Fields<'_>> {
    let text = std::str::from_utf8(body).ok()?;
    let text = text.trim_start_matches('\u{FEFF}').trim_start();
    let fields = match text.as_bytes().first()? {
        b'{' => super::json::decode(text).ok()?,
        b'<' => xml::decode(text, Nested::Skip).ok()?,
        _ => return None,
    };
    fields.characters("returnCode").is_some().then_some(fields)
}

/// What in an answer cannot be about this order.
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

/// The fields of a handler's answer that the platform gets: the contract's, less those that we say ourselves.
fn kept(answer: &Fields<'_>) -> Fields<'static> {
    let mut fields = Fields::new();
    for name in [
        "sendListid",
        "hbpackage",
        "paymentNo",
        "paymentTime",
        "partnerTradeNo",
        "mchAppid",
        "mchid",
    ] {
        if let Some(text) = answer.characters(name) {
            fields.set(name, text.to_owned());
        }
    }
    fields
}

/// What an answer to a query says.
#[must_use]
pub fn finding(key: &OrderKey, expected: Option<Fen>, status: u16, body: &[u8]) -> Finding {
    let Some(answer) = read(body) else {
        return Finding::unclear(format!(
            "the handler answered HTTP {status} without a contract body"
        ));
    };
    let succeeded = answer.characters("returnCode") == Some("SUCCESS")
        && answer.characters("resultCode") == Some("SUCCESS");
    if !succeeded {
        return match answer.characters("errCode") {
            Some("NOT_FOUND") => Finding::no_such_order(),
            code => Finding::unclear(format!(
                "the handler answered {}",
                code.unwrap_or("a failure without errCode")
            )),
        };
    }
    if let Some(why) = contradiction(&answer, key, expected) {
        return Finding::unclear(why);
    }
    let Some(word) = answer.characters("status").map(str::to_owned) else {
        return Finding::unclear("the handler's answer has no status");
    };
    let found = match word.as_str() {
        "SENT" | "RECEIVED" | "RFUND_ING" | "REFUND" | "SUCCESS" => Found::Accepted {
            fields: kept(&answer),
        },
        "FAILED" => {
            let text = answer
                .characters("reason")
                .unwrap_or("the handler says that it failed")
                .to_owned();
            Found::NotPaid(Refusal {
                code: "FAILED".to_owned(),
                text,
                burnt: false,
            })
        }
        "SENDING" | "PROCESSING" => Found::Moving,
        _ => return Finding::unclear(format!("the handler answered the unknown status {word}")),
    };
    let mut report = answer.into_owned();
    for name in [
        "returnCode",
        "returnMsg",
        "resultCode",
        "errCode",
        "errCodeDes",
        "mchBillno",
        "mchId",
        "status",
    ] {
        report.take(name);
    }
    Finding {
        found,
        status: Some(word),
        report,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::term::{MchId, OrderNo};

    fn key() -> OrderKey {
        OrderKey {
            mch_id: MchId::parse("19").unwrap(),
            order_no: OrderNo::parse("A1").unwrap(),
        }
    }

    fn outcome(status: u16, body: &str) -> String {
        match evidence(&key(), Fen::new(100).unwrap(), status, body.as_bytes()) {
            Evidence::Accepted { fields } => format!("accepted {}", super::super::json::encode(&fields)),
            Evidence::Declined { class, code, .. } => format!("{class:?} {code}"),
            Evidence::NoAnswer { .. } => "unknown".into(),
            Evidence::NeverSent { .. } => "never sent".into(),
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
            (200, r#"{"returnCode":"FAIL","returnMsg":"bad"}"#, "Door FAIL"),
            (
                200,
                r#"{"returnCode":"FAIL","errCode":"SYSTEMERROR"}"#,
                "Unknown SYSTEMERROR",
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
    fn only_a_status_that_cannot_mean_paid_refuses() {
        for status in 100..=599 {
            let refuses = [400, 401, 403, 404, 405, 413, 415, 422, 429].contains(&status);
            assert_eq!(outcome(status, "<html>").starts_with("Door"), refuses, "{status}");
            assert_eq!(outcome(status, "<html>") == "unknown", !refuses, "{status}");
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
        assert!(matches!(found(404, "not found"), Found::Unclear { .. }));
        assert!(matches!(found(404, ""), Found::Unclear { .. }));
        assert!(matches!(
            found(200, r#"{"returnCode":"SUCCESS","resultCode":"SUCCESS"}"#),
            Found::Unclear { .. }
        ));
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
            ("NEW_WORD", "u"),
        ] {
            let body = format!(
                r#"{{"returnCode":"SUCCESS","resultCode":"SUCCESS","status":"{word}","reason":"r"}}"#
            );
            let said = match finding(&key(), None, 200, body.as_bytes()).found {
                Found::Accepted { .. } => "a",
                Found::NotPaid(refusal) => {
                    assert_eq!(refusal.text, "r");
                    "n"
                }
                Found::Moving => "m",
                Found::Unclear { .. } => "u",
                Found::NoSuchOrder => "x",
            };
            assert_eq!(said, is, "{word}");
        }
        let other = r#"{"returnCode":"SUCCESS","resultCode":"SUCCESS","status":"SENT","totalAmount":"7"}"#;
        assert!(matches!(
            finding(&key(), Fen::new(100).ok(), 200, other.as_bytes()).found,
            Found::Unclear { .. }
        ));
    }
}
