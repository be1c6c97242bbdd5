//! The state machine of one order: what is recorded, which events change it, what a repeat may do.
//! Document: specification, section 5.
//!
//! ```text
//! (none) --claim--> pending --evidence--> succeeded      final
//!                      |   |---------------> refused     a repeat is sent again, unless the number is spent
//!                      |   `---------------> unknown --finding--> succeeded | refused
//!                      |--(never sent)--> what it was before the claim
//!                      `--(lease runs out)--> unknown
//! refused --(an earlier attempt ends without an answer)--> unknown
//! ```
//! Ages are counted in time that has really passed: in the ledger's own time ([`LedgerTime`]), or in what a process has itself
//! seen pass and hands in with the event. The wall clock is kept for people, and for WeChat's calendar days.
//!
//! [`Order`] is the record: what its first claim has [`Pinned`], and what changes. [`step`](step::step) applies an event;
//! [`repeat`] says what a repeated request may do. Stores only write what comes out of here, atomically.

pub mod parameters;

mod parts;

pub mod repeat;

pub mod step;

#[cfg(any(test, feature = "fixtures"))]
pub mod fixtures;

#[cfg(test)]
mod bills;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod worlds;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize, Serializer};

use self::parameters::Parameters;
pub use self::parts::Changing;
use super::contract::send::SendRequest;
use super::encoding::Encoding;
use super::fields::Fields;
use super::limits::Charge;
use super::outcome::Refusal;
use super::wechat::Product;
use crate::ids::{
    Fen, HandlerId, LedgerTime, Millis, Moment, OpenId, OrderKey, TradeRecordId, UserId, WxAppId,
};

/// Where an order is sent; pinned by its first claim, whatever the configuration says later. It is sent, asked about and
/// settled there and nowhere else: another upstream's "no such order" says nothing about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Destination {
    /// WeChat Pay v2, by product; the merchant number is the order's.
    Wechat(Product),
    /// WeChat Pay v3, merchant transfer (商家转账, `transfer-bills`); the merchant number is the order's.
    TransferBill,
    /// This handler of the customer's.
    Handler(HandlerId),
}

impl Destination {
    /// Whether WeChat Pay itself is meant, which forgets: its queries reach back 30 days.
    #[must_use]
    pub fn is_wechat(&self) -> bool {
        match self {
            Self::Wechat(_) | Self::TransferBill => true,
            Self::Handler(_) => false,
        }
    }
}

/// As operators read it: the product, or the handler's id.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wechat(Product::Redpack) => f.write_str("WeChat Pay redpack"),
            Self::Wechat(Product::MiniProgramRedpack) => f.write_str("WeChat Pay mini-program-redpack"),
            Self::Wechat(Product::Transfer) => f.write_str("WeChat Pay transfer"),
            Self::TransferBill => f.write_str("WeChat Pay transfer-bill"),
            Self::Handler(id) => write!(f, "the handler {id}"),
        }
    }
}

/// Which change of an order a record is: the how-many-th, and a random nonce that tells it from any other claim to be that.
///
/// The number alone would not do: a replica whose claim was never written may believe that version 1 is its own, while
/// another replica's claim is version 1 now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Version {
    /// Counts the changes, from 1.
    pub number: u64,
    /// Random.
    pub nonce: u64,
}

impl Version {
    /// The next change's version, without a nonce yet.
    fn next(self) -> Self {
        Self {
            number: self.number.saturating_add(1),
            nonce: 0,
        }
    }

    /// As it is written: `number-nonce`, the nonce in 16 hexadecimal digits.
    #[must_use]
    pub fn text(self) -> String {
        let mut text = self.number.to_string();
        text.push('-');
        HEXLOWER.encode_append(&self.nonce.to_be_bytes(), &mut text);
        text
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl TryFrom<String> for Version {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let parts = text.split_once('-').and_then(|(number, nonce)| {
            Some(Self {
                number: number.parse().ok()?,
                nonce: u64::from_str_radix(nonce, 16).ok()?,
            })
        });
        parts.ok_or("a version is written as number-nonce")
    }
}

/// What an order's first claim fixes for good: every later version of the record, every attempt and every question has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pinned {
    /// Which claim this was: random, and the nonce of the first version. Tells it from any other claim of the same number, so
    /// that nothing of one is ever read as the other's.
    pub claim: u64,
    /// Merchant and order number.
    pub key: OrderKey,
    /// The app; compared with a repeat's.
    pub wx_app_id: WxAppId,
    /// The user id; compared with a repeat's.
    #[serde(serialize_with = "in_full")]
    pub user_id: UserId,
    /// The amount in fen; compared with a repeat's.
    pub amount: Fen,
    /// The openid that is paid.
    #[serde(serialize_with = "in_full")]
    pub openid: OpenId,
    /// The platform's record id of the first request.
    pub trade_record_id: TradeRecordId,
    /// Where the order is sent.
    pub upstream: Destination,
    /// The encoding of the first request, which a handler with `handler_format = "same"` is addressed in.
    pub encoding: Encoding,
    /// Every parameter as it is sent, in every attempt the same (specification, section 5: "parameter for parameter").
    pub parameters: Parameters,
    /// When the first claim was made.
    pub created_at: Moment,
}

