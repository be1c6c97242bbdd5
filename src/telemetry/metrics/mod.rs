//! `/metrics`: what the program counts and measures, in the text form that Prometheus reads. Names start with
//! `payout_`; the table in docs/operate.md has every one.
//!
//! No label holds what a caller chooses: no path, no order number, no user. [`http`], [`stores`], [`upstreams`],
//! [`payouts`] and [`traces`] hold the families by subject.

pub mod http;

pub mod payouts;

pub mod stores;

pub mod traces;

pub mod upstreams;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use self::http::HttpMetrics;
use self::payouts::PayoutMetrics;
use self::stores::StoreMetrics;
use self::traces::TraceMetrics;
use self::upstreams::UpstreamMetrics;
use crate::breaker::{Breakers, severity};
use payout_domain::ids::Millis;

/// The media type of what [`Metrics::text`] returns.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    circuits: Family<CircuitLabels, Gauge>,
    breakers: Breakers,
    reloads: Family<ReloadLabels, Counter>,
    reload_success: Gauge,
    certificates: Family<CertificateLabels, Gauge>,
    /// The main port's requests.
    pub http: HttpMetrics,
    /// The ledger's and the identity store's calls.
    pub stores: StoreMetrics,
    /// The exchanges with upstreams.
    pub upstreams: UpstreamMetrics,
    /// What becomes of payouts.
    pub payouts: PayoutMetrics,
    /// Spans.
    pub traces: TraceMetrics,
}

/// One of our certificates, which expires.
#[derive(Clone, Debug)]
pub struct Expiring {
    /// `server`, or the merchant's entry.
    pub owner: String,
    /// When it expires.
    pub not_after: Millis,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CircuitLabels {
    circuit: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabels {
    owner: String,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("payout");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The running program", build);
        let circuits = Family::<CircuitLabels, Gauge>::default();
        registry.register(
            "circuit_state",
            "Whether an upstream or a store is tried: 0 closed (everything), 1 one on trial, 2 open (nothing)",
            circuits.clone(),
        );
        let reloads = Family::<ReloadLabels, Counter>::default();
        registry.register(
            "config_reloads",
            "New versions of the configuration, by what became of them",
            reloads.clone(),
        );
        // Both series exist from the start, so that an increase is visible.
        for result in ["taken", "refused"] {
            let _zero = reloads.get_or_create(&ReloadLabels { result });
        }
        let reload_success = Gauge::default();
        reload_success.set(1);
        registry.register(
            "config_last_reload_success",
            "Whether the latest version of the configuration is in force: 0 if it was refused",
            reload_success.clone(),
        );
        let certificates = Family::<CertificateLabels, Gauge>::default();
        registry.register_with_unit(
            "tls_cert_not_after",
            "When a certificate of ours expires, since 1970",
            Unit::Seconds,
            certificates.clone(),
        );
        Self {
            http: HttpMetrics::register(&mut registry),
            stores: StoreMetrics::register(&mut registry),
            upstreams: UpstreamMetrics::register(&mut registry),
            payouts: PayoutMetrics::register(&mut registry),
            traces: TraceMetrics::register(&mut registry),
            registry: Arc::new(registry),
            circuits,
            breakers: Breakers::default(),
            reloads,
            reload_success,
            certificates,
        }
    }
}

impl Metrics {
    /// The circuit breakers that the metrics show.
    #[must_use]
    pub fn breakers(&self) -> &Breakers {
        &self.breakers
    }

    /// A new version of the configuration was taken, or refused.
    pub fn reloaded(&self, taken: bool) {
        let result = if taken { "taken" } else { "refused" };
        self.reloads.get_or_create(&ReloadLabels { result }).inc();
        self.reload_success.set(i64::from(taken));
    }

    /// After a refused change, the file is again the one in force.
    pub fn reload_withdrawn(&self) {
        self.reload_success.set(1);
    }

    /// Replaces the certificates that the metrics show by these, which are in use now.
    pub fn certificates(&self, certificates: &[Expiring]) {
        self.certificates.clear();
        for Expiring { owner, not_after } in certificates {
            let owner = owner.clone();
            let seconds = not_after.0.div_euclid(1000);
            self.certificates
                .get_or_create(&CertificateLabels { owner })
                .set(seconds);
        }
    }

    /// All metrics as they stand now, as text.
    ///
    /// # Errors
    /// When it cannot be written as text, which is a bug.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        self.circuits.clear();
        for (circuit, standing) in self.breakers.states() {
            let labels = CircuitLabels { circuit };
            self.circuits.get_or_create(&labels).set(severity(standing));
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Makes histograms of durations: 16 buckets that double from half a millisecond to the longest timeout.
#[derive(Clone)]
struct Durations;

impl MetricConstructor<Histogram> for Durations {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(0.0005, 2.0, 16))
    }
}

/// A duration in seconds, the unit of Prometheus.
fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use payout_domain::breaker::BreakerSettings;

    #[test]
    fn what_happened_is_shown() {
        let metrics = Metrics::default();
        let settings = BreakerSettings {
            failures: 1,
            first_pause: Duration::from_secs(60),
            longest_pause: Duration::from_secs(60),
        };
        let ledger = metrics.breakers().named("ledger", settings);
        let _identity = metrics.breakers().named("identity", settings);
        ledger.failed("it hangs");
        metrics.reloaded(false);
        let expiring = |owner: &str, not_after| Expiring {
            owner: owner.to_owned(),
            not_after: Millis(not_after),
        };
        metrics.certificates(&[expiring("old", 1)]);
        metrics.certificates(&[expiring("server", 1_800_000_000_500)]);
        let text = metrics.text().unwrap();
        for line in [
            "payout_circuit_state{circuit=\"ledger\"} 2",
            "payout_circuit_state{circuit=\"identity\"} 0",
            "payout_config_reloads_total{result=\"refused\"} 1",
            "payout_config_reloads_total{result=\"taken\"} 0",
            "payout_config_last_reload_success 0",
            "payout_tls_cert_not_after_seconds{owner=\"server\"} 1800000000",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in {text}");
        }
        assert!(text.contains("payout_build_info{version="), "{text}");
        assert!(
            !text.contains("\"old\""),
            "a certificate that is not in use any more: {text}"
        );
    }
}
