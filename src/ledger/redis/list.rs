//! Lists orders from Redis: newest first over all merchants, merged from their logs.

use std::collections::BTreeMap;

use super::argument::Argument;
use super::{RedisLedger, failed};
use crate::payouts::ports::{ListFilter, Page, StoreError};
use payout_domain::ids::{MchId, OrderKey, OrderNo};
use payout_domain::order::Order;

/// How many order numbers to read from a merchant's log at a time.
const BITE: isize = 128;
/// How many records one page examines at most.
const AT_MOST: usize = 10_000;

/// A cursor is the place of the last examined order: its time, merchant and number.
type Location = (i64, String, String);

pub(super) async fn list(ledger: &RedisLedger, filter: &ListFilter) -> Result<Page, StoreError> {
    let end = filter.cursor.as_deref().map(cursor_of).transpose()?;
    ledger.registry.known().await?;
    // The log uses the ledger's time, the filter uses the wall clock.
    let now = ledger.registry.moment();
    let ahead = now.wall.0.saturating_sub(now.ledger.0);
    let since = filter.since.map(|since| since.0.saturating_sub(ahead));
    let merchants = match &filter.mch_id {
        Some(mch_id) => vec![mch_id.clone()],
        None => ledger.registry.merchants().await.into_iter().collect(),
    };
    let mut logs: Vec<Log> = merchants
        .into_iter()
        .map(|mch_id| Log::new(mch_id, end.as_ref(), since))
        .collect();
    let mut newest: BTreeMap<Location, usize> = BTreeMap::new();
    for (at, log) in logs.iter_mut().enumerate() {
        if let Some(place) = log.next(ledger, end.as_ref()).await? {
            newest.insert(place, at);
        }
    }
    let mut page = Page {
        orders: Vec::new(),
        next: None,
    };
    let mut looked_at: usize = 0;
    while let Some((place, at)) = newest.pop_last() {
        if let Some(log) = logs.get_mut(at) {
            if let Some(order) = log.order(ledger, &place).await?
                && filter.state.is_none_or(|state| state == order.state.name())
                && filter.since.is_none_or(|since| order.created_at.wall >= since)
            {
                page.orders.push(order);
            }
            if let Some(next) = log.next(ledger, end.as_ref()).await? {
                newest.insert(next, at);
            }
        }
        looked_at = looked_at.saturating_add(1);
        if page.orders.len() >= filter.limit || looked_at >= AT_MOST {
            let (created, mch_id, number) = place;
            page.next = Some(format!("{created}.{mch_id}.{number}"));
            break;
        }
    }
    Ok(page)
}

/// One merchant's log, read from the newest entry down.
struct Log {
    mch_id: MchId,
    most: String,
    least: String,
    taken: isize,
    waiting: Vec<(String, i64)>,
    is_over: bool,
}

impl Log {
    fn new(mch_id: MchId, end: Option<&Location>, since: Option<i64>) -> Self {
        let most = end.map_or_else(|| "+inf".to_owned(), |(created, _, _)| created.to_string());
        // Exclude the ledger's identity, which has the score `-inf`.
        let least = since.map_or_else(|| "(-inf".to_owned(), |since| since.to_string());
        Self {
            mch_id,
            most,
            least,
            taken: 0,
            waiting: Vec::new(),
            is_over: false,
        }
    }

    /// The next place before `end`.
    async fn next(
        &mut self,
        ledger: &RedisLedger,
        end: Option<&Location>,
    ) -> Result<Option<Location>, StoreError> {
        loop {
            while let Some((number, created)) = self.waiting.pop() {
                let place = (created, self.mch_id.as_str().to_owned(), number);
                if end.is_none_or(|end| place < *end) {
                    return Ok(Some(place));
                }
            }
            if self.is_over {
                return Ok(None);
            }
            let mut command = redis::cmd("ZREVRANGEBYSCORE");
            command
                .arg(ledger.store.key(&self.mch_id, "log"))
                .arg(&self.most)
                .arg(&self.least)
                .arg("WITHSCORES");
            command.arg("LIMIT").arg(self.taken).arg(BITE);
            let bite: Vec<(String, i64)> = ledger
                .store
                .link
                .read(&command)
                .await
                .map_err(|error| failed(&error))?;
            self.taken = self.taken.saturating_add(BITE);
            self.is_over = bite.len() < usize::try_from(BITE).unwrap_or(usize::MAX);
            self.waiting = bite;
            self.waiting.reverse();
        }
    }

    /// The record at a place. If its retention has passed, this removes the order from the log. If the record was lost,
    /// the log keeps the order, as proof that it existed.
    async fn order(&self, ledger: &RedisLedger, place: &Location) -> Result<Option<Order>, StoreError> {
        let Ok(order_no) = OrderNo::parse(&place.2) else {
            return Ok(None);
        };
        let key = OrderKey {
            mch_id: self.mch_id.clone(),
            order_no,
        };
        let order = ledger.stored(&key).await?;
        if order.is_none() {
            let keys = [ledger.store.order(&key), ledger.store.key(&self.mch_id, "log")];
            let arguments = [Argument::Text(&place.2), Argument::Number(ledger.oldest_record())];
            ledger
                .store
                .run(&ledger.scripts.trim, &keys, &arguments, None)
                .await?;
        }
        Ok(order)
    }
}

fn cursor_of(cursor: &str) -> Result<Location, StoreError> {
    let mut parts = cursor.splitn(3, '.');
    let place = (|| {
        Some((
            parts.next()?.parse().ok()?,
            parts.next()?.to_owned(),
            parts.next()?.to_owned(),
        ))
    })();
    place.ok_or_else(|| StoreError {
        unsure: false,
        text: "the cursor is not one of this ledger's".to_owned(),
    })
}
