//! The words of the field as types: an amount cannot be an order number, a user id cannot be an openid.
//!
//! Each type is made by a constructor that checks the contract's limits (specification, section 2.2), so a value that
//! exists is a value that may be used. Nothing here knows field names; the contract adds them to the message.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

/// Why a text or a number is not the value it was meant to be: a rule in words, e.g. `must be 1 to 32 letters or digits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Declares a text newtype whose constructor applies `$check` and whose refusal says `$rule`. Shared, since a payout hands
/// its terms to records, questions and keys a dozen times.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The rule a value keeps, as the caller is told when it does not.
            pub const RULE: &'static str = $rule;

            /// Checks the rule.
            ///
            /// # Errors
            /// When the text breaks the rule, then [`Malformed`] with [`Self::RULE`].
            pub fn parse(text: &str) -> Result<Self, Malformed> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.into())) } else { Err(Malformed(Self::RULE)) }
            }

            /// The text as it was given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Malformed;
            fn try_from(text: String) -> Result<Self, Malformed> {
                Self::parse(&text)
            }
        }
    };
}

/// Makes a type printable and serialisable as it is: for those that may appear in logs in full.
macro_rules! printable {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    )*};
}

/// Makes a type print shortened only (`oX12…9f`), also in `Debug`, and not serialise by itself: for those that name a person.
macro_rules! redacted {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&crate::redact::shorten(&self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&crate::redact::shorten(&self.0))
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    )*};
}

text_id! {
    /// A merchant's number at WeChat Pay; the contract's `mchId`.
    MchId, "must be 1 to 32 digits", |t| within(t, 32, |b| b.is_ascii_digit())
}
text_id! {
    /// An app id of a mini program or official account; the contract's `wxAppId`. It becomes part of a Redis key.
    WxAppId, "must be 1 to 32 letters, digits, `_` or `-`",
    |t| within(t, 32, |b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}
text_id! {
    /// An order number (单号): the contract's `mchBillno`, WeChat's `mch_billno` (28 characters at most, see
    /// [`OrderNo::fits_red_packet`]) and `partner_trade_no`. Unique for all time within a merchant.
    OrderNo, "must be 1 to 32 letters or digits", |t| within(t, 32, |b| b.is_ascii_alphanumeric())
}
text_id! {
    /// The customer's own id of a user, which the contract carries in the field `openid`. NOT a WeChat openid, and no
    /// conversion to [`OpenId`] exists.
    UserId, "must be 1 to 128 characters without control characters",
    |t| !t.is_empty() && t.chars().count() <= 128 && !t.chars().any(char::is_control)
}
text_id! {
    /// WeChat's id of a user under one app; made only from the identity store or from a record.
    /// Source: wechat-pay.md, section 7 (String(64)).
    OpenId, "must be 1 to 64 letters, digits, `_` or `-`",
    |t| within(t, 64, |b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

text_id! {
    /// Names a handler: `handler_id`, or else scheme, host, port and base path of its `handler_url`. It is pinned with each
    /// order that is sent there, so that no other handler is ever asked about that order.
    HandlerId, "must be 1 to 256 characters without blanks or control characters",
    |t| (1..=256).contains(&t.chars().count()) && !t.chars().any(|c| c.is_control() || c.is_whitespace())
}

printable!(MchId, WxAppId, OrderNo, HandlerId);
redacted!(UserId, OpenId);

impl OrderNo {
    /// Whether the number fits the red-packet calls, which take 28 characters.
    /// Source: wechat-pay.md, section 4, `mch_billno` String(28).
    #[must_use]
    pub fn fits_red_packet(&self) -> bool {
        self.0.len() <= 28
    }
}

/// One to `max` bytes, all of which satisfy `allowed`.
fn within(text: &str, max: usize, allowed: impl Fn(u8) -> bool) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(allowed)
}

/// An amount in fen (分, 1/100 yuan): 1 to 2147483647. There is no arithmetic on it but [`Fen::get`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64")]
pub struct Fen(i32);

impl Fen {
    /// The rule a value keeps.
    pub const RULE: &'static str = "must be an integer number of fen from 1 to 2147483647";

    /// Checks the range.
    ///
    /// # Errors
    /// When the number is below 1 or above 2147483647, then [`Malformed`].
    pub fn new(fen: i64) -> Result<Self, Malformed> {
        match i32::try_from(fen) {
            Ok(fen) if fen >= 1 => Ok(Self(fen)),
            _ => Err(Malformed(Self::RULE)),
        }
    }

    /// The number of fen.
    #[must_use]
    pub fn get(self) -> i64 {
        i64::from(self.0)
    }
}

impl TryFrom<i64> for Fen {
    type Error = Malformed;
    fn try_from(fen: i64) -> Result<Self, Malformed> {
        Self::new(fen)
    }
}

impl fmt::Display for Fen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The platform's own record id (`tradeRecordId`, int64). It is passed on, never interpreted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TradeRecordId(pub i64);

/// What makes an order one order: the number is unique within a merchant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderKey {
    /// The merchant.
    pub mch_id: MchId,
    /// The number within the merchant.
    pub order_no: OrderNo,
}

impl fmt::Display for OrderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.mch_id, self.order_no)
    }
}

