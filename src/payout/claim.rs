//! The key that opens an attempt: proof that the order is recorded as pending, by this process, until a moment.

use crate::rules::order::{Order, State};
use crate::rules::term::Millis;

/// An order that this process has claimed. It cannot be copied, and only a successful insert or replacement makes one,
/// so that nothing is sent without a record.
#[derive(Debug)]
#[must_use = "a claim that is not used must be taken back"]
pub struct Claim {
    order: Order,
    lease_until: Millis,
}

impl Claim {
    /// Makes the claim of a record that the store has just taken. `None` where the record is not pending.
    pub(super) fn of(recorded: Order) -> Option<Self> {
        match &recorded.state {
            State::Pending(pending) => Some(Self {
                lease_until: pending.lease_until,
                order: recorded,
            }),
            State::Unknown(_) | State::Succeeded(_) | State::Refused(_) => None,
        }
    }

    /// Gives the claim up, and keeps what was claimed: its attempt is over.
    pub(super) fn into_order(self) -> Order {
        self.order
    }

    /// The order as it is recorded.
    #[must_use]
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// Whether an attempt that takes at most `longest` and begins at `now` ends before the lease does. A process that
    /// was held up between claim and sending must not send: by then another one may have settled the order.
    #[must_use]
    pub fn is_good_at(&self, now: Millis, longest: std::time::Duration) -> bool {
        now.after(longest) <= self.lease_until
    }
}
