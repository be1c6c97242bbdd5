//! A request's permit among those in flight: whoever works for the request holds a clone, and the permit is free again once
//! all of them are dropped. `server/layers/in_flight.rs` gives them out.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Notify, OwnedSemaphorePermit};

/// A place among the requests in flight; free again once every clone is dropped. Every admitted request carries its own as
/// an extension.
#[derive(Clone)]
pub struct InFlightPermit(Kind);

#[derive(Clone)]
enum Kind {
    /// A contract call's, which may go to a newer one.
    Call(Arc<Call>),
    /// Another request's, to its end.
    Other { _permit: Arc<OwnedSemaphorePermit> },
}

/// Leave for a contract call, and for the memory that it may take.
pub(crate) struct CallPermits {
    /// For the call.
    pub(crate) _request: OwnedSemaphorePermit,
    /// For its body.
    pub(crate) _memory: OwnedSemaphorePermit,
}

struct Call {
    holding: Mutex<Holding>,
    taken_away: Notify,
    waiting: Arc<Waiting>,
}

enum Holding {
    /// The request has not come whole, and a newer one may have the place.
    Lent(CallPermits),
    /// To the end.
    Kept { _permits: CallPermits },
    /// A newer one has it.
    Gone,
}

/// Those whose bodies are waited for, in the order in which they came.
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
        // Those that are gone are swept out when they are many.
        if line.len() == line.capacity() {
            line.retain(|one| one.strong_count() > 0);
        }
        line.push_back(Arc::downgrade(call));
    }

    /// Takes the place of the one that has waited for longest.
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
    /// A proxied request's, to its end.
    pub(crate) fn other(permit: OwnedSemaphorePermit) -> Self {
        Self(Kind::Other {
            _permit: Arc::new(permit),
        })
    }

    /// A contract call's, which a newer call may have until the request is whole.
    pub(crate) fn lent(permits: CallPermits, waiting: &Arc<Waiting>) -> Self {
        Self(Kind::Call(Arc::new(Call {
            holding: Mutex::new(Holding::Lent(permits)),
            taken_away: Notify::new(),
            waiting: Arc::clone(waiting),
        })))
    }

    /// Resolves when a newer request has the place. To be waited for only while the body does not come: from now on it can
    /// happen.
    pub async fn taken_away(&self) {
        match &self.0 {
            Kind::Call(call) => {
                call.waiting.join(call);
                call.taken_away.notified().await;
            }
            Kind::Other { .. } => std::future::pending().await,
        }
    }

    /// Keeps the place to the end, now that the request is whole. False: it is gone, and nothing may be done.
    #[must_use]
    pub fn keep(&self) -> bool {
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
