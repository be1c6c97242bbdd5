//! `payout-sidecar run`: builds everything, serves, and ends in order.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::{Ending, assemble};
use crate::admin::api::Api;
use crate::admin::health::Admin;
use crate::clock::{Clock, SystemClock};
use crate::config::redacted::redacted;
use crate::config::{Config, LogFormat};
use crate::http::drain::{Drain, Phase};
use crate::http::listen::{self, ConnectionLimits};
use crate::http::stack::Stack;
use crate::payout::Payouts;
use crate::telemetry::log;

pub(super) async fn run(path: &Path) -> Ending {
    let config = match crate::config::load(path, crate::config::environment().into_iter()) {
        Ok(config) => config,
        Err(errors) => return Ending::Misconfigured(errors.into()),
    };
    let format = match config.log.format {
        LogFormat::Json => log::LogFormat::Json,
        LogFormat::Text => log::LogFormat::Text,
    };
    if let Err(error) = log::start(format, &config.log.level) {
        return Ending::Misconfigured(anyhow::Error::new(error).context("log.level"));
    }
    for warning in &config.warnings {
        tracing::warn!(warning, "the configuration may not be as it was meant");
    }
    let (sidecar, drain) = match Sidecar::bind(&config, Arc::new(SystemClock)).await {
        Ok(bound) => bound,
        Err(error) => return Ending::Failed(error),
    };
    tokio::spawn(drain_on_signal(drain));
    sidecar.serve().await;
    Ending::Done
}

/// A sidecar with its ports bound, ready to serve.
pub(super) struct Sidecar {
    payouts: Payouts,
    stack: Stack,
    api: Api,
    main: TcpListener,
    admin: TcpListener,
    drain: Drain,
    limits: ConnectionLimits,
    lame_duck: Duration,
    drain_timeout: Duration,
}

impl Sidecar {
    /// Opens the stores and binds the ports.
    ///
    /// # Errors
    /// When a store, a port or a setting cannot be used, then which, and why.
    pub(super) async fn bind(config: &Config, clock: Arc<dyn Clock>) -> anyhow::Result<(Self, Drain)> {
        let payouts = assemble::payouts(config, clock).await?;
        let stack = Stack::new(config, payouts.clone())?;
        let drain = Drain::default();
        let sidecar = Self {
            api: Api::new(payouts.clone(), config.admin.token.clone(), redacted(config)),
            payouts,
            stack,
            main: listen::bind(config.server.listen)
                .await
                .context("[server] listen")?,
            admin: listen::bind(config.admin.listen)
                .await
                .context("[admin] listen")?,
            drain: drain.clone(),
            limits: ConnectionLimits {
                header_timeout: config.server.header_timeout,
            },
            lame_duck: config.server.lame_duck,
            drain_timeout: config.server.drain_timeout,
        };
        Ok((sidecar, drain))
    }

    /// Where the main port and the admin port are.
    pub(super) fn addresses(&self) -> std::io::Result<(std::net::SocketAddr, std::net::SocketAddr)> {
        Ok((self.main.local_addr()?, self.admin.local_addr()?))
    }

    /// Serves until the drain is over.
    pub(super) async fn serve(self) {
        let Self {
            payouts,
            stack,
            api,
            main,
            admin,
            drain,
            limits,
            lame_duck,
            drain_timeout,
        } = self;
        tracing::info!(main = ?main.local_addr().ok(), admin = ?admin.local_addr().ok(), "serving");
        tell_warnings(&payouts);
        let end = Drain::default();
        let settler = {
            let drain = drain.clone();
            tokio::spawn(
                payouts
                    .clone()
                    .settle_until(async move { drain.reached(Phase::Draining).await }),
            )
        };
        let probes = Admin::new(payouts.clone(), drain.clone(), api);
        // The admin port answers to the very end: a probe must see the draining.
        let admin = tokio::spawn(listen::serve(admin, limits, end.clone(), move |peer| {
            probes.for_peer(peer)
        }));
        let main = tokio::spawn(listen::serve(main, limits, drain.clone(), move |peer| {
            stack.for_peer(peer)
        }));

        drain.reached(Phase::LameDuck).await;
        tracing::info!(
            lame_duck_ms = lame_duck.as_millis(),
            "asked to stop: not ready any more, calls are still taken"
        );
        tokio::time::sleep(lame_duck).await;
        drain.enter(Phase::Draining);
        let finished = tokio::time::timeout(drain_timeout, async {
            let connections = main.await;
            payouts.tasks().close();
            payouts.tasks().wait().await;
            connections.is_ok() && settler.await.is_ok()
        });
        match finished.await {
            Ok(true) => tracing::info!("everything under way was finished"),
            Ok(false) => tracing::error!("a serving task failed; unsettled payouts stay recorded as such"),
            Err(_) => tracing::warn!(
                payouts = payouts.tasks().len(),
                "the drain's time is over; unsettled payouts stay recorded as such"
            ),
        }
        end.enter(Phase::Draining);
        if tokio::time::timeout(Duration::from_secs(1), admin).await.is_err() {
            tracing::debug!("the admin port had a connection left");
        }
    }
}

/// Says, once the store can be asked, under which of its settings it may forget.
fn tell_warnings(payouts: &Payouts) {
    let payouts = payouts.clone();
    tokio::spawn(async move {
        loop {
            match payouts.ledger().warnings().await {
                Ok(warnings) => {
                    for warning in warnings {
                        tracing::warn!(warning, "the ledger may forget");
                    }
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "the ledger could not be asked about its settings yet");
                    tokio::time::sleep(Duration::from_secs(5)).await;
                }
            }
        }
    });
}

/// SIGTERM and SIGINT begin the drain; a second one ends the lame duck's wait.
async fn drain_on_signal(drain: Drain) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be caught: the process will not end in order");
        return;
    };
    for phase in [Phase::LameDuck, Phase::Draining] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        drain.enter(phase);
    }
}
