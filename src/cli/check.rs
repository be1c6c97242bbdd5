//! `payout-sidecar check`: runs the same checks as a start, without serving.

use std::path::Path;
use std::sync::Arc;

use super::ledger;
use crate::app::{build, configuration, misconfigured};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::config::redacted::summary;
use crate::ledger::keeper::Standing;
use crate::server::budget::{Budget, Wanted};
use crate::telemetry::metrics::Metrics;
use payout_domain::terminal;

#[expect(clippy::print_stdout, reason = "printing is what this command is for")]
pub(super) async fn check(path: &Path, connect: bool) -> anyhow::Result<()> {
    let config = configuration(path)?;
    for warning in &config.warnings {
        println!("warning: {}", terminal::line(warning));
    }
    let wanted = Wanted::of(&config);
    let budget = Budget::of(crate::app::resources::means(config.server.memory_limit), wanted);
    if let Some(warning) = budget.shortage(wanted) {
        println!("warning: {warning}");
    }
    let metrics = Metrics::default();
    build::settings(&config, &(Arc::new(SystemClock) as _), &metrics).map_err(misconfigured)?;
    for line in summary(&config) {
        println!("{}", terminal::line(&line));
    }
    println!("here: {budget}");
    for lowered in budget.lowered(wanted) {
        println!("here, lowered: {lowered}");
    }
    if connect {
        stores(&config, &metrics).await?;
    }
    println!("{} is valid", path.display());
    Ok(())
}

/// Asks the stores whether they are usable, and changes nothing in them: it does not even create what a start would.
#[expect(clippy::print_stdout, reason = "printing is what this command is for")]
async fn stores(config: &Config, metrics: &Metrics) -> anyhow::Result<()> {
    let keeper = build::keeper(config, Arc::new(SystemClock))?;
    let standing = keeper.status().await?;
    let is_to_be_made = matches!(standing, Standing::None) && config.ledger.create;
    let can_be_opened = !is_to_be_made && !matches!(standing, Standing::InUse);
    let told = if is_to_be_made {
        let place = keeper.place();
        format!("{place} holds no ledger yet: a start makes it (ledger.create = true)")
    } else {
        ledger::told(&keeper.place(), standing)?
    };
    println!("{}", terminal::line(&told));
    if can_be_opened {
        let mut config = config.clone();
        config.ledger.create = false;
        let payouts = build::payouts(&config, Arc::new(SystemClock), metrics).await?;
        payouts.ledger().ready().await?;
        payouts.identity().ready().await?;
    } else {
        build::identity(config, metrics).await?.ready().await?;
    }
    println!("the stores answer");
    Ok(())
}
