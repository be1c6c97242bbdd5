//! `payout-sidecar payout list|show|settle|cancel|export`: what operators ask and say, through a running sidecar's admin port.

use std::path::Path;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::Ending;
use super::admin_port::AdminPort;
use crate::rules::terminal;

#[derive(Subcommand)]
pub(super) enum PayoutCommand {
    /// List payouts, newest first.
    List {
        #[command(flatten)]
        filter: Filter,
        /// How many at most.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show one payout with its history.
    Show {
        /// Merchant number.
        mch_id: String,
        /// Order number (mchBillno).
        order_no: String,
    },
    /// Say what became of an unknown payout. It is audited, and cannot be taken back.
    Settle {
        /// Merchant number.
        mch_id: String,
        /// Order number (mchBillno).
        order_no: String,
        /// What became of it.
        #[arg(long = "as", value_enum)]
        outcome: Outcome,
        /// How that is known, e.g. "statement of 2026-11-23, line 7".
        #[arg(long)]
        reason: String,
    },
    /// Take a v3 transfer (transfer-bill) back that its user has not confirmed. It is audited.
    Cancel {
        /// Merchant number.
        mch_id: String,
        /// Order number (mchBillno).
        order_no: String,
    },
    /// Print all payouts, one JSON object a line, newest first.
    Export {
        #[command(flatten)]
        filter: Filter,
    },
}

#[derive(Args)]
pub(super) struct Filter {
    /// Only in this state.
    #[arg(long, value_parser = ["pending", "unknown", "succeeded", "refused"])]
    state: Option<String>,
    /// Only of this merchant.
    #[arg(long)]
    mch_id: Option<String>,
    /// Only created since: RFC 3339, or milliseconds since 1970.
    #[arg(long)]
    since: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Outcome {
    Succeeded,
    Refused,
}

/// How many payouts are asked for at a time.
const PAGE: usize = 500;

pub(super) async fn payout(path: &Path, command: PayoutCommand) -> Ending {
    let changes = matches!(
        &command,
        PayoutCommand::Settle { .. } | PayoutCommand::Cancel { .. }
    );
    let port = if changes {
        AdminPort::to_change(path)
    } else {
        AdminPort::of(path)
    };
    let port = match port {
        Ok(port) => port,
        Err(error) => return Ending::Misconfigured(error),
    };
    let done = match command {
        PayoutCommand::List { filter, limit } => each(&port, &filter, limit, print_line).await,
        PayoutCommand::Cancel { mch_id, order_no } => cancel(&port, &mch_id, &order_no).await,
        PayoutCommand::Export { filter } => each(&port, &filter, usize::MAX, print_json).await,
        PayoutCommand::Show { mch_id, order_no } => show(&port, &mch_id, &order_no).await,
        PayoutCommand::Settle {
            mch_id,
            order_no,
            outcome,
            reason,
        } => settle(&port, &mch_id, &order_no, outcome, &reason).await,
    };
    match done {
        Ok(()) => Ending::Done,
        Err(error) => Ending::Failed(error),
    }
}

/// Goes through the pages and prints each payout.
async fn each(port: &AdminPort, filter: &Filter, limit: usize, print: fn(&Value)) -> anyhow::Result<()> {
    let mut query = String::new();
    for (name, value) in [
        ("state", &filter.state),
        ("mchId", &filter.mch_id),
        ("since", &filter.since),
    ] {
        if let Some(value) = value {
            query.push_str(&format!("&{name}={}", value.replace('+', "%2B")));
        }
    }
    let mut left = limit;
    let mut cursor = String::new();
    while left > 0 {
        let size = std::cmp::min(left, PAGE);
        let page = ask(
            port,
            "GET",
            &format!("/api/payouts?limit={size}{query}{cursor}"),
            "",
        )
        .await?;
        let payouts = page
            .get("payouts")
            .and_then(Value::as_array)
            .context("the answer has no payouts")?;
        payouts.iter().for_each(print);
        left = left.saturating_sub(payouts.len());
        match page.get("next").and_then(Value::as_str) {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "printing is what this command is for")]
async fn show(port: &AdminPort, mch_id: &str, order_no: &str) -> anyhow::Result<()> {
    let payout = ask(port, "GET", &format!("/api/payouts/{mch_id}/{order_no}"), "").await?;
    println!("{}", terminal::json(&format!("{payout:#}")));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "printing is what this command is for")]
async fn settle(
    port: &AdminPort,
    mch_id: &str,
    order_no: &str,
    outcome: Outcome,
    reason: &str,
) -> anyhow::Result<()> {
    let word = match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Refused => "refused",
    };
    let body = json!({ "as": word, "reason": reason }).to_string();
    ask(
        port,
        "POST",
        &format!("/api/payouts/{mch_id}/{order_no}/settle"),
        &body,
    )
    .await?;
    println!("{mch_id}:{order_no} is {word} now");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "printing is what this command is for")]
async fn cancel(port: &AdminPort, mch_id: &str, order_no: &str) -> anyhow::Result<()> {
    let path = format!("/api/payouts/{mch_id}/{order_no}/cancel");
    let payout = ask(port, "POST", &path, "").await?;
    let status = payout.get("upstreamStatus").and_then(Value::as_str);
    println!(
        "{mch_id}:{order_no} is being cancelled; WeChat Pay says {} now",
        terminal::line(status.unwrap_or("nothing"))
    );
    Ok(())
}

async fn ask(port: &AdminPort, method: &str, path: &str, body: &str) -> anyhow::Result<Value> {
    let (status, body) = port.ask(method, path, body).await?;
    let value: Value =
        serde_json::from_str(&body).with_context(|| format!("HTTP {status}: {}", terminal::line(&body)))?;
    if status != 200 {
        bail!(
            "{}",
            terminal::line(value.get("error").and_then(Value::as_str).unwrap_or("it failed"))
        );
    }
    Ok(value)
}

#[expect(clippy::print_stdout, reason = "printing is what this command is for")]
fn print_line(payout: &Value) {
    let text = |name: &str| {
        let text = payout.get(name).and_then(Value::as_str);
        terminal::line(text.unwrap_or("-")).into_owned()
    };
    let amount = payout.get("amount").and_then(Value::as_i64).unwrap_or_default();
    println!(
        "{}  {:<9}  {:>10}  {}:{}  {}  {}",
        text("createdAt"),
        text("state"),
        amount,
        text("mchId"),
        text("mchBillno"),
        text("upstreamStatus"),
        text("errCode"),
    );
}

#[expect(clippy::print_stdout, reason = "printing is what this command is for")]
fn print_json(payout: &Value) {
    println!("{}", terminal::json(&payout.to_string()));
}
