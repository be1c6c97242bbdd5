//! The unused connections to one upstream. The pool is ours because it is short, and because each connection comes with
//! what cuts it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use tokio::time::Instant;

use super::gate::Gate;
use crate::http::line::Line;

/// How long to keep an unused connection. Shorter than the 5 s after which Node.js closes one, so that the upstream
/// seldom closes a connection just as our next request goes out on it.
const IDLE: Duration = Duration::from_secs(4);
/// How many unused connections to keep.
const MAX_IDLE: usize = 1024;

/// An open connection. Dropping it resets it.
pub(super) struct Connection {
    pub(super) sender: SendRequest<Gate>,
    pub(super) line: Arc<Line>,
    pub(super) was_used: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.line.cut();
    }
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// The unused connections, the one used last at the end.
#[derive(Default)]
pub(super) struct Pool(Mutex<VecDeque<Idle>>);

impl Pool {
    /// Takes the connection used last, so that the others grow old and are closed.
    pub(super) fn take(&self) -> Option<Connection> {
        let now = Instant::now();
        let mut idle = self.idle();
        let is_old = |kept: &Idle| now.saturating_duration_since(kept.since) >= IDLE;
        while idle.front().is_some_and(is_old) {
            idle.pop_front();
        }
        // A connection whose answer was read just now may need a moment before it takes the next request.
        while let Some(at) = idle
            .iter()
            .map(|kept| &kept.connection.sender)
            .rposition(|sender| sender.is_ready() || sender.is_closed())
        {
            let connection = idle.remove(at)?.connection;
            if !connection.sender.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose answer was read to its end.
    pub(super) fn keep(&self, mut connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        connection.was_used = true;
        let since = Instant::now();
        let mut idle = self.idle();
        if idle.len() < MAX_IDLE {
            idle.push_back(Idle { connection, since });
        }
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
