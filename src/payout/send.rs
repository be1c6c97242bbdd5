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
use super::waiters::Place;
use super::{Payouts, Settings, audit};
use crate::rules::contract::fault::Fault;
use crate::rules::contract::send::{CLIENT_IP, RequestCredentials, SendRequest};
use crate::rules::encoding::Encoding;
use crate::rules::order::repeat::Repeat;
use crate::rules::order::step::Event;
use crate::rules::order::{Lease, NewOrder, Order, State};
use crate::rules::outcome::Evidence;
use crate::rules::term::{Millis, OpenId};
use crate::telemetry::context::carried;

/// The pauses between looks at an order that another replica is paying.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_LOOK: Duration = Duration::from_millis(250);
/// How often a request may find that the order has moved on under it before it gives up with `PROCESSING`.
const MAX_TURNS: usize = 12;

/// A request on its way, with everything that it began with.
struct Journey {
    request: SendRequest,
    asked: Encoding,
    merchant: Arc<Merchant>,
    settings: Arc<Settings>,
    credentials: RequestCredentials,
    deadline: Deadline,
}

impl Payouts {
    /// Pays, or answers a repeat. `asked` is the request's encoding; `held` is kept until the payout is recorded, e.g. the
    /// request's place among those in flight, which a caller that hangs up must not free.
    ///
    /// # Errors
    /// When the request is not taken (no merchant, over `max_amount`), then the fault; nothing was sent or recorded.
    ///
    /// # Cancel safety
    /// May be dropped at any time: the payout runs in a task of its own, and goes on.
    pub async fn send(
        &self,
        request: SendRequest,
        asked: Encoding,
        held: impl Send + 'static,
    ) -> Result<Reply, Fault> {
        let settings = self.settings();
        let merchant = settings
            .merchant(&request.mch_id, &request.wx_app_id)
            .ok_or_else(Fault::no_merchant)?;
        if settings.client_ip.is_none() && request.client_ip.is_none() {
            return Err(Fault::missing(CLIENT_IP));
        }
        let deadline = Deadline::after(settings.request_timeout);
        let (followed, replies) = match self.inner.waiters.join(&request) {
            Place::Follow(replies) => (true, replies),
            Place::Lead(leader) => {
                let replies = leader.subscribe();
                let journey = self.journey(request, asked, merchant, settings, deadline);
                self.set_out(journey, held, |reply| leader.land(reply));
                (false, replies)
            }
            Place::Apart => {
                let (sender, replies) = watch::channel(None);
                let journey = self.journey(request, asked, merchant, settings, deadline);
                self.set_out(journey, held, move |reply| {
                    sender.send_replace(Some(reply));
                });
                (false, replies)
            }
        };
        Ok(wait(replies, deadline, followed).await)
    }

    /// Begins the journey in a task that outlives the caller.
    fn set_out(
        &self,
        journey: Journey,
        held: impl Send + 'static,
        land: impl FnOnce(Reply) + Send + 'static,
    ) {
        let payouts = self.clone();
        // In a box of its own from the start: what a journey needs at its widest would otherwise be moved whole with each
        // of the task's wrappers.
        let journey = Box::pin(async move { payouts.travel(journey).await });
        self.tasks().spawn(carried(async move {
            let reply = journey.await;
            drop(held);
            land(reply);
        }));
    }

    fn journey(
        &self,
        request: SendRequest,
        asked: Encoding,
        merchant: Arc<Merchant>,
        settings: Arc<Settings>,
        deadline: Deadline,
    ) -> Journey {
        let credentials = merchant.credentials(&request.credentials);
        Journey {
            request,
            asked,
            merchant,
            settings,
            credentials,
            deadline,
        }
    }

    async fn travel(&self, journey: Journey) -> Reply {
        let request = &journey.request;
        match self
            .inner
            .identity
            .openid(&request.wx_app_id, &request.user_id)
            .await
        {
            Ok(Some(openid)) => self.claim(&journey, &openid).await,
            // The record's openid wins: only a new order needs one.
            Ok(None) => {
                self.answer_existing(&journey, Reply::Failed(Fault::no_openid()))
                    .await
            }
            Err(error) => {
                tracing::warn!(%error, user_id = %request.user_id, "a user id could not be looked up");
                let fault = Fault::not_sent("the identity store is out of reach");
                self.answer_existing(&journey, Reply::Failed(fault)).await
            }
        }
    }

