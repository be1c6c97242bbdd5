//! `max_in_flight`: one request too many is turned away at once, with 503 and `Retry-After`. Document: specification,
//! section 7, `[server]`; code-style.md, section 4 (limits per connection, limits that hanging up releases).
//!
//! The places are for all connections together, however often the layer is applied or cloned; the contract's calls and the
//! proxied rest have their own each, so that long polls and slow uploads to the backend never keep payouts out. A request's
//! [`Place`] is given back when its answer is made, or the backend's body gone, and not before everybody else who holds it,
//! too, is done: work that outlives its caller, and an upload, take a clone out of the request's extensions. An upgraded
//! connection holds none: it has a place of another kind.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{HeaderValue, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Layer, Service};

use super::{Passed, Refuse, refused};
use crate::proxy::body::Body;
use crate::rules::handler::{SEND_PATH, STATUS_PATH};

/// When a caller that was turned away may try again, in seconds.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");

/// Says when to try again.
#[must_use]
pub fn retry_later(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_S);
    response
}

/// A place among the requests in flight; free again once every clone is dropped. Every admitted request carries its own as
/// an extension.
#[derive(Clone, Debug)]
pub struct Place {
    _permit: Arc<OwnedSemaphorePermit>,
}

/// The rule.
#[derive(Clone)]
pub struct OverloadLayer {
    payouts: Arc<Semaphore>,
    others: Arc<Semaphore>,
    refuse: Refuse,
}

impl OverloadLayer {
    /// Serves at most so many of the contract's calls, and so many others, at the same time.
    #[must_use]
    pub fn new(calls: usize, others: usize, refuse: Refuse) -> Self {
        let places = |most: usize| Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self {
            payouts: places(calls),
            others: places(others),
            refuse,
        }
    }

    fn places(&self, path: &str) -> &Arc<Semaphore> {
        if matches!(path, SEND_PATH | STATUS_PATH) {
            &self.payouts
        } else {
            &self.others
        }
    }
}

impl<S> Layer<S> for OverloadLayer {
    type Service = Overload<S>;
    fn layer(&self, inner: S) -> Overload<S> {
        Overload {
            inner,
            rule: self.clone(),
        }
    }
}

/// A service behind the rule.
#[derive(Clone)]
pub struct Overload<S> {
    inner: S,
    rule: OverloadLayer,
}

impl<S, B> Service<Request<B>> for Overload<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Passed<InPlace<S::Future>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let places = Arc::clone(self.rule.places(request.uri().path()));
        let Ok(permit) = places.try_acquire_owned() else {
            // Counted by whoever counts answers: a line for each would be more load.
            tracing::debug!("a request was turned away, since too many are in flight");
            let text = "too many requests at the same time";
            let response = (self.rule.refuse)(StatusCode::SERVICE_UNAVAILABLE, request.headers(), text);
            return refused(retry_later(response));
        };
        let place = Place {
            _permit: Arc::new(permit),
        };
        request.extensions_mut().insert(place.clone());
        Passed::Right(InPlace {
            answer: self.inner.call(request),
            place: Some(place),
        })
    }
}

pin_project! {
    /// An answer that is being made, and its place.
    pub struct InPlace<F> {
        #[pin]
        answer: F,
        place: Option<Place>,
    }
}

impl<F: Future<Output = Result<Response<Body>, Infallible>>> Future for InPlace<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.answer.poll(cx));
        let place = this.place.take();
        Poll::Ready(answer.map(|response| match place {
            Some(place) => response.map(|body| body.holding(place)),
            None => response,
        }))
    }
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt as _;

    use super::*;
    use crate::door::tests::{plainly, text};

    fn request() -> Request<()> {
        Request::new(())
    }

    /// Answers at once, but for requests with a header `slow`, which it never answers.
    fn answers()
    -> impl Service<Request<()>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone {
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
        let layer = OverloadLayer::new(2, 2, plainly);
        let (one, other) = (layer.layer(answers()), layer.layer(answers()));
        let first = begun(one.clone().oneshot(slow("/"))).await;
        let _second = begun(other.clone().oneshot(slow("/"))).await;
        let third = one.clone().oneshot(request()).await.unwrap();
        assert_eq!(third.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(third.headers()[RETRY_AFTER], "1");
        assert_eq!(text(third).await, "503 too many requests at the same time");

        drop(first);
        // An answer of ours, taken or not, keeps nobody out.
        let mut untaken = Vec::new();
        for _ in 0..3 {
            untaken.push(other.clone().oneshot(request()).await.unwrap());
        }
        assert!(untaken.iter().all(|answer| answer.status() == StatusCode::OK));
    }

    #[tokio::test]
    async fn others_keep_no_payouts_out_and_payouts_no_others() {
        let service = OverloadLayer::new(1, 1, plainly).layer(answers());
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
                .send(request.extensions().get::<Place>().filter(|_| goes_on).cloned())
                .unwrap();
            std::future::pending::<Result<Response<Body>, Infallible>>()
        });
        let service = OverloadLayer::new(1, 1, plainly).layer(never_answers);

        let mut asked = begun(service.clone().oneshot(request())).await;
        assert!(working.recv().await.unwrap().is_none());
        assert_eq!(refusal(&service).await, Some(StatusCode::SERVICE_UNAVAILABLE));
        asked.take();

        let mut goes_on = request();
        *goes_on.uri_mut() = "/goes-on".parse().unwrap();
        let mut asked = begun(service.clone().oneshot(goes_on)).await;
        let place = working.recv().await.unwrap().unwrap();
        asked.take();
        assert_eq!(
            refusal(&service).await,
            Some(StatusCode::SERVICE_UNAVAILABLE),
            "the caller is gone, its work is not"
        );
        drop(place);
        assert_eq!(refusal(&service).await, None);
    }

    /// Polls a future once, so that its request is on its way.
    async fn begun<F: Future>(future: F) -> Option<Pin<Box<F>>> {
        let mut future = Box::pin(future);
        let is_pending = futures_util::poll!(&mut future).is_pending();
        is_pending.then_some(future)
    }

    /// The status of a refusal, where a further request is refused at once.
    async fn refusal<S>(service: &S) -> Option<StatusCode>
    where
        S: Service<Request<()>, Response = Response<Body>, Error = Infallible> + Clone,
    {
        match futures_util::poll!(Box::pin(service.clone().oneshot(request()))) {
            Poll::Ready(answer) => Some(answer.unwrap().status()),
            Poll::Pending => None,
        }
    }
}
