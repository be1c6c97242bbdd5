//! Opens the ledger file, makes it where there is none, and refuses what is not one. It never overwrites anything.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's enum is not ours to list"
)]

use std::path::{Path, PathBuf};

use redb::{Builder, Database, DatabaseError, StorageError};

use super::rehearsal::Rehearsal;
use super::tables;

/// How much of the file is kept in memory. Records are read seldom; what is written must be on disk anyway.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Why a ledger file cannot be used. The file is left as it is.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant says it in its text")]
pub enum OpenError {
    #[error(
        "{path} is in use by another process: a ledger file is for one process; use Redis for several replicas"
    )]
    InUse { path: PathBuf },
    #[error(
        "{path} is empty: a ledger that was written to is not. Restore it from a copy; if there never was one, remove the file"
    )]
    Empty { path: PathBuf },
    #[error("{path} is damaged or no ledger ({why}): it was left as it is; restore it from a copy")]
    Damaged { path: PathBuf, why: String },
    #[error("{path} cannot be opened: {why}")]
    Unusable { path: PathBuf, why: String },
}

pub(super) fn open(path: &Path) -> Result<Database, OpenError> {
    let unusable = |error: std::io::Error| OpenError::Unusable {
        path: path.to_owned(),
        why: error.to_string(),
    };
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() == 0 => {
            return Err(OpenError::Empty {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => make(path)?,
        Err(error) => return Err(unusable(error)),
    }
    rehearse(path)?;
    let database = builder().open(path).map_err(|error| refusal(path, error))?;
    Ok(database)
}

/// Recovers and checks the file in memory, page by page, so that a damaged one is refused now, not met later, and left as
/// it is.
fn rehearse(path: &Path) -> Result<(), OpenError> {
    let unusable = |error: std::io::Error| OpenError::Unusable {
        path: path.to_owned(),
        why: error.to_string(),
    };
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            return Err(OpenError::InUse {
                path: path.to_owned(),
            });
        }
        Err(std::fs::TryLockError::Error(error)) => return Err(unusable(error)),
    }
    let rehearsal = Rehearsal::of(file).map_err(unusable)?;
    let mut checking = builder();
    checking.set_check_integrity_on_open(true);
    let database = checking
        .create_with_backend(rehearsal)
        .map_err(|error| refusal(path, error))?;
    // Makes sure that this is a ledger, and not some other program's database.
    tables::check(&database).map_err(|why| OpenError::Damaged {
        path: path.to_owned(),
        why,
    })
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Makes a new ledger under another name first: a crash in between leaves no half a ledger under the real one.
fn make(path: &Path) -> Result<(), OpenError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    let unusable = |why: String| OpenError::Unusable {
        path: path.to_owned(),
        why,
    };
    match std::fs::remove_file(&fresh) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(unusable(error.to_string())),
    }
    let database = builder().create(&fresh).map_err(|error| refusal(&fresh, error))?;
    tables::create(&database).map_err(|error| unusable(error.text))?;
    database.close().map_err(|error| refusal(&fresh, error))?;
    std::fs::rename(&fresh, path).map_err(|error| unusable(error.to_string()))?;
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    // The name must survive a power loss as well as the content.
    std::fs::File::open(parent)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| unusable(error.to_string()))
}

fn refusal(path: &Path, error: DatabaseError) -> OpenError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path },
        DatabaseError::Storage(StorageError::Io(error))
            if error.kind() != std::io::ErrorKind::InvalidData =>
        {
            // A file that ends too early is met as an I/O error as well.
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
