//! `payout-sidecar healthcheck`: asks the admin port, for probes in an image without a shell.

use std::path::Path;

use super::Ending;
use super::admin_port::AdminPort;
use crate::rules::terminal;

pub(super) async fn check(path: &Path, live: bool) -> Ending {
    let port = match AdminPort::of(path) {
        Ok(port) => port,
        Err(error) => return Ending::Misconfigured(error),
    };
    let probe = if live { "/livez" } else { "/readyz" };
    match port.ask("GET", probe, "").await {
        Ok((200, _)) => Ending::Done,
        Ok((status, body)) => Ending::Failed(anyhow::anyhow!("{probe}: {status} {}", terminal::line(&body))),
        Err(error) => Ending::Failed(error),
    }
}
