//! Beijing time: the calendar day of a moment, which WeChat's rules and the configured limits count, and its text
//! form.

use crate::ids::Millis;

const OFFSET_MS: i64 = 8 * 60 * 60 * 1000;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// A calendar day in Beijing (UTC+8, no daylight saving), counted from 1970-01-01. WeChat calls it a natural day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BeijingDay(pub i64);

impl BeijingDay {
    /// The Beijing day of a moment.
    #[must_use]
    pub fn of(moment: Millis) -> Self {
        Self(moment.0.saturating_add(OFFSET_MS).div_euclid(DAY_MS))
    }

    /// The number of days from `earlier` to this day; negative if this day is the earlier one.
    #[must_use]
    pub fn days_after(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A moment as WeChat writes it: `2015-05-19 15:26:59`, Beijing time. Empty if the calendar cannot represent the
/// moment.
#[must_use]
pub fn beijing_text(moment: Millis) -> String {
    let shifted = moment.0.saturating_add(OFFSET_MS);
    match jiff::Timestamp::from_millisecond(shifted) {
        Ok(timestamp) => timestamp.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_16_utc() {
        // 2026-11-23T15:59:59.999Z and the millisecond after it.
        let last = Millis(1_795_449_599_999);
        assert_eq!(
            BeijingDay::of(Millis(last.0 + 1)).days_after(BeijingDay::of(last)),
            1
        );
        assert_eq!(beijing_text(last), "2026-11-23 23:59:59");
        assert_eq!(beijing_text(Millis(last.0 + 1)), "2026-11-24 00:00:00");
        assert_eq!(BeijingDay::of(Millis(0)), BeijingDay(0));
        assert_eq!(BeijingDay::of(Millis(-OFFSET_MS - 1)), BeijingDay(-1));
        assert_eq!(beijing_text(Millis(i64::MAX)), "");
    }
}
