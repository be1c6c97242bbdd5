//! What an upstream tells by itself: verified, held against the record, and written. The same one may come many times.
//! Document: wechat-pay.md, section 11; specification, section 6.

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

/// How often the record may change under a notification before its sender is asked to come again.
const MAX_TURNS: usize = 8;

/// Why a notification was not taken. Its sender repeats it.
#[derive(Debug, thiserror::Error)]
pub enum NoticeError {
    /// Nobody's notifications come to this path.
    #[error("no merchant's notifications come here")]
    NoSuchPath,
    /// Not WeChat Pay's, not fresh, tampered with, or another merchant's.
    #[error("the notification is not believed: {0}")]
    Unverified(String),
    /// About an order that is not on record.
    #[error("no order {0} is on record")]
    NoSuchOrder(OrderKey),
    /// About an order on record, and at odds with it.
    #[error("the notification contradicts the record of {0}: {1}")]
    Contradiction(OrderKey, String),
    /// The order is changing right now.
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
    /// When it is not believed, contradicts the record, or cannot be recorded now, then [`NoticeError`]; nothing has changed.
    ///
    /// # Cancel safety
    /// May be dropped at any time: what was believed is recorded by a task of its own.
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
                // Several merchants may share a path: whose it is, only their keys can tell.
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
                // An attempt is under way, and its own answer counts first.
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
