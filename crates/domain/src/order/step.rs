//! Applies one event to one order (`docs/promise.md`), without any I/O.
//!
//! Two rules come before all others. An acceptance always wins: whatever the record said before, an order that the
//! upstream accepted becomes succeeded and is never sent again. And only certainty makes an order refused.

use std::time::Duration;

use super::{
    Absence, Before, Destination, Following, Order, Pending, Refused, State, Succeeded, Unknown, Version,
};
use crate::fields::Fields;
use crate::ids::{LedgerTime, Moment};
use crate::limits::Charge;
use crate::order::schedule;
use crate::outcome::{Class, Evidence, Finding, Found, Refusal, Verdict, classify};
use crate::wechat::v3;

/// Reasons for a change that more than one event gives.
const LATE: &str = "the upstream accepted it, after the lease";
const LATE_SILENCE: &str = "an attempt ended without an answer after the order had moved on";
const SAYS_ACCEPTED: &str = "the upstream says that it accepted it";

/// What an upstream promises about repeats, from the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether it refuses a second payment under one order number: WeChat, or a handler with `idempotent = true`.
    pub refuses_doubles: bool,
    /// How long the upstream must say "no such order", with no other answer and no silence in between, until it is
    /// believed.
    pub not_found_after: Duration,
}

impl Policy {
    /// The policy for an upstream of which nothing is known: it may pay on each call, and its "no such order" is
    /// never believed.
    pub const UNKNOWN: Self = Self {
        refuses_doubles: false,
        not_found_after: Duration::MAX,
    };
}

/// Something that happened to an order.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The attempt that a claim began has ended.
    Attempted {
        /// The version that the claim wrote.
        version: Version,
        /// What the attempt proves.
        evidence: Evidence,
    },
    /// The upstream was asked, or has sent a notification.
    Asked {
        /// What it says.
        finding: Finding,
        /// How long the asking process itself has heard nothing but "no such order", from the first time to this
        /// one, from an upstream that answered all along. Zero if this is the first time.
        heard: Duration,
    },
    /// A process has seen the very same version of a pending record for this long.
    Watched(Duration),
    /// An operator decides (`payout settle`); this applies to an unknown order only.
    Operator {
        /// Whether the order was paid.
        succeeded: bool,
        /// Why the operator is sure; audited.
        reason: String,
    },
}

/// What an event does to an order.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The event changes nothing in the record.
    Stay,
    /// This record replaces the old one.
    Become(Box<Order>),
    /// Remove the record: the claim was the first one, and nothing was sent.
    Remove,
}

/// Applies an event. `random` is a random number: it becomes the next version's nonce and spreads the next query.
#[must_use]
pub fn step(order: &Order, event: Event, policy: Policy, now: Moment, random: u64) -> Step {
    match apply(order, event, policy, now, random) {
        Step::Become(mut next) => {
            next.version.nonce = random;
            Step::Become(next)
        }
        step @ (Step::Stay | Step::Remove) => step,
    }
}

fn apply(order: &Order, event: Event, policy: Policy, now: Moment, random: u64) -> Step {
    match event {
        Event::Attempted { version, evidence } => attempted(order, version, evidence, now, random),
        Event::Asked { finding, heard } => asked(order, finding, heard, policy, now, random),
        Event::Watched(span) => match &order.state {
            State::Pending(pending) if span >= pending.lease() => {
                let why = "the lease ran out before an answer was recorded";
                Step::Become(Box::new(order.doubtful(why, now, now.ledger)))
            }
            State::Pending(_) | State::Unknown(_) | State::Succeeded(_) | State::Refused(_) => Step::Stay,
        },
        Event::Operator { succeeded, reason } => match &order.state {
            State::Unknown(_) if succeeded => {
                order.accepted(Fields::new(), None, format!("operator: {reason}"), now, random)
            }
            State::Unknown(_) => {
                let refusal = Refusal {
                    code: "OPERATOR".into(),
                    text: reason.clone(),
                    number_spent: true,
                };
                order.refused(refusal, format!("operator: {reason}"), now)
            }
            State::Pending(_) | State::Succeeded(_) | State::Refused(_) => Step::Stay,
        },
    }
}

