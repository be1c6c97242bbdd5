//! Traces, exported to an OTLP collector: `[telemetry] otlp`. Without it there is no [`Tracer`], and this code costs
//! a look at an `Option`. Sources: OpenTelemetry's protocol, and its conventions for HTTP and database spans.
//! docs/operate.md has the table of spans.
//!
//! OpenTelemetry's SDK makes, samples and batches the spans, and talks to the collector. They are not made from
//! `tracing`'s spans: those would have to be kept out of the log, and would cost time where nothing is exported.
//!
//! [`server`] begins a span with each request, [`background`] one for each order that the settler looks at, [`child`]
//! one for each exchange and store call that is made for them; `export` sends them.
//!
//! No span holds a header, a query, a body, a user id or an openid. Nothing here makes a request wait, and no failure
//! here fails a request.

mod export;

pub(crate) mod server;

pub(crate) mod background;

pub(crate) mod child;

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderValue;
use opentelemetry::trace::{
    SpanKind, SpanRef, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::SdkTracer;

use super::log::chain;
use super::metrics::Metrics;
use super::metrics::payouts::PayoutMetrics;
use super::propagation;
use crate::http::base_url::BaseUrl;
use payout_domain::ids::OrderKey;

pub(crate) use self::export::Exporter;

/// How to talk to a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC, over HTTP/2.
    Grpc,
    /// Protobuf in the body of a POST, over HTTP/1.1.
    Http,
}

/// Where to export traces. OpenTelemetry's own variables set the rest: headers, attributes of the resource, the
/// sampler.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the collector is: `http://host:port` or `https://…`, and for HTTP the whole path.
    pub url: BaseUrl,
    /// The protocol to talk to it.
    pub protocol: Protocol,
    /// Replaces the public root certificates.
    pub ca_pem: Option<String>,
    /// The service's name; `None`: the resource's attributes or the program's name.
    pub service_name: Option<String>,
}

/// Begins spans. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tracer {
    inner: SdkTracer,
    payouts: PayoutMetrics,
}

/// The exported span of the current work: a request's, or that of an order that the settler looks at.
pub(crate) struct Recording {
    tracer: Tracer,
    context: Context,
}

impl Tracer {
    /// Begins a span. Returns the `traceparent` that names it, and the recording if the span is exported.
    fn open(
        &self,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        parent: &Context,
    ) -> (HeaderValue, Option<Arc<Recording>>) {
        let builder = self.inner.span_builder(name).with_kind(kind);
        let context = parent.with_span(self.inner.build_with_context(builder, parent));
        let traceparent = propagation::parent_header(context.span().span_context());
        let is_exported = context.span().is_recording();
        let recording = is_exported.then(|| {
            Arc::new(Recording {
                tracer: self.clone(),
                context,
            })
        });
        (traceparent, recording)
    }
}

impl Recording {
    fn span(&self) -> SpanRef<'_> {
        self.context.span()
    }

    fn about(&self, key: &OrderKey) {
        let merchant = self.tracer.payouts.label(&key.mch_id);
        self.span().set_attributes([
            KeyValue::new("payout.mch_id", merchant),
            KeyValue::new("payout.order", key.order_no.as_str().to_owned()),
        ]);
    }

    fn fail(&self, how: impl Into<Value>) {
        self.span().set_attribute(KeyValue::new("error.type", how.into()));
        self.span().set_status(Status::error(""));
    }
}

/// Begins to export spans. If the collector cannot be used as configured, logs an error and returns `None`: payouts
/// do not depend on it. Call it within a runtime.
#[must_use]
pub(crate) fn start(settings: &Settings, metrics: &Metrics) -> Option<(Tracer, Exporter)> {
    let begun = Exporter::begin(settings, &metrics.traces);
    let begun = begun.inspect_err(|error| {
        tracing::error!(
            collector = %settings.url,
            error = chain(error),
            "traces are not exported"
        )
    });
    let (provider, exporter) = begun.ok()?;
    let tracer = Tracer {
        inner: provider.tracer(env!("CARGO_PKG_NAME")),
        payouts: metrics.payouts.clone(),
    };
    Some((tracer, exporter))
}
