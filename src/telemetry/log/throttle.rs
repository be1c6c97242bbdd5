//! Lets one log line of a kind through per pause, and counts those that it leaves out: a failure that happens a
//! thousand times a second is worth one line.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The throttle of one kind of line.
#[derive(Debug)]
pub(crate) struct Throttle {
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    told: Option<Instant>,
    left_out: u64,
}

impl Throttle {
    /// Lets one line through per `pause`.
    #[must_use]
    pub(crate) fn new(pause: Duration) -> Self {
        Self {
            pause,
            state: Mutex::default(),
        }
    }

    /// `Some` if a line may be written now, with the number of lines left out since the last one.
    pub(crate) fn may_tell(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.told.is_some_and(|told| told.elapsed() < self.pause) {
            state.left_out = state.left_out.saturating_add(1);
            return None;
        }
        state.told = Some(Instant::now());
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted() {
        let throttle = Throttle::new(Duration::from_secs(3600));
        let told: Vec<_> = (0..3).map(|_| throttle.may_tell()).collect();
        assert_eq!(told, [Some(0), None, None]);
        let throttle = Throttle::new(Duration::ZERO);
        assert_eq!((throttle.may_tell(), throttle.may_tell()), (Some(0), Some(0)));
    }
}
