//! Spans: how many were exported, and how many were not.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SpanLabels {
    result: &'static str,
}

/// The counters.
#[derive(Clone, Debug)]
pub struct TraceMetrics {
    /// A collector took them.
    pub exported: Counter,
    /// They were dropped: too many were waiting.
    pub dropped: Counter,
    /// No collector took them.
    pub failed: Counter,
}

impl TraceMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let spans = Family::<SpanLabels, Counter>::default();
        registry.register("trace_spans", "Spans, by what became of them", spans.clone());
        // All series exist from the start, so that an increase is visible.
        let of = |result| spans.get_or_create_owned(&SpanLabels { result });
        Self {
            exported: of("exported"),
            dropped: of("dropped"),
            failed: of("failed"),
        }
    }
}
