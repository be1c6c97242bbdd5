//! Opens a ledger file without changing it: reads come from the file, writes stay in memory.
//!
//! redb recovers a file that was not closed (a crash) while opening it, and that recovery writes before it has seen
//! every page. So the ledger first runs recovery and the check of every page here, which leaves a damaged file
//! unchanged.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

const BLOCK: usize = 4096;

/// The file with the changes that recovery would make.
#[derive(Debug)]
pub(super) struct Rehearsal {
    file: Arc<dyn StorageBackend>,
    length: u64,
    changed: Mutex<Changed>,
}

#[derive(Debug)]
struct Changed {
    length: u64,
    blocks: HashMap<u64, Vec<u8>>,
}

impl Rehearsal {
    pub(super) fn of(file: Arc<dyn StorageBackend>) -> io::Result<Self> {
        let length = file.len()?;
        Ok(Self {
            file,
            length,
            changed: Mutex::new(Changed {
                length,
                blocks: HashMap::new(),
            }),
        })
    }

    fn changed(&self) -> MutexGuard<'_, Changed> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block of the file, padded with zeros after the end of the file.
    fn original(&self, at: u64) -> io::Result<Vec<u8>> {
        let mut block = vec![0; BLOCK];
        let start = at.saturating_mul(BLOCK as u64);
        let left = usize::try_from(self.length.saturating_sub(start)).unwrap_or(usize::MAX);
        if let Some(within) = block
            .get_mut(..std::cmp::min(left, BLOCK))
            .filter(|within| !within.is_empty())
        {
            self.file.read(start, within)?;
        }
        Ok(block)
    }

    /// Splits a range into blocks: the block's number, the start in that block, the start in the caller's data, the
    /// length.
    fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
        let mut done: usize = 0;
        std::iter::from_fn(move || {
            let place = offset.checked_add(done as u64)?;
            let within = usize::try_from(place.checked_rem(BLOCK as u64)?).ok()?;
            let take = std::cmp::min(BLOCK.saturating_sub(within), length.saturating_sub(done));
            if take == 0 {
                return None;
            }
            let piece = (place.checked_div(BLOCK as u64)?, within, done, take);
            done = done.saturating_add(take);
            Some(piece)
        })
    }
}

fn beyond() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends before its content")
}

impl StorageBackend for Rehearsal {
    fn len(&self) -> io::Result<u64> {
        Ok(self.changed().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let changed = self.changed();
        if offset
            .checked_add(out.len() as u64)
            .is_none_or(|end| end > changed.length)
        {
            return Err(beyond());
        }
        for (at, within, done, take) in Self::pieces(offset, out.len()) {
            let (from, to) = (
                within..within.saturating_add(take),
                done..done.saturating_add(take),
            );
            let original;
            let block = match changed.blocks.get(&at) {
                Some(block) => block,
                None => {
                    original = self.original(at)?;
                    &original
                }
            };
            let (Some(from), Some(to)) = (block.get(from), out.get_mut(to)) else {
                return Err(beyond());
            };
            to.copy_from_slice(from);
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.changed().length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changed = self.changed();
        for (at, within, done, take) in Self::pieces(offset, data.len()) {
            let (from, to) = (
                done..done.saturating_add(take),
                within..within.saturating_add(take),
            );
            let block = match changed.blocks.entry(at) {
                Entry::Occupied(block) => block.into_mut(),
                Entry::Vacant(free) => free.insert(self.original(at)?),
            };
            let (Some(from), Some(to)) = (data.get(from), block.get_mut(to)) else {
                return Err(beyond());
            };
            to.copy_from_slice(from);
        }
        Ok(())
    }
}