    /// This request cannot become an order, but the order may be known already, and then its record answers: a payout
    /// that was made stays made, whatever has changed in the mapping or the configuration since.
    async fn answer_existing(&self, journey: &Journey, otherwise: Reply) -> Reply {
        match self.inner.ledger.get(&journey.request.key()).await {
            Ok(Some(order)) => Box::pin(self.repeat(journey, order)).await,
            Ok(None) => otherwise,
            Err(error) => out_of_reach(&error),
        }
    }

    async fn claim(&self, journey: &Journey, openid: &OpenId) -> Reply {
        let now = self.inner.clock.now();
        let order = match compose(journey, openid, self.lease(&journey.merchant), now) {
            Ok(order) => order,
            Err(otherwise) => return self.answer_existing(journey, otherwise).await,
        };
        match self.insert(&order).await {
            Ok(Inserted::Done) => {
                audit::changed(&order);
                self.dispatch(journey, order).await
            }
            Ok(Inserted::Exists(existing)) => Box::pin(self.repeat(journey, *existing)).await,
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
                    self.record_later(order, event, journey.merchant.policy);
                }
                out_of_reach(&error)
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
    async fn dispatch(&self, journey: &Journey, claimed: Order) -> Reply {
        let Some(claim) = Claim::of(claimed) else {
            return Reply::Failed(Fault::unknown());
        };
        let evidence = journey
            .merchant
            .upstream
            .attempt(&claim, &journey.credentials)
            .await;
        let claimed = claim.into_order();
        match &evidence {
            Evidence::NeverSent { why } | Evidence::NoAnswer { why } => {
                tracing::warn!(order = %claimed.key, why, "an attempt got no answer");
            }
            Evidence::Accepted { .. } | Evidence::Opened { .. } | Evidence::Declined { .. } => {}
        }
        self.record(claimed, evidence, journey.merchant.policy).await
    }

    /// What a repeat may do, until there is a reply.
    async fn repeat(&self, journey: &Journey, mut order: Order) -> Reply {
        let merchant = &journey.merchant;
        let mut asked_already = false;
        for _turn in 0..MAX_TURNS {
            let now = self.inner.clock.now();
            let unsettled = asked_already && matches!(order.state, State::Unknown(_));
            let what = if unsettled {
                order.repeat_unsettled(merchant.policy, now)
            } else {
                order.repeat(&journey.request, now)
            };
            let moved = match what {
                Repeat::Differs(field) => return Reply::Failed(Fault::differs(field)),
                Repeat::Answer => return Reply::Recorded(Arc::new(order)),
                Repeat::Wait => match self.watch(&order, journey.deadline).await {
                    Some(Ok(moved)) => Ok(moved),
                    Some(Err(error)) => Err(error),
                    None => return Reply::Failed(Fault::processing()),
                },
                Repeat::Lapsed => self.record_lapse(&order, merchant.policy).await,
                Repeat::AskFirst => {
                    asked_already = true;
                    let question = OrderQuestion::of(&order);
                    let finding = merchant.upstream.query(&question, &journey.credentials).await;
                    self.record_finding(&order, finding, merchant.policy).await
                }
                Repeat::SendAgain { not_before } => {
                    tokio::time::sleep(not_before.since(now)).await;
                    asked_already = false;
                    match self.claim_again(journey, &order).await {
                        Ok(Ok(claimed)) => return self.dispatch(journey, claimed).await,
                        Ok(Err(reply)) => return reply,
                        Err(Moved::To(moved)) => Ok(*moved),
                        Err(Moved::Failed(error)) => Err(error),
                    }
                }
            };
            order = match moved {
                Ok(moved) => moved,
                // The order exists and may have been paid: not even an unreachable store makes that "not sent".
                Err(error) => {
                    tracing::warn!(order = %order.key, %error, "the ledger is out of reach");
                    return Reply::Failed(Fault::unknown());
                }
            };
        }
        Reply::Failed(Fault::processing())
    }

    async fn claim_again(&self, journey: &Journey, order: &Order) -> Result<Result<Order, Reply>, Moved> {
        let now = self.inner.clock.now();
        let limits = &journey.settings.limits;
        let charges = limits.charges(&order.wx_app_id, &order.user_id, order.amount, now);
        let next = self
            .lease(&journey.merchant)
            .and_then(|lease| order.claimed_again(lease, charges, now));
        let Some(next) = next else {
            return Ok(Err(Reply::Failed(Fault::processing())));
        };
        match self.replace(order, &next).await {
            Ok(Replaced::Done) => {
                audit::changed(&next);
                Ok(Ok(next))
            }
            Ok(Replaced::Moved(Some(moved))) => Err(Moved::To(moved)),
            // The record is gone, and with it what earlier attempts came to: nothing may be sent on its word.
            Ok(Replaced::Moved(None)) => {
                audit::alarm(order, "the ledger has forgotten this order between two looks");
                Ok(Err(Reply::Failed(Fault::unknown())))
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
                    self.record_later(next, event, journey.merchant.policy);
                }
                Err(Moved::Failed(error))
            }
        }
    }