fn attempted(order: &Order, version: Version, evidence: Evidence, now: Moment, random: u64) -> Step {
    match &order.state {
        State::Pending(pending) if order.version == version => {
            let doubt = matches!(pending.before, Before::Unknown(_));
            match classify(evidence, doubt) {
                Verdict::Succeeded { fields, status } => {
                    order.accepted(fields, status, "the upstream accepted it", now, random)
                }
                Verdict::Refused(refusal) => {
                    let why = format!("the upstream refused it: {} {}", refusal.code, refusal.text);
                    order.refused(refusal, why, now)
                }
                Verdict::Unknown { why } => {
                    let next = now.ledger.after(schedule::before_query(0, random));
                    Step::Become(Box::new(order.doubtful(why, now, next)))
                }
                Verdict::TakenBack { why } => order.taken_back(pending, &why, now),
            }
        }
        // The lease ran out and the order moved on. A late acceptance still wins. A late silence matters too,
        // because everything concluded since then was concluded without knowing of it.
        State::Pending(_) | State::Unknown(_) | State::Refused(_) => match evidence {
            Evidence::Accepted { fields } => order.accepted(fields, None, LATE, now, random),
            Evidence::Opened { fields, status } => order.accepted(fields, Some(status), LATE, now, random),
            Evidence::NoAnswer { .. }
            | Evidence::Declined {
                class: Class::Conflict | Class::Unknown,
                ..
            } => order.doubted_late(now, random),
            Evidence::NeverSent { .. }
            | Evidence::Declined {
                class: Class::Refused | Class::RejectedUnprocessed | Class::NumberSpent,
                ..
            } => Step::Stay,
        },
        State::Succeeded(_) => Step::Stay,
    }
}

fn asked(order: &Order, finding: Finding, heard: Duration, policy: Policy, now: Moment, random: u64) -> Step {
    match &order.state {
        State::Unknown(unknown) => unsettled(order, unknown, finding, heard, policy, now, random),
        State::Pending(_) | State::Refused(_) => match finding.found {
            Found::Accepted { fields } => order.accepted(fields, finding.status, SAYS_ACCEPTED, now, random),
            Found::NotPaid(_) | Found::Moving | Found::NoSuchOrder | Found::Unclear { .. } => Step::Stay,
        },
        State::Succeeded(succeeded) => became(order, succeeded, finding, now, random),
    }
}

/// A finding about an accepted order. The record keeps the status beside the outcome. Only the charges change with
/// it: a bill that ended unpaid gives them back, and an order that proves paid after all owes them again.
fn became(order: &Order, succeeded: &Succeeded, finding: Finding, now: Moment, random: u64) -> Step {
    let is_unpaid = matches!(finding.found, Found::NotPaid(_));
    let is_paid = matches!(finding.found, Found::Accepted { .. });
    let word = match finding.found {
        Found::Accepted { .. } | Found::NotPaid(_) | Found::Moving => finding.status,
        Found::NoSuchOrder | Found::Unclear { .. } => None,
    };
    let is_bill = order.upstream == Destination::TransferBill;
    let known = order.upstream_status.as_deref();
    let news = word.filter(|word| {
        // After a final state any other word comes from an answer that was under way before. Only "paid" still
        // corrects it.
        let is_old = is_bill && v3::state::is_final(known) && word != "SUCCESS";
        known != Some(word) && !is_old
    });
    let following = succeeded.following.as_ref().and_then(|following| {
        let is_over = v3::state::is_final(news.as_deref().or(known));
        // By now WeChat has forgotten the bill. A person was called long before.
        let age = order.age_of_attempt(now);
        let is_out_of_reach = age > schedule::QUERY_WINDOW;
        // More news may follow soon, so the pauses begin anew.
        (!is_over && !is_out_of_reach).then(|| match &news {
            Some(_) => Following::begin(now, random),
            None => following.after_query(age, now, random),
        })
    });
    if news.is_none() && following == succeeded.following {
        return Step::Stay;
    }
    let state = State::Succeeded(Succeeded {
        following,
        ..succeeded.clone()
    });
    let Some(status) = news else {
        let mut next = order.clone();
        next.version = order.version.next();
        next.state = state;
        return Step::Become(Box::new(next));
    };
    let mut next = order.become_state(state, format!("the upstream's status is {status}"), now);
    next.upstream_status = Some(status);
    if is_bill && is_unpaid {
        next.give_back();
    } else if is_paid {
        next.charge_after_all();
    }
    Step::Become(Box::new(next))
}