/// One order as it is kept. It can be read like what it has [`Pinned`]. Serialised it is what changes, and names the claim:
/// what is pinned is written once, by itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// What the first claim fixed; shared by all versions.
    #[serde(rename = "claim", serialize_with = "claim_of")]
    pub(crate) pinned: Arc<Pinned>,
    /// Which change this is. A store replaces exactly the version that a decision was about.
    pub version: Version,
    /// What was charged against limits, to be given back exactly.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub charges: Vec<Charge>,
    /// What was charged and has been given back, since the order was taken for unpaid: owed again if it turns out to be paid.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub returned: Vec<Charge>,
    /// When the latest attempt began.
    pub attempted_at: Moment,
    /// When the first attempt after the last certain refusal began: WeChat's windows count from here, since whatever may have
    /// been paid was sent then or later.
    pub doubt_since: Moment,
    /// When the state changed last; the retention of a settled record counts from here.
    pub changed_at: LedgerTime,
    /// How many attempts have begun.
    pub attempts: u32,
    /// Where the order stands.
    pub state: State,
    /// WeChat's latest word on what became of an accepted order (`SENT`, `RECEIVED`, …).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_status: Option<String>,
    /// One entry per change, oldest first; bounded by [`MAX_HISTORY`].
    pub history: Vec<Change>,
}

impl Order {
    /// What the first claim fixed.
    #[must_use]
    pub fn pinned(&self) -> &Pinned {
        &self.pinned
    }
}

impl Deref for Order {
    type Target = Pinned;
    fn deref(&self) -> &Pinned {
        &self.pinned
    }
}

fn claim_of<S: Serializer>(pinned: &Arc<Pinned>, serializer: S) -> Result<S::Ok, S::Error> {
    pinned.claim.serialize(serializer)
}

/// What names a person is not serialised by itself; a record has it in full.
fn in_full<S: Serializer>(person: &impl AsRef<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(person.as_ref())
}

/// Where an order stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    /// For how long somebody must have seen this very version of the record before the attempt counts as lost, in
    /// milliseconds. No moment is written here, since no two clocks agree on one.
    pub lease_ms: u64,
    /// What the order was before this claim, to return to when nothing was sent.
    pub before: Before,
}

/// What an order was before it was claimed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// The upstream's "no such order", for as long as it says nothing else; begun anew with each attempt and after each
    /// silence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absence: Option<Absence>,
}

/// "No such order", heard again and again with nothing else in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Absence {
    /// When it was heard first. Tells one unbroken hearing from another.
    pub since: LedgerTime,
    /// When it was heard last.
    pub heard_at: LedgerTime,
}

/// The upstream accepted the order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Succeeded {
    /// When it was recorded.
    pub at: Millis,
    /// The answer's own fields in the contract's names (`sendListid`, `paymentNo`, …).
    pub fields: Fields<'static>,
    /// Where the order's final state is still to come: when the upstream is asked about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub following: Option<Following>,
}

/// An accepted order that is followed to its final state.
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
    /// What repeats are answered where the number is spent.
    pub refusal: Refusal,
}

/// Why an order cannot be settled without a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attention {
    /// No entry of the configuration leads to where it was sent.
    NoDestination,
    /// WeChat Pay will soon no longer tell what became of it.
    QueryWindow,
}

impl Attention {
    /// Every reason.
    pub const ALL: [Self; 2] = [Self::NoDestination, Self::QueryWindow];

    /// The reason as the metric `payout_attention_orders` has it.
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

/// A state without its data, as it is listed and filtered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    pub upstream: Destination,
    /// The encoding of the request.
    pub encoding: Encoding,
    /// The openid that the user id maps to now.
    pub openid: OpenId,
    /// Every parameter as it is sent.
    pub parameters: Fields<'static>,
    /// What it is charged.
    pub charges: Vec<Charge>,
}

