//! What the tests start and talk to: sidecars with their upstreams, a collector, load, raw connections.

pub mod load;
pub mod otlp;
pub mod schema;
pub mod sidecar;
pub mod wire;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use payout_sidecar::clock::Clock;
use payout_sidecar::ledger::file::{FileLedger, OpenError};

/// Opens an embedded ledger in this process. Retries, because a process that another test starts inherits every open
/// file, and the ledger's lock with it, until it has called `exec`; `open` then may find the file locked.
pub async fn file_ledger(path: &Path, retention: Duration, clock: Arc<dyn Clock>) -> FileLedger {
    for _ in 0..500 {
        match FileLedger::open(path, retention, true, Arc::clone(&clock)) {
            Err(OpenError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
            opened => return opened.unwrap(),
        }
    }
    panic!("{} stayed locked", path.display());
}
