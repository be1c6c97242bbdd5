//! Exports spans: OpenTelemetry's batches, on a thread of their own, and its exchange with the collector, which
//! retries what the collector refused for the moment. This file adds two things: no span is lost uncounted, and a
//! collector that takes nothing costs a log line now and then.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use opentelemetry_otlp::{
    ExporterBuildError, WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor,
};
use prometheus_client::metrics::counter::Counter;
use tokio::runtime::Handle;

use super::{Protocol, Settings};
use crate::http::client_tls::{TlsError, tls_config};
use crate::telemetry::log::throttle::Throttle;
use crate::telemetry::metrics::traces::TraceMetrics;

/// The most spans that wait. Further ones are dropped.
const CAPACITY: usize = 2048;
/// The most spans in one export.
const BATCH: usize = 512;
/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(3);
/// How long an exchange may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The shortest time between two log lines about a collector that takes nothing.
const REMINDER: Duration = Duration::from_secs(60);
/// How long the last export may take when the process ends.
const LAST: Duration = Duration::from_secs(2);

/// Why a collector cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    /// TLS cannot be set up.
    #[error("TLS towards the collector cannot be set up")]
    Tls(#[from] TlsError),
    /// The HTTP client cannot be made.
    #[error("the client for the collector cannot be made")]
    Client(#[from] reqwest::Error),
    /// The exporter cannot be made.
    #[error("the exporter cannot be made")]
    Exporter(#[from] ExporterBuildError),
}

/// Exports spans until [`Exporter::finish`].
pub(crate) struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Begins to make and export spans. Does not connect yet.
    pub(super) fn begin(
        settings: &Settings,
        counts: &TraceMetrics,
    ) -> Result<(SdkTracerProvider, Self), Unusable> {
        let account = Arc::new(Account {
            url: settings.url.to_string(),
            counts: counts.clone(),
            waiting: AtomicUsize::new(0),
            reminder: Throttle::new(REMINDER),
            lost: AtomicU64::new(0),
        });
        let exporter = Counted {
            inner: collector(settings)?,
            account: Arc::clone(&account),
        };
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(CAPACITY)
            .with_max_export_batch_size(BATCH)
            .build();
        let batches = BatchSpanProcessor::builder(exporter)
            .with_batch_config(config)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource(settings))
            .with_span_processor(Bounded {
                inner: batches,
                account,
            })
            .build();
        Ok((provider.clone(), Self(provider)))
    }

    /// Exports what still waits, for at most 2 s, and stops.
    pub(crate) async fn finish(self) {
        let ended = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(LAST)).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::warn!("the last spans were not exported in time");
        }
    }
}

/// The resource. Its service's name comes from a variable of its own (`OTEL_SERVICE_NAME`), else from the attributes,
/// else it is the program's name.
fn resource(settings: &Settings) -> Resource {
    let resource = Resource::builder_empty()
        .with_service_name(env!("CARGO_PKG_NAME"))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_detectors(&[
            Box::new(TelemetryResourceDetector),
            Box::new(EnvResourceDetector::new()),
        ]);
    match &settings.service_name {
        Some(name) => resource.with_service_name(name.clone()).build(),
        None => resource.build(),
    }
}

fn collector(settings: &Settings) -> Result<opentelemetry_otlp::SpanExporter, Unusable> {
    let builder = opentelemetry_otlp::SpanExporter::builder();
    Ok(match settings.protocol {
        Protocol::Grpc => {
            let grpc = builder.with_tonic().with_endpoint(settings.url.to_string());
            if settings.url.is_tls() {
                let tls = ClientTlsConfig::new();
                grpc.with_tls_config(match &settings.ca_pem {
                    Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
                    None => tls.with_webpki_roots(),
                })
                .build()?
            } else {
                grpc.build()?
            }
        }
        Protocol::Http => {
            let mut tls = tls_config(settings.ca_pem.as_deref(), None)?;
            tls.alpn_protocols = vec![b"http/1.1".to_vec()];
            // Each option is spelled out: the environment's proxy is not ours, and a redirect must not send our
            // traces elsewhere.
            let client = reqwest::Client::builder()
                .tls_backend_preconfigured(tls)
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT)
                .timeout(TIMEOUT)
                .build()?;
            builder
                .with_http()
                .with_endpoint(settings.url.to_string())
                .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
                .with_http_client(OfRuntime {
                    client,
                    runtime: Handle::current(),
                })
                .build()?
        }
    })
}

/// A client whose connections live in the runtime. The thread of the batches, which is outside it, uses this.
#[derive(Debug)]
struct OfRuntime {
    client: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for OfRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime
            .spawn(async move { client.send_bytes(request).await })
            .await?
    }
}

/// Counts what became of spans. The processor and the exporter share it.
#[derive(Debug)]
struct Account {
    url: String,
    counts: TraceMetrics,
    waiting: AtomicUsize,
    reminder: Throttle,
    /// Spans lost since the collector last took something.
    lost: AtomicU64,
}

impl Account {
    fn lose(&self, result: &Counter, count: u64, why: &dyn Display) {
        result.inc_by(count);
        let before = self.lost.fetch_add(count, Ordering::Relaxed);
        if self.reminder.may_tell().is_some() {
            let why = format!("{}: {why}", self.url);
            tracing::warn!(
                lost = before.saturating_add(count),
                why,
                "spans were not exported"
            );
        }
    }
}

/// A limit before the batches that counts each span beyond it: the batches would drop that span uncounted.
#[derive(Debug)]
struct Bounded {
    inner: BatchSpanProcessor,
    account: Arc<Account>,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        let account = &self.account;
        let place = account
            .waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |waiting| {
                (waiting < CAPACITY).then(|| waiting.saturating_add(1))
            });
        match place {
            Ok(_) => self.inner.on_end(span),
            Err(_) => account.lose(&account.counts.dropped, 1, &"too many wait for the collector"),
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Counts what a collector has taken, and what it has not.
#[derive(Debug)]
struct Counted {
    inner: opentelemetry_otlp::SpanExporter,
    account: Arc<Account>,
}

impl SpanExporter for Counted {
    /// Never fails: otherwise the SDK would write a log line about each batch.
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let account = &self.account;
        account.waiting.fetch_sub(batch.len(), Ordering::AcqRel);
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        match self.inner.export(batch).await {
            Ok(()) => {
                account.counts.exported.inc_by(count);
                let lost = account.lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    tracing::info!(lost, "traces are exported again");
                }
            }
            Err(error) => account.lose(&account.counts.failed, count, &error),
        }
        Ok(())
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
