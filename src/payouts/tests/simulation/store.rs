//! A replica's process, and the store as the process sees it: calls that take a while, at whose beginning and end the
//! process may die; writes that the store refuses, whose acknowledgement is lost, or that reach the store long after
//! the caller has given up; a store that has forgotten, in part or completely, and says so as the real ones do.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::NODE_OF_ITS_OWN;
use super::world::{Shared, SkewedClock, Store};
use crate::clock::Clock as _;
use crate::payouts::ports::{Inserted, Ledger, ListFilter, Page, QueryRate, Replaced, StoreError};
use crate::payouts::tests::world::{charged, due};
use payout_domain::ids::{LedgerTime, MchId, OrderKey};
use payout_domain::order::{Order, State};

/// One process's view of a run. Once the process is dead, none of its calls returns.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) shared: Arc<Shared>,
    pub(super) is_dead: Arc<AtomicBool>,
    pub(super) clock: Arc<SkewedClock>,
    /// The ledger that it has seen first. It accepts no other one.
    pub(super) knows: Arc<Mutex<Option<u64>>>,
    /// How far its idea of the ledger's time is behind.
    pub(super) lag: Duration,
    /// When an attempt of this process last ended without an answer, by order.
    pub(super) silent: Arc<Mutex<BTreeMap<OrderKey, Instant>>>,
    /// How many of its callers wait for a payout, by order.
    pub(super) asked_to_pay: Arc<Mutex<BTreeMap<OrderKey, usize>>>,
}

fn refused(text: &str) -> StoreError {
    StoreError {
        unsure: false,
        text: text.into(),
    }
}

impl Process {
    /// A point at which the process may die or a clock may step. It takes a while in any case.
    pub(super) async fn step(&self) {
        if self.shared.goes_wrong(3) {
            self.shared.note("a process died".into());
            self.is_dead.store(true, Ordering::Relaxed);
        }
        if self.is_dead.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if self.shared.goes_wrong(2) {
            self.clock.off_ms.store(self.shared.skew(), Ordering::Relaxed);
            self.shared.note("a clock jumped".into());
        }
        tokio::time::sleep(Duration::from_millis(self.shared.rng.below(30))).await;
    }

    fn reach(&self, mch_id: &MchId) -> Result<(), StoreError> {
        if self.shared.node_is_away.load(Ordering::Relaxed) && mch_id.as_str() == NODE_OF_ITS_OWN {
            return Err(refused("the node is away"));
        }
        Ok(())
    }

    /// Whether the store is the ledger that this process knows, and has forgotten nothing of this merchant.
    fn compare(&self, store: &mut Store, key: &OrderKey) -> Result<(), StoreError> {
        let mends = self.shared.mends;
        let mut knows = self.knows.lock().unwrap();
        if knows.is_none() {
            if store.identity.is_none() && !mends.a_restart_is_no_decision {
                store.identity = Some(self.shared.rng.below(u64::MAX));
            }
            *knows = store.identity;
        }
        let id = knows.ok_or_else(|| refused("it holds no ledger"))?;
        let mch_id = &key.mch_id;
        if store.identity == Some(id) && store.registry.insert(mch_id.clone()) {
            store.parts.insert(mch_id.clone(), id);
        }
        if mends.claims_compare_identity && store.parts.get(mch_id) != Some(&id) {
            return Err(refused("it has forgotten this merchant"));
        }
        if mends.claims_compare_the_log && store.log.contains(key) && !store.orders.contains_key(key) {
            return Err(refused("it has forgotten this order"));
        }
        Ok(())
    }

    /// Clears records away as version 0.1.0 did, if the mend is taken out.
    fn clear_by_the_wall(&self, store: &mut Store) {
        if !self.shared.mends.retention_by_ledger_time {
            let now = self.clock.now();
            let retention = Duration::from_secs(400 * 86_400);
            let log = &mut store.log;
            store.orders.retain(|key, order| {
                let is_kept = order.settled_at().is_none_or(|at| now.since(at) < retention);
                if !is_kept {
                    log.remove(key);
                }
                is_kept
            });
        }
    }

