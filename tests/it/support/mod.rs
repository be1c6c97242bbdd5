//! What the tests start and ask: Redis, sidecars, and raw HTTP.

pub mod http;
pub mod redis;
pub mod sidecar;

use std::net::TcpListener;
use std::time::{Duration, Instant};

/// A port that nobody has now.
pub fn free_port() -> u16 {
    // Below 50000, so that a Redis Cluster's bus port could be 10000 higher, and above what services use.
    loop {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        if (20_000..50_000).contains(&port) {
            return port;
        }
    }
}

/// Waits until something is so, for at most 60 s.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{what}: not within 60 s"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
