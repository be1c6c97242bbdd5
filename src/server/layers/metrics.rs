//! Counts, times and traces every request to the main port. It is the outermost layer, so it also counts requests that
//! other layers refuse.

use std::time::Instant;

use futures_util::future::TryFutureExt as _;
use http::Request;

use crate::server::contract_api::Call;
use crate::server::serves::Serves;
use crate::telemetry::metrics::http::{Endpoint, HttpMetrics};
use crate::telemetry::traces::Tracer;

/// Counts the requests to `inner` in `metrics`, and opens a span for each if there is a tracer.
pub(crate) fn before<B>(
    mut inner: impl Serves<B>,
    metrics: HttpMetrics,
    tracer: Option<Tracer>,
) -> impl Serves<B> {
    tower::service_fn(move |mut request: Request<B>| {
        let endpoint = match Call::of(request.uri().path()) {
            Some(Call::Send) => Endpoint::Send,
            Some(Call::Status) => Endpoint::Status,
            None => Endpoint::Proxy,
        };
        let tracer = tracer.as_ref();
        let span = tracer.and_then(|tracer| tracer.begin(&mut request, endpoint.path()));
        let (in_flight, begun, metrics) = (metrics.begun(endpoint), Instant::now(), metrics.clone());
        inner.call(request).map_ok(move |response| {
            metrics.answered(endpoint, response.status(), begun.elapsed());
            if let Some(span) = span {
                span.answered(response.status());
            }
            drop(in_flight);
            response
        })
    })
}
