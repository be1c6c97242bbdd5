//! A wrapper around a ledger that counts, times and traces its calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::payouts::ports::{Inserted, Ledger, ListFilter, Page, QueryRate, Replaced, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::stores::{CallMeter, Store};
use crate::telemetry::traces::child::OpenSpan;
use payout_domain::ids::{LedgerTime, MchId, OrderKey};
use payout_domain::order::Order;

/// A ledger whose calls are counted, timed and traced.
pub struct Instrumented {
    inner: Arc<dyn Ledger>,
    system: &'static str,
    calls: Calls,
}

/// One meter for each call.
struct Calls {
    insert: CallMeter,
    replace: CallMeter,
    remove: CallMeter,
    get: CallMeter,
    due: CallMeter,
    list: CallMeter,
    unsettled: CallMeter,
    used: CallMeter,
    ready: CallMeter,
}

impl Instrumented {
    /// Measures a ledger. `system` names its store in spans: `redis`, or the name of an embedded one.
    #[must_use]
    pub fn new(inner: Arc<dyn Ledger>, metrics: &Metrics, system: &'static str) -> Self {
        let of = |call| metrics.stores.of(Store::Ledger, call);
        Self {
            inner,
            system,
            calls: Calls {
                insert: of("insert"),
                replace: of("replace"),
                remove: of("remove"),
                get: of("get"),
                due: of("due"),
                list: of("list"),
                unsettled: of("unsettled"),
                used: of("used"),
                ready: of("ready"),
            },
        }
    }

    async fn timed<T>(
        &self,
        meter: &CallMeter,
        answer: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let span = OpenSpan::store(self.system, "ledger", meter.call());
        let begun = Instant::now();
        let answer = answer.await;
        meter.ended(answer.is_ok(), begun.elapsed());
        if let Some(span) = span {
            span.called(answer.is_ok());
        }
        answer
    }
}

#[async_trait]
impl Ledger for Instrumented {
    fn time(&self) -> LedgerTime {
        self.inner.time()
    }

    async fn insert(&self, order: &Order) -> Result<Inserted, StoreError> {
        self.timed(&self.calls.insert, self.inner.insert(order)).await
    }

    async fn replace(&self, previous: &Order, next: &Order) -> Result<Replaced, StoreError> {
        self.timed(&self.calls.replace, self.inner.replace(previous, next))
            .await
    }

    async fn remove(&self, order: &Order) -> Result<Replaced, StoreError> {
        self.timed(&self.calls.remove, self.inner.remove(order)).await
    }

    async fn get(&self, key: &OrderKey) -> Result<Option<Order>, StoreError> {
        self.timed(&self.calls.get, self.inner.get(key)).await
    }

    async fn due(
        &self,
        hidden: Duration,
        limit: usize,
        rate: QueryRate<'_>,
    ) -> Result<Vec<OrderKey>, StoreError> {
        self.timed(&self.calls.due, self.inner.due(hidden, limit, rate))
            .await
    }

    async fn list(&self, filter: &ListFilter) -> Result<Page, StoreError> {
        self.timed(&self.calls.list, self.inner.list(filter)).await
    }

    async fn unsettled(&self, limit: usize) -> Result<Vec<Order>, StoreError> {
        self.timed(&self.calls.unsettled, self.inner.unsettled(limit))
            .await
    }

    async fn used(&self, mch_id: &MchId, sum: &str) -> Result<i64, StoreError> {
        self.timed(&self.calls.used, self.inner.used(mch_id, sum)).await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.timed(&self.calls.ready, self.inner.ready()).await
    }

    async fn warnings(&self) -> Result<Vec<String>, StoreError> {
        self.inner.warnings().await
    }
}
