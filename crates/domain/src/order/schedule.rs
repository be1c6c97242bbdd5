//! When the sidecar may send an order again and when it asks about it: pauses and WeChat's windows
//! (`docs/promise.md`; `docs/wechat-pay.md`, query window).

use std::time::Duration;

use super::Destination;
use crate::day::BeijingDay;
use crate::ids::Moment;
use crate::wechat::Product;

/// The shortest time between the beginnings of two attempts of one order (`docs/wechat-pay.md`).
pub const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(1);
/// How far back WeChat's queries reach (`docs/wechat-pay.md`, query window).
pub const QUERY_WINDOW: Duration = Duration::from_secs(30 * 86_400);
/// From this age on an unknown order is near the end of its query window, and a person must act.
pub const QUERY_ALERT: Duration = Duration::from_secs(27 * 86_400);
/// Natural days within which a v2 transfer may be sent again, the first one included (`docs/wechat-pay.md`).
const TRANSFER_RESEND_DAYS: i64 = 2;
/// The longest that two natural days can be.
const TRANSFER_RESEND: Duration = Duration::from_secs(2 * 86_400);
/// Where "no such order" is believed after a day: the longest time between two such answers of one series. It is
/// several of the longest pauses, to leave time for a rolling restart or for another replica's turn.
pub const LONGEST_SILENCE: Duration = Duration::from_secs(2 * 3600);
/// Where "no such order" is believed after seconds: the longest time in which the upstream may have answered
/// no request. After a longer time it may have stood still, and may do late what it had accepted before.
pub const LONGEST_STANDSTILL: Duration = Duration::from_secs(5);
/// How long a bill may take to its final state: 24 hours for the user, and some lag (`docs/wechat-pay.md`).
pub const BILL_LIFE: Duration = Duration::from_secs(25 * 3600);
/// The longest pause between two queries about a bill: a notification arrives sooner, and there may be many bills.
const FOLLOWING_PAUSE: Duration = Duration::from_secs(3600);
/// The pause between two queries about a bill that should have ended long ago.
const OVERDUE_PAUSE: Duration = Duration::from_secs(6 * 3600);
/// The longest pause between two queries: the time after which WeChat advises to ask about `PROCESSING`.
const LONGEST_PAUSE: Duration = Duration::from_secs(20 * 60);

/// Whether an order whose doubt began at `since` may still be sent at `now`. Natural days go by the wall clock.
/// Setting that clock back does not open the window again, since the ledger's time limits it too.
#[must_use]
pub fn may_send_again(upstream: &Destination, since: Moment, now: Moment) -> bool {
    match upstream {
        Destination::Wechat(Product::Transfer) => {
            let days = BeijingDay::of(now.wall).days_after(BeijingDay::of(since.wall));
            days < TRANSFER_RESEND_DAYS && now.ledger.since(since.ledger) < TRANSFER_RESEND
        }
        Destination::Wechat(Product::Redpack | Product::MiniProgramRedpack)
        | Destination::TransferBill
        | Destination::Handler(_) => true,
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

/// The pause before query number `queries` about an accepted bill of this `age`: as [`before_query`] but up to 1 h,
/// and 6 h if the bill should have ended long ago.
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
    use crate::order::fixtures::at_handler;

    #[test]
    fn transfers_are_sent_again_within_two_natural_days() {
        let transfer = Destination::Wechat(Product::Transfer);
        let evening = 1_795_449_599_999; // 23:59:59.999 in Beijing
        let at = |wall: i64, ledger: i64| Moment::from((evening + wall, ledger));
        const DAY: i64 = 86_400_000;
        let since = at(0, 0);
        assert!(may_send_again(&transfer, since, since));
        assert!(may_send_again(&transfer, since, at(DAY, DAY)));
        assert!(!may_send_again(&transfer, since, at(DAY + 1, DAY + 1)));
        assert!(
            !may_send_again(&transfer, since, at(-DAY, 2 * DAY)),
            "a clock that was set back opens no window"
        );
        for other in [Destination::Wechat(Product::Redpack), at_handler()] {
            assert!(may_send_again(&other, since, at(300 * DAY, 300 * DAY)));
        }
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
        // The spread is half of a pause and begins a quarter below it.
        assert_eq!(before_query(3, 3_999), Duration::from_millis(9_999));
        assert_eq!(before_query(3, 4_000), Duration::from_secs(6));
        for queries in [11, 31, 32, u32::MAX] {
            assert_eq!(before_query(queries, 0), Duration::from_secs(15 * 60));
            assert!(before_query(queries, u64::MAX) < Duration::from_secs(25 * 60));
        }
    }
}
