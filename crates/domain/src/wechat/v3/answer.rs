//! What a response, a query and a notification about a bill prove (`docs/wechat-pay.md`, error codes and
//! notifications).
//!
//! A response whose signature is wrong proves nothing, whatever it says: the order stays unknown.

use super::state::{BillState, Stage};
use crate::day::beijing_text;
use crate::fields::Fields;
use crate::ids::{Fen, MchId, Millis, OpenId, OrderKey, OrderNo};
use crate::json;
use crate::order::Order;
use crate::outcome::{Class, Evidence, Finding, Found, Refusal};
use crate::text::kept;

/// What is known of a response's signature, if it is not wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// It is WeChat Pay's.
    Verified,
    /// There is none at all. Error responses may come without one and are believed on TLS alone; nothing else is
    /// (`docs/wechat-pay.md`, signatures).
    Absent,
}

/// The class of an error code; a code that is not listed is unknown (`docs/wechat-pay.md`, error codes).
#[must_use]
pub fn class(code: &str) -> Class {
    match code {
        "PARAM_ERROR"
        | "SIGN_ERROR"
        | "NO_AUTH"
        | "FREQUENCY_LIMITED"
        | "FREQUENCY_LIMIT_EXCEED"
        | "RATELIMIT_EXCEEDED" => Class::RejectedUnprocessed,
        "NOT_ENOUGH" => Class::Refused,
        // Means "turned away" or "known with other parameters", and only its text tells which: the query decides.
        "INVALID_REQUEST" => Class::Conflict,
        _ => Class::Unknown,
    }
}

/// What a response is, before it is compared with an order.
enum Said<'a> {
    /// 200, signed: a bill.
    Bill(Fields<'a>),
    /// 4xx with a code.
    Failure { code: String, text: String },
    /// Nothing that WeChat Pay documents; says why.
    Nothing(String),
}

fn read(status: u16, signature: &Result<Signature, String>, body: &[u8]) -> Said<'static> {
    let signature = match signature {
        Ok(signature) => *signature,
        Err(why) => return Said::Nothing(format!("WeChat Pay's answer is not believed: {why}")),
    };
    let fields = std::str::from_utf8(body)
        .map_err(|_| "it is not UTF-8".to_owned())
        .and_then(|text| match json::decode(text) {
            Ok(fields) => Ok(fields.into_owned()),
            Err(error) => Err(error.to_string()),
        });
    let fields = match fields {
        Ok(fields) => fields,
        Err(why) => {
            return Said::Nothing(format!(
                "WeChat Pay's answer (HTTP {status}) cannot be read: {why}"
            ));
        }
    };
    match (status, signature) {
        (200, Signature::Verified) => Said::Bill(fields),
        (200, Signature::Absent) => Said::Nothing("WeChat Pay's answer is not signed".to_owned()),
        (400..=499, _) => match fields.characters("code") {
            Some(code) => Said::Failure {
                code: code.to_owned(),
                text: fields.characters("message").unwrap_or_default().to_owned(),
            },
            None => Said::Nothing(format!("WeChat Pay answered HTTP {status} without a code")),
        },
        (status, _) => {
            let code = fields.characters("code").unwrap_or("no code");
            Said::Nothing(format!("WeChat Pay answered HTTP {status}, {code}"))
        }
    }
}

