//! What the tests start and ask: Redis, sidecars, and raw HTTP.

pub mod cgroup;
pub mod frames;
pub mod h2;
pub mod http;
pub mod load;
pub mod otlp;
pub mod redis;
pub mod sidecar;
pub mod tls;
pub mod wire;

use std::net::TcpListener;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use payout_sidecar::clock::Clock;
use payout_sidecar::ledger::file::{FileLedger, OpenError};

/// A port that nobody has now, that no other test of this process is given, and that no outgoing connection takes meanwhile:
/// those begin at 32768 on Linux.
pub fn free_port() -> u16 {
    const PORTS: Range<u16> = 12_000..32_000;
    static GIVEN: AtomicUsize = AtomicUsize::new(0);
    // Not always the same ones: those of a run before this may still be held.
    let begin = std::process::id() as usize * 400;
    loop {
        let next = begin + GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + u16::try_from(next % PORTS.len()).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits until something is so, for at most 150 s: an order whose hand-out was not heard of stays hidden for 60 s.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(
            begun.elapsed() < Duration::from_secs(150),
            "{what}: not within 150 s"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

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
