//! The domain's vocabulary as types: the compiler refuses an amount as an order number, or a user id as an openid.
//!
//! Each constructor checks the contract's limits (`docs/api.md`), so a value that exists is valid. The types do not
//! know field names; the [contract](crate::contract) adds them to the message.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

/// Why a text or a number is not valid: the type whose rule it breaks. `Display` tells operators the rule in English,
/// e.g. `must be 1 to 32 letters or digits`; [`Malformed::chinese`] tells it to callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not a [`MchId`].
    #[error("must be 1 to 32 digits")]
    MchId,
    /// Not a [`WxAppId`].
    #[error("must be 1 to 32 letters, digits, `_` or `-`")]
    WxAppId,
    /// Not an [`OrderNo`].
    #[error("must be 1 to 32 letters or digits")]
    OrderNo,
    /// Not a [`UserId`].
    #[error("must be 1 to 128 characters without control characters")]
    UserId,
    /// Not an [`OpenId`].
    #[error("must be 1 to 64 letters, digits, `_` or `-`")]
    OpenId,
    /// Not a [`HandlerId`].
    #[error("must be 1 to 256 characters without blanks or control characters")]
    HandlerId,
    /// Not a [`Fen`].
    #[error("must be an integer number of fen from 1 to 2147483647")]
    Fen,
}

impl Malformed {
    /// The rule in Chinese, as it follows a field's name.
    #[must_use]
    pub fn chinese(self) -> &'static str {
        match self {
            Self::MchId => "商户号不正确: 须为 1 至 32 位数字",
            Self::WxAppId => "格式不正确: 须为 1 至 32 位字母、数字、_ 或 -",
            Self::OrderNo => "单号不正确: 须为 1 至 32 位字母或数字",
            Self::UserId => "用户ID不正确: 须为 1 至 128 个字符, 不能含控制字符",
            Self::OpenId => "微信 openid 不正确: 须为 1 至 64 位字母、数字、_ 或 -",
            Self::HandlerId => "处理程序标识不正确: 须为 1 至 256 个字符, 不能含空白或控制字符",
            Self::Fen => "金额不正确: 须为 1 至 2147483647 的整数(分)",
        }
    }
}

/// Declares a text newtype. Its constructor applies `$check`, and its error is [`Malformed`]'s variant of the same
/// name. The text is in an `Arc`, since one payout clones its terms into records, queries and keys a dozen times.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the rule.
            ///
            /// # Errors
            #[doc = concat!("[`Malformed::", stringify!($name), "`] if the text breaks the rule.")]
            pub fn parse(text: &str) -> Result<Self, Malformed> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.into())) } else { Err(Malformed::$name) }
            }

            /// The text, unchanged.
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

/// Makes a type printable and serialisable in full: for types that logs may show in full.
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

/// Makes a type print in shortened form only (`oX12…9f`), in `Debug` too, and does not make it serialisable: for
/// types that identify a person.
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
    MchId, |t| within(t, 32, |b| b.is_ascii_digit())
}
text_id! {
    /// An app id of a mini program or official account; the contract's `wxAppId`. It becomes part of a Redis key.
    WxAppId,
    |t| within(t, 32, |b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}
text_id! {
    /// An order number (单号): the contract's `mchBillno`, WeChat's `mch_billno` (28 characters at most, see
    /// [`OrderNo::fits_red_packet`]) and `partner_trade_no`. Unique for all time within a merchant.
    OrderNo, |t| within(t, 32, |b| b.is_ascii_alphanumeric())
}
text_id! {
    /// The customer's own id of a user; the contract carries it in the field `openid`. It is NOT a WeChat openid,
    /// and no conversion to [`OpenId`] exists.
    UserId,
    |t| !t.is_empty() && t.chars().count() <= 128 && !t.chars().any(char::is_control)
}
text_id! {
    /// WeChat's id of a user under one app; WeChat documents String(64). It comes only from the openid store or
    /// from a record.
    OpenId,
    |t| within(t, 64, |b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

text_id! {
    /// Names a handler: its `handler_id`, or else scheme, host, port and base path of its `handler_url`. A claim
    /// pins it to the order, so the sidecar never asks another handler about that order.
    HandlerId,
    |t| (1..=256).contains(&t.chars().count()) && !t.chars().any(|c| c.is_control() || c.is_whitespace())
}

printable!(MchId, WxAppId, OrderNo, HandlerId);
redacted!(UserId, OpenId);

impl OrderNo {
    /// Whether the number fits the red-packet calls: WeChat documents their `mch_billno` as String(28).
    #[must_use]
    pub fn fits_red_packet(&self) -> bool {
        self.0.len() <= 28
    }
}

/// One to `max` bytes, all of which satisfy `allowed`.
fn within(text: &str, max: usize, allowed: impl Fn(u8) -> bool) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(allowed)
}

/// An amount in fen (分, 1/100 yuan): 1 to 2147483647. It has no arithmetic; [`Fen::get`] gives the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64")]
pub struct Fen(i32);

impl Fen {
    /// Checks the range.
    ///
    /// # Errors
    /// [`Malformed::Fen`] if the number is below 1 or above 2147483647.
    pub fn new(fen: i64) -> Result<Self, Malformed> {
        match i32::try_from(fen) {
            Ok(fen) if fen >= 1 => Ok(Self(fen)),
            _ => Err(Malformed::Fen),
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

/// The platform's own record id (`tradeRecordId`, int64). The sidecar passes it on and never interprets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TradeRecordId(pub i64);

/// Identifies an order: the number is unique within a merchant.
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
    /// The moment `span` later, or the largest moment if that would be exceeded.
    #[must_use]
    pub fn after(self, span: std::time::Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// The time since `earlier`; zero if `earlier` lies in the future (the clocks of two replicas differ).
    #[must_use]
    pub fn since(self, earlier: Self) -> std::time::Duration {
        let gap = self.0.saturating_sub(earlier.0);
        std::time::Duration::from_millis(u64::try_from(gap).unwrap_or(0))
    }
}

/// A moment in the ledger's own time, in milliseconds: the wall-clock time of the ledger's creation, plus the time
/// that has passed while a process had the ledger open.
///
/// The ledger stores it, and each process advances it by the time that its monotonic clock measures. So it never
/// runs faster than real time, and no step of a wall clock moves it. It falls behind while no process has the
/// ledger open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LedgerTime(pub i64);

impl LedgerTime {
    /// The moment `span` later, or the largest moment if that would be exceeded.
    #[must_use]
    pub fn after(self, span: std::time::Duration) -> Self {
        Self(Millis(self.0).after(span).0)
    }

    /// The time since `earlier`; zero if `earlier` lies in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> std::time::Duration {
        Millis(self.0).since(Millis(earlier.0))
    }
}

/// One moment by both clocks. People and WeChat's calendar days go by the wall clock, which may step; ages go by
/// the ledger's time. Serialised as `[wall, ledger]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(i64, i64)", into = "(i64, i64)")]
pub struct Moment {
    /// Milliseconds since 1970, by the wall clock of the process that noted the moment.
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
    /// The longest time since `earlier`, by either clock. Use it for windows that close: an age that is too high
    /// only closes a window too early, but an age that is too low would trust an upstream that has long forgotten
    /// the order.
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
            assert_eq!(OrderNo::parse(bad), Err(Malformed::OrderNo), "{bad:?}");
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