/// A moment on the wall clock in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub i64);

impl Millis {
    /// The moment `span` later; stays at the end of time where it would pass it.
    #[must_use]
    pub fn after(self, span: std::time::Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// How long ago `earlier` was; zero where it lies in the future (clocks of two replicas differ).
    #[must_use]
    pub fn since(self, earlier: Self) -> std::time::Duration {
        let gap = self.0.saturating_sub(earlier.0);
        std::time::Duration::from_millis(u64::try_from(gap).unwrap_or(0))
    }
}

/// A moment by the ledger's own time, in milliseconds: how long the ledger has lived while somebody could reach it, counted
/// from the wall-clock time of its making.
///
/// It is kept in the ledger and advanced by what each process sees pass by its monotonic clock. So it never runs faster than
/// time does, whatever the wall clocks do, and no step of a clock moves it. It falls behind while nobody has the ledger open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LedgerTime(pub i64);

impl LedgerTime {
    /// The moment `span` later; stays at the end of time where it would pass it.
    #[must_use]
    pub fn after(self, span: std::time::Duration) -> Self {
        Self(Millis(self.0).after(span).0)
    }

    /// How long ago `earlier` was; zero where it lies in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> std::time::Duration {
        Millis(self.0).since(Millis(earlier.0))
    }
}

/// One moment by both clocks: the wall's, which people and WeChat's calendar days go by and which may step, and the
/// ledger's, which ages are counted by. Written as `[wall, ledger]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(i64, i64)", into = "(i64, i64)")]
pub struct Moment {
    /// Milliseconds since 1970, by the wall clock of whoever noted the moment.
    pub wall: Millis,
    /// The same moment in the ledger's time.
    pub ledger: LedgerTime,
}

impl From<(i64, i64)> for Moment {
    fn from((wall, ledger): (i64, i64)) -> Self {
        Self {
            wall: Millis(wall),
            ledger: LedgerTime(ledger),
        }
    }
}

impl From<Moment> for (i64, i64) {
    fn from(Moment { wall, ledger }: Moment) -> Self {
        (wall.0, ledger.0)
    }
}

impl Moment {
    /// The longest that it can be ago by either clock: for windows that close, since an age that is taken for too high closes
    /// one too early, and only an age that is taken for too low would believe what an upstream has long forgotten.
    #[must_use]
    pub fn longest_since(self, earlier: Self) -> std::time::Duration {
        std::cmp::max(self.wall.since(earlier.wall), self.ledger.since(earlier.ledger))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_numbers_are_letters_and_digits_up_to_32() {
        assert!(OrderNo::parse("A1").is_ok());
        assert!(OrderNo::parse(&"9".repeat(32)).is_ok());
        for bad in ["", "a b", "a-b", "单号", &"9".repeat(33)] {
            assert_eq!(OrderNo::parse(bad), Err(Malformed(OrderNo::RULE)), "{bad:?}");
        }
        assert!(OrderNo::parse(&"9".repeat(28)).is_ok_and(|n| n.fits_red_packet()));
        assert!(OrderNo::parse(&"9".repeat(29)).is_ok_and(|n| !n.fits_red_packet()));
    }

    #[test]
    fn user_ids_count_characters_not_bytes() {
        assert!(UserId::parse(&"用".repeat(128)).is_ok());
        assert!(UserId::parse(&"用".repeat(129)).is_err());
        assert!(UserId::parse("a\u{7}b").is_err());
        assert!(UserId::parse("").is_err());
    }

    #[test]
    fn fen_is_1_to_the_largest_int32() {
        assert_eq!(Fen::new(1).map(Fen::get), Ok(1));
        assert_eq!(Fen::new(2_147_483_647).map(Fen::get), Ok(2_147_483_647));
        for bad in [0, -1, 2_147_483_648, i64::MAX, i64::MIN] {
            assert!(Fen::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn persons_are_shortened_wherever_they_are_printed() {
        let openid = OpenId::parse("oX12abcdefghijk9f").unwrap();
        assert_eq!(format!("{openid} {openid:?}"), "oX12…9f oX12…9f");
    }

    #[test]
    fn time_never_runs_backwards_into_a_panic() {
        assert_eq!(Millis(5).since(Millis(9)), std::time::Duration::ZERO);
        assert_eq!(Millis(i64::MAX).after(std::time::Duration::MAX), Millis(i64::MAX));
    }
}
