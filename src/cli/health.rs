//! `payout-sidecar healthcheck`: asks the admin port, for probes in an image without a shell.

use std::path::Path;

use anyhow::ensure;
use http::{Method, StatusCode};

use super::admin_port::AdminPort;
use payout_domain::terminal;

pub(super) async fn check(path: &Path, live: bool) -> anyhow::Result<()> {
    let port = AdminPort::of(path)?;
    let probe = if live { "/livez" } else { "/readyz" };
    let (status, body) = port.ask(port.request(Method::GET, probe)).await?;
    ensure!(
        status == StatusCode::OK,
        "{probe}: {} {}",
        status.as_u16(),
        terminal::line(&body)
    );
    Ok(())
}
