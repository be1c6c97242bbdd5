//! The orderly end: told to stop, still taking calls while endpoints lag behind, then finishing what runs.
//! Document: specification, section 7, `lame_duck` and `drain_timeout`; ecosystem.md, section 1.3.

use std::sync::Arc;

use tokio::sync::watch;

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Serving,
    /// `/readyz` says 503, calls are still taken.
    LameDuck,
    /// No new connections; what runs is finished.
    Draining,
}

/// Tells everybody how far the end has come. Cheap to clone.
#[derive(Clone)]
pub struct Drain {
    phase: Arc<watch::Sender<Phase>>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            phase: Arc::new(watch::channel(Phase::Serving).0),
        }
    }
}

impl Drain {
    /// Moves on to a phase; never back.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let later = phase > *now;
            if later {
                *now = phase;
            }
            later
        });
    }

    /// How far it has come.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Resolves when a phase is reached.
    pub async fn reached(&self, phase: Phase) {
        let mut phases = self.phase.subscribe();
        // The sender lives as long as this handle, so that waiting cannot fail.
        let _reached = phases.wait_for(|now| *now >= phase).await.is_ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_only_move_on() {
        let drain = Drain::default();
        drain.enter(Phase::Draining);
        drain.enter(Phase::LameDuck);
        assert_eq!(drain.phase(), Phase::Draining);
        drain.reached(Phase::LameDuck).await;
    }
}
