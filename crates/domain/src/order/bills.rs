//! Tests of a v3 bill after its acceptance: the queries until its final state, and what an unpaid end gives back.

use std::time::Duration;

use super::fixtures::{claimed, request};
use super::step::{Event, Policy, Step, step};
use super::*;
use crate::limits::{Charge, Counter};
use crate::order::repeat::Repeat;
use crate::outcome::{Class, Evidence, Finding, Found, Refusal};

const POLICY: Policy = Policy {
    refuses_doubles: true,
    not_found_after: Duration::from_secs(86_400),
};

fn apply(order: &Order, event: Event, now: Moment) -> Option<Order> {
    match step(order, event, POLICY, now, 7) {
        Step::Become(next) => Some(*next),
        Step::Stay => None,
        Step::Remove => panic!("a bill is never removed here"),
    }
}

fn claim() -> Order {
    let mut order = claimed(Destination::TransferBill);
    order.charges = vec![Charge {
        counter: Counter::MerchantFen,
        name: "merchant-fen:1".into(),
        amount: 100,
        limit: 1000,
    }];
    order
}

fn opened(status: &str) -> Order {
    let order = claim();
    let mut fields = Fields::new();
    fields.set("hbpackage", "p");
    let event = Event::Attempted {
        version: order.version,
        evidence: Evidence::Opened {
            fields,
            status: status.into(),
        },
    };
    apply(&order, event, order.created_at).unwrap()
}

fn asked(word: &str) -> Event {
    let found = match word {
        "SUCCESS" | "TRANSFERING" => Found::Accepted {
            fields: Fields::new(),
        },
        "FAIL" | "CANCELLED" => Found::NotPaid(Refusal {
            code: word.into(),
            text: String::new(),
            number_spent: true,
        }),
        _ => Found::Moving,
    };
    queried(Finding {
        found,
        status: Some(word.into()),
        report: Fields::new(),
    })
}

fn queried(finding: Finding) -> Event {
    Event::Asked {
        finding,
        heard: Duration::ZERO,
    }
}

fn after(moment: Moment, span: Duration) -> Moment {
    Moment {
        wall: moment.wall.after(span),
        ledger: moment.ledger.after(span),
    }
}

fn later(order: &Order, seconds: u64) -> Moment {
    after(order.created_at, Duration::from_secs(seconds))
}

#[test]
fn an_accepted_bill_is_due_until_its_final_state() {
    let order = opened("WAIT_USER_CONFIRM");
    assert_eq!(order.state.name(), StateName::Succeeded);
    assert_eq!(order.upstream_status.as_deref(), Some("WAIT_USER_CONFIRM"));
    assert!(order.due_at().unwrap() > order.created_at.ledger);
    assert_eq!(opened("SUCCESS").due_at(), None);

    let moving = apply(&order, asked("WAIT_USER_CONFIRM"), later(&order, 1)).unwrap();
    assert_eq!(moving.history, order.history, "nothing new is no change");
    assert!(moving.due_at() > order.due_at());
    let silent = apply(&order, queried(Finding::unclear("")), later(&order, 1)).unwrap();
    assert!(silent.due_at() > order.due_at());
    let absent = apply(&order, queried(Finding::no_such_order()), later(&order, 1)).unwrap();
    assert_eq!(absent.state.name(), StateName::Succeeded);

    let confirmed = apply(&moving, asked("TRANSFERING"), later(&order, 60)).unwrap();
    assert!(confirmed.due_at().is_some());
    let paid = apply(&confirmed, asked("SUCCESS"), later(&order, 70)).unwrap();
    assert_eq!(paid.due_at(), None);
    assert_eq!(paid.upstream_status.as_deref(), Some("SUCCESS"));
    assert_eq!(paid.charges.len(), 1);
    assert_eq!(paid.settled_at(), order.settled_at());
    assert_eq!(
        apply(&paid, asked("SUCCESS"), later(&order, 80)),
        None,
        "told twice"
    );
}

