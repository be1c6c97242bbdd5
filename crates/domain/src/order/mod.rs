//! The state machine of one order (`docs/promise.md`): what the ledger records, which events change it, what a
//! repeat may do.
//!
//! ```text
//! (none) --claim--> pending --evidence--> succeeded      final
//!                      |   |---------------> refused     a repeat is sent again, unless the number is spent
//!                      |   `---------------> unknown --finding--> succeeded | refused
//!                      |--(never sent)--> what it was before the claim
//!                      `--(lease runs out)--> unknown
//! refused --(an earlier attempt ends without an answer)--> unknown
//! ```
//! Ages are counted in time that has really passed: in the ledger's own time ([`LedgerTime`]), or in a span that a
//! process has measured itself and passes in with the event. The wall clock serves people, WeChat's calendar days,
//! and WeChat's windows as a second clock ([`Moment::longest_since`]).
//!
//! [`Order`] is the record: the part that its first claim has [`Pinned`], and the part that changes.
//! [`step`](step::step) applies an event; [`repeat`] says what a repeated request may do,
//! [`schedule`] when the settler asks. Stores decide nothing:
//! they write the results, atomically.

pub mod parameters;

mod parts;

pub mod repeat;

pub mod schedule;

mod state;

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
pub use self::state::{
    Absence, Attention, Before, Change, Following, MAX_HISTORY, Pending, Refused, State, StateName,
    Succeeded, Unknown,
};
use super::contract::send::SendRequest;
use super::encoding::Encoding;
use super::fields::Fields;
use super::limits::Charge;
use super::wechat::Product;
use crate::ids::{
    Fen, HandlerId, LedgerTime, Millis, Moment, OpenId, OrderKey, TradeRecordId, UserId, WxAppId,
};

/// Where an order is sent. Its first claim pins this, whatever the configuration says later. The sidecar sends the
/// order, asks about it and settles it there and nowhere else: another upstream's "no such order" says nothing
/// about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Destination {
    /// WeChat Pay v2, by product; the merchant number is the order's.
    Wechat(Product),
    /// WeChat Pay v3, merchant transfer (商家转账, `transfer-bills`); the merchant number is the order's.
    TransferBill,
    /// This handler of the customer.
    Handler(HandlerId),
}

impl Destination {
    /// Whether this is WeChat Pay itself, which forgets orders: its queries reach back 30 days.
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

/// Identifies one version of an order's record: the number of the change, and a random nonce that tells it from
/// another claim with the same number.
///
/// The number alone is not enough: a replica whose claim was never written may take version 1 for its own, while
/// version 1 is another replica's claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Version {
    /// Counts the changes, from 1.
    pub number: u64,
    /// Random.
    pub nonce: u64,
}

impl Version {
    /// The version of the next change, without a nonce yet.
    fn next(self) -> Self {
        Self {
            number: self.number.saturating_add(1),
            nonce: 0,
        }
    }

    /// The written form: `number-nonce`, the nonce in 16 hexadecimal digits.
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

/// What an order's first claim fixes for good: every later version of the record, every attempt and every query
/// uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pinned {
    /// Identifies the claim: random, and the nonce of the first version. It tells this claim from any other claim
    /// of the same number, so that no part of one is ever read as part of the other.
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
    /// The encoding of the first request; a handler with `handler_format = "same"` gets its requests in it.
    pub encoding: Encoding,
    /// Every parameter exactly as each attempt sends it: WeChat compares a repeat parameter for parameter.
    pub parameters: Parameters,
    /// When the first claim was made.
    pub created_at: Moment,
}

/// One order's record. It derefs to [`Pinned`]. Serialised it is the part that changes, with the claim's id; a
/// store writes the pinned part once, separately.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// What the first claim fixed; shared by all versions.
    #[serde(rename = "claim", serialize_with = "claim_of")]
    pub(crate) pinned: Arc<Pinned>,
    /// Which version this is. A store replaces only the version that the decision was about.
    pub version: Version,
    /// What the order has charged against limits; a refusal gives back exactly this.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub charges: Vec<Charge>,
    /// Charges that were given back because the order counted as unpaid. The order owes them again if it turns out
    /// to be paid, or perhaps paid.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub returned: Vec<Charge>,
    /// When the latest attempt began.
    pub attempted_at: Moment,
    /// When the first attempt after the last certain refusal began. WeChat's windows count from here, because
    /// whatever may have been paid was sent then or later.
    pub doubt_since: Moment,
    /// When the state last changed; the retention of a settled record counts from here.
    pub changed_at: LedgerTime,
    /// How many attempts have begun.
    pub attempts: u32,
    /// The order's state.
    pub state: State,
    /// The upstream's latest word for the order's status (`SENT`, `RECEIVED`, …).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_status: Option<String>,
    /// One entry per change, oldest first; at most [`MAX_HISTORY`].
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

/// Writes a person's id in full: such ids are not serialisable by themselves, and a record needs them in full.
fn in_full<S: Serializer>(person: &impl AsRef<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(person.as_ref())
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
    /// What it charges against limits.
    pub charges: Vec<Charge>,
}

/// A lease on an order: the nonce of its claim, and its length.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The nonce of the claim's version.
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

    /// When a process must look at the order. A pending order: in the middle of its lease; the process that looks
    /// then begins to watch it. An unknown order, and an accepted one whose final state is still to come: at its
    /// next query.
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

    /// When the order was settled, by the wall clock of the process that settled it.
    #[must_use]
    pub fn settled_at(&self) -> Option<Millis> {
        match &self.state {
            State::Succeeded(succeeded) => Some(succeeded.at),
            State::Refused(refused) => Some(refused.at),
            State::Pending(_) | State::Unknown(_) => None,
        }
    }

    /// Whether WeChat certainly still knows the order if it ever did; a handler always does. After its window
    /// WeChat no longer knows any order, and "no such order" proves nothing.
    #[must_use]
    pub fn is_within_query_window(&self, now: Moment) -> bool {
        !self.upstream.is_wechat() || self.doubt_age(now) <= schedule::QUERY_WINDOW
    }

    /// The time since the latest attempt began, in the ledger's time.
    #[must_use]
    pub fn age_of_attempt(&self, now: Moment) -> Duration {
        now.ledger.since(self.attempted_at.ledger)
    }

    /// Whether a query to WeChat is still worthwhile: WeChat may know the latest attempt. This uses the ledger's
    /// time, which runs behind rather than ahead. A query too late may still get an answer; its "no such order" is
    /// not believed.
    #[must_use]
    pub fn may_be_asked_about(&self, now: Moment) -> bool {
        !self.upstream.is_wechat() || self.age_of_attempt(now) <= schedule::QUERY_WINDOW
    }

    /// Whether an unsettled order is near the end of the query window or past it, so that a person must act.
    #[must_use]
    pub fn nears_the_end_of_its_window(&self, now: Moment) -> bool {
        self.settled_at().is_none()
            && self.upstream.is_wechat()
            && self.doubt_age(now) > schedule::QUERY_ALERT
    }

    /// The longest time that can have passed since the doubt about the order began.
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
            // The first change says how the order began; the one after it tells least.
            next.history.remove(1);
        }
        next.state = state;
        next
    }
}
