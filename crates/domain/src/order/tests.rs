//! What each event does to an order in each state, rule by rule. The helpers also serve the other tests of this
//! folder.

use std::time::Duration;

use super::fixtures::*;
use super::step::{Event, Policy, Step, step};
use super::*;
use crate::order::repeat::Repeat;
use crate::outcome::{Class, Evidence, Finding, Found, Refusal};

/// The moment `ms` milliseconds after [`NOW`], by both clocks.
fn later(ms: i64) -> Moment {
    Moment::from((NOW.wall.0 + ms, NOW.ledger.0 + ms))
}

/// The upstream was asked, and the asking process hears this for the first time.
pub(super) fn asked(finding: Finding) -> Event {
    Event::Asked {
        finding,
        heard: Duration::ZERO,
    }
}
pub(super) const WECHAT: Policy = Policy {
    refuses_doubles: true,
    not_found_after: Duration::from_secs(86_400),
};
pub(super) const HANDLER: Policy = Policy {
    refuses_doubles: false,
    not_found_after: Duration::from_secs(20),
};

fn handler() -> Order {
    claimed(at_handler())
}

pub(super) fn declined(class: Class) -> Evidence {
    Evidence::Declined {
        class,
        code: "CODE".into(),
        text: "text".into(),
    }
}

pub(super) fn accepted() -> Evidence {
    Evidence::Accepted {
        fields: Fields::new(),
    }
}

pub(super) fn silence() -> Evidence {
    Evidence::NoAnswer {
        why: "time-out".into(),
    }
}

pub(super) fn found(found: Found) -> Finding {
    Finding {
        found,
        status: None,
        report: Fields::new(),
    }
}

pub(super) fn attempt(order: &Order, evidence: Evidence) -> Event {
    Event::Attempted {
        version: order.version,
        evidence,
    }
}

fn become_of(order: &Order, event: Event, policy: Policy, now: Moment) -> Order {
    match step(order, event, policy, now, 0) {
        Step::Become(next) => {
            assert_eq!(
                next.version.number,
                order.version.number + 1,
                "a version is followed by its successor only"
            );
            *next
        }
        other => panic!("{other:?}"),
    }
}

fn name(order: &Order) -> &'static str {
    order.state.name().as_str()
}

#[test]
fn the_first_answer_settles_or_leaves_a_doubt() {
    for (evidence, state) in [
        (accepted(), "succeeded"),
        (declined(Class::Refused), "refused"),
        (declined(Class::RejectedUnprocessed), "refused"),
        (declined(Class::NumberSpent), "refused"),
        (declined(Class::Conflict), "unknown"),
        (declined(Class::Unknown), "unknown"),
        (silence(), "unknown"),
    ] {
        let order = handler();
        assert_eq!(
            name(&become_of(&order, attempt(&order, evidence.clone()), WECHAT, NOW)),
            state,
            "{evidence:?}"
        );
    }
}

#[test]
fn what_was_never_sent_returns_to_what_it_was() {
    let never = || Evidence::NeverSent {
        why: "refused".into(),
    };
    let fresh = handler();
    assert_eq!(
        step(&fresh, attempt(&fresh, never()), WECHAT, NOW, 0),
        Step::Remove
    );

    let refused = become_of(&fresh, attempt(&fresh, declined(Class::Refused)), WECHAT, NOW);
    let again = refused.claimed_again(lease(2), vec![], NOW).unwrap();
    assert_eq!(
        name(&become_of(&again, attempt(&again, never()), WECHAT, NOW)),
        "refused"
    );

    let unknown = become_of(&fresh, attempt(&fresh, silence()), WECHAT, NOW);
    let again = unknown.claimed_again(lease(2), vec![], NOW).unwrap();
    assert_eq!(
        name(&become_of(&again, attempt(&again, never()), WECHAT, NOW)),
        "unknown"
    );
}

