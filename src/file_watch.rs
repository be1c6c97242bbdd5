//! Tells that files have changed. Whoever is told reads them, and finds out whether that matters.
//!
//! The files are looked at once a second, symlinks followed: a mounted ConfigMap or Secret changes by another symlink
//! beside it. The kernel could tell it sooner, but only of whole folders, where a log or a ledger may be written all the
//! time, and of no network file system.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use payout_domain::ids::Millis;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Which file stands at a path, how long it is, and when it and its entry were last changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of a file that these are the metadata of.
    #[must_use]
    pub fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            length: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    /// When the file or its entry was last changed, by the clock of whoever keeps the file.
    #[must_use]
    pub fn last_change(&self) -> Millis {
        let millis = |(seconds, nanoseconds): (i64, i64)| {
            let part = nanoseconds.checked_div(1_000_000).unwrap_or_default();
            seconds.saturating_mul(1000).saturating_add(part)
        };
        Millis(std::cmp::max(millis(self.modified), millis(self.changed)))
    }
}

/// The stamp of the file at a path, symlinks followed.
///
/// # Errors
/// When it cannot be looked at, then why.
pub async fn stamp(path: &Path) -> std::io::Result<Stamp> {
    tokio::fs::metadata(path).await.map(|found| Stamp::of(&found))
}

/// Watches over some files.
pub struct Watch {
    files: Vec<PathBuf>,
    seen: Vec<Option<Stamp>>,
}

impl Watch {
    /// Watches from now on.
    pub async fn over(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let files: Vec<PathBuf> = files.into_iter().collect();
        let seen = stamps(&files).await;
        Self { files, seen }
    }

    /// Waits until one of the files is another one than at the last look.
    ///
    /// # Cancel safety
    /// May be dropped at any time; no change is lost by that.
    pub async fn changed(&mut self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let now = stamps(&self.files).await;
            if now != self.seen {
                self.seen = now;
                return;
            }
        }
    }
}

/// The stamps of some files; `None` where one cannot be looked at.
pub async fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let mut stamps = Vec::with_capacity(files.len());
    for file in files {
        stamps.push(stamp(file).await.ok());
    }
    stamps
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends when a change is told.
    async fn told(watch: &mut Watch, what: &str) {
        let told = tokio::time::timeout(LOOK * 30, watch.changed()).await;
        assert!(told.is_ok(), "{what} was not told");
    }

    async fn nothing_told(watch: &mut Watch) {
        assert!(tokio::time::timeout(LOOK * 2, watch.changed()).await.is_err());
    }

    #[tokio::test]
    async fn a_file_that_comes_goes_or_becomes_another_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let (link, file) = (dir.path().join("link"), dir.path().join("file"));
        let mut watch = Watch::over([link.clone()]).await;
        std::fs::write(&file, "a").unwrap();
        nothing_told(&mut watch).await;
        std::os::unix::fs::symlink(&file, &link).unwrap();
        told(&mut watch, "a file that comes").await;
        nothing_told(&mut watch).await;
        let other = dir.path().join("other");
        std::fs::write(&other, "b").unwrap();
        std::os::unix::fs::symlink(&other, dir.path().join("next")).unwrap();
        std::fs::rename(dir.path().join("next"), &link).unwrap();
        told(&mut watch, "a symlink that leads elsewhere, to as many bytes").await;
        std::fs::write(&other, "c").unwrap();
        told(&mut watch, "a file that is written over in place").await;
        std::fs::remove_file(&link).unwrap();
        told(&mut watch, "a file that goes").await;
    }
}
