//! The phases of a shutdown. After SIGTERM the process still takes calls while load balancers catch up (`lame_duck`),
//! then it finishes what runs (`drain_timeout`); `docs/operate.md` describes both settings.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::watch;

/// The phases of the process, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Serving.
    Serving,
    /// `/readyz` responds 503, but the process still takes calls.
    LameDuck,
    /// The process takes no new connections and finishes what runs.
    Draining,
}

/// Announces the phase to all tasks. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Drain {
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
    /// Enters a phase. Never goes back to an earlier one.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let later = phase > *now;
            if later {
                *now = phase;
            }
            later
        });
    }

    /// The current phase.
    #[must_use]
    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Resolves when a phase is reached. Each poll reads the phase itself: the channel wakes its receivers one after
    /// the other, and one that was woken may have acted before the next one is.
    pub(crate) async fn reached(&self, phase: Phase) {
        let mut phases = self.phase.subscribe();
        // The sender lives as long as this handle, so waiting cannot fail.
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
