//! The audit log, an observer: one line under the log target `audit` for each change of a payout's state, and one for
//! each order that needs a person.

use super::events::{Observer, PayoutChanged};
use crate::telemetry::log::AUDIT;
use payout_domain::order::{Destination, Order, State};
use payout_domain::redact::shorten;

/// Writes the audit log.
pub(crate) struct Audit;

impl Observer for Audit {
    fn changed(&self, change: PayoutChanged<'_>) {
        match change {
            PayoutChanged::Claimed(order) => changed(order),
            PayoutChanged::Replaced { before, after } => replaced(before, after),
            PayoutChanged::TakenBack { order, why } => taken_back(order, why),
        }
    }
}

/// Writes a line if the state or the upstream's status has changed, and an alarm if the change contradicts the
/// record.
fn replaced(before: &Order, after: &Order) {
    if before.state.name() == after.state.name() && before.upstream_status == after.upstream_status {
        return;
    }
    changed(after);
    match (&before.state, &after.state) {
        (State::Refused(_), State::Unknown(_)) => alarm(
            after,
            "an order that was recorded as refused may be paid: an attempt ended without an answer after it",
        ),
        (State::Refused(_), State::Succeeded(_)) => {
            alarm(
                after,
                "the upstream accepted an order that was recorded as refused",
            );
        }
        _ if ended_unpaid(before) && before.upstream_status != after.upstream_status => alarm(
            after,
            "the upstream paid a bill that had ended unpaid: its limits were given back",
        ),
        _ => {}
    }
}

/// Whether the record says that the upstream accepted this bill and later ended it without payment.
fn ended_unpaid(order: &Order) -> bool {
    order.upstream == Destination::TransferBill
        && matches!(order.state, State::Succeeded(_))
        && matches!(order.upstream_status.as_deref(), Some("FAIL" | "CANCELLED"))
}

fn changed(order: &Order) {
    let Some(change) = order.history.last() else {
        return;
    };
    let number_spent = matches!(&order.state, State::Refused(refused) if refused.refusal.number_spent);
    tracing::info!(
        target: AUDIT,
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

fn taken_back(order: &Order, why: &str) {
    tracing::info!(
        target: AUDIT,
        mch_id = order.key.mch_id.as_str(),
        order_no = order.key.order_no.as_str(),
        state = "none",
        amount_fen = order.amount.get(),
        user_id = shorten(order.user_id.as_str()),
        why,
        "payout taken back"
    );
}

/// Logs that an operator asked the upstream to cancel an order. The result follows as a change.
pub(super) fn cancel_asked(order: &Order) {
    tracing::info!(
        target: AUDIT,
        mch_id = order.key.mch_id.as_str(),
        order_no = order.key.order_no.as_str(),
        state = order.state.name().as_str(),
        upstream_status = order.upstream_status,
        amount_fen = order.amount.get(),
        "an operator asked to cancel a payout"
    );
}

/// The alarm for an order whose destination the configuration no longer knows.
pub(super) const STRANDED: &str =
    "no merchant entry leads to where this order was sent: restore it, or name it in formerly";

/// Raises an alarm: a person must look at this order.
pub(super) fn alarm(order: &Order, what: &str) {
    tracing::error!(
        target: AUDIT,
        mch_id = order.key.mch_id.as_str(),
        order_no = order.key.order_no.as_str(),
        state = order.state.name().as_str(),
        amount_fen = order.amount.get(),
        what,
        "payout needs a person"
    );
}
