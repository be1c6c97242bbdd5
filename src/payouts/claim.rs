//! The key that opens an attempt: proof that the order is recorded as pending, by this process, until a moment.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use payout_domain::order::{Order, State};

/// An order that this process has claimed. It cannot be copied, and only a successful insert or replacement makes one,
/// so that nothing is sent without a record.
#[derive(Debug)]
#[must_use = "a claim that is not used must be taken back"]
pub struct Claim {
    order: Order,
    /// Before the claim was written: others can have seen it only later.
    begun: Duration,
    lease: Duration,
}

impl Claim {
    /// Makes the claim of a record that the store has just taken, and that it was given at `begun` by the monotonic clock, or later. `None` where the
    /// record is not pending.
    pub(super) fn of(recorded: Order, begun: Duration) -> Option<Self> {
        match &recorded.state {
            State::Pending(pending) => Some(Self {
                begun,
                lease: pending.lease(),
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

    /// Tells, whenever it is asked, whether an attempt that takes at most `longest` and begins now ends before anybody else
    /// may take the lease for over. A process that was held up between claim and sending must not send: by then another one
    /// may have settled the order. Both clocks are asked, since a machine that was suspended stops its monotonic one.
    pub fn lease(
        &self,
        clock: &Arc<dyn Clock>,
        longest: Duration,
    ) -> impl Fn() -> bool + Clone + Send + use<> {
        let (begun, by_wall, lease) = (self.begun, self.order.attempted_at.wall, self.lease);
        let clock = Arc::clone(clock);
        move || {
            let passed = std::cmp::max(clock.passed().saturating_sub(begun), clock.now().since(by_wall));
            passed.saturating_add(longest) <= lease
        }
    }
}