/// What the response to making a bill proves.
///
/// A bill that waits for its user, or is past that, is accepted. A bill that WeChat has only taken (`ACCEPTED`,
/// `PROCESSING`) is unknown: it has no `package_info` yet, without which the user could never confirm it, and a
/// repeat fetches that.
#[must_use]
pub fn evidence(order: &Order, status: u16, signature: &Result<Signature, String>, body: &[u8]) -> Evidence {
    let no_answer = |why: String| Evidence::no_answer(&why);
    let bill = match read(status, signature, body) {
        Said::Bill(bill) => bill,
        Said::Failure { code, text } => {
            return Evidence::declined(class(&code), &code, &text);
        }
        Said::Nothing(why) => return no_answer(why),
    };
    if let Some(why) = contradiction(&bill, &order.key, Some((order.amount, &order.openid))) {
        return no_answer(why);
    }
    let word = bill.characters("state").unwrap_or_default();
    let Some(state) = BillState::parse(word) else {
        return no_answer(format!("WeChat Pay answered the unknown state {word:?}"));
    };
    match state.stage() {
        Stage::Waiting | Stage::Accepted => Evidence::Opened {
            fields: outcome_fields(&bill),
            status: word.to_owned(),
        },
        Stage::Unpaid => {
            let refusal = refusal(word, &bill);
            Evidence::declined(Class::NumberSpent, &refusal.code, &refusal.text)
        }
        Stage::Undecided => no_answer(format!("WeChat Pay's state is {word}")),
    }
}

/// What the response to a query says. `expected`: amount and openid on record, if the order is on record.
#[must_use]
pub fn finding(
    key: &OrderKey,
    expected: Option<(Fen, &OpenId)>,
    status: u16,
    signature: &Result<Signature, String>,
    body: &[u8],
) -> Finding {
    match read(status, signature, body) {
        Said::Bill(bill) => bill_finding(key, expected, &bill),
        Said::Failure { code, .. } if status == 404 && code == "NOT_FOUND" => Finding::no_such_order(),
        Said::Failure { code, text } => Finding::unclear(&format!("WeChat Pay answered {code}: {text}")),
        Said::Nothing(why) => Finding::unclear(&why),
    }
}

/// The result of a request to withdraw a bill.
#[derive(Clone, Debug, PartialEq)]
pub enum Withdrawal {
    /// WeChat Pay is withdrawing the bill or has withdrawn it; what it says of the bill now.
    Taken(Finding),
    /// WeChat Pay refuses to withdraw it.
    Refused {
        /// Its code.
        code: String,
        /// Its text.
        text: String,
    },
    /// The result is unknown: ask for the bill's state.
    Unclear(String),
}

/// What the response to a withdrawal says.
#[must_use]
pub fn withdrawal(
    key: &OrderKey,
    status: u16,
    signature: &Result<Signature, String>,
    body: &[u8],
) -> Withdrawal {
    match read(status, signature, body) {
        Said::Bill(bill) => match bill_finding(key, None, &bill) {
            Finding {
                found: Found::Unclear { why },
                ..
            } => Withdrawal::Unclear(why),
            finding => Withdrawal::Taken(finding),
        },
        Said::Failure { code, text } => Withdrawal::Refused { code, text },
        Said::Nothing(why) => Withdrawal::Unclear(why),
    }
}

/// The content of a notification.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    /// The order that it is about.
    pub key: OrderKey,
    bill: Fields<'static>,
}

impl Notification {
    /// Reads the decrypted text.
    ///
    /// # Errors
    /// Why it cannot be read: it is not a JSON object, or names no merchant or no order number.
    pub fn read(text: &str) -> Result<Self, String> {
        let bill = json::decode(text).map_err(|error| error.to_string())?;
        let bill = bill.into_owned();
        let mch_id = bill.characters("mch_id").or_else(|| bill.characters("mchid"));
        let mch_id = MchId::parse(mch_id.unwrap_or_default()).map_err(|rule| format!("mch_id {rule}"))?;
        let number = bill.characters("out_bill_no").unwrap_or_default();
        let order_no = OrderNo::parse(number).map_err(|rule| format!("out_bill_no {rule}"))?;
        Ok(Self {
            key: OrderKey { mch_id, order_no },
            bill,
        })
    }

    /// What it says of the order on record; unclear if it is about another amount or payee.
    #[must_use]
    pub fn finding(&self, order: &Order) -> Finding {
        bill_finding(&order.key, Some((order.amount, &order.openid)), &self.bill)
    }
}

