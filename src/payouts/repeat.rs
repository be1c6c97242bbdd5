//! What a repeated request may do with an order that is on record: answer from it, wait, ask the upstream first, or claim the
//! order again.

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

/// The pauses between looks at an order that another replica is paying.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_LOOK: Duration = Duration::from_millis(250);
/// How often a request may find that the order has moved on under it before it gives up with `PROCESSING`.
const MAX_TURNS: usize = 12;

/// Why an order could not be claimed again.
enum Moved {
    To(Box<Order>),
    Failed(StoreError),
}

impl Payouts {
    /// What a repeat may do, until there is a reply. An order is asked about and sent again where it was sent, and nowhere else.
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
                // No entry leads to where the order was sent, or one for questions only: the record answers.
                (Repeat::AskFirst | Repeat::SendAgain { .. }, _) => return Reply::Recorded(Arc::new(order)),
            };
            order = match moved {
                Ok(moved) => moved,
                // The order exists and may have been paid: not even an unreachable store makes that "not sent".
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
        // What was refused is a new payout to the limits; what may be paid already has passed them.
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
            // The record is gone, and with it what earlier attempts came to: nothing may be sent on its word.
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

    /// Looks at a pending order until it is no longer the same claim, be it that its lease has run out under this process's
    /// eyes; `None` when the time is over.
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
                // Taken back by whoever paid it: this repeat may not know what came of it, but nothing was sent.
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
