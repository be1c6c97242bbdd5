//! [`Claim`]: proof that this process has recorded an order as pending, and until when it may send the order. An
//! attempt needs one. Not here: writing the claim (`apply`), and when others may treat it as lost (`watch`).

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use payout_domain::order::{Order, State};

/// An order that this process has claimed. It cannot be copied, and only a successful insert or replacement makes
/// one. So the sidecar sends nothing without a record.
#[derive(Debug)]
#[must_use = "a claim that is not used must be taken back"]
pub struct Claim {
    order: Order,
    /// The monotonic time before the claim was written: other processes can have seen the claim only later.
    begun: Duration,
    lease: Duration,
}

impl Claim {
    /// Makes the claim of a record that the store has just taken. `begun` is the monotonic time before the write
    /// began. `None` if the record is not pending.
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

    /// Ends the claim after its attempt, and returns the order that was claimed.
    pub(super) fn into_order(self) -> Order {
        self.order
    }

    /// The order as recorded.
    #[must_use]
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// A check for the moment of sending: whether an attempt that begins now and takes at most `longest` ends before
    /// any other process may treat the lease as over. A process that was held up between claim and sending must not
    /// send: another one may have settled the order by then. The check takes whichever clock has run further, since
    /// the monotonic clock of a suspended machine stops.
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
