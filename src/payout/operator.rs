//! What an operator may do: look payouts up, and say what became of one that is unknown. Document: specification, section 8.

use super::ports::{ListFilter, Page, Replaced, StoreError};
use super::{Payouts, audit};
use crate::rules::order::step::{Event, Policy, Step, step};
use crate::rules::order::{Order, StateName};
use crate::rules::term::OrderKey;

/// Why an operator's word was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// There is no such order.
    #[error("no order {0} is on record")]
    NotFound(OrderKey),
    /// Only what is unknown can be settled by hand.
    #[error("the order is {}, and only an unknown one can be settled by hand", .0.as_str())]
    NotUnknown(StateName),
    /// It changed in the same moment.
    #[error("the order has just changed: look at it again")]
    Moved,
    /// The ledger is out of reach.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Payouts {
    /// A page of orders, newest first.
    ///
    /// # Errors
    /// When the ledger cannot be read or the cursor is none, then [`StoreError`].
    pub async fn list(&self, filter: &ListFilter) -> Result<Page, StoreError> {
        self.inner.ledger.list(filter).await
    }

    /// One order.
    ///
    /// # Errors
    /// When the ledger cannot be read, then [`StoreError`].
    pub async fn show(&self, key: &OrderKey) -> Result<Option<Order>, StoreError> {
        self.inner.ledger.get(key).await
    }

    /// Takes an operator's word for what became of an unknown order. It is audited with the reason.
    ///
    /// # Errors
    /// When the order is not unknown, or the ledger cannot be written, then [`SettleError`].
    pub async fn settle_by_hand(
        &self,
        key: &OrderKey,
        succeeded: bool,
        reason: &str,
    ) -> Result<Order, SettleError> {
        let order = self
            .show(key)
            .await?
            .ok_or_else(|| SettleError::NotFound(key.clone()))?;
        let event = Event::Operator {
            succeeded,
            reason: reason.to_owned(),
        };
        // An operator's word needs no policy: it is about what the upstream cannot say.
        let policy = Policy {
            refuses_doubles: false,
            not_found_after: std::time::Duration::MAX,
        };
        match step(&order, event, policy, self.inner.clock.now(), self.jitter()) {
            Step::Become(next) => match self.replace(&order, &next).await? {
                Replaced::Done => {
                    audit::changed(&next);
                    Ok(*next)
                }
                Replaced::Moved(_) | Replaced::OverLimit(_) => Err(SettleError::Moved),
            },
            Step::Stay | Step::Remove => Err(SettleError::NotUnknown(order.state.name())),
        }
    }
}
