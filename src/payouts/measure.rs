//! The metrics as an observer: counts payouts by outcome, and claims that a limit refused.

use super::events::{Observer, PayoutChanged};
use crate::telemetry::metrics::payouts::PayoutMetrics;
use payout_domain::order::Order;

impl Observer for PayoutMetrics {
    fn changed(&self, change: PayoutChanged<'_>) {
        match change {
            PayoutChanged::Claimed(order) => self.recorded(None, order),
            PayoutChanged::Replaced { before, after } => self.recorded(Some(before.state.name()), after),
            PayoutChanged::TakenBack { .. } => {}
        }
    }

    fn over_limit(&self, order: &Order) {
        self.refused_for_a_limit(order);
    }
}
