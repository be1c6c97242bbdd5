//! One request to pay, from admitted to answered: identify, claim, dispatch, record; or, for an order that is there
//! already, what a repeat may do. Document: specification, section 5.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::claim::Claim;
use super::merchant::Merchant;
use super::ports::{Inserted, OrderQuestion, Replaced, StoreError};
use super::reply::Reply;
use super::single_flight::{Leader, Role};
use super::{Payouts, Settings, events};
use crate::telemetry::context::carried;
use payout_domain::contract::error::ApiError;
use payout_domain::contract::send::SendRequest;
use payout_domain::encoding::Encoding;
use payout_domain::ids::{Moment, OpenId};
use payout_domain::order::repeat::Repeat;
use payout_domain::order::step::{Event, Policy};
use payout_domain::order::{Lease, NewOrder, Order, State};
use payout_domain::outcome::Evidence;

/// The pauses between looks at an order that another replica is paying.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_LOOK: Duration = Duration::from_millis(250);
/// How often a request may find that the order has moved on under it before it gives up with `PROCESSING`.
const MAX_TURNS: usize = 12;

/// A request on its way, with everything that it began with.
struct PayRequest {
    request: SendRequest,
    asked: Encoding,
    settings: Arc<Settings>,
    deadline: Deadline,
}

impl Payouts {
    /// Pays, or answers a repeat. `asked` is the request's encoding; `permit` is kept until the payout is recorded, e.g. the
    /// request's place among those in flight, which a caller that hangs up must not free.
    ///
    /// # Cancel safety
    /// May be dropped at any time: the payout runs in a task of its own, and goes on.
    pub async fn send(&self, request: SendRequest, asked: Encoding, permit: impl Send + 'static) -> Reply {
        let settings = self.settings();
        let deadline = Deadline::after(settings.request_timeout);
        let (followed, replies) = match self.inner.single_flight.join(&request) {
            Role::Follow(replies) => (true, replies),
            Role::Lead(leader) | Role::Apart(leader) => {
                let replies = leader.subscribe();
                let pay = PayRequest {
                    request,
                    asked,
                    settings,
                    deadline,
                };
                self.spawn(pay, permit, leader);
                (false, replies)
            }
        };
        wait(replies, deadline, followed).await
    }

    /// Begins the pay in a task that outlives the caller.
    fn spawn(&self, pay: PayRequest, permit: impl Send + 'static, leader: Leader) {
        let payouts = self.clone();
        // In a box of its own from the start: what a pay needs at its widest would otherwise be moved whole with each
        // of the task's wrappers.
        let pay = Box::pin(async move { payouts.run(pay).await });
        self.tasks().spawn(carried(async move {
            let reply = pay.await;
            drop(permit);
            leader.complete(reply);
        }));
    }

    async fn run(&self, pay: PayRequest) -> Reply {
        let request = &pay.request;
        // Who is to pay is asked for a new order only: what was paid stays paid, whatever the configuration says now.
        let Some(merchant) = pay.settings.merchant(&request.mch_id, &request.wx_app_id) else {
            let otherwise = Reply::NotTaken(ApiError::no_merchant());
            return self.answer_existing(&pay, otherwise).await;
        };
        match self
            .inner
            .identity
            .openid(&request.wx_app_id, &request.user_id)
            .await
        {
            Ok(Some(openid)) => self.claim(&pay, &merchant, &openid).await,
            // The record's openid wins: only a new order needs one.
            Ok(None) => {
                self.answer_existing(&pay, Reply::Failed(ApiError::no_openid()))
                    .await
            }
            Err(error) => {
                tracing::warn!(%error, user_id = %request.user_id, "a user id could not be looked up");
                let fault = ApiError::not_sent("the identity store is out of reach");
                self.answer_existing(&pay, Reply::Failed(fault)).await
            }
        }
    }

    /// This request cannot become an order, but the order may be known already, and then its record answers: a payout
    /// that was made stays made, whatever has changed in the mapping or the configuration since.
    async fn answer_existing(&self, pay: &PayRequest, otherwise: Reply) -> Reply {
        match self.inner.ledger.get(&pay.request.key()).await {
            Ok(Some(order)) => Box::pin(self.repeat(pay, order)).await,
            Ok(None) => otherwise,
            Err(error) => self.out_of_reach(&error),
        }
    }

    async fn claim(&self, pay: &PayRequest, merchant: &Arc<Merchant>, openid: &OpenId) -> Reply {
        let (begun, now) = (self.inner.clock.passed(), self.now());
        let order = match compose(pay, merchant, openid, self.lease(merchant), now) {
            Ok(order) => order,
            Err(otherwise) => return self.answer_existing(pay, otherwise).await,
        };
        match self.insert(&order).await {
            Ok(Inserted::Done) => {
                events::changed(&order);
                self.dispatch(pay, merchant, Claim::of(order, begun)).await
            }
            Ok(Inserted::Exists(existing)) => Box::pin(self.repeat(pay, *existing)).await,
            Ok(Inserted::OverLimit(at)) => over_limit(&order, at),
            Err(error) => {
                // Nothing was sent. Should the claim be there after all, it is taken back, so that it blocks nobody.
                if error.unsure {
                    let evidence = Evidence::NeverSent {
                        why: "the claim was not acknowledged".to_owned(),
                    };
                    let event = Event::Attempted {
                        version: order.version,
                        evidence,
                    };
                    self.record_later(order, event, merchant.policy);
                }
                self.out_of_reach(&error)
            }
        }
    }

    /// Claims, and once more where the acknowledgement was lost: a ledger answers `Done` to the very same claim.
    async fn insert(&self, order: &Order) -> Result<Inserted, StoreError> {
        match self.inner.ledger.insert(order).await {
            Err(error) if error.unsure => self
                .inner
                .ledger
                .insert(order)
                .await
                .map_err(StoreError::after_unsure),
            inserted => inserted,
        }
    }

