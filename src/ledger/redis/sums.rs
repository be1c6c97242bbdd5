//! Compares today's sums of the limits with the records that were charged, and corrects sums that stay wrong. An
//! eviction deletes a sum, and a stopped script leaves one wrong.
//!
//! Claims continue meanwhile. So a sum counts as wrong only if it did not change while the records were read, and
//! differs by the same amount as at the previous comparison. The correction is written only if the sum is still
//! unchanged.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::{Cmd, Script};

use super::store::{Store, order_of, refused};
use super::{SUM_EXPIRY, failed};
use crate::ledger::charges::day_of;
use crate::payouts::ports::StoreError;
use payout_domain::day::BeijingDay;
use payout_domain::ids::{MchId, Moment, OrderKey, OrderNo};
use payout_domain::order::Order;

static MEND: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("mend_sum.lua")));

/// An order claimed longer ago than this was not claimed today.
const A_DAY_AND_MORE_MS: i64 = 25 * 3_600_000;
/// The shortest time between two comparisons of a merchant, and the addition to it for each order that has to be read.
const EVERY: Duration = Duration::from_secs(60);
const EVERY_FOR_EACH: Duration = Duration::from_millis(30);
/// The comparison skips merchants with more orders than this in a day.
const AT_MOST: usize = 20_000;
/// How many records to read per step.
const BITE: usize = 500;

/// Compares sums, and remembers the results.
pub(super) struct Sums {
    store: Store,
    is_comparing: AtomicBool,
    seen: Mutex<HashMap<MchId, Seen>>,
}

/// The result of a merchant's last comparison.
#[derive(Clone, Default)]
struct Seen {
    /// By how much each wrong sum must change.
    differences: BTreeMap<String, i64>,
    /// When to compare again.
    again_at: Option<Instant>,
    /// Whether the log already says that there are too many orders.
    has_too_many: bool,
}

/// A wrong sum, and by how much it must change.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Wrong {
    sum: i64,
    by: i64,
}

