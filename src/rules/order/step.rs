//! One event applied to one order. Document: specification, section 5.
//!
//! Two rules stand above all others here. An acceptance always wins: whatever was believed before, an order that the
//! upstream accepted is succeeded and is never sent again. And nothing but certainty refuses.

use std::time::Duration;

use super::{Before, Order, Pending, Refused, State, Succeeded, Unknown, Version};
use crate::rules::outcome::{Evidence, Finding, Found, Refusal, Verdict, weigh};
use crate::rules::pace;
use crate::rules::term::Millis;

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
            State::Unknown(_) if succeeded => order.accepted(
                crate::rules::fields::Fields::new(),
                format!("operator: {reason}"),
                now,
            ),
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
                Verdict::Succeeded { fields } => order.accepted(fields, "the upstream accepted it", now),
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
            Evidence::Accepted { fields } => {
                order.accepted(fields, "the upstream accepted it, after the lease", now)
            }
            Evidence::NeverSent { .. } | Evidence::NoAnswer { .. } | Evidence::Declined { .. } => Step::Stay,
        },
        State::Succeeded(_) => Step::Stay,
    }
}

fn asked(order: &Order, finding: Finding, policy: Policy, now: Millis, chance: u64) -> Step {
    match &order.state {
        State::Unknown(unknown) => unsettled(order, unknown, finding, policy, now, chance),
        State::Pending(_) | State::Refused(_) => match finding.found {
            Found::Accepted { fields } => {
                let step = order.accepted(fields, "the upstream says that it accepted it", now);
                with_status(step, finding.status)
            }
            Found::NotPaid(_) | Found::Moving | Found::NoSuchOrder | Found::Unclear { .. } => Step::Stay,
        },
        State::Succeeded(_) => match (finding.found, finding.status) {
            // What became of an accepted order is kept beside it and changes nothing else.
            (Found::Accepted { .. } | Found::NotPaid(_) | Found::Moving, Some(status))
                if order.upstream_status.as_deref() != Some(&status) =>
            {
                let why = format!("the upstream's status is {status}");
                let mut next = order.become_state(order.state.clone(), why, now);
                next.upstream_status = Some(status);
                Step::Become(Box::new(next))
            }
            _ => Step::Stay,
        },
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
            return with_status(
                order.accepted(fields, "the upstream says that it accepted it", now),
                finding.status,
            );
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
    fn accepted(
        &self,
        fields: crate::rules::fields::Fields<'static>,
        why: impl Into<String>,
        now: Millis,
    ) -> Step {
        Step::Become(Box::new(self.become_state(
            State::Succeeded(Succeeded { at: now, fields }),
            why,
            now,
        )))
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
