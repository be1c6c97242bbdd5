//! Hands out the orders that are due: the oldest of all merchants, within each merchant's rate, and without waiting for
//! a merchant whose part of Redis does not answer.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::{join, join_all};
use redis::Cmd;

use super::{RedisLedger, failed};
use crate::payouts::ports::{QueryRate, StoreError};
use crate::redis::LinkError;
use payout_domain::ids::{LedgerTime, MchId, OrderKey, OrderNo};

/// How many of a merchant's orders to hand out now, and its limit per second.
#[derive(Clone, Copy, Default)]
struct Share {
    count: usize,
    rate: Option<u32>,
}

pub(super) async fn due(
    ledger: &RedisLedger,
    hidden: Duration,
    limit: usize,
    rate: QueryRate<'_>,
) -> Result<Vec<OrderKey>, StoreError> {
    ledger.registry.known().await?;
    let now = ledger.registry.time();
    let hidden_until = now.after(hidden);
    let mut due: Vec<(i64, OrderKey)> = Vec::new();
    let shares = shares(ledger, now, limit, rate).await?;
    let takes = shares.iter().map(async |(mch_id, share)| {
        let keys = [
            ledger.store.key(mch_id, "due"),
            ledger.store.key(mch_id, "handed"),
        ];
        let arguments = [
            now.0.to_string(),
            hidden_until.0.to_string(),
            share.count.to_string(),
            share.rate.map_or_else(String::new, |rate| rate.to_string()),
        ];
        let script = &ledger.scripts.due;
        ledger
            .store
            .link
            .script::<Vec<String>, _, _>(script, &keys, &arguments, None)
            .await
    });
    for (mch_id, taken) in shares.keys().zip(join_all(takes).await) {
        // If the answer was lost, the orders that it handed out become due again when their hiding ends.
        let members = taken.unwrap_or_else(|error| {
            ledger.registry.is_away(Some(mch_id), &error);
            Vec::new()
        });
        for pair in members.chunks(2) {
            let [number, score] = pair else { continue };
            let Ok(order_no) = OrderNo::parse(number) else {
                continue;
            };
            let at = score.parse().unwrap_or(i64::MAX);
            due.push((
                at,
                OrderKey {
                    mch_id: mch_id.clone(),
                    order_no,
                },
            ));
        }
    }
    due.sort_by_key(|(at, _)| *at);
    Ok(due.into_iter().map(|(_, key)| key).collect())
}

/// How many of the `limit` oldest due orders belong to each merchant.
async fn shares(
    ledger: &RedisLedger,
    now: LedgerTime,
    limit: usize,
    rate: QueryRate<'_>,
) -> Result<BTreeMap<MchId, Share>, StoreError> {
    let merchants = ledger.registry.merchants().await;
    let rates: Vec<Option<u32>> = merchants.iter().map(rate).collect();
    let looks = merchants
        .iter()
        .zip(rates.iter().copied())
        .map(|(mch_id, rate)| look(ledger, mch_id, now, limit, rate));
    let mut waiting = Vec::new();
    let (mut answered, mut last) = (false, None);
    for ((mch_id, rate), found) in merchants.iter().zip(&rates).zip(join_all(looks).await) {
        match found {
            Ok(times) => {
                answered = true;
                ledger.registry.answered(Some(mch_id));
                waiting.extend(times.into_iter().map(|at| (at, mch_id, *rate)));
            }
            Err(error) => {
                ledger.registry.is_away(Some(mch_id), &error);
                last = Some(error);
            }
        }
    }
    if let (false, Some(error)) = (answered, last) {
        return Err(failed(&error));
    }
    waiting.sort_unstable();
    let mut shares = BTreeMap::<MchId, Share>::new();
    for (_, mch_id, rate) in waiting.into_iter().take(limit) {
        let share = shares.entry(mch_id.clone()).or_default();
        share.count = share.count.saturating_add(1);
        share.rate = rate;
    }
    Ok(shares)
}

/// The due times of a merchant's oldest orders that its rate allows now.
async fn look(
    ledger: &RedisLedger,
    mch_id: &MchId,
    now: LedgerTime,
    limit: usize,
    rate: Option<u32>,
) -> Result<Vec<i64>, LinkError> {
    let link = &ledger.store.link;
    let mut look = redis::cmd("ZRANGEBYSCORE");
    look.arg(ledger.store.key(mch_id, "due")).arg("-inf").arg(now.0);
    look.arg("WITHSCORES").arg("LIMIT").arg(0).arg(limit);
    let oldest = link.read::<Vec<(String, String)>>(&look);
    let (oldest, most) = match rate {
        None => (oldest.await?, limit),
        Some(rate) => {
            let counter = Cmd::get(ledger.store.key(mch_id, "handed"));
            let (oldest, taken) = join(oldest, link.read::<Option<u32>>(&counter)).await;
            let left = rate.saturating_sub(taken?.unwrap_or_default());
            (oldest?, usize::try_from(left).unwrap_or(usize::MAX))
        }
    };
    let times = oldest.into_iter().map(|(_, at)| at.parse().unwrap_or(i64::MAX));
    Ok(times.take(most).collect())
}
