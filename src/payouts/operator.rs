//! What an operator may do: look payouts up, settle an unknown one by hand, and cancel a v3 bill that the user has
//! not confirmed. See docs/operate.md.

use std::collections::BTreeMap;
use std::time::Duration;

use super::apply::Applied;
use super::ports::{ListFilter, OrderQuestion, Page, StoreError};
use super::{Payouts, audit};
use payout_domain::ids::{MchId, OrderKey};
use payout_domain::order::step::{Event, Policy};
use payout_domain::order::{Attention, Destination, Order, State, StateName};
use payout_domain::wechat::v3::answer::Withdrawal;

/// How many unsettled orders the sidecar checks for a destination when a configuration changes.
const STRANDED_AT_MOST: usize = 10_000;

/// Why the sidecar did not settle an order by hand.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// There is no such order.
    #[error("no order {0} is on record")]
    NotFound(OrderKey),
    /// Only an unknown order can be settled by hand.
    #[error("the order is {}, and only an unknown one can be settled by hand", .0.as_str())]
    NotUnknown(StateName),
    /// The order changed at the same moment.
    #[error("the order has just changed: look at it again")]
    Moved,
    /// The ledger is out of reach.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a payout was not cancelled.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// There is no such order.
    #[error("no order {0} is on record")]
    NotFound(OrderKey),
    /// The order is not a v3 bill. What another product has paid stays paid.
    #[error("only v3 transfers (transfer-bill) can be cancelled")]
    NotABill,
    /// The order has its final state, or is being paid right now.
    #[error("the payout cannot be cancelled: it is {0}")]
    NotOpen(String),
    /// No merchant entry leads to the order's destination any more.
    #[error("no merchant entry matches this payout any more: restore it")]
    NoMerchant,
    /// WeChat Pay refused.
    #[error("WeChat Pay did not cancel it: {code}: {text}")]
    Refused {
        /// Its code.
        code: String,
        /// Its text.
        text: String,
    },
    /// WeChat Pay may or may not have cancelled it.
    #[error("it is not known whether WeChat Pay cancelled it ({0}): look at it again in a minute")]
    Unclear(String),
    /// The ledger is out of reach.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Payouts {
    /// Asks WeChat Pay to cancel a bill that its user has not confirmed. WeChat Pay may do so at once or later. The
    /// settler follows the bill to its final state, which gives its limits back. Audited.
    ///
    /// # Errors
    /// When the order is not an open bill, no entry leads to it, WeChat Pay refuses or gives no clear answer, or the
    /// ledger is out of reach, then [`CancelError`].
    ///
    /// # Cancel safety
    /// May be dropped at any time: the work goes on in its own task.
    pub async fn cancel(&self, key: &OrderKey) -> Result<Order, CancelError> {
        let (payouts, key) = (self.clone(), key.clone());
        self.detached(async move { payouts.cancel_bill(&key).await })
            .await
    }

    async fn cancel_bill(&self, key: &OrderKey) -> Result<Order, CancelError> {
        let order = self
            .show(key)
            .await?
            .ok_or_else(|| CancelError::NotFound(key.clone()))?;
        if order.upstream != Destination::TransferBill {
            return Err(CancelError::NotABill);
        }
        let is_open = match &order.state {
            State::Unknown(_) => true,
            State::Succeeded(succeeded) => succeeded.following.is_some(),
            State::Pending(_) | State::Refused(_) => false,
        };
        if !is_open {
            let state = order.state.name().as_str();
            let word = order
                .upstream_status
                .as_ref()
                .map_or_else(String::new, |word| format!(" ({word})"));
            return Err(CancelError::NotOpen(format!("{state}{word}")));
        }
        let merchant = self.settings().leads_to(&order).ok_or(CancelError::NoMerchant)?;
        audit::cancel_asked(&order);
        match merchant.upstream.cancel(&OrderQuestion::of(&order)).await {
            Withdrawal::Taken(finding) => Ok(self
                .record_finding(&order, finding, Duration::ZERO, merchant.policy)
                .await?),
            Withdrawal::Refused { code, text } => Err(CancelError::Refused { code, text }),
            Withdrawal::Unclear(why) => Err(CancelError::Unclear(why)),
        }
    }

    /// Counts the unsettled orders that no entry of the configuration leads to, by merchant and destination, among
    /// the first [`STRANDED_AT_MOST`] unsettled ones. Raises an alarm in the audit for each.
    ///
    /// # Errors
    /// When the ledger cannot be read, then [`StoreError`].
    pub async fn stranded(&self) -> Result<BTreeMap<(MchId, String), usize>, StoreError> {
        let orders = self.inner.ledger.unsettled(STRANDED_AT_MOST).await?;
        let (settings, now) = (self.settings(), self.now());
        let mut stranded = BTreeMap::<_, usize>::new();
        for order in orders {
            if settings.needs_a_person(&order, now) == Some(Attention::NoDestination) {
                audit::alarm(&order, audit::STRANDED);
                let whose = (order.key.mch_id.clone(), order.upstream.to_string());
                let count = stranded.entry(whose).or_default();
                *count = count.saturating_add(1);
            }
        }
        Ok(stranded)
    }

    /// A page of orders, newest first.
    ///
    /// # Errors
    /// When the ledger cannot be read or the cursor is not one of its own, then [`StoreError`].
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

    /// Settles an unknown order as an operator says. Audited with the reason.
    ///
    /// # Errors
    /// When there is no such order, it is not unknown, it has just changed, or the ledger cannot be written, then
    /// [`SettleError`].
    ///
    /// # Cancel safety
    /// May be dropped at any time: the work goes on in its own task.
    pub async fn settle_by_hand(
        &self,
        key: &OrderKey,
        succeeded: bool,
        reason: &str,
    ) -> Result<Order, SettleError> {
        let (payouts, key) = (self.clone(), key.clone());
        let event = Event::Operator {
            succeeded,
            reason: reason.to_owned(),
        };
        self.detached(async move { payouts.take_word(&key, event).await })
            .await
    }

    async fn take_word(&self, key: &OrderKey, event: Event) -> Result<Order, SettleError> {
        let order = self
            .show(key)
            .await?
            .ok_or_else(|| SettleError::NotFound(key.clone()))?;
        // No policy applies: the operator decides what the upstream cannot say.
        match self.apply(&order, event, Policy::UNKNOWN).await? {
            Applied::Changed(next) => Ok(*next),
            Applied::Moved(_) => Err(SettleError::Moved),
            Applied::Unchanged | Applied::Removed => Err(SettleError::NotUnknown(order.state.name())),
        }
    }
}