#[test]
fn a_doubt_is_lifted_by_acceptance_or_a_spent_number_only() {
    let fresh = handler();
    let unknown = become_of(&fresh, attempt(&fresh, silence()), WECHAT, NOW);
    let again = unknown.claimed_again(lease(2), vec![], NOW).unwrap();
    for (evidence, state) in [
        (accepted(), "succeeded"),
        (declined(Class::NumberSpent), "refused"),
        (declined(Class::Refused), "unknown"),
        (declined(Class::RejectedUnprocessed), "unknown"),
        (declined(Class::Conflict), "unknown"),
        (declined(Class::Unknown), "unknown"),
        (silence(), "unknown"),
    ] {
        assert_eq!(
            name(&become_of(&again, attempt(&again, evidence.clone()), WECHAT, NOW)),
            state,
            "{evidence:?}"
        );
    }
}

#[test]
fn a_refused_order_leaves_no_doubt_behind() {
    let fresh = handler();
    let refused = become_of(&fresh, attempt(&fresh, declined(Class::Refused)), WECHAT, NOW);
    let again = refused.claimed_again(lease(2), vec![], NOW).unwrap();
    assert_eq!(
        name(&become_of(
            &again,
            attempt(&again, declined(Class::RejectedUnprocessed)),
            WECHAT,
            NOW
        )),
        "refused"
    );
}

#[test]
fn a_lease_lapses_into_doubt_and_not_before_its_time() {
    let order = handler();
    let almost = Event::Watched(Duration::from_millis(29_999));
    // Whatever any clock says: only the time for which a process has watched the version counts.
    for now in [NOW, later(400 * 86_400_000), later(-400 * 86_400_000)] {
        assert_eq!(step(&order, almost.clone(), WECHAT, now, 0), Step::Stay);
        assert_eq!(order.repeat(&request(&[]), now), Repeat::Wait);
        let lapsed = become_of(&order, Event::Watched(LEASE), WECHAT, now);
        assert_eq!(name(&lapsed), "unknown");
        assert_eq!(lapsed.due_at(), Some(now.ledger), "it is asked about at once");
    }
}

#[test]
fn an_answer_after_the_lease_counts_if_it_is_an_acceptance_or_a_silence() {
    let order = handler();
    let lapsed = become_of(&order, Event::Watched(LEASE), WECHAT, later(30_000));
    for nothing_new in [declined(Class::Refused), silence()] {
        assert_eq!(
            step(&lapsed, attempt(&order, nothing_new), WECHAT, NOW, 0),
            Step::Stay
        );
    }
    // A late silence takes back what was concluded without knowing of that attempt.
    let absent = || Event::Asked {
        finding: found(Found::NoSuchOrder),
        heard: Duration::from_secs(20),
    };
    let heard = become_of(&lapsed, absent(), WECHAT, later(31_000));
    let renewed = become_of(&heard, attempt(&order, silence()), WECHAT, later(32_000));
    assert!(
        matches!(&renewed.state, State::Unknown(unknown) if unknown.absence.is_none()),
        "the hearing begins anew: {renewed:?}"
    );
    let refused = become_of(&lapsed, absent(), HANDLER, later(31_000));
    assert_eq!(name(&refused), "refused");
    for doubt in [silence(), declined(Class::Unknown), declined(Class::Conflict)] {
        let reopened = become_of(&refused, attempt(&order, doubt), HANDLER, later(32_000));
        assert_eq!(name(&reopened), "unknown");
        assert!(reopened.due_at().is_some(), "it is asked about");
    }
    assert_eq!(
        step(
            &refused,
            attempt(&order, declined(Class::RejectedUnprocessed)),
            HANDLER,
            NOW,
            0
        ),
        Step::Stay
    );
    // The attempt that is under way by then is not the only one that may have paid: its refusal clears nothing.
    let again = refused.claimed_again(lease(2), vec![], later(33_000)).unwrap();
    let doubted = become_of(&again, attempt(&order, silence()), HANDLER, later(34_000));
    assert!(
        matches!(&doubted.state, State::Pending(pending) if matches!(pending.before, Before::Unknown(_))),
        "{doubted:?}"
    );
    assert_eq!(
        name(&become_of(&lapsed, attempt(&order, accepted()), WECHAT, NOW)),
        "succeeded"
    );
}