    /// From here on there is no error, only evidence.
    async fn dispatch(&self, pay: &PayRequest, merchant: &Merchant, claim: Option<Claim>) -> Reply {
        let Some(claim) = claim else {
            return Reply::Failed(ApiError::unknown());
        };
        let credentials = merchant.credentials(&pay.request.credentials);
        let evidence = merchant.upstream.attempt(&claim, &credentials).await;
        let claimed = claim.into_order();
        match &evidence {
            Evidence::NeverSent { why } | Evidence::NoAnswer { why } => {
                merchant.contact.missed();
                tracing::warn!(order = %claimed.key, why, "an attempt got no answer");
            }
            Evidence::Accepted { .. } | Evidence::Opened { .. } | Evidence::Declined { .. } => {}
        }
        self.record(claimed, evidence, merchant.policy).await
    }

    /// What a repeat may do, until there is a reply. An order is asked about and sent again where it was sent, and nowhere else.
    async fn repeat(&self, pay: &PayRequest, mut order: Order) -> Reply {
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
                            return self.dispatch(pay, merchant, Claim::of(claimed, begun)).await;
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
            Ok(Replaced::Done) => {
                events::changed(&next);
                Ok(Ok(next))
            }
            Ok(Replaced::Moved(Some(moved))) => Err(Moved::To(moved)),
            // The record is gone, and with it what earlier attempts came to: nothing may be sent on its word.
            Ok(Replaced::Moved(None)) => {
                events::alarm(order, "the ledger has forgotten this order between two looks");
                Ok(Err(Reply::Failed(ApiError::unknown())))
            }
            Ok(Replaced::OverLimit(at)) => Ok(Err(over_limit(&next, at))),
            Err(error) => {
                if error.unsure {
                    let evidence = Evidence::NeverSent {
                        why: "the claim was not acknowledged".to_owned(),
                    };
                    let event = Event::Attempted {
                        version: next.version,
                        evidence,
                    };
                    self.record_later(next, event, merchant.policy);
                }
                Err(Moved::Failed(error))
            }
        }
    }

    /// No ledger, no payout.
    fn out_of_reach(&self, error: &StoreError) -> Reply {
        if let Some(left_out) = self.inner.out_of_reach.may_tell() {
            tracing::warn!(%error, left_out, "nothing was sent: the ledger is out of reach");
        }
        Reply::Failed(ApiError::not_sent("the ledger is out of reach"))
    }

    /// A lease with a nonce of its own, by which the claim can be told from every other.
    fn lease(&self, merchant: &Merchant) -> Lease {
        Lease {
            nonce: self.inner.rng.next_u64(),
            length: merchant.lease(),
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

/// Until when a caller waits.
#[derive(Clone, Copy)]
struct Deadline {
    begun: Instant,
    timeout: Duration,
}

impl Deadline {
    fn after(timeout: Duration) -> Self {
        Self {
            begun: Instant::now(),
            timeout,
        }
    }

    fn left(self) -> Duration {
        self.timeout.saturating_sub(self.begun.elapsed())
    }
}

enum Moved {
    To(Box<Order>),
    Failed(StoreError),
}

/// Waits for the reply. Who leads is told that the outcome is unknown when the time is over, who follows that another
/// request is paying.
async fn wait(mut replies: watch::Receiver<Option<Reply>>, deadline: Deadline, followed: bool) -> Reply {
    let completed = tokio::time::timeout(deadline.left(), replies.wait_for(Option::is_some)).await;
    match completed {
        Ok(Ok(reply)) => reply
            .clone()
            .unwrap_or_else(|| Reply::Failed(ApiError::unknown())),
        // The task is gone without a reply: it panicked, after which only the ledger knows.
        Ok(Err(_)) => Reply::Failed(ApiError::unknown()),
        Err(_) if followed => Reply::Failed(ApiError::processing()),
        Err(_) => Reply::Failed(ApiError::unknown()),
    }
}

/// The order that a request becomes if it is new; else the reply to a request that cannot become one.
fn compose(
    pay: &PayRequest,
    merchant: &Merchant,
    openid: &OpenId,
    lease: Lease,
    now: Moment,
) -> Result<Order, Reply> {
    let PayRequest {
        request, settings, ..
    } = pay;
    settings.limits.check(request.amount).map_err(Reply::Failed)?;
    let client_ip = match settings.client_ip {
        Some(configured) => Some(configured),
        None => request.client_address().map_err(Reply::NotTaken)?,
    };
    let (upstream, parameters) = merchant
        .compose(request, openid, client_ip, pay.asked)
        .map_err(Reply::NotTaken)?;
    let new = NewOrder {
        upstream,
        encoding: pay.asked,
        openid: openid.clone(),
        parameters,
        charges: settings
            .limits
            .charges(&request.wx_app_id, &request.user_id, request.amount, now.wall),
    };
    Ok(Order::claimed(request, new, lease, now))
}

fn over_limit(order: &Order, at: usize) -> Reply {
    let fault = order.charges.get(at).map(|charge| charge.over(&order.key.mch_id));
    Reply::Failed(fault.unwrap_or_else(|| ApiError::not_sent("a limit was passed")))
}

impl OrderQuestion {
    /// The question about a recorded order.
    #[must_use]
    pub fn of(order: &Order) -> Self {
        Self {
            key: order.key.clone(),
            wx_app_id: order.wx_app_id.clone(),
            trade_record_id: order.trade_record_id,
            upstream: order.upstream.clone(),
            encoding: order.encoding,
            expected: Some((order.amount, order.openid.clone())),
        }
    }
}
