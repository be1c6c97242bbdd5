//! Asks an upstream what became of an order, and records what it says.

use std::time::Duration;

use super::Payouts;
use super::apply::{Applied, Recorded};
use super::merchant::Merchant;
use super::ports::{OrderQuestion, StoreError};
use payout_domain::contract::send::RequestCredentials;
use payout_domain::order::Order;
use payout_domain::order::step::{Event, Policy};
use payout_domain::outcome::{Finding, Found};

/// The pauses between two questions about an order whose absence is listened to; at most half of what counts as a standstill.
const SHORTEST_HEARING_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_HEARING_PAUSE: Duration = Duration::from_secs(2);
/// By how much each order that is listened to lengthens the pause.
const HEARING_SHARE: Duration = Duration::from_millis(20);

impl Payouts {
    /// Asks where an order was sent what became of it, and writes what is said there. Returns the answer, and the record after
    /// it.
    ///
    /// # Cancel safety
    /// May be dropped at any time; what the upstream said is then asked again by somebody else.
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

    /// How long until an upstream whose "no such order" is listened to is asked again: often enough to know that it does not
    /// stand still, and seldomer where many orders are listened to, which together show the same.
    fn hearing_pause(&self, policy: Policy) -> Duration {
        let quarter = policy.not_found_after.checked_div(4).unwrap_or_default();
        let alone = quarter.clamp(SHORTEST_HEARING_PAUSE, LONGEST_HEARING_PAUSE);
        let watched = u32::try_from(self.inner.watch.len()).unwrap_or(u32::MAX);
        let shared = HEARING_SHARE.saturating_mul(watched);
        std::cmp::max(alone, std::cmp::min(shared, policy.not_found_after))
    }

    /// Writes what a query found. The finding is about the version that was asked about: if the record has moved on
    /// since, only an acceptance still counts, since it always wins.
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

    /// Looks at a pending order, and records that its lease has run out where this process has seen it stand for so long.
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
    /// The order as the ledger has it now; where it has none, as it was read.
    fn or(self, read: &Order) -> Order {
        match self {
            Self::Changed(order) | Self::Moved(Some(order)) => *order,
            Self::Unchanged | Self::Removed | Self::Moved(None) => read.clone(),
        }
    }
}