/// A lease on an order: by which nonce, and for how long.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Seals the claim's version.
    pub nonce: u64,
    /// How long the attempt may take before it counts as lost.
    pub length: Duration,
}

impl Order {
    /// The record of a first claim.
    #[must_use]
    pub fn claimed(request: &SendRequest, new: NewOrder, lease: Lease, now: Moment) -> Self {
        let pinned = Pinned {
            claim: lease.nonce,
            key: request.key(),
            wx_app_id: request.wx_app_id.clone(),
            user_id: request.user_id.clone(),
            amount: request.amount,
            openid: new.openid,
            trade_record_id: request.trade_record_id,
            upstream: new.upstream,
            encoding: new.encoding,
            parameters: new.parameters.into(),
            created_at: now,
        };
        Self {
            pinned: Arc::new(pinned),
            version: Version {
                number: 1,
                nonce: lease.nonce,
            },
            charges: new.charges,
            returned: Vec::new(),
            attempted_at: now,
            doubt_since: now,
            changed_at: now.ledger,
            attempts: 1,
            state: State::Pending(Pending::begin(lease.length, Before::Fresh)),
            upstream_status: None,
            history: vec![Change {
                at: now.wall,
                state: StateName::Pending,
                why: "claimed".to_owned(),
            }],
        }
    }

    /// When somebody must look at the order: a pending one in the middle of its lease (whoever looks then begins to watch it),
    /// an unknown one and an accepted one whose final state is still to come at their next query.
    #[must_use]
    pub fn due_at(&self) -> Option<LedgerTime> {
        match &self.state {
            State::Pending(pending) => {
                let half = pending.lease().checked_div(2).unwrap_or_default();
                Some(self.attempted_at.ledger.after(half))
            }
            State::Unknown(unknown) => Some(unknown.next_query_at),
            State::Succeeded(succeeded) => succeeded.following.as_ref().map(|f| f.next_query_at),
            State::Refused(_) => None,
        }
    }

    /// When the order was settled, by the wall clock of whoever settled it.
    #[must_use]
    pub fn settled_at(&self) -> Option<Millis> {
        match &self.state {
            State::Succeeded(succeeded) => Some(succeeded.at),
            State::Refused(refused) => Some(refused.at),
            State::Pending(_) | State::Unknown(_) => None,
        }
    }

    /// Whether WeChat certainly still knows the order if it ever did; a handler always does. Outside of its window it knows no
    /// order any more, and "no such order" proves nothing.
    #[must_use]
    pub fn is_within_query_window(&self, now: Moment) -> bool {
        !self.upstream.is_wechat() || self.doubt_age(now) <= crate::schedule::QUERY_WINDOW
    }

    /// How long ago the latest attempt began, by the ledger's time.
    #[must_use]
    pub fn age_of_attempt(&self, now: Moment) -> Duration {
        now.ledger.since(self.attempted_at.ledger)
    }

    /// Whether it is still worth asking WeChat: it may know the latest attempt, by the ledger's time, which runs behind rather
    /// than ahead. What is asked too long may still be answered; "no such order" is not believed then.
    #[must_use]
    pub fn may_be_asked_about(&self, now: Moment) -> bool {
        !self.upstream.is_wechat() || self.age_of_attempt(now) <= crate::schedule::QUERY_WINDOW
    }

    /// Whether an unsettled order nears the end of that window, or is past it, so that a person must act.
    #[must_use]
    pub fn nears_the_end_of_its_window(&self, now: Moment) -> bool {
        self.settled_at().is_none()
            && self.upstream.is_wechat()
            && self.doubt_age(now) > crate::schedule::QUERY_ALERT
    }

    /// How long ago the doubt about the order began, at most.
    #[must_use]
    pub fn doubt_age(&self, now: Moment) -> Duration {
        now.longest_since(self.doubt_since)
    }

    /// The next version of the record in another state; [`step`](step::step) and [`repeat`] set its nonce.
    fn become_state(&self, state: State, why: impl Into<String>, now: Moment) -> Self {
        let mut next = self.clone();
        next.version = self.version.next();
        next.changed_at = now.ledger;
        next.history.push(Change {
            at: now.wall,
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

impl Pending {
    /// A claim that is held for `lease`.
    fn begin(lease: Duration, before: Before) -> Self {
        Self {
            lease_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
            before,
        }
    }

    /// How long the claim is held.
    #[must_use]
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }
}
