//! The upstreams and the mapping as a replica sees them: payments that are made, refused, made late, or made without
//! an answer; upstreams that stand still and do late what they had accepted; a mapping that is slow, empty or away.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::UPSTREAM_TIMEOUT;
use super::store::Process;
use super::world::{Books, Loss};
use crate::clock::Clock;
use crate::payouts::claim::Claim;
use crate::payouts::ports::{Identity, LookupError, OrderQuestion, Upstream};
use payout_domain::contract::send::RequestCredentials;
use payout_domain::fields::Fields;
use payout_domain::ids::{OpenId, UserId, WxAppId};
use payout_domain::order::schedule::QUERY_WINDOW;
use payout_domain::order::{Before, State};
use payout_domain::outcome::{Class, Evidence, Finding, Found, Refusal};

#[async_trait]
impl Identity for Process {
    async fn openid(&self, _app: &WxAppId, _user: &UserId) -> Result<Option<OpenId>, LookupError> {
        self.step().await;
        if self.shared.goes_wrong(10) {
            let slow = Duration::from_millis(self.shared.rng.below(8_000));
            tokio::time::sleep(slow).await;
        }
        if self.shared.goes_wrong(5) {
            return Err(LookupError::Unreachable("scripted".into()));
        }
        let is_empty =
            self.shared.kind.loss == Loss::Everything && self.shared.has_lost.load(Ordering::Relaxed);
        if is_empty || self.shared.goes_wrong(3) {
            return Ok(None);
        }
        // The mapping changes all the time: only what the claim has pinned keeps one order with one person. (If the
        // store forgets that as well, nobody can know whom a forgotten attempt was to pay.)
        let person = if self.shared.kind.loss == Loss::LastWrites {
            0
        } else {
            self.shared.rng.below(3)
        };
        Ok(OpenId::parse(&format!("oPERSON{person}")).ok())
    }

    async fn ready(&self) -> Result<(), LookupError> {
        Ok(())
    }
}

/// One of the places that pay, as a replica sees it.
pub(super) struct At {
    pub(super) process: Process,
    pub(super) place: usize,
}

fn silence() -> Evidence {
    Evidence::NoAnswer {
        why: "scripted".into(),
    }
}

impl At {
    /// The upstream has the request and pays it after it has run for a while, whether or not anybody still waits. The
    /// time until "no such order" is believed must cover this delay.
    fn pay_late(&self, claim: &Claim) {
        let shared = Arc::clone(&self.process.shared);
        let most = if shared.kind.refuses_doubles() { 3600 } else { 15 };
        let pause = Duration::from_secs(shared.rng.below(most));
        let (order, place) = (claim.order().clone(), self.place);
        shared.begins(&order.key);
        tokio::spawn(async move {
            shared.run_for(place, pause).await;
            shared.pay(place, &order);
            shared.ends(&order.key);
        });
    }

    fn answer(&self, claim: &Claim) -> Evidence {
        let (shared, order, place) = (&self.process.shared, claim.order(), self.place);
        let pays = || {
            shared.pay(place, order);
            shared.failed.lock().unwrap().remove(&(place, order.key.clone()));
        };
        let accepted = || Evidence::Accepted {
            fields: Fields::new(),
        };
        let decline = |class| Evidence::Declined {
            class,
            code: "CODE".into(),
            text: String::new(),
        };
        if !shared.faulty.load(Ordering::Relaxed) {
            pays();
            return accepted();
        }
        if !shared.stillness(place).is_zero() {
            // The request is in its queue: done once the upstream moves again, if at all.
            if shared.rng.happens(70) {
                self.pay_late(claim);
            }
            return silence();
        }
        let already = shared.paid_at(place, &order.key).is_some();
        match shared.rng.below(10) {
            0..=2 => {
                pays();
                accepted()
            }
            3 => {
                pays();
                silence()
            }
            4 => silence(),
            5 => Evidence::NeverSent {
                why: "scripted".into(),
            },
            6 => {
                self.pay_late(claim);
                silence()
            }
            // An upstream refuses truthfully: it does not say number_spent of what it has paid or is about to pay.
            7 => decline(if already || shared.may_yet_be_paid_by_another(&order.key) {
                Class::Conflict
            } else {
                Class::NumberSpent
            }),
            8 => decline(Class::RejectedUnprocessed),
            _ => {
                if !already {
                    shared.failed.lock().unwrap().insert((place, order.key.clone()));
                }
                decline(Class::Refused)
            }
        }
    }
}

