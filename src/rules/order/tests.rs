//! Small worlds, enumerated: every sequence of events up to a length, over one order and each kind of upstream, against
//! a plain model of the promise.

use std::time::Duration;

use super::step::{Event, Policy, Step, step};
use super::*;
use crate::rules::contract::send::SendRequest;
use crate::rules::json;
use crate::rules::order::repeat::Repeat;
use crate::rules::outcome::{Class, Evidence, Finding, Found};

const NOW: Millis = Millis(1_795_449_599_999);
const LEASE: Duration = Duration::from_secs(30);
const WECHAT: Policy = Policy {
    refuses_doubles: true,
    not_found_after: Duration::from_secs(86_400),
};
const HANDLER: Policy = Policy {
    refuses_doubles: false,
    not_found_after: Duration::from_secs(20),
};

pub(crate) fn request(changes: &[(&str, &str)]) -> SendRequest {
    let mut fields = json::decode(
        r#"{"wxAppId":"wx1","mchId":"19","mchBillno":"A1","openid":"user-1","amount":100,"clientIp":"10.0.0.1","actName":"a","remark":"r","tradeRecordId":7}"#,
    )
    .unwrap()
    .into_owned();
    for (name, text) in changes {
        fields.take(name);
        fields
            .push(
                (*name).to_owned().into(),
                crate::rules::fields::Value::Text((*text).to_owned().into()),
            )
            .unwrap();
    }
    SendRequest::read(fields).unwrap()
}

fn lease(seal: u64) -> Lease {
    Lease { seal, length: LEASE }
}

pub(crate) fn claimed(upstream: UpstreamKind) -> Order {
    let new = NewOrder {
        upstream,
        encoding: Encoding::Json,
        openid: OpenId::parse("oX12abcdefghijk9f").unwrap(),
        parameters: Fields::new(),
        charges: vec![],
    };
    Order::claimed(&request(&[]), new, lease(1), NOW)
}

fn handler() -> Order {
    claimed(UpstreamKind::Handler)
}

fn declined(class: Class) -> Evidence {
    Evidence::Declined {
        class,
        code: "CODE".into(),
        text: "text".into(),
    }
}

fn accepted() -> Evidence {
    Evidence::Accepted {
        fields: Fields::new(),
    }
}

fn silence() -> Evidence {
    Evidence::NoAnswer {
        why: "time-out".into(),
    }
}

fn found(found: Found) -> Finding {
    Finding {
        found,
        status: None,
        report: Fields::new(),
    }
}

fn attempt(order: &Order, evidence: Evidence) -> Event {
    Event::Attempted {
        version: order.version,
        evidence,
    }
}

fn become_of(order: &Order, event: Event, policy: Policy, now: Millis) -> Order {
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
        (declined(Class::Door), "refused"),
        (declined(Class::Burnt), "refused"),
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
fn a_doubt_is_lifted_by_acceptance_or_a_burnt_number_only() {
    let fresh = handler();
    let unknown = become_of(&fresh, attempt(&fresh, silence()), WECHAT, NOW);
    let again = unknown.claimed_again(lease(2), vec![], NOW).unwrap();
    for (evidence, state) in [
        (accepted(), "succeeded"),
        (declined(Class::Burnt), "refused"),
        (declined(Class::Refused), "unknown"),
        (declined(Class::Door), "unknown"),
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
            attempt(&again, declined(Class::Door)),
            WECHAT,
            NOW
        )),
        "refused"
    );
}

#[test]
fn a_lease_lapses_into_doubt_and_not_before_its_time() {
    let order = handler();
    let almost = Millis(NOW.0 + 29_999);
    assert_eq!(step(&order, Event::LeaseLapsed, WECHAT, almost, 0), Step::Stay);
    assert_eq!(order.repeat(&request(&[]), almost), Repeat::Wait);
    let over = NOW.after(LEASE);
    assert_eq!(order.repeat(&request(&[]), over), Repeat::Lapsed);
    let lapsed = become_of(&order, Event::LeaseLapsed, WECHAT, over);
    assert_eq!(name(&lapsed), "unknown");
    assert_eq!(lapsed.due_at(), Some(over), "it is asked about at once");
}

