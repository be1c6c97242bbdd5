//! The orderly end: told to stop, still taking calls while endpoints lag behind, then finishing what runs.
//! Document: specification, section 7, `lame_duck` and `drain_timeout`; ecosystem.md, section 1.3.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

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

    /// Resolves when a phase is reached. Each poll looks at the phase itself: the channel tells its receivers one after the
    /// other, and one that was told may have acted before the next one is.
    pub async fn reached(&self, phase: Phase) {
        let mut phases = self.phase.subscribe();
        // The sender lives as long as this handle, so that waiting cannot fail.
        let mut told = pin!(phases.wait_for(|now| *now >= phase));
        poll_fn(|cx| {
            if self.phase() >= phase {
                return Poll::Ready(());
            }
            told.as_mut().poll(cx).map(drop)
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    #[tokio::test]
    async fn phases_only_move_on() {
        let drain = Drain::default();
        drain.enter(Phase::Draining);
        drain.enter(Phase::LameDuck);
        assert_eq!(drain.phase(), Phase::Draining);
        drain.reached(Phase::LameDuck).await;
    }

    #[test]
    fn a_phase_is_seen_before_the_channel_has_told_of_it() {
        let drain = Drain::default();
        let mut reached = pin!(drain.reached(Phase::Draining));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(reached.as_mut().poll(&mut cx).is_pending());
        drain.phase.send_if_modified(|now| {
            *now = Phase::Draining;
            false
        });
        assert!(reached.as_mut().poll(&mut cx).is_ready());
    }
}
