//! What the flow needs from the world, as small traits; each says what an implementation must guarantee.

use async_trait::async_trait;

use payout_domain::contract::send::RequestCredentials;
use payout_domain::ids::{LedgerTime, Malformed, MchId, Millis, OpenId, OrderKey, UserId, WxAppId};
use payout_domain::order::{Order, StateName};
use payout_domain::outcome::{Evidence, Finding};
use payout_domain::wechat::v3::answer::{Notification, Withdrawal};
use payout_domain::wechat::v3::sign::Signed;

use super::claim::Claim;

/// Why a user id could not be looked up. Nothing is known of the user then; "no openid" is `Ok(None)`, not an error.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The store is out of reach or answered with an error; `0` says which and how, for the operator.
    #[error("the identity store cannot be asked: {0}")]
    Unreachable(String),
    /// The store holds something that is no openid (e.g. 100 characters, or a blank in it).
    #[error("the identity store holds no openid under {key}: {rule}")]
    NotAnOpenId {
        /// The key or row, with the user id shortened.
        key: String,
        /// The rule that is broken.
        rule: Malformed,
    },
}

/// Maps a user id to the openid under one app (specification, section 4).
#[async_trait]
pub trait Identity: Send + Sync + 'static {
    /// Looks the user up; `None` means that the store was asked and knows no openid.
    ///
    /// # Errors
    /// When the store cannot be asked or holds no openid, then [`LookupError`].
    ///
    /// # Cancel safety
    /// Reads only; may be dropped at any time.
    async fn openid(&self, app: &WxAppId, user: &UserId) -> Result<Option<OpenId>, LookupError>;

    /// Whether the store answers now; asked by `/readyz`.
    ///
    /// # Errors
    /// When it does not, then [`LookupError::Unreachable`].
    async fn ready(&self) -> Result<(), LookupError>;
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("the ledger {}: {text}", if *unsure { "did not answer" } else { "refused" })]
pub struct StoreError {
    /// Whether the write may have taken effect all the same. Writing the same again finds out: see [`Ledger`].
    pub unsure: bool,
    /// Which store, what happened, what to do; for the operator.
    pub text: String,
}

impl StoreError {
    /// The error of a write that was tried twice, the first time without an answer: the second failure does not make the
    /// first try less unsure.
    #[must_use]
    pub fn after_unsure(self) -> Self {
        Self { unsure: true, ..self }
    }
}

/// What became of an insert.
#[derive(Debug)]
pub enum Inserted {
    /// The order was new and is recorded now, durably.
    Done,
    /// The order was there already; nothing was written or charged.
    Exists(Box<Order>),
    /// The charge of this index would pass its limit; nothing was written or charged.
    OverLimit(usize),
}

/// What became of a replacement.
#[derive(Debug)]
pub enum Replaced {
    /// The record is the new one now, durably.
    Done,
    /// The record is not the version that was meant to be replaced (or is gone: `None`); nothing was written.
    Moved(Option<Box<Order>>),
    /// The charge of this index would pass its limit; nothing was written or charged.
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
    /// Where the last page ended, as it was given with it.
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

/// How many orders of a merchant may be handed out for a query in a second, over everything that uses the store; `None`: as
/// many as there are.
pub type QueryRate<'a> = &'a (dyn Fn(&MchId) -> Option<u32> + Sync);

/// Keeps one record per order. A ledger holds no rules: it writes what the state machine decided, if the record is
/// still the one that the decision was about.
///
/// # What an implementation guarantees
/// * `insert`, `replace` and `remove` are atomic across everything that uses the store, the charges included: either
///   the record and all charges change, or nothing does.
/// * When they return `Ok`, the change survives a crash of this process (and what else the store promises).
/// * Exactly the version that a decision was about is replaced: number and nonce, since a claim that was never written has
///   the number of another one that was.
/// * What an order's first claim has pinned is written by `insert` and never again. `replace` refuses a change of it before
///   anything is written. A record whose parts are missing or of two claims is an error for everybody and stays as it is; so
///   is a damaged one for whoever reads it.
/// * Repeating a write whose acknowledgement was lost is harmless: where the stored record is already the very one that
///   is to be written, `insert` and `replace` make sure that it is durable and answer `Done`, without charging again.
/// * A replaced record gives back the charges that it had and the new one has not, and is charged those that are new.
/// * Unsettled records never expire; settled ones not before the configured retention, counted in the ledger's time.
/// * A store that holds no ledger, or is known to have forgotten what it held of this merchant, claims nothing and answers no
///   `get` with `None`: a claim compares the ledger's identity in the very step that writes, and "there is no such order" is
///   said only where the store would have it if there ever was one.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// The ledger's own time, as this process knows it: never runs faster than time does, and no step of a clock moves it.
    fn time(&self) -> LedgerTime;

