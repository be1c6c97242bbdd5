//! Applies operations to the file's tables. Each operation is written completely or not at all.

use std::time::Duration;

use redb::{ReadableDatabase as _, ReadableTable as _, Table, TableDefinition, WriteTransaction};

use crate::ledger::charges::Difference;
use crate::ledger::keeper::LedgerId;
use crate::ledger::record;
use crate::payouts::ports::{Inserted, Replaced, StoreError};
use payout_domain::ids::{LedgerTime, MchId, OrderKey, OrderNo};
use payout_domain::order::Order;

/// A record: the pinned part and the changing part. One value holds both, so that neither exists without the other.
pub(super) type Stored = (&'static [u8], &'static [u8]);
/// `mchId:mchBillno` to the record.
pub(super) const ORDERS: TableDefinition<'_, &str, Stored> = TableDefinition::new("orders");
/// Orders that are unsettled or followed, each with the ledger time at which the settler must look at it.
pub(super) const DUE: TableDefinition<'_, &str, i64> = TableDefinition::new("due");
/// Every order by the ledger time of its first claim.
pub(super) const LOG: TableDefinition<'_, (i64, &str), ()> = TableDefinition::new("log");
/// `name|mchId` of a charge to its sum and the ledger time of its last change.
pub(super) const SUMS: TableDefinition<'_, &str, (i64, i64)> = TableDefinition::new("sums");
/// What the file is: its `kind`, the ledger's `id`, and the ledger's time `t` at the last commit.
const ABOUT: TableDefinition<'_, &str, &str> = TableDefinition::new("about");
const KIND: &str = "payout-sidecar ledger 3";

/// How long to keep a sum after its last change. Each sum is for one day of the wall clock, and a charge is returned on
/// the day of its claim or soon after.
const SUM_KEPT: Duration = Duration::from_secs(3 * 86_400);
/// How many old records one clearing step examines.
const CLEAR_AT_MOST: usize = 512;

/// A place in the log.
pub(super) type LogPlace = (i64, String);

/// A change to write. The caller encodes the records, so that the writer need not.
pub(super) enum Operation {
    Insert(Order, (Vec<u8>, Vec<u8>)),
    /// The expected current record, and the next one.
    Replace(Box<(Order, Order)>, Vec<u8>),
    Remove(Order),
    /// Hides those of these orders that still have the due time at which they were found.
    Hide {
        found: Vec<(LedgerTime, OrderKey)>,
        until: LedgerTime,
    },
}

/// The result of an operation.
pub(super) enum Answer {
    Inserted(Inserted),
    Replaced(Replaced),
    Hidden(Vec<OrderKey>),
}

/// An error of the file, before anything was committed.
pub(super) fn failed(error: &dyn std::error::Error) -> StoreError {
    StoreError {
        unsure: false,
        text: format!("the ledger file: {error}"),
    }
}

/// The tables of one write transaction.
pub(super) struct Tables<'t> {
    orders: Table<'t, &'static str, Stored>,
    due: Table<'t, &'static str, i64>,
    log: Table<'t, (i64, &'static str), ()>,
    sums: Table<'t, &'static str, (i64, i64)>,
    about: Table<'t, &'static str, &'static str>,
    now: LedgerTime,
}

impl<'t> Tables<'t> {
    /// Opens the tables and saves the ledger's current time.
    pub(super) fn open(transaction: &'t WriteTransaction, now: LedgerTime) -> Result<Self, StoreError> {
        let mut about = transaction.open_table(ABOUT).map_err(|error| failed(&error))?;
        about
            .insert("t", &*now.0.to_string())
            .map_err(|error| failed(&error))?;
        Ok(Self {
            orders: transaction.open_table(ORDERS).map_err(|error| failed(&error))?,
            due: transaction.open_table(DUE).map_err(|error| failed(&error))?,
            log: transaction.open_table(LOG).map_err(|error| failed(&error))?,
            sums: transaction.open_table(SUMS).map_err(|error| failed(&error))?,
            about,
            now,
        })
    }

    /// Applies one operation. An inner `Err` concerns only this operation (a damaged record), which wrote nothing; an
    /// outer `Err` concerns the file and ends the transaction.
    pub(super) fn apply(&mut self, operation: &Operation) -> Result<Result<Answer, StoreError>, StoreError> {
        match operation {
            Operation::Insert(order, (pinned, changing)) => self
                .insert(order, (pinned, changing))
                .map(|done| done.map(Answer::Inserted)),
            Operation::Replace(change, changing) => self
                .replace(&change.0, &change.1, changing)
                .map(|done| done.map(Answer::Replaced)),
            Operation::Remove(order) => self.remove(order).map(|done| done.map(Answer::Replaced)),
            Operation::Hide { found, until } => self.hide(found, *until).map(|keys| Ok(Answer::Hidden(keys))),
        }
    }

