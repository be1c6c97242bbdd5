//! Asks an upstream what became of an order, and records the answer.

use std::time::Duration;

use super::Payouts;
use super::apply::{Applied, Recorded};
use super::merchant::Merchant;
use super::ports::{OrderQuestion, StoreError};
use payout_domain::contract::send::RequestCredentials;
use payout_domain::order::Order;
use payout_domain::order::step::{Event, Policy};
use payout_domain::outcome::{Finding, Found};

/// The shortest and longest pause between two queries about an order whose upstream says "no such order" and must say
/// it without a break. At most half of what counts as a standstill.
const SHORTEST_HEARING_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_HEARING_PAUSE: Duration = Duration::from_secs(2);
/// The pause is at least this long times the number of watched orders.
const HEARING_SHARE: Duration = Duration::from_millis(20);

impl Payouts {
    /// Asks the upstream that got the order what became of it, and records the answer. Returns the answer, and the
    /// order as recorded after it.
    ///
    /// # Cancel safety
    /// May be dropped at any time: another request or the settler then asks again.
    pub(super) async fn ask(
        &self,
        order: &Order,
        merchant: &Merchant,
        credentials: &RequestCredentials,
    ) -> (Finding, Result<Order, StoreError>) {
        let finding = merchant
            .upstream
            .query(&OrderQuestion::of(order), credentials)
            .await;
        let now = self.inner.clock.passed();
        let heard = if matches!(finding.found, Found::Unclear { .. }) {
            merchant.contact.missed();
            Duration::ZERO
        } else {
            self.inner.watch.heard(order, merchant.contact.answered(now), now)
        };
        let recorded = self
            .record_finding(order, finding.clone(), heard, merchant.policy)
            .await;
        if let (Ok(order), false) = (&recorded, merchant.policy.refuses_doubles) {
            let pause = self.hearing_pause(merchant.policy);
            self.inner
                .watch
                .after_query(order, pause, self.inner.clock.passed());
        }
        (finding, recorded)
    }

    /// How long until the next query to an upstream that must say "no such order" without a break: short enough to
    /// notice a standstill, and longer if this process watches many orders, since together they show the same.
    fn hearing_pause(&self, policy: Policy) -> Duration {
        let quarter = policy.not_found_after.checked_div(4).unwrap_or_default();
        let alone = quarter.clamp(SHORTEST_HEARING_PAUSE, LONGEST_HEARING_PAUSE);
        let watched = u32::try_from(self.inner.watch.len()).unwrap_or(u32::MAX);
        let shared = HEARING_SHARE.saturating_mul(watched);
        std::cmp::max(alone, std::cmp::min(shared, policy.not_found_after))
    }

    /// Records what a query found. The finding is about the version that was asked about. If the record has changed
    /// since, only an acceptance still counts: it always wins.
    ///
    /// # Errors
    /// When the store cannot be written, then [`StoreError`].
    pub(super) async fn record_finding(
        &self,
        asked: &Order,
        finding: Finding,
        heard: Duration,
        policy: Policy,
    ) -> Result<Order, StoreError> {
        let accepted = matches!(finding.found, Found::Accepted { .. });
        let event = Event::Asked { finding, heard };
        if accepted {
            return Ok(match self.apply_to_latest(asked, &event, policy).await? {
                Recorded::Order(order) => *order,
                Recorded::Nothing => asked.clone(),
            });
        }
        Ok(self.apply(asked, event, policy).await?.or(asked))
    }

    /// Looks at a pending order. If this process has seen the claim stand for the length of its lease, records that
    /// the lease has run out.
    ///
    /// # Errors
    /// When the store cannot be written, then [`StoreError`].
    pub(super) async fn watch_claim(&self, order: Order) -> Result<Order, StoreError> {
        let seen = self.inner.watch.of_claim(&order, self.inner.clock.passed());
        let applied = self.apply(&order, Event::Watched(seen), Policy::UNKNOWN).await?;
        Ok(applied.or(&order))
    }
}

impl Applied {
    /// The order as the ledger has it now; as it was read if the ledger has none.
    fn or(self, read: &Order) -> Order {
        match self {
            Self::Changed(order) | Self::Moved(Some(order)) => *order,
            Self::Unchanged | Self::Removed | Self::Moved(None) => read.clone(),
        }
    }
}
