//! The place of the ledger file: locks it for this process, creates it, and recognises another file at the same path.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::StorageBackend;

use super::open::{OpenError, fill};
use crate::private;
use payout_domain::ids::LedgerTime;

/// How long to wait for a lock before reporting the file as in use: another process may only be checking it.
const LOOKED_AT: Duration = Duration::from_millis(300);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Identifies a file, so that another one at the same path is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    device: u64,
    inode: u64,
}

impl Mark {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// A ledger file that no other process can open until this is dropped. Its inode cannot be reused meanwhile.
#[derive(Debug)]
pub(super) struct LockedFile {
    pub(super) bytes: Arc<dyn StorageBackend>,
    pub(super) mark: Mark,
}

/// Where a ledger file is.
pub(super) trait Location: Send + Sync + 'static {
    /// The path, for messages.
    fn path(&self) -> &Path;

    /// Locks the file for this process.
    ///
    /// # Errors
    /// [`OpenError`] when there is none, it is empty, or another process has it.
    fn take(&self) -> Result<LockedFile, OpenError>;

    /// The file that is at the path now.
    ///
    /// # Errors
    /// The system's error, when the path cannot be examined.
    fn found(&self) -> io::Result<Option<Mark>>;
}

/// A path on a disk.
pub(super) struct DiskLocation(pub(super) PathBuf);

impl Location for DiskLocation {
    fn path(&self) -> &Path {
        &self.0
    }

    fn take(&self) -> Result<LockedFile, OpenError> {
        let unusable = |error: io::Error| OpenError::unusable(&self.0, &error);
        let file = match OpenOptions::new().read(true).write(true).open(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(OpenError::Absent { path: self.0.clone() });
            }
            opened => opened.map_err(unusable)?,
        };
        lock(&file, &self.0)?;
        let metadata = file.metadata().map_err(unusable)?;
        if metadata.len() == 0 {
            return Err(OpenError::Empty { path: self.0.clone() });
        }
        let mark = Mark::of(&metadata);
        if self.found().map_err(unusable)? != Some(mark) {
            return Err(OpenError::Replaced { path: self.0.clone() });
        }
        Ok(LockedFile {
            bytes: Arc::new(Disk(file)),
            mark,
        })
    }

    fn found(&self) -> io::Result<Option<Mark>> {
        match std::fs::metadata(&self.0) {
            Ok(metadata) => Ok(Some(Mark::of(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a file is opened once, at the start")]
fn lock(file: &File, path: &Path) -> Result<(), OpenError> {
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOOKED_AT => std::thread::sleep(LOOK_AGAIN),
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::InUse {
                    path: path.to_owned(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(OpenError::unusable(path, &error)),
        }
    }
}

/// Creates a new ledger and locks it; `None` if something is at the path already. The file gets its real name only when
/// it is complete: so a crash in between leaves no partial ledger at the path, and of several concurrent creators one
/// gets the name.
pub(super) fn make(path: &Path, now: LedgerTime) -> Result<Option<LockedFile>, OpenError> {
    let not_made = |error: &dyn std::fmt::Display| OpenError::NotMade {
        path: path.to_owned(),
        why: error.to_string(),
    };
    let fresh = unused_name(path);
    let file = private::create_new(&fresh).map_err(|error| not_made(&error))?;
    let made = fill_and_publish(&file, &fresh, path, now);
    let removed = std::fs::remove_file(&fresh);
    let is_ours = made.map_err(|why| not_made(&why))?;
    removed
        .and_then(|()| sync_folder(path))
        .map_err(|error| not_made(&error))?;
    if !is_ours {
        return Ok(None);
    }
    let mark = Mark::of(&file.metadata().map_err(|error| not_made(&error))?);
    Ok(Some(LockedFile {
        bytes: Arc::new(Disk(file)),
        mark,
    }))
}

/// Fills the file and links it to its path. Returns whether the path was free.
fn fill_and_publish(file: &File, fresh: &Path, path: &Path, now: LedgerTime) -> Result<bool, String> {
    // Lock the file before it gets its name, so that no other process can lock it first.
    file.try_lock().map_err(|error| error.to_string())?;
    let ours = file.try_clone().map_err(|error| error.to_string())?;
    fill(Arc::new(Disk(ours)), now)?;
    match std::fs::hard_link(fresh, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

fn unused_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{:016x}", rand::random::<u64>()));
    path.with_file_name(name)
}

/// Syncs the directory, because the name must survive a power loss as well as the content.
fn sync_folder(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// The bytes of a file. Closing the file releases its lock.
#[derive(Debug)]
struct Disk(File);

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}
