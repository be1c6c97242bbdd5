//! One event applied to one order. Document: specification, section 5.
//!
//! Two rules stand above all others here. An acceptance always wins: whatever was believed before, an order that the
//! upstream accepted is succeeded and is never sent again. And nothing but certainty refuses.

use std::time::Duration;

use super::{Before, Following, Order, Pending, Refused, State, Succeeded, Unknown, UpstreamKind, Version};
use crate::rules::fields::Fields;
use crate::rules::outcome::{Evidence, Finding, Found, Refusal, Verdict, weigh};
use crate::rules::pace;
use crate::rules::term::Millis;
use crate::rules::wechat::v3;

/// Why a record changed, where more than one event says so.
const LATE: &str = "the upstream accepted it, after the lease";
const SAYS_ACCEPTED: &str = "the upstream says that it accepted it";

/// What an upstream promises about repeats; from the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether it refuses doubles by order number: WeChat, or a handler with `idempotent = true`.
    pub refuses_doubles: bool,
    /// How long "no such order" must be heard (or have passed since the attempt) before it is believed.
    pub not_found_after: Duration,
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
    /// The upstream was asked.
    Asked(Finding),
    /// Somebody noticed that the lease has run out.
    LeaseLapsed,
    /// An operator knows better (`payout settle`); taken for an unknown order only.
    Operator {
        /// Whether the order was paid.
        succeeded: bool,
        /// Why the operator is sure; audited.
        reason: String,
    },
}

/// What an event makes of an order.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The event changes nothing that is kept.
    Stay,
    /// The record is replaced by this one.
    Become(Box<Order>),
    /// The record is removed: the claim was the first one and nothing was sent.
    Remove,
}

/// Applies an event. `chance` is a random number: it seals the next version, and spreads the next query.
#[must_use]
pub fn step(order: &Order, event: Event, policy: Policy, now: Millis, chance: u64) -> Step {
    match apply(order, event, policy, now, chance) {
        Step::Become(mut next) => {
            next.version.seal = chance;
            Step::Become(next)
        }
        step @ (Step::Stay | Step::Remove) => step,
    }
}

fn apply(order: &Order, event: Event, policy: Policy, now: Millis, chance: u64) -> Step {
    match event {
        Event::Attempted { version, evidence } => attempted(order, version, evidence, now, chance),
        Event::Asked(finding) => asked(order, finding, policy, now, chance),
        Event::LeaseLapsed => match &order.state {
            State::Pending(pending) if pending.lease_until <= now => {
                let why = "the lease ran out before an answer was recorded";
                Step::Become(Box::new(order.doubtful(why, now, now)))
            }
            State::Pending(_) | State::Unknown(_) | State::Succeeded(_) | State::Refused(_) => Step::Stay,
        },
        Event::Operator { succeeded, reason } => match &order.state {
            State::Unknown(_) if succeeded => {
                order.accepted(Fields::new(), None, format!("operator: {reason}"), now, chance)
            }
            State::Unknown(_) => {
                let refusal = Refusal {
                    code: "OPERATOR".into(),
                    text: reason.clone(),
                    burnt: true,
                };
                order.refused(refusal, format!("operator: {reason}"), now)
            }
            State::Pending(_) | State::Succeeded(_) | State::Refused(_) => Step::Stay,
        },
    }
}

fn attempted(order: &Order, version: Version, evidence: Evidence, now: Millis, chance: u64) -> Step {
    match &order.state {
        State::Pending(pending) if order.version == version => {
            let doubt = matches!(pending.before, Before::Unknown(_));
            match weigh(evidence, doubt) {
                Verdict::Succeeded { fields, status } => {
                    order.accepted(fields, status, "the upstream accepted it", now, chance)
                }
                Verdict::Refused(refusal) => {
                    let why = format!("the upstream refused it: {} {}", refusal.code, refusal.text);
                    order.refused(refusal, why, now)
                }
                Verdict::Unknown { why } => {
                    let next = now.after(pace::before_query(0, chance));
                    Step::Become(Box::new(order.doubtful(why, now, next)))
                }
                Verdict::TakenBack { why } => order.taken_back(pending, &why, now),
            }
        }
        // The lease ran out and the order moved on. Only an acceptance still matters, and it always wins.
        State::Pending(_) | State::Unknown(_) | State::Refused(_) => match evidence {
            Evidence::Accepted { fields } => order.accepted(fields, None, LATE, now, chance),
            Evidence::Opened { fields, status } => order.accepted(fields, Some(status), LATE, now, chance),
            Evidence::NeverSent { .. } | Evidence::NoAnswer { .. } | Evidence::Declined { .. } => Step::Stay,
        },
        State::Succeeded(_) => Step::Stay,
    }
}

fn asked(order: &Order, finding: Finding, policy: Policy, now: Millis, chance: u64) -> Step {
    match &order.state {
        State::Unknown(unknown) => unsettled(order, unknown, finding, policy, now, chance),
        State::Pending(_) | State::Refused(_) => match finding.found {
            Found::Accepted { fields } => order.accepted(fields, finding.status, SAYS_ACCEPTED, now, chance),
            Found::NotPaid(_) | Found::Moving | Found::NoSuchOrder | Found::Unclear { .. } => Step::Stay,
        },
        State::Succeeded(succeeded) => became(order, succeeded, finding, now, chance),
    }
}

