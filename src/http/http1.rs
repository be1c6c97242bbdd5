//! The state that the reader of an HTTP/1 connection and the code that answers its requests share.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use bytes::Bytes;
use http::StatusCode;

use crate::http::framing_error::FramingError;

/// The most bytes of interim responses that wait to be written. More of them are dropped.
const MAX_INTERIM: usize = 16 * 1024;

/// The state of the current request. One for each HTTP/1 connection; its requests carry it as an extension. Clones
/// refer to the same connection.
#[derive(Clone, Default)]
pub(crate) struct Http1Exchange(Arc<Mutex<Shared>>);

#[derive(Default)]
struct Shared {
    stage: Stage,
    is_of_server: bool,
    has_extensions: bool,
    fault: Option<FramingError>,
    interim: VecDeque<Bytes>,
    /// The reader's task, which waits for the response because it already has bytes after the request.
    reader: Option<Waker>,
    /// The connection's task.
    task: Option<Waker>,
}

/// The state of the current request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    #[default]
    /// The reader is reading it.
    Read,
    /// The service has it.
    Called,
    /// Its response is being written.
    Answered,
    /// The connection no longer carries HTTP.
    Switched,
}

impl Http1Exchange {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of the current request.
    pub(crate) fn stage(&self) -> Stage {
        self.shared().stage
    }

    /// Starts the next request.
    pub(crate) fn begin(&self) {
        let mut shared = self.shared();
        shared.stage = Stage::Read;
        (shared.is_of_server, shared.has_extensions) = (false, false);
        shared.interim.clear();
    }

    /// The service gets the request.
    pub(crate) fn call(&self) {
        self.shared().stage = Stage::Called;
    }

    /// Records what the reader has learnt of the request so far.
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

    /// Wakes the reader's task when the request is answered.
    pub(crate) fn wait_for_answer(&self, cx: &Context<'_>) {
        self.shared().reader = Some(cx.waker().clone());
    }

    /// Takes the next interim response to write.
    pub(crate) fn next_interim(&self) -> Option<Bytes> {
        self.shared().interim.pop_front()
    }

    /// The response is about to be written.
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

    /// Stores the task that an interim response must wake.
    pub(crate) fn is_answered_in(&self, cx: &Context<'_>) {
        let task = &mut self.shared().task;
        // The task is the same for the connection's whole life.
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
    }

    /// Whether the request asks about the server, with a target that names a host and no path.
    #[must_use]
    pub(crate) fn is_of_server(&self) -> bool {
        self.shared().is_of_server
    }

    /// Whether a chunk of the request, as far as it has been read, had an extension. Extensions are legal and mean
    /// nothing, but readers have differed about where they end.
    #[must_use]
    pub(crate) fn has_chunk_extensions(&self) -> bool {
        self.shared().has_extensions
    }

    /// Writes an interim response, given as a whole head. Drops it if the response itself has begun, or if too many
    /// bytes wait already. Source: RFC 9110, section 15.2.
    pub(crate) fn send_interim(&self, head: Bytes) {
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