#[test]
fn an_answer_after_the_lease_counts_if_it_is_an_acceptance() {
    let order = handler();
    let lapsed = become_of(&order, Event::LeaseLapsed, WECHAT, NOW.after(LEASE));
    assert_eq!(
        step(&lapsed, attempt(&order, declined(Class::Refused)), WECHAT, NOW, 0),
        Step::Stay
    );
    assert_eq!(
        name(&become_of(&lapsed, attempt(&order, accepted()), WECHAT, NOW)),
        "succeeded"
    );
}

/// Found by the simulation: a replica's claim that was never written took back another replica's, which had paid.
#[test]
fn what_became_of_a_claim_that_was_never_written_says_nothing_about_another_one() {
    let mut mine = handler();
    mine.version.seal = 1;
    let mut theirs = handler();
    theirs.version.seal = 2;
    for evidence in [
        Evidence::NeverSent { why: String::new() },
        declined(Class::Refused),
        silence(),
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
    let asked = Event::Asked(found(Found::Accepted {
        fields: Fields::new(),
    }));
    assert_eq!(name(&become_of(&refused, asked, WECHAT, NOW)), "succeeded");

    let succeeded = become_of(&fresh, attempt(&fresh, accepted()), WECHAT, NOW);
    let not_paid = Found::NotPaid(Refusal {
        code: "F".into(),
        text: String::new(),
        burnt: true,
    });
    for event in [
        attempt(&succeeded, declined(Class::Burnt)),
        attempt(&succeeded, Evidence::NeverSent { why: String::new() }),
        Event::Asked(found(not_paid)),
        Event::Asked(found(Found::NoSuchOrder)),
        Event::LeaseLapsed,
        Event::Operator {
            succeeded: false,
            reason: "r".into(),
        },
    ] {
        assert_eq!(
            step(&succeeded, event.clone(), WECHAT, Millis(i64::MAX), 0),
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
    let told = become_of(&succeeded, Event::Asked(refund.clone()), WECHAT, NOW);
    assert_eq!(
        (name(&told), told.upstream_status.as_deref()),
        ("succeeded", Some("REFUND"))
    );
    assert_eq!(step(&told, Event::Asked(refund), WECHAT, NOW, 0), Step::Stay);
    // Not even a word that is new to us takes the acceptance away.
    let new_word = Finding {
        status: Some("BRAND_NEW".into()),
        ..found(Found::Moving)
    };
    let told = become_of(&told, Event::Asked(new_word), WECHAT, NOW);
    assert_eq!(
        (name(&told), told.upstream_status.as_deref()),
        ("succeeded", Some("BRAND_NEW"))
    );
}

#[test]
fn no_such_order_is_believed_after_its_time_only() {
    let fresh = handler();
    let absent = || Event::Asked(found(Found::NoSuchOrder));
    let late = |order: &Order, seconds: i64, policy| {
        name(&become_of(
            order,
            absent(),
            policy,
            Millis(NOW.0 + seconds * 1000),
        ))
    };
    let unknown = become_of(&fresh, attempt(&fresh, silence()), HANDLER, NOW);
    assert_eq!(late(&unknown, 19, HANDLER), "unknown");
    assert_eq!(late(&unknown, 20, HANDLER), "refused");
    // Towards an upstream that refuses doubles it must have been heard all the time.
    assert_eq!(late(&unknown, 90_000, WECHAT), "unknown");
    let heard = become_of(&unknown, absent(), WECHAT, NOW);
    assert_eq!(late(&heard, 86_399, WECHAT), "unknown");
    assert_eq!(late(&heard, 86_400, WECHAT), "refused");
    // Another word in between begins the time anew; silence does not.
    let moving = become_of(&heard, Event::Asked(found(Found::Moving)), WECHAT, NOW);
    assert_eq!(late(&moving, 86_400, WECHAT), "unknown");
    let silent = become_of(&heard, Event::Asked(Finding::unclear("")), WECHAT, NOW);
    assert_eq!(late(&silent, 86_400, WECHAT), "refused");
    // So does another attempt.
    let again = heard
        .claimed_again(lease(2), vec![], Millis(NOW.0 + 80_000_000))
        .unwrap();
    let unknown = become_of(
        &again,
        attempt(&again, silence()),
        WECHAT,
        Millis(NOW.0 + 80_000_000),
    );
    assert_eq!(late(&unknown, 86_400, WECHAT), "unknown");
}

#[test]
fn queries_pause_longer_each_time() {
    let fresh = handler();
    let mut order = become_of(&fresh, attempt(&fresh, silence()), WECHAT, NOW);
    let mut last = 0;
    for _ in 0..8 {
        let pause = order.due_at().unwrap().0 - NOW.0;
        assert!(pause > last, "{pause} after {last}");
        last = pause;
        order = become_of(&order, Event::Asked(Finding::unclear("")), WECHAT, NOW);
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
    let fresh = claimed(UpstreamKind::Wechat(Product::Transfer));
    let repeat = |order: &Order, ms: i64| order.repeat(&request(&[]), Millis(NOW.0 + ms));
    let one_second_later = Repeat::SendAgain {
        not_before: Millis(NOW.0 + 1000),
    };
    let refused = become_of(&fresh, attempt(&fresh, declined(Class::Refused)), WECHAT, NOW);
    assert_eq!(repeat(&refused, 0), one_second_later);
    assert_eq!(
        repeat(&refused, 2 * 86_400_000),
        Repeat::Answer,
        "a transfer's window has closed"
    );
    let burnt = become_of(&fresh, attempt(&fresh, declined(Class::Burnt)), WECHAT, NOW);
    assert_eq!(repeat(&burnt, 0), Repeat::Answer);
    assert_eq!(burnt.claimed_again(lease(2), vec![], NOW), None);
    let unknown = become_of(&fresh, attempt(&fresh, silence()), WECHAT, NOW);
    assert_eq!(repeat(&unknown, 0), Repeat::AskFirst);
    assert_eq!(unknown.repeat_unsettled(WECHAT, NOW), one_second_later);
    assert_eq!(
        unknown.repeat_unsettled(HANDLER, NOW),
        Repeat::Answer,
        "it may pay on each call"
    );
    assert_eq!(
        unknown.repeat_unsettled(WECHAT, Millis(NOW.0 + 2 * 86_400_000)),
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
        seal: 0xAB,
    };
    assert_eq!(version.to_string(), "12-00000000000000ab");
    assert_eq!(Version::try_from(version.to_string()), Ok(version));
    for bad in ["", "12", "12-", "-ab", "x-ab", "12-xy", "12-ab-1"] {
        assert!(Version::try_from(bad.to_owned()).is_err(), "{bad}");
    }
}

#[test]
fn only_a_settled_order_has_a_time_of_settling_and_only_another_is_due() {
    let later = Millis(NOW.0 + 5);
    let fresh = handler();
    assert_eq!(
        (fresh.settled_at(), fresh.due_at()),
        (None, Some(NOW.after(LEASE)))
    );
    for (evidence, settled) in [
        (accepted(), Some(later)),
        (declined(Class::Refused), Some(later)),
        (silence(), None),
    ] {
        let order = become_of(&fresh, attempt(&fresh, evidence), WECHAT, later);
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

/// What the upstream has really done with the order, in the enumerated worlds.
#[derive(Clone, Debug, Default)]
struct Books {
    paid: u32,
}

/// One thing that can happen in a small world.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Happening {
    PaidAndSaidSo,
    PaidInSilence,
    RefusedAtTheDoor,
    RefusedInSilence,
    NeverSent,
    LeaseLapses,
    AskedTruthfully,
    AskedInVain,
    RepeatSends,
    AYearPasses,
}

const HAPPENINGS: [Happening; 10] = [
    Happening::PaidAndSaidSo,
    Happening::PaidInSilence,
    Happening::RefusedAtTheDoor,
    Happening::RefusedInSilence,
    Happening::NeverSent,
    Happening::LeaseLapses,
    Happening::AskedTruthfully,
    Happening::AskedInVain,
    Happening::RepeatSends,
    Happening::AYearPasses,
];

struct World {
    order: Option<Order>,
    books: Books,
    now: Millis,
    policy: Policy,
}

impl World {
    /// Applies what happens if it can happen in this state; `false` where it cannot.
    fn happen(&mut self, happening: Happening) -> bool {
        let Some(order) = self.order.clone() else {
            return false;
        };
        let pending = matches!(order.state, State::Pending(_));
        // An upstream that refuses doubles pays an order once, whatever it is sent.
        let pays = |books: &mut Books, policy: Policy| {
            if !policy.refuses_doubles || books.paid == 0 {
                books.paid += 1;
            }
        };
        let event = match happening {
            Happening::PaidAndSaidSo if pending => {
                pays(&mut self.books, self.policy);
                attempt(&order, accepted())
            }
            Happening::PaidInSilence if pending => {
                pays(&mut self.books, self.policy);
                attempt(&order, silence())
            }
            Happening::RefusedAtTheDoor if pending => attempt(&order, declined(Class::Door)),
            Happening::RefusedInSilence if pending => attempt(&order, silence()),
            Happening::NeverSent if pending => attempt(&order, Evidence::NeverSent { why: String::new() }),
            Happening::LeaseLapses if pending => {
                self.now = self.now.after(LEASE);
                Event::LeaseLapsed
            }
            Happening::AskedTruthfully => Event::Asked(found(if self.books.paid > 0 {
                Found::Accepted {
                    fields: Fields::new(),
                }
            } else {
                Found::NoSuchOrder
            })),
            Happening::AskedInVain => Event::Asked(Finding::unclear("")),
            Happening::RepeatSends => {
                let first = order.repeat(&request(&[]), self.now);
                let what = if first == Repeat::AskFirst {
                    order.repeat_unsettled(self.policy, self.now)
                } else {
                    first
                };
                if !matches!(what, Repeat::SendAgain { .. }) {
                    return false;
                }
                self.now = self.now.after(Duration::from_secs(1));
                self.order = order.claimed_again(lease(2), vec![], self.now);
                assert!(
                    self.order.is_some(),
                    "what may be sent again can be claimed again: {order:?}"
                );
                return true;
            }
            Happening::AYearPasses if !pending => {
                self.now = self.now.after(Duration::from_secs(365 * 86_400));
                return true;
            }
            _ => return false,
        };
        match step(&order, event, self.policy, self.now, 0) {
            Step::Stay => {}
            Step::Become(next) => self.order = Some(*next),
            Step::Remove => self.order = None,
        }
        true
    }

    fn check(&self, path: &[Happening]) {
        assert!(self.books.paid <= 1, "paid {} times: {path:?}", self.books.paid);
        let state = self.order.as_ref().map(|order| &order.state);
        if self.books.paid > 0 {
            assert!(
                !matches!(state, Some(State::Refused(_)) | None),
                "paid, and called refused: {path:?} {state:?}"
            );
        } else {
            assert!(
                !matches!(state, Some(State::Succeeded(_))),
                "called succeeded, and not paid: {path:?}"
            );
        }
    }
}

/// Every sequence of up to six happenings. "No such order" is only ever said when nothing was paid and nothing is on its
/// way, which is what `not_found_after` waits for.
#[test]
fn no_sequence_of_events_breaks_the_promise() {
    let mut worlds = 0u64;
    for (policy, upstream) in [
        (WECHAT, UpstreamKind::Wechat(Product::Redpack)),
        (WECHAT, UpstreamKind::Wechat(Product::Transfer)),
        (WECHAT, UpstreamKind::TransferBill),
        (HANDLER, UpstreamKind::Handler),
    ] {
        let first = claimed(upstream);
        let mut stack: Vec<Vec<Happening>> = vec![vec![]];
        while let Some(path) = stack.pop() {
            let mut world = World {
                order: Some(first.clone()),
                books: Books::default(),
                now: NOW,
                policy,
            };
            if !path.iter().all(|&happening| world.happen(happening)) {
                continue;
            }
            world.check(&path);
            worlds += 1;
            if path.len() < 6 {
                stack.extend(HAPPENINGS.iter().map(|&next| [path.as_slice(), &[next]].concat()));
            }
        }
    }
    assert!(worlds > 10_000, "only {worlds} worlds were seen");
}
