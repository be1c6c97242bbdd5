//! The embedded ledger: one redb file, durable at each claim, for one process.
//!
//! One thread writes. It takes every operation that waits, applies all of them in one transaction, syncs the file once,
//! and only then answers: many claims to a sync under load, one claim to a sync without. [`tables`] is what a transaction
//! does, [`open`] how the file is made and what is refused.

mod open;
mod rehearsal;
mod tables;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redb::{Database, Durability};
use tokio::sync::{mpsc, oneshot};

use self::tables::{Answer, Operation};
use crate::clock::Clock;
use crate::payout::ports::{Inserted, Ledger, ListFilter, Page, Replaced, StoreError};
use crate::rules::order::Order;
use crate::rules::term::{MchId, Millis, OrderKey};
use crate::telemetry::metrics::stores::Syncs;

pub use self::open::OpenError;

/// How many operations may wait; more than this make their callers wait, which is what a full disk queue means.
const QUEUE: usize = 4096;
/// How many operations share one sync at most.
const BATCH: usize = 512;
/// How often records past their retention are cleared away.
const CLEAR_EVERY: Duration = Duration::from_secs(60);

/// The embedded ledger.
pub struct FileLedger {
    database: Arc<Database>,
    // Both are there until the drop.
    operations: Option<mpsc::Sender<Waiting>>,
    writer: Option<std::thread::JoinHandle<()>>,
    health: Arc<Health>,
}

/// Writes what still waits, and lets go of the file.
impl Drop for FileLedger {
    fn drop(&mut self) {
        drop(self.operations.take());
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the ledger file's writer had panicked");
        }
    }
}

struct Waiting {
    operation: Operation,
    answer: oneshot::Sender<Result<Answer, StoreError>>,
}

#[derive(Default)]
struct Health {
    has_failed: AtomicBool,
    syncs: Syncs,
}

impl FileLedger {
    /// Opens the file, or makes it where there is none.
    ///
    /// # Errors
    /// When the file is another process's, damaged, or no ledger, then [`OpenError`]; it is left as it is.
    pub fn open(path: &Path, retention: Duration, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Self::open_counted(path, retention, clock, Syncs::default())
    }

    /// The same, and counts its syncs here.
    ///
    /// # Errors
    /// As [`FileLedger::open`].
    pub fn open_counted(
        path: &Path,
        retention: Duration,
        clock: Arc<dyn Clock>,
        syncs: Syncs,
    ) -> Result<Self, OpenError> {
        Ok(Self::over(open::open(path)?, retention, clock, syncs))
    }

    /// Serves an open database.
    fn over(database: Database, retention: Duration, clock: Arc<dyn Clock>, syncs: Syncs) -> Self {
        let database = Arc::new(database);
        let (operations, queue) = mpsc::channel(QUEUE);
        let health = Arc::new(Health {
            has_failed: AtomicBool::new(false),
            syncs,
        });
        let writer = Writer {
            database: Arc::clone(&database),
            health: Arc::clone(&health),
            retention,
            clock,
        };
        // A thread of its own, since every commit waits for the disk.
        let writer = std::thread::spawn(move || writer.run(queue));
        Self {
            database,
            operations: Some(operations),
            writer: Some(writer),
            health,
        }
    }

    /// How many syncs and how many operations there were: operations per sync is what group commit gains.
    #[must_use]
    pub fn syncs_and_operations(&self) -> (u64, u64) {
        (
            self.health.syncs.commits.get(),
            self.health.syncs.operations.get(),
        )
    }

    async fn write(&self, operation: Operation) -> Result<Answer, StoreError> {
        let (answer, answered) = oneshot::channel();
        let gone = || StoreError {
            unsure: true,
            text: "the ledger file's writer has ended: restart the process".into(),
        };
        let operations = self.operations.as_ref().ok_or_else(gone)?;
        operations
            .send(Waiting { operation, answer })
            .await
            .map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&redb::ReadTransaction) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = Arc::clone(&self.database);
        let task = tokio::task::spawn_blocking(move || {
            let transaction =
                redb::ReadableDatabase::begin_read(&*database).map_err(|error| tables::failed(&error))?;
            read(&transaction)
        });
        task.await.map_err(|error| StoreError {
            unsure: false,
            text: format!("a read of the ledger file ended: {error}"),
        })?
    }
}

struct Writer {
    database: Arc<Database>,
    health: Arc<Health>,
    retention: Duration,
    clock: Arc<dyn Clock>,
}

impl Writer {
    fn run(self, mut queue: mpsc::Receiver<Waiting>) {
        let mut cleared_at = Millis(0);
        let mut batch = Vec::new();
        while queue.blocking_recv_many(&mut batch, BATCH) > 0 {
            let now = self.clock.now();
            let clear = now.since(cleared_at) >= CLEAR_EVERY;
            if clear {
                cleared_at = now;
            }
            self.commit(std::mem::take(&mut batch), clear.then_some(now));
        }
    }

