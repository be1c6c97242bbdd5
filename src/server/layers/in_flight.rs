//! `max_in_flight`: limits the requests in flight. The layer refuses a request over the limit at once, with 503 and
//! `Retry-After`.
//!
//! All connections share the permits, however often the layer is applied or cloned. Contract calls and proxied requests
//! have separate permits, so long polls and slow uploads to the backend never keep payouts out. A request returns its
//! [`InFlightPermit`] once its response is made (for a proxied one, once the backend's body has ended) and every other
//! holder is done: work that outlives its caller, and an upload, clone the permit from the request's extensions. An
//! upgraded connection holds none; [`Tunnels`](crate::proxy::Tunnels) limits those. When all permits for contract calls
//! are taken, the oldest call whose body has not arrived loses its permit to the newer call, so slow bodies keep no
//! payout out.

use std::future::ready;
use std::sync::Arc;

use futures_util::future::{Either, TryFutureExt as _};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Request};
use tokio::sync::Semaphore;

use crate::http::in_flight::{CallPermits, InFlightPermit, Waiting};
use crate::http::responses::{NotAdmitted, refusal};
use crate::proxy::headers::digits;
use crate::server::budget::Calls;
use crate::server::contract_api::Call;
use crate::server::serves::Serves;

/// The bytes of memory that one permit of `memory` stands for. With one permit per byte, a call's cost could exceed the
/// `u32` that `try_acquire_many_owned` takes, or (on 32-bit targets) a semaphore's maximum.
const BYTES_PER_PERMIT: u64 = 1024;

/// All permits. tower's own limits do not fit: they end with the response's future, before its body and before a payout
/// that outlives its caller.
pub(crate) struct InFlightPermits {
    calls: Calls,
    payouts: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    others: Arc<Semaphore>,
    waiting: Arc<Waiting>,
}

impl InFlightPermits {
    /// Permits for at most `calls.most` contract calls and `others` other requests at the same time.
    #[must_use]
    pub(crate) fn new(calls: Calls, others: usize) -> Arc<Self> {
        let permits = |most: usize| Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        let memory = usize::try_from(calls.bytes.div_ceil(BYTES_PER_PERMIT)).unwrap_or(usize::MAX);
        Arc::new(Self {
            calls,
            payouts: permits(calls.most),
            memory: permits(memory),
            others: permits(others),
            waiting: Arc::default(),
        })
    }

    /// Gives each request to `inner` a permit, or refuses it.
    #[must_use]
    pub(crate) fn before<B>(self: Arc<Self>, mut inner: impl Serves<B>) -> impl Serves<B> {
        tower::service_fn(move |mut request: Request<B>| {
            let Some(permit) = self.admit(request.uri().path(), request.headers()) else {
                // The metrics layer counts it. A log line for each would add load when there is too much already.
                tracing::debug!("a request was turned away, since too many are in flight");
                let response = refusal(request.headers(), &NotAdmitted::Busy);
                return Either::Left(ready(Ok(response)));
            };
            request.extensions_mut().insert(permit.clone());
            let answer = inner.call(request);
            Either::Right(answer.map_ok(|response| response.map(|body| body.holding(permit))))
        })
    }

    /// Takes a permit for a request; `None` if none is free.
    fn admit(&self, path: &str, headers: &HeaderMap) -> Option<InFlightPermit> {
        if Call::of(path).is_none() {
            let permit = Arc::clone(&self.others).try_acquire_owned().ok()?;
            return Some(InFlightPermit::other(permit));
        }
        let cost = self.calls.cost(length(headers)).div_ceil(BYTES_PER_PERMIT);
        let cost = u32::try_from(cost).ok()?;
        loop {
            match self.take(cost) {
                Some(permits) => break Some(InFlightPermit::lent(permits, &self.waiting)),
                // Take the permit of the oldest call that still waits for its body. If that is too little, take the
                // next one's.
                None => drop(self.waiting.take_oldest()?),
            }
        }
    }

