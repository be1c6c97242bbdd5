//! The request that a task works for: its id and its trace, in every log line and on the requests that we send for
//! it.
//!
//! This lies in a task-local, and not in parameters: no decision depends on it.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderValue};

use super::propagation::{self, TRACEPARENT, TRACESTATE, X_REQUEST_ID};
use super::traces::Recording;
use super::traces::server::Begun;

/// A request's id and trace.
#[derive(Clone)]
pub(crate) struct RequestContext {
    /// `None` if no request asked for the work.
    request_id: Option<HeaderValue>,
    traceparent: HeaderValue,
    tracestate: Option<HeaderValue>,
    recording: Option<Arc<Recording>>,
}

tokio::task_local! {
    static CURRENT: RequestContext;
}

impl RequestContext {
    /// Reads a request's headers: keeps a valid id and a valid trace, makes new ones otherwise, and writes the trace
    /// into the headers. `begun` is the trace that the request was put into already, if traces are exported.
    #[must_use]
    pub(crate) fn of(headers: &mut HeaderMap, begun: Option<&Begun>) -> Self {
        let request_id = propagation::identify(headers);
        let traceparent = match begun {
            Some(begun) => begun.go_on(headers),
            None => propagation::continue_trace(headers),
        };
        Self {
            request_id: Some(request_id),
            traceparent,
            tracestate: headers.get(TRACESTATE).map(propagation::own),
            recording: begun.and_then(|begun| begun.recording.clone()),
        }
    }

    /// The context of background work under this span.
    pub(super) fn background(traceparent: HeaderValue, recording: Option<Arc<Recording>>) -> Self {
        Self {
            request_id: None,
            traceparent,
            tracestate: None,
            recording,
        }
    }

    /// The span of the current work, if it is exported.
    #[must_use]
    pub(crate) fn recording() -> Option<Arc<Recording>> {
        CURRENT.try_with(|context| context.recording.clone()).ok()?
    }

    /// The request's id, for its answer.
    #[must_use]
    pub(crate) fn request_id(&self) -> Option<&HeaderValue> {
        self.request_id.as_ref()
    }

    /// Runs a request's work in this context, which the work finds and logs under.
    pub(crate) fn within<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        // Not an `async fn`: that would hold the work twice, as its argument and as the running future.
        CURRENT.scope(self, work)
    }

    /// Calls `tell` with the ids of the current request and its trace. `None` if the task works for no request.
    pub(crate) fn tell<T>(tell: impl FnOnce(&str, &str) -> T) -> Option<T> {
        let told = CURRENT.try_with(|context| {
            let request_id = context.request_id.as_ref()?;
            let trace_id = shown(&context.traceparent).get(3..35).unwrap_or_default();
            Some(tell(shown(request_id), trace_id))
        });
        told.ok().flatten()
    }

    /// Writes the current request's context, if there is one, into the headers of an outgoing request.
    pub(crate) fn pass_on(headers: &mut HeaderMap) {
        let Ok(context) = CURRENT.try_with(Clone::clone) else {
            return;
        };
        if let Some(request_id) = context.request_id {
            headers.insert(X_REQUEST_ID, request_id);
        }
        headers.insert(TRACEPARENT, context.traceparent);
        if let Some(tracestate) = context.tracestate {
            headers.insert(TRACESTATE, tracestate);
        }
    }
}

/// Takes the current request's context along into a task of its own.
pub(crate) fn carried<F>(work: F) -> impl Future<Output = F::Output> + Send + use<F>
where
    F: Future<Output: Send> + Send,
{
    let context = CURRENT.try_with(Clone::clone).ok();
    async move {
        match context {
            Some(context) => CURRENT.scope(context, work).await,
            None => work.await,
        }
    }
}

/// An id as text, for the log.
#[must_use]
pub(crate) fn shown(id: &HeaderValue) -> &str {
    id.to_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed_on() -> HeaderMap {
        let mut headers = HeaderMap::new();
        RequestContext::pass_on(&mut headers);
        headers
    }

    #[tokio::test]
    async fn a_task_that_outlives_its_request_still_knows_it() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, HeaderValue::from_static("r-1"));
        headers.insert(TRACEPARENT, HeaderValue::from_static(trace));
        headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
        let context = RequestContext::of(&mut headers, None);
        let (sender, passed) = tokio::sync::oneshot::channel();
        let outliving = async move {
            // Its request is over by now.
            tokio::task::yield_now().await;
            sender.send(passed_on()).unwrap();
        };
        context
            .within(async { drop(tokio::spawn(carried(outliving))) })
            .await;
        let passed = passed.await.unwrap();
        assert_eq!(passed[X_REQUEST_ID], "r-1");
        assert_eq!(passed[TRACESTATE], "a=b");
        let parent = passed[TRACEPARENT].to_str().unwrap();
        assert_eq!(parent.get(..36), trace.get(..36), "the same trace");
        assert_ne!(parent, trace, "under a span of ours");
    }

    #[tokio::test]
    async fn work_for_nobody_passes_nothing_on() {
        assert!(passed_on().is_empty());
        assert!(
            tokio::spawn(carried(async { passed_on() }))
                .await
                .unwrap()
                .is_empty()
        );
    }
}
