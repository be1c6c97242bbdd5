//! Exchanges with upstreams: how many, how they ended, how long they took.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::{Durations, seconds};

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeOutcome {
    /// With an answer, whatever it says.
    Answered,
    /// Without an answer, and something may have been sent.
    Silent,
    /// Nothing was sent: no connection could be opened, or none took the request.
    Unreachable,
    /// Nothing was sent: the circuit is open.
    CircuitOpen,
    /// Nothing was sent: this process was held up until the lease was ending.
    HeldUp,
    /// Nothing was sent: the request could not be made.
    NotMade,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ExchangeLabels {
    upstream: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabels {
    upstream: String,
}

impl ExchangeOutcome {
    /// Its name in metrics and spans. `HeldUp` is in spans only, and `NotMade` in neither: it comes before the span.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Silent => "silent",
            Self::Unreachable => "unreachable",
            Self::CircuitOpen => "turned_away",
            Self::HeldUp => "held_up",
            Self::NotMade => "not_made",
        }
    }
}

/// The metric families.
#[derive(Clone)]
pub struct UpstreamMetrics {
    exchanges: Family<ExchangeLabels, Counter>,
    durations: Family<UpstreamLabels, Histogram, Durations>,
}

impl UpstreamMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            exchanges: Family::default(),
            durations: Family::new_with_constructor(Durations),
        };
        registry.register(
            "upstream_exchanges",
            "Requests to upstreams that pay or ask, by how they ended",
            metrics.exchanges.clone(),
        );
        registry.register_with_unit(
            "upstream_exchange_duration",
            "How long those took that were begun",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        metrics
    }

    /// The meter of one upstream.
    #[must_use]
    pub fn of(&self, upstream: &str) -> UpstreamMeter {
        let exchanges = |how: ExchangeOutcome| {
            self.exchanges.get_or_create_owned(&ExchangeLabels {
                upstream: upstream.to_owned(),
                result: how.name(),
            })
        };
        UpstreamMeter {
            answered: exchanges(ExchangeOutcome::Answered),
            silent: exchanges(ExchangeOutcome::Silent),
            unreachable: exchanges(ExchangeOutcome::Unreachable),
            turned_away: exchanges(ExchangeOutcome::CircuitOpen),
            took: self.durations.get_or_create_owned(&UpstreamLabels {
                upstream: upstream.to_owned(),
            }),
        }
    }
}

/// Counts and times one upstream's exchanges.
#[derive(Clone, Debug)]
pub struct UpstreamMeter {
    answered: Counter,
    silent: Counter,
    unreachable: Counter,
    turned_away: Counter,
    took: Histogram,
}

impl UpstreamMeter {
    /// An exchange has ended.
    pub fn ended(&self, how: ExchangeOutcome, took: Duration) {
        let counter = match how {
            ExchangeOutcome::Answered => &self.answered,
            ExchangeOutcome::Silent => &self.silent,
            ExchangeOutcome::Unreachable => &self.unreachable,
            ExchangeOutcome::CircuitOpen => &self.turned_away,
            // They say nothing about the upstream.
            ExchangeOutcome::HeldUp | ExchangeOutcome::NotMade => return,
        };
        counter.inc();
        if how != ExchangeOutcome::CircuitOpen {
            self.took.observe(seconds(took));
        }
    }
}
