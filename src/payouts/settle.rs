//! The settler: asks in the background about unknown orders, about pending ones whose lease has run out, and about
//! accepted bills until their final state. Every replica runs one; the ledger hands each due order to one of them.
//! See docs/promise.md.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::ports::StoreError;
use super::{Payouts, audit};
use crate::telemetry::traces::background::settling;
use payout_domain::contract::send::RequestCredentials;
use payout_domain::ids::{MchId, OrderKey};
use payout_domain::order::schedule::{BILL_LIFE, QUERY_WINDOW};
use payout_domain::order::step::Policy;
use payout_domain::order::{Order, State};
use payout_domain::outcome::{Finding, Found};

/// The pause between two looks for due orders.
const PAUSE: Duration = Duration::from_millis(500);
/// The pause after a look that found a full batch: many accepted bills may be due, and unknown orders wait behind
/// them.
const FULL_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause while the ledger is out of reach.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How many orders one look takes.
const BATCH: usize = 32;
/// How long the ledger hides a taken order from other replicas: longer than a query takes.
const HIDDEN: Duration = Duration::from_secs(60);

impl Payouts {
    /// Settles what is due until `stop` resolves. Run once per process. `current` returns the payouts under the
    /// settings in force; each turn asks anew.
    pub async fn settle_until(current: impl Fn() -> Self + Send, stop: impl Future<Output = ()> + Send) {
        tokio::pin!(stop);
        let mut pause = PAUSE;
        loop {
            let spread = Duration::from_millis(current().jitter().checked_rem(250).unwrap_or(0));
            tokio::select! {
                biased;
                () = &mut stop => return,
                () = sleep(pause.saturating_add(spread)) => {}
            }
            pause = match current().settle_due().await {
                Ok(count) if count >= BATCH => FULL_PAUSE,
                Ok(_) => PAUSE,
                Err(error) => {
                    tracing::warn!(%error, "orders that are due could not be listed");
                    std::cmp::min(pause.saturating_mul(2), LONGEST_PAUSE)
                }
            };
        }
    }

    /// Takes one batch of orders that are due or that this process watches, and looks at each. Returns how many there
    /// were.
    ///
    /// # Errors
    /// When the ledger is out of reach, then [`StoreError`].
    pub async fn settle_due(&self) -> Result<usize, StoreError> {
        let settings = self.settings();
        let rate = |mch_id: &MchId| settings.queries_per_second(mch_id);
        let mut keys = self.inner.watch.ripe(BATCH, self.inner.clock.passed());
        let due = self.inner.ledger.due(HIDDEN, BATCH, &rate).await;
        if let Ok(due) = &due {
            keys.extend(due.iter().cloned());
        }
        keys.sort_unstable();
        keys.dedup();
        let count = keys.len();
        let asked = keys
            .into_iter()
            .filter(|key| !self.inner.single_flight.has(key))
            .map(|key| self.settle_one(key));
        futures_util::future::join_all(asked).await;
        due.map(|_| count)
    }

    async fn settle_one(&self, key: OrderKey) {
        let begun = Instant::now();
        if let Err(error) = settling(&key, self.try_settle(&key)).await {
            tracing::warn!(order = %key, %error, "an unsettled order could not be settled");
        }
        tracing::debug!(order = %key, took_ms = begun.elapsed().as_millis(), "an unsettled order was looked at");
    }

    async fn try_settle(&self, key: &OrderKey) -> Result<(), StoreError> {
        let Some(mut order) = self.inner.ledger.get(key).await? else {
            self.inner.watch.forget(key);
            return Ok(());
        };
        if matches!(order.state, State::Pending(_)) {
            order = self.watch_claim(order).await?;
        }
        match &order.state {
            State::Unknown(_) => {}
            State::Succeeded(succeeded) if succeeded.following.is_some() => {}
            State::Pending(_) => return Ok(()),
            State::Succeeded(_) | State::Refused(_) => {
                self.inner.watch.forget(key);
                return Ok(());
            }
        }
        let merchant = self.settings().leads_to(&order);
        let why_not = match &merchant {
            None => {
                audit::alarm(&order, audit::STRANDED);
                Some(format!("no merchant entry leads to {} any more", order.upstream))
            }
            Some(_) if self.is_askable(&order) => None,
            Some(_) => Some("the upstream's query window is over".to_owned()),
        };
        let (finding, recorded) = match (merchant, why_not) {
            (Some(merchant), None) => self.ask(&order, &merchant, &RequestCredentials::default()).await,
            (_, why_not) => {
                let finding = Finding::unclear(&why_not.unwrap_or_default());
                let recorded = self
                    .record_finding(&order, finding.clone(), Duration::ZERO, Policy::UNKNOWN)
                    .await;
                (finding, recorded)
            }
        };
        if let Found::Unclear { why } = &finding.found {
            tracing::info!(order = %order.key, why, "the upstream did not say how an order stands");
        }
        recorded.map(|_| ())
    }

    /// Whether a query can still reach the order. Raises an alarm if an unknown order nears the end of its query
    /// window, or if an accepted bill has no final state for too long.
    fn is_askable(&self, order: &Order) -> bool {
        let now = self.now();
        if matches!(order.state, State::Succeeded(_)) {
            let age = order.age_of_attempt(now);
            if age > BILL_LIFE {
                audit::alarm(
                    order,
                    "an accepted bill has no final state after 25 hours: look at it in the merchant platform",
                );
            }
            return age <= QUERY_WINDOW;
        }
        if order.nears_the_end_of_its_window(now) {
            audit::alarm(
                order,
                "an order is unknown near the end of WeChat's query window of 30 days: settle it by hand",
            );
        }
        order.may_be_asked_about(now)
    }
}
