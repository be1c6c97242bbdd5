//! The states of an order, and what a record keeps of each; and the history of its changes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fields::Fields;
use crate::ids::{LedgerTime, Millis};
use crate::outcome::Refusal;

/// The state of an order, with its data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// A process holds a lease and is paying the order.
    Pending(Pending),
    /// Perhaps paid.
    Unknown(Unknown),
    /// The upstream accepted the order.
    Succeeded(Succeeded),
    /// Certainly not paid.
    Refused(Refused),
}

/// Being paid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    /// How long a process must see this very version of the record before the attempt counts as lost, in
    /// milliseconds. This is a span because no two clocks agree on a moment.
    pub lease_ms: u64,
    /// What the order was before this claim; it returns to that if nothing was sent.
    pub before: Before,
}

/// What an order was before a claim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Before {
    /// There was no order.
    Fresh,
    /// Certainly not paid.
    Refused(Refused),
    /// Perhaps paid: a doubt that the next response alone does not remove.
    Unknown(Unknown),
}

/// Perhaps paid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unknown {
    /// Since when.
    pub since: Millis,
    /// Why, for the operator.
    pub why: String,
    /// When the upstream is asked next.
    pub next_query_at: LedgerTime,
    /// How often it was asked.
    pub queries: u32,
    /// The upstream's "no such order", while the upstream says nothing else. An attempt that may have been sent,
    /// another answer or too long a silence starts it anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absence: Option<Absence>,
}

/// "No such order", said again and again with nothing else in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Absence {
    /// When the upstream said it first. Identifies one unbroken series.
    pub since: LedgerTime,
    /// When the upstream said it last.
    pub heard_at: LedgerTime,
}

/// The upstream accepted the order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Succeeded {
    /// When it was recorded.
    pub at: Millis,
    /// The response's own fields in the contract's names (`sendListid`, `paymentNo`, …).
    pub fields: Fields<'static>,
    /// When the upstream is asked again, while the order's final state is still to come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub following: Option<Following>,
}

/// The queries about an accepted order until its final state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Following {
    /// When the upstream is asked next.
    pub next_query_at: LedgerTime,
    /// How often it was asked.
    pub queries: u32,
}

/// Certainly not paid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// When it was recorded.
    pub at: Millis,
    /// The refusal; a repeat gets it if the number is spent.
    pub refusal: Refusal,
}

/// Why an order cannot be settled without a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attention {
    /// No entry of the configuration leads to the order's destination.
    NoDestination,
    /// WeChat Pay's query window for the order closes soon, or has closed.
    QueryWindow,
}

impl Attention {
    /// Every reason.
    pub const ALL: [Self; 2] = [Self::NoDestination, Self::QueryWindow];

    /// The reason as a label of the metric `payout_attention_orders`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoDestination => "no_destination",
            Self::QueryWindow => "query_window",
        }
    }
}

/// One change of an order, for its history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// When.
    pub at: Millis,
    /// The state after it.
    pub state: StateName,
    /// Why, for a person.
    pub why: String,
}

/// A state without its data, for lists and filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the states are documented at `State`")]
pub enum StateName {
    Pending,
    Unknown,
    Succeeded,
    Refused,
}

/// The most changes that a history keeps. A longer one loses entries from the middle; its beginning and its end
/// stay.
pub const MAX_HISTORY: usize = 64;

impl StateName {
    /// The name as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Unknown => "unknown",
            Self::Succeeded => "succeeded",
            Self::Refused => "refused",
        }
    }
}

impl State {
    /// The state without its data.
    #[must_use]
    pub fn name(&self) -> StateName {
        match self {
            Self::Pending(_) => StateName::Pending,
            Self::Unknown(_) => StateName::Unknown,
            Self::Succeeded(_) => StateName::Succeeded,
            Self::Refused(_) => StateName::Refused,
        }
    }
}

impl Pending {
    /// A claim that holds the order for `lease`.
    pub(super) fn begin(lease: Duration, before: Before) -> Self {
        Self {
            lease_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
            before,
        }
    }

    /// How long the claim holds the order.
    #[must_use]
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }
}
