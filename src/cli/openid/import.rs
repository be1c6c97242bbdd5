//! `openid import`: imports a CSV file into Redis in constant memory, can resume, and reports rejected lines.
//!
//! One thread reads and checks lines while Redis takes the previous batch. The import writes batches one after another,
//! in the file's order, so that a later line overrides an earlier one, and so that one position can mark everything
//! before it as acknowledged.

use std::fs::File;
use std::io::{BufReader, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Args, ValueHint};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::progress::Progress;
use super::rejects::Rejects;
use super::resume::{Counts, FORM, Of, Resume};
use crate::file_watch::Stamp;
use crate::openids::admin::{Mapping, Put};
use crate::openids::csv::{HEADER, Position, Row, Rows};
use crate::redis::LinkError;

/// How many lines a batch has.
const BATCH: usize = 2000;
/// How many batches to read ahead.
const AHEAD: usize = 2;
/// How often to save the position. A resumed import repeats what Redis acknowledged after the last save.
const SAVE: Duration = Duration::from_millis(200);

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// The CSV file. Its first line is wx_app_id,user_id,openid.
    #[arg(value_name = "FILE.csv", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Write rejected lines to this file instead of the terminal.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    rejects: Option<PathBuf>,
    /// Start at the first line, even if an earlier import of this file was interrupted.
    #[arg(long)]
    restart: bool,
}

/// Consecutive lines of the file.
#[derive(Default)]
struct Batch {
    rows: Vec<Row>,
    /// The line number of each row.
    lines: Vec<u64>,
    rejects: Vec<(u64, String)>,
    /// The position after the batch.
    end: Position,
}

pub(super) async fn import(mapping: &Mapping, arguments: Arguments) -> anyhow::Result<()> {
    let Arguments {
        file: path,
        rejects,
        restart,
    } = arguments;
    let shown = path.display().to_string();
    let file = File::open(&path).with_context(|| shown.clone())?;
    let found = file.metadata().with_context(|| shown.clone())?;
    let stamp = found.is_file().then(|| Stamp::of(&found));
    let processes = mapping.processes().await;
    if let Err(error @ LinkError::NotSent(_)) = processes {
        return Err(error.into());
    }

    let mut notes = Vec::new();
    let resume = match (&stamp, &processes) {
        (Some(file), Ok(processes)) => {
            let of = Of {
                form: FORM,
                file: *file,
                mapping: mapping.described(),
                processes: processes.clone(),
            };
            Some(Resume::new(&path, of))
        }
        (None, _) => None,
        (Some(_), Err(error)) => {
            notes.push(format!(
                "Redis does not say which process it is ({error}), so this import cannot be gone on with when interrupted"
            ));
            None
        }
    };
    let earlier = resume
        .as_ref()
        .filter(|_| !restart)
        .and_then(|resume| match resume.read()? {
            Ok(earlier) => {
                notes.push(format!(
                    "going on after line {} (--restart begins at the beginning)",
                    earlier.line
                ));
                Some(earlier)
            }
            Err(why) => {
                let left = resume.path().display();
                notes.push(format!(
                    "beginning at the beginning: {left} of an earlier import {why}"
                ));
                None
            }
        });
    let (begin, counts) = earlier.map_or_else(Default::default, |earlier| {
        let position = Position {
            offset: earlier.offset,
            line: earlier.line,
        };
        (position, earlier.counts)
    });

    let progress = Progress::new(stamp.map_or(0, |_| found.len()), begin.offset)?;
    for note in notes {
        progress.tell(&note);
    }
    let rows = rows(file.try_clone()?, begin).with_context(|| shown.clone())?;
    let mut import = Import {
        mapping,
        rejects: Rejects::new(&path, rejects, begin != Position::default())?,
        progress,
        resume,
        saved: None,
        counts,
    };
    let begun = Instant::now();
    import.all(rows).await.with_context(|| shown.clone())?;
    if stamp.is_some_and(|stamp| file.metadata().is_ok_and(|found| Stamp::of(&found) != stamp)) {
        bail!("{shown} has changed while it was imported: import it again");
    }
    if let Ok(before) = processes {
        let now = mapping.processes().await?;
        if now != before {
            bail!(
                "another process of Redis answers now than at the beginning, which may have forgotten what the first one \
                 had taken: import {shown} again"
            );
        }
    }
    import.done(begun.elapsed())
}

fn rows(mut file: File, begin: Position) -> anyhow::Result<Rows<BufReader<File>>> {
    if begin == Position::default() {
        let rows = Rows::open(BufReader::with_capacity(1 << 16, file))?;
        return rows.with_context(|| format!("the first line must be {HEADER}"));
    }
    file.seek(SeekFrom::Start(begin.offset))?;
    Ok(Rows::at(BufReader::with_capacity(1 << 16, file), begin))
}

