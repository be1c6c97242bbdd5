//! A replica's process, and the store as it sees it: calls that take a while, at each end of which it may die; writes that are
//! refused, whose acknowledgement is lost, or that reach the store long after somebody has given up on them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::world::Shared;
use crate::payout::ports::{Inserted, Ledger, ListFilter, Page, Replaced, StoreError};
use crate::payout::tests::world::{charged, due};
use crate::rules::order::Order;
use crate::rules::term::{MchId, Millis, OrderKey};

/// One process's view of the world. Once it is dead, nothing that it called returns.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) shared: Arc<Shared>,
    pub(super) is_dead: Arc<AtomicBool>,
}

impl Process {
    /// A place where the process may die, and takes a while in any case.
    pub(super) async fn step(&self) {
        if self.shared.goes_wrong(3) {
            self.shared.note("a process died".into());
            self.is_dead.store(true, Ordering::Relaxed);
        }
        if self.is_dead.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(self.shared.dice.roll(30))).await;
    }

    async fn write(&self, write: Write) -> Result<Written, StoreError> {
        self.step().await;
        if self.shared.goes_wrong(8) {
            return Err(StoreError {
                unsure: self.shared.dice.happens(50),
                text: "not written".into(),
            });
        }
        if self.shared.goes_wrong(6) {
            // Nobody waits for it any more when it arrives, behind writes that were sent after it.
            let pause = Duration::from_millis(self.shared.dice.roll(40_000));
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                shared.note("a late write arrived".into());
                write.apply(&mut shared.orders.lock().unwrap());
            });
            return Err(StoreError {
                unsure: true,
                text: "on its way".into(),
            });
        }
        let written = write.apply(&mut self.shared.orders.lock().unwrap());
        let is_lost = self.shared.goes_wrong(8);
        self.step().await;
        if is_lost {
            Err(StoreError {
                unsure: true,
                text: "written, and nobody said so".into(),
            })
        } else {
            Ok(written)
        }
    }
}

/// A write on its way to the store.
enum Write {
    Insert(Box<Order>),
    Replace(Box<Order>, Box<Order>),
    Remove(Box<Order>),
}

enum Written {
    Done,
    There(Option<Box<Order>>),
}

impl Write {
    fn apply(self, orders: &mut BTreeMap<OrderKey, Order>) -> Written {
        let key = match &self {
            Self::Insert(order) | Self::Replace(_, order) | Self::Remove(order) => order.key.clone(),
        };
        match (self, orders.get(&key)) {
            (Self::Insert(order), None) => {
                orders.insert(key, *order);
                Written::Done
            }
            (Self::Insert(next) | Self::Replace(_, next), Some(stored)) if *stored == *next => Written::Done,
            (Self::Replace(previous, next), Some(stored)) if stored.version == previous.version => {
                orders.insert(key, *next);
                Written::Done
            }
            (Self::Remove(order), Some(stored)) if stored.version == order.version => {
                orders.remove(&key);
                Written::Done
            }
            (_, stored) => Written::There(stored.cloned().map(Box::new)),
        }
    }
}

impl From<Written> for Replaced {
    fn from(written: Written) -> Self {
        match written {
            Written::Done => Self::Done,
            Written::There(stored) => Self::Moved(stored),
        }
    }
}

#[async_trait]
impl Ledger for Process {
    async fn insert(&self, order: &Order) -> Result<Inserted, StoreError> {
        match self.write(Write::Insert(Box::new(order.clone()))).await? {
            Written::Done => Ok(Inserted::Done),
            Written::There(Some(stored)) => Ok(Inserted::Exists(stored)),
            Written::There(None) => unreachable!("an insert is done where there is nothing"),
        }
    }

    async fn replace(&self, previous: &Order, next: &Order) -> Result<Replaced, StoreError> {
        let write = Write::Replace(Box::new(previous.clone()), Box::new(next.clone()));
        Ok(self.write(write).await?.into())
    }

    async fn remove(&self, order: &Order) -> Result<Replaced, StoreError> {
        Ok(self.write(Write::Remove(Box::new(order.clone()))).await?.into())
    }

    async fn get(&self, key: &OrderKey) -> Result<Option<Order>, StoreError> {
        self.step().await;
        if self.shared.goes_wrong(8) {
            return Err(StoreError {
                unsure: false,
                text: "not read".into(),
            });
        }
        Ok(self.shared.orders.lock().unwrap().get(key).cloned())
    }

    async fn due(
        &self,
        now: Millis,
        hidden_until: Millis,
        limit: usize,
    ) -> Result<Vec<OrderKey>, StoreError> {
        self.step().await;
        let mut hidden = self.shared.hidden.lock().unwrap();
        let orders = self.shared.orders.lock().unwrap();
        Ok(due(orders.values(), &mut hidden, now, hidden_until, limit))
    }

    async fn list(&self, _filter: &ListFilter) -> Result<Page, StoreError> {
        Ok(Page {
            orders: vec![],
            next: None,
        })
    }

    async fn used(&self, mch_id: &MchId, sum: &str) -> Result<i64, StoreError> {
        let orders = self.shared.orders.lock().unwrap();
        Ok(charged(orders.values(), mch_id, sum))
    }

    async fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn warnings(&self) -> Result<Vec<String>, StoreError> {
        Ok(vec![])
    }
}
