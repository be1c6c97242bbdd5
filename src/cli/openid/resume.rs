//! Saves an import's position in a file beside the CSV, only after Redis has acknowledged everything before it.
//!
//! The position is valid only for the same file, the same Redis, and the same Redis processes: a restarted process may
//! have lost writes that it acknowledged. In any doubt the import starts at the first line, which costs only time. So
//! this file needs no fsync.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::file_watch::Stamp;
use crate::private;

/// The results of the lines so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    pub(super) new: u64,
    pub(super) changed: u64,
    pub(super) unchanged: u64,
    pub(super) rejected: u64,
}

impl Counts {
    pub(super) fn lines(&self) -> u64 {
        let Self {
            new,
            changed,
            unchanged,
            rejected,
        } = *self;
        [new, changed, unchanged, rejected]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

/// What must be unchanged for an import to resume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Of {
    /// The format of the resume file.
    pub(super) form: u32,
    /// The CSV.
    pub(super) file: Stamp,
    /// The Redis and the mapping in it.
    pub(super) mapping: String,
    /// The run ids of its processes.
    pub(super) processes: Vec<String>,
}

/// The current format of the resume file.
pub(super) const FORM: u32 = 1;

#[derive(Serialize, Deserialize)]
pub(super) struct Progress {
    of: Of,
    pub(super) offset: u64,
    pub(super) line: u64,
    pub(super) counts: Counts,
}

/// The resume file of an import.
pub(super) struct Resume {
    path: PathBuf,
    of: Of,
}

impl Resume {
    pub(super) fn new(csv: &Path, of: Of) -> Self {
        let mut path = csv.as_os_str().to_owned();
        path.push(".resume");
        Self {
            path: path.into(),
            of,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The position that an earlier import saved, or why it is invalid. `None` if there is none.
    pub(super) fn read(&self) -> Option<Result<Progress, &'static str>> {
        let text = std::fs::read(&self.path).ok()?;
        let Ok(progress) = serde_json::from_slice::<Progress>(&text) else {
            return Some(Err("cannot be read"));
        };
        Some(if progress.of == self.of {
            Ok(progress)
        } else if progress.of.form != self.of.form {
            Err("was written by another version of this program")
        } else if progress.of.file != self.of.file {
            Err("is of another version of the file")
        } else if progress.of.mapping != self.of.mapping {
            Err("is of another Redis or template")
        } else {
            Err("is of a Redis process that may not be there any more")
        })
    }

    /// Saves the position.
    pub(super) fn write(&self, offset: u64, line: u64, counts: Counts) -> std::io::Result<()> {
        let progress = Progress {
            of: self.of.clone(),
            offset,
            line,
            counts,
        };
        private::replace(&self.path, &serde_json::to_vec(&progress)?)
    }

    /// Removes the file after a complete import.
    pub(super) fn remove(&self) -> std::io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_of_the_same_is_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let csv = dir.path().join("openids.csv");
        let stamp = |text: &str| {
            std::fs::write(&csv, text).unwrap();
            Stamp::of(&std::fs::metadata(&csv).unwrap())
        };
        let of = Of {
            form: FORM,
            file: stamp("a"),
            mapping: "m".into(),
            processes: vec!["p".into()],
        };
        let resume = Resume::new(&csv, of.clone());
        assert!(resume.read().is_none());
        resume.write(7, 3, Counts::default()).unwrap();
        let read = |of: &Of| {
            Resume::new(&csv, of.clone())
                .read()
                .unwrap()
                .map(|p| (p.offset, p.line))
        };
        assert_eq!(read(&of), Ok((7, 3)));
        for (other, says) in [
            (
                Of {
                    form: 2,
                    ..of.clone()
                },
                "another version of this program",
            ),
            (
                Of {
                    file: stamp("bc"),
                    ..of.clone()
                },
                "another version of the file",
            ),
            (
                Of {
                    mapping: "n".into(),
                    ..of.clone()
                },
                "another Redis",
            ),
            (
                Of {
                    processes: vec![],
                    ..of.clone()
                },
                "a Redis process",
            ),
        ] {
            let why = read(&other).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
        std::fs::write(resume.path(), "{\"of\":").unwrap();
        assert_eq!(read(&of), Err("cannot be read"));
        resume.remove().unwrap();
        resume.remove().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        // A failed write leaves no file beside it.
        std::fs::create_dir_all(resume.path().join("folder")).unwrap();
        assert!(resume.write(7, 3, Counts::default()).is_err());
        std::fs::remove_dir_all(resume.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
