//! What one transaction does to the file's tables. Every operation either writes all that belongs to it, or nothing.

use redb::{ReadTransaction, ReadableDatabase as _, ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::ledger::charges::{Difference, day_of};
use crate::ledger::record;
use crate::payout::ports::{Inserted, ListFilter, Page, Replaced, StoreError};
use crate::rules::day::BeijingDay;
use crate::rules::order::{Order, Version};
use crate::rules::term::{MchId, Millis, OrderKey};

/// `mchId:mchBillno` to the record's text.
const ORDERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("orders");
/// Unsettled orders, and when somebody must look at them (ms since 1970).
const DUE: TableDefinition<'_, &str, i64> = TableDefinition::new("due");
/// Every order by the time of its first claim.
const LOG: TableDefinition<'_, (i64, &str), ()> = TableDefinition::new("log");
/// `mchId|name` of a charge to its sum.
const SUMS: TableDefinition<'_, &str, i64> = TableDefinition::new("sums");
/// What the file is.
const ABOUT: TableDefinition<'_, &str, &str> = TableDefinition::new("about");
const KIND: &str = "payout-sidecar ledger 1";

/// How many Beijing days a sum is kept: a charge is given back on the day of its claim or soon after.
const SUM_DAYS: i64 = 3;
/// How many old records one clearing looks at.
const CLEAR_AT_MOST: usize = 512;
/// How many records one page of a list looks at.
const LIST_AT_MOST: usize = 10_000;

/// Something to write.
pub(super) enum Operation {
    Insert(Order),
    Replace(Version, Order),
    Remove(Order),
    Due {
        now: Millis,
        hidden_until: Millis,
        limit: usize,
    },
}

/// What came of it.
pub(super) enum Answer {
    Inserted(Inserted),
    Replaced(Replaced),
    Due(Vec<OrderKey>),
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
    orders: Table<'t, &'static str, &'static [u8]>,
    due: Table<'t, &'static str, i64>,
    log: Table<'t, (i64, &'static str), ()>,
    sums: Table<'t, &'static str, i64>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            orders: transaction.open_table(ORDERS).map_err(|error| failed(&error))?,
            due: transaction.open_table(DUE).map_err(|error| failed(&error))?,
            log: transaction.open_table(LOG).map_err(|error| failed(&error))?,
            sums: transaction.open_table(SUMS).map_err(|error| failed(&error))?,
        })
    }

    /// Applies one operation. An `Err` inside is this operation's own (a damaged record), and nothing was written for it;
    /// an `Err` outside is the file's, and ends the transaction.
    pub(super) fn apply(&mut self, operation: &Operation) -> Result<Result<Answer, StoreError>, StoreError> {
        match operation {
            Operation::Insert(order) => self.insert(order).map(|done| done.map(Answer::Inserted)),
            Operation::Replace(previous, next) => self
                .replace(*previous, next)
                .map(|done| done.map(Answer::Replaced)),
            Operation::Remove(order) => self.remove(order).map(|done| done.map(Answer::Replaced)),
            Operation::Due {
                now,
                hidden_until,
                limit,
            } => self
                .take_due(*now, *hidden_until, *limit)
                .map(|keys| Ok(Answer::Due(keys))),
        }
    }

    fn insert(&mut self, order: &Order) -> Result<Result<Inserted, StoreError>, StoreError> {
        let stored = match self.stored(&order.key)? {
            Ok(stored) => stored,
            Err(damaged) => return Ok(Err(damaged)),
        };
        if let Some(stored) = stored {
            // The very same claim, written again after its acknowledgement was lost.
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
            .insert((order.created_at.0, &*order.key.to_string()), ())
            .map_err(|error| failed(&error))?;
        self.put(order)?;
        Ok(Ok(Inserted::Done))
    }

    fn replace(
        &mut self,
        previous: Version,
        next: &Order,
    ) -> Result<Result<Replaced, StoreError>, StoreError> {
        let stored = match self.stored(&next.key)? {
            Ok(stored) => stored,
            Err(damaged) => return Ok(Err(damaged)),
        };
        match stored {
            Some(stored) if stored == *next => Ok(Ok(Replaced::Done)),
            Some(stored) if stored.version == previous => {
                if let Some(at) = self.charge(&next.key, &Difference::between(Some(&stored), Some(next)))? {
                    return Ok(Ok(Replaced::OverLimit(at)));
                }
                self.put(next)?;
                Ok(Ok(Replaced::Done))
            }
            stored => Ok(Ok(Replaced::Moved(stored.map(Box::new)))),
        }
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

    fn take_due(
        &mut self,
        now: Millis,
        hidden_until: Millis,
        limit: usize,
    ) -> Result<Vec<OrderKey>, StoreError> {
        let mut due = Vec::new();
        for entry in self.due.iter().map_err(|error| failed(&error))? {
            let (key, at) = entry.map_err(|error| failed(&error))?;
            if at.value() <= now.0 {
                due.push((at.value(), key.value().to_owned()));
            }
        }
        due.sort_unstable();
        due.truncate(limit);
        let mut keys = Vec::with_capacity(due.len());
        for (_, text) in due {
            self.due
                .insert(&*text, hidden_until.0)
                .map_err(|error| failed(&error))?;
            keys.push(key_of(&text)?);
        }
        Ok(keys)
    }

    /// The outer error is the file's, the inner one says that the record is damaged.
    fn stored(&self, key: &OrderKey) -> Result<Result<Option<Order>, StoreError>, StoreError> {
        let text = self
            .orders
            .get(&*key.to_string())
            .map_err(|error| failed(&error))?;
        Ok(text.map(|text| record::decode(text.value(), key)).transpose())
    }

    fn put(&mut self, order: &Order) -> Result<(), StoreError> {
        let key = order.key.to_string();
        let text = record::encode(order);
        self.orders
            .insert(&*key, text.as_bytes())
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
            .remove((order.created_at.0, &*key))
            .map_err(|error| failed(&error))?;
        Ok(())
    }

    /// Charges and gives back; `Some`: the charge at this place would pass its limit, and nothing was written.
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
                .insert(&*sum_name(&key.mch_id, name), sum)
                .map_err(|error| failed(&error))?;
        }
        Ok(None)
    }

    fn sum(&self, key: &OrderKey, name: &str) -> Result<i64, StoreError> {
        let sum = self
            .sums
            .get(&*sum_name(&key.mch_id, name))
            .map_err(|error| failed(&error))?;
        Ok(sum.map_or(0, |sum| sum.value()))
    }

    /// Clears away settled records past their retention, and sums of days gone by. Unsettled records stay.
    pub(super) fn clear(&mut self, now: Millis, retention: std::time::Duration) -> Result<(), StoreError> {
        let mut old = Vec::new();
        for entry in self
            .log
            .iter()
            .map_err(|error| failed(&error))?
            .take(CLEAR_AT_MOST)
        {
            let (at, ()) = entry.map(|(key, _)| (key, ())).map_err(|error| failed(&error))?;
            let (created, key) = at.value();
            if now.since(Millis(created)) < retention {
                break;
            }
            old.push(key_of(key)?);
        }
        for key in old {
            if let Ok(Some(order)) = self.stored(&key)?
                && order.settled_at().is_some_and(|at| now.since(at) >= retention)
            {
                self.forget(&order)?;
            }
        }
        let today = BeijingDay::of(now);
        let is_over =
            |name: &str| day_of(name).is_some_and(|day| today.days_after(BeijingDay(day)) > SUM_DAYS);
        self.sums
            .retain(|name, _| !is_over(name))
            .map_err(|error| failed(&error))
    }
}

