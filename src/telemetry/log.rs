//! Logs to standard output, one line per event: JSON for machines, text for people. Document: specification, section 7.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{EnvFilter, ParseError};

/// `[log] format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text, coloured on a terminal.
    Text,
}

/// Starts logging for the whole process. `level` is a level (`info`) or a filter (`info,audit=warn`).
///
/// # Errors
/// When the level is neither, then the parser's error.
pub fn start(format: LogFormat, level: &str) -> Result<(), ParseError> {
    // The audit is no matter of taste: it is written at any level, unless it is switched off by its own name.
    let filter = EnvFilter::builder().parse(format!("audit=info,{level}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(true);
    let started = match format {
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .try_init(),
        LogFormat::Text => builder.with_ansi(std::io::stdout().is_terminal()).try_init(),
    };
    if let Err(error) = started {
        // Only tests start twice in one process; the first start stays in force.
        tracing::debug!(%error, "logging was started already");
    }
    Ok(())
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