    /// Records a new order (version 1) with its charges.
    ///
    /// # Errors
    /// When the store cannot be written, then [`StoreError`]; `unsure` where it may have been all the same.
    ///
    /// # Cancel safety
    /// The write may or may not happen when the future is dropped.
    async fn insert(&self, order: &Order) -> Result<Inserted, StoreError>;

    /// Replaces `previous`, if it is what is stored, by `next`.
    ///
    /// # Errors
    /// As [`Ledger::insert`].
    async fn replace(&self, previous: &Order, next: &Order) -> Result<Replaced, StoreError>;

    /// Removes this version of an order, and gives its charges back.
    ///
    /// # Errors
    /// As [`Ledger::insert`].
    async fn remove(&self, order: &Order) -> Result<Replaced, StoreError>;

    /// The order's record. `None`: there is none, and the store is known to have forgotten nothing of this merchant.
    ///
    /// # Errors
    /// When the store cannot be read, holds no ledger, or has forgotten, then [`StoreError`].
    async fn get(&self, key: &OrderKey) -> Result<Option<Order>, StoreError>;

    /// Orders whose [`Order::due_at`] has come in the ledger's time (unsettled, or followed to their final state), oldest
    /// first, each handed to one caller only for the time that it is `hidden`. A merchant's part of the store that is out of
    /// reach holds up no other merchant's orders.
    ///
    /// # Errors
    /// When nothing of the store can be read or written, then [`StoreError`].
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

    /// What of a sum of the limits is used up: charged, and not given back. Zero where there is no such sum.
    ///
    /// # Errors
    /// When the store cannot be read, then [`StoreError`].
    async fn used(&self, mch_id: &MchId, sum: &str) -> Result<i64, StoreError>;

    /// Whether the store answers and can be written; asked by `/readyz`.
    ///
    /// # Errors
    /// When not, then [`StoreError`].
    async fn ready(&self) -> Result<(), StoreError>;

    /// What in the store's settings may make it forget, by name; asked once at start.
    ///
    /// # Errors
    /// When the store cannot be asked, then [`StoreError`].
    async fn warnings(&self) -> Result<Vec<String>, StoreError>;
}

/// Where payouts of one merchant are sent. Whatever goes wrong is evidence, never an error.
#[async_trait]
pub trait Upstream: Send + Sync + 'static {
    /// Sends the claimed order once, with exactly the recorded parameters, and returns what that proves. Never repeats
    /// a request of which a byte may have been written.
    ///
    /// # Cancel safety
    /// Not to be dropped before it ends, or what it proves is lost; it ends by itself within [`Upstream::longest`].
    async fn attempt(&self, claim: &Claim, credentials: &RequestCredentials) -> Evidence;

    /// Asks what became of an order.
    ///
    /// # Cancel safety
    /// Reads only; may be dropped at any time.
    async fn query(&self, order: &OrderQuestion, credentials: &RequestCredentials) -> Finding;

    /// The longest that an attempt takes, time-outs included; leases are longer than this.
    fn longest(&self) -> std::time::Duration;

    /// Asks the upstream to take an accepted order back, where its product can (v3 bills).
    ///
    /// # Cancel safety
    /// Dropping it leaves open whether it was asked for; a query tells.
    async fn cancel(&self, order: &OrderQuestion) -> Withdrawal {
        Withdrawal::Refused {
            code: "NOT_SUPPORTED".to_owned(),
            text: format!("{:?} cannot be taken back", order.upstream),
        }
    }

    /// The path on the main port at which the upstream's notifications are taken; `None`: it sends none.
    fn notify_path(&self) -> Option<&str> {
        None
    }

    /// Verifies and opens a notification.
    ///
    /// # Errors
    /// When it is not the upstream's, not fresh, tampered with, or wrapped under another merchant's key, then why.
    ///
    /// # Cancel safety
    /// Reads only; may be dropped at any time.
    async fn open(&self, notice: Notice<'_>) -> Result<Notification, String> {
        let _ = notice;
        Err("this upstream sends no notifications".to_owned())
    }
}

/// A notification as it came: what signs it, and its body before any parsing.
#[derive(Clone, Copy, Debug)]
pub struct Notice<'a> {
    /// The headers that sign it.
    pub signed: Signed<'a>,
    /// The bytes that are signed.
    pub body: &'a [u8],
}

/// What a query needs to know of an order; made from a record, or from a status request about an order without one.
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
    /// The encoding that a handler with `handler_format = "same"` is addressed in.
    pub encoding: payout_domain::encoding::Encoding,
    /// The amount and openid that the upstream's answer must agree with, where the order is on record.
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
