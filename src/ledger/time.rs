//! The ledger's own time as one process knows it: what the store holds of it, and what has passed since by the process's
//! monotonic clock. See [`LedgerTime`].
//!
//! Each process says from time to time how late it believes it is, and the store keeps the latest word. So the time goes on as
//! long as anybody has the ledger open, never faster than time does, and whatever the wall clocks do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use payout_domain::ids::LedgerTime;

/// What a process may have seen pass alone. What was more, it saw while it could not reach the store: time that others, who
/// began from what the store holds, do not know of.
const ALONE_AT_MOST: Duration = Duration::from_secs(30);

/// One process's idea of the ledger's time.
pub struct Timekeeper {
    clock: Arc<dyn Clock>,
    anchor: Mutex<Option<Anchor>>,
}

#[derive(Clone, Copy)]
struct Anchor {
    time: LedgerTime,
    /// What had passed by the process's clock then.
    at: Duration,
}

impl Anchor {
    fn at(self, passed: Duration) -> LedgerTime {
        self.time.after(passed.saturating_sub(self.at))
    }
}

impl Timekeeper {
    /// Of a process with this clock, which has not heard the store yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            anchor: Mutex::default(),
        }
    }

    /// The time now; the beginning of time where the store was not heard yet.
    #[must_use]
    pub fn now(&self) -> LedgerTime {
        let passed = self.clock.passed();
        self.anchor()
            .map_or_else(LedgerTime::default, |anchor| anchor.at(passed))
    }

    /// The store says that it is so late. Returns how late it is, for the store to keep.
    pub fn heard(&self, stored: LedgerTime) -> LedgerTime {
        let passed = self.clock.passed();
        let mut anchor = self.anchor();
        let kept = anchor.filter(|anchor| {
            let now = anchor.at(passed);
            now >= stored && now.since(stored) <= ALONE_AT_MOST
        });
        let kept = kept.unwrap_or(Anchor {
            time: stored,
            at: passed,
        });
        anchor.insert(kept).at(passed)
    }

    fn anchor(&self) -> MutexGuard<'_, Option<Anchor>> {
        self.anchor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_followed_forwards_and_back_to_what_others_can_know() {
        let keeper = Timekeeper::new(Arc::new(crate::clock::SystemClock));
        assert_eq!(keeper.now(), LedgerTime(0));
        let near = |time: LedgerTime, ms: i64| (ms..ms + 5_000).contains(&time.0);
        assert!(near(keeper.heard(LedgerTime(1_000_000)), 1_000_000));
        assert!(
            near(keeper.heard(LedgerTime(999_000)), 1_000_000),
            "a little behind: ours is kept"
        );
        assert!(
            near(keeper.heard(LedgerTime(2_000_000)), 2_000_000),
            "others have lived longer"
        );
        assert!(
            near(keeper.heard(LedgerTime(1_900_000)), 1_900_000),
            "what we alone believe does not count"
        );
        assert!(near(keeper.now(), 1_900_000));
    }
}