struct Import<'a> {
    mapping: &'a Mapping,
    rejects: Rejects,
    progress: Progress,
    resume: Option<Resume>,
    saved: Option<Instant>,
    counts: Counts,
}

impl Import<'_> {
    /// Imports the rest of the file.
    async fn all(&mut self, rows: Rows<BufReader<File>>) -> anyhow::Result<()> {
        let mut position = rows.position();
        let (sender, mut batches) = mpsc::channel(AHEAD);
        // A detached thread, because a pipe may block its read forever.
        std::thread::Builder::new().spawn(move || read(rows, &sender))?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let stopped = loop {
            let batch = tokio::select! {
                biased;
                _ = interrupt.recv() => break Some(anyhow::anyhow!("interrupted")),
                _ = terminate.recv() => break Some(anyhow::anyhow!("interrupted")),
                batch = batches.recv() => batch,
            };
            let batch = match batch {
                Some(Ok(batch)) => batch,
                Some(Err(error)) => break Some(anyhow::Error::new(error).context("it cannot be read")),
                None => break None,
            };
            let end = batch.end;
            if let Err(error) = self.take(batch).await {
                break Some(error);
            }
            position = end;
            if self.saved.is_none_or(|saved| saved.elapsed() >= SAVE) {
                self.save(position);
            }
            self.progress.reached(position.offset, self.counts.lines());
        };
        let Some(error) = stopped else { return Ok(()) };
        self.save(position);
        let again = match self.resume {
            Some(_) => "start it again to go on",
            None => "started again, it begins at the beginning",
        };
        Err(error.context(format!("stopped after line {}; {again}", position.line)))
    }

    async fn take(&mut self, batch: Batch) -> anyhow::Result<()> {
        let mut rejects = batch.rejects;
        let mut counts = self.counts;
        let came = self.mapping.put(&batch.rows).await?;
        for (came, line) in came.into_iter().zip(batch.lines) {
            let count = match came {
                Put::New => &mut counts.new,
                Put::Changed => &mut counts.changed,
                Put::Unchanged => &mut counts.unchanged,
                Put::Refused(why) => {
                    rejects.push((
                        line,
                        format!("something else stands where this user's openid should: {why}"),
                    ));
                    continue;
                }
            };
            *count = count.saturating_add(1);
        }
        rejects.sort();
        let rejected = u64::try_from(rejects.len()).unwrap_or(u64::MAX);
        counts.rejected = counts.rejected.saturating_add(rejected);
        self.rejects.report(&rejects, &self.progress)?;
        self.counts = counts;
        Ok(())
    }

    /// Saves the position: Redis has acknowledged everything before it.
    fn save(&mut self, position: Position) {
        self.saved = Some(Instant::now());
        let Some(resume) = &self.resume else { return };
        if let Err(error) = resume.write(position.offset, position.line, self.counts) {
            let file = resume.path().display();
            self.progress.tell(&format!(
                "{file} cannot be written ({error}), so this import cannot be gone on with when interrupted"
            ));
            self.resume = None;
        }
    }

    #[expect(clippy::print_stdout, reason = "printing is what this command is for")]
    fn done(self, took: Duration) -> anyhow::Result<()> {
        if let Some(resume) = &self.resume {
            resume
                .remove()
                .with_context(|| format!("{} cannot be removed", resume.path().display()))?;
        }
        drop(self.progress);
        let Counts {
            new,
            changed,
            unchanged,
            rejected,
        } = self.counts;
        let lines = self.counts.lines();
        println!(
            "{lines} lines: {new} new, {changed} changed, {unchanged} unchanged, {rejected} rejected ({}.{:03} s)",
            took.as_secs(),
            took.subsec_millis()
        );
        if rejected > 0 {
            bail!("{rejected} lines were rejected; the others are imported");
        }
        Ok(())
    }
}

/// Reads until the end of the file, or until the receiver is gone.
fn read(mut rows: Rows<BufReader<File>>, sender: &mpsc::Sender<std::io::Result<Batch>>) {
    loop {
        let batch = batch(&mut rows).transpose();
        let Some(batch) = batch else { return };
        let is_over = batch.is_err();
        if sender.blocking_send(batch).is_err() || is_over {
            return;
        }
    }
}

/// The next lines; `None` at the end of the file.
fn batch(rows: &mut Rows<BufReader<File>>) -> std::io::Result<Option<Batch>> {
    let mut batch = Batch::default();
    while batch.rows.len().saturating_add(batch.rejects.len()) < BATCH {
        let Some(row) = rows.next_row()? else { break };
        batch.end = rows.position();
        match row {
            Ok(row) => {
                batch.rows.push(row);
                batch.lines.push(batch.end.line);
            }
            Err(why) => batch.rejects.push((batch.end.line, why)),
        }
    }
    let has_any = batch.end != Position::default();
    Ok(has_any.then_some(batch))
}
