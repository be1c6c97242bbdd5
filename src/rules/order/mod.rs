//! The state machine of one order: what is recorded, which events change it, what a repeat may do.
//! Document: specification, section 5.
//!
//! ```text
//! (none) --claim--> pending --evidence--> succeeded      final
//!                      |   |---------------> refused     a repeat is sent again, unless the number is burnt
//!                      |   `---------------> unknown --finding--> succeeded | refused
//!                      |--(never sent)--> what it was before the claim
//!                      `--(lease runs out)--> unknown
//! ```
//! [`Order`] is the record; [`step`](step::step) applies an event; [`repeat`] says what a repeated request may do. Stores
//! only write what comes out of here, atomically.

pub mod repeat;

pub mod step;

#[cfg(test)]
mod bills;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::contract::send::SendRequest;
use super::encoding::Encoding;
use super::fields::Fields;
use super::limits::Charge;
use super::outcome::Refusal;
use super::term::{Fen, Millis, OpenId, OrderKey, TradeRecordId, UserId, WxAppId};
use super::text::push_hex;
use super::wechat::Product;

/// Where an order is sent; pinned by its first claim, whatever the configuration says later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpstreamKind {
    /// WeChat Pay v2, by product.
    Wechat(Product),
    /// WeChat Pay v3, merchant transfer (商家转账, `transfer-bills`).
    TransferBill,
    /// The customer's handler.
    Handler,
}

/// Which change of an order a record is: the how-many-th, and a random seal that tells it from any other claim to be that.
///
/// The number alone would not do: a replica whose claim was never written may believe that version 1 is its own, while
/// another replica's claim is version 1 now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Version {
    /// Counts the changes, from 1.
    pub number: u64,
    /// Random.
    pub seal: u64,
}

impl Version {
    /// The next change's version, not sealed yet.
    fn next(self) -> Self {
        Self {
            number: self.number.saturating_add(1),
            seal: 0,
        }
    }

    /// As it is written: `number-seal`, the seal in 16 hexadecimal digits.
    #[must_use]
    pub fn text(self) -> String {
        let mut text = String::with_capacity(40);
        text.push_str(itoa::Buffer::new().format(self.number));
        text.push('-');
        push_hex(&mut text, self.seal.to_be_bytes());
        text
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text())
    }
}

impl TryFrom<String> for Version {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let parts = text.split_once('-').and_then(|(number, seal)| {
            Some(Self {
                number: number.parse().ok()?,
                seal: u64::from_str_radix(seal, 16).ok()?,
            })
        });
        parts.ok_or("a version is written as number-seal")
    }
}

/// One order as it is kept.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Order {
    /// Merchant and order number.
    pub key: OrderKey,
    /// Which change this is. A store replaces exactly the version that a decision was about.
    pub version: Version,
    /// The app; compared with a repeat's.
    pub wx_app_id: WxAppId,
    /// The user id; compared with a repeat's.
    pub user_id: UserId,
    /// The amount in fen; compared with a repeat's.
    pub amount: Fen,
    /// The openid, pinned by the first claim.
    pub openid: OpenId,
    /// The platform's record id of the first request.
    pub trade_record_id: TradeRecordId,
    /// Where the order is sent.
    pub upstream: UpstreamKind,
    /// The encoding of the first request, which a handler with `handler_format = "same"` is addressed in.
    pub encoding: Encoding,
    /// Every parameter as it is sent, in every attempt the same (specification, section 5: "parameter for parameter").
    pub parameters: Arc<Fields<'static>>,
    /// What was charged against limits, to be given back exactly.
    #[serde(default)]
    pub charges: Vec<Charge>,
    /// When the first claim was made.
    pub created_at: Millis,
    /// When the latest attempt began.
    pub attempted_at: Millis,
    /// How many attempts have begun.
    pub attempts: u32,
    /// Where the order stands.
    pub state: State,
    /// WeChat's latest word on what became of an accepted order (`SENT`, `RECEIVED`, …).
    #[serde(default)]
    pub upstream_status: Option<String>,
    /// One entry per change, oldest first; bounded by [`MAX_HISTORY`].
    pub history: Vec<Change>,
}

/// Where an order stands.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Being paid by somebody who holds a lease.
    Pending(Pending),
    /// Perhaps paid.
    Unknown(Unknown),
    /// The upstream accepted the order.
    Succeeded(Succeeded),
    /// Certainly not paid.
    Refused(Refused),
}

/// Being paid.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    /// When the attempt counts as lost.
    pub lease_until: Millis,
    /// What the order was before this claim, to return to when nothing was sent.
    pub before: Before,
}

