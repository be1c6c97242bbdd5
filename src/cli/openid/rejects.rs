//! Reports rejected lines, each with its number and the reason: all of them to a file, or the first ones to the
//! terminal.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::progress::Progress;
use crate::private;
use payout_domain::terminal;

/// How many rejected lines to show on the terminal: more than that nobody reads.
const SHOWN: u64 = 100;

pub(super) struct Rejects {
    csv: PathBuf,
    file: Option<(PathBuf, File)>,
    shown: u64,
}

impl Rejects {
    /// With a file: appends to it if the import resumes, and otherwise truncates it.
    pub(super) fn new(csv: &Path, file: Option<PathBuf>, goes_on: bool) -> anyhow::Result<Self> {
        let open = |path: PathBuf| {
            if path
                .canonicalize()
                .is_ok_and(|same| csv.canonicalize().is_ok_and(|csv| csv == same))
            {
                bail!("--rejects {} is the very file that is imported", path.display());
            }
            let opened =
                private::open(&path, goes_on).with_context(|| format!("--rejects {}", path.display()))?;
            anyhow::Ok((path, opened))
        };
        Ok(Self {
            csv: csv.to_owned(),
            file: file.map(open).transpose()?,
            shown: 0,
        })
    }

    /// Reports lines, each with its reason.
    pub(super) fn report(&mut self, lines: &[(u64, String)], progress: &Progress) -> anyhow::Result<()> {
        if let Some((path, file)) = &mut self.file {
            let text: String = lines
                .iter()
                .map(|(line, why)| format!("line {line}: {}\n", terminal::line(why)))
                .collect();
            return file
                .write_all(text.as_bytes())
                .with_context(|| format!("--rejects {}", path.display()));
        }
        for (line, why) in lines {
            self.shown = self.shown.saturating_add(1);
            if self.shown <= SHOWN {
                progress.tell(&format!("{}, line {line}: {why}", self.csv.display()));
            } else if self.shown == SHOWN.saturating_add(1) {
                progress.tell("more lines were rejected and are not shown: --rejects FILE takes them all");
            }
        }
        Ok(())
    }
}
