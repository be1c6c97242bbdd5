//! Composes the responses to both requests, as fields in the contract's names (`docs/api.md`). It writes no bytes:
//! that is [`encoding`](crate::encoding).

use crate::contract::error::ApiError;
use crate::contract::reason::Reason;
use crate::fields::Fields;
use crate::ids::OrderKey;
use crate::order::{Destination, Order, State};
use crate::outcome::{Finding, Found};
use crate::wechat::Product;
use crate::wechat::v3::state::BillState;

/// `[answer]` in the configuration: what the platform may see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disclosure {
    /// Whether responses show the openid instead of the user id that the caller sent.
    pub reveal_openid: bool,
}

/// The response to a request that was not accepted: malformed, or refused before processing. `order_no` if it could
/// be read.
#[must_use]
pub fn not_taken(fault: &ApiError, order_no: Option<&str>) -> Fields<'static> {
    let mut fields = Fields::with_capacity(5);
    fields.set("returnCode", "FAIL");
    fields.set("returnMsg", fault.text.clone());
    fields.set("errCode", fault.code.as_str());
    fields.set("errCodeDes", fault.text.clone());
    if let Some(order_no) = order_no {
        fields.set("mchBillno", order_no.to_owned());
    }
    fields
}

/// The response to a request that was accepted and did not succeed.
#[must_use]
pub fn failed(code: &str, text: &str, key: &OrderKey) -> Fields<'static> {
    let mut fields = Fields::with_capacity(8);
    fields.set("returnCode", "SUCCESS");
    fields.set("resultCode", "FAIL");
    fields.set("errCode", code.to_owned());
    fields.set("errCodeDes", text.to_owned());
    fields.set("mchBillno", key.order_no.as_str().to_owned());
    fields.set("mchId", key.mch_id.as_str().to_owned());
    fields
}

/// The response that the record gives, both to the request that paid the order and to every repeat.
#[must_use]
pub fn recorded(order: &Order, disclosure: Disclosure) -> Fields<'static> {
    match &order.state {
        State::Succeeded(succeeded) => {
            let mut fields = succeeded_head(order, disclosure);
            copy_new(&mut fields, &succeeded.fields);
            fields
        }
        State::Refused(refused) => failed(&refused.refusal.code, &refused.refusal.text, &order.key),
        State::Pending(_) => failed_by(&ApiError::processing(), &order.key),
        State::Unknown(_) => failed_by(&ApiError::unknown(), &order.key),
    }
}

/// The response to a request that was accepted and did not succeed, for one of the contract's own reasons.
#[must_use]
pub fn failed_by(fault: &ApiError, key: &OrderKey) -> Fields<'static> {
    failed(fault.code.as_str(), &fault.text, key)
}

fn succeeded_head(order: &Order, disclosure: Disclosure) -> Fields<'static> {
    let mut fields = Fields::with_capacity(12);
    let order_no = || order.key.order_no.as_str().to_owned();
    let mch_id = || order.key.mch_id.as_str().to_owned();
    let app = order.wx_app_id.as_str().to_owned();
    fields.set("returnCode", "SUCCESS");
    fields.set("resultCode", "SUCCESS");
    fields.set("mchBillno", order_no());
    match order.upstream {
        Destination::Wechat(Product::Transfer) | Destination::TransferBill => {
            fields.set("mchAppid", app);
            fields.set("mchid", mch_id());
            fields.set("partnerTradeNo", order_no());
        }
        Destination::Wechat(Product::Redpack | Product::MiniProgramRedpack) | Destination::Handler(_) => {
            fields.set("mchId", mch_id());
            fields.set("wxappid", app);
            fields.set("reOpenid", person(order, disclosure));
            fields.set("totalAmount", order.amount.to_string());
        }
    }
    fields
}

/// The user id that the caller sent, or the openid if the configuration reveals it.
fn person(order: &Order, disclosure: Disclosure) -> String {
    if disclosure.reveal_openid {
        order.openid.as_str()
    } else {
        order.user_id.as_str()
    }
    .to_owned()
}

/// Adds the fields that are not there yet. All values in responses are strings.
fn copy_new(fields: &mut Fields<'static>, more: &Fields<'static>) {
    for (name, value) in more.iter() {
        if fields.get(name).is_none() && !value.is_blank() {
            let text = crate::fields::Value::Text(value.characters().to_owned().into());
            // The name is not there yet, so `push` fails only beyond the limit of fields.
            let _added = fields.push(name.to_owned().into(), text).is_ok();
        }
    }
}