/// A finding about an accepted order: what became of it is kept beside it and changes nothing else, but that a bill which
/// ended unpaid owes its limits nothing.
fn became(order: &Order, succeeded: &Succeeded, finding: Finding, now: Millis, chance: u64) -> Step {
    let is_unpaid = matches!(finding.found, Found::NotPaid(_));
    let word = match finding.found {
        Found::Accepted { .. } | Found::NotPaid(_) | Found::Moving => finding.status,
        Found::NoSuchOrder | Found::Unclear { .. } => None,
    };
    let is_bill = order.upstream == UpstreamKind::TransferBill;
    let known = order.upstream_status.as_deref();
    let news = word.filter(|word| {
        // An answer that was under way when the end was told is old. "Paid" alone still corrects an end.
        let is_old = is_bill && v3::state::is_final(known) && word != "SUCCESS";
        known != Some(word) && !is_old
    });
    let following = succeeded.following.as_ref().and_then(|following| {
        let is_over = v3::state::is_final(news.as_deref().or(known));
        // WeChat forgets bills, and a person was called long before.
        let age = now.since(succeeded.at);
        let is_out_of_reach = age > pace::QUERY_WINDOW;
        // After news more may follow soon.
        (!is_over && !is_out_of_reach).then(|| match &news {
            Some(_) => Following::begin(now, chance),
            None => following.after_query(age, now, chance),
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
        next.charges.clear();
    }
    Step::Become(Box::new(next))
}

impl Following {
    /// The first look after news.
    fn begin(now: Millis, chance: u64) -> Self {
        Self {
            next_query_at: now.after(pace::before_query(0, chance)),
            queries: 0,
        }
    }

    /// `age`: how long ago the order was accepted, which may be long after its first claim.
    fn after_query(&self, age: Duration, now: Millis, chance: u64) -> Self {
        let queries = self.queries.saturating_add(1);
        Self {
            next_query_at: now.after(pace::before_following(queries, age, chance)),
            queries,
        }
    }
}

/// A finding about an order that is perhaps paid.
fn unsettled(
    order: &Order,
    unknown: &Unknown,
    finding: Finding,
    policy: Policy,
    now: Millis,
    chance: u64,
) -> Step {
    let absent_since = match finding.found {
        Found::Accepted { fields } => {
            return order.accepted(fields, finding.status, SAYS_ACCEPTED, now, chance);
        }
        Found::NotPaid(refusal) => {
            let why = format!(
                "the upstream says that it is not paid: {} {}",
                refusal.code, refusal.text
            );
            return with_status(order.refused(refusal, why, now), finding.status);
        }
        Found::NoSuchOrder => {
            let since = unknown.absent_since.unwrap_or(now);
            if believes_absence(order, since, policy, now) {
                let text = "the upstream knows no such order".to_owned();
                let refusal = Refusal {
                    code: "NOT_FOUND".into(),
                    text: text.clone(),
                    burnt: false,
                };
                return order.refused(refusal, text, now);
            }
            Some(since)
        }
        Found::Moving => None,
        // Silence neither confirms nor breaks what was heard before.
        Found::Unclear { .. } => unknown.absent_since,
    };
    let queries = unknown.queries.saturating_add(1);
    let mut next = order.clone();
    next.version = order.version.next();
    next.upstream_status = finding.status.or_else(|| order.upstream_status.clone());
    next.state = State::Unknown(Unknown {
        queries,
        absent_since,
        next_query_at: now.after(pace::before_query(queries, chance)),
        ..unknown.clone()
    });
    Step::Become(Box::new(next))
}

/// Whether "no such order" may be believed by now (specification, section 5).
fn believes_absence(order: &Order, absent_since: Millis, policy: Policy, now: Millis) -> bool {
    let quiet = now.since(order.attempted_at);
    if policy.refuses_doubles {
        // Nothing but "no such order" for the whole time, counted from the first one after the last attempt.
        quiet >= policy.not_found_after && now.since(absent_since) >= policy.not_found_after
    } else {
        quiet >= policy.not_found_after
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
    /// Accepted; followed further where the upstream's word is not its last one.
    fn accepted(
        &self,
        fields: Fields<'static>,
        status: Option<String>,
        why: impl Into<String>,
        now: Millis,
        chance: u64,
    ) -> Step {
        let goes_on = self.upstream == UpstreamKind::TransferBill && !v3::state::is_final(status.as_deref());
        let succeeded = Succeeded {
            at: now,
            fields,
            following: goes_on.then(|| Following::begin(now, chance)),
        };
        let mut next = self.become_state(State::Succeeded(succeeded), why, now);
        next.upstream_status = status.or(next.upstream_status);
        Step::Become(Box::new(next))
    }

    /// A refused order owes its limits nothing.
    fn refused(&self, refusal: Refusal, why: impl Into<String>, now: Millis) -> Step {
        let mut next = self.become_state(State::Refused(Refused { at: now, refusal }), why, now);
        next.charges.clear();
        Step::Become(Box::new(next))
    }

    fn doubtful(&self, why: impl Into<String>, now: Millis, next_query_at: Millis) -> Self {
        let why = why.into();
        let unknown = Unknown {
            since: now,
            why: why.clone(),
            next_query_at,
            queries: 0,
            absent_since: None,
        };
        self.become_state(State::Unknown(unknown), why, now)
    }

    fn taken_back(&self, pending: &Pending, why: &str, now: Millis) -> Step {
        let state = match &pending.before {
            Before::Fresh => return Step::Remove,
            Before::Refused(refused) => State::Refused(refused.clone()),
            Before::Unknown(unknown) => State::Unknown(unknown.clone()),
        };
        let mut next = self.become_state(state, format!("nothing was sent: {why}"), now);
        if matches!(next.state, State::Refused(_)) {
            next.charges.clear();
        }
        Step::Become(Box::new(next))
    }
}
