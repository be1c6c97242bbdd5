//! The only thread that writes. It takes all waiting operations, applies them in one transaction, syncs the file, and
//! only then answers. If the disk fails, it opens the file again until that works.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use redb::{Durability, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::open::{self, OpenError, Opened};
use super::place::LockedFile;
use super::standing::{Cure, Open, Shared, Standing, refused};
use super::tables::{self, Answer, LogPlace, Operation};
use crate::ledger::keeper::LedgerId;
use crate::payouts::ports::StoreError;

/// How many operations share one sync at most.
const BATCH: usize = 512;
/// The longest time between two commits. Each commit saves the ledger's time; a tick also clears records past their
/// retention.
pub(super) const TICK: Duration = Duration::from_secs(60);
/// How soon clearing continues if one step could not clear everything.
const CLEAR_ON: Duration = Duration::from_secs(1);
/// The pause before opening a failed file again; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// After this much time without a failure, the next one counts as new.
const STEADY: Duration = Duration::from_secs(30);
/// The log gets at most one failure per this time.
const QUIET: Duration = Duration::from_secs(5);

/// A message to the writer.
pub(super) enum Message {
    Write(Box<Waiting>),
    /// Look for a ledger if there was none. The writer answers when it has looked.
    Look(oneshot::Sender<()>),
}

/// An operation and its waiting caller.
pub(super) struct Waiting {
    pub(super) operation: Operation,
    pub(super) answer: oneshot::Sender<Result<Answer, StoreError>>,
}

/// How long to keep settled records, and how often to commit at least.
#[derive(Clone, Copy, Debug)]
pub(super) struct WriterConfig {
    pub(super) retention: Duration,
    pub(super) tick: Duration,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    config: WriterConfig,
    /// The file, since it was first found.
    held: Option<LockedFile>,
    known: Option<LedgerId>,
    committed: Instant,
    clearing: Clearing,
    trouble: Trouble,
}

/// Where clearing continues, and when it last ran.
struct Clearing {
    from: Option<LogPlace>,
    last: Option<Instant>,
}

impl Clearing {
    fn is_due(&self, config: WriterConfig) -> bool {
        let pause = if self.from.is_some() {
            CLEAR_ON
        } else {
            config.tick
        };
        self.last.is_none_or(|last| last.elapsed() >= pause)
    }
}

/// The history of failures.
struct Trouble {
    since: Instant,
    opened: Instant,
    pause: Duration,
    is_told: bool,
    told: Option<Instant>,
}

impl Writer {
    /// A writer for this file, or for one that may still be created.
    pub(super) fn new(
        shared: Arc<Shared>,
        config: WriterConfig,
        held: Option<(LockedFile, LedgerId)>,
    ) -> Self {
        let (held, known) = held.unzip();
        let now = Instant::now();
        Self {
            shared,
            config,
            held,
            known,
            committed: now,
            clearing: Clearing {
                from: None,
                last: None,
            },
            trouble: Trouble {
                since: now,
                opened: now,
                pause: Duration::ZERO,
                is_told: false,
                told: None,
            },
        }
    }