/// The response to a status request about an order on record. The record's state decides. What the upstream has
/// just said (`finding`, if it was asked) refines the response if the two agree (`docs/promise.md`).
#[must_use]
pub fn stands(order: &Order, finding: Option<&Finding>, disclosure: Disclosure) -> Fields<'static> {
    match finding {
        Some(finding) if agrees(order, &finding.found) => {
            answered(&order.key, finding, Some(person(order, disclosure)))
        }
        Some(_) | None => remembered(order, disclosure),
    }
}

/// Whether a response may tell what the upstream says about an order in this state. It never turns a paid order
/// into a failed one, nor a refused order into one that is being sent.
fn agrees(order: &Order, found: &Found) -> bool {
    match (&order.state, found) {
        (State::Succeeded(_) | State::Unknown(_), Found::Accepted { .. } | Found::Moving)
        | (State::Refused(_), Found::NotPaid(_)) => true,
        // An accepted bill may still end unpaid.
        (State::Succeeded(_), Found::NotPaid(_)) => order.upstream == Destination::TransferBill,
        (
            State::Pending(_) | State::Unknown(_) | State::Succeeded(_) | State::Refused(_),
            Found::Accepted { .. }
            | Found::NotPaid(_)
            | Found::Moving
            | Found::NoSuchOrder
            | Found::Unclear { .. },
        ) => false,
    }
}

/// The response to a status request about an order that is not on record here, from what the upstream said.
#[must_use]
pub fn reported(key: &OrderKey, finding: &Finding, disclosure: Disclosure) -> Fields<'static> {
    // Without a record the user id is unknown, and the openid is shown only if the configuration reveals it.
    let upstreams_person = finding.report.characters("openid").map(str::to_owned);
    answered(
        key,
        finding,
        upstreams_person.filter(|_| disclosure.reveal_openid),
    )
}

/// Replaces the upstream's `openid`, if it sent one, by `person`; removes it if there is no `person`.
fn answered(key: &OrderKey, finding: &Finding, person: Option<String>) -> Fields<'static> {
    let mut fields = status_head(key);
    // A bill's report already has `status` in the contract's words: keep that one.
    if let (Some(status), None) = (&finding.status, finding.report.get("status")) {
        fields.set("status", status.clone());
    }
    let mut report = finding.report.clone();
    if let (Some(_), Some(person)) = (report.take("openid"), person) {
        report.set("openid", person);
    }
    copy_new(&mut fields, &report);
    fields
}

/// The response to a status request from the record alone: the sidecar has not asked the upstream, or the
/// upstream's answer does not agree.
#[must_use]
fn remembered(order: &Order, disclosure: Disclosure) -> Fields<'static> {
    let (status, reason) = match &order.state {
        State::Pending(_) => return failed_by(&ApiError::processing(), &order.key),
        State::Unknown(_) => return failed_by(&ApiError::unknown(), &order.key),
        // WeChat has accepted the bill, but has not said that it paid it.
        State::Succeeded(_) if order.upstream == Destination::TransferBill => ("PROCESSING", None),
        State::Succeeded(succeeded) => {
            let transfer = is_transfer(order) || succeeded.fields.characters("paymentNo").is_some();
            (if transfer { "SUCCESS" } else { "SENT" }, None)
        }
        State::Refused(refused) => (
            "FAILED",
            Some(format!("{}: {}", refused.refusal.code, refused.refusal.text)),
        ),
    };
    let mut fields = status_head(&order.key);
    let bill = order.upstream_status.as_deref().and_then(BillState::parse);
    let is_refused = matches!(order.state, State::Refused(_));
    let (status, reason) = match (&order.upstream_status, bill) {
        (Some(word), Some(state)) if order.upstream == Destination::TransferBill && !is_refused => {
            let says_more = (state.status() != word).then(|| word.clone());
            (state.status(), reason.or(says_more))
        }
        // A refused order's status is about an earlier attempt, and `FAILED` contradicts the acceptance: ignore
        // both.
        (Some(word), _) if !is_refused && word != "FAILED" => (word.as_str(), reason),
        (Some(_) | None, _) => (status, reason),
    };
    fields.set("status", status.to_owned());
    if let Some(reason) = reason {
        fields.set("reason", reason);
    }
    if is_transfer(order) {
        fields.set("partnerTradeNo", order.key.order_no.as_str().to_owned());
        fields.set("appid", order.wx_app_id.as_str().to_owned());
        fields.set("openid", person(order, disclosure));
        fields.set("paymentAmount", order.amount.to_string());
    } else {
        fields.set("totalAmount", order.amount.to_string());
    }
    fields
}