    /// Takes the permits for a contract call of this cost, if they are free.
    fn take(&self, cost: u32) -> Option<CallPermits> {
        let request = Arc::clone(&self.payouts).try_acquire_owned().ok()?;
        let memory = Arc::clone(&self.memory).try_acquire_many_owned(cost).ok()?;
        Some(CallPermits {
            _request: request,
            _memory: memory,
        })
    }
}

/// The body's declared length. The call never reads more than that.
fn length(headers: &HeaderMap) -> Option<u64> {
    digits(headers.get(CONTENT_LENGTH)?.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::Poll;

    use http::header::{HeaderValue, RETRY_AFTER};
    use http::{Response, StatusCode};
    use tower::ServiceExt as _;

    use super::*;
    use crate::proxy::body::Body;
    use crate::server::layers::tests::text;
    use payout_domain::handler::{SEND_PATH, STATUS_PATH};

    fn request() -> Request<()> {
        Request::new(())
    }

    /// Limits for `most` calls at the same time, each with room for the longest body.
    fn calls(most: usize) -> Calls {
        let one = Calls {
            most,
            bytes: 0,
            body: 64 * 1024,
        };
        Calls {
            bytes: one.cost(None) * most as u64,
            ..one
        }
    }

    #[test]
    fn a_contract_call_takes_as_much_memory_as_its_body_is_long() {
        let two_long_ones = Calls {
            most: 100,
            ..calls(2)
        };
        let all = InFlightPermits::new(two_long_ones, 1);
        let admitted = |length: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(length) = length {
                headers.insert(CONTENT_LENGTH, HeaderValue::from_static(length));
            }
            let permits: Vec<InFlightPermit> =
                std::iter::from_fn(|| all.admit(SEND_PATH, &headers)).collect();
            permits.len()
        };
        assert_eq!(admitted(None), 2, "it may be as long as any");
        assert_eq!(admitted(Some("65536")), 2);
        assert_eq!(admitted(Some("99999999")), 2, "it is refused later");
        assert_eq!(admitted(Some("0")), 10);
        assert_eq!(admitted(Some("1024")), 9);
    }

    /// Responds at once, except to requests with a header `slow`, to which it never responds.
    fn answers() -> impl Serves<()> {
        tower::service_fn(async |request: Request<()>| {
            if request.headers().contains_key("slow") {
                std::future::pending::<()>().await;
            }
            Ok(Response::new(Body::full("served")))
        })
    }

    fn slow(path: &str) -> Request<()> {
        Request::builder().uri(path).header("slow", "1").body(()).unwrap()
    }

    #[tokio::test]
    async fn the_limit_is_for_all_clones_and_connections_together() {
        let permits = InFlightPermits::new(calls(2), 2);
        let (one, other) = (Arc::clone(&permits).before(answers()), permits.before(answers()));
        let first = begun(one.clone().oneshot(slow("/"))).await;
        let _second = begun(other.clone().oneshot(slow("/"))).await;
        let third = one.clone().oneshot(request()).await.unwrap();
        assert_eq!(third.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(third.headers()[RETRY_AFTER], "1");
        let text = text(third).await;
        assert!(
            text.contains("请求未受理: 同时处理的请求过多, 请稍后使用原单号重试"),
            "{text}"
        );

        drop(first);
        // A response of our own holds no permit, even if the caller does not read it.
        let mut untaken = Vec::new();
        for _ in 0..3 {
            untaken.push(other.clone().oneshot(request()).await.unwrap());
        }
        assert!(untaken.iter().all(|answer| answer.status() == StatusCode::OK));
    }

    #[tokio::test]
    async fn others_keep_no_payouts_out_and_payouts_no_others() {
        let service = InFlightPermits::new(calls(1), 1).before(answers());
        let ask = async |path: &'static str| {
            let request = Request::builder().uri(path).body(()).unwrap();
            service.clone().oneshot(request).await.unwrap().status()
        };
        let polling = begun(service.clone().oneshot(slow("/events"))).await;
        assert_eq!(ask("/else").await, StatusCode::SERVICE_UNAVAILABLE);
        let _paying = begun(service.clone().oneshot(slow(SEND_PATH))).await;
        assert_eq!(ask(STATUS_PATH).await, StatusCode::SERVICE_UNAVAILABLE);
        drop(polling);
        assert_eq!(ask("/else").await, StatusCode::OK);
    }

    #[tokio::test]
    async fn hanging_up_frees_the_place_unless_work_goes_on() {
        let (works, mut working) = tokio::sync::mpsc::unbounded_channel();
        let never_answers = tower::service_fn(move |request: Request<()>| {
            let goes_on = request.uri() == "/goes-on";
            works
                .send(
                    request
                        .extensions()
                        .get::<InFlightPermit>()
                        .filter(|_| goes_on)
                        .cloned(),
                )
                .unwrap();
            std::future::pending::<Result<Response<Body>, Infallible>>()
        });
        let service = InFlightPermits::new(calls(1), 1).before(never_answers);

        let mut asked = begun(service.clone().oneshot(request())).await;
        assert!(working.recv().await.unwrap().is_none());
        assert_eq!(refusal(&service).await, Some(StatusCode::SERVICE_UNAVAILABLE));
        asked.take();

        let mut goes_on = request();
        *goes_on.uri_mut() = "/goes-on".parse().unwrap();
        let mut asked = begun(service.clone().oneshot(goes_on)).await;
        let permit = working.recv().await.unwrap().unwrap();
        asked.take();
        assert_eq!(
            refusal(&service).await,
            Some(StatusCode::SERVICE_UNAVAILABLE),
            "the caller is gone, its work is not"
        );
        drop(permit);
        assert_eq!(refusal(&service).await, None);
    }

    #[tokio::test]
    async fn a_call_whose_body_does_not_come_gives_its_place_to_a_newer_one() {
        let (whole, mut asked) = tokio::sync::mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: Request<()>| {
            let permit = request.extensions().get::<InFlightPermit>().unwrap().clone();
            let is_slow = request.headers().contains_key("slow");
            let whole = whole.clone();
            async move {
                if is_slow {
                    permit.taken_away().await;
                    assert!(!permit.keep(), "nothing is done for it any more");
                    return Ok(Response::new(Body::full("gone")));
                }
                assert!(permit.keep());
                whole.send(()).unwrap();
                std::future::pending().await
            }
        });
        let service = InFlightPermits::new(calls(2), 2).before(service);
        let mut oldest = Box::pin(service.clone().oneshot(slow(SEND_PATH)));
        let mut older = Box::pin(service.clone().oneshot(slow(SEND_PATH)));
        assert!(
            futures_util::poll!(&mut oldest).is_pending() && futures_util::poll!(&mut older).is_pending()
        );
        let pay = || {
            let mut request = request();
            *request.uri_mut() = SEND_PATH.parse().unwrap();
            request
        };
        let _first = begun(service.clone().oneshot(pay())).await;
        asked.recv().await.unwrap();
        assert_eq!(text(oldest.await.unwrap()).await, "gone");
        assert!(
            futures_util::poll!(&mut older).is_pending(),
            "one place was enough"
        );
        let _second = begun(service.clone().oneshot(pay())).await;
        asked.recv().await.unwrap();
        assert_eq!(text(older.await.unwrap()).await, "gone");
        let third = service.oneshot(pay()).await.unwrap();
        assert_eq!(
            third.status(),
            StatusCode::SERVICE_UNAVAILABLE,
            "what works keeps its place"
        );
    }

    /// Polls a future once, so that its request has started.
    async fn begun<F: Future>(future: F) -> Option<Pin<Box<F>>> {
        let mut future = Box::pin(future);
        let is_pending = futures_util::poll!(&mut future).is_pending();
        is_pending.then_some(future)
    }

    /// The status of a refusal, where a further request is refused at once.
    async fn refusal(service: &impl Serves<()>) -> Option<StatusCode> {
        match futures_util::poll!(Box::pin(service.clone().oneshot(request()))) {
            Poll::Ready(answer) => Some(answer.unwrap().status()),
            Poll::Pending => None,
        }
    }
}
