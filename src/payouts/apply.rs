//! Writes what the state machine decided, and finds out what became of a write whose acknowledgement was lost.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::merchant::Merchant;
use super::ports::{OrderQuestion, Replaced, StoreError};
use super::reply::Reply;
use super::{Payouts, events};
use crate::telemetry::context::carried;
use payout_domain::contract::error::ApiError;
use payout_domain::contract::send::RequestCredentials;
use payout_domain::order::step::{Event, Policy, Step, step};
use payout_domain::order::{Destination, Order, State};
use payout_domain::outcome::{Evidence, Finding, Found};

/// The pauses between tries to write what an attempt proved: doubled each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long it is tried. After it the record stays pending, its lease runs out, and the settler asks the upstream.
const KEEP_TRYING: Duration = Duration::from_secs(15 * 60);

/// The pauses between two questions about an order whose absence is listened to; at most half of what counts as a standstill.
const SHORTEST_HEARING_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_HEARING_PAUSE: Duration = Duration::from_secs(2);
/// By how much each order that is listened to lengthens the pause.
const HEARING_SHARE: Duration = Duration::from_millis(20);

/// What an event came to.
enum Written {
    /// This is the record now.
    Recorded(Box<Order>),
    /// There is no record any more: the claim was taken back.
    Removed,
}

impl Payouts {
    /// Records what an attempt proved, and says what the caller is told. Where the store is out of reach the caller is
    /// told the truth all the same, and a task goes on trying.
    pub(super) async fn record(&self, claimed: Order, evidence: Evidence, policy: Policy) -> Reply {
        let never_sent = match &evidence {
            Evidence::NeverSent { why } => Some(why.clone()),
            Evidence::NoAnswer { .. }
            | Evidence::Accepted { .. }
            | Evidence::Opened { .. }
            | Evidence::Declined { .. } => None,
        };
        let event = Event::Attempted {
            version: claimed.version,
            evidence,
        };
        match self.apply(&claimed, &event, policy).await {
            Ok(written) => self.reply_to(written, never_sent.as_deref()),
            Err(error) => {
                tracing::warn!(order = %claimed.key, %error, "an outcome was not recorded yet");
                let reply = match step(&claimed, event.clone(), policy, self.now(), self.jitter()) {
                    Step::Become(next) => Written::Recorded(next),
                    Step::Stay => Written::Recorded(Box::new(claimed.clone())),
                    Step::Remove => Written::Removed,
                };
                self.record_later(claimed, event, policy);
                self.reply_to(reply, never_sent.as_deref())
            }
        }
    }

    fn reply_to(&self, written: Written, never_sent: Option<&str>) -> Reply {
        match (written, never_sent) {
            (Written::Recorded(order), None) => Reply::Recorded(Arc::from(order)),
            (Written::Recorded(order), Some(_))
                if matches!(order.state, State::Unknown(_) | State::Succeeded(_)) =>
            {
                // This attempt was not sent, but an earlier one may have been paid.
                Reply::Recorded(Arc::from(order))
            }
            // Sent, and the store has forgotten the record since: only the upstream knows.
            (Written::Removed, None) => Reply::Failed(ApiError::unknown()),
            (Written::Removed | Written::Recorded(_), Some(_)) => {
                Reply::Failed(ApiError::not_sent("the upstream cannot be reached"))
            }
        }
    }

    /// Goes on trying to record in a task of its own.
    pub(super) fn record_later(&self, claimed: Order, event: Event, policy: Policy) {
        let payouts = self.clone();
        self.tasks().spawn(carried(async move {
            let begun = tokio::time::Instant::now();
            let mut pause = FIRST_PAUSE;
            while begun.elapsed() < KEEP_TRYING {
                tokio::time::sleep(pause).await;
                pause = std::cmp::min(pause.saturating_mul(2), LONGEST_PAUSE);
                match payouts.apply(&claimed, &event, policy).await {
                    Ok(_) => {
                        tracing::info!(order = %claimed.key, "an outcome was recorded after all");
                        return;
                    }
                    Err(error) => {
                        tracing::debug!(order = %claimed.key, %error, "an outcome was not recorded yet")
                    }
                }
            }
            events::alarm(
                &claimed,
                "an outcome could not be recorded; the upstream will be asked",
            );
        }));
    }