impl Sums {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            is_comparing: AtomicBool::new(false),
            seen: Mutex::default(),
        }
    }

    /// Compares the sums of the merchants that are due, in the background.
    pub(super) fn compare_all(self: Arc<Self>, merchants: Vec<MchId>, now: Moment) {
        let is_due = |mch_id: &MchId| {
            let again_at = self.seen_of(mch_id).again_at;
            again_at.is_none_or(|at| at <= Instant::now())
        };
        let merchants: Vec<MchId> = merchants.into_iter().filter(is_due).collect();
        if merchants.is_empty() || self.is_comparing.swap(true, Ordering::AcqRel) {
            return;
        }
        tokio::spawn(async move {
            for mch_id in merchants {
                if let Err(error) = self.compare(&mch_id, now).await {
                    tracing::debug!(%mch_id, %error, "the sums of the limits could not be compared with the records");
                }
            }
            self.is_comparing.store(false, Ordering::Release);
        });
    }

    /// Compares the sums of one merchant. Returns how many were corrected.
    pub(super) async fn compare(&self, mch_id: &MchId, now: Moment) -> Result<usize, StoreError> {
        let mut seen = self.seen_of(mch_id);
        seen.again_at = Instant::now().checked_add(EVERY);
        self.remember(mch_id, seen.clone());
        let numbers = self.numbers(mch_id, now).await?;
        if numbers.len() > AT_MOST {
            if !seen.has_too_many {
                let orders = numbers.len();
                tracing::info!(%mch_id, orders, "too many orders in a day to compare the sums of the limits with");
                seen.has_too_many = true;
                self.remember(mch_id, seen);
            }
            return Ok(0);
        }
        let pause = EVERY_FOR_EACH.saturating_mul(u32::try_from(numbers.len()).unwrap_or(u32::MAX));
        seen.again_at = Instant::now().checked_add(std::cmp::max(EVERY, pause));
        let found = self.differences(mch_id, &numbers, now).await?;
        let is_seen_again = |name: &String, wrong: &Wrong| seen.differences.get(name) == Some(&wrong.by);
        let mut mended: usize = 0;
        if found.iter().any(|(name, wrong)| is_seen_again(name, wrong)) {
            // The first comparison read each sum before these records, the second reads it after them: an equal sum did
            // not change meanwhile.
            let numbers = self.numbers(mch_id, now).await?;
            let again = self.differences(mch_id, &numbers, now).await?;
            for (name, wrong) in &found {
                if is_seen_again(name, wrong)
                    && again.get(name) == Some(wrong)
                    && self.mend(mch_id, name, *wrong).await?
                {
                    mended = mended.saturating_add(1);
                }
            }
        }
        seen.differences = found.into_iter().map(|(name, wrong)| (name, wrong.by)).collect();
        self.remember(mch_id, seen);
        Ok(mended)
    }

    /// The orders that may have been charged today.
    async fn numbers(&self, mch_id: &MchId, now: Moment) -> Result<BTreeSet<OrderNo>, StoreError> {
        let a_day_ago = now.ledger.0.saturating_sub(A_DAY_AND_MORE_MS);
        let mut numbers = BTreeSet::new();
        for what in ["log", "again"] {
            let mut look = redis::cmd("ZREVRANGEBYSCORE");
            look.arg(self.store.key(mch_id, what)).arg("+inf").arg(a_day_ago);
            look.arg("LIMIT").arg(0).arg(AT_MOST.saturating_add(1));
            let found: Vec<String> = self
                .store
                .link
                .read(&look)
                .await
                .map_err(|error| failed(&error))?;
            numbers.extend(found.iter().filter_map(|number| OrderNo::parse(number).ok()));
        }
        Ok(numbers)
    }

    /// Today's sums that differ from the records, by name.
    async fn differences(
        &self,
        mch_id: &MchId,
        numbers: &BTreeSet<OrderNo>,
        now: Moment,
    ) -> Result<BTreeMap<String, Wrong>, StoreError> {
        let today = BeijingDay::of(now.wall).0;
        let mut charged = BTreeMap::<String, i64>::new();
        let mut is_whole = true;
        let numbers: Vec<&OrderNo> = numbers.iter().collect();
        for bite in numbers.chunks(BITE) {
            for order in self.orders(mch_id, bite).await? {
                let Some(order) = order else {
                    is_whole = false;
                    continue;
                };
                let kept = order.charges.iter().map(|charge| (&charge.name, charge.amount));
                let returned = order.returned.iter().map(|charge| (&charge.name, 0));
                for (name, amount) in kept.chain(returned) {
                    if day_of(name) == Some(today) {
                        let sum = charged.entry(name.clone()).or_default();
                        *sum = sum.saturating_add(amount);
                    }
                }
            }
        }
        let mut wrong = BTreeMap::new();
        let charged: Vec<(String, i64)> = charged.into_iter().collect();
        for bite in charged.chunks(BITE) {
            let looks = bite
                .iter()
                .map(|(name, _)| Cmd::get(self.store.sum(mch_id, name)));
            let sums = self.answers::<Option<i64>>(looks.collect()).await?;
            for ((name, charged), sum) in bite.iter().zip(sums) {
                let sum = sum.unwrap_or_default();
                let by = charged.saturating_sub(sum);
                // An order without a record may have been charged and paid, so do not lower the sum.
                if by > 0 || (by < 0 && is_whole) {
                    wrong.insert(name.clone(), Wrong { sum, by });
                }
            }
        }
        Ok(wrong)
    }

    /// The orders of these numbers; `None` for an order without a readable record.
    async fn orders(&self, mch_id: &MchId, numbers: &[&OrderNo]) -> Result<Vec<Option<Order>>, StoreError> {
        let keys: Vec<OrderKey> = numbers
            .iter()
            .map(|order_no| OrderKey {
                mch_id: mch_id.clone(),
                order_no: (*order_no).clone(),
            })
            .collect();
        let looks = keys.iter().map(|key| self.store.look(key));
        let stored = self.answers(looks.collect()).await?;
        let orders = keys.iter().zip(stored);
        Ok(orders
            .map(|(key, stored)| order_of(stored, key).unwrap_or_default())
            .collect())
    }

    async fn answers<T: redis::FromRedisValue>(&self, commands: Vec<Cmd>) -> Result<Vec<T>, StoreError> {
        let answers = self
            .store
            .link
            .all(commands)
            .await
            .map_err(|error| failed(&error))?;
        let typed = answers.into_iter().map(|answer| {
            let value = answer.map_err(|error| failed(&error))?;
            T::from_redis_value(value).map_err(|error| refused(error.to_string()))
        });
        typed.collect()
    }

    async fn mend(&self, mch_id: &MchId, name: &str, Wrong { sum, by }: Wrong) -> Result<bool, StoreError> {
        let right = sum.saturating_add(by);
        let keys = [self.store.sum(mch_id, name)];
        let arguments = [sum, right].map(|number| number.to_string());
        let arguments = [arguments.as_slice(), &[SUM_EXPIRY.as_millis().to_string()]].concat();
        let (word, _) = self.store.run(&MEND, &keys, &arguments, None).await?;
        let is_mended = word == "done";
        if is_mended {
            tracing::warn!(%mch_id, was = sum, is = right, "a sum of the limits was not what its orders had been charged: it was mended");
        }
        Ok(is_mended)
    }

    fn seen_of(&self, mch_id: &MchId) -> Seen {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(mch_id).cloned().unwrap_or_default()
    }

    fn remember(&self, mch_id: &MchId, what: Seen) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(mch_id.clone(), what);
    }
}
