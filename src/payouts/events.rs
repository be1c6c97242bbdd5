//! [`PayoutChanged`], a change of a payout, and [`Observer`], which hears of each change. The audit log and the
//! metrics are observers.

use payout_domain::order::Order;

/// A change that the ledger has written.
#[derive(Clone, Copy, Debug)]
pub enum PayoutChanged<'a> {
    /// A new order was claimed.
    Claimed(&'a Order),
    /// The next version of an order replaced its record.
    Replaced {
        /// The version before.
        before: &'a Order,
        /// The version that is recorded now.
        after: &'a Order,
    },
    /// A first claim was removed because nothing was sent.
    TakenBack {
        /// The claim.
        order: &'a Order,
        /// Why nothing was sent.
        why: &'a str,
    },
}

/// Hears of every change. [`Payouts`](super::Payouts) calls it right after the store has taken a change, in the task
/// that made the change. It must not block.
pub trait Observer: Send + Sync + 'static {
    /// The ledger has changed.
    fn changed(&self, change: PayoutChanged<'_>);

    /// The ledger refused a claim because one of its charges would pass a limit. `order` is what the claim would have
    /// recorded.
    fn over_limit(&self, _order: &Order) {}
}
