//! Reads the configuration again when its files change or on SIGHUP, and applies it as a whole or not at all.
//!
//! A request sees the old configuration or the new one, never a mix. Work in progress continues under the old one.
//! Listeners and stores change only with a restart. See docs/operate.md.

use std::mem::discriminant;
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::build;
use super::live::Running;
use crate::config::{self, Config, fingerprint};
use crate::file_watch::{Stamp, Watch, stamps};
use crate::payouts::Payouts;
use crate::telemetry::log::Level;

/// How long the files must stay unchanged before the sidecar reads them: an operator writes a certificate and its key
/// one after the other.
const STILL: Duration = Duration::from_millis(200);
/// How many such waits there are before the sidecar reads the files anyway.
const STILL_TRIES: u32 = 50;

/// Watches the files of the configuration and applies their changes.
pub(super) struct Reload {
    path: PathBuf,
    /// The settings that only a restart changes, as they were at the start.
    started: Fixed,
    files: Vec<PathBuf>,
    fingerprint: u64,
    running: Running,
    level: Level,
}

impl Reload {
    /// Watches the file that `config` came from, and the files that it names.
    pub(super) fn new(path: PathBuf, config: &Config, running: Running, level: Level) -> Self {
        Self {
            path,
            files: config.files.clone(),
            fingerprint: config.fingerprint,
            started: fixed(config),
            running,
            level,
        }
    }

    /// Watches until the process ends.
    pub(super) async fn follow(mut self) {
        let mut asked = signal(SignalKind::hangup())
            .inspect_err(
                |error| tracing::error!(%error, "SIGHUP cannot be caught; files are watched all the same"),
            )
            .ok();
        let mut refused = None;
        let mut seen = Vec::new();
        loop {
            let watched = self.files.clone();
            // Watch before reading, so that a change in between does not go unnoticed.
            let mut watch = Watch::over(watched.clone()).await;
            while self.files == watched {
                let now = stamps(&self.files).await;
                if now != seen {
                    seen = self.settled(now).await;
                    self.read_again(&mut refused).await;
                }
                tokio::select! {
                    () = watch.changed() => {}
                    () = asked_by(&mut asked) => {
                        tracing::info!("asked by SIGHUP to read the configuration again");
                        seen.clear();
                    }
                }
            }
        }
    }

    /// Waits until the files have stopped changing.
    async fn settled(&self, mut before: Vec<Option<Stamp>>) -> Vec<Option<Stamp>> {
        for _ in 0..STILL_TRIES {
            tokio::time::sleep(STILL).await;
            let now = stamps(&self.files).await;
            if now == before {
                return now;
            }
            before = now;
        }
        before
    }

    async fn read_again(&mut self, refused: &mut Option<String>) {
        let path = self.path.clone();
        let read =
            tokio::task::spawn_blocking(move || config::load(&path, config::environment().into_iter()));
        let why = match read.await {
            Ok(Ok(config)) if config.fingerprint == self.fingerprint => {
                if refused.take().is_some() {
                    tracing::info!("the configuration is again the one that is in force");
                    self.running.lasting.metrics.reload_withdrawn();
                }
                return;
            }
            Ok(Ok(config)) => match self.take(config) {
                Ok(()) => {
                    *refused = None;
                    return;
                }
                Err(error) => format!("{error:#}"),
            },
            Ok(Err(errors)) => errors.to_string(),
            Err(error) => error.to_string(),
        };
        if refused.as_ref() != Some(&why) {
            tracing::error!(
                why,
                "the new configuration was refused; the old one stays in force"
            );
            self.running.lasting.metrics.reloaded(false);
            *refused = Some(why);
        }
    }

    fn take(&mut self, config: Config) -> anyhow::Result<()> {
        let changed = self
            .started
            .iter()
            .zip(fixed(&config))
            .filter(|(old, new)| *old != new);
        let restart_for: Vec<_> = changed.map(|((name, _), _)| *name).collect();
        self.running.apply(&config, &restart_for)?;
        tokio::spawn(tell_stranded(self.running.payouts()));
        self.level.set(&config.log.level)?;
        build::tell_access(&config);
        for warning in &config.warnings {
            tracing::warn!(warning, "the configuration may not be as it was meant");
        }
        if !restart_for.is_empty() {
            tracing::warn!(
                settings = restart_for.join(", "),
                "these settings have changed, and hold from the next restart on"
            );
        }
        tracing::info!(file = %self.path.display(), "the new configuration is in force");
        self.running.lasting.metrics.reloaded(true);
        self.files = config.files;
        self.fingerprint = config.fingerprint;
        Ok(())
    }
}

/// Logs the unsettled orders whose destination the new configuration no longer has.
async fn tell_stranded(payouts: Payouts) {
    match payouts.stranded().await {
        Ok(stranded) => {
            for ((mch_id, sent_to), orders) in stranded {
                tracing::error!(
                    mch_id = mch_id.as_str(),
                    sent_to,
                    orders,
                    "the new configuration leads nowhere for unsettled orders: they stay as they are, and repeats of them get \
                     SYSTEMERROR, until an entry leads to where they were sent (restore it, with settle_only = true beside a \
                     new one; or name the old handler in formerly)"
                );
            }
        }
        Err(error) => {
            tracing::warn!(%error, "whether the new configuration strands orders could not be looked at")
        }
    }
}

async fn asked_by(signal: &mut Option<Signal>) {
    let told = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if told.is_none() {
        std::future::pending::<()>().await;
    }
}

/// The settings that only a restart changes, by name and fingerprint. A copy of the configuration would keep its
/// secrets in memory for as long as the process lives.
type Fixed = [(&'static str, u64); 8];

fn fixed(config: &Config) -> Fixed {
    let collector = config.telemetry.otlp.as_ref();
    [
        ("server.listen", fingerprint(&config.server.listen)),
        (
            "server.tls (on or off)",
            fingerprint(&config.server.tls.is_some()),
        ),
        ("admin.listen", fingerprint(&config.admin.listen)),
        ("identity", fingerprint(&config.identity)),
        ("ledger", fingerprint(&config.ledger)),
        ("log.format", fingerprint(&discriminant(&config.log.format))),
        ("server.memory_limit", fingerprint(&config.server.memory_limit)),
        (
            "telemetry",
            fingerprint(&collector.map(|settings| (&settings.url, &settings.ca_pem))),
        ),
    ]
}
