//! The upstream and the mapping as a replica sees them: payments that are made, refused, made late, or made without a word.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;

use super::UPSTREAM_TIMEOUT;
use super::store::Process;
use crate::payout::claim::Claim;
use crate::payout::ports::{Identity, LookupError, OrderQuestion, Upstream};
use crate::rules::contract::send::RequestCredentials;
use crate::rules::fields::Fields;
use crate::rules::outcome::{Class, Evidence, Finding, Found};
use crate::rules::term::{OpenId, UserId, WxAppId};

#[async_trait]
impl Identity for Process {
    async fn openid(&self, _app: &WxAppId, _user: &UserId) -> Result<Option<OpenId>, LookupError> {
        self.step().await;
        if self.shared.goes_wrong(5) {
            return Err(LookupError::Unreachable("scripted".into()));
        }
        // The mapping changes all the time: only the claim's pinning keeps one order with one person.
        // (Where the store forgets that as well, nobody can know whom a forgotten attempt was to pay.)
        let person = if self.shared.kind.forgets {
            0
        } else {
            self.shared.dice.roll(3)
        };
        Ok(OpenId::parse(&format!("oPERSON{person}")).ok())
    }

    async fn ready(&self) -> Result<(), LookupError> {
        Ok(())
    }
}

#[async_trait]
impl Upstream for Process {
    async fn attempt(&self, claim: &Claim, _credentials: &RequestCredentials) -> Evidence {
        self.step().await;
        let (shared, order) = (&self.shared, claim.order());
        let silence = || Evidence::NoAnswer {
            why: "scripted".into(),
        };
        let decline = |class| Evidence::Declined {
            class,
            code: "CODE".into(),
            text: String::new(),
        };
        let evidence = if !shared.faulty.load(Ordering::Relaxed) {
            shared.pay(order);
            Evidence::Accepted {
                fields: Fields::new(),
            }
        } else {
            let already = shared.times_paid(&order.key) > 0;
            match shared.dice.roll(10) {
                0..=2 => {
                    shared.pay(order);
                    Evidence::Accepted {
                        fields: Fields::new(),
                    }
                }
                3 => {
                    shared.pay(order);
                    silence()
                }
                4 => silence(),
                5 => Evidence::NeverSent {
                    why: "scripted".into(),
                },
                6 => {
                    // Sent, silent, and paid later: the order was still on its way in there. How long it may be is what
                    // the time before "no such order" is believed is about.
                    let most = if shared.kind.refuses_doubles { 3600 } else { 15 };
                    let pause = Duration::from_secs(shared.dice.roll(most));
                    let (shared, order) = (Arc::clone(shared), order.clone());
                    *shared.late.lock().unwrap().entry(order.key.clone()).or_default() += 1;
                    tokio::spawn(async move {
                        tokio::time::sleep(pause).await;
                        shared.pay(&order);
                        if let Some(late) = shared.late.lock().unwrap().get_mut(&order.key) {
                            *late -= 1;
                        }
                    });
                    silence()
                }
                // An upstream refuses truthfully: what it has paid, or is about to, it does not call burnt.
                7 => decline(if already || shared.is_on_its_way(&order.key) {
                    Class::Conflict
                } else {
                    Class::Burnt
                }),
                8 => decline(Class::Door),
                _ => decline(Class::Refused),
            }
        };
        shared.note(format!(
            "{} attempt {} came to {evidence:?}",
            order.key, order.attempts
        ));
        let pause = match &evidence {
            Evidence::NoAnswer { .. } => UPSTREAM_TIMEOUT,
            _ => Duration::from_millis(shared.dice.roll(2000)),
        };
        tokio::time::sleep(pause).await;
        self.step().await;
        evidence
    }

    async fn query(&self, question: &OrderQuestion, _credentials: &RequestCredentials) -> Finding {
        self.step().await;
        if self.shared.goes_wrong(30) {
            return Finding::unclear("scripted");
        }
        let finding = if self.shared.times_paid(&question.key) > 0 {
            Finding {
                found: Found::Accepted {
                    fields: Fields::new(),
                },
                status: Some("SENT".into()),
                report: Fields::new(),
            }
        } else {
            Finding::no_such_order()
        };
        self.step().await;
        finding
    }

    fn longest(&self) -> Duration {
        UPSTREAM_TIMEOUT
    }
}