#[test]
fn one_that_ends_unpaid_gives_its_limits_back_and_stays_answered() {
    for word in ["FAIL", "CANCELLED"] {
        let order = opened("WAIT_USER_CONFIRM");
        let unpaid = apply(&order, asked(word), later(&order, 90_000)).unwrap();
        assert_eq!(unpaid.state.name(), StateName::Succeeded);
        assert_eq!(unpaid.upstream_status.as_deref(), Some(word));
        assert_eq!((unpaid.due_at(), unpaid.charges.len()), (None, 0));
        let State::Succeeded(succeeded) = &unpaid.state else {
            panic!("{unpaid:?}")
        };
        assert_eq!(succeeded.fields.characters("hbpackage"), Some("p"));
        let repeat = unpaid.repeat(&request(&[]), later(&order, 90_001));
        assert_eq!(repeat, Repeat::Answer, "never sent again");
        assert_eq!(
            apply(&unpaid, asked(word), later(&order, 90_001)),
            None,
            "told twice"
        );
    }
}

#[test]
fn an_old_word_does_not_replace_the_end() {
    for end in ["SUCCESS", "FAIL"] {
        let order = opened("WAIT_USER_CONFIRM");
        let ended = apply(&order, asked(end), later(&order, 5)).unwrap();
        for old in ["WAIT_USER_CONFIRM", "TRANSFERING", "CANCELING", "CANCELLED"] {
            assert_eq!(apply(&ended, asked(old), later(&order, 6)), None, "{end} {old}");
        }
    }
    // A payment is recorded, whatever the record said before.
    let order = opened("WAIT_USER_CONFIRM");
    let ended = apply(&order, asked("CANCELLED"), later(&order, 5)).unwrap();
    assert!(ended.charges.is_empty());
    let paid = apply(&ended, asked("SUCCESS"), later(&order, 6)).unwrap();
    assert_eq!(paid.upstream_status.as_deref(), Some("SUCCESS"));
    assert_eq!(paid.charges.len(), 1, "and is charged again");
}

#[test]
fn an_unknown_bill_stays_unknown_until_its_end_and_may_be_sent_again() {
    let order = claim();
    let event = Event::Attempted {
        version: order.version,
        evidence: Evidence::NoAnswer { why: "x".into() },
    };
    let unknown = apply(&order, event, order.created_at).unwrap();
    for word in ["ACCEPTED", "PROCESSING", "WAIT_USER_CONFIRM", "CANCELING"] {
        let still = apply(&unknown, asked(word), later(&order, 5)).unwrap();
        assert_eq!(still.state.name(), StateName::Unknown, "{word}");
        assert_eq!(still.upstream_status.as_deref(), Some(word));
        assert!(
            matches!(
                still.repeat_unsettled(POLICY, later(&order, 5)),
                Repeat::SendAgain { .. }
            ),
            "a repeat fetches the package_info"
        );
    }
    let paid = apply(&unknown, asked("SUCCESS"), later(&order, 5)).unwrap();
    assert_eq!((paid.state.name(), paid.due_at()), (StateName::Succeeded, None));
    let confirmed = apply(&unknown, asked("TRANSFERING"), later(&order, 5)).unwrap();
    assert_eq!(confirmed.state.name(), StateName::Succeeded);
    assert!(confirmed.due_at().is_some());
    for word in ["FAIL", "CANCELLED"] {
        let unpaid = apply(&unknown, asked(word), later(&order, 5)).unwrap();
        let State::Refused(refused) = &unpaid.state else {
            panic!("{unpaid:?}")
        };
        assert!(refused.refusal.number_spent, "a new payment needs a new number");
        assert!(unpaid.charges.is_empty());
        let repeat = unpaid.repeat(&request(&[]), later(&order, 9));
        assert_eq!(repeat, Repeat::Answer);
    }
}

#[test]
fn a_failed_bill_refuses_for_good_even_after_a_doubt() {
    let order = claim();
    let silence = Event::Attempted {
        version: order.version,
        evidence: Evidence::NoAnswer { why: "x".into() },
    };
    let unknown = apply(&order, silence, order.created_at).unwrap();
    let lease = Lease {
        nonce: 9,
        length: Duration::from_secs(30),
    };
    let again = unknown.claimed_again(lease, vec![], later(&order, 3)).unwrap();
    let event = Event::Attempted {
        version: again.version,
        evidence: Evidence::Declined {
            class: Class::NumberSpent,
            code: "ACCOUNT_FROZEN".into(),
            text: String::new(),
        },
    };
    let refused = apply(&again, event, later(&order, 4)).unwrap();
    assert_eq!(refused.state.name(), StateName::Refused);
}

