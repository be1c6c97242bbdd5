//! Circuit breakers for upstreams and stores: the rules of [`payout_domain::breaker`] with a clock, a lock, and a name
//! for the log and for `/metrics`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::rng::{Rng as _, SystemRng};
use payout_domain::breaker::{self as domain, BreakerSettings, BreakerState};

/// The circuit breaker of one upstream or store. Clones share its state.
#[derive(Clone)]
pub struct Breaker {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    begun: Instant,
    state: Mutex<State>,
    /// Closed, and no failure since the last answer. Nearly every request reads only this flag and takes no lock.
    is_sound: AtomicBool,
}

struct State {
    breaker: domain::Breaker,
    /// The reason of the latest failure.
    why: String,
}

/// All circuit breakers in use, so that `/metrics` and others can show their states. Clones share the list.
#[derive(Clone, Default)]
pub struct Breakers {
    in_use: Arc<Mutex<Vec<Weak<Shared>>>>,
}

impl Breakers {
    /// Makes a breaker and lists it under this name until its last clone is dropped.
    #[must_use]
    pub fn named(&self, name: impl Into<String>, settings: BreakerSettings) -> Breaker {
        let breaker = Breaker::new(name, settings);
        let mut in_use = self.in_use();
        in_use.retain(|other| other.strong_count() > 0);
        in_use.push(Arc::downgrade(&breaker.shared));
        breaker
    }

    /// The state of each breaker, by name. Where two have one name (one of an old configuration is still in use), the
    /// worse state counts.
    #[must_use]
    pub fn states(&self) -> BTreeMap<String, BreakerState> {
        let mut states = BTreeMap::new();
        for shared in self.in_use().iter().filter_map(Weak::upgrade) {
            let state = shared.state().breaker.state();
            let worst = states.entry(shared.name.clone()).or_insert(state);
            if severity(state) > severity(*worst) {
                *worst = state;
            }
        }
        states
    }

    fn in_use(&self) -> MutexGuard<'_, Vec<Weak<Shared>>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The value of `payout_circuit_state`: 0 closed, 1 half-open, 2 open.
#[must_use]
pub(crate) fn severity(state: BreakerState) -> i64 {
    match state {
        BreakerState::Closed => 0,
        BreakerState::HalfOpen => 1,
        BreakerState::Open => 2,
    }
}

impl Breaker {
    /// A closed breaker that the log shows under this name.
    #[must_use]
    pub fn new(name: impl Into<String>, settings: BreakerSettings) -> Self {
        Self {
            shared: Arc::new(Shared {
                name: name.into(),
                begun: Instant::now(),
                state: Mutex::new(State {
                    breaker: domain::Breaker::new(settings),
                    why: String::new(),
                }),
                is_sound: AtomicBool::new(true),
            }),
        }
    }

    /// Asks whether the caller may send.
    ///
    /// # Errors
    /// When the breaker refuses, the reason for the operator. The caller must not send.
    pub fn may_try(&self) -> Result<(), String> {
        if self.shared.is_sound.load(Ordering::Acquire) {
            return Ok(());
        }
        let now = self.shared.begun.elapsed();
        let mut state = self.shared.state();
        state.breaker.may_try(now).map_err(|wait| state.turned_away(wait))
    }

    /// The reason, if the breaker is open now: a caller that has waited since [`Breaker::may_try`] asks again with
    /// this.
    #[must_use]
    pub fn has_opened(&self) -> Option<String> {
        let state = self.shared.state();
        (state.breaker.state() == BreakerState::Open).then(|| state.turned_away(Duration::ZERO))
    }

    /// The upstream or store answered.
    pub fn answered(&self) {
        if !self.shared.is_sound.load(Ordering::Acquire) {
            self.change(None, |breaker, _, _| breaker.answered());
        }
    }

    /// It did not answer. `why` is shown to the operator.
    pub fn failed(&self, why: &str) {
        self.change(Some(why), domain::Breaker::failed);
    }

    /// It cannot be reached at all, so the breaker opens at once. `why` is shown to the operator.
    pub fn unreachable(&self, why: &str) {
        self.change(Some(why), domain::Breaker::unreachable);
    }

    fn change(&self, why: Option<&str>, change: impl FnOnce(&mut domain::Breaker, Duration, u64)) {
        let random = SystemRng.next_u64();
        let mut state = self.shared.state();
        if let Some(why) = why {
            why.clone_into(&mut state.why);
        }
        let before = state.breaker.state();
        change(&mut state.breaker, self.shared.begun.elapsed(), random);
        let after = state.breaker.state();
        self.shared
            .is_sound
            .store(state.breaker.is_sound(), Ordering::Release);
        drop(state);
        let name = &self.shared.name;
        match (before, after) {
            (BreakerState::Closed, BreakerState::Open) => {
                tracing::warn!(
                    circuit = name,
                    why,
                    "does not answer: it is tried only now and then"
                );
            }
            (BreakerState::Open | BreakerState::HalfOpen, BreakerState::Closed) => {
                tracing::info!(circuit = name, "answers again");
            }
            (_, _) => {}
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn turned_away(&self, wait: Duration) -> String {
        format!(
            "not tried for another {} ms, since {}",
            wait.as_millis(),
            self.why
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BREAKER: BreakerSettings = BreakerSettings {
        failures: 2,
        first_pause: Duration::from_secs(1),
        longest_pause: Duration::from_secs(8),
    };

    #[tokio::test(start_paused = true)]
    async fn it_opens_tries_again_and_closes() {
        let breaker = Breaker::new("a", BREAKER);
        breaker.failed("it hangs");
        assert!(breaker.may_try().is_ok());
        breaker.failed("it hangs");
        let why = breaker.may_try().unwrap_err();
        assert!(why.ends_with("ms, since it hangs"), "{why}");
        tokio::time::sleep(BREAKER.first_pause).await;
        assert!(breaker.may_try().is_ok());
        assert!(breaker.may_try().is_err());
        breaker.answered();
        breaker.failed("it hangs");
        assert!(breaker.may_try().is_ok(), "it has forgotten what was before");
    }

    #[test]
    fn those_in_use_are_shown_at_their_worst() {
        let breakers = Breakers::default();
        let (old, new) = (breakers.named("a", BREAKER), breakers.named("a", BREAKER));
        let other = breakers.named("b", BREAKER);
        old.unreachable("it is gone");
        let shown = |states: BTreeMap<String, BreakerState>| states.into_iter().collect::<Vec<_>>();
        assert_eq!(
            shown(breakers.states()),
            [
                ("a".into(), BreakerState::Open),
                ("b".into(), BreakerState::Closed)
            ]
        );
        drop((old, other));
        assert_eq!(shown(breakers.states()), [("a".into(), BreakerState::Closed)]);
        drop(new);
    }
}
