//! One attempt under a claim: sends the order once, and records what the attempt proved, even if the ledger is out of
//! reach for minutes.

use std::sync::Arc;
use std::time::Duration;

use super::apply::Recorded;
use super::claim::Claim;
use super::merchant::Merchant;
use super::reply::Reply;
use super::{Payouts, audit};
use crate::telemetry::context::carried;
use payout_domain::contract::error::ApiError;
use payout_domain::contract::reason::NotSent;
use payout_domain::contract::send::RequestCredentials;
use payout_domain::order::step::{Event, Policy, Step, step};
use payout_domain::order::{Order, State};
use payout_domain::outcome::Evidence;

/// The pauses between tries to record what an attempt proved: doubled each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long to keep trying. After that the record stays pending, its lease runs out, and the settler asks the
/// upstream.
const KEEP_TRYING: Duration = Duration::from_secs(15 * 60);

impl Payouts {
    /// Sends the claimed order and records the outcome. From here on there is no error, only evidence.
    pub(super) async fn dispatch(
        &self,
        merchant: &Merchant,
        given: &RequestCredentials,
        claim: Option<Claim>,
    ) -> Reply {
        let Some(claim) = claim else {
            return Reply::Failed(ApiError::unknown());
        };
        let credentials = merchant.credentials(given);
        let evidence = merchant.upstream.attempt(&claim, &credentials).await;
        let claimed = claim.into_order();
        match &evidence {
            Evidence::NeverSent { why } | Evidence::NoAnswer { why } => {
                merchant.contact.missed();
                tracing::warn!(order = %claimed.key, why, "an attempt got no answer");
            }
            Evidence::Accepted { .. } | Evidence::Opened { .. } | Evidence::Declined { .. } => {}
        }
        self.record(claimed, evidence, merchant.policy).await
    }

    /// Records what an attempt proved, and makes the caller's reply. If the store is out of reach, the caller still
    /// gets the true outcome, and a task keeps trying to record it.
    async fn record(&self, claimed: Order, evidence: Evidence, policy: Policy) -> Reply {
        let was_sent = match &evidence {
            Evidence::NeverSent { .. } => false,
            Evidence::NoAnswer { .. }
            | Evidence::Accepted { .. }
            | Evidence::Opened { .. }
            | Evidence::Declined { .. } => true,
        };
        let event = Event::Attempted {
            version: claimed.version,
            evidence,
        };
        match self.apply_to_latest(&claimed, &event, policy).await {
            Ok(recorded) => reply_to(recorded, was_sent),
            Err(error) => {
                tracing::warn!(order = %claimed.key, %error, "an outcome was not recorded yet");
                let reply = match step(&claimed, event.clone(), policy, self.now(), self.jitter()) {
                    Step::Become(next) => Recorded::Order(next),
                    Step::Stay => Recorded::Order(Box::new(claimed.clone())),
                    Step::Remove => Recorded::Nothing,
                };
                self.record_later(claimed, event, policy);
                reply_to(reply, was_sent)
            }
        }
    }

    /// Keeps trying to record in its own task, for `KEEP_TRYING`, and raises an alarm if that fails.
    fn record_later(&self, claimed: Order, event: Event, policy: Policy) {
        let payouts = self.clone();
        self.tasks().spawn(carried(async move {
            let begun = tokio::time::Instant::now();
            let mut pause = FIRST_PAUSE;
            while begun.elapsed() < KEEP_TRYING {
                tokio::time::sleep(pause).await;
                pause = std::cmp::min(pause.saturating_mul(2), LONGEST_PAUSE);
                match payouts.apply_to_latest(&claimed, &event, policy).await {
                    Ok(_) => {
                        tracing::info!(order = %claimed.key, "an outcome was recorded after all");
                        return;
                    }
                    Err(error) => {
                        tracing::debug!(order = %claimed.key, %error, "an outcome was not recorded yet")
                    }
                }
            }
            audit::alarm(
                &claimed,
                "an outcome could not be recorded; the upstream will be asked",
            );
        }));
    }

    /// The store did not acknowledge this claim, and nothing was sent for it. If the store has it after all, a task
    /// takes it back, so that it does not block the order number.
    pub(super) fn take_back(&self, claimed: Order, policy: Policy) {
        let event = Event::Attempted {
            version: claimed.version,
            evidence: Evidence::NeverSent {
                why: "the claim was not acknowledged".to_owned(),
            },
        };
        self.record_later(claimed, event, policy);
    }
}

fn reply_to(recorded: Recorded, was_sent: bool) -> Reply {
    match recorded {
        // If this attempt was not sent, an earlier one may still have been paid.
        Recorded::Order(order)
            if was_sent || matches!(order.state, State::Unknown(_) | State::Succeeded(_)) =>
        {
            Reply::Recorded(Arc::from(order))
        }
        // The attempt was sent, and the store has forgotten the record since: only the upstream knows the outcome.
        Recorded::Nothing if was_sent => Reply::Failed(ApiError::unknown()),
        Recorded::Nothing | Recorded::Order(_) => Reply::Failed(ApiError::not_sent(NotSent::Upstream)),
    }
}