#[test]
fn one_that_no_query_reaches_any_more_is_left_to_a_person() {
    let bill = opened("WAIT_USER_CONFIRM");
    let last = after(bill.created_at, schedule::QUERY_WINDOW);
    let silence = || queried(Finding::unclear("gone"));
    assert!(apply(&bill, silence(), last).unwrap().due_at().is_some());
    // A wall clock that is a year ahead for a moment does not end the queries.
    let ahead = Moment {
        wall: after(last, Duration::from_secs(365 * 86_400)).wall,
        ..last
    };
    assert!(apply(&bill, silence(), ahead).unwrap().due_at().is_some());
    let too_late = after(last, Duration::from_millis(1));
    assert_eq!(apply(&bill, silence(), too_late).unwrap().due_at(), None);
}

#[test]
fn an_overdue_bill_is_asked_about_seldom() {
    let order = opened("WAIT_USER_CONFIRM");
    let at = later(&order, 26 * 3600);
    let moving = apply(&order, asked("WAIT_USER_CONFIRM"), at);
    // The status is known already; only the time of the next query is new.
    assert_eq!(
        moving.unwrap().due_at(),
        Some(at.ledger.after(Duration::from_secs(6 * 3600)))
    );
    // A bill that was refused at first and accepted days later is as old as its accepted attempt.
    let mut late = order.clone();
    Arc::make_mut(&mut late.pinned).created_at.wall.0 -= 5 * 86_400_000;
    let soon = apply(&late, asked("WAIT_USER_CONFIRM"), later(&order, 1)).unwrap();
    assert!(soon.due_at() < Some(later(&order, 60).ledger));
    let forgotten = later(&order, 31 * 86_400);
    let given_up = apply(&order, queried(Finding::unclear("")), forgotten).unwrap();
    assert_eq!(given_up.due_at(), None);
}

/// What may happen to a bill, and to what the ledger knows of it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Happening {
    /// The request arrives: WeChat makes the bill, or answers with the earlier one.
    Answered,
    /// The same, but the answer is lost, or its signature is wrong.
    AnswerLost,
    /// The request is lost on its way.
    RequestLost,
    TurnedAway,
    NeverSent,
    LeaseLapses,
    /// WeChat tells the bill's state, in the answer to a query or in a notification.
    Told,
    ToldNothing,
    RepeatSends,
    UserConfirms,
    BillLapses,
    TwoDaysPass,
}

const HAPPENINGS: [Happening; 12] = [
    Happening::Answered,
    Happening::AnswerLost,
    Happening::RequestLost,
    Happening::TurnedAway,
    Happening::NeverSent,
    Happening::LeaseLapses,
    Happening::Told,
    Happening::ToldNothing,
    Happening::RepeatSends,
    Happening::UserConfirms,
    Happening::BillLapses,
    Happening::TwoDaysPass,
];

#[derive(Clone)]
struct World {
    order: Option<Order>,
    /// The bill's state at WeChat.
    bill: Option<&'static str>,
    now: Moment,
}