fn sum_name(mch_id: &MchId, name: &str) -> String {
    // The name goes first, so that its day is found in the same place everywhere.
    format!("{name}|{mch_id}")
}

fn key_of(text: &str) -> Result<OrderKey, StoreError> {
    let damaged = || StoreError {
        unsure: false,
        text: format!("the ledger file has a key that is none: {text}"),
    };
    let (mch_id, order_no) = text.split_once(':').ok_or_else(damaged)?;
    let mch_id = MchId::parse(mch_id).map_err(|_| damaged())?;
    let order_no = crate::rules::term::OrderNo::parse(order_no).map_err(|_| damaged())?;
    Ok(OrderKey { mch_id, order_no })
}

/// Makes the tables of a new file.
pub(super) fn create(database: &redb::Database) -> Result<(), StoreError> {
    let mut transaction = database.begin_write().map_err(|error| failed(&error))?;
    transaction.set_two_phase_commit(true);
    Tables::open(&transaction)?;
    {
        let mut about = transaction.open_table(ABOUT).map_err(|error| failed(&error))?;
        about.insert("kind", KIND).map_err(|error| failed(&error))?;
    }
    transaction.commit().map_err(|error| failed(&error))
}

/// Makes sure that a file is a ledger.
pub(super) fn check(database: &redb::Database) -> Result<(), String> {
    let transaction = database.begin_read().map_err(|error| error.to_string())?;
    let about = transaction
        .open_table(ABOUT)
        .map_err(|_| "it is another program's database".to_owned())?;
    let kind = about.get("kind").map_err(|error| error.to_string())?;
    match kind.as_ref().map(redb::AccessGuard::value) {
        Some(KIND) => {}
        kind => return Err(format!("it says that it is {kind:?}, not {KIND:?}")),
    }
    transaction
        .open_table(ORDERS)
        .map_err(|error| error.to_string())?;
    transaction.open_table(DUE).map_err(|error| error.to_string())?;
    transaction.open_table(LOG).map_err(|error| error.to_string())?;
    transaction.open_table(SUMS).map_err(|error| error.to_string())?;
    Ok(())
}

