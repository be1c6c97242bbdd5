//! Asks about unsettled orders in the background: unknown ones, and pending ones whose lease has run out, by whichever
//! replica gets there first; and about accepted bills until their final state. Document: specification, section 5.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::ports::{OrderQuestion, StoreError};
use super::{Payouts, audit};
use crate::rules::contract::send::RequestCredentials;
use crate::rules::order::{Order, State};
use crate::rules::outcome::{Finding, Found};
use crate::rules::pace::{BILL_LIFE, QUERY_ALERT, QUERY_WINDOW};
use crate::rules::term::OrderKey;

/// The pause between two looks for orders that are due.
const PAUSE: Duration = Duration::from_millis(500);
/// The pause where there were more than one look takes: bills that are followed may be many, and unknown orders wait
/// behind them.
const FULL_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause while the ledger is out of reach.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How many orders are taken at a time.
const BATCH: usize = 32;
/// For how long a taken order is hidden from other replicas: longer than a query takes.
const HIDDEN: Duration = Duration::from_secs(60);

impl Payouts {
    /// Settles what is due until `stop` resolves. Run once per process.
    pub async fn settle_until(self, stop: impl Future<Output = ()> + Send) {
        tokio::pin!(stop);
        let mut pause = PAUSE;
        loop {
            let spread = Duration::from_millis(self.jitter().checked_rem(250).unwrap_or(0));
            tokio::select! {
                biased;
                () = &mut stop => return,
                () = sleep(pause.saturating_add(spread)) => {}
            }
            pause = match self.settle_due().await {
                Ok(count) if count >= BATCH => FULL_PAUSE,
                Ok(_) => PAUSE,
                Err(error) => {
                    tracing::warn!(%error, "orders that are due could not be listed");
                    std::cmp::min(pause.saturating_mul(2), LONGEST_PAUSE)
                }
            };
        }
    }

    /// Takes one batch of orders that are due, and asks about each. Returns how many there were.
    ///
    /// # Errors
    /// When the ledger is out of reach, then [`StoreError`].
    pub async fn settle_due(&self) -> Result<usize, StoreError> {
        let now = self.inner.clock.now();
        let due = self.inner.ledger.due(now, now.after(HIDDEN), BATCH).await?;
        let count = due.len();
        let asked = due
            .into_iter()
            .filter(|key| !self.inner.waiters.has(key))
            .map(|key| self.settle_one(key));
        futures_util::future::join_all(asked).await;
        Ok(count)
    }

    async fn settle_one(&self, key: OrderKey) {
        let begun = Instant::now();
        if let Err(error) = self.try_settle(&key).await {
            tracing::warn!(order = %key, %error, "an unsettled order could not be settled");
        }
        tracing::debug!(order = %key, took_ms = begun.elapsed().as_millis(), "an unsettled order was looked at");
    }

    async fn try_settle(&self, key: &OrderKey) -> Result<(), StoreError> {
        let Some(mut order) = self.inner.ledger.get(key).await? else {
            return Ok(());
        };
        let settings = self.settings();
        let Some(merchant) = settings.merchant(&order.key.mch_id, &order.wx_app_id) else {
            audit::alarm(
                &order,
                "no merchant entry matches this unsettled order any more: restore it",
            );
            return Ok(());
        };
        if let State::Pending(pending) = &order.state {
            if pending.lease_until > self.inner.clock.now() {
                return Ok(());
            }
            order = self.record_lapse(&order, merchant.policy).await?;
        }
        let is_followed =
            matches!(&order.state, State::Succeeded(succeeded) if succeeded.following.is_some());
        if !is_followed && !matches!(order.state, State::Unknown(_)) {
            return Ok(());
        }
        let finding = if self.is_askable(&order) {
            merchant
                .upstream
                .query(&OrderQuestion::of(&order), &RequestCredentials::default())
                .await
        } else {
            Finding::unclear("the upstream's query window is over")
        };
        if let Found::Unclear { why } = &finding.found {
            tracing::info!(order = %order.key, why, "the upstream did not say how an order stands");
        }
        self.record_finding(&order, finding, merchant.policy).await?;
        Ok(())
    }

    /// Whether a query can still reach the order; near the end of the window a person is called.
    fn is_askable(&self, order: &Order) -> bool {
        let now = self.inner.clock.now();
        let age = now.since(order.created_at);
        if let State::Succeeded(succeeded) = &order.state {
            let age = now.since(succeeded.at);
            if age > BILL_LIFE {
                audit::alarm(
                    order,
                    "an accepted bill has no final state after 25 hours: look at it in the merchant platform",
                );
            }
            return age <= QUERY_WINDOW;
        }
        if age > QUERY_ALERT {
            audit::alarm(
                order,
                "an order is unknown near the end of WeChat's query window of 30 days: settle it by hand",
            );
        }
        age <= QUERY_WINDOW
    }
}
