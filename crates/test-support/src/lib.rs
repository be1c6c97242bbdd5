//! What unit tests, tests/it and tests/fuzz share: Redis servers, certificates, raw HTTP and HTTP/2, and a seeded
//! random generator.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::arithmetic_side_effects,
    clippy::unwrap_in_result,
    clippy::let_underscore_must_use,
    clippy::wildcard_enum_match_arm,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::missing_errors_doc,
    clippy::new_without_default,
    clippy::print_stderr,
    missing_docs,
    reason = "a test that meets what it did not expect fails, as it should"
)]

pub mod cgroup;

pub mod frames;

pub mod h2;

pub mod http;

pub mod redis;

pub mod rng;

pub mod tls;

use std::net::TcpListener;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A port that is free now, that this process gives to no other test, and that no outgoing connection takes:
/// Linux takes those from 32768 upwards.
pub fn free_port() -> u16 {
    const PORTS: Range<u16> = 12_000..32_000;
    static GIVEN: AtomicUsize = AtomicUsize::new(0);
    // Start elsewhere in each run: an earlier run may still hold its ports.
    let begin = std::process::id() as usize * 400;
    loop {
        let next = begin + GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + u16::try_from(next % PORTS.len()).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits for a condition, at most 150 s. The ledger hides an order that it gave to a settler for up to 60 s if
/// the settler never reports back, so a shorter limit would fail.
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
