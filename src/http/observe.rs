//! Counts, times and traces every request to the main port, whoever answers it: the outermost layer, so that what the door turns
//! away counts too.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::contract::Call;
use crate::telemetry::metrics::http::{Endpoint, HttpMetrics, InFlight};
use crate::telemetry::otlp::Tracer;
use crate::telemetry::otlp::server::ServerSpan;

/// The layer.
#[derive(Clone)]
pub struct ObserveLayer {
    metrics: HttpMetrics,
    tracer: Option<Tracer>,
}

impl ObserveLayer {
    /// Counts in these families, and tells of each request to the tracer, where there is one.
    #[must_use]
    pub fn new(metrics: HttpMetrics, tracer: Option<Tracer>) -> Self {
        Self { metrics, tracer }
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;
    fn layer(&self, inner: S) -> Observe<S> {
        Observe {
            inner,
            metrics: self.metrics.clone(),
            tracer: self.tracer.clone(),
        }
    }
}

/// A service whose requests are counted.
#[derive(Clone)]
pub struct Observe<S> {
    inner: S,
    metrics: HttpMetrics,
    tracer: Option<Tracer>,
}

impl<S, B, A> Service<Request<B>> for Observe<S>
where
    S: Service<Request<B>, Response = Response<A>, Error = Infallible>,
{
    type Response = Response<A>;
    type Error = Infallible;
    type Future = Observed<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let endpoint = match Call::of(request.uri().path()) {
            Some(Call::Send) => Endpoint::Send,
            Some(Call::Status) => Endpoint::Status,
            None => Endpoint::Proxy,
        };
        let span = self
            .tracer
            .as_ref()
            .and_then(|tracer| tracer.begin(&mut request, endpoint.path()));
        Observed {
            _in_flight: self.metrics.begun(endpoint),
            answer: self.inner.call(request),
            metrics: self.metrics.clone(),
            endpoint,
            begun: Instant::now(),
            span,
        }
    }
}

pin_project! {
    /// An answer that is being made.
    pub struct Observed<F> {
        #[pin]
        answer: F,
        metrics: HttpMetrics,
        endpoint: Endpoint,
        begun: Instant,
        span: Option<ServerSpan>,
        _in_flight: InFlight,
    }
}

impl<F, A> Future for Observed<F>
where
    F: Future<Output = Result<Response<A>, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(response) = ready!(this.answer.poll(cx));
        this.metrics
            .answered(*this.endpoint, response.status(), this.begun.elapsed());
        if let Some(span) = this.span.take() {
            span.answered(response.status());
        }
        Poll::Ready(Ok(response))
    }
}
