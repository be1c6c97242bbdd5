//! One audit line per change of a payout's state, under the log target `audit`. Document: specification, section 10.

use payout_domain::order::{Order, State};
use payout_domain::redact::shorten;

/// Says that the record of an order has changed to this. Called after the store has taken the change.
pub(super) fn changed(order: &Order) {
    let Some(change) = order.history.last() else {
        return;
    };
    let number_spent = matches!(&order.state, State::Refused(refused) if refused.refusal.number_spent);
    tracing::info!(
        target: "audit",
        mch_id = order.key.mch_id.as_str(),
        order_no = order.key.order_no.as_str(),
        state = order.state.name().as_str(),
        number_spent,
        amount_fen = order.amount.get(),
        wx_app_id = order.wx_app_id.as_str(),
        user_id = shorten(order.user_id.as_str()),
        openid = shorten(order.openid.as_str()),
        upstream = ?order.upstream,
        upstream_status = order.upstream_status,
        attempts = order.attempts,
        version = order.version.text(),
        why = change.why,
        "payout changed"
    );
}

/// Says that a first claim was taken back, since nothing was sent.
pub(super) fn taken_back(order: &Order, why: &str) {
    tracing::info!(
        target: "audit",
        mch_id = order.key.mch_id.as_str(),
        order_no = order.key.order_no.as_str(),
        state = "none",
        amount_fen = order.amount.get(),
        user_id = shorten(order.user_id.as_str()),
        why,
        "payout taken back"
    );
}

/// Says that an operator asked the upstream to take an order back; what came of it is told as a change.
pub(super) fn cancel_asked(order: &Order) {
    tracing::info!(
        target: "audit",
        mch_id = order.key.mch_id.as_str(),
        order_no = order.key.order_no.as_str(),
        state = order.state.name().as_str(),
        upstream_status = order.upstream_status,
        amount_fen = order.amount.get(),
        "an operator asked to cancel a payout"
    );
}

/// Of an order whose destination the configuration does not know any more.
pub(super) const STRANDED: &str =
    "no merchant entry leads to where this order was sent: restore it, or name it in formerly";

/// Says that an order contradicts itself: a person must look at it.
pub(super) fn alarm(order: &Order, what: &str) {
    tracing::error!(
        target: "audit",
        mch_id = order.key.mch_id.as_str(),
        order_no = order.key.order_no.as_str(),
        state = order.state.name().as_str(),
        amount_fen = order.amount.get(),
        what,
        "payout needs a person"
    );
}
