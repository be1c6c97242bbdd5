//! `payout-sidecar payout list|show|settle|cancel|export`: the operator's requests to a running sidecar's admin port.

use std::path::Path;

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand, ValueEnum};
use http::{Method, StatusCode};
use reqwest::RequestBuilder;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::admin_port::AdminPort;
use payout_domain::ids::{MchId, OrderNo};
use payout_domain::terminal;

#[derive(Subcommand)]
pub(super) enum PayoutCommand {
    /// List payouts, newest first.
    List {
        #[command(flatten)]
        filter: Filter,
        /// The largest number of payouts to list.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show one payout with its history.
    Show {
        /// Merchant number.
        #[arg(value_parser = MchId::parse)]
        mch_id: MchId,
        /// Order number (mchBillno).
        #[arg(value_parser = OrderNo::parse)]
        order_no: OrderNo,
    },
    /// Record the outcome of an unknown payout. This is final, and the sidecar audits it.
    Settle {
        /// Merchant number.
        #[arg(value_parser = MchId::parse)]
        mch_id: MchId,
        /// Order number (mchBillno).
        #[arg(value_parser = OrderNo::parse)]
        order_no: OrderNo,
        /// The outcome.
        #[arg(long = "as", value_enum)]
        outcome: Outcome,
        /// How you know the outcome, e.g. "statement of 2026-11-23, line 7".
        #[arg(long)]
        reason: String,
    },
    /// Take back a v3 transfer (transfer-bill) that the user has not confirmed. The sidecar audits this.
    Cancel {
        /// Merchant number.
        #[arg(value_parser = MchId::parse)]
        mch_id: MchId,
        /// Order number (mchBillno).
        #[arg(value_parser = OrderNo::parse)]
        order_no: OrderNo,
    },
    /// Print all payouts, one JSON object per line, newest first.
    Export {
        #[command(flatten)]
        filter: Filter,
    },
}

#[derive(Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Filter {
    /// Only payouts in this state.
    #[arg(long, value_parser = ["pending", "unknown", "succeeded", "refused"])]
    state: Option<String>,
    /// Only payouts of this merchant.
    #[arg(long)]
    mch_id: Option<String>,
    /// Only payouts created since this time: RFC 3339, or milliseconds since 1970.
    #[arg(long)]
    since: Option<String>,
}

#[derive(Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    Succeeded,
    Refused,
}

/// How many payouts to request per page.
const PAGE: usize = 500;

pub(super) async fn payout(path: &Path, command: PayoutCommand) -> anyhow::Result<()> {
    match command {
        PayoutCommand::List { filter, limit } => each(path, &filter, limit, print_line).await,
        PayoutCommand::Export { filter } => each(path, &filter, usize::MAX, print_json).await,
        PayoutCommand::Show { mch_id, order_no } => show(path, &mch_id, &order_no).await,
        PayoutCommand::Settle {
            mch_id,
            order_no,
            outcome,
            reason,
        } => settle(path, &mch_id, &order_no, outcome, &reason).await,
        PayoutCommand::Cancel { mch_id, order_no } => cancel(path, &mch_id, &order_no).await,
    }
}

#[derive(Deserialize)]
struct Page {
    payouts: Vec<Value>,
    next: Option<String>,
}

/// Requests page after page and prints each payout.
async fn each(path: &Path, filter: &Filter, limit: usize, print: fn(&Value)) -> anyhow::Result<()> {
    let port = AdminPort::of(path)?;
    let mut left = limit;
    let mut cursor = None;
    while left > 0 {
        let size = std::cmp::min(left, PAGE).to_string();
        let request = port.request(Method::GET, "/api/payouts").query(filter);
        let request = request.query(&[("limit", Some(size)), ("cursor", cursor)]);
        let page: Page = serde_json::from_value(ask(&port, request).await?)?;
        page.payouts.iter().for_each(print);
        left = left.saturating_sub(page.payouts.len());
        if page.next.is_none() {
            break;
        }
        cursor = page.next;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "printing is what this command is for")]
async fn show(path: &Path, mch_id: &MchId, order_no: &OrderNo) -> anyhow::Result<()> {
    let port = AdminPort::of(path)?;
    let request = port.request(Method::GET, &format!("/api/payouts/{mch_id}/{order_no}"));
    let payout = ask(&port, request).await?;
    println!("{}", terminal::json(&format!("{payout:#}")));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "printing is what this command is for")]
async fn settle(
    path: &Path,
    mch_id: &MchId,
    order_no: &OrderNo,
    outcome: Outcome,
    reason: &str,
) -> anyhow::Result<()> {
    let port = AdminPort::to_change(path)?;
    let place = format!("/api/payouts/{mch_id}/{order_no}/settle");
    let word = json!({ "as": outcome, "reason": reason });
    let payout = ask(&port, port.request(Method::POST, &place).json(&word)).await?;
    let state = payout.get("state").and_then(Value::as_str).unwrap_or("settled");
    println!("{mch_id}:{order_no} is {} now", terminal::line(state));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "printing is what this command is for")]
async fn cancel(path: &Path, mch_id: &MchId, order_no: &OrderNo) -> anyhow::Result<()> {
    let port = AdminPort::to_change(path)?;
    let place = format!("/api/payouts/{mch_id}/{order_no}/cancel");
    let payout = ask(&port, port.request(Method::POST, &place).json(&json!({}))).await?;
    let status = payout.get("upstreamStatus").and_then(Value::as_str);
    println!(
        "{mch_id}:{order_no} is being cancelled; WeChat Pay says {} now",
        terminal::line(status.unwrap_or("nothing"))
    );
    Ok(())
}

async fn ask(port: &AdminPort, request: RequestBuilder) -> anyhow::Result<Value> {
    let (status, body) = port.ask(request).await?;
    let value: Value = serde_json::from_str(&body)
        .with_context(|| format!("HTTP {}: {}", status.as_u16(), terminal::line(&body)))?;
    ensure!(
        status == StatusCode::OK,
        "{}",
        terminal::line(value.get("error").and_then(Value::as_str).unwrap_or("it failed"))
    );
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
