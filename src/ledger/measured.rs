//! A ledger whose calls are counted, timed and traced, and through which every outcome passes on its way to the record.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use crate::payout::ports::{Inserted, Ledger, ListFilter, Page, Replaced, StoreError};
use crate::rules::order::Order;
use crate::rules::term::{MchId, Millis, OrderKey};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::stores::Store;
use crate::telemetry::otlp::child::OpenSpan;

/// A ledger that is measured.
pub struct Measured {
    inner: Arc<dyn Ledger>,
    metrics: Metrics,
    system: &'static str,
}

impl Measured {
    /// Measures a ledger. `system` is what keeps it, for spans: `redis`, or the name of an embedded one.
    #[must_use]
    pub fn new(inner: Arc<dyn Ledger>, metrics: Metrics, system: &'static str) -> Self {
        Self {
            inner,
            metrics,
            system,
        }
    }

    async fn timed<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let span = OpenSpan::store(self.system, "ledger", call);
        let begun = Instant::now();
        let answer = answer.await;
        self.metrics
            .stores
            .called(Store::Ledger, call, answer.is_ok(), begun.elapsed());
        if let Some(span) = span {
            span.called(answer.is_ok());
        }
        answer
    }
}

#[async_trait]
impl Ledger for Measured {
    async fn insert(&self, order: &Order) -> Result<Inserted, StoreError> {
        let inserted = self.timed("insert", self.inner.insert(order)).await?;
        match &inserted {
            Inserted::Done => self.metrics.payouts.changed(None, order),
            Inserted::OverLimit(_) => self.metrics.payouts.over_limit(order),
            Inserted::Exists(_) => {}
        }
        Ok(inserted)
    }

    async fn replace(&self, previous: &Order, next: &Order) -> Result<Replaced, StoreError> {
        let replaced = self.timed("replace", self.inner.replace(previous, next)).await?;
        match &replaced {
            Replaced::Done => self.metrics.payouts.changed(Some(previous.state.name()), next),
            Replaced::OverLimit(_) => self.metrics.payouts.over_limit(next),
            Replaced::Moved(_) => {}
        }
        Ok(replaced)
    }

    async fn remove(&self, order: &Order) -> Result<Replaced, StoreError> {
        self.timed("remove", self.inner.remove(order)).await
    }

    async fn get(&self, key: &OrderKey) -> Result<Option<Order>, StoreError> {
        self.timed("get", self.inner.get(key)).await
    }

    async fn due(
        &self,
        now: Millis,
        hidden_until: Millis,
        limit: usize,
    ) -> Result<Vec<OrderKey>, StoreError> {
        self.timed("due", self.inner.due(now, hidden_until, limit)).await
    }

    async fn list(&self, filter: &ListFilter) -> Result<Page, StoreError> {
        self.timed("list", self.inner.list(filter)).await
    }

    async fn unknown(&self, limit: usize) -> Result<Vec<Order>, StoreError> {
        self.timed("unknown", self.inner.unknown(limit)).await
    }

    async fn used(&self, mch_id: &MchId, sum: &str) -> Result<i64, StoreError> {
        self.timed("used", self.inner.used(mch_id, sum)).await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.timed("ready", self.inner.ready()).await
    }

    async fn warnings(&self) -> Result<Vec<String>, StoreError> {
        self.inner.warnings().await
    }
}
