//! `payout-sidecar drain`: begins a graceful shutdown over the admin port, and waits until the sidecar has exited.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use http::{Method, StatusCode};
use serde_json::json;

use super::admin_port::AdminPort;
use payout_domain::terminal;

/// How often to check whether the sidecar still runs.
const LOOK: Duration = Duration::from_millis(200);

pub(super) async fn drain(path: &Path) -> anyhow::Result<()> {
    let port = AdminPort::to_change(path)?;
    let request = port.request(Method::POST, "/api/drain").json(&json!({}));
    let (status, body) = port.ask(request).await?;
    ensure!(
        status == StatusCode::ACCEPTED,
        "drain: {} {}",
        status.as_u16(),
        terminal::line(&body)
    );
    // The admin port answers until the process exits, so no answer means that it has. The caller sets the time limit.
    while port.ask(port.request(Method::GET, "/livez")).await.is_ok() {
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
