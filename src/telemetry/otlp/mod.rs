//! Traces, told to an OTLP collector: `[telemetry] otlp`. Without it there is no [`Tracer`], and what stands here costs a
//! look at an `Option`. Documents: OpenTelemetry's protocol, and its conventions for HTTP and database spans; docs/operate.md
//! has the table of spans.
//!
//! [`server`] begins a span with each request, [`child`] one for each exchange and store call that is made for it; both put
//! it in `queue`, from which `export` takes batches that `collector` sends. Pure: [`span`] is data, [`proto`] its form on
//! the wire, [`sampler`] decides which traces are told.
//!
//! No span holds a header, a query, a body, a user id or an openid. Nothing here makes a request wait, and nothing that
//! fails here fails one.

pub mod sampler;

pub mod span;

pub mod proto;

mod queue;

pub mod server;

pub mod child;

mod collector;

mod export;

use std::sync::Arc;

use http::HeaderName;

use self::export::Export;
use self::proto::Resource;
use self::queue::Queue;
use self::sampler::Sampler;
use self::span::Span;
use super::log::chain;
use super::metrics::Metrics;
use super::metrics::payouts::PayoutMetrics;
use super::metrics::traces::TraceMetrics;
use crate::secret::Secret;

pub use self::export::Exporter;

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC, over HTTP/2.
    Grpc,
    /// Protobuf in the body of a POST, over HTTP/1.1.
    Http,
}

/// Where and how traces are exported.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the collector is: `http://host:port` or `https://…`, and for HTTP the whole path.
    pub url: String,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// What goes along with each export; the values may be secrets.
    pub headers: Vec<(HeaderName, Secret)>,
    /// Instead of the public roots.
    pub ca_pem: Option<String>,
    /// Who we are.
    pub resource: Resource,
    /// Which traces are exported.
    pub sampler: Sampler,
}

/// Takes spans. Clones share it.
#[derive(Clone)]
pub struct Tracer {
    inner: Arc<Inner>,
}

struct Inner {
    sampler: Sampler,
    queue: Arc<Queue>,
    counts: TraceMetrics,
    payouts: PayoutMetrics,
}

impl Tracer {
    /// Takes a span that has ended, or drops it where too many wait.
    fn take(&self, span: Span) {
        if !self.inner.queue.put(span) {
            self.inner.counts.dropped.inc();
        }
    }
}

/// Begins to take and export spans; `None`, with an error in the log, where the collector cannot be spoken to as it is
/// configured: payouts do not depend on it. To be called within a runtime.
#[must_use]
pub fn start(settings: &Settings, metrics: &Metrics) -> Option<(Tracer, Exporter)> {
    let queue = Arc::new(Queue::default());
    let export = Export::new(settings, Arc::clone(&queue), metrics.traces.clone());
    let export = export.inspect_err(|error| {
        tracing::error!(
            collector = settings.url,
            error = chain(error),
            "traces are not exported"
        )
    });
    let exporter = export.ok()?.begin();
    let inner = Inner {
        sampler: settings.sampler,
        queue,
        counts: metrics.traces.clone(),
        payouts: metrics.payouts.clone(),
    };
    Some((
        Tracer {
            inner: Arc::new(inner),
        },
        exporter,
    ))
}