/// Found by the simulation: a replica whose own claim was never written took back another replica's claim, which
/// had paid.
#[test]
fn what_became_of_a_claim_that_was_never_written_says_nothing_about_another_one() {
    let mut mine = handler();
    mine.version.nonce = 1;
    let mut theirs = handler();
    theirs.version.nonce = 2;
    for evidence in [
        Evidence::NeverSent { why: String::new() },
        declined(Class::Refused),
    ] {
        assert_eq!(
            step(&theirs, attempt(&mine, evidence), WECHAT, NOW, 0),
            Step::Stay
        );
    }
}

#[test]
fn acceptance_wins_over_everything_and_nothing_wins_over_it() {
    let fresh = handler();
    let refused = become_of(&fresh, attempt(&fresh, declined(Class::Refused)), WECHAT, NOW);
    assert_eq!(
        name(&become_of(&refused, attempt(&fresh, accepted()), WECHAT, NOW)),
        "succeeded"
    );
    let event = asked(found(Found::Accepted {
        fields: Fields::new(),
    }));
    assert_eq!(name(&become_of(&refused, event, WECHAT, NOW)), "succeeded");

    let succeeded = become_of(&fresh, attempt(&fresh, accepted()), WECHAT, NOW);
    let not_paid = Found::NotPaid(Refusal {
        code: "F".into(),
        text: String::new(),
        number_spent: true,
    });
    for event in [
        attempt(&succeeded, declined(Class::NumberSpent)),
        attempt(&succeeded, Evidence::NeverSent { why: String::new() }),
        asked(found(not_paid)),
        asked(found(Found::NoSuchOrder)),
        Event::Watched(Duration::MAX),
        Event::Operator {
            succeeded: false,
            reason: "r".into(),
        },
    ] {
        assert_eq!(
            step(&succeeded, event.clone(), WECHAT, later(i64::MAX / 4), 0),
            Step::Stay,
            "{event:?}"
        );
    }
}

#[test]
fn an_upstreams_later_word_is_kept_beside_the_outcome() {
    let fresh = handler();
    let succeeded = become_of(&fresh, attempt(&fresh, accepted()), WECHAT, NOW);
    let refund = Finding {
        status: Some("REFUND".into()),
        ..found(Found::Accepted {
            fields: Fields::new(),
        })
    };
    let told = become_of(&succeeded, asked(refund.clone()), WECHAT, NOW);
    assert_eq!(
        (name(&told), told.upstream_status.as_deref()),
        ("succeeded", Some("REFUND"))
    );
    assert_eq!(step(&told, asked(refund), WECHAT, NOW, 0), Step::Stay);
    // Even a word that we do not know does not take the acceptance away.
    let new_word = Finding {
        status: Some("BRAND_NEW".into()),
        ..found(Found::Moving)
    };
    let told = become_of(&told, asked(new_word), WECHAT, NOW);
    assert_eq!(
        (name(&told), told.upstream_status.as_deref()),
        ("succeeded", Some("BRAND_NEW"))
    );
}

/// For an upstream that pays on each call: the process that has heard it counts the time; neither wall clock nor
/// ledger does.
#[test]
fn a_handlers_no_such_order_is_believed_by_who_has_heard_it_long_enough() {
    let fresh = handler();
    let unknown = become_of(&fresh, attempt(&fresh, silence()), HANDLER, NOW);
    let heard = |order: &Order, ms: u64, now| {
        let event = Event::Asked {
            finding: found(Found::NoSuchOrder),
            heard: Duration::from_millis(ms),
        };
        name(&become_of(order, event, HANDLER, now))
    };
    for now in [NOW, later(400 * 86_400_000), later(-86_400_000)] {
        assert_eq!(heard(&unknown, 19_999, now), "unknown");
        assert_eq!(heard(&unknown, 20_000, now), "refused");
    }
}