    /// Applies a batch in one transaction and answers after the sync. Where anything fails before the commit, nothing was
    /// written; where the commit fails, nobody knows.
    fn commit(&self, batch: Vec<Waiting>, clear: Option<Millis>) {
        let operations = batch.iter().map(|waiting| &waiting.operation);
        let applied = self.apply(operations, clear);
        let (transaction, answers) = match applied {
            Ok(applied) => applied,
            Err(error) => return self.fail(batch, &error),
        };
        if let Err(error) = transaction.commit() {
            let error = tables::failed(&error);
            return self.fail(
                batch,
                &StoreError {
                    unsure: true,
                    text: error.text,
                },
            );
        }
        self.health.syncs.commits.inc();
        for (waiting, answer) in batch.into_iter().zip(answers) {
            self.health.syncs.operations.inc();
            // Who no longer waits finds the record.
            let _told = waiting.answer.send(answer).is_ok();
        }
    }

    fn apply<'a>(
        &self,
        operations: impl Iterator<Item = &'a Operation>,
        clear: Option<Millis>,
    ) -> Result<(redb::WriteTransaction, Vec<Result<Answer, StoreError>>), StoreError> {
        let mut transaction = self
            .database
            .begin_write()
            .map_err(|error| tables::failed(&error))?;
        transaction
            .set_durability(Durability::Immediate)
            .map_err(|error| tables::failed(&error))?;
        // Two syncs instead of one: with one, a file that is damaged where its last commit stands opens without that
        // commit, and a paid order is new again; with two it is refused.
        transaction.set_two_phase_commit(true);
        let answers = {
            let mut tables = tables::Tables::open(&transaction)?;
            let mut answers = Vec::new();
            for operation in operations {
                answers.push(tables.apply(operation)?);
            }
            if let Some(now) = clear {
                tables.clear(now, self.retention)?;
            }
            answers
        };
        Ok((transaction, answers))
    }

    fn fail(&self, batch: Vec<Waiting>, error: &StoreError) {
        self.health.has_failed.store(true, Ordering::Relaxed);
        tracing::error!(%error, operations = batch.len(), "the ledger file could not be written");
        for waiting in batch {
            let error = StoreError {
                unsure: error.unsure,
                text: error.text.clone(),
            };
            let _told = waiting.answer.send(Err(error)).is_ok();
        }
    }
}

/// An answer of another kind than the operation: cannot happen, and is an error rather than a panic.
fn mismatched() -> StoreError {
    StoreError {
        unsure: true,
        text: "the ledger file's writer answered another question".into(),
    }
}

#[async_trait]
impl Ledger for FileLedger {
    async fn insert(&self, order: &Order) -> Result<Inserted, StoreError> {
        match self.write(Operation::Insert(order.clone())).await? {
            Answer::Inserted(inserted) => Ok(inserted),
            Answer::Replaced(_) | Answer::Due(_) => Err(mismatched()),
        }
    }

    async fn replace(&self, previous: &Order, next: &Order) -> Result<Replaced, StoreError> {
        match self
            .write(Operation::Replace(previous.version, next.clone()))
            .await?
        {
            Answer::Replaced(replaced) => Ok(replaced),
            Answer::Inserted(_) | Answer::Due(_) => Err(mismatched()),
        }
    }

    async fn remove(&self, order: &Order) -> Result<Replaced, StoreError> {
        match self.write(Operation::Remove(order.clone())).await? {
            Answer::Replaced(replaced) => Ok(replaced),
            Answer::Inserted(_) | Answer::Due(_) => Err(mismatched()),
        }
    }

    async fn get(&self, key: &OrderKey) -> Result<Option<Order>, StoreError> {
        let key = key.clone();
        self.read(move |transaction| tables::get(transaction, &key)).await
    }

    async fn due(
        &self,
        now: Millis,
        hidden_until: Millis,
        limit: usize,
    ) -> Result<Vec<OrderKey>, StoreError> {
        // Most of the time nothing is due, and looking costs no sync.
        if self
            .read(move |transaction| tables::has_due(transaction, now))
            .await?
        {
            match self
                .write(Operation::Due {
                    now,
                    hidden_until,
                    limit,
                })
                .await?
            {
                Answer::Due(keys) => Ok(keys),
                Answer::Inserted(_) | Answer::Replaced(_) => Err(mismatched()),
            }
        } else {
            Ok(Vec::new())
        }
    }

    async fn list(&self, filter: &ListFilter) -> Result<Page, StoreError> {
        let filter = filter.clone();
        self.read(move |transaction| tables::list(transaction, &filter))
            .await
    }

    async fn used(&self, mch_id: &MchId, sum: &str) -> Result<i64, StoreError> {
        let (mch_id, sum) = (mch_id.clone(), sum.to_owned());
        self.read(move |transaction| tables::used(transaction, &mch_id, &sum))
            .await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        if self.health.has_failed.load(Ordering::Relaxed) {
            let text =
                "a write to the ledger file has failed: see the log, mend the disk, restart".to_owned();
            return Err(StoreError { unsure: false, text });
        }
        self.read(|transaction| tables::has_due(transaction, Millis(0)))
            .await
            .map(|_| ())
    }

    async fn warnings(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests;
