//! What an operator may do: look payouts up, say what became of one that is unknown, and cancel a bill that the user has
//! not confirmed. Document: specification, section 8.

use std::collections::BTreeMap;
use std::time::Duration;

use super::apply::Applied;
use super::ports::{ListFilter, OrderQuestion, Page, StoreError};
use super::{Payouts, audit};
use payout_domain::ids::{MchId, OrderKey};
use payout_domain::order::step::{Event, Policy};
use payout_domain::order::{Attention, Destination, Order, State, StateName};
use payout_domain::wechat::v3::answer::Withdrawal;

/// How many unsettled orders are looked at when a configuration changes.
const STRANDED_AT_MOST: usize = 10_000;

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

/// Why a payout was not cancelled.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// There is no such order.
    #[error("no order {0} is on record")]
    NotFound(OrderKey),
    /// Another product: what it has paid stays paid.
    #[error("only v3 transfers (transfer-bill) can be cancelled")]
    NotABill,
    /// It has come to its end, or is being paid right now.
    #[error("the payout cannot be cancelled: it is {0}")]
    NotOpen(String),
    /// The merchant's entry is gone or leads elsewhere.
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
    /// WeChat Pay may have taken it or not.
    #[error("it is not known whether WeChat Pay cancelled it ({0}): look at it again in a minute")]
    Unclear(String),
    /// The ledger is out of reach.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Payouts {
    /// Asks WeChat Pay to take a bill back that its user has not confirmed. It may do so at once or be about to; the bill is
    /// followed to its end, and gives its limits back then. Audited.
    ///
    /// # Errors
    /// When the order is no open bill, or WeChat Pay or the ledger does not do it, then [`CancelError`].
    ///
    /// # Cancel safety
    /// May be dropped at any time: it goes on in a task of its own.
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

    /// How many unsettled orders no entry of the configuration leads to, by merchant and by where they were sent; of the first
    /// [`STRANDED_AT_MOST`] unsettled ones. Each is audited.
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
    ///
    /// # Cancel safety
    /// May be dropped at any time: it goes on in a task of its own.
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
        // An operator's word needs no policy: it is about what the upstream cannot say.
        match self.apply(&order, event, Policy::UNKNOWN).await? {
            Applied::Changed(next) => Ok(*next),
            Applied::Moved(_) => Err(SettleError::Moved),
            Applied::Unchanged | Applied::Removed => Err(SettleError::NotUnknown(order.state.name())),
        }
    }
}
