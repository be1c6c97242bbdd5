//! The arguments of a script, written to the buffer without an intermediate `String`.

use redis::{RedisWrite, ToRedisArgs};

/// One argument.
pub(super) enum Argument<'a> {
    /// One part of a record.
    Record(Vec<u8>),
    /// A text.
    Text(&'a str),
    /// A number, in decimal digits.
    Number(i64),
}

impl Argument<'_> {
    /// A count or a size.
    pub(super) fn count(count: usize) -> Self {
        Self::Number(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// A number, or an empty text for `None`.
    pub(super) fn maybe(number: Option<i64>) -> Self {
        number.map_or(Self::Text(""), Self::Number)
    }
}

impl ToRedisArgs for Argument<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        match self {
            Self::Record(bytes) => out.write_arg(bytes),
            Self::Text(text) => out.write_arg(text.as_bytes()),
            Self::Number(number) => number.write_redis_args(out),
        }
    }
}
