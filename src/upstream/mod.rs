//! Where payouts are sent: bytes out, evidence back.
//!
//! [`dial`] opens a connection, [`http_client`] exchanges one request for one answer on pooled ones and knows exactly what can
//! have been sent. [`wechat_v2`] (v2), [`wechat_v3`] (v3) and [`handler`] put the rules' bodies through it.

pub mod dial;

pub mod http_client;

pub mod wechat_v2;

pub mod wechat_v3;

mod platform_keys;

pub mod handler;

use std::time::Duration;

use payout_domain::breaker::BreakerSettings;
use payout_domain::order::Destination;

#[cfg(test)]
mod tests;

/// An upstream that cannot be connected, or leaves this many requests in a row without an answer, is not tried for a while.
const BREAKER: BreakerSettings = BreakerSettings {
    failures: 5,
    first_pause: Duration::from_secs(1),
    longest_pause: Duration::from_secs(30),
};

/// Why an order that was first sent elsewhere is not sent or asked about here: only the upstream that got the first
/// attempt can tell what came of it.
fn moved(first: &Destination, now: &str) -> String {
    format!(
        "this order was sent to {first}, and the configuration now says {now}: restore the merchant's entry"
    )
}
