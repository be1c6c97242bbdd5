//! The process: built from its configuration, run, given another configuration, and ended in order.

pub(crate) mod build;

mod live;

mod metrics_poll;

mod reload;

pub(crate) mod resources;

pub(crate) mod run;

use std::path::Path;

use crate::config::Config;

/// What ends a command with exit code 2: something is wrong in the configuration, or in what it names.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Misconfigured(anyhow::Error);

/// The error, as one of the configuration.
pub(crate) fn misconfigured(error: impl Into<anyhow::Error>) -> anyhow::Error {
    Misconfigured(error.into()).into()
}

/// Whether an error is one of the configuration.
pub(crate) fn is_misconfigured(error: &anyhow::Error) -> bool {
    error.is::<Misconfigured>()
}

/// Reads the configuration, with what the environment adds to it.
pub(crate) fn configuration(path: &Path) -> anyhow::Result<Config> {
    crate::config::load(path, crate::config::environment().into_iter()).map_err(misconfigured)
}