    /// Runs until all senders are gone.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        let mut messages = Vec::new();
        loop {
            let received = queue.recv_many(&mut messages, BATCH);
            if tokio::time::timeout(self.idle(), received).await == Ok(0) {
                break;
            }
            let (mut batch, mut lookers) = (Vec::new(), Vec::new());
            for message in messages.drain(..) {
                match message {
                    Message::Write(waiting) => batch.push(*waiting),
                    Message::Look(looker) => lookers.push(looker),
                }
            }
            match self.shared.standing() {
                Standing::Open(open) => self.write(&open, batch),
                Standing::Shut { why, cure } => {
                    refuse(batch, &refused(&why));
                    self.mend(cure, !lookers.is_empty());
                }
            }
            for looker in lookers {
                // A caller that no longer waits will ask again.
                let _told = looker.send(()).is_ok();
            }
        }
        if let Standing::Open(open) = self.shared.standing() {
            // Closing writes to the file, but a copy that somebody restored must stay unchanged.
            if !matches!(open.guard.is_as_written(), Ok(true)) {
                open.guard.cut_off();
            }
            self.shared.set(Standing::Shut {
                why: "the ledger file was closed".into(),
                cure: Cure::Restart,
            });
        }
    }

    /// How long to wait for messages.
    fn idle(&self) -> Duration {
        match self.shared.standing() {
            Standing::Open(_) if self.clearing.from.is_some() => CLEAR_ON,
            Standing::Shut {
                cure: Cure::Again, ..
            } => self.trouble.pause.saturating_sub(self.trouble.since.elapsed()),
            Standing::Open(_) => self.config.tick.saturating_sub(self.committed.elapsed()),
            Standing::Shut { .. } => self.config.tick,
        }
    }

    /// Writes the waiting operations and does the periodic work.
    fn write(&mut self, open: &Arc<Open>, batch: Vec<Waiting>) {
        if open.guard.has_failed() {
            let error = refused("the ledger file: a read has failed");
            refuse(batch, &error);
            return self.give_up(open, &error);
        }
        if batch.is_empty()
            && self.committed.elapsed() < self.config.tick
            && !self.clearing.is_due(self.config)
        {
            return;
        }
        if let Err(error) = self.shared.compare(open) {
            self.committed = Instant::now();
            return refuse(batch, &error);
        }
        if let Err(error) = self.commit(open, batch) {
            self.give_up(open, &error);
        }
    }

    /// Applies a batch in one transaction and answers after the sync. If anything fails before the commit, nothing was
    /// written; if the commit itself fails, the result is unknown.
    fn commit(&mut self, open: &Open, batch: Vec<Waiting>) -> Result<(), StoreError> {
        let operations = batch.iter().map(|waiting| &waiting.operation);
        let (transaction, answers) = match self.apply(open, operations) {
            Ok(applied) => applied,
            Err(error) => {
                refuse(batch, &error);
                return Err(error);
            }
        };
        if let Err(error) = transaction.commit() {
            let error = tables::failed(&error).after_unsure();
            refuse(batch, &error);
            return Err(error);
        }
        self.committed = Instant::now();
        self.shared.syncs.commits.inc();
        for (waiting, answer) in batch.into_iter().zip(answers) {
            self.shared.syncs.operations.inc();
            // A caller that no longer waits will find the record.
            let _told = waiting.answer.send(answer).is_ok();
        }
        Ok(())
    }

    fn apply<'a>(
        &mut self,
        open: &Open,
        operations: impl Iterator<Item = &'a Operation>,
    ) -> Result<(WriteTransaction, Vec<Result<Answer, StoreError>>), StoreError> {
        let mut transaction = open
            .database
            .begin_write()
            .map_err(|error| tables::failed(&error))?;
        transaction
            .set_durability(Durability::Immediate)
            .map_err(|error| tables::failed(&error))?;
        // Two syncs instead of one: with one, a file that is damaged at its last commit opens without that commit, and
        // a paid order looks new again. With two, such a file is refused.
        transaction.set_two_phase_commit(true);
        let answers = {
            let mut tables = tables::Tables::open(&transaction, self.shared.time.now())?;
            let mut answers = Vec::new();
            for operation in operations {
                answers.push(tables.apply(operation)?);
            }
            if self.clearing.is_due(self.config) {
                self.clearing.from = tables.clear(self.config.retention, self.clearing.from.take())?;
                self.clearing.last = Some(Instant::now());
            }
            answers
        };
        Ok((transaction, answers))
    }

    /// The disk has failed: shuts the file, to open it again after a pause.
    fn give_up(&mut self, open: &Arc<Open>, error: &StoreError) {
        let path = self.shared.place.path();
        let why = format!(
            "{} could not be read or written ({}); it is opened again until that works",
            path.display(),
            error.text
        );
        self.shared.shut(open, &why, Cure::Again);
        if self.trouble.opened.elapsed() >= STEADY {
            self.trouble.pause = Duration::ZERO;
        }
        self.trouble.lengthen();
        self.trouble.tell_failure(&why);
    }

    /// Opens the file if it is time to.
    fn mend(&mut self, cure: Cure, is_asked: bool) {
        match cure {
            Cure::Look if is_asked => {}
            Cure::Again if self.trouble.since.elapsed() >= self.trouble.pause => {}
            Cure::Look | Cure::Again | Cure::Restart => return,
        }
        let begun = Instant::now();
        let error = match self.open() {
            Ok(open) => {
                self.trouble.opened = Instant::now();
                self.trouble.tell_success(self.shared.place.path());
                return self.shared.set(Standing::Open(Arc::new(open)));
            }
            Err(error) => error,
        };
        if self.known.is_none() {
            // The ledger may be created as another file.
            self.held = None;
        }
        let is_for_a_person = matches!(
            error,
            OpenError::Damaged { .. } | OpenError::OtherLedger { .. } | OpenError::WrittenOver { .. }
        );
        let cure = if cure == Cure::Again && is_for_a_person {
            Cure::Restart
        } else {
            cure
        };
        let why = error.to_string();
        if cure != Cure::Look {
            self.trouble.lengthen();
            // Checking a large file takes long, so do not do it all the time.
            self.trouble.pause = std::cmp::max(self.trouble.pause, begun.elapsed().saturating_mul(4));
            self.trouble.tell_failure(&why);
        }
        self.shared.set(Standing::Shut {
            why: why.into(),
            cure,
        });
    }

    fn open(&mut self) -> Result<Open, OpenError> {
        let shared = Arc::clone(&self.shared);
        let path = shared.place.path();
        let held = match self.held.take() {
            Some(held) => held,
            None => shared.place.take()?,
        };
        let held = &*self.held.insert(held);
        match shared.place.found() {
            Ok(Some(mark)) if mark == held.mark => {}
            Ok(Some(_)) => {
                return Err(OpenError::Replaced {
                    path: path.to_owned(),
                });
            }
            Ok(None) => {
                return Err(OpenError::Deleted {
                    path: path.to_owned(),
                });
            }
            Err(error) => return Err(OpenError::unusable(path, &error)),
        }
        let Opened {
            database,
            guard,
            about,
        } = open::open(held, path)?;
        match &self.known {
            Some(known) if *known != about.id => {
                return Err(OpenError::OtherLedger {
                    path: path.to_owned(),
                });
            }
            Some(_) => {}
            None => {
                self.known = Some(about.id);
                shared.time.heard(about.time);
            }
        }
        let open = Open {
            database,
            guard,
            mark: held.mark,
            is_astray: AtomicBool::new(false),
        };
        // Reading works; check that writing works too.
        if let Err(error) = self.commit(&open, Vec::new()) {
            open.guard.cut_off();
            return Err(OpenError::unusable(path, &error.text));
        }
        Ok(open)
    }
}

impl Trouble {
    fn lengthen(&mut self) {
        self.since = Instant::now();
        self.pause = self.pause.saturating_mul(2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
    }

    fn tell_failure(&mut self, why: &str) {
        if !self.is_told && self.told.is_none_or(|told| told.elapsed() >= QUIET) {
            tracing::error!(why, "the ledger file has failed: no payout is taken");
            self.is_told = true;
            self.told = Some(Instant::now());
        }
    }

    fn tell_success(&mut self, path: &std::path::Path) {
        if self.is_told || self.told.is_none() {
            tracing::info!(path = %path.display(), "the ledger file is open: payouts are taken");
            self.is_told = false;
        }
    }
}

fn refuse(batch: Vec<Waiting>, error: &StoreError) {
    for waiting in batch {
        let error = StoreError {
            unsure: error.unsure,
            text: error.text.clone(),
        };
        let _told = waiting.answer.send(Err(error)).is_ok();
    }
}
