//! Reads from the file's tables, each time in one transaction.

use std::collections::HashMap;

use redb::{ReadTransaction, ReadableTable as _};

use super::tables::{DUE, LOG, ORDERS, SUMS, failed, key_of, sum_name};
use crate::ledger::record;
use crate::payouts::ports::{ListFilter, Page, StoreError};
use payout_domain::ids::{LedgerTime, MchId, OrderKey};
use payout_domain::order::Order;

/// How many records one page of a list examines at most.
const LIST_AT_MOST: usize = 10_000;

/// The order's record.
pub(super) fn get(transaction: &ReadTransaction, key: &OrderKey) -> Result<Option<Order>, StoreError> {
    let orders = transaction.open_table(ORDERS).map_err(|error| failed(&error))?;
    let record = orders.get(&*key.to_string()).map_err(|error| failed(&error))?;
    record
        .map(|record| record::decode(record.value(), key))
        .transpose()
}

/// The current value of a sum.
pub(super) fn used(transaction: &ReadTransaction, mch_id: &MchId, name: &str) -> Result<i64, StoreError> {
    let sums = transaction.open_table(SUMS).map_err(|error| failed(&error))?;
    let sum = sums
        .get(&*sum_name(mch_id, name))
        .map_err(|error| failed(&error))?;
    Ok(sum.map_or(0, |sum| sum.value().0))
}

/// The orders that are due, oldest first, at most `of_each` of each merchant.
pub(super) fn due(
    transaction: &ReadTransaction,
    now: LedgerTime,
    of_each: usize,
) -> Result<Vec<(LedgerTime, OrderKey)>, StoreError> {
    let due = transaction.open_table(DUE).map_err(|error| failed(&error))?;
    let mut ripe = Vec::new();
    for entry in due.iter().map_err(|error| failed(&error))? {
        let (key, at) = entry.map_err(|error| failed(&error))?;
        if at.value() <= now.0 {
            ripe.push((at.value(), key.value().to_owned()));
        }
    }
    ripe.sort_unstable();
    let mut taken: HashMap<MchId, usize> = HashMap::new();
    let mut found = Vec::new();
    for (at, key) in ripe {
        let key = key_of(&key)?;
        let taken = taken.entry(key.mch_id.clone()).or_default();
        if *taken < of_each {
            *taken = taken.saturating_add(1);
            found.push((LedgerTime(at), key));
        }
    }
    Ok(found)
}

/// Up to `limit` orders that are pending or unknown.
pub(super) fn unsettled(transaction: &ReadTransaction, limit: usize) -> Result<Vec<Order>, StoreError> {
    let due = transaction.open_table(DUE).map_err(|error| failed(&error))?;
    let mut found = Vec::new();
    for entry in due.iter().map_err(|error| failed(&error))? {
        if found.len() >= limit {
            break;
        }
        let (key, _) = entry.map_err(|error| failed(&error))?;
        if let Some(order) = get(transaction, &key_of(key.value())?)?
            && order.settled_at().is_none()
        {
            found.push(order);
        }
    }
    Ok(found)
}

/// How many merchants have records.
pub(super) fn merchants(transaction: &ReadTransaction) -> Result<usize, StoreError> {
    let orders = transaction.open_table(ORDERS).map_err(|error| failed(&error))?;
    let mut count: usize = 0;
    let mut from = String::new();
    while let Some(entry) = orders.range(&*from..).map_err(|error| failed(&error))?.next() {
        let (key, _) = entry.map_err(|error| failed(&error))?;
        let key = key_of(key.value())?;
        count = count.saturating_add(1);
        // Sorts after every key that begins with `mchId:`.
        from = format!("{};", key.mch_id);
    }
    Ok(count)
}

/// A page of orders, newest first. The cursor is the log place of the last record examined. The log is read down to
/// `from`: the caller guarantees that no older entry passes the filter.
pub(super) fn list(
    transaction: &ReadTransaction,
    filter: &ListFilter,
    from: LedgerTime,
) -> Result<Page, StoreError> {
    let log = transaction.open_table(LOG).map_err(|error| failed(&error))?;
    let end = filter.cursor.as_deref().map(cursor_of).transpose()?;
    let range = match &end {
        Some((created, key)) => log.range((from.0, "")..(*created, key.as_str())),
        None => log.range((from.0, "")..),
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
            && filter.since.is_none_or(|since| order.created_at.wall >= since)
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