impl Following {
    /// The first query after news.
    fn begin(now: Moment, random: u64) -> Self {
        Self {
            next_query_at: now.ledger.after(schedule::before_query(0, random)),
            queries: 0,
        }
    }

    /// `age`: the time since the accepted attempt began, which may be long after the first claim.
    fn after_query(&self, age: Duration, now: Moment, random: u64) -> Self {
        let queries = self.queries.saturating_add(1);
        Self {
            next_query_at: now.ledger.after(schedule::before_following(queries, age, random)),
            queries,
        }
    }
}

/// A finding about an order that is perhaps paid.
fn unsettled(
    order: &Order,
    unknown: &Unknown,
    finding: Finding,
    heard: Duration,
    policy: Policy,
    now: Moment,
    random: u64,
) -> Step {
    let absence = match finding.found {
        Found::Accepted { fields } => {
            return order.accepted(fields, finding.status, SAYS_ACCEPTED, now, random);
        }
        Found::NotPaid(refusal) => {
            let why = format!(
                "the upstream says that it is not paid: {} {}",
                refusal.code, refusal.text
            );
            return with_status(order.refused(refusal, why, now), finding.status);
        }
        // After its window WeChat no longer knows any order, paid or not.
        Found::NoSuchOrder if order.is_within_query_window(now) => {
            let absence = unknown.hears_no_such_order(now);
            // The ledger's time counts a day, because no process is certain to live that long. The one process that
            // has heard it all along counts seconds, because no two clocks agree on so short a time.
            let heard = if policy.refuses_doubles {
                absence.heard_at.since(absence.since)
            } else {
                heard
            };
            if heard >= policy.not_found_after {
                let refusal = Refusal {
                    code: "NOT_FOUND".into(),
                    text: "订单不存在: 上游没有该单号, 未付款, 可使用原单号重试".into(),
                    number_spent: false,
                };
                let why = "the upstream knows no such order".to_owned();
                return order.refused(refusal, why, now);
            }
            Some(absence)
        }
        // A silence too: the upstream may have done anything during it.
        Found::NoSuchOrder | Found::Moving | Found::Unclear { .. } => None,
    };
    // A query for a caller does not postpone the scheduled one.
    let (queries, next_query_at) = if unknown.next_query_at <= now.ledger {
        let queries = unknown.queries.saturating_add(1);
        let pause = schedule::before_query(queries, random);
        (queries, now.ledger.after(pause))
    } else {
        (unknown.queries, unknown.next_query_at)
    };
    let mut next = order.clone();
    next.version = order.version.next();
    next.upstream_status = finding.status.or_else(|| order.upstream_status.clone());
    next.state = State::Unknown(Unknown {
        queries,
        absence,
        next_query_at,
        ..unknown.clone()
    });
    Step::Become(Box::new(next))
}

impl Unknown {
    /// "No such order" once more: of the same series, or of a new one if the last answer is too long ago.
    fn hears_no_such_order(&self, now: Moment) -> Absence {
        let goes_on = |absence: &Absence| now.ledger.since(absence.heard_at) <= schedule::LONGEST_SILENCE;
        Absence {
            since: self
                .absence
                .filter(goes_on)
                .map_or(now.ledger, |absence| absence.since),
            heard_at: now.ledger,
        }
    }
}

fn with_status(step: Step, status: Option<String>) -> Step {
    match (step, status) {
        (Step::Become(mut order), Some(status)) => {
            order.upstream_status = Some(status);
            Step::Become(order)
        }
        (step, _) => step,
    }
}

