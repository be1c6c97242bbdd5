//! The only place that writes the ledger: applies an event to an order, writes what the state machine decides, and
//! tells the observers. Not here: the decision itself (`payout_domain::order::step`).

use std::borrow::Cow;

use super::events::PayoutChanged;
use super::ports::{Inserted, Replaced, StoreError};
use super::{Payouts, audit};
use payout_domain::order::Order;
use payout_domain::order::step::{Event, Policy, Step, step};
use payout_domain::outcome::Evidence;

/// What an event did to an order.
pub(super) enum Applied {
    /// The ledger has this version now.
    Changed(Box<Order>),
    /// The event changes nothing.
    Unchanged,
    /// The claim was taken back: the ledger no longer has the order.
    Removed,
    /// The ledger has another version of the order, or none; nothing was written.
    Moved(Option<Box<Order>>),
}

/// What the ledger has after an event was applied.
pub(super) enum Recorded {
    /// This version.
    Order(Box<Order>),
    /// No record: the claim was taken back, or the store has forgotten it.
    Nothing,
}

impl Payouts {
    /// Applies an event to an order as it was read, and writes the result if the ledger still has that version.
    ///
    /// # Errors
    /// When the ledger cannot be written, then [`StoreError`].
    ///
    /// # Cancel safety
    /// If the future is dropped, the write may or may not happen, and no observer hears of it.
    pub(super) async fn apply(
        &self,
        order: &Order,
        event: Event,
        policy: Policy,
    ) -> Result<Applied, StoreError> {
        let why = why_of(&event).to_owned();
        let replaced = match step(order, event, policy, self.now(), self.jitter()) {
            Step::Stay => return Ok(Applied::Unchanged),
            Step::Become(next) => match self.replace(order, &next).await? {
                Replaced::Done => return Ok(Applied::Changed(next)),
                other @ (Replaced::Moved(_) | Replaced::OverLimit(_)) => other,
            },
            Step::Remove => match self.remove(order, &why).await? {
                Replaced::Done => return Ok(Applied::Removed),
                other @ (Replaced::Moved(_) | Replaced::OverLimit(_)) => other,
            },
        };
        Ok(match replaced {
            Replaced::Moved(moved) => Applied::Moved(moved),
            // Only a claim adds charges that a limit could refuse.
            Replaced::Done | Replaced::OverLimit(_) => Applied::Moved(None),
        })
    }

    /// Applies an event to the ledger's current version, again each time another task or process changes the order
    /// meanwhile.
    ///
    /// # Errors
    /// When the ledger cannot be written, then [`StoreError`].
    pub(super) async fn apply_to_latest(
        &self,
        order: &Order,
        event: &Event,
        policy: Policy,
    ) -> Result<Recorded, StoreError> {
        let mut current = Cow::Borrowed(order);
        loop {
            current = match self.apply(&current, event.clone(), policy).await? {
                Applied::Changed(next) => return Ok(Recorded::Order(next)),
                Applied::Unchanged => return Ok(Recorded::Order(Box::new(current.into_owned()))),
                Applied::Removed => return Ok(Recorded::Nothing),
                Applied::Moved(Some(moved)) => Cow::Owned(*moved),
                Applied::Moved(None) => {
                    // An earlier try of this same write took the claim back, or the store has forgotten the order.
                    let may_be_taken_back = matches!(
                        event,
                        Event::Attempted {
                            evidence: Evidence::NeverSent { .. },
                            ..
                        }
                    );
                    if !may_be_taken_back {
                        audit::alarm(
                            &current,
                            "the ledger has forgotten this order; its outcome is in this log only",
                        );
                    }
                    return Ok(Recorded::Nothing);
                }
            };
        }
    }

    /// Claims a new order.
    ///
    /// # Errors
    /// When the ledger cannot be written, then [`StoreError`]; nothing may be sent.
    pub(super) async fn insert(&self, order: &Order) -> Result<Inserted, StoreError> {
        let inserted = sure(|| self.inner.ledger.insert(order)).await?;
        match &inserted {
            Inserted::Done => self.tell(PayoutChanged::Claimed(order)),
            Inserted::OverLimit(_) => self.tell_over_limit(order),
            Inserted::Exists(_) => {}
        }
        Ok(inserted)
    }

    /// Replaces a version of an order by the next one.
    ///
    /// # Errors
    /// When the ledger cannot be written, then [`StoreError`].
    pub(super) async fn replace(&self, before: &Order, after: &Order) -> Result<Replaced, StoreError> {
        let replaced = sure(|| self.inner.ledger.replace(before, after)).await?;
        match &replaced {
            Replaced::Done => self.tell(PayoutChanged::Replaced { before, after }),
            Replaced::OverLimit(_) => self.tell_over_limit(after),
            Replaced::Moved(_) => {}
        }
        Ok(replaced)
    }

    async fn remove(&self, order: &Order, why: &str) -> Result<Replaced, StoreError> {
        let removed = match self.inner.ledger.remove(order).await {
            Err(error) if error.unsure => {
                let again = self.inner.ledger.remove(order).await;
                match again.map_err(StoreError::after_unsure)? {
                    // The first try has removed it: nobody else removes this claim.
                    Replaced::Moved(None) => Replaced::Done,
                    other @ (Replaced::Done | Replaced::Moved(Some(_)) | Replaced::OverLimit(_)) => other,
                }
            }
            removed => removed?,
        };
        if matches!(removed, Replaced::Done) {
            self.tell(PayoutChanged::TakenBack { order, why });
        }
        Ok(removed)
    }

    fn tell(&self, change: PayoutChanged<'_>) {
        for observer in &self.inner.observers {
            observer.changed(change);
        }
    }

    fn tell_over_limit(&self, order: &Order) {
        for observer in &self.inner.observers {
            observer.over_limit(order);
        }
    }
}

/// Writes, and tries once more if the acknowledgement was lost. That is harmless: a ledger answers `Done` to the same
/// insert or replacement.
async fn sure<T, W: Future<Output = Result<T, StoreError>>>(write: impl Fn() -> W) -> Result<T, StoreError> {
    match write().await {
        Err(error) if error.unsure => write().await.map_err(StoreError::after_unsure),
        written => written,
    }
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
