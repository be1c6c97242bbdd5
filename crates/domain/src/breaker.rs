//! A circuit breaker: after some failures in a row it refuses all attempts for a while, then lets one through at a
//! time until one gets an answer. So a dead upstream costs its callers a moment and not a timeout each.
//!
//! The caller passes in the time, as the time since any fixed moment on a clock that never goes back.

use std::time::Duration;

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// This many failures in a row open it.
    pub failures: u32,
    /// How long it stays open at first; doubled after each failed trial.
    pub first_pause: Duration,
    /// The longest that it stays open.
    pub longest_pause: Duration,
}

/// A breaker's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Every attempt passes.
    Closed,
    /// One attempt is on trial; the breaker refuses the others.
    HalfOpen,
    /// The breaker refuses every attempt.
    Open,
}

/// A circuit breaker: its settings and its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    settings: BreakerSettings,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Duration, pause: Duration },
    HalfOpen { until: Duration, pause: Duration },
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(settings: BreakerSettings) -> Self {
        Self {
            settings,
            state: State::Closed { failures: 0 },
        }
    }

    /// Whether it is closed and nothing has failed since the last answer.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.state == State::Closed { failures: 0 }
    }

    /// The current state.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
            State::Open { .. } => BreakerState::Open,
        }
    }

    /// Asks whether to try. If the breaker is not closed, an attempt that may pass is the trial, for as long as the
    /// last pause: a trial whose result never arrives must not block all other attempts.
    ///
    /// # Errors
    /// If the attempt must not be made: after how long to ask again.
    pub fn may_try(&mut self, now: Duration) -> Result<(), Duration> {
        match self.state {
            State::Closed { .. } => Ok(()),
            State::Open { until, .. } | State::HalfOpen { until, .. } if now < until => {
                Err(until.saturating_sub(now))
            }
            State::Open { pause, .. } | State::HalfOpen { pause, .. } => {
                let until = now.saturating_add(pause);
                self.state = State::HalfOpen { until, pause };
                Ok(())
            }
        }
    }

    /// Records that there was an answer, whatever it said: closes the breaker.
    pub fn answered(&mut self) {
        self.state = State::Closed { failures: 0 };
    }

    /// Records that there was no answer. `random` spreads the next trial over the second half of the pause, so that
    /// replicas do not try at the same moment.
    pub fn failed(&mut self, now: Duration, random: u64) {
        match self.state {
            State::Closed { failures } => {
                let failures = failures.saturating_add(1);
                if failures >= self.settings.failures {
                    self.open(now, self.settings.first_pause, random);
                } else {
                    self.state = State::Closed { failures };
                }
            }
            State::HalfOpen { pause, .. } => {
                let pause = std::cmp::min(pause.saturating_mul(2), self.settings.longest_pause);
                self.open(now, pause, random);
            }
            // An attempt from before the breaker opened says nothing new.
            State::Open { .. } => {}
        }
    }

    /// Records that no attempt can get an answer now: opens without further failures.
    pub fn unreachable(&mut self, now: Duration, random: u64) {
        if let State::Closed { .. } = self.state {
            self.open(now, self.settings.first_pause, random);
        } else {
            self.failed(now, random);
        }
    }

    fn open(&mut self, now: Duration, pause: Duration, random: u64) {
        let half = pause.checked_div(2).unwrap_or_default();
        let spread = u64::try_from(half.as_micros()).unwrap_or(u64::MAX);
        let extra = random.checked_rem(spread.saturating_add(1)).unwrap_or_default();
        let until = now
            .saturating_add(pause.saturating_sub(half))
            .saturating_add(Duration::from_micros(extra));
        self.state = State::Open { until, pause };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    /// No spread: the pause is its shortest, half.
    const NONE: u64 = 0;

    fn breaker() -> Breaker {
        Breaker::new(BreakerSettings {
            failures: 3,
            first_pause: 2 * S,
            longest_pause: 6 * S,
        })
    }

    fn opened() -> Breaker {
        let mut breaker = breaker();
        (0..3).for_each(|_| breaker.failed(10 * S, NONE));
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_answer_forgets_them() {
        let mut breaker = breaker();
        for _ in 0..5 {
            breaker.failed(S, NONE);
            breaker.failed(S, NONE);
            assert_eq!(breaker.state(), BreakerState::Closed);
            breaker.answered();
        }
        (0..3).for_each(|_| breaker.failed(S, NONE));
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.may_try(S), Err(S));
    }

    #[test]
    fn after_the_pause_one_is_on_trial_and_an_answer_closes_it() {
        let mut breaker = opened();
        assert_eq!(breaker.may_try(11 * S), Ok(()));
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert_eq!(breaker.may_try(11 * S), Err(2 * S), "one at a time");
        breaker.answered();
        assert_eq!(breaker.may_try(11 * S), Ok(()));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut breaker = opened();
        let mut now = 10 * S;
        for shortest in [S, 2 * S, 3 * S, 3 * S] {
            assert_eq!(breaker.may_try(now), Err(shortest));
            now += shortest;
            assert_eq!(breaker.may_try(now), Ok(()));
            breaker.failed(now, NONE);
        }
    }

    #[test]
    fn a_trial_of_which_nothing_is_heard_is_followed_by_another() {
        let mut breaker = opened();
        assert_eq!(breaker.may_try(11 * S), Ok(()));
        assert_eq!(breaker.may_try(13 * S), Ok(()));
    }

    #[test]
    fn stragglers_do_not_lengthen_the_pause() {
        let mut breaker = opened();
        breaker.failed(10 * S + S / 2, NONE);
        assert_eq!(breaker.may_try(11 * S), Ok(()));
    }

    #[test]
    fn what_is_unreachable_opens_it_at_once() {
        let mut breaker = breaker();
        breaker.unreachable(S, NONE);
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[test]
    fn chance_spreads_the_next_trial_over_half_the_pause() {
        for (random, wait) in [(0, S), (500_000, S + S / 2), (1_000_000, 2 * S), (1_000_001, S)] {
            let mut breaker = breaker();
            breaker.unreachable(S, random);
            assert_eq!(breaker.may_try(S), Err(wait), "{random}");
        }
    }
}
