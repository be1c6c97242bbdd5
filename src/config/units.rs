//! Durations (`250ms`, `5s`, `2m`, `400d`) and sizes (`64KiB`) as an operator writes them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration as text: whole numbers with the units `ms`, `s`, `m`, `h` or `d`, e.g. `1m 30s`. A `0` needs no
/// unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(transparent, extend("format" = Self::FORMAT))]
pub(super) struct Span(#[schemars(with = "String")] pub(super) Duration);

impl Span {
    /// The schema's `format` of a duration.
    pub(super) const FORMAT: &'static str = "duration";

    /// The form of a duration, for messages.
    pub(super) const RULE: &'static str = r#"must be a duration like "250ms", "5s", "2m" or "400d""#;

    pub(super) const fn seconds(count: u64) -> Self {
        Self(Duration::from_secs(count))
    }

    pub(super) const fn hours(count: u64) -> Self {
        Self(Duration::from_secs(count.saturating_mul(3600)))
    }

    pub(super) const fn days(count: u64) -> Self {
        Self::hours(count.saturating_mul(24))
    }

    /// Parses a duration. Refuses humantime's months, years and long names: an operator may mean minutes by
    /// `5M`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let known_units = text
            .split(|c: char| c.is_ascii_digit() || c == ' ')
            .all(|unit| matches!(unit, "" | "ms" | "s" | "m" | "h" | "d"));
        if !known_units {
            return None;
        }
        humantime::parse_duration(text).ok().map(Self)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&show(self.0))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom(Self::RULE))
    }
}

/// Writes a duration in the largest unit that divides it and of which it has two or more: `400d`, `24h`, `60s`.
pub(super) fn show(span: Duration) -> String {
    let ms = span.as_millis();
    let units = [
        (86_400_000, 2, "d"),
        (3_600_000, 2, "h"),
        (60_000, 2, "m"),
        (1000, 0, "s"),
    ];
    for (length, least, unit) in units {
        let count = ms.checked_div(length).unwrap_or_default();
        if count >= least && ms.checked_rem(length) == Some(0) {
            return format!("{count}{unit}");
        }
    }
    format!("{ms}ms")
}

/// A size in bytes: a number, or a text with one of the units `B`, `kB`, `MB`, `GB`, `KiB`, `MiB`, `GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("type" = ["string", "integer"], "minimum" = 0, "format" = Self::FORMAT))]
pub(super) struct ByteSize(#[schemars(with = "String")] pub(super) bytesize::ByteSize);

impl ByteSize {
    /// The schema's `format` of a size.
    pub(super) const FORMAT: &'static str = "byte-size";

    /// The form of a size, for messages.
    pub(super) const RULE: &'static str = r#"must be a size like "64KiB" or "1MiB", or a number of bytes"#;

    /// Parses a size. A text without a unit is a number of bytes. Refuses fractions, sizes that are too large,
    /// and `64K`, which means 64,000 to some and 65,536 to others.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_plain = text.ends_with(|c: char| c == 'B' || c.is_ascii_digit()) && !text.contains('.');
        let size: bytesize::ByteSize = text.parse().ok().filter(|_| is_plain)?;
        (size < bytesize::ByteSize(u64::MAX)).then_some(Self(size))
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Writes the size exactly; bytesize would round it.
impl std::fmt::Display for ByteSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.0.as_u64();
        match (bytes.checked_div(1024), bytes.checked_rem(1024)) {
            (Some(kib), Some(0)) => write!(f, "{kib}KiB"),
            (_, _) => write!(f, "{bytes}B"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        for (text, ms) in [
            ("250ms", 250),
            ("5s", 5000),
            ("2m", 120_000),
            ("1m 30s", 90_000),
            ("400d", 34_560_000_000),
            ("0s", 0),
        ] {
            assert_eq!(Span::parse(text), Some(Span(Duration::from_millis(ms))), "{text}");
        }
        for nonsense in [
            "",
            "5",
            "s",
            "5M",
            "1y",
            "2 weeks",
            "-5s",
            "1.5s",
            "5s!",
            "五s",
            "1month",
            "9".repeat(30).as_str(),
        ] {
            assert_eq!(Span::parse(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_shown_duration_reads_as_itself() {
        for text in ["250ms", "5s", "60s", "90s", "2m", "24h", "400d", "0s", "1500ms"] {
            assert_eq!(show(Span::parse(text).unwrap().0), text);
        }
    }

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        for (text, bytes) in [
            ("64KiB", 65_536),
            ("1 MiB", 1_048_576),
            ("10KB", 10_000),
            ("512", 512),
            ("7B", 7),
            ("2GiB", 2_147_483_648),
        ] {
            assert_eq!(
                ByteSize::parse(text),
                Some(ByteSize(bytesize::ByteSize(bytes))),
                "{text}"
            );
        }
        for nonsense in [
            "",
            "KiB",
            "64K",
            "-1",
            "1.5MiB",
            "64 kib",
            "1e3B",
            "99999999999999999999",
            "18446744073709551615KiB",
        ] {
            assert_eq!(ByteSize::parse(nonsense), None, "{nonsense}");
        }
        for (bytes, shown) in [
            (65_536, "64KiB"),
            (1_048_576, "1024KiB"),
            (10, "10B"),
            (0, "0KiB"),
        ] {
            assert_eq!(ByteSize(bytesize::ByteSize(bytes)).to_string(), shown);
        }
    }
}
