//! Shows an order to operators as JSON: with shortened ids of people, and without anything that goes to an upstream.
//! See docs/operate.md.

use serde_json::{Value, json};

use payout_domain::ids::Millis;
use payout_domain::order::{Destination, Order, State};

/// The order as JSON.
#[must_use]
pub(crate) fn view(order: &Order) -> Value {
    let history: Vec<Value> = order
        .history
        .iter()
        .map(|change| json!({ "at": moment(change.at), "state": change.state.as_str(), "why": change.why }))
        .collect();
    let (code, text, number_spent) = match &order.state {
        State::Refused(refused) => (
            Some(&refused.refusal.code),
            Some(&refused.refusal.text),
            Some(refused.refusal.number_spent),
        ),
        State::Pending(_) | State::Unknown(_) | State::Succeeded(_) => (None, None, None),
    };
    let (upstream, handler_id) = destination(&order.upstream);
    json!({
        "mchId": order.key.mch_id.as_str(),
        "mchBillno": order.key.order_no.as_str(),
        "state": order.state.name().as_str(),
        "upstreamStatus": order.upstream_status,
        "amount": order.amount.get(),
        "wxAppId": order.wx_app_id.as_str(),
        "userId": order.user_id.to_string(),
        "openid": order.openid.to_string(),
        "upstream": upstream,
        "handlerId": handler_id,
        "attempts": order.attempts,
        "createdAt": moment(order.created_at.wall),
        "settledAt": order.settled_at().map(moment),
        "errCode": code,
        "errCodeDes": text,
        "numberSpent": number_spent,
        "history": history,
    })
}

/// The kind of upstream that the order was sent to (`{"wechat": product}`, `"transfer-bill"` or `"handler"`), and the
/// handler's id.
fn destination(destination: &Destination) -> (Value, Option<&str>) {
    match destination {
        Destination::Wechat(product) => (json!({ "wechat": product }), None),
        Destination::TransferBill => (json!("transfer-bill"), None),
        Destination::Handler(id) => (json!("handler"), Some(id.as_str())),
    }
}

/// RFC 3339 in UTC, always with three digits of milliseconds, so that texts sort like times.
fn moment(at: Millis) -> String {
    jiff::Timestamp::from_millisecond(at.0)
        .map(|at| format!("{at:.3}"))
        .unwrap_or_default()
}

/// Parses a time: RFC 3339, or milliseconds since 1970.
#[must_use]
pub(crate) fn parse_moment(text: &str) -> Option<Millis> {
    let by_number = text.parse().ok().map(Millis);
    by_number.or_else(|| {
        text.parse::<jiff::Timestamp>()
            .ok()
            .map(|at| Millis(at.as_millisecond()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_sort_as_texts_and_are_read_back() {
        let moments = [0, 1, 990, 995, 1_000, 1_795_478_400_120, 1_795_478_400_125];
        let texts: Vec<String> = moments.iter().map(|at| moment(Millis(*at))).collect();
        assert_eq!(texts[0], "1970-01-01T00:00:00.000Z");
        assert!(texts.is_sorted(), "{texts:?}");
        for (at, text) in moments.iter().zip(&texts) {
            assert_eq!(parse_moment(text), Some(Millis(*at)));
        }
    }
}
