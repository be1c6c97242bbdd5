//! The admin port: probes, metrics and the operators' API. See docs/operate.md.
//!
//! [`health`] has the router and the probes, `guard` decides who may call what, [`api`] has the handlers of the
//! operators' API, [`view`] shows an order as JSON, `refusal` is the error answer.

pub(crate) mod api;

mod guard;

mod health;

mod refusal;

pub(crate) mod view;

use std::sync::Arc;

use self::api::Api;
use crate::http::drain::Drain;
use crate::telemetry::metrics::Metrics;

/// The state of the admin port. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Admin {
    drain: Drain,
    metrics: Metrics,
    live: Arc<dyn Fn() -> Arc<Api> + Send + Sync>,
}

impl Admin {
    /// The admin port. `live` returns what the configuration in force makes of it.
    #[must_use]
    pub(crate) fn new(
        live: impl Fn() -> Arc<Api> + Send + Sync + 'static,
        drain: Drain,
        metrics: Metrics,
    ) -> Self {
        Self {
            drain,
            metrics,
            live: Arc::new(live),
        }
    }

    /// What the configuration in force makes of it.
    fn api(&self) -> Arc<Api> {
        (self.live)()
    }
}
