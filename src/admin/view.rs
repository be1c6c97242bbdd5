//! An order as operators see it: JSON, with people shortened and nothing that is sent to an upstream.
//! Document: specification, section 8.

use serde_json::{Value, json};

use crate::rules::order::{Order, State};
use crate::rules::term::Millis;

/// The order's JSON.
#[must_use]
pub fn view(order: &Order) -> Value {
    let history: Vec<Value> = order
        .history
        .iter()
        .map(|change| json!({ "at": moment(change.at), "state": change.state.as_str(), "why": change.why }))
        .collect();
    let (code, text, burnt) = match &order.state {
        State::Refused(refused) => (
            Some(&refused.refusal.code),
            Some(&refused.refusal.text),
            Some(refused.refusal.burnt),
        ),
        State::Pending(_) | State::Unknown(_) | State::Succeeded(_) => (None, None, None),
    };
    json!({
        "mchId": order.key.mch_id.as_str(),
        "mchBillno": order.key.order_no.as_str(),
        "state": order.state.name().as_str(),
        "upstreamStatus": order.upstream_status,
        "amount": order.amount.get(),
        "wxAppId": order.wx_app_id.as_str(),
        "userId": order.user_id.to_string(),
        "openid": order.openid.to_string(),
        "upstream": order.upstream,
        "attempts": order.attempts,
        "createdAt": moment(order.created_at),
        "settledAt": order.settled_at().map(moment),
        "errCode": code,
        "errCodeDes": text,
        "burnt": burnt,
        "history": history,
    })
}

/// RFC 3339, UTC, with milliseconds.
fn moment(at: Millis) -> String {
    jiff::Timestamp::from_millisecond(at.0)
        .map(|at| at.to_string())
        .unwrap_or_default()
}

/// Reads a moment: RFC 3339, or milliseconds since 1970.
#[must_use]
pub fn parse_moment(text: &str) -> Option<Millis> {
    let by_number = text.parse().ok().map(Millis);
    by_number.or_else(|| {
        text.parse::<jiff::Timestamp>()
            .ok()
            .map(|at| Millis(at.as_millisecond()))
    })
}
