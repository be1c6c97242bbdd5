//! What a repeated request may do with an order on record (`docs/promise.md`).

use std::time::Duration;

use super::step::Policy;
use super::{Before, Lease, Order, Pending, State};
use crate::contract::send::SendRequest;
use crate::ids::Moment;
use crate::limits::Charge;
use crate::order::schedule;

/// What a repeat may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// A field differs from the first request: send nothing.
    Differs(&'static str),
    /// The record answers: the order is settled, its number is spent, or it stays unknown.
    Answer,
    /// Another request is paying it: wait for the result, or until this process has seen the lease run out.
    Wait,
    /// Certainly not paid, or the upstream refuses doubles: send it again after this pause.
    SendAgain {
        /// The rest of the second that must lie between two attempts.
        pause: Duration,
    },
    /// Perhaps paid: ask the upstream first.
    AskFirst,
}

impl Order {
    /// The first field of a repeat that differs from the record, by its name in the contract.
    #[must_use]
    pub fn differs(&self, request: &SendRequest) -> Option<&'static str> {
        if self.wx_app_id != request.wx_app_id {
            Some("wxAppId")
        } else if self.user_id != request.user_id {
            Some("openid")
        } else if self.amount != request.amount {
            Some("amount")
        } else {
            None
        }
    }

    /// What a repeat of this order may do now.
    #[must_use]
    pub fn repeat(&self, request: &SendRequest, now: Moment) -> Repeat {
        if let Some(field) = self.differs(request) {
            return Repeat::Differs(field);
        }
        match &self.state {
            State::Succeeded(_) => Repeat::Answer,
            State::Refused(refused) if refused.refusal.number_spent => Repeat::Answer,
            // A certain refusal ends the doubt, and with it the window that counts from the doubt's beginning.
            State::Refused(_) => self.send_again(now),
            State::Pending(_) => Repeat::Wait,
            State::Unknown(_) => Repeat::AskFirst,
        }
    }

    /// What a repeat may do if the order is still unknown after the upstream was asked: send it again if the
    /// upstream refuses doubles and its window is open, otherwise answer that the outcome is unknown.
    #[must_use]
    pub fn repeat_unsettled(&self, policy: Policy, now: Moment) -> Repeat {
        match &self.state {
            State::Unknown(_)
                if policy.refuses_doubles
                    && schedule::may_send_again(&self.upstream, self.doubt_since, now) =>
            {
                self.send_again(now)
            }
            State::Unknown(_) | State::Pending(_) | State::Succeeded(_) | State::Refused(_) => Repeat::Answer,
        }
    }

    fn send_again(&self, now: Moment) -> Repeat {
        let passed = now.ledger.since(self.attempted_at.ledger);
        Repeat::SendAgain {
            pause: schedule::BETWEEN_ATTEMPTS.saturating_sub(passed),
        }
    }

    /// The record of another claim, with the parameters of the first one. `None` if the state allows no claim. A
    /// refused order takes the new charges; an unknown one still carries its own.
    #[must_use]
    pub fn claimed_again(&self, lease: Lease, charges: Vec<Charge>, now: Moment) -> Option<Self> {
        let before = match &self.state {
            State::Refused(refused) if !refused.refusal.number_spent => Before::Refused(refused.clone()),
            State::Unknown(unknown) => Before::Unknown(unknown.clone()),
            State::Refused(_) | State::Pending(_) | State::Succeeded(_) => return None,
        };
        let begins_anew = matches!(before, Before::Refused(_));
        let pending = Pending::begin(lease.length, before);
        let mut next = self.become_state(State::Pending(pending), "claimed again", now);
        if begins_anew {
            // A certain refusal leaves nothing behind: no doubt, no status, no charge.
            next.doubt_since = now;
            next.upstream_status = None;
            next.charges = charges;
            next.returned.clear();
        }
        next.version.nonce = lease.nonce;
        next.attempted_at = now;
        next.attempts = self.attempts.saturating_add(1);
        Some(next)
    }
}
