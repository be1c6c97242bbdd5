//! Counts how many orders of each merchant were handed out in the last second, so that the settler asks no upstream
//! faster than its rate.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::payouts::ports::QueryRate;
use payout_domain::ids::{LedgerTime, MchId, OrderKey};

const WINDOW: Duration = Duration::from_secs(1);

/// The recent counts of each merchant, each with its time.
#[derive(Default)]
pub(super) struct Paced(Mutex<HashMap<MchId, VecDeque<(Instant, u32)>>>);

impl Paced {
    /// Chooses up to `limit` of these orders within each merchant's rate, and counts them as handed out.
    pub(super) fn choose(
        &self,
        due: Vec<(LedgerTime, OrderKey)>,
        limit: usize,
        rate: QueryRate<'_>,
    ) -> Vec<(LedgerTime, OrderKey)> {
        let mut handed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        handed.retain(|_, handed| {
            handed.retain(|(at, _)| at.elapsed() < WINDOW);
            !handed.is_empty()
        });
        let mut left: HashMap<MchId, u32> = HashMap::new();
        let mut chosen: Vec<(LedgerTime, OrderKey)> = Vec::new();
        for (at, key) in due {
            if chosen.len() >= limit {
                break;
            }
            let left = left.entry(key.mch_id.clone()).or_insert_with(|| {
                let handed = handed.get(&key.mch_id).into_iter().flatten();
                let count = handed.fold(0_u32, |sum, (_, count)| sum.saturating_add(*count));
                rate(&key.mch_id).map_or(u32::MAX, |rate| rate.saturating_sub(count))
            });
            if *left > 0 {
                *left = left.saturating_sub(1);
                chosen.push((at, key));
            }
        }
        let now = Instant::now();
        let mut counts: HashMap<&MchId, u32> = HashMap::new();
        for (_, key) in &chosen {
            let count = counts.entry(&key.mch_id).or_default();
            *count = count.saturating_add(1);
        }
        for (mch_id, count) in counts {
            handed.entry(mch_id.clone()).or_default().push_back((now, count));
        }
        chosen
    }
}
