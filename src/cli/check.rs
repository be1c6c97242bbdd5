//! `payout-sidecar check`: the very checks of a start, without serving.

use std::path::Path;
use std::sync::Arc;

use super::{Ending, assemble, ledger};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::config::redacted::summary;
use crate::http::budget::{Budget, Wanted};
use crate::ledger::keeper::Standing;
use crate::rules::terminal;
use crate::telemetry::metrics::Metrics;

#[expect(clippy::print_stdout, reason = "printing is what this command is for")]
pub(super) async fn check(path: &Path, connect: bool) -> Ending {
    let config = match crate::config::load(path, crate::config::environment().into_iter()) {
        Ok(config) => config,
        Err(errors) => return Ending::Misconfigured(errors.into()),
    };
    for warning in &config.warnings {
        println!("warning: {}", terminal::line(warning));
    }
    let wanted = Wanted::of(&config);
    let budget = Budget::of(crate::means::means(config.server.memory_limit), wanted);
    if let Some(warning) = budget.shortage(wanted) {
        println!("warning: {warning}");
    }
    let metrics = Metrics::default();
    let settings = assemble::settings(&config, &(Arc::new(SystemClock) as _), &metrics);
    if let Err(error) = settings {
        return Ending::Misconfigured(error);
    }
    for line in summary(&config) {
        println!("{}", terminal::line(&line));
    }
    println!("here: {budget}");
    for lowered in budget.lowered(wanted) {
        println!("here, lowered: {lowered}");
    }
    if connect && let Err(error) = stores(&config, &metrics).await {
        return Ending::Failed(error);
    }
    println!("{} is valid", path.display());
    Ending::Done
}

/// Asks the stores, and makes and changes nothing in them, not even what a start would make.
#[expect(clippy::print_stdout, reason = "printing is what this command is for")]
async fn stores(config: &Config, metrics: &Metrics) -> anyhow::Result<()> {
    let keeper = assemble::keeper(config, Arc::new(SystemClock))?;
    let standing = keeper.status().await?;
    match standing {
        Standing::None if config.ledger.create => {
            println!(
                "{} holds no ledger yet: a start makes it (ledger.create = true)",
                keeper.place()
            );
            assemble::identity(config, metrics).await?.ready().await?;
        }
        Standing::InUse => {
            println!(
                "{}",
                terminal::line(&ledger::told(&keeper.place(), standing).map_err(anyhow::Error::msg)?)
            );
            assemble::identity(config, metrics).await?.ready().await?;
        }
        standing @ (Standing::None | Standing::Whole { .. } | Standing::Lost { .. }) => {
            println!(
                "{}",
                terminal::line(&ledger::told(&keeper.place(), standing).map_err(anyhow::Error::msg)?)
            );
            let mut config = config.clone();
            config.ledger.create = false;
            let payouts = assemble::payouts(&config, Arc::new(SystemClock), metrics).await?;
            payouts.ledger().ready().await?;
            payouts.identity().ready().await?;
        }
    }
    println!("the stores answer");
    Ok(())
}
