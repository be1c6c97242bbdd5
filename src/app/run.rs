//! `payout-sidecar run`: builds the sidecar, serves, and shuts down in phases.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use axum::Extension;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tower::Layer as _;

use super::live::{Lasting, Live, Running};
use super::reload::Reload;
use super::{build, configuration, metrics_poll, misconfigured};
use crate::admin::Admin;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, LogFormat};
use crate::http::drain::{Drain, Phase};
use crate::payouts::Payouts;
use crate::payouts::ports::Ledger;
use crate::server::accept::{self, ListenerConfig};
use crate::server::activity::ConnectionTimeouts;
use crate::server::budget::Room;
use crate::server::stack::{self, ShutdownTimeouts, Standing};
use crate::telemetry::log;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::background::traced;
use crate::telemetry::traces::{self, Exporter};

/// Timeouts of the admin port. Its callers are probes, scrapers and operators, which are few and fast.
const ADMIN_TIMEOUTS: ConnectionTimeouts = ConnectionTimeouts {
    head: Duration::from_secs(5),
    idle: Duration::from_secs(75),
};
/// The connections of the admin port. A further one replaces the connection that has been idle longest. The memory
/// budget counts them as part of the process at rest.
const ADMIN_ROOM: Room = Room {
    most: 32,
    bytes: 2 * 1024 * 1024,
    head: 16 * 1024,
    streams: 1,
};

pub(crate) async fn run(path: &Path) -> anyhow::Result<()> {
    let config = configuration(path)?;
    let format = match config.log.format {
        LogFormat::Json => log::LogFormat::Json,
        LogFormat::Text => log::LogFormat::Text,
    };
    let level = log::start(format, &config.log.level)
        .context("log.level")
        .map_err(misconfigured)?;
    for warning in &config.warnings {
        tracing::warn!(warning, "the configuration may not be as it was meant");
    }
    build::tell_access(&config);
    let (sidecar, drain) = Sidecar::bind(&config, Arc::new(SystemClock)).await?;
    let reload = Reload::new(path.to_owned(), &config, sidecar.running.clone(), level);
    // Every component has its secrets now. A copy here would outlive their rotation.
    drop(config);
    tokio::spawn(reload.follow());
    tokio::spawn(drain_on_signal(drain));
    sidecar.serve().await;
    Ok(())
}

/// A sidecar with its ports bound, ready to serve.
pub(crate) struct Sidecar {
    running: Running,
    main: TcpListener,
    admin: TcpListener,
    drain: Drain,
    exporter: Option<Exporter>,
}

impl Sidecar {
    /// Opens the stores and binds the ports.
    ///
    /// # Errors
    /// Names the store, port or setting that cannot be used, and why.
    pub(crate) async fn bind(config: &Config, clock: Arc<dyn Clock>) -> anyhow::Result<(Self, Drain)> {
        crate::app::resources::raise_descriptors();
        let metrics = Metrics::default();
        let payouts = build::payouts(config, Arc::clone(&clock), &metrics).await?;
        let drain = Drain::default();
        let (tracer, exporter) = config
            .telemetry
            .otlp
            .as_ref()
            .and_then(|settings| traces::start(settings, &metrics))
            .unzip();
        let standing = Standing::new(
            crate::app::resources::means(config.server.memory_limit),
            drain.clone(),
        );
        let lasting = Lasting {
            metrics,
            tracer,
            standing,
            clock,
        };
        let first = Live::new(config, payouts, &lasting, None, &[])?;
        build::describe(config, &lasting.metrics);
        let sidecar = Self {
            running: Running {
                live: Arc::new(ArcSwap::from_pointee(first)),
                lasting,
            },
            main: accept::bind(config.server.listen).context("[server] listen")?,
            admin: accept::bind(config.admin.listen).context("[admin] listen")?,
            drain: drain.clone(),
            exporter,
        };
        Ok((sidecar, drain))
    }

    /// The addresses of the main port and of the admin port.
    pub(crate) fn addresses(&self) -> std::io::Result<(std::net::SocketAddr, std::net::SocketAddr)> {
        Ok((self.main.local_addr()?, self.admin.local_addr()?))
    }

