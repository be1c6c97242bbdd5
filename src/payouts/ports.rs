//! What the flow needs from outside: traits for the identity store, the ledger and the upstreams. Each trait says
//! what an implementation must guarantee. The implementations are in `openids`, `ledger` and `upstream`.

use async_trait::async_trait;

use payout_domain::contract::send::RequestCredentials;
use payout_domain::ids::{LedgerTime, Malformed, MchId, Millis, OpenId, OrderKey, UserId, WxAppId};
use payout_domain::order::{Order, StateName};
use payout_domain::outcome::{Evidence, Finding};
use payout_domain::wechat::v3::answer::{Notification, Withdrawal};
use payout_domain::wechat::v3::sign::Signed;

use super::claim::Claim;

/// Why a user id could not be looked up. This says nothing about the user: "no openid" is `Ok(None)`, not an error.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The store is out of reach or answered with an error. `0` says which store and what happened, for the operator.
    #[error("the identity store cannot be asked: {0}")]
    Unreachable(String),
    /// The store holds a value that is not an openid (e.g. 100 characters, or one with a blank).
    #[error("the identity store holds no openid under {key}: {rule}")]
    NotAnOpenId {
        /// The key or row, with the user id shortened.
        key: String,
        /// The rule that the value breaks.
        rule: Malformed,
    },
}

/// Maps a user id to the openid under one app (`docs/openids.md`).
#[async_trait]
pub trait Identity: Send + Sync + 'static {
    /// Looks the user up. `None`: the store answered and knows no openid.
    ///
    /// # Errors
    /// When the store cannot be asked or holds a value that is not an openid, then [`LookupError`].
    ///
    /// # Cancel safety
    /// Reads only; may be dropped at any time.
    async fn openid(&self, app: &WxAppId, user: &UserId) -> Result<Option<OpenId>, LookupError>;

    /// Whether the store answers now. `/readyz` asks this.
    ///
    /// # Errors
    /// When it does not, then [`LookupError::Unreachable`].
    async fn ready(&self) -> Result<(), LookupError>;
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("the ledger {}: {text}", if *unsure { "did not answer" } else { "refused" })]
pub struct StoreError {
    /// Whether the write may have taken effect anyway. Writing the same again settles that: see [`Ledger`].
    pub unsure: bool,
    /// Which store, what happened and what to do, for the operator.
    pub text: String,
}

impl StoreError {
    /// The error of a write that was tried twice, the first time without an answer: the second failure does not make
    /// the first try less unsure.
    #[must_use]
    pub fn after_unsure(self) -> Self {
        Self { unsure: true, ..self }
    }
}

/// The result of [`Ledger::insert`].
#[derive(Debug)]
pub enum Inserted {
    /// The order was new. The store has recorded it durably.
    Done,
    /// The order is already on record; the store wrote and charged nothing.
    Exists(Box<Order>),
    /// The charge with this index would pass its limit; the store wrote and charged nothing.
    OverLimit(usize),
}

/// The result of [`Ledger::replace`] or [`Ledger::remove`].
#[derive(Debug)]
pub enum Replaced {
    /// The store has made the change durably.
    Done,
    /// The stored record is not the version that the change was about, or is gone (`None`); the store wrote nothing.
    Moved(Option<Box<Order>>),
    /// The charge with this index would pass its limit; the store wrote and charged nothing.
    OverLimit(usize),
}

/// Which orders to list.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// Only orders in this state.
    pub state: Option<StateName>,
    /// Only orders of this merchant.
    pub mch_id: Option<MchId>,
    /// Only orders created at or after this moment.
    pub since: Option<Millis>,
    /// At most this many.
    pub limit: usize,
    /// Where the page begins: `next` of the page before. `None` for the first page.
    pub cursor: Option<String>,
}

/// A page of orders, newest first.
#[derive(Debug)]
pub struct Page {
    /// The orders.
    pub orders: Vec<Order>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<String>,
}

/// How many orders of a merchant [`Ledger::due`] may hand out in a second, over all users of the store; `None`: no
/// limit.
pub type QueryRate<'a> = &'a (dyn Fn(&MchId) -> Option<u32> + Sync);

