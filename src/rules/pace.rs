//! When an order may be sent again and when it is asked about: pauses and WeChat's windows.
//! Document: specification, section 5; wechat-pay.md, section 2, rules 5, 6 and 9.

use std::time::Duration;

use super::day::BeijingDay;
use super::order::UpstreamKind;
use super::term::Millis;
use super::wechat::Product;

/// The shortest gap between the beginnings of two attempts of one order. Source: wechat-pay.md, section 2, rule 5.
pub const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(1);
/// How far back WeChat's queries reach. Source: wechat-pay.md, section 2, rule 9.
pub const QUERY_WINDOW: Duration = Duration::from_secs(30 * 86_400);
/// From this age on an unknown order is near the end of its query window, and a person must act.
pub const QUERY_ALERT: Duration = Duration::from_secs(27 * 86_400);
/// Natural days within which a v2 transfer may be sent again, the first one included. Source: rule 6.
const TRANSFER_RESEND_DAYS: i64 = 2;
/// How long a bill may take to its final state: 24 hours for the user, and some lag. Source: wechat-pay.md, section 10,
/// "life of a bill".
pub const BILL_LIFE: Duration = Duration::from_secs(25 * 3600);
/// The longest pause between two queries about a bill: a notification tells sooner, and there may be many bills.
const FOLLOWING_PAUSE: Duration = Duration::from_secs(3600);
/// The pause between two queries about a bill that should have ended long ago.
const OVERDUE_PAUSE: Duration = Duration::from_secs(6 * 3600);
/// The longest pause between two queries: the time after which WeChat advises to ask about `PROCESSING`.
const LONGEST_PAUSE: Duration = Duration::from_secs(20 * 60);

/// Whether an order whose first attempt began at `first` may still be sent at `now`.
#[must_use]
pub fn may_send_again(upstream: UpstreamKind, first: Millis, now: Millis) -> bool {
    match upstream {
        UpstreamKind::Wechat(Product::Transfer) => {
            BeijingDay::of(now).days_after(BeijingDay::of(first)) < TRANSFER_RESEND_DAYS
        }
        UpstreamKind::Wechat(Product::Redpack | Product::MiniProgramRedpack)
        | UpstreamKind::TransferBill
        | UpstreamKind::Handler => true,
    }
}

/// The pause before query number `queries` (from 0): 1 s, doubled each time up to 20 min, spread by `jitter`
/// (any number; equal numbers give equal pauses) over three quarters to five quarters of it.
#[must_use]
pub fn before_query(queries: u32, jitter: u64) -> Duration {
    spread_pause(queries, LONGEST_PAUSE, jitter)
}

fn spread_pause(queries: u32, longest: Duration, jitter: u64) -> Duration {
    let doubled = Duration::from_secs(1u64.checked_shl(std::cmp::min(queries, 16)).unwrap_or(u64::MAX));
    let pause = std::cmp::min(doubled, longest);
    let ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
    let spread = std::cmp::max(ms / 2, 1);
    let low = ms.saturating_sub(ms / 4);
    Duration::from_millis(low.saturating_add(jitter.checked_rem(spread).unwrap_or(0)))
}

/// The pause before query number `queries` about an accepted bill of this `age`: as [`before_query`], up to 1 h, and 6 h where
/// it should have ended long ago.
#[must_use]
pub fn before_following(queries: u32, age: Duration, jitter: u64) -> Duration {
    if age > BILL_LIFE {
        OVERDUE_PAUSE
    } else {
        spread_pause(queries, FOLLOWING_PAUSE, jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_are_sent_again_within_two_natural_days() {
        let transfer = UpstreamKind::Wechat(Product::Transfer);
        let late_evening = Millis(1_795_449_599_999); // 23:59:59.999 in Beijing
        let day = |n: i64| Millis(late_evening.0 + n * 86_400_000);
        assert!(may_send_again(transfer, late_evening, late_evening));
        assert!(may_send_again(transfer, late_evening, day(1)));
        assert!(!may_send_again(transfer, late_evening, Millis(day(1).0 + 1)));
        assert!(may_send_again(
            UpstreamKind::Wechat(Product::Redpack),
            late_evening,
            day(300)
        ));
        assert!(may_send_again(UpstreamKind::Handler, late_evening, day(300)));
    }

    #[test]
    fn a_bill_is_followed_at_first_closely_and_then_seldom() {
        let young = Duration::from_secs(60);
        assert_eq!(before_following(0, young, 0), before_query(0, 0));
        assert_eq!(before_following(9, young, 0), before_query(9, 0));
        assert_eq!(before_following(40, young, 0), Duration::from_secs(45 * 60));
        assert_eq!(BILL_LIFE, Duration::from_hours(25));
        assert_eq!(before_following(0, BILL_LIFE, 0), before_query(0, 0));
        let old = BILL_LIFE + Duration::from_millis(1);
        assert_eq!(before_following(0, old, 0), Duration::from_hours(6));
    }

    #[test]
    fn queries_reach_back_30_days_and_a_person_is_called_three_days_earlier() {
        let days = |days: u8| Duration::from_hours(24 * u64::from(days));
        assert_eq!((QUERY_WINDOW, QUERY_ALERT), (days(30), days(27)));
    }

    #[test]
    fn pauses_grow_to_twenty_minutes_and_are_spread() {
        assert_eq!(before_query(0, 0), Duration::from_millis(750));
        assert_eq!(before_query(3, 0), Duration::from_secs(6));
        // The spread is half of a pause, from a quarter below it on.
        assert_eq!(before_query(3, 3_999), Duration::from_millis(9_999));
        assert_eq!(before_query(3, 4_000), Duration::from_secs(6));
        for queries in [11, 31, 32, u32::MAX] {
            assert_eq!(before_query(queries, 0), Duration::from_secs(15 * 60));
            assert!(before_query(queries, u64::MAX) < Duration::from_secs(25 * 60));
        }
    }
}
