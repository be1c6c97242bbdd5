//! `payout-sidecar check`: the very checks of a start, without serving.

use std::path::Path;
use std::sync::Arc;

use super::{Ending, assemble};
use crate::clock::SystemClock;
use crate::config::redacted::summary;
use crate::telemetry::metrics::Metrics;

#[expect(clippy::print_stdout, reason = "printing is what this command is for")]
pub(super) async fn check(path: &Path, connect: bool) -> Ending {
    let config = match crate::config::load(path, crate::config::environment().into_iter()) {
        Ok(config) => config,
        Err(errors) => return Ending::Misconfigured(errors.into()),
    };
    for warning in &config.warnings {
        println!("warning: {warning}");
    }
    let metrics = Metrics::default();
    let settings = assemble::settings(&config, &(Arc::new(SystemClock) as _), &metrics);
    if let Err(error) = settings {
        return Ending::Misconfigured(error);
    }
    for line in summary(&config) {
        println!("{line}");
    }
    if connect {
        match assemble::payouts(&config, Arc::new(SystemClock), &metrics).await {
            Ok(payouts) => {
                if let Err(error) = payouts.ledger().ready().await {
                    return Ending::Failed(error.into());
                }
                if let Err(error) = payouts.identity().ready().await {
                    return Ending::Failed(error.into());
                }
                println!("the stores answer");
            }
            Err(error) => return Ending::Failed(error),
        }
    }
    println!("{} is valid", path.display());
    Ending::Done
}
