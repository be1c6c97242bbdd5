//! Notifications from an upstream: verifies each, compares it with the record, and records what it says. The same
//! notification may come many times. See docs/wechat-pay.md (notifications).

use std::time::Duration;

use super::apply::Applied;
use super::ports::{Notice, StoreError};
use super::{Payouts, audit};
use crate::telemetry::traces::server::learn_order;
use payout_domain::ids::OrderKey;
use payout_domain::order::step::{Event, Policy};
use payout_domain::order::{Destination, Order, State};
use payout_domain::outcome::Found;
use payout_domain::wechat::v3::answer::Notification;

/// How many times the record may change under a notification before the sender is asked to send it again.
const MAX_TURNS: usize = 8;

/// Why the sidecar did not take a notification. Its sender repeats it.
#[derive(Debug, thiserror::Error)]
pub enum NoticeError {
    /// No merchant's notifications come to this path.
    #[error("no merchant's notifications come here")]
    NoSuchPath,
    /// It is not from WeChat Pay, not fresh, tampered with, or another merchant's.
    #[error("the notification is not believed: {0}")]
    Unverified(String),
    /// Its order is not on record.
    #[error("no order {0} is on record")]
    NoSuchOrder(OrderKey),
    /// It contradicts the record of its order.
    #[error("the notification contradicts the record of {0}: {1}")]
    Contradiction(OrderKey, String),
    /// Its order is changing right now.
    #[error("the order {0} is being paid right now")]
    Busy(OrderKey),
    /// The ledger is out of reach.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Payouts {
    /// Takes a notification that came to `path`.
    ///
    /// # Errors
    /// When it cannot be verified, contradicts the record, or cannot be recorded now, then [`NoticeError`]; nothing
    /// has changed.
    ///
    /// # Cancel safety
    /// May be dropped at any time: once the notification is verified, its own task records it.
    pub async fn notified(&self, path: &str, notice: Notice<'_>) -> Result<(), NoticeError> {
        let merchants = self.settings().notified_at(path);
        let mut refusal = NoticeError::NoSuchPath;
        for merchant in merchants {
            match merchant.upstream.open(notice).await {
                Ok(notification) => {
                    let (payouts, policy) = (self.clone(), merchant.policy);
                    return self
                        .detached(async move { payouts.told(&notification, policy).await })
                        .await;
                }
                // Several merchants may share a path: only their keys tell whose notification it is.
                Err(why) => refusal = NoticeError::Unverified(why),
            }
        }
        Err(refusal)
    }

    async fn told(&self, notification: &Notification, policy: Policy) -> Result<(), NoticeError> {
        let key = &notification.key;
        learn_order(key);
        for _turn in 0..MAX_TURNS {
            let order = self.inner.ledger.get(key).await?;
            let order = order.ok_or_else(|| NoticeError::NoSuchOrder(key.clone()))?;
            let finding = notification.finding(&order);
            if order.upstream != Destination::TransferBill {
                return Err(contradiction(&order, "it was not sent as a bill".to_owned()));
            }
            if let Found::Unclear { why } = &finding.found {
                return Err(contradiction(&order, why.clone()));
            }
            let is_acceptance = matches!(finding.found, Found::Accepted { .. });
            let event = Event::Asked {
                finding,
                heard: Duration::ZERO,
            };
            match self.apply(&order, event, policy).await? {
                // An attempt is under way, and its own answer takes precedence.
                Applied::Unchanged if matches!(order.state, State::Pending(_)) && !is_acceptance => {
                    return Err(NoticeError::Busy(key.clone()));
                }
                Applied::Changed(_) | Applied::Unchanged | Applied::Removed => return Ok(()),
                Applied::Moved(_) => {}
            }
        }
        Err(NoticeError::Busy(key.clone()))
    }
}

fn contradiction(order: &Order, why: String) -> NoticeError {
    audit::alarm(order, "a verified notification contradicts the record");
    NoticeError::Contradiction(order.key.clone(), why)
}
