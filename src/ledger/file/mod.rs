//! The embedded ledger: one redb file for one process, durable after each claim.
//!
//! One thread writes ([`writer`]): under load many claims share a sync. [`tables`] has the changes of a transaction,
//! [`reads`] the queries. [`place`] locks and creates the file, [`open`] refuses a file that is no ledger, [`standing`]
//! and [`guard`] detect that the file was replaced or changed, [`keeper`] is for decisions about the whole ledger.

mod guard;
mod keeper;
mod open;
mod paced;
mod place;
mod reads;
mod rehearsal;
mod standing;
mod tables;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use redb::ReadTransaction;
use tokio::sync::{mpsc, oneshot};

use self::open::Opened;
use self::paced::Paced;
use self::place::{DiskLocation, Location, LockedFile};
use self::standing::{Cure, Open, Shared, Standing};
use self::tables::{Answer, Operation};
use self::writer::{Message, TICK, Waiting, Writer, WriterConfig};
use crate::clock::Clock;
use crate::ledger::record;
use crate::payouts::ports::{Inserted, Ledger, ListFilter, Page, QueryRate, Replaced, StoreError};
use crate::telemetry::metrics::stores::Syncs;
use payout_domain::ids::{LedgerTime, MchId, OrderKey};
use payout_domain::order::Order;

pub use self::keeper::FileKeeper;
pub use self::open::OpenError;

/// How many operations may wait. If the queue is full, which means a slow disk, callers wait.
const QUEUE: usize = 4096;

/// The embedded ledger.
pub struct FileLedger {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    paced: Paced,
    // Both are `Some` until the drop.
    queue: Option<mpsc::Sender<Message>>,
    writer: Option<std::thread::JoinHandle<()>>,
}

/// Writes what still waits, and closes the file.
impl Drop for FileLedger {
    fn drop(&mut self) {
        drop(self.queue.take());
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the ledger file's writer had panicked");
        }
    }
}

impl FileLedger {
    /// Opens the file. If there is none, `create` makes it; otherwise the ledger takes no order until somebody has
    /// created it.
    ///
    /// # Errors
    /// [`OpenError`] when another process has the file, or it is damaged or no ledger. The file stays unchanged.
    pub fn open(
        path: &Path,
        retention: Duration,
        create: bool,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        Self::open_counted(path, retention, create, clock, Syncs::default())
    }

    /// Like [`FileLedger::open`], with counters for syncs and operations.
    ///
    /// # Errors
    /// As [`FileLedger::open`].
    pub fn open_counted(
        path: &Path,
        retention: Duration,
        create: bool,
        clock: Arc<dyn Clock>,
        syncs: Syncs,
    ) -> Result<Self, OpenError> {
        let place = DiskLocation(path.to_owned());
        let held = match place.take() {
            Err(OpenError::Absent { .. }) if create => match place::make(path, LedgerTime(clock.now().0))? {
                Some(held) => Some(held),
                // Another process was faster.
                None => Some(place.take()?),
            },
            Err(error @ OpenError::Absent { .. }) => {
                tracing::error!(%error, "there is no ledger: no payout is taken");
                None
            }
            taken => Some(taken?),
        };
        let config = WriterConfig {
            retention,
            tick: TICK,
        };
        Self::over(Arc::new(place), held, config, clock, syncs)
    }

    /// Serves the ledger at a place.
    fn over(
        place: Arc<dyn Location>,
        held: Option<LockedFile>,
        config: WriterConfig,
        clock: Arc<dyn Clock>,
        syncs: Syncs,
    ) -> Result<Self, OpenError> {
        let opened = held.map(|held| open::open(&held, place.path()).map(|opened| (held, opened)));
        let (standing, held, time) = match opened.transpose()? {
            Some((held, opened)) => {
                let Opened {
                    database,
                    guard,
                    about,
                } = opened;
                let open = Open {
                    database,
                    guard,
                    mark: held.mark,
                    is_astray: AtomicBool::new(false),
                };
                let standing = Standing::Open(Arc::new(open));
                (standing, Some((held, about.id)), Some(about.time))
            }
            None => {
                let absent = OpenError::Absent {
                    path: place.path().to_owned(),
                };
                let standing = Standing::Shut {
                    why: absent.to_string().into(),
                    cure: Cure::Look,
                };
                (standing, None, None)
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| OpenError::unusable(place.path(), &error))?;
        let shared = Arc::new(Shared::new(place, syncs, Arc::clone(&clock), standing));
        if let Some(time) = time {
            shared.time.heard(time);
        }
        let (queue, messages) = mpsc::channel(QUEUE);
        let writer = Writer::new(Arc::clone(&shared), config, held);
        // A separate thread, because every commit blocks on the disk.
        let writer = std::thread::spawn(move || runtime.block_on(writer.run(messages)));
        Ok(Self {
            shared,
            clock,
            paced: Paced::default(),
            queue: Some(queue),
            writer: Some(writer),
        })
    }

    /// The number of syncs and of operations. Their ratio is the gain of group commit.
    #[must_use]
    pub fn syncs_and_operations(&self) -> (u64, u64) {
        let Syncs {
            commits, operations, ..
        } = &self.shared.syncs;
        (commits.get(), operations.get())
    }

    async fn send(&self, message: Message) -> Result<(), StoreError> {
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        queue.send(message).await.map_err(|_| gone())
    }

    async fn write(&self, operation: Operation) -> Result<Answer, StoreError> {
        // Fail at once if the file is shut, so that nothing queues up meanwhile.
        self.shared.open()?;
        let (answer, answered) = oneshot::channel();
        self.send(Message::Write(Box::new(Waiting { operation, answer })))
            .await?;
        answered.await.map_err(|_| gone())?
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.read_file(|_, _, transaction| read(transaction)).await
    }

    async fn read_file<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shared, &Arc<Open>, &ReadTransaction) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let open = self.shared.open()?;
        let shared = Arc::clone(&self.shared);
        let task = tokio::task::spawn_blocking(move || {
            shared.compare_if_astray(&open)?;
            let transaction =
                redb::ReadableDatabase::begin_read(&open.database).map_err(|error| tables::failed(&error))?;
            read(&shared, &open, &transaction)
        });
        task.await.map_err(|error| StoreError {
            unsure: false,
            text: format!("a read of the ledger file ended: {error}"),
        })?
    }
}

