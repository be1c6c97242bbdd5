//! `payout-sidecar drain`: begins the orderly end over the admin port, and waits until the sidecar is gone.

use std::path::Path;
use std::time::Duration;

use super::Ending;
use super::admin_port::AdminPort;
use crate::rules::terminal;

/// How often it is looked whether the sidecar is still there.
const LOOK: Duration = Duration::from_millis(200);

pub(super) async fn drain(path: &Path) -> Ending {
    let port = match AdminPort::to_change(path) {
        Ok(port) => port,
        Err(error) => return Ending::Misconfigured(error),
    };
    match port.ask("POST", "/api/drain", "").await {
        Ok((202, _)) => {}
        Ok((status, body)) => {
            return Ending::Failed(anyhow::anyhow!("drain: {status} {}", terminal::line(&body)));
        }
        Err(error) => return Ending::Failed(error),
    }
    // The admin port answers to the very end, so that its silence is the end. Whoever runs this sets the time limit.
    while port.ask("GET", "/livez", "").await.is_ok() {
        tokio::time::sleep(LOOK).await;
    }
    Ending::Done
}
