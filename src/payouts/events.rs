//! What happens to payouts, as those who watch them are told: the audit log, the metrics.

use payout_domain::order::Order;

/// A change of the ledger that the store has taken.
#[derive(Clone, Copy, Debug)]
pub enum PayoutChanged<'a> {
    /// A new order was claimed.
    Claimed(&'a Order),
    /// The record of an order was replaced by its next version.
    Replaced {
        /// The version before.
        before: &'a Order,
        /// The version that is recorded now.
        after: &'a Order,
    },
    /// A first claim was removed, because nothing was sent.
    TakenBack {
        /// The claim.
        order: &'a Order,
        /// Why nothing was sent.
        why: &'a str,
    },
}

/// Watches what happens to payouts. [`Payouts`](super::Payouts) calls it right after the store has taken a change, in the task
/// that made the change; it must not wait.
pub trait Observer: Send + Sync + 'static {
    /// The ledger has changed.
    fn changed(&self, change: PayoutChanged<'_>);

    /// The ledger refused a claim, because one of its charges would pass a limit. `order` is the order as it would have been
    /// claimed.
    fn over_limit(&self, _order: &Order) {}
}