fn is_transfer(order: &Order) -> bool {
    matches!(
        order.upstream,
        Destination::Wechat(Product::Transfer) | Destination::TransferBill
    )
}

fn status_head(key: &OrderKey) -> Fields<'static> {
    let mut fields = Fields::with_capacity(16);
    fields.set("returnCode", "SUCCESS");
    fields.set("resultCode", "SUCCESS");
    fields.set("mchBillno", key.order_no.as_str().to_owned());
    fields.set("mchId", key.mch_id.as_str().to_owned());
    fields
}

/// The response to a status request about an order that neither the ledger nor the upstream knows.
#[must_use]
pub fn not_found(key: &OrderKey) -> Fields<'static> {
    failed_by(&Reason::NotFound.into(), key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{LedgerTime, Millis};
    use crate::json;
    use crate::order::fixtures::{at_handler, claimed, request};
    use crate::order::{Refused, Succeeded, Unknown};
    use crate::outcome::{Found, Refusal};

    const HIDDEN: Disclosure = Disclosure { reveal_openid: false };
    const REVEALED: Disclosure = Disclosure { reveal_openid: true };

    const REDPACK: Destination = Destination::Wechat(Product::Redpack);
    const TRANSFER: Destination = Destination::Wechat(Product::Transfer);

    fn fields(text: &str) -> Fields<'static> {
        json::decode(text).unwrap().into_owned()
    }

    fn order(upstream: Destination, state: State) -> Order {
        Order {
            state,
            ..claimed(upstream)
        }
    }

    fn succeeded(text: &str) -> State {
        State::Succeeded(Succeeded {
            at: Millis(0),
            fields: fields(text),
            following: None,
        })
    }

    fn refused() -> State {
        State::Refused(Refused {
            at: Millis(0),
            refusal: Refusal {
                code: "NOTENOUGH".into(),
                text: "余额不足".into(),
                number_spent: false,
            },
        })
    }

    fn unknown() -> State {
        State::Unknown(Unknown {
            since: Millis(0),
            why: "w".into(),
            next_query_at: LedgerTime(0),
            queries: 0,
            absence: None,
        })
    }

    fn recorded_text(upstream: Destination, state: State, disclosure: Disclosure) -> String {
        json::encode(&recorded(&order(upstream, state), disclosure))
    }

    #[test]
    fn what_was_not_taken_says_why_twice_and_which_order_it_was() {
        let fault = ApiError::missing("amount");
        assert_eq!(
            json::encode(&not_taken(&fault, Some("A1"))),
            r#"{"returnCode":"FAIL","returnMsg":"amount 缺失或为空: 此字段必填","errCode":"PARAM_ERROR","errCodeDes":"amount 缺失或为空: 此字段必填","mchBillno":"A1"}"#
        );
        assert_eq!(not_taken(&fault, None).get("mchBillno"), None);
    }

    #[test]
    fn a_success_has_the_products_fields() {
        assert_eq!(
            recorded_text(REDPACK, succeeded(r#"{"sendListid":"9"}"#), HIDDEN),
            r#"{"returnCode":"SUCCESS","resultCode":"SUCCESS","mchBillno":"A1","mchId":"19","wxappid":"wx1","reOpenid":"user-1","totalAmount":"100","sendListid":"9"}"#
        );
        assert_eq!(
            recorded_text(TRANSFER, succeeded(r#"{"paymentNo":"7"}"#), HIDDEN),
            r#"{"returnCode":"SUCCESS","resultCode":"SUCCESS","mchBillno":"A1","mchAppid":"wx1","mchid":"19","partnerTradeNo":"A1","paymentNo":"7"}"#
        );
    }

    #[test]
    fn the_openid_is_told_only_where_the_customer_wants_it() {
        for (disclosure, person) in [(HIDDEN, "user-1"), (REVEALED, "oX12abcdefghijk9f")] {
            let order = order(at_handler(), succeeded("{}"));
            assert_eq!(recorded(&order, disclosure).characters("reOpenid"), Some(person));
        }
    }

    /// The upstream's fields are added to ours, as texts; they replace none of ours.
    #[test]
    fn an_upstreams_fields_stand_behind_our_own() {
        let report = r#"{"mchBillno":"A2","totalAmount":1,"paymentNo":7,"hbpackage":"","sendListid":null}"#;
        assert_eq!(
            recorded_text(at_handler(), succeeded(report), HIDDEN),
            r#"{"returnCode":"SUCCESS","resultCode":"SUCCESS","mchBillno":"A1","mchId":"19","wxappid":"wx1","reOpenid":"user-1","totalAmount":"100","paymentNo":"7"}"#
        );
    }

    #[test]
    fn what_did_not_succeed_says_so() {
        let pending = claimed(REDPACK).state;
        for (state, code) in [
            (refused(), "NOTENOUGH"),
            (pending, "PROCESSING"),
            (unknown(), "SYSTEMERROR"),
        ] {
            let order = order(REDPACK, state);
            let sent = recorded(&order, HIDDEN);
            assert_eq!(sent.characters("returnCode"), Some("SUCCESS"));
            assert_eq!(sent.characters("resultCode"), Some("FAIL"));
            assert_eq!(sent.characters("errCode"), Some(code));
            assert_eq!(sent.characters("mchBillno"), Some("A1"));
            assert_eq!(sent.characters("mchId"), Some("19"));
            assert!(sent.characters("errCodeDes").is_some());
        }
        assert_eq!(
            json::encode(&not_found(&request(&[]).key())),
            r#"{"returnCode":"SUCCESS","resultCode":"FAIL","errCode":"NOT_FOUND","errCodeDes":"订单不存在: 台账和上游都没有该 mchBillno","mchBillno":"A1","mchId":"19"}"#
        );
    }

    fn finding(status: Option<&str>, report: &str) -> Finding {
        Finding {
            found: Found::Moving,
            status: status.map(str::to_owned),
            report: fields(report),
        }
    }

    #[test]
    fn a_status_answer_is_the_upstreams_report() {
        let order = order(TRANSFER, unknown());
        let processing = finding(
            Some("PROCESSING"),
            r#"{"paymentAmount":100,"mchId":"20","desc":"","openid":"oX12abcdefghijk9f"}"#,
        );
        let begins = r#"{"returnCode":"SUCCESS","resultCode":"SUCCESS","mchBillno":"A1","mchId":"19","status":"PROCESSING","paymentAmount":"100""#;
        let on_record = |disclosure| json::encode(&stands(&order, Some(&processing), disclosure));
        let elsewhere = |disclosure| json::encode(&reported(&order.key, &processing, disclosure));
        assert_eq!(on_record(HIDDEN), format!(r#"{begins},"openid":"user-1"}}"#));
        assert_eq!(elsewhere(HIDDEN), format!("{begins}}}"));
        for told in [on_record(REVEALED), elsewhere(REVEALED)] {
            assert_eq!(told, format!(r#"{begins},"openid":"oX12abcdefghijk9f"}}"#));
        }
        let silent = stands(&order, Some(&finding(None, "{}")), REVEALED);
        assert_eq!((silent.get("status"), silent.get("openid")), (None, None));
    }

    /// The record's state decides. The upstream's status refines it; a response never says that a paid order
    /// failed, nor that a refused order is being sent.
    #[test]
    fn the_upstreams_word_never_contradicts_the_record() {
        let not_paid = || {
            Found::NotPaid(Refusal {
                code: "F".into(),
                text: String::new(),
                number_spent: false,
            })
        };
        let accepted = || Found::Accepted {
            fields: Fields::new(),
        };
        let status = |upstream: &Destination, state: State, found: Found, word: &str| {
            let finding = Finding {
                found,
                status: Some(word.to_owned()),
                report: Fields::new(),
            };
            let told = stands(&order(upstream.clone(), state), Some(&finding), HIDDEN);
            let told = told.characters("status").or_else(|| told.characters("errCode"));
            told.unwrap_or_default().to_owned()
        };
        let paid = || succeeded("{}");
        for (upstream, plain) in [(REDPACK, "SENT"), (TRANSFER, "SUCCESS"), (at_handler(), "SENT")] {
            assert_eq!(status(&upstream, paid(), not_paid(), "FAILED"), plain);
            assert_eq!(status(&upstream, paid(), Found::NoSuchOrder, "NOT_FOUND"), plain);
            assert_eq!(status(&upstream, paid(), accepted(), "REFUND"), "REFUND");
            assert_eq!(status(&upstream, refused(), Found::Moving, "SENDING"), "FAILED");
            assert_eq!(status(&upstream, refused(), not_paid(), "FAILED"), "FAILED");
            assert_eq!(status(&upstream, unknown(), Found::Moving, "SENDING"), "SENDING");
            assert_eq!(status(&upstream, unknown(), not_paid(), "FAILED"), "SYSTEMERROR");
            let remembers = |state, word: &str| {
                let order = Order {
                    upstream_status: Some(word.into()),
                    ..order(upstream.clone(), state)
                };
                stands(&order, None, HIDDEN)
                    .characters("status")
                    .unwrap_or_default()
                    .to_owned()
            };
            assert_eq!(remembers(paid(), "FAILED"), plain);
            assert_eq!(remembers(refused(), "SENDING"), "FAILED");
        }
        assert_eq!(
            status(&Destination::TransferBill, paid(), not_paid(), "FAIL"),
            "FAIL"
        );
    }

    #[test]
    fn the_record_answers_in_the_upstreams_place() {
        let told = |upstream, state| json::encode(&remembered(&order(upstream, state), HIDDEN));
        let head = r#"{"returnCode":"SUCCESS","resultCode":"SUCCESS","mchBillno":"A1","mchId":"19""#;
        assert_eq!(
            told(REDPACK, succeeded("{}")),
            format!(r#"{head},"status":"SENT","totalAmount":"100"}}"#)
        );
        assert_eq!(
            told(TRANSFER, succeeded("{}")),
            format!(
                r#"{head},"status":"SUCCESS","partnerTradeNo":"A1","appid":"wx1","openid":"user-1","paymentAmount":"100"}}"#
            )
        );
        assert_eq!(
            told(REDPACK, refused()),
            format!(r#"{head},"status":"FAILED","reason":"NOTENOUGH: 余额不足","totalAmount":"100"}}"#)
        );
        // Only the name of the number that a handler returned shows how it paid.
        assert!(
            told(at_handler(), succeeded(r#"{"paymentNo":"7"}"#)).contains("\"SUCCESS\",\"totalAmount\"")
        );
        assert!(told(at_handler(), succeeded(r#"{"sendListid":"7"}"#)).contains("\"SENT\""));
        let later = Order {
            upstream_status: Some("REFUND".into()),
            ..order(REDPACK, succeeded("{}"))
        };
        assert_eq!(
            remembered(&later, HIDDEN).characters("status"),
            Some("REFUND"),
            "the upstream's latest word wins"
        );
        for (state, code) in [(unknown(), "SYSTEMERROR"), (claimed(REDPACK).state, "PROCESSING")] {
            let told = remembered(&order(REDPACK, state), HIDDEN);
            assert_eq!(told.characters("errCode"), Some(code));
            assert_eq!(told.get("status"), None);
        }
    }

    #[test]
    fn a_bill_is_remembered_in_the_contracts_words_and_says_more_where_those_say_less() {
        let told = |upstream, status: Option<&str>| {
            let order = Order {
                upstream_status: status.map(Into::into),
                ..order(upstream, succeeded("{}"))
            };
            let told = remembered(&order, HIDDEN);
            let of = |name: &str| told.characters(name).map(str::to_owned);
            (of("status").unwrap(), of("reason"))
        };
        let bill = |status| told(Destination::TransferBill, status);
        assert_eq!(
            bill(None),
            ("PROCESSING".into(), None),
            "not paid before WeChat has said so"
        );
        assert_eq!(bill(Some("SUCCESS")), ("SUCCESS".into(), None));
        assert_eq!(
            bill(Some("CANCELLED")),
            ("FAILED".into(), Some("CANCELLED".into()))
        );
        assert_eq!(bill(Some("A_NEW_WORD")), ("A_NEW_WORD".into(), None));
        // The same status from another upstream passes through unchanged.
        assert_eq!(told(REDPACK, Some("CANCELLED")), ("CANCELLED".into(), None));
    }
}
