//! An openid store that counts, times and traces its calls.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use crate::payouts::ports::{Identity, LookupError};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::stores::{CallMeter, Store};
use crate::telemetry::traces::child::OpenSpan;
use payout_domain::ids::{OpenId, UserId, WxAppId};

/// An openid store that counts, times and traces the calls of another.
pub struct Instrumented {
    inner: Arc<dyn Identity>,
    system: &'static str,
    openid: CallMeter,
    ready: CallMeter,
}

impl Instrumented {
    /// Wraps an openid store. `system` names its backend in spans: `redis`, or the name of an embedded one.
    #[must_use]
    pub fn new(inner: Arc<dyn Identity>, metrics: &Metrics, system: &'static str) -> Self {
        let of = |call| metrics.stores.of(Store::Identity, call);
        Self {
            inner,
            system,
            openid: of("openid"),
            ready: of("ready"),
        }
    }
}

#[async_trait]
impl Identity for Instrumented {
    async fn openid(&self, app: &WxAppId, user: &UserId) -> Result<Option<OpenId>, LookupError> {
        let span = OpenSpan::store(self.system, "identity", self.openid.call());
        let begun = Instant::now();
        let found = self.inner.openid(app, user).await;
        self.openid.ended(found.is_ok(), begun.elapsed());
        if let Some(span) = span {
            span.called(found.is_ok());
        }
        found
    }

    async fn ready(&self) -> Result<(), LookupError> {
        let begun = Instant::now();
        let ready = self.inner.ready().await;
        self.ready.ended(ready.is_ok(), begun.elapsed());
        ready
    }
}