fn gone() -> StoreError {
    StoreError {
        unsure: true,
        text: "the ledger file's writer has ended: restart the process".into(),
    }
}

/// The answer does not belong to the operation. This cannot happen; an error is better than a panic.
fn mismatched() -> StoreError {
    StoreError {
        unsure: true,
        text: "the ledger file's writer answered another question".into(),
    }
}

#[async_trait]
impl Ledger for FileLedger {
    fn time(&self) -> LedgerTime {
        self.shared.time.now()
    }

    async fn insert(&self, order: &Order) -> Result<Inserted, StoreError> {
        let operation = Operation::Insert(order.clone(), record::encode(order)?);
        match self.write(operation).await? {
            Answer::Inserted(inserted) => Ok(inserted),
            Answer::Replaced(_) | Answer::Hidden(_) => Err(mismatched()),
        }
    }

    async fn replace(&self, previous: &Order, next: &Order) -> Result<Replaced, StoreError> {
        let changing = record::encode_change(previous, next)?;
        let operation = Operation::Replace(Box::new((previous.clone(), next.clone())), changing);
        match self.write(operation).await? {
            Answer::Replaced(replaced) => Ok(replaced),
            Answer::Inserted(_) | Answer::Hidden(_) => Err(mismatched()),
        }
    }

    async fn remove(&self, order: &Order) -> Result<Replaced, StoreError> {
        match self.write(Operation::Remove(order.clone())).await? {
            Answer::Replaced(replaced) => Ok(replaced),
            Answer::Inserted(_) | Answer::Hidden(_) => Err(mismatched()),
        }
    }

    async fn get(&self, key: &OrderKey) -> Result<Option<Order>, StoreError> {
        let key = key.clone();
        self.read_file(move |shared, open, transaction| {
            let found = reads::get(transaction, &key)?;
            if found.is_none() {
                // If the file is no longer this ledger's, a missing record proves nothing.
                shared.compare(open)?;
            }
            Ok(found)
        })
        .await
    }

    async fn due(
        &self,
        hidden: Duration,
        limit: usize,
        rate: QueryRate<'_>,
    ) -> Result<Vec<OrderKey>, StoreError> {
        let now = self.time();
        let due = self
            .read(move |transaction| reads::due(transaction, now, limit))
            .await?;
        let found = self.paced.choose(due, limit, rate);
        // Usually nothing is due. Then skip the write, which would cost a sync.
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let until = now.after(hidden);
        match self.write(Operation::Hide { found, until }).await? {
            Answer::Hidden(keys) => Ok(keys),
            Answer::Inserted(_) | Answer::Replaced(_) => Err(mismatched()),
        }
    }

    async fn list(&self, filter: &ListFilter) -> Result<Page, StoreError> {
        let filter = filter.clone();
        // While no process has the file open, the wall clock advances and the ledger's time does not. So at the claim
        // of any order the wall clock was ahead of the ledger's time by at most as much as it is now.
        let ahead = self.clock.now().0.saturating_sub(self.time().0);
        let from = filter
            .since
            .map_or(i64::MIN, |since| since.0.saturating_sub(ahead));
        self.read(move |transaction| reads::list(transaction, &filter, LedgerTime(from)))
            .await
    }

    async fn unsettled(&self, limit: usize) -> Result<Vec<Order>, StoreError> {
        self.read(move |transaction| reads::unsettled(transaction, limit))
            .await
    }

    async fn used(&self, mch_id: &MchId, sum: &str) -> Result<i64, StoreError> {
        let (mch_id, sum) = (mch_id.clone(), sum.to_owned());
        self.read(move |transaction| reads::used(transaction, &mch_id, &sum))
            .await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        let (looker, looked) = oneshot::channel();
        self.send(Message::Look(looker)).await?;
        looked.await.map_err(|_| gone())?;
        self.read_file(|shared, open, transaction| {
            shared.compare(open)?;
            reads::due(transaction, LedgerTime(0), 1).map(|_| ())
        })
        .await
    }

    async fn warnings(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests;
