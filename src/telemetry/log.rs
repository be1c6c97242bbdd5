//! Logs to standard output, one line per event: JSON for machines, text for people. Document: specification, section 7.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::reload;

use super::line::{Json, Text};
use super::out::Out;

/// `[log] format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text, coloured on a terminal.
    Text,
}

/// Changes what is logged while the process runs.
pub struct Level(Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>);

impl Level {
    /// Logs at this level, or by this filter, from now on.
    ///
    /// # Errors
    /// When it is neither, then the parser's error.
    pub fn set(&self, level: &str) -> Result<(), ParseError> {
        if let Err(error) = (self.0)(filter(level)?) {
            tracing::warn!(%error, "the log level could not be changed");
        }
        Ok(())
    }
}

/// Starts logging for the whole process. `level` is a level (`info`) or a filter (`info,audit=warn`).
///
/// # Errors
/// When the level is neither, then the parser's error.
pub fn start(format: LogFormat, level: &str) -> Result<Level, ParseError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(level)?)
        .with_writer(Out);
    let (level, started) = match format {
        LogFormat::Json => {
            let builder = builder.event_format(Json).with_filter_reloading();
            let handle = builder.reload_handle();
            let level = Level(Box::new(move |filter| handle.reload(filter)));
            (level, builder.try_init())
        }
        LogFormat::Text => {
            let text = tracing_subscriber::fmt::format()
                .compact()
                .with_ansi(std::io::stdout().is_terminal());
            let builder = builder.event_format(Text(text)).with_filter_reloading();
            let handle = builder.reload_handle();
            let level = Level(Box::new(move |filter| handle.reload(filter)));
            (level, builder.try_init())
        }
    };
    if let Err(error) = started {
        // Only tests start twice in one process; the first start stays in force.
        tracing::debug!(%error, "logging was started already");
    }
    Ok(level)
}

/// The audit is no matter of taste: it is written at any level, unless it is switched off by its own name.
fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(format!("audit=info,{level}"))
}

/// An error with its causes, for a log line. `Display` says one level, `source` the next.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
