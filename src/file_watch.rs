//! Reports that files have changed. The caller reads them and decides whether the change matters.
//!
//! A watch looks at its files once a second and follows symlinks, because a mounted ConfigMap or Secret changes through
//! another symlink beside it. The kernel could report changes sooner, but only for whole folders, where a log or a
//! ledger may be written all the time, and not on network file systems.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use payout_domain::ids::Millis;

/// How often a watch looks at its files.
const LOOK: Duration = Duration::from_secs(1);

/// Which file is at a path, how long it is, and when its content and its inode last changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Makes the stamp from a file's metadata.
    #[must_use]
    pub(crate) fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            length: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    /// When the file's content or its inode last changed, by the clock of the file system.
    #[must_use]
    pub(crate) fn last_change(&self) -> Millis {
        let millis = |(seconds, nanoseconds): (i64, i64)| {
            let part = nanoseconds.checked_div(1_000_000).unwrap_or_default();
            seconds.saturating_mul(1000).saturating_add(part)
        };
        Millis(std::cmp::max(millis(self.modified), millis(self.changed)))
    }
}

/// The stamp of the file at a path. Follows symlinks.
///
/// # Errors
/// When the file's metadata cannot be read.
pub(crate) async fn stamp(path: &Path) -> std::io::Result<Stamp> {
    tokio::fs::metadata(path).await.map(|found| Stamp::of(&found))
}

/// Watches some files.
pub(crate) struct Watch {
    files: Vec<PathBuf>,
    seen: Vec<Option<Stamp>>,
}

impl Watch {
    /// Starts to watch.
    pub(crate) async fn over(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let files: Vec<PathBuf> = files.into_iter().collect();
        let seen = stamps(&files).await;
        Self { files, seen }
    }

    /// Waits until one of the files differs from the last look.
    ///
    /// # Cancel safety
    /// The future may be dropped at any time; the next call reports the change.
    pub(crate) async fn changed(&mut self) {
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

/// The stamps of some files; `None` for each one whose metadata cannot be read.
pub(crate) async fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let mut stamps = Vec::with_capacity(files.len());
    for file in files {
        stamps.push(stamp(file).await.ok());
    }
    stamps
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits for the watch to report a change.
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
