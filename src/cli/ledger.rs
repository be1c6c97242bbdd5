//! `payout-sidecar ledger create|status|accept-loss`: decisions about the whole ledger that only a person may make.

use std::path::Path;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use clap::Subcommand;

use crate::app::{build, configuration, misconfigured};
use crate::clock::SystemClock;
use crate::ledger::keeper::{Keeper, Standing};
use crate::payouts::ports::StoreError;
use crate::telemetry::log::{self, AUDIT};
use payout_domain::ids::MchId;
use payout_domain::terminal;

#[derive(Subcommand)]
pub(super) enum LedgerCommand {
    /// Create the ledger, once, in a store that holds none.
    Create,
    /// Show which ledger the store holds and whether it lost data. Exits with 1 if it holds none, or lost data.
    Status,
    /// Continue with a ledger that lost data. Orders whose records are lost may be paid again. Writes an audit line.
    AcceptLoss {
        /// Why this is safe, e.g. "all payouts of 2026-11-23 were compared with the statement".
        #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
        reason: String,
    },
}

#[expect(clippy::print_stdout, reason = "printing is what this command is for")]
pub(super) async fn ledger(path: &Path, command: LedgerCommand) -> anyhow::Result<()> {
    let config = configuration(path)?;
    let keeper = build::keeper(&config, Arc::new(SystemClock)).map_err(misconfigured)?;
    let place = keeper.place();
    let whole = |error: StoreError| anyhow!(error.text);
    let text = match command {
        LedgerCommand::Create => {
            let id = keeper.create().await.map_err(whole)?;
            format!("made ledger {id} in {place}")
        }
        LedgerCommand::Status => told(&place, keeper.status().await.map_err(whole)?)?,
        LedgerCommand::AcceptLoss { reason } => accept_loss(keeper.as_ref(), &place, &reason)
            .await
            .map_err(whole)?,
    };
    println!("{}", terminal::line(&text));
    Ok(())
}

/// The state of the ledger at a place, as a sentence; an error if that ledger can take no order.
pub(super) fn told(place: &str, standing: Standing) -> anyhow::Result<String> {
    Ok(match standing {
        Standing::None => bail!("{place} holds no ledger: make one by payout-sidecar ledger create"),
        Standing::Whole { id, merchants } => match merchants {
            Some(1) => format!("{place} holds ledger {id}, whole, 1 merchant"),
            Some(count) => format!("{place} holds ledger {id}, whole, {count} merchants"),
            None => format!("{place} holds ledger {id}, whole"),
        },
        standing @ Standing::Lost { .. } => bail!(
            "{place} {}: restore it, or run payout-sidecar ledger accept-loss",
            loss(&standing)
        ),
        Standing::InUse => format!("{place} is in use by a running sidecar: ask its admin port, /readyz"),
    })
}

async fn accept_loss(keeper: &dyn Keeper, place: &str, reason: &str) -> Result<String, StoreError> {
    let (id, lost) = keeper.accept_loss().await?;
    let what = loss(&lost);
    log::audit_to_stderr();
    tracing::warn!(target: AUDIT, ledger = %id, %place, lost = what, reason, "the loss was accepted");
    Ok(match lost {
        Standing::Lost { id: None, .. } => format!(
            "{place} {what}; the loss is accepted, ledger {id} takes its place: restart the sidecars that are running"
        ),
        Standing::Lost { .. } | Standing::None | Standing::Whole { .. } | Standing::InUse => {
            format!("{place} {what}; the loss is accepted, ledger {id} goes on")
        }
    })
}

/// What a store has lost, as the rest of a sentence about it.
fn loss(standing: &Standing) -> String {
    let Standing::Lost { id, merchants } = standing else {
        return "has lost nothing".to_owned();
    };
    let names: Vec<&str> = merchants.iter().map(MchId::as_str).collect();
    let names = names.join(", ");
    match (id, names.is_empty()) {
        (Some(id), false) => format!("has lost records of merchant {names} in ledger {id}"),
        (Some(id), true) => format!("has lost the time of ledger {id}"),
        (None, false) => format!("has lost its ledger, and holds records of merchant {names}"),
        (None, true) => "has lost its ledger".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::keeper::LedgerId;

    #[test]
    fn a_loss_is_told_as_a_sentence() {
        let id = LedgerId::parse("0123456789abcdef0123456789abcdef");
        let merchants = |names: &[&str]| names.iter().map(|name| MchId::parse(name).unwrap()).collect();
        for (id, names, says) in [
            (
                id.clone(),
                &["19", "20"][..],
                "has lost records of merchant 19, 20 in ledger 0123456789abcdef0123456789abcdef",
            ),
            (
                id,
                &[],
                "has lost the time of ledger 0123456789abcdef0123456789abcdef",
            ),
            (
                None,
                &["19"],
                "has lost its ledger, and holds records of merchant 19",
            ),
            (None, &[], "has lost its ledger"),
        ] {
            let merchants = merchants(names);
            assert_eq!(loss(&Standing::Lost { id, merchants }), says);
        }
    }
}
