//! Opens a locked ledger file and refuses a file that is no ledger. It never overwrites anything.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's enum is not ours to list"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Builder, Database, DatabaseError, StorageBackend, StorageError};

use super::guard::Guard;
use super::place::LockedFile;
use super::rehearsal::Rehearsal;
use super::tables::{self, About};
use crate::payouts::ports::StoreError;
use payout_domain::ids::LedgerTime;

/// The size of redb's page cache. The ledger seldom reads records, and every write must reach the disk anyway.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Why a ledger file cannot be used. The file stays unchanged.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant says it in its text")]
pub enum OpenError {
    #[error("{path} holds no ledger: run payout-sidecar ledger create")]
    Absent { path: PathBuf },
    #[error("{path} is there already: a ledger is made where there is none")]
    Exists { path: PathBuf },
    #[error("{path} could not be made: {why}")]
    NotMade { path: PathBuf, why: String },
    #[error(
        "{path} is in use by another process: a ledger file is for one process; use Redis for several replicas"
    )]
    InUse { path: PathBuf },
    #[error(
        "{path} is empty: a ledger that was written to is not. Restore it from a copy; if there never was one, move it away \
         and run payout-sidecar ledger create"
    )]
    Empty { path: PathBuf },
    #[error(
        "{path} is damaged or no ledger ({why}): it was left as it is. Restore it from a copy; to go on without what it \
         held, move it away and run payout-sidecar ledger create"
    )]
    Damaged { path: PathBuf, why: String },
    #[error("{path} cannot be opened: {why}")]
    Unusable { path: PathBuf, why: String },
    #[error(
        "{path} was deleted under this process: it takes nothing until that very file is back at its path. Otherwise restore \
         a copy, and restart"
    )]
    Deleted { path: PathBuf },
    #[error(
        "{path} is another file than the one that this process has opened: it takes nothing until that very file is back at \
         its path, or a restart"
    )]
    Replaced { path: PathBuf },
    #[error(
        "{path} was written over by somebody else while this process had it open: stop the process, restore a whole copy, \
         start it again"
    )]
    WrittenOver { path: PathBuf },
    #[error(
        "{path} holds another ledger than the one that this process knows: it is not taken for it; restore a copy, and restart"
    )]
    OtherLedger { path: PathBuf },
}

impl OpenError {
    pub(super) fn unusable(path: &Path, error: &dyn std::fmt::Display) -> Self {
        Self::Unusable {
            path: path.to_owned(),
            why: error.to_string(),
        }
    }
}

impl From<OpenError> for StoreError {
    fn from(error: OpenError) -> Self {
        Self {
            unsure: false,
            text: error.to_string(),
        }
    }
}

/// An open ledger file.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) guard: Arc<Guard>,
    pub(super) about: About,
}

/// Opens a locked file.
pub(super) fn open(locked: &LockedFile, path: &Path) -> Result<Opened, OpenError> {
    let (rehearsed, about) = rehearse(locked, path)?;
    drop(rehearsed);
    let guard = Guard::over(Arc::clone(&locked.bytes)).map_err(|error| OpenError::unusable(path, &error))?;
    let database = builder()
        .create_with_backend(guard.backend())
        .map_err(|error| refusal(path, error))?;
    Ok(Opened {
        database,
        guard,
        about,
    })
}

/// Recovers and checks the file in memory, page by page, so that a damaged file is refused now, not met later, and
/// stays unchanged.
pub(super) fn rehearse(locked: &LockedFile, path: &Path) -> Result<(Database, About), OpenError> {
    let rehearsal =
        Rehearsal::of(Arc::clone(&locked.bytes)).map_err(|error| OpenError::unusable(path, &error))?;
    let mut checking = builder();
    checking.set_check_integrity_on_open(true);
    let database = checking
        .create_with_backend(rehearsal)
        .map_err(|error| refusal(path, error))?;
    // Make sure that this is a ledger, and not another program's database.
    let about = tables::check(&database).map_err(|why| OpenError::Damaged {
        path: path.to_owned(),
        why,
    })?;
    Ok((database, about))
}

/// Writes a new ledger into an empty file.
pub(super) fn fill(bytes: Arc<dyn StorageBackend>, now: LedgerTime) -> Result<(), String> {
    let guard = Guard::over(bytes).map_err(|error| error.to_string())?;
    let database = builder()
        .create_with_backend(guard.backend())
        .map_err(|error| error.to_string())?;
    tables::create(&database, now).map_err(|error| error.text)?;
    database.close().map_err(|error| error.to_string())
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn refusal(path: &Path, error: DatabaseError) -> OpenError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path },
        DatabaseError::Storage(StorageError::Io(error))
            if error.kind() != std::io::ErrorKind::InvalidData =>
        {
            // redb reports a truncated file as an I/O error too.
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                OpenError::Damaged {
                    path,
                    why: error.to_string(),
                }
            } else {
                OpenError::Unusable {
                    path,
                    why: error.to_string(),
                }
            }
        }
        error => OpenError::Damaged {
            path,
            why: error.to_string(),
        },
    }
}
