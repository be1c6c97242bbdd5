//! The span of an order that is settled in the background: the query of its upstream and the calls of the ledger are within
//! it. It begins a trace of its own.

use opentelemetry::Context;
use opentelemetry::trace::SpanKind;

use super::Tracer;
use crate::telemetry::context::RequestContext;
use payout_domain::ids::OrderKey;

tokio::task_local! {
    static TRACER: Tracer;
}

/// Does work in the background, of which spans are exported where there is a tracer.
pub async fn traced<F: Future>(tracer: Option<Tracer>, work: F) -> F::Output {
    match tracer {
        Some(tracer) => TRACER.scope(tracer, work).await,
        None => work.await,
    }
}

/// Settles an order, under a span where the work is [`traced`].
///
/// # Errors
/// Those of the work.
pub async fn settling<T, E>(key: &OrderKey, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
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