    /// Serves until the shutdown is complete.
    pub(crate) async fn serve(self) {
        let Self {
            running,
            main,
            admin,
            drain,
            exporter,
        } = self;
        let Lasting {
            metrics,
            tracer,
            standing,
            clock: _,
        } = running.lasting.clone();
        if let (Ok(main), Ok(admin)) = (main.local_addr(), admin.local_addr()) {
            tracing::info!(%main, %admin, "serving");
        }
        let ledger = Arc::clone(running.payouts().ledger());
        tokio::spawn(tell_warnings(Arc::clone(&ledger)));
        tokio::spawn(watch(ledger));
        let current = {
            let running = running.clone();
            move || running.payouts()
        };
        tokio::spawn(metrics_poll::follow(current.clone(), metrics.clone()));
        let end = Drain::default();
        let settler = {
            let drain = drain.clone();
            let settled = Payouts::settle_until(current, async move { drain.reached(Phase::Draining).await });
            tokio::spawn(traced(tracer, settled))
        };
        // The admin port answers until the end, so that a probe sees that the sidecar drains.
        let admin_listener = || ListenerConfig {
            timeouts: ADMIN_TIMEOUTS,
            room: ADMIN_ROOM,
            http2: false,
            tls: None,
        };
        let live = Arc::clone(&running.live);
        let api = move || Arc::clone(&live.load().api);
        let router = Admin::new(api, drain.clone(), metrics).router();
        let admin = tokio::spawn(accept::serve(
            admin,
            admin_listener,
            end.clone(),
            move |connected| Extension(connected).layer(router.clone()),
        ));
        let live = Arc::clone(&running.live);
        let listener = move || live.load().stack.listener_config();
        let live = Arc::clone(&running.live);
        let main = tokio::spawn(accept::serve(main, listener, drain.clone(), move |connected| {
            stack::service(Arc::clone(&live), &connected)
        }));

        drain.reached(Phase::LameDuck).await;
        let ShutdownTimeouts {
            lame_duck,
            drain_timeout,
        } = running.live.load().stack.shutdown_timeouts();
        tracing::info!(
            lame_duck_ms = lame_duck.as_millis(),
            "asked to stop: not ready any more, calls are still taken"
        );
        tokio::time::sleep(lame_duck).await;
        drain.enter(Phase::Draining);
        let tasks = running.payouts().tasks().clone();
        let finished = tokio::time::timeout(drain_timeout, async {
            let connections = main.await;
            standing.tunnels.ended().await;
            tasks.close();
            tasks.wait().await;
            connections.is_ok() && settler.await.is_ok()
        });
        match finished.await {
            Ok(true) => tracing::info!("everything under way was finished"),
            Ok(false) => tracing::error!("a serving task failed; unsettled payouts stay recorded as such"),
            Err(_) => tracing::warn!(
                payouts = tasks.len(),
                "the drain's time is over; unsettled payouts stay recorded as such"
            ),
        }
        if let Some(exporter) = exporter {
            exporter.finish().await;
        }
        end.enter(Phase::Draining);
        if tokio::time::timeout(Duration::from_secs(1), admin).await.is_err() {
            tracing::debug!("the admin port had a connection left");
        }
    }
}

/// How often the sidecar asks the ledger whether it is ready.
const LOOK_AFTER: Duration = Duration::from_secs(5);

/// Asks the ledger for readiness, whether or not a probe does. So the sidecar notices a Redis that came back empty, and
/// then takes no new order.
async fn watch(ledger: Arc<dyn Ledger>) {
    loop {
        if let Err(error) = ledger.ready().await {
            tracing::debug!(%error, "the ledger is not ready");
        }
        tokio::time::sleep(LOOK_AFTER).await;
    }
}

/// Logs, once the store answers, the settings under which it may lose records.
async fn tell_warnings(ledger: Arc<dyn Ledger>) {
    loop {
        match ledger.warnings().await {
            Ok(warnings) => {
                for warning in warnings {
                    tracing::warn!(warning, "the ledger may forget");
                }
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "the ledger could not be asked about its settings yet");
                tokio::time::sleep(LOOK_AFTER).await;
            }
        }
    }
}

/// SIGTERM or SIGINT begins the shutdown. A second one ends the lame-duck phase at once.
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