    fn insert(
        &mut self,
        order: &Order,
        record: (&[u8], &[u8]),
    ) -> Result<Result<Inserted, StoreError>, StoreError> {
        let stored = match self.stored(&order.key)? {
            Ok(stored) => stored,
            Err(damaged) => return Ok(Err(damaged)),
        };
        if let Some(stored) = stored {
            // The same claim, written again after its acknowledgement was lost.
            let same = stored == *order;
            return Ok(Ok(if same {
                Inserted::Done
            } else {
                Inserted::Exists(Box::new(stored))
            }));
        }
        if let Some(at) = self.charge(&order.key, &Difference::between(None, Some(order)))? {
            return Ok(Ok(Inserted::OverLimit(at)));
        }
        self.log
            .insert((order.created_at.ledger.0, &*order.key.to_string()), ())
            .map_err(|error| failed(&error))?;
        self.put(order, record)?;
        Ok(Ok(Inserted::Done))
    }

    fn replace(
        &mut self,
        previous: &Order,
        next: &Order,
        changing: &[u8],
    ) -> Result<Result<Replaced, StoreError>, StoreError> {
        let pinned = {
            let record = self
                .orders
                .get(&*next.key.to_string())
                .map_err(|error| failed(&error))?;
            let Some(record) = record else {
                return Ok(Ok(Replaced::Moved(None)));
            };
            let stored = record.value();
            if stored.1 == changing && record::is_version(stored, next) {
                return Ok(Ok(Replaced::Done));
            }
            if !record::is_version(stored, previous) {
                let stored = record::decode(stored, &next.key);
                return Ok(stored.map(|stored| Replaced::Moved(Some(Box::new(stored)))));
            }
            // Keep the pinned part byte for byte.
            stored.0.to_owned()
        };
        if let Some(at) = self.charge(&next.key, &Difference::between(Some(previous), Some(next)))? {
            return Ok(Ok(Replaced::OverLimit(at)));
        }
        self.put(next, (&pinned, changing))?;
        Ok(Ok(Replaced::Done))
    }

    fn remove(&mut self, order: &Order) -> Result<Result<Replaced, StoreError>, StoreError> {
        let stored = match self.stored(&order.key)? {
            Ok(stored) => stored,
            Err(damaged) => return Ok(Err(damaged)),
        };
        match stored {
            Some(stored) if stored.version == order.version => {
                self.charge(&order.key, &Difference::between(Some(&stored), None))?;
                self.forget(&stored)?;
                Ok(Ok(Replaced::Done))
            }
            stored => Ok(Ok(Replaced::Moved(stored.map(Box::new)))),
        }
    }

    fn hide(
        &mut self,
        found: &[(LedgerTime, OrderKey)],
        until: LedgerTime,
    ) -> Result<Vec<OrderKey>, StoreError> {
        let mut hidden = Vec::with_capacity(found.len());
        for (at, key) in found {
            let name = key.to_string();
            let stands = self
                .due
                .get(&*name)
                .map_err(|error| failed(&error))?
                .map(|at| at.value());
            if stands == Some(at.0) {
                self.due.insert(&*name, until.0).map_err(|error| failed(&error))?;
                hidden.push(key.clone());
            }
        }
        Ok(hidden)
    }

    /// The outer error concerns the file; the inner one says that the record is damaged.
    fn stored(&self, key: &OrderKey) -> Result<Result<Option<Order>, StoreError>, StoreError> {
        let record = self
            .orders
            .get(&*key.to_string())
            .map_err(|error| failed(&error))?;
        Ok(record
            .map(|record| record::decode(record.value(), key))
            .transpose())
    }

    fn put(&mut self, order: &Order, record: (&[u8], &[u8])) -> Result<(), StoreError> {
        let key = order.key.to_string();
        self.orders
            .insert(&*key, record)
            .map_err(|error| failed(&error))?;
        match order.due_at() {
            Some(at) => self.due.insert(&*key, at.0).map_err(|error| failed(&error))?,
            None => self.due.remove(&*key).map_err(|error| failed(&error))?,
        };
        Ok(())
    }

    fn forget(&mut self, order: &Order) -> Result<(), StoreError> {
        let key = order.key.to_string();
        self.orders.remove(&*key).map_err(|error| failed(&error))?;
        self.due.remove(&*key).map_err(|error| failed(&error))?;
        self.log
            .remove((order.created_at.ledger.0, &*key))
            .map_err(|error| failed(&error))?;
        Ok(())
    }

    /// Adds and returns charges. `Some`: the charge at this place would exceed its limit, and nothing was written.
    fn charge(&mut self, key: &OrderKey, difference: &Difference<'_>) -> Result<Option<usize>, StoreError> {
        for (at, charge) in &difference.charged {
            let sum = self.sum(key, &charge.name)?;
            if sum
                .checked_add(charge.amount)
                .is_none_or(|sum| sum > charge.limit)
            {
                return Ok(Some(*at));
            }
        }
        let added = difference
            .charged
            .iter()
            .map(|(_, charge)| (&charge.name, charge.amount));
        let returned = difference
            .returned
            .iter()
            .map(|charge| (&charge.name, charge.amount.saturating_neg()));
        for (name, amount) in added.chain(returned) {
            let sum = std::cmp::max(self.sum(key, name)?.saturating_add(amount), 0);
            self.sums
                .insert(&*sum_name(&key.mch_id, name), (sum, self.now.0))
                .map_err(|error| failed(&error))?;
        }
        Ok(None)
    }