/// The order's record.
pub(super) fn get(transaction: &ReadTransaction, key: &OrderKey) -> Result<Option<Order>, StoreError> {
    let orders = transaction.open_table(ORDERS).map_err(|error| failed(&error))?;
    let text = orders.get(&*key.to_string()).map_err(|error| failed(&error))?;
    text.map(|text| record::decode(text.value(), key)).transpose()
}

/// What of a sum is used up.
pub(super) fn used(transaction: &ReadTransaction, mch_id: &MchId, name: &str) -> Result<i64, StoreError> {
    let sums = transaction.open_table(SUMS).map_err(|error| failed(&error))?;
    let sum = sums
        .get(&*sum_name(mch_id, name))
        .map_err(|error| failed(&error))?;
    Ok(sum.map_or(0, |sum| sum.value()))
}

/// Whether any order is due.
pub(super) fn has_due(transaction: &ReadTransaction, now: Millis) -> Result<bool, StoreError> {
    let due = transaction.open_table(DUE).map_err(|error| failed(&error))?;
    for entry in due.iter().map_err(|error| failed(&error))? {
        if entry.map_err(|error| failed(&error))?.1.value() <= now.0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A page of orders, newest first. The cursor is the place of the last record that was looked at.
pub(super) fn list(transaction: &ReadTransaction, filter: &ListFilter) -> Result<Page, StoreError> {
    let log = transaction.open_table(LOG).map_err(|error| failed(&error))?;
    let since = filter.since.map_or(i64::MIN, |since| since.0);
    let end = filter.cursor.as_deref().map(cursor_of).transpose()?;
    let range = match &end {
        Some((created, key)) => log.range((since, "")..(*created, key.as_str())),
        None => log.range((since, "")..),
    };
    let mut page = Page {
        orders: Vec::new(),
        next: None,
    };
    for (looked_at, entry) in range.map_err(|error| failed(&error))?.rev().enumerate() {
        let (at, _) = entry.map_err(|error| failed(&error))?;
        let (created, text) = at.value();
        let key = key_of(text)?;
        let wanted = filter.mch_id.as_ref().is_none_or(|mch_id| *mch_id == key.mch_id);
        if let Some(order) = if wanted { get(transaction, &key)? } else { None }
            && filter.state.is_none_or(|state| state == order.state.name())
        {
            page.orders.push(order);
        }
        if page.orders.len() >= filter.limit || looked_at >= LIST_AT_MOST {
            page.next = Some(format!("{created}.{text}"));
            break;
        }
    }
    Ok(page)
}

fn cursor_of(cursor: &str) -> Result<(i64, String), StoreError> {
    let place = cursor
        .split_once('.')
        .and_then(|(created, key)| Some((created.parse().ok()?, key.to_owned())));
    place.ok_or_else(|| StoreError {
        unsure: false,
        text: "the cursor is not one of this ledger's".to_owned(),
    })
}