/// For an upstream that refuses doubles: a day of nothing else, in the ledger's time.
#[test]
fn an_idempotent_upstreams_no_such_order_is_believed_after_a_day_of_nothing_else() {
    let fresh = handler();
    let absent = || asked(found(Found::NoSuchOrder));
    const HOUR: i64 = 3_600_000;
    let first = become_of(&fresh, attempt(&fresh, silence()), WECHAT, NOW);
    let first = become_of(&first, absent(), WECHAT, NOW);
    // Hears it each hour, up to and including the last one.
    let hear = |mut order: Order, hours: std::ops::RangeInclusive<i64>| {
        for hour in hours {
            assert_eq!(name(&order), "unknown", "{hour}");
            order = become_of(&order, absent(), WECHAT, later(hour * HOUR));
        }
        order
    };
    assert_eq!(name(&hear(first.clone(), 1..=23)), "unknown");
    assert_eq!(name(&hear(first.clone(), 1..=24)), "refused");
    // A wall clock that runs ahead proves nothing.
    let ahead = Moment {
        wall: later(400 * 24 * HOUR).wall,
        ..later(HOUR)
    };
    assert_eq!(name(&become_of(&first, absent(), WECHAT, ahead)), "unknown");
    // Another word, a silence, a long pause or another attempt starts the day anew.
    for other in [found(Found::Moving), Finding::unclear("")] {
        let order = become_of(
            &hear(first.clone(), 1..=12),
            asked(other),
            WECHAT,
            later(12 * HOUR),
        );
        assert_eq!(name(&hear(order.clone(), 13..=36)), "unknown");
        assert_eq!(name(&hear(order, 13..=37)), "refused");
    }
    let order = become_of(&hear(first.clone(), 1..=12), absent(), WECHAT, later(12 * HOUR));
    assert_eq!(name(&hear(order, 15..=38)), "unknown");
    let again = hear(first, 1..=12)
        .claimed_again(lease(2), vec![], later(12 * HOUR))
        .unwrap();
    let order = become_of(&again, attempt(&again, silence()), WECHAT, later(12 * HOUR));
    assert_eq!(name(&hear(order, 13..=36)), "unknown");
}

/// WeChat's queries reach back 30 days from the beginning of the doubt; a handler's have no end.
#[test]
fn outside_of_its_window_no_such_order_proves_nothing() {
    const DAY: i64 = 86_400_000;
    let heard_all_day = |upstream: Destination, from: Moment, to: Moment| {
        let fresh = claimed(upstream);
        let mut order = become_of(&fresh, attempt(&fresh, silence()), WECHAT, NOW);
        let steps = (to.ledger.0 - from.ledger.0) / 3_600_000;
        for step in 0..=steps {
            if order.state.name() == StateName::Refused {
                break;
            }
            let now = Moment::from((from.wall.0 + step * 3_600_000, from.ledger.0 + step * 3_600_000));
            order = become_of(&order, asked(found(Found::NoSuchOrder)), WECHAT, now);
        }
        name(&order)
    };
    let packet = || Destination::Wechat(Product::Redpack);
    assert_eq!(
        heard_all_day(packet(), later(28 * DAY), later(29 * DAY)),
        "refused"
    );
    assert_eq!(
        heard_all_day(packet(), later(30 * DAY + 1), later(32 * DAY)),
        "unknown"
    );
    assert_eq!(
        heard_all_day(at_handler(), later(60 * DAY), later(61 * DAY)),
        "refused"
    );
    // A wall clock that was set back does not open the window again.
    let back = |days: i64| Moment::from((NOW.wall.0 + DAY, later(days * DAY).ledger.0));
    assert_eq!(heard_all_day(packet(), back(31), back(33)), "unknown");
    // A certain refusal ends the doubt: the next attempt has a window of its own.
    let fresh = claimed(packet());
    let refused = become_of(&fresh, attempt(&fresh, declined(Class::Refused)), WECHAT, NOW);
    let again = refused.claimed_again(lease(2), vec![], later(31 * DAY)).unwrap();
    let unknown = become_of(&again, attempt(&again, silence()), WECHAT, later(31 * DAY));
    assert!(unknown.is_within_query_window(later(60 * DAY)));
    assert!(!unknown.is_within_query_window(later(62 * DAY)));
    assert!(unknown.nears_the_end_of_its_window(later(59 * DAY)));
    assert!(!unknown.nears_the_end_of_its_window(later(50 * DAY)));
    // A repeat of an unknown order has none of its own.
    let again = unknown.claimed_again(lease(3), vec![], later(40 * DAY)).unwrap();
    assert_eq!(again.doubt_since, unknown.doubt_since);
}