    /// A lease with a seal of its own; `None` where the machine has no randomness, without which no claim can be told
    /// from another.
    fn lease(&self, merchant: &Merchant) -> Option<Lease> {
        Some(Lease {
            seal: self.inner.chance.number()?,
            length: merchant.lease(),
        })
    }

    /// Looks at a pending order until it is no longer the same claim; `None` when the time is over.
    async fn watch(&self, order: &Order, deadline: Deadline) -> Option<Result<Order, StoreError>> {
        let mut pause = FIRST_LOOK;
        loop {
            let lapses = self.inner.clock.now() >= order.due_at().unwrap_or_default();
            if lapses {
                return Some(Ok(order.clone()));
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
    patience: Duration,
}

impl Deadline {
    fn after(patience: Duration) -> Self {
        Self {
            begun: Instant::now(),
            patience,
        }
    }

    fn left(self) -> Duration {
        self.patience.saturating_sub(self.begun.elapsed())
    }
}

enum Moved {
    To(Box<Order>),
    Failed(StoreError),
}

/// Waits for the reply. Who leads is told that the outcome is unknown when the time is over, who follows that another
/// request is paying.
async fn wait(mut replies: watch::Receiver<Option<Reply>>, deadline: Deadline, followed: bool) -> Reply {
    let landed = tokio::time::timeout(deadline.left(), replies.wait_for(Option::is_some)).await;
    match landed {
        Ok(Ok(reply)) => reply.clone().unwrap_or_else(|| Reply::Failed(Fault::unknown())),
        // The task is gone without a reply: it panicked, after which only the ledger knows.
        Ok(Err(_)) => Reply::Failed(Fault::unknown()),
        Err(_) if followed => Reply::Failed(Fault::processing()),
        Err(_) => Reply::Failed(Fault::unknown()),
    }
}

/// The order that a request becomes if it is new; else the reply to a request that cannot become one.
fn compose(journey: &Journey, openid: &OpenId, lease: Option<Lease>, now: Millis) -> Result<Order, Reply> {
    let Journey {
        request,
        settings,
        merchant,
        ..
    } = journey;
    settings.limits.check(request.amount).map_err(Reply::Failed)?;
    let client_ip = match settings.client_ip {
        Some(configured) => Some(configured),
        None => request.client_address().map_err(Reply::NotTaken)?,
    };
    let (upstream, parameters) = merchant
        .compose(request, openid, client_ip, journey.asked)
        .map_err(Reply::NotTaken)?;
    let lease = lease.ok_or_else(|| Reply::Failed(Fault::not_sent("the machine has no randomness")))?;
    let new = NewOrder {
        upstream,
        encoding: journey.asked,
        openid: openid.clone(),
        parameters,
        charges: settings
            .limits
            .charges(&request.wx_app_id, &request.user_id, request.amount, now),
    };
    Ok(Order::claimed(request, new, lease, now))
}

fn over_limit(order: &Order, at: usize) -> Reply {
    let fault = order.charges.get(at).map(|charge| charge.over(&order.key.mch_id));
    Reply::Failed(fault.unwrap_or_else(|| Fault::not_sent("a limit was passed")))
}

fn out_of_reach(error: &StoreError) -> Reply {
    tracing::warn!(%error, "nothing was sent: the ledger is out of reach");
    Reply::Failed(Fault::not_sent("the ledger is out of reach"))
}

impl OrderQuestion {
    /// The question about a recorded order.
    #[must_use]
    pub fn of(order: &Order) -> Self {
        Self {
            key: order.key.clone(),
            wx_app_id: order.wx_app_id.clone(),
            trade_record_id: order.trade_record_id,
            upstream: order.upstream,
            encoding: order.encoding,
            expected: Some((order.amount, order.openid.clone())),
        }
    }
}
