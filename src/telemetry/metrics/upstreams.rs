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
pub enum Ended {
    /// With an answer, whatever it says.
    Answered,
    /// Without one, and something may have been sent.
    Silent,
    /// Nothing was sent: it could not be connected.
    Unreachable,
    /// Nothing was sent: the circuit is open.
    TurnedAway,
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

impl Ended {
    /// As it is called in metrics and spans.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Silent => "silent",
            Self::Unreachable => "unreachable",
            Self::TurnedAway => "turned_away",
        }
    }
}

/// The families.
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
        let exchanges = |how: Ended| {
            self.exchanges.get_or_create_owned(&ExchangeLabels {
                upstream: upstream.to_owned(),
                result: how.name(),
            })
        };
        UpstreamMeter {
            answered: exchanges(Ended::Answered),
            silent: exchanges(Ended::Silent),
            unreachable: exchanges(Ended::Unreachable),
            turned_away: exchanges(Ended::TurnedAway),
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
    pub fn ended(&self, how: Ended, took: Duration) {
        let counter = match how {
            Ended::Answered => &self.answered,
            Ended::Silent => &self.silent,
            Ended::Unreachable => &self.unreachable,
            Ended::TurnedAway => &self.turned_away,
        };
        counter.inc();
        if how != Ended::TurnedAway {
            self.took.observe(seconds(took));
        }
    }
}
