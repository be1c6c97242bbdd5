//! Circuits of what we depend on, shared by whoever uses it, with a clock and a name for the log and for `/metrics`.
//! The rules are `rules/circuit.rs`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::chance::{Chance as _, SystemChance};
use payout_domain::circuit::{Circuit, Patience, Standing};

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
    circuit: Circuit,
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
    pub fn named(&self, name: impl Into<String>, patience: Patience) -> Breaker {
        let breaker = Breaker::new(name, patience);
        let mut in_use = self.in_use();
        in_use.retain(|other| other.strong_count() > 0);
        in_use.push(Arc::downgrade(&breaker.shared));
        breaker
    }

    /// How they stand, by name. Of two of one name (an old configuration's, still in use) the worse one counts.
    #[must_use]
    pub fn standings(&self) -> BTreeMap<String, Standing> {
        let mut standings = BTreeMap::new();
        for shared in self.in_use().iter().filter_map(Weak::upgrade) {
            let standing = shared.state().circuit.standing();
            let worst = standings.entry(shared.name.clone()).or_insert(standing);
            if severity(standing) > severity(*worst) {
                *worst = standing;
            }
        }
        standings
    }

    fn in_use(&self) -> MutexGuard<'_, Vec<Weak<Shared>>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 0 closed, 1 on trial, 2 open: the values of `payout_circuit_state`.
#[must_use]
pub fn severity(standing: Standing) -> i64 {
    match standing {
        Standing::Closed => 0,
        Standing::OnTrial => 1,
        Standing::Open => 2,
    }
}

impl Breaker {
    /// A closed circuit that is in the log under this name.
    #[must_use]
    pub fn new(name: impl Into<String>, patience: Patience) -> Self {
        Self {
            shared: Arc::new(Shared {
                name: name.into(),
                begun: Instant::now(),
                state: Mutex::new(State {
                    circuit: Circuit::new(patience),
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
        state.circuit.may_try(now).map_err(|wait| state.turned_away(wait))
    }

    /// Whether nothing is to be tried now, for one who has waited since it asked; then why.
    #[must_use]
    pub fn has_opened(&self) -> Option<String> {
        let state = self.shared.state();
        (state.circuit.standing() == Standing::Open).then(|| state.turned_away(Duration::ZERO))
    }

    /// There was an answer.
    pub fn answered(&self) {
        if !self.shared.is_sound.load(Ordering::Acquire) {
            self.change(None, |circuit, _, _| circuit.answered());
        }
    }

    /// There was none, and why.
    pub fn failed(&self, why: &str) {
        self.change(Some(why), Circuit::failed);
    }

    /// There can be none now, since it cannot even be connected, and why.
    pub fn unreachable(&self, why: &str) {
        self.change(Some(why), Circuit::unreachable);
    }

    fn change(&self, why: Option<&str>, change: impl FnOnce(&mut Circuit, Duration, u64)) {
        let chance = SystemChance.number();
        let mut state = self.shared.state();
        if let Some(why) = why {
            why.clone_into(&mut state.why);
        }
        let before = state.circuit.standing();
        change(&mut state.circuit, self.shared.begun.elapsed(), chance);
        let after = state.circuit.standing();
        self.shared
            .is_sound
            .store(state.circuit.is_sound(), Ordering::Release);
        drop(state);
        let name = &self.shared.name;
        match (before, after) {
            (Standing::Closed, Standing::Open) => {
                tracing::warn!(
                    circuit = name,
                    why,
                    "does not answer: it is tried only now and then"
                );
            }
            (Standing::Open | Standing::OnTrial, Standing::Closed) => {
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

    const PATIENCE: Patience = Patience {
        failures: 2,
        first_pause: Duration::from_secs(1),
        longest_pause: Duration::from_secs(8),
    };

    #[tokio::test(start_paused = true)]
    async fn it_opens_tries_again_and_closes() {
        let breaker = Breaker::new("a", PATIENCE);
        breaker.failed("it hangs");
        assert!(breaker.may_try().is_ok());
        breaker.failed("it hangs");
        let why = breaker.may_try().unwrap_err();
        assert!(why.ends_with("ms, since it hangs"), "{why}");
        tokio::time::sleep(PATIENCE.first_pause).await;
        assert!(breaker.may_try().is_ok());
        assert!(breaker.may_try().is_err());
        breaker.answered();
        breaker.failed("it hangs");
        assert!(breaker.may_try().is_ok(), "it has forgotten what was before");
    }

    #[test]
    fn those_in_use_are_shown_at_their_worst() {
        let breakers = Breakers::default();
        let (old, new) = (breakers.named("a", PATIENCE), breakers.named("a", PATIENCE));
        let other = breakers.named("b", PATIENCE);
        old.unreachable("it is gone");
        let shown = |standings: BTreeMap<String, Standing>| standings.into_iter().collect::<Vec<_>>();
        assert_eq!(
            shown(breakers.standings()),
            [("a".into(), Standing::Open), ("b".into(), Standing::Closed)]
        );
        drop((old, other));
        assert_eq!(shown(breakers.standings()), [("a".into(), Standing::Closed)]);
        drop(new);
    }
}
