//! Circuits of what we depend on, shared by whoever uses it, with a clock and a name for the log and for `/metrics`.
//! The rules are `rules/breaker.rs`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::rng::{Rng as _, SystemRng};
use payout_domain::breaker::{self as domain, BreakerSettings, BreakerState};

/// The circuit of one upstream or store. Clones share it.
#[derive(Clone)]
pub struct Breaker {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    begun: Instant,
    state: Mutex<State>,
    /// Closed, and nothing has failed since: the way that nearly every request takes, without a lock.
    is_sound: AtomicBool,
}

struct State {
    breaker: domain::Breaker,
    /// What the latest failure was.
    why: String,
}

/// All circuits that are in use, for whoever shows how they stand. Clones share them.
#[derive(Clone, Default)]
pub struct Breakers {
    in_use: Arc<Mutex<Vec<Weak<Shared>>>>,
}

impl Breakers {
    /// A circuit that is shown under this name for as long as it is used.
    #[must_use]
    pub fn named(&self, name: impl Into<String>, settings: BreakerSettings) -> Breaker {
        let breaker = Breaker::new(name, settings);
        let mut in_use = self.in_use();
        in_use.retain(|other| other.strong_count() > 0);
        in_use.push(Arc::downgrade(&breaker.shared));
        breaker
    }

    /// How they stand, by name. Of two of one name (an old configuration's, still in use) the worse one counts.
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

/// 0 closed, 1 on trial, 2 open: the values of `payout_circuit_state`.
#[must_use]
pub fn severity(state: BreakerState) -> i64 {
    match state {
        BreakerState::Closed => 0,
        BreakerState::HalfOpen => 1,
        BreakerState::Open => 2,
    }
}

impl Breaker {
    /// A closed circuit that is in the log under this name.
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

    /// Asks whether to try.
    ///
    /// # Errors
    /// When not, then why, for the operator: nothing was sent.
    pub fn may_try(&self) -> Result<(), String> {
        if self.shared.is_sound.load(Ordering::Acquire) {
            return Ok(());
        }
        let now = self.shared.begun.elapsed();
        let mut state = self.shared.state();
        state.breaker.may_try(now).map_err(|wait| state.turned_away(wait))
    }

    /// Whether nothing is to be tried now, for one who has waited since it asked; then why.
    #[must_use]
    pub fn has_opened(&self) -> Option<String> {
        let state = self.shared.state();
        (state.breaker.state() == BreakerState::Open).then(|| state.turned_away(Duration::ZERO))
    }

    /// There was an answer.
    pub fn answered(&self) {
        if !self.shared.is_sound.load(Ordering::Acquire) {
            self.change(None, |breaker, _, _| breaker.answered());
        }
    }

    /// There was none, and why.
    pub fn failed(&self, why: &str) {
        self.change(Some(why), domain::Breaker::failed);
    }

    /// There can be none now, since it cannot even be connected, and why.
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
