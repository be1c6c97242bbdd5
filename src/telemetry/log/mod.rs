//! Logs to standard output, one line per event: JSON for machines, text for people. See docs/operate.md.

mod line;

pub(crate) mod out;

pub(crate) mod throttle;

use std::io::IsTerminal as _;

use tracing::Metadata;
use tracing_subscriber::filter::{ParseError, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use self::line::{Json, Text};
use self::out::Out;

/// The log target of the audit. A killed process must not lose its lines.
pub(crate) const AUDIT: &str = "audit";

/// `[log] format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text, coloured on a terminal.
    Text,
}

/// Changes the log level while the process runs.
pub(crate) struct Level(reload::Handle<Targets, Registry>);

impl Level {
    /// Logs at this level, or by this filter, from now on.
    ///
    /// # Errors
    /// When it is neither, then the parser's error.
    pub(crate) fn set(&self, level: &str) -> Result<(), ParseError> {
        if let Err(error) = self.0.reload(filter(level)?) {
            tracing::warn!(%error, "the log level could not be changed");
        }
        Ok(())
    }
}

/// Starts logging for the whole process. `level` is a level (`info`) or a filter (`info,audit=warn`).
///
/// # Errors
/// When the level is neither, then the parser's error.
pub(crate) fn start(format: LogFormat, level: &str) -> Result<Level, ParseError> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let filtered = tracing_subscriber::registry()
        .with(filter)
        .with(filter_fn(is_worth_a_line));
    let lines = fmt::layer().with_writer(Out);
    let started = match format {
        LogFormat::Json => filtered.with(lines.event_format(Json)).try_init(),
        LogFormat::Text => {
            let text = fmt::format().compact().with_ansi(std::io::stdout().is_terminal());
            filtered.with(lines.event_format(Text(text))).try_init()
        }
    };
    if let Err(error) = started {
        // Only tests start twice in one process; the first start stays in force.
        tracing::debug!(%error, "logging was started already");
    }
    Ok(Level(handle))
}

/// Makes a command that is not a server write its audit, and nothing else, to standard error: one JSON object per
/// line.
pub(crate) fn audit_to_stderr() {
    let audit = Targets::new().with_target(AUDIT, tracing::Level::INFO);
    let lines = fmt::layer().with_writer(std::io::stderr).event_format(Json);
    if let Err(error) = tracing_subscriber::registry().with(audit).with(lines).try_init() {
        tracing::debug!(%error, "logging was started already");
    }
}

/// The audit is written at every level, unless the filter switches it off by its own name.
fn filter(level: &str) -> Result<Targets, ParseError> {
    format!("{AUDIT}=info,{level}").parse()
}

/// Drops the OTLP library's line about each failed batch: the export of traces reports failures now and then itself.
fn is_worth_a_line(event: &Metadata<'_>) -> bool {
    !(event.target() == "opentelemetry-otlp" && event.name().starts_with("Export.Failed"))
}

/// An error with its causes, for a log line. `Display` says one level, `source` the next.
#[must_use]
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    for cause in causes(error) {
        text.push_str(": ");
        text.push_str(&cause.to_string());
    }
    text
}

/// The causes of an error, the nearest first.
pub(crate) fn causes(
    error: &dyn std::error::Error,
) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |cause| (*cause).source())
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn the_audit_is_written_unless_it_is_switched_off_by_name() {
        let writes = |level: &str, target: &str| {
            let filter = filter(level).unwrap();
            [Level::ERROR, Level::INFO, Level::DEBUG].map(|level| filter.would_enable(target, &level))
        };
        assert_eq!(writes("error", "audit"), [true, true, false]);
        assert_eq!(writes("off", "audit"), [true, true, false]);
        assert_eq!(writes("info,audit=off", "audit"), [false, false, false]);
        assert_eq!(writes("debug", "hyper::proto"), [true, true, true]);
        assert_eq!(writes("debug,hyper=warn", "hyper::proto"), [true, false, false]);
        assert_eq!(writes("debug,hyper=warn", "payout_sidecar"), [true, true, true]);
        assert_eq!(writes("error", "payout_sidecar"), [true, false, false]);
    }
}
