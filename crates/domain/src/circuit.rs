//! A circuit: after a few failures in a row nothing more is tried for a while, then one at a time, until one is answered.
//! So what is dead costs its callers a moment, and not a time-out each.
//!
//! Time is told by the caller as the time since any fixed moment, on a clock that never goes back.

use std::time::Duration;

/// How patient a circuit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// So many failures in a row open it.
    pub failures: u32,
    /// How long nothing is tried then; doubled each time.
    pub first_pause: Duration,
    /// How long at most.
    pub longest_pause: Duration,
}

/// How a circuit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Everything is tried.
    Closed,
    /// One is on trial; the others are turned away.
    OnTrial,
    /// Everything is turned away.
    Open,
}

/// What failed, and until when nothing is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Circuit {
    patience: Patience,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Duration, pause: Duration },
    OnTrial { until: Duration, pause: Duration },
}

impl Circuit {
    /// A closed circuit.
    #[must_use]
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            state: State::Closed { failures: 0 },
        }
    }

    /// Whether it is closed and nothing has failed since the last answer.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.state == State::Closed { failures: 0 }
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self.state {
            State::Closed { .. } => Standing::Closed,
            State::OnTrial { .. } => Standing::OnTrial,
            State::Open { .. } => Standing::Open,
        }
    }

    /// Asks whether to try. Whoever may try while the circuit is not closed is on trial, for as long as the last pause:
    /// a trial of which nothing is heard must not keep everybody out.
    ///
    /// # Errors
    /// When not, then after how long to ask again.
    pub fn may_try(&mut self, now: Duration) -> Result<(), Duration> {
        match self.state {
            State::Closed { .. } => Ok(()),
            State::Open { until, .. } | State::OnTrial { until, .. } if now < until => {
                Err(until.saturating_sub(now))
            }
            State::Open { pause, .. } | State::OnTrial { pause, .. } => {
                let until = now.saturating_add(pause);
                self.state = State::OnTrial { until, pause };
                Ok(())
            }
        }
    }

    /// There was an answer, whatever it said.
    pub fn answered(&mut self) {
        self.state = State::Closed { failures: 0 };
    }

    /// There was none. `chance` spreads the next trial over the second half of the pause, so that replicas do not try in
    /// step.
    pub fn failed(&mut self, now: Duration, chance: u64) {
        match self.state {
            State::Closed { failures } => {
                let failures = failures.saturating_add(1);
                if failures >= self.patience.failures {
                    self.open(now, self.patience.first_pause, chance);
                } else {
                    self.state = State::Closed { failures };
                }
            }
            State::OnTrial { pause, .. } => {
                let pause = std::cmp::min(pause.saturating_mul(2), self.patience.longest_pause);
                self.open(now, pause, chance);
            }
            // A straggler of before it was opened says nothing new.
            State::Open { .. } => {}
        }
    }

    /// It is certain that nothing would be answered now: opened without more failures.
    pub fn unreachable(&mut self, now: Duration, chance: u64) {
        if let State::Closed { .. } = self.state {
            self.open(now, self.patience.first_pause, chance);
        } else {
            self.failed(now, chance);
        }
    }

    fn open(&mut self, now: Duration, pause: Duration, chance: u64) {
        let half = pause.checked_div(2).unwrap_or_default();
        let spread = u64::try_from(half.as_micros()).unwrap_or(u64::MAX);
        let extra = chance.checked_rem(spread.saturating_add(1)).unwrap_or_default();
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
    /// Spreads nothing: the pause is its shortest, half.
    const NONE: u64 = 0;

    fn circuit() -> Circuit {
        Circuit::new(Patience {
            failures: 3,
            first_pause: 2 * S,
            longest_pause: 6 * S,
        })
    }

    fn opened() -> Circuit {
        let mut circuit = circuit();
        (0..3).for_each(|_| circuit.failed(10 * S, NONE));
        circuit
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_answer_forgets_them() {
        let mut circuit = circuit();
        for _ in 0..5 {
            circuit.failed(S, NONE);
            circuit.failed(S, NONE);
            assert_eq!(circuit.standing(), Standing::Closed);
            circuit.answered();
        }
        (0..3).for_each(|_| circuit.failed(S, NONE));
        assert_eq!(circuit.standing(), Standing::Open);
        assert_eq!(circuit.may_try(S), Err(S));
    }

    #[test]
    fn after_the_pause_one_is_on_trial_and_an_answer_closes_it() {
        let mut circuit = opened();
        assert_eq!(circuit.may_try(11 * S), Ok(()));
        assert_eq!(circuit.standing(), Standing::OnTrial);
        assert_eq!(circuit.may_try(11 * S), Err(2 * S), "one at a time");
        circuit.answered();
        assert_eq!(circuit.may_try(11 * S), Ok(()));
        assert_eq!(circuit.standing(), Standing::Closed);
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut circuit = opened();
        let mut now = 10 * S;
        for shortest in [S, 2 * S, 3 * S, 3 * S] {
            assert_eq!(circuit.may_try(now), Err(shortest));
            now += shortest;
            assert_eq!(circuit.may_try(now), Ok(()));
            circuit.failed(now, NONE);
        }
    }

    #[test]
    fn a_trial_of_which_nothing_is_heard_is_followed_by_another() {
        let mut circuit = opened();
        assert_eq!(circuit.may_try(11 * S), Ok(()));
        assert_eq!(circuit.may_try(13 * S), Ok(()));
    }

    #[test]
    fn stragglers_do_not_lengthen_the_pause() {
        let mut circuit = opened();
        circuit.failed(10 * S + S / 2, NONE);
        assert_eq!(circuit.may_try(11 * S), Ok(()));
    }

    #[test]
    fn what_is_unreachable_opens_it_at_once() {
        let mut circuit = circuit();
        circuit.unreachable(S, NONE);
        assert_eq!(circuit.standing(), Standing::Open);
    }

    #[test]
    fn chance_spreads_the_next_trial_over_half_the_pause() {
        for (chance, wait) in [(0, S), (500_000, S + S / 2), (1_000_000, 2 * S), (1_000_001, S)] {
            let mut circuit = circuit();
            circuit.unreachable(S, chance);
            assert_eq!(circuit.may_try(S), Err(wait), "{chance}");
        }
    }
}
