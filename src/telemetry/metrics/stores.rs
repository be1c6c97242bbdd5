//! The calls of the ledger and of the identity store: how many, how they ended, how long they took.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::{Durations, seconds};

/// A store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Where payouts are recorded.
    Ledger,
    /// Where openids are found.
    Identity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    store: &'static str,
    call: &'static str,
    result: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    store: &'static str,
    call: &'static str,
}

/// The embedded ledger's syncs. Operations per commit show what writing together gains.
#[derive(Clone, Debug, Default)]
pub struct Syncs {
    /// Commits, each of which waits for the disk.
    pub commits: Counter,
    /// The claims and records in them.
    pub operations: Counter,
}

/// The metric families.
#[derive(Clone)]
pub struct StoreMetrics {
    calls: Family<CallLabels, Counter>,
    durations: Family<DurationLabels, Histogram, Durations>,
    /// The embedded ledger's.
    pub syncs: Syncs,
}

impl StoreMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            calls: Family::default(),
            durations: Family::new_with_constructor(Durations),
            syncs: Syncs::default(),
        };
        registry.register(
            "ledger_syncs",
            "Commits of the embedded ledger, each of which waits for the disk",
            metrics.syncs.commits.clone(),
        );
        registry.register(
            "ledger_synced_operations",
            "The claims and records in them",
            metrics.syncs.operations.clone(),
        );
        registry.register(
            "store_calls",
            "Calls of the ledger and of the identity store",
            metrics.calls.clone(),
        );
        registry.register_with_unit(
            "store_call_duration",
            "How long they took",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        metrics
    }

    /// The meter of one call.
    #[must_use]
    pub fn of(&self, store: Store, call: &'static str) -> CallMeter {
        let store = match store {
            Store::Ledger => "ledger",
            Store::Identity => "identity",
        };
        let calls = |result| {
            self.calls
                .get_or_create_owned(&CallLabels { store, call, result })
        };
        CallMeter {
            call,
            ok: calls("ok"),
            error: calls("error"),
            took: self
                .durations
                .get_or_create_owned(&DurationLabels { store, call }),
        }
    }
}

/// Counts and times one call of a store. Made once and kept, since each payout makes three calls.
#[derive(Clone, Debug)]
pub struct CallMeter {
    call: &'static str,
    ok: Counter,
    error: Counter,
    took: Histogram,
}

impl CallMeter {
    /// The call's name.
    #[must_use]
    pub fn call(&self) -> &'static str {
        self.call
    }

    /// A call has ended.
    pub fn ended(&self, ok: bool, took: Duration) {
        let counter = if ok { &self.ok } else { &self.error };
        counter.inc();
        self.took.observe(seconds(took));
    }
}