/// The status of an earlier attempt does not outlive that attempt.
#[test]
fn what_was_said_of_a_refused_attempt_says_nothing_about_the_next_one() {
    let fresh = claimed(Destination::Wechat(Product::Transfer));
    let unknown = become_of(&fresh, attempt(&fresh, silence()), WECHAT, NOW);
    let failed = Finding {
        status: Some("FAILED".into()),
        ..found(Found::NotPaid(Refusal {
            code: "F".into(),
            text: String::new(),
            number_spent: false,
        }))
    };
    let refused = become_of(&unknown, asked(failed), WECHAT, NOW);
    assert_eq!(refused.upstream_status.as_deref(), Some("FAILED"));
    let again = refused.claimed_again(lease(2), vec![], NOW).unwrap();
    assert_eq!(again.upstream_status, None);
    let paid = become_of(&again, attempt(&again, accepted()), WECHAT, NOW);
    assert_eq!(paid.upstream_status, None);
    let late = become_of(&refused, attempt(&fresh, accepted()), WECHAT, NOW);
    assert_eq!(late.upstream_status, None);
}

/// An order owes again what a refusal gave back if it turns out to be paid, or perhaps paid, whatever the limits
/// say.
#[test]
fn an_acceptance_or_a_doubt_after_a_refusal_is_charged() {
    let charge = |name: &str| Charge {
        counter: crate::limits::Counter::MerchantFen,
        name: name.into(),
        amount: 100,
        limit: 1000,
    };
    let mut fresh = handler();
    fresh.charges = vec![charge("merchant-fen:1")];
    let unknown = become_of(&fresh, Event::Watched(LEASE), HANDLER, NOW);
    assert_eq!(unknown.charges, fresh.charges);
    let absent = Event::Asked {
        finding: found(Found::NoSuchOrder),
        heard: LEASE,
    };
    let refused = become_of(&unknown, absent, HANDLER, NOW);
    assert_eq!((refused.charges.len(), refused.returned.len()), (0, 1));
    let owed = vec![Charge {
        limit: i64::MAX,
        ..charge("merchant-fen:1")
    }];
    for evidence in [accepted(), silence()] {
        let back = become_of(&refused, attempt(&fresh, evidence), HANDLER, NOW);
        assert_eq!((&back.charges, back.returned.len()), (&owed, 0));
    }
    let again = refused
        .claimed_again(lease(2), vec![charge("merchant-fen:2")], NOW)
        .unwrap();
    assert_eq!(again.charges, [charge("merchant-fen:2")]);
    assert!(
        again.returned.is_empty(),
        "the new claim owes what it is charged, and no more"
    );
}

#[test]
fn queries_pause_longer_each_time() {
    let fresh = handler();
    let mut order = become_of(&fresh, attempt(&fresh, silence()), WECHAT, NOW);
    let (mut last, mut now) = (0, NOW);
    for _ in 0..8 {
        let pause = order.due_at().unwrap().0 - now.ledger.0;
        assert!(pause > last, "{pause} after {last}");
        last = pause;
        // A caller's query in between postpones nothing.
        let asked_early = become_of(&order, asked(Finding::unclear("")), WECHAT, now);
        assert_eq!(asked_early.due_at(), order.due_at());
        now = Moment::from((now.wall.0 + pause, now.ledger.0 + pause));
        order = become_of(&asked_early, asked(Finding::unclear("")), WECHAT, now);
    }
}

#[test]
fn a_repeat_must_be_the_same_person_app_and_amount() {
    let order = handler();
    for (change, field) in [
        (("wxAppId", "wx2"), "wxAppId"),
        (("openid", "user-2"), "openid"),
        (("amount", "101"), "amount"),
    ] {
        assert_eq!(order.repeat(&request(&[change]), NOW), Repeat::Differs(field));
    }
    assert_eq!(
        order.repeat(&request(&[("remark", "another"), ("actName", "b")]), NOW),
        Repeat::Wait
    );
}

