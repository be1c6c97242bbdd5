//! Writes log lines to standard output. A thread of the runtime gathers lines while it is busy, and writes them
//! together before it waits for work: under load one system call writes the lines of many requests.
//!
//! Some lines are written before the call that logs them returns: the audit, warnings and errors, and everything that
//! a thread outside of the runtime logs. A process that is killed loses the other lines of one turn of its loop.

use std::cell::Cell;
use std::io::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::AUDIT;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// From this many bytes on, lines are written at once.
const ENOUGH: usize = 16 * 1024;

static GATHERED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

thread_local! {
    /// Whether this thread calls `before_rest` each time before it waits.
    static RESTS: Cell<bool> = const { Cell::new(false) };
}

/// A thread of the runtime must call this each time before it waits for work.
pub(crate) fn before_rest() {
    RESTS.set(true);
    flush();
}

/// Writes the gathered lines. Call it before the process ends.
pub(crate) fn flush() {
    write_out(&mut gathered());
}

fn gathered() -> MutexGuard<'static, Vec<u8>> {
    GATHERED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Called under the lock, so that lines stay in their order.
fn write_out(lines: &mut Vec<u8>) {
    if lines.is_empty() {
        return;
    }
    let mut out = io::stdout().lock();
    // A failure to write the log cannot be logged.
    let _heard = out.write_all(lines).and_then(|()| out.flush()).is_ok();
    lines.clear();
}

/// Makes the writers of lines.
pub(super) struct Out;

/// The writer of one line.
pub(super) struct Line {
    waits: bool,
}

impl<'a> MakeWriter<'a> for Out {
    type Writer = Line;
    fn make_writer(&'a self) -> Line {
        Line { waits: false }
    }
    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Line {
        let is_urgent = *event.level() <= Level::WARN || event.target() == AUDIT;
        Line {
            waits: !is_urgent && RESTS.get(),
        }
    }
}

impl io::Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut lines = gathered();
        lines.extend_from_slice(line);
        if !self.waits || lines.len() >= ENOUGH {
            write_out(&mut lines);
        }
        Ok(line.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audit_and_warnings_do_not_wait_for_a_quiet_moment() {
        let subscriber = tracing_subscriber::fmt()
            .with_writer(Out)
            .with_ansi(false)
            .finish();
        let waits = |log: fn()| {
            flush();
            log();
            // Other tests' threads log nothing through `Out`.
            !gathered().is_empty()
        };
        tracing::subscriber::with_default(subscriber, || {
            before_rest();
            assert!(waits(|| tracing::info!("a request was answered")));
            assert!(!waits(|| tracing::info!(target: "audit", "payout changed")));
            assert!(!waits(|| tracing::warn!("the ledger is out of reach")));
        });
        flush();
        RESTS.set(false);
    }
}
