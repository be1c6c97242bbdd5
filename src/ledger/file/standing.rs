//! The state of the ledger file, shared by readers and the writer: open and complete, or shut for a reason.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use redb::Database;

use super::guard::Guard;
use super::open::OpenError;
use super::place::{Location, Mark};
use crate::clock::Clock;
use crate::ledger::time::Timekeeper;
use crate::payouts::ports::StoreError;
use crate::telemetry::metrics::stores::Syncs;

/// An open file.
pub(super) struct Open {
    pub(super) database: Database,
    pub(super) guard: Arc<Guard>,
    pub(super) mark: Mark,
    /// Its path names another file, or none.
    pub(super) is_astray: AtomicBool,
}

/// What makes a shut file usable again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cure {
    /// There was no ledger at the path. The next readiness check looks again.
    Look,
    /// The disk failed. The writer opens the file again after a pause.
    Again,
    /// A person must act, and restart the process.
    Restart,
}

/// The state of the file.
#[derive(Clone)]
pub(super) enum Standing {
    Open(Arc<Open>),
    Shut { why: Arc<str>, cure: Cure },
}

/// State that the readers and the writer share.
pub(super) struct Shared {
    pub(super) place: Arc<dyn Location>,
    pub(super) time: Timekeeper,
    pub(super) syncs: Syncs,
    standing: RwLock<Standing>,
}

impl Shared {
    pub(super) fn new(
        place: Arc<dyn Location>,
        syncs: Syncs,
        clock: Arc<dyn Clock>,
        standing: Standing,
    ) -> Self {
        Self {
            place,
            time: Timekeeper::new(clock),
            syncs,
            standing: RwLock::new(standing),
        }
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set(&self, standing: Standing) {
        *self.standing.write().unwrap_or_else(PoisonError::into_inner) = standing;
    }

    /// The open file, or why it is shut.
    pub(super) fn open(&self) -> Result<Arc<Open>, StoreError> {
        match self.standing() {
            Standing::Open(open) => Ok(open),
            Standing::Shut { why, .. } => Err(refused(&why)),
        }
    }

    /// Shuts this file, unless it is shut already. Its database can then neither read nor write.
    pub(super) fn shut(&self, open: &Arc<Open>, why: &str, cure: Cure) {
        open.guard.cut_off();
        let mut standing = self.standing.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(&*standing, Standing::Open(now) if Arc::ptr_eq(now, open)) {
            *standing = Standing::Shut {
                why: why.into(),
                cure,
            };
        }
    }

    /// Like [`Shared::compare`], but only if an earlier comparison failed to find the file at its path.
    pub(super) fn compare_if_astray(&self, open: &Arc<Open>) -> Result<(), StoreError> {
        if open.is_astray.load(Ordering::Relaxed) {
            return self.compare(open);
        }
        Ok(())
    }

    /// Checks that the open file is still the one at the path, unchanged since this process wrote it. Otherwise neither
    /// a write to it nor a missing record means anything.
    pub(super) fn compare(&self, open: &Arc<Open>) -> Result<(), StoreError> {
        let path = self.place.path();
        let astray = match self.place.found() {
            Ok(Some(mark)) if mark == open.mark => None,
            Ok(Some(_)) => Some(OpenError::Replaced {
                path: path.to_owned(),
            }),
            Ok(None) => Some(OpenError::Deleted {
                path: path.to_owned(),
            }),
            Err(error) => Some(OpenError::unusable(path, &error)),
        };
        let was_astray = open.is_astray.swap(astray.is_some(), Ordering::Relaxed);
        if let Some(error) = astray {
            if !was_astray {
                tracing::error!(%error, "the ledger file is not at its path: no payout is taken");
            }
            return Err(error.into());
        }
        if was_astray {
            tracing::info!(path = %path.display(), "the ledger file is back at its path: payouts are taken again");
        }
        match open.guard.is_as_written() {
            Ok(true) => Ok(()),
            Ok(false) => {
                let error = OpenError::WrittenOver {
                    path: path.to_owned(),
                };
                tracing::error!(%error, "the ledger file is not what it was: no payout is taken");
                self.shut(open, &error.to_string(), Cure::Restart);
                Err(error.into())
            }
            Err(error) => Err(OpenError::unusable(path, &error).into()),
        }
    }
}

/// An error after which nothing was written.
pub(super) fn refused(why: &str) -> StoreError {
    StoreError {
        unsure: false,
        text: why.to_owned(),
    }
}