    fn sum(&self, key: &OrderKey, name: &str) -> Result<i64, StoreError> {
        let sum = self
            .sums
            .get(&*sum_name(&key.mch_id, name))
            .map_err(|error| failed(&error))?;
        Ok(sum.map_or(0, |sum| sum.value().0))
    }

    /// Clears settled records past their retention, and sums unchanged for days. Keeps unsettled records. Examines a
    /// limited number of records from a place in the log on, and returns where to continue.
    pub(super) fn clear(
        &mut self,
        retention: Duration,
        from: Option<LogPlace>,
    ) -> Result<Option<LogPlace>, StoreError> {
        let (created, key) = from.unwrap_or((i64::MIN, String::new()));
        let mut old = Vec::new();
        for entry in self
            .log
            .range((created, &*key)..)
            .map_err(|error| failed(&error))?
        {
            let (at, _) = entry.map_err(|error| failed(&error))?;
            let (created, key) = at.value();
            // A record changes no earlier than it was created.
            if self.now.since(LedgerTime(created)) < retention {
                break;
            }
            old.push((created, key.to_owned()));
            if old.len() > CLEAR_AT_MOST {
                break;
            }
        }
        let rest = if old.len() > CLEAR_AT_MOST {
            old.pop()
        } else {
            None
        };
        for (_, key) in &old {
            if let Ok(key) = key_of(key)
                && let Ok(Some(order)) = self.stored(&key)?
                && order.settled_at().is_some()
                && self.now.since(order.changed_at) >= retention
            {
                self.forget(&order)?;
            }
        }
        let now = self.now;
        self.sums
            .retain(|_, (_, changed_at)| now.since(LedgerTime(changed_at)) < SUM_KEPT)
            .map_err(|error| failed(&error))?;
        Ok(rest)
    }
}

pub(super) fn sum_name(mch_id: &MchId, name: &str) -> String {
    format!("{name}|{mch_id}")
}

pub(super) fn key_of(text: &str) -> Result<OrderKey, StoreError> {
    let damaged = || StoreError {
        unsure: false,
        text: format!("the ledger file has a key that is none: {text}"),
    };
    let (mch_id, order_no) = text.split_once(':').ok_or_else(damaged)?;
    let mch_id = MchId::parse(mch_id).map_err(|_| damaged())?;
    let order_no = OrderNo::parse(order_no).map_err(|_| damaged())?;
    Ok(OrderKey { mch_id, order_no })
}

/// Creates the tables of a new file.
pub(super) fn create(database: &redb::Database, now: LedgerTime) -> Result<(), StoreError> {
    let id = LedgerId::random();
    let mut transaction = database.begin_write().map_err(|error| failed(&error))?;
    transaction.set_two_phase_commit(true);
    {
        let mut tables = Tables::open(&transaction, now)?;
        for (name, value) in [("kind", KIND), ("id", id.as_str())] {
            tables.about.insert(name, value).map_err(|error| failed(&error))?;
        }
    }
    transaction.commit().map_err(|error| failed(&error))
}

/// What a file says about itself.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) id: LedgerId,
    /// The ledger's time at the last commit.
    pub(super) time: LedgerTime,
}

/// Checks that the file is a ledger.
pub(super) fn check(database: &redb::Database) -> Result<About, String> {
    let transaction = database.begin_read().map_err(|error| error.to_string())?;
    let about = transaction
        .open_table(ABOUT)
        .map_err(|_| "it is another program's database".to_owned())?;
    let word = |name: &str| -> Result<Option<String>, String> {
        let found = about.get(name).map_err(|error| error.to_string())?;
        Ok(found.map(|found| found.value().to_owned()))
    };
    match word("kind")?.as_deref() {
        Some(KIND) => {}
        kind => return Err(format!("it says that it is {kind:?}, not {KIND:?}")),
    }
    let id = word("id")?.as_deref().and_then(LedgerId::parse);
    let time = word("t")?.and_then(|time| time.parse().ok()).map(LedgerTime);
    transaction
        .open_table(ORDERS)
        .map_err(|error| error.to_string())?;
    transaction.open_table(DUE).map_err(|error| error.to_string())?;
    transaction.open_table(LOG).map_err(|error| error.to_string())?;
    transaction.open_table(SUMS).map_err(|error| error.to_string())?;
    Ok(About {
        id: id.ok_or("it has no identity")?,
        time: time.ok_or("it does not say how late it is")?,
    })
}