impl World {
    /// Applies the event if it can happen now; `None` if it cannot.
    fn after(&self, happening: Happening) -> Option<Self> {
        let mut world = self.clone();
        let order = self.order.as_ref()?;
        let is_pending = matches!(order.state, State::Pending(_));
        let attempted = |evidence| Event::Attempted {
            version: order.version,
            evidence,
        };
        let event = match happening {
            Happening::Answered if is_pending => {
                let word = *world.bill.get_or_insert("WAIT_USER_CONFIRM");
                attempted(match word {
                    "FAIL" => Evidence::Declined {
                        class: Class::NumberSpent,
                        code: word.into(),
                        text: String::new(),
                    },
                    _ => Evidence::Opened {
                        fields: Fields::new(),
                        status: word.into(),
                    },
                })
            }
            Happening::AnswerLost if is_pending => {
                world.bill.get_or_insert("WAIT_USER_CONFIRM");
                attempted(Evidence::NoAnswer { why: String::new() })
            }
            Happening::RequestLost if is_pending => attempted(Evidence::NoAnswer { why: String::new() }),
            Happening::TurnedAway if is_pending => attempted(Evidence::Declined {
                class: Class::RejectedUnprocessed,
                code: "FREQUENCY_LIMITED".into(),
                text: String::new(),
            }),
            Happening::NeverSent if is_pending => attempted(Evidence::NeverSent { why: String::new() }),
            Happening::LeaseLapses if is_pending => {
                world.now = after(self.now, Duration::from_secs(60));
                Event::Watched(Duration::from_secs(60))
            }
            Happening::Told => match self.bill {
                Some(word) => asked(word),
                None => queried(Finding::no_such_order()),
            },
            Happening::ToldNothing => queried(Finding::unclear("")),
            Happening::RepeatSends => {
                let first = order.repeat(&request(&[]), self.now);
                let what = match first {
                    Repeat::AskFirst => order.repeat_unsettled(POLICY, self.now),
                    first => first,
                };
                if !matches!(what, Repeat::SendAgain { .. }) {
                    return None;
                }
                let lease = Lease {
                    nonce: 2,
                    length: Duration::from_secs(30),
                };
                world.order = order.claimed_again(lease, claim().charges, self.now);
                return world.order.is_some().then_some(world);
            }
            Happening::UserConfirms if self.bill == Some("WAIT_USER_CONFIRM") => {
                world.bill = Some("SUCCESS");
                return Some(world);
            }
            Happening::BillLapses if self.bill == Some("WAIT_USER_CONFIRM") => {
                world.bill = Some("FAIL");
                return Some(world);
            }
            Happening::TwoDaysPass if !is_pending => {
                world.now = after(self.now, Duration::from_secs(2 * 86_400));
                return Some(world);
            }
            _ => return None,
        };
        match step(order, event, POLICY, world.now, 7) {
            Step::Stay => {}
            Step::Become(next) => world.order = Some(*next),
            Step::Remove => world.order = None,
        }
        Some(world)
    }

    fn check(&self, path: &[Happening]) {
        let Some(order) = &self.order else {
            assert_eq!(self.bill, None, "forgotten, and a bill is there: {path:?}");
            return;
        };
        let ended_unpaid = order.upstream_status.as_deref() == Some("FAIL");
        let owes = match &order.state {
            State::Refused(_) => {
                assert!(
                    matches!(self.bill, None | Some("FAIL")),
                    "refused, and may be paid: {path:?}"
                );
                false
            }
            State::Succeeded(succeeded) => {
                assert!(self.bill.is_some(), "succeeded without a bill: {path:?}");
                let is_final = matches!(order.upstream_status.as_deref(), Some("SUCCESS" | "FAIL"));
                assert!(succeeded.following.is_none() || !is_final, "{path:?}");
                assert!(
                    order.repeat(&request(&[]), self.now) == Repeat::Answer,
                    "never sent again: {path:?}"
                );
                if path.last() == Some(&Happening::Told) {
                    assert_eq!(order.upstream_status.as_deref(), self.bill, "{path:?}");
                }
                !ended_unpaid
            }
            State::Pending(_) | State::Unknown(_) => true,
        };
        assert_eq!(!order.charges.is_empty(), owes, "its limits: {path:?} {order:?}");
    }
}

/// Checks every sequence of up to seven events over one bill.
#[test]
fn no_sequence_of_events_loses_a_bill_or_its_limits() {
    let mut worlds = 0u64;
    let first = World {
        order: Some(claim()),
        bill: None,
        now: claim().created_at,
    };
    let mut stack: Vec<(World, Vec<Happening>)> = vec![(first, vec![])];
    while let Some((world, path)) = stack.pop() {
        worlds += 1;
        if path.len() == 7 {
            continue;
        }
        for happening in HAPPENINGS {
            let Some(next) = world.after(happening) else {
                continue;
            };
            let path = [path.as_slice(), &[happening]].concat();
            next.check(&path);
            stack.push((next, path));
        }
    }
    assert!(worlds > 10_000, "only {worlds} worlds were seen");
}
