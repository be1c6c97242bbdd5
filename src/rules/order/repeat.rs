//! What a repeated request may do with an order that is there already. Document: specification, section 5.

use super::step::Policy;
use super::{Before, Lease, Order, Pending, State};
use crate::rules::contract::send::SendRequest;
use crate::rules::limits::Charge;
use crate::rules::pace;
use crate::rules::term::Millis;

/// What a repeat may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// A field is not the first request's: nothing is sent.
    Differs(&'static str),
    /// The order is settled, or its number is spent: the record answers.
    Answer,
    /// Somebody else is paying it: wait for that.
    Wait,
    /// The lease has run out: record that first.
    Lapsed,
    /// Certainly not paid: it may be sent again, but not before this moment.
    SendAgain {
        /// One second after the last attempt began.
        not_before: Millis,
    },
    /// Perhaps paid: ask the upstream first.
    AskFirst,
}

impl Order {
    /// The first field of a repeat that is not the record's, by its name in the contract.
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
    pub fn repeat(&self, request: &SendRequest, now: Millis) -> Repeat {
        if let Some(field) = self.differs(request) {
            return Repeat::Differs(field);
        }
        match &self.state {
            State::Succeeded(_) => Repeat::Answer,
            State::Refused(refused) if refused.refusal.burnt => Repeat::Answer,
            State::Refused(_) if pace::may_send_again(self.upstream, self.created_at, now) => {
                self.send_again()
            }
            State::Refused(_) => Repeat::Answer,
            State::Pending(pending) if pending.lease_until > now => Repeat::Wait,
            State::Pending(_) => Repeat::Lapsed,
            State::Unknown(_) => Repeat::AskFirst,
        }
    }

    /// What a repeat may do with an order that is still unknown after the upstream was asked: send it again where the
    /// upstream refuses doubles and its window is open, else answer that it is unknown.
    #[must_use]
    pub fn repeat_unsettled(&self, policy: Policy, now: Millis) -> Repeat {
        match &self.state {
            State::Unknown(_)
                if policy.refuses_doubles && pace::may_send_again(self.upstream, self.created_at, now) =>
            {
                self.send_again()
            }
            State::Unknown(_) | State::Pending(_) | State::Succeeded(_) | State::Refused(_) => Repeat::Answer,
        }
    }

    fn send_again(&self) -> Repeat {
        Repeat::SendAgain {
            not_before: self.attempted_at.after(pace::BETWEEN_ATTEMPTS),
        }
    }

    /// The record of another claim, with the parameters of the first one. `None` where the state allows none.
    /// An order that was refused is charged again; one that is unknown still carries its charges.
    #[must_use]
    pub fn claimed_again(&self, lease: Lease, charges: Vec<Charge>, now: Millis) -> Option<Self> {
        let (before, charges) = match &self.state {
            State::Refused(refused) if !refused.refusal.burnt => (Before::Refused(refused.clone()), charges),
            State::Unknown(unknown) => (Before::Unknown(unknown.clone()), self.charges.clone()),
            State::Refused(_) | State::Pending(_) | State::Succeeded(_) => return None,
        };
        let pending = Pending {
            lease_until: now.after(lease.length),
            before,
        };
        let mut next = self.become_state(State::Pending(pending), "claimed again", now);
        next.version.seal = lease.seal;
        next.charges = charges;
        next.attempted_at = now;
        next.attempts = self.attempts.saturating_add(1);
        Some(next)
    }
}