impl Order {
    /// Accepted; queries follow if the status is not final. Charges that were given back are owed again.
    fn accepted(
        &self,
        fields: Fields<'static>,
        status: Option<String>,
        why: impl Into<String>,
        now: Moment,
        random: u64,
    ) -> Step {
        let goes_on = self.upstream == Destination::TransferBill && !v3::state::is_final(status.as_deref());
        let succeeded = Succeeded {
            at: now.wall,
            fields,
            following: goes_on.then(|| Following::begin(now, random)),
        };
        let mut next = self.become_state(State::Succeeded(succeeded), why, now);
        // The old status may be about an earlier attempt and says nothing about the accepted one.
        next.upstream_status = status;
        next.charge_after_all();
        Step::Become(Box::new(next))
    }

    /// Refused: gives the charges back.
    fn refused(&self, refusal: Refusal, why: impl Into<String>, now: Moment) -> Step {
        let refused = Refused {
            at: now.wall,
            refusal,
        };
        let mut next = self.become_state(State::Refused(refused), why, now);
        next.give_back();
        Step::Become(Box::new(next))
    }

    fn doubtful(&self, why: impl Into<String>, now: Moment, next_query_at: LedgerTime) -> Self {
        let why = why.into();
        let unknown = Unknown::begin(&why, now, next_query_at);
        let mut next = self.become_state(State::Unknown(unknown), why, now);
        next.charge_after_all();
        next
    }

    /// An attempt has ended without an answer after the order moved on. So the upstream said "no such order" too
    /// early, a refused order may be paid, and the attempt that is under way now is not the only one that may have
    /// paid.
    fn doubted_late(&self, now: Moment, random: u64) -> Step {
        let next_query_at = now.ledger.after(schedule::before_query(0, random));
        let next = match &self.state {
            State::Refused(refused) if !refused.refusal.number_spent => {
                self.doubtful(LATE_SILENCE, now, next_query_at)
            }
            State::Unknown(unknown) if unknown.absence.is_some() => {
                self.doubtful(LATE_SILENCE, now, next_query_at)
            }
            State::Pending(pending) if !matches!(&pending.before, Before::Unknown(before) if before.absence.is_none()) =>
            {
                let before = Before::Unknown(Unknown::begin(LATE_SILENCE, now, next_query_at));
                let pending = Pending {
                    before,
                    ..pending.clone()
                };
                self.become_state(State::Pending(pending), LATE_SILENCE, now)
            }
            State::Refused(_) | State::Unknown(_) | State::Pending(_) | State::Succeeded(_) => {
                return Step::Stay;
            }
        };
        Step::Become(Box::new(next))
    }

    fn taken_back(&self, pending: &Pending, why: &str, now: Moment) -> Step {
        let state = match &pending.before {
            Before::Fresh => return Step::Remove,
            Before::Refused(refused) => State::Refused(refused.clone()),
            Before::Unknown(unknown) => State::Unknown(unknown.clone()),
        };
        let mut next = self.become_state(state, format!("nothing was sent: {why}"), now);
        if matches!(next.state, State::Refused(_)) {
            next.give_back();
        }
        Step::Become(Box::new(next))
    }

    /// Gives the charges back and remembers them.
    fn give_back(&mut self) {
        if !self.charges.is_empty() {
            self.returned = std::mem::take(&mut self.charges);
        }
    }

    /// Charges again what was given back, whatever the limits say: the money may already be gone.
    fn charge_after_all(&mut self) {
        if self.charges.is_empty() {
            let unlimited = |charge: Charge| Charge {
                limit: i64::MAX,
                ..charge
            };
            let returned = std::mem::take(&mut self.returned);
            self.charges = returned.into_iter().map(unlimited).collect();
        }
    }
}

impl Unknown {
    fn begin(why: &str, now: Moment, next_query_at: LedgerTime) -> Self {
        Self {
            since: now.wall,
            why: why.to_owned(),
            next_query_at,
            queries: 0,
            absence: None,
        }
    }
}
