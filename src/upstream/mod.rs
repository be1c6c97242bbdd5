//! Where payouts are sent: bytes out, evidence back.
//!
//! [`target`] is an address from the configuration, [`dial`] opens a connection to it, [`client`] exchanges one request
//! for one answer on pooled connections and knows exactly what can have been sent. [`wechat`] (v2), [`bills`] (v3) and
//! [`handler`] put the rules' bodies through it.
//!
//! This client is written here, and not taken from a library, because the line between "nothing was sent" and "perhaps
//! sent" is what the ledger stands on: the pooled clients at hand repeat a request on their own (reqwest cannot be told
//! not to), and blur which error means which.

pub mod target;

pub mod dial;

pub mod client;

pub mod wechat;

pub mod bills;

mod platform_keys;

pub mod handler;

use std::time::Duration;

use crate::rules::circuit::Patience;
use crate::rules::order::Destination;

/// An upstream that cannot be connected, or leaves this many requests in a row without an answer, is not tried for a while.
const PATIENCE: Patience = Patience {
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
