//! Answers to both requests, as fields in the contract's names. Document: specification, sections 2.3 and 2.4.

use crate::rules::contract::fault::{ErrCode, Fault};
use crate::rules::fields::Fields;
use crate::rules::order::{Order, State, UpstreamKind};
use crate::rules::outcome::Finding;
use crate::rules::term::OrderKey;
use crate::rules::wechat::Product;

/// `[answer]`: what the platform is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disclosure {
    /// Whether answers show the openid instead of the user id that the caller sent.
    pub reveal_openid: bool,
}

/// The request was not taken: malformed, or refused at the door. `order_no` as far as it could be read.
#[must_use]
pub fn not_taken(fault: &Fault, order_no: Option<&str>) -> Fields<'static> {
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

/// The request was taken and did not succeed.
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

/// What the record says of the order: the answer to a request that paid it, and to every repeat.
#[must_use]
pub fn recorded(order: &Order, disclosure: Disclosure) -> Fields<'static> {
    match &order.state {
        State::Succeeded(succeeded) => {
            let mut fields = succeeded_head(order, disclosure);
            copy_new(&mut fields, &succeeded.fields);
            fields
        }
        State::Refused(refused) => failed(&refused.refusal.code, &refused.refusal.text, &order.key),
        State::Pending(_) => failed_by(&Fault::processing(), &order.key),
        State::Unknown(_) => failed_by(&Fault::unknown(), &order.key),
    }
}

/// The request was taken and did not succeed, for one of the contract's own reasons.
#[must_use]
pub fn failed_by(fault: &Fault, key: &OrderKey) -> Fields<'static> {
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
        UpstreamKind::Wechat(Product::Transfer) => {
            fields.set("mchAppid", app);
            fields.set("mchid", mch_id());
            fields.set("partnerTradeNo", order_no());
        }
        UpstreamKind::Wechat(Product::Redpack | Product::MiniProgramRedpack) | UpstreamKind::Handler => {
            fields.set("mchId", mch_id());
            fields.set("wxappid", app);
            fields.set("reOpenid", person(order, disclosure));
            fields.set("totalAmount", order.amount.to_string());
        }
    }
    fields
}

/// The user id that the caller sent, or the openid where the customer wants it shown.
fn person(order: &Order, disclosure: Disclosure) -> String {
    if disclosure.reveal_openid {
        order.openid.as_str()
    } else {
        order.user_id.as_str()
    }
    .to_owned()
}

/// Adds the fields that are not there yet; all values in answers are strings.
fn copy_new(fields: &mut Fields<'static>, more: &Fields<'static>) {
    for (name, value) in more.iter() {
        if fields.get(name).is_none() && !value.is_blank() {
            let text = crate::rules::fields::Value::Text(value.characters().to_owned().into());
            // A name that is not there cannot be there twice, and a few dozen fields are not too many.
            let _added = fields.push(name.to_owned().into(), text).is_ok();
        }
    }
}

/// The answer to a status request, from what the upstream said; `order` is the record, where there is one.
#[must_use]
pub fn reported(
    key: &OrderKey,
    finding: &Finding,
    order: Option<&Order>,
    disclosure: Disclosure,
) -> Fields<'static> {
    let mut fields = status_head(key);
    if let Some(status) = &finding.status {
        fields.set("status", status.clone());
    }
    let mut report = finding.report.clone();
    let upstreams_person = report.take("openid");
    match (order, upstreams_person) {
        (Some(order), Some(_)) => report.set("openid", person(order, disclosure)),
        // Without a record the user id is not known, and the openid is the customer's own business.
        (None, Some(openid)) if disclosure.reveal_openid => {
            report.set("openid", openid.characters().to_owned())
        }
        (None, Some(_)) | (_, None) => {}
    }
    copy_new(&mut fields, &report);
    fields
}

/// The answer to a status request from the record alone, where the upstream is out of reach.
#[must_use]
pub fn remembered(order: &Order, disclosure: Disclosure) -> Fields<'static> {
    let (status, reason) = match &order.state {
        State::Pending(_) => return failed_by(&Fault::processing(), &order.key),
        State::Unknown(_) => return failed_by(&Fault::unknown(), &order.key),
        State::Succeeded(succeeded) => {
            let transfer = matches!(order.upstream, UpstreamKind::Wechat(Product::Transfer))
                || succeeded.fields.characters("paymentNo").is_some();
            (if transfer { "SUCCESS" } else { "SENT" }, None)
        }
        State::Refused(refused) => (
            "FAILED",
            Some(format!("{}: {}", refused.refusal.code, refused.refusal.text)),
        ),
    };
    let mut fields = status_head(&order.key);
    fields.set(
        "status",
        order.upstream_status.clone().unwrap_or_else(|| status.to_owned()),
    );
    if let Some(reason) = reason {
        fields.set("reason", reason);
    }
    if matches!(order.upstream, UpstreamKind::Wechat(Product::Transfer)) {
        fields.set("partnerTradeNo", order.key.order_no.as_str().to_owned());
        fields.set("appid", order.wx_app_id.as_str().to_owned());
        fields.set("openid", person(order, disclosure));
        fields.set("paymentAmount", order.amount.to_string());
    } else {
        fields.set("totalAmount", order.amount.to_string());
    }
    fields
}

fn status_head(key: &OrderKey) -> Fields<'static> {
    let mut fields = Fields::with_capacity(16);
    fields.set("returnCode", "SUCCESS");
    fields.set("resultCode", "SUCCESS");
    fields.set("mchBillno", key.order_no.as_str().to_owned());
    fields.set("mchId", key.mch_id.as_str().to_owned());
    fields
}

/// The answer to a status request about an order nobody has seen.
#[must_use]
pub fn not_found(key: &OrderKey) -> Fields<'static> {
    failed_by(
        &Fault::new(ErrCode::NotFound, "订单不存在: nobody has seen this mchBillno"),
        key,
    )
}
