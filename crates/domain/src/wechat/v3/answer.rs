//! What an answer, a query and a notification about a bill prove. Document: wechat-pay.md, sections 2, 9, 10 and 11.
//!
//! Nothing here is believed of an answer whose signature is wrong: that is unknown, whatever it says.

use super::state::{BillState, Stage};
use crate::day::beijing_text;
use crate::fields::Fields;
use crate::ids::{Fen, MchId, Millis, OpenId, OrderKey, OrderNo};
use crate::json;
use crate::order::Order;
use crate::outcome::{Class, Evidence, Finding, Found, Refusal};

/// What is known of an answer's signature, where it is not wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// It is WeChat Pay's.
    Verified,
    /// There is none at all. Refusals may come without one, and are believed on TLS alone; nothing else is.
    /// Source: wechat-pay.md, section 9, "non-2xx answers".
    Absent,
}

/// The class of an error code. What is not listed is unknown. Source: wechat-pay.md, sections 9 and 10.
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
        // Says "turned away" and "known with other parameters" alike, by its text alone: the query decides.
        "INVALID_REQUEST" => Class::Conflict,
        _ => Class::Unknown,
    }
}

/// What an answer is, before it is looked at for one order.
enum Said<'a> {
    /// 200, signed: a bill.
    Bill(Fields<'a>),
    /// 4xx with a code.
    Failure { code: String, text: String },
    /// Nothing that is documented.
    Nothing(String),
}

fn read(status: u16, signature: &Result<Signature, String>, body: &[u8]) -> Said<'static> {
    let signature = match signature {
        Ok(signature) => *signature,
        Err(why) => return Said::Nothing(format!("WeChat Pay's answer is not believed: {why}")),
    };
    let fields = std::str::from_utf8(body)
        .map_err(|_| "it is not UTF-8".to_owned())
        .and_then(|text| json::decode(text).map(Fields::into_owned));
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

/// What the answer to making a bill proves.
///
/// A bill that waits for its user, or is past that, is accepted. One that WeChat has only taken (`ACCEPTED`,
/// `PROCESSING`) is unknown: it has no `package_info` yet, without which the user could never confirm it, and a repeat
/// fetches that.
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

/// What the answer to a query says. `expected`: amount and openid on record, where the order is.
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

/// What came of asking to withdraw a bill.
#[derive(Clone, Debug, PartialEq)]
pub enum Withdrawal {
    /// WeChat Pay takes it back, or has; what it says of the bill now.
    Taken(Finding),
    /// WeChat Pay refuses to.
    Refused {
        /// Its code.
        code: String,
        /// Its text.
        text: String,
    },
    /// Nobody knows: ask how the bill stands.
    Unclear(String),
}

/// What the answer to a withdrawal says.
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

/// What was inside a notification.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    /// Whose bill it is about.
    pub key: OrderKey,
    bill: Fields<'static>,
}

impl Notification {
    /// Reads the text that was opened.
    ///
    /// # Errors
    /// When it names no merchant or no order number, then why.
    pub fn read(text: &str) -> Result<Self, String> {
        let bill = json::decode(text)?.into_owned();
        let mch_id = bill.characters("mch_id").or_else(|| bill.characters("mchid"));
        let mch_id = MchId::parse(mch_id.unwrap_or_default()).map_err(|rule| format!("mch_id {rule}"))?;
        let number = bill.characters("out_bill_no").unwrap_or_default();
        let order_no = OrderNo::parse(number).map_err(|rule| format!("out_bill_no {rule}"))?;
        Ok(Self {
            key: OrderKey { mch_id, order_no },
            bill,
        })
    }

    /// What it says of the order on record; unclear where it is about another amount or payee.
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
        // A query tells no `package_info`, so that an unknown order stays unknown for a repeat to fetch it.
        Stage::Waiting | Stage::Undecided => Found::Moving,
        Stage::Unpaid => Found::NotPaid(refusal(word, bill)),
    };
    Finding {
        found,
        status: Some(word.to_owned()),
        report: report(state, word, bill),
    }
}

/// What in a bill cannot be about this order. The number must be there; the rest must agree as far as it is there.
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
        code: reason.to_owned(),
        text: format!("转账未成功: the bill ended as {word}"),
        number_spent: true,
    }
}

/// The contract's names of what a bill carries.
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

/// A moment in the contract's form: Beijing time.
fn time(bill: &Fields<'_>, name: &str) -> Option<String> {
    let moment: jiff::Timestamp = bill.characters(name)?.parse().ok()?;
    let text = beijing_text(Millis(moment.as_millisecond()));
    (!text.is_empty()).then_some(text)
}

/// The status answer's fields in the contract's names. `status` is one of the contract's three words, and `reason` tells
/// WeChat's own where that says more.
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
