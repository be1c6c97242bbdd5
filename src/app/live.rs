//! Everything that a reload changes in a running sidecar, in one value. A reload builds another value and swaps it in.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::build;
use crate::admin::api::Api;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::redacted::redacted;
use crate::payouts::Payouts;
use crate::server::stack::{Generation, Standing};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Tracer;

/// The parts that follow from one configuration.
pub(super) struct Live {
    pub(super) payouts: Payouts,
    pub(super) stack: Generation,
    pub(super) api: Arc<Api>,
}

impl AsRef<Generation> for Live {
    fn as_ref(&self) -> &Generation {
        &self.stack
    }
}

/// A running sidecar: the live configuration's parts, and what lasts as long as the process. Clones share both.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) live: Arc<ArcSwap<Live>>,
    pub(super) lasting: Lasting,
}

/// What lasts as long as the process, whatever the configuration.
#[derive(Clone)]
pub(super) struct Lasting {
    pub(super) metrics: Metrics,
    pub(super) tracer: Option<Tracer>,
    pub(super) standing: Standing,
    pub(super) clock: Arc<dyn Clock>,
}

impl Live {
    /// Builds the parts from a configuration. `payouts` already have its settings; `restart_for` names the changed
    /// settings that need a restart.
    ///
    /// # Errors
    /// When the configuration cannot be used, then why.
    pub(super) fn new(
        config: &Config,
        payouts: Payouts,
        lasting: &Lasting,
        before: Option<&Self>,
        restart_for: &[&str],
    ) -> anyhow::Result<Self> {
        let stack = Generation::new(
            config,
            &payouts,
            &lasting.metrics,
            lasting.tracer.as_ref(),
            &lasting.standing,
            before.map(|before| &before.stack),
        )?;
        let mut shown = redacted(config)?;
        if let (Some(shown), Some(_)) = (shown.as_object_mut(), before) {
            shown.insert("restart_needed_for".to_owned(), restart_for.into());
        }
        let api = Arc::new(Api::new(payouts.clone(), config.admin.token.clone(), shown));
        Ok(Self { payouts, stack, api })
    }
}

impl Running {
    /// The payouts under the configuration in force.
    pub(super) fn payouts(&self) -> Payouts {
        self.live.load().payouts.clone()
    }

    /// Builds the parts from a configuration, and then swaps them in.
    ///
    /// # Errors
    /// When the configuration cannot be used, then why; nothing has changed.
    pub(super) fn apply(&self, config: &Config, restart_for: &[&str]) -> anyhow::Result<()> {
        let lasting = &self.lasting;
        let before = self.live.load_full();
        let settings = build::settings(config, &lasting.clock, &lasting.metrics)?;
        let payouts = before.payouts.under(Arc::new(settings));
        let next = Live::new(config, payouts, lasting, Some(&before), restart_for)?;
        build::describe(config, &lasting.metrics);
        self.live.store(Arc::new(next));
        Ok(())
    }
}
