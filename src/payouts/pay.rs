//! One request to pay, from its admission to its reply: look the user up, claim, send, record. If the order is
//! already on record, the request is a repeat, and `repeat` takes over. See docs/promise.md.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::claim::Claim;
use super::merchant::Merchant;
use super::ports::{Inserted, StoreError};
use super::reply::Reply;
use super::single_flight::{Leader, Role};
use super::{Payouts, Settings};
use crate::telemetry::context::carried;
use payout_domain::contract::error::ApiError;
use payout_domain::contract::reason::NotSent;
use payout_domain::contract::send::SendRequest;
use payout_domain::encoding::Encoding;
use payout_domain::ids::{Moment, OpenId};
use payout_domain::order::{Lease, NewOrder, Order};

/// A request to pay, with the settings and the deadline that it began with.
pub(super) struct PayRequest {
    pub(super) request: SendRequest,
    asked: Encoding,
    pub(super) settings: Arc<Settings>,
    pub(super) deadline: Deadline,
}

impl Payouts {
    /// Pays, or answers a repeat. `asked` is the request's encoding. The payout holds `permit` until it is recorded:
    /// e.g. the request's share of `max_in_flight`, which a caller that hangs up must not free.
    ///
    /// # Cancel safety
    /// May be dropped at any time: the payout runs in its own task, and goes on.
    pub async fn send(&self, request: SendRequest, asked: Encoding, permit: impl Send + 'static) -> Reply {
        let settings = Arc::clone(self.settings());
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

    /// Starts the work for a request to pay, in a task that outlives the caller.
    fn spawn(&self, pay: PayRequest, permit: impl Send + 'static, leader: Leader) {
        let payouts = self.clone();
        // Boxed from the start: otherwise each wrapper of the task would move the whole of this large future.
        let pay = Box::pin(async move { payouts.run(pay).await });
        self.tasks().spawn(carried(async move {
            let reply = pay.await;
            drop(permit);
            leader.complete(reply);
        }));
    }

    async fn run(&self, pay: PayRequest) -> Reply {
        let request = &pay.request;
        // Only a new order needs an entry that takes it: what was paid stays paid, whatever the configuration says
        // now.
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
            // Only a new order needs the mapping's openid: an order on record has its own.
            Ok(None) => {
                self.answer_existing(&pay, Reply::Failed(ApiError::no_openid()))
                    .await
            }
            Err(error) => {
                tracing::warn!(%error, user_id = %request.user_id, "a user id could not be looked up");
                let fault = ApiError::not_sent(NotSent::Openids);
                self.answer_existing(&pay, Reply::Failed(fault)).await
            }
        }
    }

    /// The reply to a request that cannot become a new order: the record's answer if the order is on record, else
    /// `otherwise`. A payout that was made stays made, whatever has changed in the mapping or the configuration
    /// since.
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
                let claim = Claim::of(order, begun);
                self.dispatch(merchant, &pay.request.credentials, claim).await
            }
            Ok(Inserted::Exists(existing)) => Box::pin(self.repeat(pay, *existing)).await,
            Ok(Inserted::OverLimit(at)) => over_limit(&order, at),
            Err(error) => {
                if error.unsure {
                    self.take_back(order, merchant.policy);
                }
                self.out_of_reach(&error)
            }
        }
    }

    /// The reply while the ledger is out of reach: without a ledger there is no payout.
    fn out_of_reach(&self, error: &StoreError) -> Reply {
        if let Some(left_out) = self.inner.out_of_reach.may_tell() {
            tracing::warn!(%error, left_out, "nothing was sent: the ledger is out of reach");
        }
        Reply::Failed(ApiError::not_sent(NotSent::Ledger))
    }

    /// A lease with a random nonce, which tells this claim from every other.
    pub(super) fn lease(&self, merchant: &Merchant) -> Lease {
        Lease {
            nonce: self.inner.rng.next_u64(),
            length: merchant.lease(),
        }
    }
}

/// The moment until which a caller waits.
#[derive(Clone, Copy)]
pub(super) struct Deadline {
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

    pub(super) fn left(self) -> Duration {
        self.timeout.saturating_sub(self.begun.elapsed())
    }
}

/// Waits for the reply until the deadline. After that, the caller of the leading request hears that the outcome is
/// unknown, and the caller of a following one that another request is paying.
async fn wait(mut replies: watch::Receiver<Option<Reply>>, deadline: Deadline, followed: bool) -> Reply {
    let completed = tokio::time::timeout(deadline.left(), replies.wait_for(Option::is_some)).await;
    match completed {
        Ok(Ok(reply)) => reply
            .clone()
            .unwrap_or_else(|| Reply::Failed(ApiError::unknown())),
        // The task ended without a reply, so it panicked: only the ledger knows the outcome.
        Ok(Err(_)) => Reply::Failed(ApiError::unknown()),
        Err(_) if followed => Reply::Failed(ApiError::processing()),
        Err(_) => Reply::Failed(ApiError::unknown()),
    }
}

/// The order that this request becomes if it is new, or the reply if it cannot become one.
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
        .kind
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

pub(super) fn over_limit(order: &Order, at: usize) -> Reply {
    let fault = order.charges.get(at).map(|charge| charge.over(&order.key.mch_id));
    Reply::Failed(fault.unwrap_or_else(|| ApiError::not_sent(NotSent::Limit)))
}