#[test]
fn what_a_repeat_may_do_in_each_state() {
    let fresh = claimed(Destination::Wechat(Product::Transfer));
    let repeat = |order: &Order, ms: i64| order.repeat(&request(&[]), later(ms));
    let one_second_later = Repeat::SendAgain {
        pause: Duration::from_secs(1),
    };
    let at_once = Repeat::SendAgain {
        pause: Duration::ZERO,
    };
    let refused = become_of(&fresh, attempt(&fresh, declined(Class::Refused)), WECHAT, NOW);
    assert_eq!(repeat(&refused, 0), one_second_later);
    assert_eq!(
        repeat(&refused, -86_400_000),
        one_second_later,
        "no step of a clock makes a repeat wait longer"
    );
    assert_eq!(
        repeat(&refused, 31 * 86_400_000),
        at_once,
        "what was refused for certain has no window"
    );
    let number_spent = become_of(&fresh, attempt(&fresh, declined(Class::NumberSpent)), WECHAT, NOW);
    assert_eq!(repeat(&number_spent, 0), Repeat::Answer);
    assert_eq!(number_spent.claimed_again(lease(2), vec![], NOW), None);
    let unknown = become_of(&fresh, attempt(&fresh, silence()), WECHAT, NOW);
    assert_eq!(repeat(&unknown, 0), Repeat::AskFirst);
    assert_eq!(unknown.repeat_unsettled(WECHAT, NOW), one_second_later);
    assert_eq!(
        unknown.repeat_unsettled(HANDLER, NOW),
        Repeat::Answer,
        "it may pay on each call"
    );
    assert_eq!(
        unknown.repeat_unsettled(WECHAT, later(2 * 86_400_000)),
        Repeat::Answer
    );
    let succeeded = become_of(&fresh, attempt(&fresh, accepted()), WECHAT, NOW);
    assert_eq!(repeat(&succeeded, 0), Repeat::Answer);
    assert_eq!(succeeded.claimed_again(lease(2), vec![], NOW), None);
    assert_eq!(fresh.claimed_again(lease(2), vec![], NOW), None);
}

#[test]
fn an_operator_settles_what_is_unknown_and_nothing_else() {
    let fresh = handler();
    let says = |succeeded| Event::Operator {
        succeeded,
        reason: "seen in the statement".into(),
    };
    let unknown = become_of(&fresh, attempt(&fresh, silence()), WECHAT, NOW);
    assert_eq!(name(&become_of(&unknown, says(true), WECHAT, NOW)), "succeeded");
    let refused = become_of(&unknown, says(false), WECHAT, NOW);
    assert_eq!(name(&refused), "refused");
    assert_eq!(
        refused.repeat(&request(&[]), NOW),
        Repeat::Answer,
        "the number is spent"
    );
    assert_eq!(step(&fresh, says(true), WECHAT, NOW, 0), Step::Stay);
    assert_eq!(step(&refused, says(true), WECHAT, NOW, 0), Step::Stay);
}

#[test]
fn a_version_is_written_and_read_back() {
    let version = Version {
        number: 12,
        nonce: 0xAB,
    };
    assert_eq!(version.to_string(), "12-00000000000000ab");
    assert_eq!(Version::try_from(version.to_string()), Ok(version));
    for bad in ["", "12", "12-", "-ab", "x-ab", "12-xy", "12-ab-1"] {
        assert!(Version::try_from(bad.to_owned()).is_err(), "{bad}");
    }
}

#[test]
fn only_a_settled_order_has_a_time_of_settling_and_only_another_is_due() {
    let soon = later(5);
    let fresh = handler();
    assert_eq!(
        (fresh.settled_at(), fresh.due_at()),
        (None, Some(later(15_000).ledger)),
        "somebody begins to watch it in the middle of its lease"
    );
    for (evidence, settled) in [
        (accepted(), Some(soon.wall)),
        (declined(Class::Refused), Some(soon.wall)),
        (silence(), None),
    ] {
        let order = become_of(&fresh, attempt(&fresh, evidence), WECHAT, soon);
        assert_eq!(order.changed_at, soon.ledger);
        assert_eq!(order.settled_at(), settled, "{order:?}");
        assert_eq!(order.due_at().is_none(), settled.is_some(), "{order:?}");
    }
}

#[test]
fn a_history_keeps_its_beginning_and_its_end() {
    let mut order = handler();
    for n in 0..200 {
        order = order.become_state(order.state.clone(), format!("change {n}"), NOW);
    }
    assert_eq!(order.history.len(), MAX_HISTORY);
    assert_eq!(order.history.first().map(|c| c.why.as_str()), Some("claimed"));
    assert_eq!(order.history.last().map(|c| c.why.as_str()), Some("change 199"));
}
