//! Reads an order from its record, which has two parts: what the first claim fixed ([`Pinned`]), and what changes.
//! [`Order`] documents how the second part is written.

use serde::Deserialize;

use super::{Change, Order, Pinned, State, Version};
use crate::ids::{LedgerTime, Moment};
use crate::limits::Charge;

/// The part of a record that changes, as it is read; [`Order`] writes it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Changing {
    claim: u64,
    version: Version,
    #[serde(default)]
    charges: Vec<Charge>,
    #[serde(default)]
    returned: Vec<Charge>,
    attempted_at: Moment,
    doubt_since: Moment,
    changed_at: LedgerTime,
    attempts: u32,
    state: State,
    upstream_status: Option<String>,
    history: Vec<Change>,
}

impl Order {
    /// The order from both parts of its record; `None` if they belong to two different claims.
    #[must_use]
    pub fn from_parts(pinned: Pinned, changing: Changing) -> Option<Self> {
        (pinned.claim == changing.claim).then(|| Self {
            pinned: pinned.into(),
            version: changing.version,
            charges: changing.charges,
            returned: changing.returned,
            attempted_at: changing.attempted_at,
            doubt_since: changing.doubt_since,
            changed_at: changing.changed_at,
            attempts: changing.attempts,
            state: changing.state,
            upstream_status: changing.upstream_status,
            history: changing.history,
        })
    }
}
