//! `max_in_flight`: one request too many is turned away at once, with 503 and `Retry-After`.
//!
//! The semaphore is one for all connections. A request's place is given back when its answer's body is gone.

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

/// The rule.
#[derive(Clone)]
pub struct OverloadLayer {
    places: Arc<Semaphore>,
    refuse: Refuse,
}

impl OverloadLayer {
    /// Serves at most `max_in_flight` requests at the same time.
    #[must_use]
    pub fn new(max_in_flight: usize, refuse: Refuse) -> Self {
        Self {
            places: Arc::new(Semaphore::new(std::cmp::min(
                max_in_flight,
                Semaphore::MAX_PERMITS,
            ))),
            refuse,
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

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match Arc::clone(&self.rule.places).try_acquire_owned() {
            Ok(place) => Passed::Right(InPlace {
                answer: self.inner.call(request),
                place: Some(place),
            }),
            Err(_) => {
                let text = "too many requests at the same time";
                let mut response =
                    (self.rule.refuse)(StatusCode::SERVICE_UNAVAILABLE, request.headers(), text);
                response
                    .headers_mut()
                    .insert(RETRY_AFTER, HeaderValue::from_static("1"));
                refused(response)
            }
        }
    }
}

pin_project! {
    /// An answer that is being made, and its place.
    pub struct InPlace<F> {
        #[pin]
        answer: F,
        place: Option<OwnedSemaphorePermit>,
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