    async fn write(&self, write: Write) -> Result<Written, StoreError> {
        self.step().await;
        self.reach(&write.key().mch_id)?;
        if self.shared.goes_wrong(8) {
            return Err(StoreError {
                unsure: self.shared.rng.happens(50),
                text: "not written".into(),
            });
        }
        if self.shared.goes_wrong(2) {
            // A script that stops half way. If its last possible failure comes before its first write, it writes
            // nothing.
            if !self.shared.mends.scripts_fail_first {
                let mut store = self.shared.store.lock().unwrap();
                if let Write::Insert(order) = &write
                    && !store.orders.contains_key(&order.key)
                {
                    store.unlisted.insert(order.key.clone());
                    store.log.insert(order.key.clone());
                    store.orders.insert(order.key.clone(), Order::clone(order));
                }
            }
            return Err(refused("stopped half way"));
        }
        if self.shared.goes_wrong(6) {
            // The write arrives when nobody waits for it any more, behind writes that were sent after it.
            let pause = Duration::from_millis(self.shared.rng.below(40_000));
            let process = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                process.shared.note("a late write arrived".into());
                let _nobody_waits = process.apply(write).is_ok();
            });
            return Err(StoreError {
                unsure: true,
                text: "on its way".into(),
            });
        }
        let written = self.apply(write)?;
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

    fn apply(&self, write: Write) -> Result<Written, StoreError> {
        let mut store = self.shared.store.lock().unwrap();
        let is_claim = match &write {
            Write::Insert(_) => true,
            Write::Replace(_, next) => matches!(next.state, State::Pending(_)),
            Write::Remove(_) => false,
        };
        if is_claim {
            self.compare(&mut store, write.key())?;
        }
        self.clear_by_the_wall(&mut store);
        let (previous, next) = match &write {
            Write::Insert(order) => (None, Some(Order::clone(order))),
            Write::Replace(previous, next) => (Some(Order::clone(previous)), Some(Order::clone(next))),
            Write::Remove(_) => (None, None),
        };
        let written = write.apply(&mut store);
        if let (Written::Done, Some(next)) = (&written, next) {
            self.shared.written(previous.as_ref(), &next);
        }
        Ok(written)
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
    fn key(&self) -> &OrderKey {
        match self {
            Self::Insert(order) | Self::Replace(_, order) | Self::Remove(order) => &order.key,
        }
    }

    fn apply(self, store: &mut Store) -> Written {
        let key = self.key().clone();
        match (self, store.orders.get(&key)) {
            (Self::Insert(order), None) => {
                store.log.insert(key.clone());
                store.orders.insert(key, *order);
                Written::Done
            }
            (Self::Insert(next) | Self::Replace(_, next), Some(stored)) if *stored == *next => Written::Done,
            (Self::Replace(previous, next), Some(stored)) if stored.version == previous.version => {
                store.orders.insert(key, *next);
                Written::Done
            }
            (Self::Remove(order), Some(stored)) if stored.version == order.version => {
                store.log.remove(&key);
                store.orders.remove(&key);
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
    fn time(&self) -> LedgerTime {
        let passed = self.shared.begun.elapsed().saturating_sub(self.lag);
        LedgerTime(1_000_000).after(passed)
    }

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
        self.reach(&key.mch_id)?;
        if self.shared.goes_wrong(8) {
            return Err(refused("not read"));
        }
        let mut store = self.shared.store.lock().unwrap();
        let order = store.orders.get(key).cloned();
        if order.is_none() && self.shared.mends.reads_ask_what_claims_ask {
            self.compare(&mut store, key)?;
        }
        Ok(order)
    }

    async fn due(
        &self,
        for_so_long: Duration,
        limit: usize,
        _rate: QueryRate<'_>,
    ) -> Result<Vec<OrderKey>, StoreError> {
        self.step().await;
        let is_away = self.shared.node_is_away.load(Ordering::Relaxed);
        if is_away && !self.shared.mends.nodes_are_apart {
            return Err(refused("a node is away"));
        }
        let now = self.time();
        let mut hidden = self.shared.hidden.lock().unwrap();
        let store = self.shared.store.lock().unwrap();
        let listed = store.orders.values().filter(|order| {
            let is_out_of_reach = is_away && order.key.mch_id.as_str() == NODE_OF_ITS_OWN;
            !is_out_of_reach && !store.unlisted.contains(&order.key)
        });
        Ok(due(listed, &mut hidden, now, now.after(for_so_long), limit))
    }

    async fn list(&self, _filter: &ListFilter) -> Result<Page, StoreError> {
        Ok(Page {
            orders: vec![],
            next: None,
        })
    }

    async fn unsettled(&self, _limit: usize) -> Result<Vec<Order>, StoreError> {
        let store = self.shared.store.lock().unwrap();
        let unsettled = store.orders.values().filter(|order| order.settled_at().is_none());
        Ok(unsettled.cloned().collect())
    }

    async fn used(&self, mch_id: &MchId, sum: &str) -> Result<i64, StoreError> {
        let store = self.shared.store.lock().unwrap();
        Ok(charged(store.orders.values(), mch_id, sum))
    }

    async fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn warnings(&self) -> Result<Vec<String>, StoreError> {
        Ok(vec![])
    }
}