fn bill_finding(key: &OrderKey, expected: Option<(Fen, &OpenId)>, bill: &Fields<'_>) -> Finding {
    if let Some(why) = contradiction(bill, key, expected) {
        return Finding::unclear(&why);
    }
    let word = bill.characters("state").unwrap_or_default();
    let Some(state) = BillState::parse(word) else {
        return Finding::unclear(&format!("WeChat Pay answered the unknown state {word:?}"));
    };
    let found = match state.stage() {
        Stage::Accepted => Found::Accepted {
            fields: outcome_fields(bill),
        },
        // A query tells no `package_info`. So an unknown order stays unknown, and a repeat fetches it.
        Stage::Waiting | Stage::Undecided => Found::Moving,
        Stage::Unpaid => Found::NotPaid(refusal(word, bill)),
    };
    Finding {
        found,
        status: Some(word.to_owned()),
        report: report(state, word, bill),
    }
}

/// What in a bill cannot be about this order. The number must be there; the other fields must agree if they are
/// there.
fn contradiction(bill: &Fields<'_>, key: &OrderKey, expected: Option<(Fen, &OpenId)>) -> Option<String> {
    let says = |name: &str| {
        Some(format!(
            "WeChat Pay's answer carries another {name}: look at this order"
        ))
    };
    if bill.characters("out_bill_no") != Some(key.order_no.as_str()) {
        return says("out_bill_no");
    }
    let differs = |name: &str, ours: &str| bill.characters(name).is_some_and(|theirs| theirs != ours);
    if differs("mch_id", key.mch_id.as_str()) || differs("mchid", key.mch_id.as_str()) {
        return says("mch_id");
    }
    let (amount, openid) = expected?;
    if differs("transfer_amount", &amount.to_string()) {
        return says("transfer_amount");
    }
    if differs("openid", openid.as_str()) {
        return says("openid");
    }
    None
}

fn refusal(word: &str, bill: &Fields<'_>) -> Refusal {
    let reason = bill.characters("fail_reason").unwrap_or(word);
    Refusal {
        code: kept(reason),
        text: format!("转账未成功: 微信转账单的最终状态为 {word}"),
        number_spent: true,
    }
}

/// The fields of an accepted bill, in the contract's names.
fn outcome_fields(bill: &Fields<'_>) -> Fields<'static> {
    let mut fields = Fields::with_capacity(3);
    if let Some(number) = bill.characters("transfer_bill_no") {
        fields.set("paymentNo", number.to_owned());
    }
    if let Some(time) = time(bill, "create_time") {
        fields.set("paymentTime", time);
    }
    if let Some(package) = bill.characters("package_info") {
        fields.set("hbpackage", package.to_owned());
    }
    fields
}

/// A time in the contract's form, in Beijing time.
fn time(bill: &Fields<'_>, name: &str) -> Option<String> {
    let moment: jiff::Timestamp = bill.characters(name)?.parse().ok()?;
    let text = beijing_text(Millis(moment.as_millisecond()));
    (!text.is_empty()).then_some(text)
}

/// The fields of the status response, in the contract's names. `status` is one of the contract's three words;
/// `reason` is WeChat's own word if that says more.
fn report(state: BillState, word: &str, bill: &Fields<'_>) -> Fields<'static> {
    let mut fields = Fields::with_capacity(9);
    fields.set("status", state.status());
    let reason = bill.characters("fail_reason").unwrap_or(word);
    if reason != state.status() {
        fields.set("reason", reason.to_owned());
    }
    for (theirs, ours) in [
        ("out_bill_no", "partnerTradeNo"),
        ("appid", "appid"),
        ("openid", "openid"),
        ("transfer_amount", "paymentAmount"),
        ("transfer_remark", "desc"),
    ] {
        if let Some(text) = bill.characters(theirs) {
            fields.set(ours, text.to_owned());
        }
    }
    if let Some(time) = time(bill, "create_time") {
        fields.set("transferTime", time);
    }
    if state == BillState::Success
        && let Some(time) = time(bill, "update_time")
    {
        fields.set("paymentTime", time);
    }
    fields
}

#[cfg(test)]
mod tests;