    /// Applies an event to an order and writes the result, again and again while somebody else changes the record.
    async fn apply(&self, order: &Order, event: &Event, policy: Policy) -> Result<Written, StoreError> {
        let mut current = Cow::Borrowed(order);
        loop {
            let now = self.now();
            let replaced = match step(&current, event.clone(), policy, now, self.jitter()) {
                Step::Stay => return Ok(Written::Recorded(Box::new(current.into_owned()))),
                Step::Become(next) => match self.replace(&current, &next).await? {
                    Replaced::Done => {
                        self.tell(&current, &next);
                        return Ok(Written::Recorded(next));
                    }
                    other @ (Replaced::Moved(_) | Replaced::OverLimit(_)) => other,
                },
                Step::Remove => match self.remove(&current).await? {
                    Replaced::Done => {
                        events::taken_back(&current, why_of(event));
                        return Ok(Written::Removed);
                    }
                    other @ (Replaced::Moved(_) | Replaced::OverLimit(_)) => other,
                },
            };
            current = match replaced {
                Replaced::Moved(Some(moved)) => Cow::Owned(*moved),
                // The record is gone: taken back by an earlier try of this very write, or forgotten by the store.
                Replaced::Moved(None) | Replaced::Done | Replaced::OverLimit(_) => {
                    if !matches!(
                        event,
                        Event::Attempted {
                            evidence: Evidence::NeverSent { .. },
                            ..
                        }
                    ) {
                        events::alarm(
                            &current,
                            "the ledger has forgotten this order; its outcome is in this log only",
                        );
                    }
                    return Ok(Written::Removed);
                }
            };
        }
    }

    pub(super) fn tell(&self, before: &Order, after: &Order) {
        if before.state.name() == after.state.name() && before.upstream_status == after.upstream_status {
            return;
        }
        events::changed(after);
        if let (State::Refused(_), State::Unknown(_)) = (&before.state, &after.state) {
            events::alarm(
                after,
                "an order that was recorded as refused may be paid: an attempt ended without an answer after it",
            );
        }
        if matches!(
            (&before.state, &after.state),
            (State::Refused(_), State::Succeeded(_))
        ) {
            events::alarm(
                after,
                "the upstream accepted an order that was recorded as refused",
            );
        }
        let word = |order: &Order| order.upstream_status.clone();
        if order_ended_unpaid(before) && word(before) != word(after) {
            events::alarm(
                after,
                "the upstream paid a bill that had ended unpaid: its limits were given back",
            );
        }
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
            return Ok(match self.apply(asked, &event, policy).await? {
                Written::Recorded(order) => *order,
                Written::Removed => asked.clone(),
            });
        }
        match step(asked, event, policy, self.now(), self.jitter()) {
            Step::Stay | Step::Remove => Ok(asked.clone()),
            Step::Become(next) => match self.replace(asked, &next).await? {
                Replaced::Done => {
                    self.tell(asked, &next);
                    Ok(*next)
                }
                Replaced::Moved(Some(moved)) => Ok(*moved),
                Replaced::Moved(None) | Replaced::OverLimit(_) => Ok(asked.clone()),
            },
        }
    }

    /// Looks at a pending order, and records that its lease has run out where this process has seen it stand for so long.
    ///
    /// # Errors
    /// When the store cannot be written, then [`StoreError`].
    pub(super) async fn watch_claim(&self, order: Order) -> Result<Order, StoreError> {
        let seen = self.inner.watch.of_claim(&order, self.inner.clock.passed());
        let (now, rng) = (self.now(), self.jitter());
        match step(&order, Event::Watched(seen), Policy::UNKNOWN, now, rng) {
            Step::Stay | Step::Remove => Ok(order),
            Step::Become(next) => match self.replace(&order, &next).await? {
                Replaced::Done => {
                    self.tell(&order, &next);
                    Ok(*next)
                }
                Replaced::Moved(Some(moved)) => Ok(*moved),
                Replaced::Moved(None) | Replaced::OverLimit(_) => Ok(order),
            },
        }
    }

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

    /// Writes, and once more where the acknowledgement was lost: a ledger answers `Done` to the very same write.
    pub(super) async fn replace(&self, previous: &Order, next: &Order) -> Result<Replaced, StoreError> {
        match self.inner.ledger.replace(previous, next).await {
            Err(error) if error.unsure => self
                .inner
                .ledger
                .replace(previous, next)
                .await
                .map_err(StoreError::after_unsure),
            written => written,
        }
    }

    async fn remove(&self, order: &Order) -> Result<Replaced, StoreError> {
        match self.inner.ledger.remove(order).await {
            Err(error) if error.unsure => self
                .inner
                .ledger
                .remove(order)
                .await
                .map_err(StoreError::after_unsure),
            written => written,
        }
    }
}

/// Whether a bill was accepted and recorded as ended without payment.
fn order_ended_unpaid(order: &Order) -> bool {
    order.upstream == Destination::TransferBill
        && matches!(order.state, State::Succeeded(_))
        && matches!(order.upstream_status.as_deref(), Some("FAIL" | "CANCELLED"))
}

fn why_of(event: &Event) -> &str {
    match event {
        Event::Attempted {
            evidence: Evidence::NeverSent { why } | Evidence::NoAnswer { why },
            ..
        } => why,
        Event::Attempted { .. } | Event::Asked { .. } | Event::Watched(_) | Event::Operator { .. } => "",
    }
}