/// What an order was before it was claimed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Before {
    /// There was no order.
    Fresh,
    /// Certainly not paid.
    Refused(Refused),
    /// Perhaps paid: a doubt that the next answer alone does not lift.
    Unknown(Unknown),
}

/// Perhaps paid.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unknown {
    /// Since when.
    pub since: Millis,
    /// Why, for the operator.
    pub why: String,
    /// When the upstream is asked next.
    pub next_query_at: Millis,
    /// How often it was asked.
    pub queries: u32,
    /// Since when it has said nothing but "no such order", counted anew with each attempt.
    #[serde(default)]
    pub absent_since: Option<Millis>,
}

/// The upstream accepted the order.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Succeeded {
    /// When it was recorded.
    pub at: Millis,
    /// The answer's own fields in the contract's names (`sendListid`, `paymentNo`, …).
    pub fields: Fields<'static>,
    /// Where the order's final state is still to come: when the upstream is asked about it.
    #[serde(default)]
    pub following: Option<Following>,
}

/// An accepted order that is followed to its final state.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Following {
    /// When the upstream is asked next.
    pub next_query_at: Millis,
    /// How often it was asked.
    pub queries: u32,
}

/// Certainly not paid.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// When it was recorded.
    pub at: Millis,
    /// What repeats are answered where the number is burnt.
    pub refusal: Refusal,
}

/// One change of an order, for its history.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// When.
    pub at: Millis,
    /// The state after it.
    pub state: StateName,
    /// Why, for a person.
    pub why: String,
}

/// A state without its data, as it is listed and filtered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the states are documented at `State`")]
pub enum StateName {
    Pending,
    Unknown,
    Succeeded,
    Refused,
}

/// The most changes a history keeps; of a longer one the middle is left out, the beginning and the end stay.
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

/// Everything that a first claim records.
#[derive(Clone, Debug)]
pub struct NewOrder {
    /// Where it is sent.
    pub upstream: UpstreamKind,
    /// The encoding of the request.
    pub encoding: Encoding,
    /// The openid that the user id maps to now.
    pub openid: OpenId,
    /// Every parameter as it is sent.
    pub parameters: Fields<'static>,
    /// What it is charged.
    pub charges: Vec<Charge>,
}

/// A lease on an order: by which seal, and for how long.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Seals the claim's version.
    pub seal: u64,
    /// How long the attempt may take before it counts as lost.
    pub length: Duration,
}

impl Order {
    /// The record of a first claim.
    #[must_use]
    pub fn claimed(request: &SendRequest, new: NewOrder, lease: Lease, now: Millis) -> Self {
        Self {
            key: request.key(),
            version: Version {
                number: 1,
                seal: lease.seal,
            },
            wx_app_id: request.wx_app_id.clone(),
            user_id: request.user_id.clone(),
            amount: request.amount,
            openid: new.openid,
            trade_record_id: request.trade_record_id,
            upstream: new.upstream,
            encoding: new.encoding,
            parameters: Arc::new(new.parameters),
            charges: new.charges,
            created_at: now,
            attempted_at: now,
            attempts: 1,
            state: State::Pending(Pending {
                lease_until: now.after(lease.length),
                before: Before::Fresh,
            }),
            upstream_status: None,
            history: vec![Change {
                at: now,
                state: StateName::Pending,
                why: "claimed".to_owned(),
            }],
        }
    }

    /// When somebody must look at the order: a pending one when its lease ends, an unknown one and an accepted one whose
    /// final state is still to come at their next query.
    #[must_use]
    pub fn due_at(&self) -> Option<Millis> {
        match &self.state {
            State::Pending(pending) => Some(pending.lease_until),
            State::Unknown(unknown) => Some(unknown.next_query_at),
            State::Succeeded(succeeded) => succeeded.following.as_ref().map(|f| f.next_query_at),
            State::Refused(_) => None,
        }
    }

    /// When the order was settled.
    #[must_use]
    pub fn settled_at(&self) -> Option<Millis> {
        match &self.state {
            State::Succeeded(succeeded) => Some(succeeded.at),
            State::Refused(refused) => Some(refused.at),
            State::Pending(_) | State::Unknown(_) => None,
        }
    }

    /// The next version of the record in another state; whoever returns it seals it.
    fn become_state(&self, state: State, why: impl Into<String>, now: Millis) -> Self {
        let mut next = self.clone();
        next.version = self.version.next();
        next.history.push(Change {
            at: now,
            state: state.name(),
            why: why.into(),
        });
        if next.history.len() > MAX_HISTORY {
            // The first change says how it began; what follows it is the least telling.
            next.history.remove(1);
        }
        next.state = state;
        next
    }
}