/// Keeps one record per order. A ledger has no rules of its own: it writes what the state machine decided, if the
/// record is still the version that the decision was about.
///
/// # What an implementation guarantees
/// * `insert`, `replace` and `remove` are atomic across all users of the store, the charges included: either the
///   record and all charges change, or nothing does.
/// * When they return `Ok`, the change survives a crash of this process (and whatever else the store promises).
/// * `replace` and `remove` compare the version's number and its nonce with the stored ones. The number alone is not
///   enough: a claim that was never written has the same number as another one that was.
/// * `insert` writes what an order's first claim has pinned, and nothing writes it again. `replace` refuses a change
///   of it before it writes anything. A record whose parts are missing or belong to two claims is an error for every
///   call and stays as it is; so is a damaged record for every call that reads it.
/// * Repeating a write whose acknowledgement was lost is harmless: if the stored record is already exactly the one to
///   write, `insert` and `replace` make sure that it is durable and answer `Done`, without charging again.
/// * `replace` gives back the charges that only the old record has, and charges those that only the new one has.
/// * Unsettled records never expire. Settled ones do not expire before the configured retention, counted in the
///   ledger's time.
/// * A store that holds no ledger, or is known to have forgotten records of this merchant, takes no claim and never
///   answers `get` with `None`. A claim compares the ledger's identity in the same step that writes. The store says
///   "there is no such order" only where it would still have the record if there ever was one.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// The ledger's own time, as this process knows it. It never runs faster than real time, and no step of a wall
    /// clock moves it.
    fn time(&self) -> LedgerTime;

    /// Records a new order (version 1) with its charges.
    ///
    /// # Errors
    /// When the store cannot be written, then [`StoreError`]; `unsure` if the write may have taken effect anyway.
    ///
    /// # Cancel safety
    /// The write may or may not happen when the future is dropped.
    async fn insert(&self, order: &Order) -> Result<Inserted, StoreError>;

    /// Replaces `previous` by `next`, if `previous` is what is stored.
    ///
    /// # Errors
    /// As [`Ledger::insert`].
    async fn replace(&self, previous: &Order, next: &Order) -> Result<Replaced, StoreError>;

    /// Removes the order if this version is stored, and gives its charges back.
    ///
    /// # Errors
    /// As [`Ledger::insert`].
    async fn remove(&self, order: &Order) -> Result<Replaced, StoreError>;

    /// The order's record. `None`: there is none, and the store is known to have forgotten nothing of this merchant.
    ///
    /// # Errors
    /// When the store cannot be read, holds no ledger, or has forgotten records of this merchant, then
    /// [`StoreError`].
    async fn get(&self, key: &OrderKey) -> Result<Option<Order>, StoreError>;

    /// Up to `limit` orders whose [`Order::due_at`] has come in the ledger's time (unsettled, or accepted and
    /// followed to their final state), oldest first. `rate` limits them per merchant. The ledger hands each one to
    /// one caller only and hides it from all others for `hidden`. If one merchant's part of the store is out of
    /// reach, the other merchants' orders still come.
    ///
    /// # Errors
    /// When no part of the store can be read or written, then [`StoreError`].
    async fn due(
        &self,
        hidden: std::time::Duration,
        limit: usize,
        rate: QueryRate<'_>,
    ) -> Result<Vec<OrderKey>, StoreError>;

    /// A page of orders, newest first.
    ///
    /// # Errors
    /// When the store cannot be read or the cursor is not one of its own, then [`StoreError`].
    async fn list(&self, filter: &ListFilter) -> Result<Page, StoreError>;

    /// Up to `limit` orders that are pending or unknown, in any order: to count them and see how old they are.
    ///
    /// # Errors
    /// When the store cannot be read, then [`StoreError`].
    async fn unsettled(&self, limit: usize) -> Result<Vec<Order>, StoreError>;

    /// How much of a limit's sum is used up: charged and not given back. Zero if there is no such sum.
    ///
    /// # Errors
    /// When the store cannot be read, then [`StoreError`].
    async fn used(&self, mch_id: &MchId, sum: &str) -> Result<i64, StoreError>;

    /// Whether the store answers and can be written. `/readyz` asks this.
    ///
    /// # Errors
    /// When it does not or cannot, then [`StoreError`].
    async fn ready(&self) -> Result<(), StoreError>;

    /// The names of those store settings that may make the store forget. Asked once at start.
    ///
    /// # Errors
    /// When the store cannot be asked, then [`StoreError`].
    async fn warnings(&self) -> Result<Vec<String>, StoreError>;
}

