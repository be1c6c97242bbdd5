//! What a repeat may do with an order that is on record: answer from the record, wait, ask the upstream first, or
//! claim the order again.

use std::sync::Arc;
use std::time::Duration;

use super::claim::Claim;
use super::merchant::Merchant;
use super::pay::{Deadline, PayRequest, over_limit};
use super::ports::{Replaced, StoreError};
use super::reply::Reply;
use super::{Payouts, audit};
use payout_domain::contract::error::ApiError;
use payout_domain::order::repeat::Repeat;
use payout_domain::order::step::Policy;
use payout_domain::order::{Order, State};

/// The pauses between looks at an order that another replica is paying: doubled each time, up to the longest.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_LOOK: Duration = Duration::from_millis(250);
/// How many turns a request takes over a record that keeps changing before it gives up with `PROCESSING`.
const MAX_TURNS: usize = 12;

/// Why an order could not be claimed again.
enum Moved {
    To(Box<Order>),
    Failed(StoreError),
}

impl Payouts {
    /// Does what a repeat may do, until there is a reply. The sidecar asks about an order and sends it again where it
    /// was sent, and nowhere else.
    pub(super) async fn repeat(&self, pay: &PayRequest, mut order: Order) -> Reply {
        let merchant = pay.settings.leads_to(&order);
        let policy = merchant
            .as_ref()
            .map_or(Policy::UNKNOWN, |merchant| merchant.policy);
        let mut asked_already = false;
        for _turn in 0..MAX_TURNS {
            let now = self.now();
            let unsettled = asked_already && matches!(order.state, State::Unknown(_));
            let what = if unsettled {
                order.repeat_unsettled(policy, now)
            } else {
                order.repeat(&pay.request, now)
            };
            let moved = match (what, &merchant) {
                (Repeat::Differs(field), _) => return Reply::Failed(ApiError::differs(field)),
                (Repeat::Answer, _) => return Reply::Recorded(Arc::new(order)),
                (Repeat::Wait, _) => match self.watch(&order, pay.deadline).await {
                    Some(Ok(moved)) => Ok(moved),
                    Some(Err(error)) => Err(error),
                    None => return Reply::Failed(ApiError::processing()),
                },
                (Repeat::AskFirst, Some(merchant)) => {
                    asked_already = true;
                    let credentials = merchant.credentials(&pay.request.credentials);
                    self.ask(&order, merchant, &credentials).await.1
                }
                (Repeat::SendAgain { pause }, Some(merchant)) if !merchant.is_settle_only => {
                    tokio::time::sleep(pause).await;
                    asked_already = false;
                    let begun = self.inner.clock.passed();
                    match self.claim_again(pay, merchant, &order).await {
                        Ok(Ok(claimed)) => {
                            let claim = Claim::of(claimed, begun);
                            return self.dispatch(merchant, &pay.request.credentials, claim).await;
                        }
                        Ok(Err(reply)) => return reply,
                        Err(Moved::To(moved)) => Ok(*moved),
                        Err(Moved::Failed(error)) => Err(error),
                    }
                }
                // No entry leads to where the order was sent, or only one that sends nothing: the record answers.
                (Repeat::AskFirst | Repeat::SendAgain { .. }, _) => return Reply::Recorded(Arc::new(order)),
            };
            order = match moved {
                Ok(moved) => moved,
                // The order exists and may have been paid: even an unreachable store does not make that "not sent".
                Err(error) => {
                    tracing::warn!(order = %order.key, %error, "the ledger is out of reach");
                    return Reply::Failed(ApiError::unknown());
                }
            };
        }
        Reply::Failed(ApiError::processing())
    }

    async fn claim_again(
        &self,
        pay: &PayRequest,
        merchant: &Merchant,
        order: &Order,
    ) -> Result<Result<Order, Reply>, Moved> {
        let now = self.now();
        let limits = &pay.settings.limits;
        // To the limits, a refused order is a new payout. One that may be paid has already passed them.
        if let (State::Refused(_), Err(fault)) = (&order.state, limits.check(order.amount)) {
            return Ok(Err(Reply::Failed(fault)));
        }
        let charges = limits.charges(&order.wx_app_id, &order.user_id, order.amount, now.wall);
        let Some(next) = order.claimed_again(self.lease(merchant), charges, now) else {
            return Ok(Err(Reply::Failed(ApiError::processing())));
        };
        match self.replace(order, &next).await {
            Ok(Replaced::Done) => Ok(Ok(next)),
            Ok(Replaced::Moved(Some(moved))) => Err(Moved::To(moved)),
            // The record is gone, and with it the outcome of earlier attempts: nothing may be sent.
            Ok(Replaced::Moved(None)) => {
                audit::alarm(order, "the ledger has forgotten this order between two looks");
                Ok(Err(Reply::Failed(ApiError::unknown())))
            }
            Ok(Replaced::OverLimit(at)) => Ok(Err(over_limit(&next, at))),
            Err(error) => {
                if error.unsure {
                    self.take_back(next, merchant.policy);
                }
                Err(Moved::Failed(error))
            }
        }
    }

    /// Looks at a pending order until its record is another version, also because its lease ran out while this
    /// process watched it. `None` when the deadline has passed.
    async fn watch(&self, order: &Order, deadline: Deadline) -> Option<Result<Order, StoreError>> {
        let mut pause = FIRST_LOOK;
        loop {
            match self.watch_claim(order.clone()).await {
                Ok(now) if now.version != order.version => return Some(Ok(now)),
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
            if deadline.left() <= pause {
                return None;
            }
            tokio::time::sleep(pause).await;
            pause = std::cmp::min(pause.saturating_mul(2), LONGEST_LOOK);
            match self.inner.ledger.get(&order.key).await {
                Ok(Some(now)) if now.version != order.version => return Some(Ok(now)),
                Ok(Some(_)) => {}
                // The process that claimed it took the claim back: it sent nothing. This repeat does not know why.
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
