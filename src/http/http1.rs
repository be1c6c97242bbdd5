//! What the reader of an HTTP/1 connection and those who answer its requests tell each other.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use bytes::Bytes;
use http::StatusCode;

use crate::http::framing_error::FramingError;

/// The most bytes of interim responses that wait to be written; a backend that says more is not heard.
const MAX_INTERIM: usize = 16 * 1024;

/// How far the request at hand has come: what the reader of a connection's bytes and those who answer its requests tell each
/// other. One for each HTTP/1 connection; its requests carry it as an extension. Clones are of the same connection.
#[derive(Clone, Default)]
pub struct Http1Exchange(Arc<Mutex<Shared>>);

#[derive(Default)]
struct Shared {
    stage: Stage,
    is_of_server: bool,
    has_extensions: bool,
    fault: Option<FramingError>,
    interim: VecDeque<Bytes>,
    /// Waits for the answer, with bytes at hand that follow the request.
    reader: Option<Waker>,
    /// The connection's task.
    task: Option<Waker>,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    #[default]
    /// It is being read.
    Read,
    /// The service has it.
    Called,
    /// Its answer is being written.
    Answered,
    /// The connection is none of HTTP any more.
    Switched,
}

impl Http1Exchange {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far it has come.
    pub(crate) fn stage(&self) -> Stage {
        self.shared().stage
    }

    /// The next request is read.
    pub(crate) fn begin(&self) {
        let mut shared = self.shared();
        shared.stage = Stage::Read;
        (shared.is_of_server, shared.has_extensions) = (false, false);
        shared.interim.clear();
    }

    /// The request is given to the service.
    pub(crate) fn call(&self) {
        self.shared().stage = Stage::Called;
    }

    /// What was read of the request so far.
    pub(crate) fn note(&self, is_of_server: bool, has_extensions: bool) {
        let mut shared = self.shared();
        (shared.is_of_server, shared.has_extensions) = (is_of_server, has_extensions);
    }

    /// The request cannot be served, and why.
    pub(crate) fn fail(&self, fault: FramingError) {
        self.shared().fault = Some(fault);
    }

    /// Why the request cannot be served.
    pub(crate) fn fault(&self) -> Option<FramingError> {
        self.shared().fault
    }

    /// Has the reader's task woken when the request is answered.
    pub(crate) fn wait_for_answer(&self, cx: &Context<'_>) {
        self.shared().reader = Some(cx.waker().clone());
    }

    /// The next interim response that waits to be written.
    pub(crate) fn next_interim(&self) -> Option<Bytes> {
        self.shared().interim.pop_front()
    }

    /// The answer is about to be written.
    pub(crate) fn answered(&self, status: StatusCode) {
        let mut shared = self.shared();
        shared.stage = match status {
            StatusCode::SWITCHING_PROTOCOLS => Stage::Switched,
            _ => Stage::Answered,
        };
        if let Some(reader) = shared.reader.take() {
            reader.wake();
        }
    }

    /// Learns which task is to be woken by an interim response.
    pub(crate) fn is_answered_in(&self, cx: &Context<'_>) {
        let task = &mut self.shared().task;
        // It is the same one from a connection's beginning to its end.
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
    }

    /// Whether the request asks about the server, by a target that names a host and no path.
    #[must_use]
    pub fn is_of_server(&self) -> bool {
        self.shared().is_of_server
    }

    /// Whether a chunk of the request had an extension, as far as it has been read. They are legal and mean nothing;
    /// readers have differed about where they end.
    #[must_use]
    pub fn has_chunk_extensions(&self) -> bool {
        self.shared().has_extensions
    }

    /// Writes a whole head of an answer before the answer, unless the answer itself has begun or too many wait already.
    /// Source: RFC 9110, section 15.2.
    pub fn send_interim(&self, head: Bytes) {
        let mut shared = self.shared();
        let waiting: usize = shared.interim.iter().map(Bytes::len).sum();
        if shared.stage != Stage::Called || waiting.saturating_add(head.len()) > MAX_INTERIM {
            tracing::debug!("an answer before the answer came too late, or was one too many");
            return;
        }
        shared.interim.push_back(head);
        if let Some(task) = &shared.task {
            task.wake_by_ref();
        }
    }
}
