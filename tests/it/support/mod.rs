//! What the tests start and ask: sidecars with their upstreams, a collector, loads.

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

/// Opens an embedded ledger in this process. A program that another test starts has every open file for a moment, and its lock
/// with it, until it runs as itself: opening looks at the file twice, and may find it locked the second time.
pub async fn file_ledger(path: &Path, retention: Duration, clock: Arc<dyn Clock>) -> FileLedger {
    for _ in 0..500 {
        match FileLedger::open(path, retention, true, Arc::clone(&clock)) {
            Err(OpenError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
            opened => return opened.unwrap(),
        }
    }
    panic!("{} stayed locked", path.display());
}
