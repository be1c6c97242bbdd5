//! The span of an order that the settler looks at. The query of its upstream and the calls of the ledger are within
//! it. It begins a trace of its own.

use opentelemetry::Context;
use opentelemetry::trace::SpanKind;

use super::Tracer;
use crate::telemetry::context::RequestContext;
use payout_domain::ids::OrderKey;

tokio::task_local! {
    static TRACER: Tracer;
}

/// Runs background work. If there is a tracer, the work's spans are exported.
pub(crate) async fn traced<F: Future>(tracer: Option<Tracer>, work: F) -> F::Output {
    match tracer {
        Some(tracer) => TRACER.scope(tracer, work).await,
        None => work.await,
    }
}

/// Settles an order, under a span if the work is [`traced`].
///
/// # Errors
/// Those of the work.
pub(crate) async fn settling<T, E>(key: &OrderKey, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let Ok(tracer) = TRACER.try_with(Clone::clone) else {
        return work.await;
    };
    let (traceparent, recording) = tracer.open("settle", SpanKind::Internal, &Context::new());
    if let Some(recording) = &recording {
        recording.about(key);
    }
    let context = RequestContext::background(traceparent, recording.clone());
    let settled = context.within(work).await;
    if let Some(recording) = &recording {
        if settled.is_err() {
            recording.fail("unavailable");
        }
        recording.span().end();
    }
    settled
}
