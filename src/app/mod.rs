//! The life of the process: `build` makes its parts from the configuration, `run` serves and shuts down, `reload`
//! applies another configuration by swapping `live`, `metrics_poll` asks the ledger for gauges, `resources` reads the
//! limits of memory and descriptors.

pub(crate) mod build;

mod live;

mod metrics_poll;

mod reload;

pub(crate) mod resources;

pub(crate) mod run;

use std::path::Path;

use crate::config::Config;

/// An error in the configuration or in a file that it names. It ends a command with exit code 2.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Misconfigured(anyhow::Error);

/// Marks an error as one of the configuration.
pub(crate) fn misconfigured(error: impl Into<anyhow::Error>) -> anyhow::Error {
    Misconfigured(error.into()).into()
}

/// Whether an error is one of the configuration.
pub(crate) fn is_misconfigured(error: &anyhow::Error) -> bool {
    error.is::<Misconfigured>()
}

/// Reads the configuration file and the environment.
pub(crate) fn configuration(path: &Path) -> anyhow::Result<Config> {
    crate::config::load(path, crate::config::environment().into_iter()).map_err(misconfigured)
}
