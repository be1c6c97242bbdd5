//! The ledger's own time as one process knows it: the time that the store holds, and what has passed since by the
//! process's monotonic clock. See [`LedgerTime`].
//!
//! Each process tells the store from time to time how late it believes it is, and the store keeps the latest time. So
//! the ledger's time runs as long as any process has the ledger open, never faster than real time, whatever the wall
//! clocks do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use payout_domain::ids::LedgerTime;

/// How far a process may be ahead of the store. If it is further ahead, it could not reach the store for a while:
/// other processes, which began from what the store holds, do not know of that time.
const ALONE_AT_MOST: Duration = Duration::from_secs(30);

/// The ledger's time as one process knows it.
pub struct Timekeeper {
    clock: Arc<dyn Clock>,
    anchor: Mutex<Option<Anchor>>,
}

#[derive(Clone, Copy)]
struct Anchor {
    time: LedgerTime,
    /// The process's monotonic time at that moment.
    at: Duration,
}

impl Anchor {
    fn at(self, passed: Duration) -> LedgerTime {
        self.time.after(passed.saturating_sub(self.at))
    }
}

impl Timekeeper {
    /// For a process with this clock that has not heard from the store yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            anchor: Mutex::default(),
        }
    }

    /// The time now; zero if the store has not been heard yet.
    #[must_use]
    pub fn now(&self) -> LedgerTime {
        let passed = self.clock.passed();
        self.anchor()
            .map_or_else(LedgerTime::default, |anchor| anchor.at(passed))
    }

    /// Takes the time that the store holds. Returns the time for the store to keep.
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