/// The place that pays a merchant's orders. A failed attempt is evidence and a failed query is a finding, never an
/// error.
#[async_trait]
pub trait Upstream: Send + Sync + 'static {
    /// Sends the claimed order once, with exactly the recorded parameters, and returns what that proves. Never
    /// repeats a request of which a byte may have been written.
    ///
    /// # Cancel safety
    /// Do not drop the future before it ends: what the attempt proves would be lost. It ends by itself within
    /// [`Upstream::longest`].
    async fn attempt(&self, claim: &Claim, credentials: &RequestCredentials) -> Evidence;

    /// Asks what became of an order.
    ///
    /// # Cancel safety
    /// Reads only; may be dropped at any time.
    async fn query(&self, order: &OrderQuestion, credentials: &RequestCredentials) -> Finding;

    /// The longest that an attempt takes, timeouts included. Leases are longer than this.
    fn longest(&self) -> std::time::Duration;

    /// Asks the upstream to cancel an accepted order, if its product allows that (v3 bills).
    ///
    /// # Cancel safety
    /// Dropping the future leaves open whether the upstream got the request. A query tells.
    async fn cancel(&self, order: &OrderQuestion) -> Withdrawal {
        Withdrawal::Refused {
            code: "NOT_SUPPORTED".to_owned(),
            text: format!("{:?} cannot be taken back", order.upstream),
        }
    }

    /// The path on the main port for the upstream's notifications; `None`: it sends none.
    fn notify_path(&self) -> Option<&str> {
        None
    }

    /// Verifies and opens a notification.
    ///
    /// # Errors
    /// When it is not from the upstream, not fresh, tampered with, encrypted with another merchant's key or about
    /// another merchant's order, then why.
    ///
    /// # Cancel safety
    /// Reads only; may be dropped at any time.
    async fn open(&self, notice: Notice<'_>) -> Result<Notification, String> {
        let _ = notice;
        Err("this upstream sends no notifications".to_owned())
    }
}

/// A notification as it came: the headers that sign it, and its body before any parsing.
#[derive(Clone, Copy, Debug)]
pub struct Notice<'a> {
    /// The headers that sign it.
    pub signed: Signed<'a>,
    /// The bytes that are signed.
    pub body: &'a [u8],
}

/// What a query needs to know about an order. Made from a record, or from a status request about an order without
/// one.
#[derive(Clone, Debug)]
pub struct OrderQuestion {
    /// Merchant and order number.
    pub key: OrderKey,
    /// The app.
    pub wx_app_id: WxAppId,
    /// The platform's record id.
    pub trade_record_id: payout_domain::ids::TradeRecordId,
    /// Where the order was sent.
    pub upstream: payout_domain::order::Destination,
    /// The encoding of requests to a handler with `handler_format = "same"`.
    pub encoding: payout_domain::encoding::Encoding,
    /// The amount and openid that the upstream's answer must agree with, if the order is on record.
    pub expected: Option<(payout_domain::ids::Fen, OpenId)>,
}

impl OrderQuestion {
    /// The question about a recorded order.
    #[must_use]
    pub fn of(order: &Order) -> Self {
        Self {
            key: order.key.clone(),
            wx_app_id: order.wx_app_id.clone(),
            trade_record_id: order.trade_record_id,
            upstream: order.upstream.clone(),
            encoding: order.encoding,
            expected: Some((order.amount, order.openid.clone())),
        }
    }
}
