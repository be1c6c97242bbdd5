//! Polls for the metrics what only the ledger knows: how many orders are unknown and for how long, how many need a
//! person and why, and how much of the day's limit each merchant has used up.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::payouts::Payouts;
use crate::payouts::ports::StoreError;
use crate::telemetry::metrics::Metrics;
use payout_domain::ids::Millis;
use payout_domain::limits::merchant_day;
use payout_domain::order::State;

/// The pause between two polls. Alerts on ages of minutes need no shorter one.
const PAUSE: Duration = Duration::from_secs(15);
/// How many orders one poll looks at. More than this is an alarm whatever their ages.
const AT_MOST: usize = 1000;

/// Polls for as long as the process lives.
pub(super) async fn follow(current: impl Fn() -> Payouts, metrics: Metrics) {
    loop {
        poll(&current(), &metrics).await;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn poll(payouts: &Payouts, metrics: &Metrics) {
    if let Err(error) = unsettled(payouts, metrics).await {
        tracing::debug!(%error, "unsettled orders could not be counted");
    }
    if let Err(error) = day(payouts, metrics, payouts.now().wall).await {
        tracing::debug!(%error, "what is used of the day's limit could not be read");
    }
}

async fn unsettled(payouts: &Payouts, metrics: &Metrics) -> Result<(), StoreError> {
    let orders = payouts.ledger().unsettled(AT_MOST).await?;
    let now = payouts.now();
    let ages = orders.iter().filter_map(|order| match &order.state {
        State::Unknown(_) => Some(now.ledger.since(order.changed_at)),
        State::Pending(_) | State::Succeeded(_) | State::Refused(_) => None,
    });
    metrics.payouts.unknown(ages);
    let settings = payouts.settings();
    metrics.payouts.attention(
        orders
            .iter()
            .filter_map(|order| settings.needs_a_person(order, now)),
    );
    Ok(())
}

/// Only for the merchants that the configuration names: callers choose the numbers that `*` stands for.
async fn day(payouts: &Payouts, metrics: &Metrics, now: Millis) -> Result<(), StoreError> {
    let settings = payouts.settings();
    let mut used = Vec::new();
    if settings.limits.per_merchant_per_day.is_some() {
        let patterns = settings.merchants.iter().map(|(pattern, _)| pattern);
        let named: BTreeSet<_> = patterns.filter_map(|pattern| pattern.mch_id.as_ref()).collect();
        for mch_id in named {
            let fen = payouts.ledger().used(mch_id, &merchant_day(now)).await?;
            used.push((mch_id.clone(), fen));
        }
    }
    let limit = settings.limits.per_merchant_per_day.unwrap_or_default();
    metrics.payouts.day(used, limit);
    Ok(())
}