#[async_trait]
impl Upstream for At {
    async fn attempt(&self, claim: &Claim, _credentials: &RequestCredentials) -> Evidence {
        let (shared, key) = (&self.process.shared, &claim.order().key);
        // Held up between claim and sending: a process that must not send any more does not send.
        if shared.goes_wrong(3) {
            let held_up = Duration::from_secs(shared.rng.below(60));
            tokio::time::sleep(held_up).await;
        }
        let clock: Arc<dyn Clock> = self.process.clock.clone();
        if !claim.lease(&clock, UPSTREAM_TIMEOUT)() {
            return Evidence::NeverSent {
                why: "held up".into(),
            };
        }
        let is_in_doubt = matches!(
            &claim.order().state,
            State::Pending(pending) if matches!(pending.before, Before::Unknown(_))
        );
        shared.doubt(key, is_in_doubt);
        shared.begins(key);
        let evidence = self.answer(claim);
        shared.note(format!(
            "{key} attempt {} at place {} came to {evidence:?}",
            claim.order().attempts,
            self.place
        ));
        let pause = match &evidence {
            Evidence::NoAnswer { .. } => UPSTREAM_TIMEOUT,
            _ => Duration::from_millis(shared.rng.below(2000)),
        };
        shared.ends(key);
        tokio::time::sleep(pause).await;
        // A stopped process goes on with its work when all others have moved on.
        if shared.goes_wrong(10) {
            let stopped = Duration::from_secs(shared.rng.below(180));
            tokio::time::sleep(stopped).await;
        }
        self.process.step().await;
        if matches!(evidence, Evidence::NoAnswer { .. }) {
            let mut silent = self.process.silent.lock().unwrap();
            silent.insert(key.clone(), Instant::now());
        }
        evidence
    }

    async fn query(&self, question: &OrderQuestion, _credentials: &RequestCredentials) -> Finding {
        self.process.step().await;
        let (shared, key, place) = (&self.process.shared, &question.key, self.place);
        let still = shared.stillness(place);
        if still > UPSTREAM_TIMEOUT {
            tokio::time::sleep(UPSTREAM_TIMEOUT).await;
            return Finding::unclear("it stands still");
        }
        tokio::time::sleep(still).await;
        if shared.goes_wrong(15) {
            return Finding::unclear("scripted");
        }
        let paid = shared.paid_at(place, key);
        let is_beyond = shared.kind.books == Books::Wechat
            && place == 0
            && paid.is_some_and(|at| at.elapsed() > QUERY_WINDOW);
        let has_failed = shared.failed.lock().unwrap().contains(&(place, key.clone()));
        let word = |found, status: &str| Finding {
            found,
            status: Some(status.into()),
            report: Fields::new(),
        };
        let finding = if paid.is_some() && !is_beyond {
            let accepted = Found::Accepted {
                fields: Fields::new(),
            };
            word(accepted, "SENT")
        } else if has_failed && paid.is_none() && !shared.may_yet_be_paid(key) {
            let refusal = Refusal {
                code: "FAILED".into(),
                text: String::new(),
                number_spent: false,
            };
            word(Found::NotPaid(refusal), "FAILED")
        } else {
            Finding::no_such_order()
        };
        self.process.step().await;
        finding
    }

    fn longest(&self) -> Duration {
        UPSTREAM_TIMEOUT
    }
}
