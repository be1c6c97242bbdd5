//! The storage under the database. It detects that another process has overwritten the file, and cuts off a database
//! that the ledger has given up, so that its late I/O cannot touch the work of the next one.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// The size of the header in bytes. Every commit changes it, because it names the newest commit.
const HEADER: usize = 512;

/// The storage of one open database.
#[derive(Debug)]
pub(super) struct Guard {
    bytes: Arc<dyn StorageBackend>,
    /// The header as this process last read or wrote it.
    header: Mutex<Vec<u8>>,
    is_cut_off: AtomicBool,
    has_failed: AtomicBool,
}

impl Guard {
    pub(super) fn over(bytes: Arc<dyn StorageBackend>) -> io::Result<Arc<Self>> {
        let length = usize::try_from(bytes.len()?).unwrap_or(usize::MAX);
        let mut header = vec![0; std::cmp::min(length, HEADER)];
        bytes.read(0, &mut header)?;
        Ok(Arc::new(Self {
            bytes,
            header: Mutex::new(header),
            is_cut_off: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
        }))
    }

    /// The backend for the database.
    pub(super) fn backend(self: &Arc<Self>) -> Guarded {
        Guarded(Arc::clone(self))
    }

    /// Makes every later read and write of this database fail.
    pub(super) fn cut_off(&self) {
        self.is_cut_off.store(true, Ordering::SeqCst);
    }

    /// Whether the disk has failed an operation.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Whether the header is as this process left it. No other process may write to the file, but a lock only stops
    /// those that ask for it: `cp` does not.
    pub(super) fn is_as_written(&self) -> io::Result<bool> {
        let header = self.header();
        let mut found = vec![0; header.len()];
        let is_same = match self.bytes.read(0, &mut found) {
            Ok(()) => found == *header,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) => return self.noted(Err(error)),
        };
        // After a cut-off a later database writes the header.
        self.check().map(|()| is_same)
    }

    fn header(&self) -> MutexGuard<'_, Vec<u8>> {
        self.header.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> io::Result<()> {
        if self.is_cut_off.load(Ordering::SeqCst) {
            return Err(io::Error::other("this database was given up"));
        }
        Ok(())
    }

    fn noted<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() {
            self.has_failed.store(true, Ordering::Relaxed);
        }
        result
    }
}

/// The [`StorageBackend`] of a [`Guard`].
#[derive(Debug)]
pub(super) struct Guarded(Arc<Guard>);

impl StorageBackend for Guarded {
    fn len(&self) -> io::Result<u64> {
        self.0.check()?;
        self.0.noted(self.0.bytes.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.noted(self.0.bytes.read(offset, out))?;
        // Check after the read: whatever was read before the cut-off is this database's own data.
        self.0.check()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.check()?;
        self.0.noted(self.0.bytes.set_len(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.check()?;
        self.0.noted(self.0.bytes.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.check()?;
        let Some(start) = usize::try_from(offset).ok().filter(|start| *start < HEADER) else {
            return self.0.noted(self.0.bytes.write(offset, data));
        };
        let mut header = self.0.header();
        self.0.noted(self.0.bytes.write(offset, data))?;
        let end = std::cmp::min(start.saturating_add(data.len()), HEADER);
        if header.len() < end {
            header.resize(end, 0);
        }
        if let (Some(into), Some(from)) = (header.get_mut(start..end), data.get(..end.saturating_sub(start)))
        {
            into.copy_from_slice(from);
        }
        Ok(())
    }
}
