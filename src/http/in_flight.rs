//! A request's permit. Everything that works for the request holds a clone, and the permit is free once all clones are
//! dropped. `server/layers/in_flight.rs` hands permits out.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Notify, OwnedSemaphorePermit};

/// A request's permit among those in flight. It is free once every clone is dropped. Every admitted request carries its
/// own as an extension.
#[derive(Clone)]
pub(crate) struct InFlightPermit(Kind);

#[derive(Clone)]
enum Kind {
    /// Of a contract call, which may lose it to a newer call.
    Call(Arc<Call>),
    /// Of another request, which keeps it to its end.
    Other { _permit: Arc<OwnedSemaphorePermit> },
}

/// The semaphore permits of a contract call.
pub(crate) struct CallPermits {
    /// For the call itself.
    pub(crate) _request: OwnedSemaphorePermit,
    /// For the memory of its body.
    pub(crate) _memory: OwnedSemaphorePermit,
}

struct Call {
    holding: Mutex<Holding>,
    taken_away: Notify,
    waiting: Arc<Waiting>,
}

enum Holding {
    /// The request is incomplete, and a newer one may take the permits.
    Lent(CallPermits),
    /// The request keeps them to its end.
    Kept { _permits: CallPermits },
    /// A newer request took them.
    Gone,
}

/// The calls whose bodies have not arrived yet, oldest first.
#[derive(Default)]
pub(crate) struct Waiting {
    line: Mutex<VecDeque<Weak<Call>>>,
}

impl Waiting {
    fn line(&self) -> MutexGuard<'_, VecDeque<Weak<Call>>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, call: &Arc<Call>) {
        let mut line = self.line();
        // Sweep out dead calls before the queue grows.
        if line.len() == line.capacity() {
            line.retain(|one| one.strong_count() > 0);
        }
        line.push_back(Arc::downgrade(call));
    }

    /// Takes the permits of the call that has waited longest.
    pub(crate) fn take_oldest(&self) -> Option<CallPermits> {
        let mut line = self.line();
        std::iter::from_fn(|| line.pop_front()).find_map(|call| call.upgrade()?.take_away())
    }
}

impl Call {
    fn holding(&self) -> MutexGuard<'_, Holding> {
        self.holding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_away(&self) -> Option<CallPermits> {
        let mut holding = self.holding();
        match std::mem::replace(&mut *holding, Holding::Gone) {
            Holding::Lent(permits) => {
                self.taken_away.notify_one();
                Some(permits)
            }
            other @ (Holding::Kept { .. } | Holding::Gone) => {
                *holding = other;
                None
            }
        }
    }
}

impl InFlightPermit {
    /// The permit of a proxied request, which keeps it to its end.
    pub(crate) fn other(permit: OwnedSemaphorePermit) -> Self {
        Self(Kind::Other {
            _permit: Arc::new(permit),
        })
    }

    /// The permit of a contract call. A newer call may take it until the request is complete.
    pub(crate) fn lent(permits: CallPermits, waiting: &Arc<Waiting>) -> Self {
        Self(Kind::Call(Arc::new(Call {
            holding: Mutex::new(Holding::Lent(permits)),
            taken_away: Notify::new(),
            waiting: Arc::clone(waiting),
        })))
    }

    /// Resolves when a newer request has taken the permit, which it can do only from this call on. Await it only while
    /// the body is incomplete.
    pub(crate) async fn taken_away(&self) {
        match &self.0 {
            Kind::Call(call) => {
                call.waiting.join(call);
                call.taken_away.notified().await;
            }
            Kind::Other { .. } => std::future::pending().await,
        }
    }

    /// Keeps the permit to the end, now that the request is complete. False means that the permit is gone, and the
    /// caller must do nothing.
    #[must_use]
    pub(crate) fn keep(&self) -> bool {
        let Kind::Call(call) = &self.0 else { return true };
        let mut holding = call.holding();
        match std::mem::replace(&mut *holding, Holding::Gone) {
            Holding::Lent(permits) | Holding::Kept { _permits: permits } => {
                *holding = Holding::Kept { _permits: permits };
                true
            }
            Holding::Gone => false,
        }
    }
}
