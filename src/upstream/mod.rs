//! Where payouts go: sends requests, and returns evidence.
//!
//! [`dial`] opens a connection. [`http_client`] exchanges one request for one answer on pooled connections, and knows
//! exactly what can have been sent. [`wechat_v2`] (v2), [`wechat_v3`] (v3) and [`handler`] send through it the bodies
//! that the domain's rules compose.

pub(crate) mod dial;

mod exchange;

mod gate;

mod pool;

pub(crate) mod http_client;

pub mod wechat_v2;

pub mod wechat_v3;

mod platform_keys;

mod v3_caller;

pub(crate) mod handler;

use std::time::Duration;

use payout_domain::breaker::BreakerSettings;
use payout_domain::order::Destination;

#[cfg(test)]
mod tests;

/// The circuit breaker opens at once if an upstream cannot be connected, and after this many requests in a row
/// without an answer. It stays open for a pause that doubles up to the longest.
const BREAKER: BreakerSettings = BreakerSettings {
    failures: 5,
    first_pause: Duration::from_secs(1),
    longest_pause: Duration::from_secs(30),
};

/// Why this entry neither sends nor asks about an order that was first sent elsewhere: only the upstream that got the
/// first attempt can tell what became of it.
fn moved(first: &Destination, now: &str) -> String {
    format!(
        "this order was sent to {first}, and the configuration now says {now}: restore the merchant's entry"
    )
}
