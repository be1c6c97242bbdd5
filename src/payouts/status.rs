//! Status calls: asks the upstream, settles the ledger by what it says, and answers from the ledger what the upstream
//! cannot. See docs/api.md.

use super::Payouts;
use super::ports::OrderQuestion;
use payout_domain::contract::answer::{failed_by, not_found, reported, stands};
use payout_domain::contract::error::ApiError;
use payout_domain::contract::status::StatusRequest;
use payout_domain::encoding::Encoding;
use payout_domain::fields::Fields;
use payout_domain::order::{Order, State};
use payout_domain::outcome::Found;

impl Payouts {
    /// Answers how a payout stands. `asked` is the request's encoding. The work holds `permit` until the answer is
    /// known.
    ///
    /// # Errors
    /// When the order is not on record and no merchant entry matches, or the app is not the order's, then the fault;
    /// the request was not taken.
    ///
    /// # Cancel safety
    /// May be dropped at any time: the query runs in its own task, which records what the upstream says.
    pub async fn status(
        &self,
        request: StatusRequest,
        asked: Encoding,
        permit: impl Send + 'static,
    ) -> Result<Fields<'static>, ApiError> {
        let payouts = self.clone();
        self.detached(async move {
            let answer = payouts.answer_status(request, asked).await;
            drop(permit);
            answer
        })
        .await
    }

    async fn answer_status(
        &self,
        request: StatusRequest,
        asked: Encoding,
    ) -> Result<Fields<'static>, ApiError> {
        let key = &request.key;
        let is_under_way = || self.inner.single_flight.has(key);
        match self.inner.ledger.get(key).await {
            Ok(Some(order)) => self.status_of(order, &request).await,
            Ok(None) if is_under_way() => Ok(failed_by(&ApiError::processing(), key)),
            Ok(None) => self.status_without_record(&request, asked).await,
            Err(error) => {
                tracing::warn!(order = %key, %error, "how an order stands cannot be told: the ledger is out of reach");
                let fault = if is_under_way() {
                    ApiError::processing()
                } else {
                    ApiError::unknown()
                };
                Ok(failed_by(&fault, key))
            }
        }
    }

    async fn status_of(&self, order: Order, request: &StatusRequest) -> Result<Fields<'static>, ApiError> {
        let settings = self.settings();
        let key = &order.key.clone();
        if order.wx_app_id != request.wx_app_id {
            return Err(ApiError::differs("wxAppId"));
        }
        let is_settled = order.settled_at().is_some();
        if !is_settled && self.inner.single_flight.has(key) {
            // This process pays the order or is about to. The lease is its own, so it must not ask the upstream
            // meanwhile.
            return Ok(failed_by(&ApiError::processing(), key));
        }
        let known = order.clone();
        let order = self.watch_claim(order).await.unwrap_or(known);
        let merchant = settings.leads_to(&order);
        let (Some(merchant), false) = (merchant, matches!(order.state, State::Pending(_))) else {
            return Ok(stands(&order, None, settings.disclosure));
        };
        let credentials = merchant.credentials(&request.credentials);
        let (finding, recorded) = self.ask(&order, &merchant, &credentials).await;
        let order = recorded.unwrap_or_else(|error| {
            tracing::warn!(order = %key, %error, "what the upstream said was not recorded");
            order
        });
        // While this call asked the upstream, a repeat may have begun to send the refused order again.
        let order = if matches!(order.state, State::Refused(_)) {
            match self.inner.ledger.get(key).await {
                Ok(Some(now)) => now,
                Ok(None) | Err(_) => return Ok(failed_by(&ApiError::unknown(), key)),
            }
        } else {
            order
        };
        Ok(stands(&order, Some(&finding), settings.disclosure))
    }

    /// The answer about an order without a record. The ledger was read, has forgotten nothing, and has no such order.
    async fn status_without_record(
        &self,
        request: &StatusRequest,
        asked: Encoding,
    ) -> Result<Fields<'static>, ApiError> {
        let settings = self.settings();
        let key = &request.key;
        let merchant = settings
            .merchant(&key.mch_id, &request.wx_app_id)
            .ok_or_else(ApiError::no_merchant)?;
        let question = OrderQuestion {
            key: key.clone(),
            wx_app_id: request.wx_app_id.clone(),
            trade_record_id: request.trade_record_id,
            upstream: merchant.kind.destination(),
            encoding: asked,
            expected: None,
        };
        let credentials = merchant.credentials(&request.credentials);
        let finding = merchant.upstream.query(&question, &credentials).await;
        Ok(match &finding.found {
            Found::Accepted { .. } | Found::NotPaid(_) | Found::Moving => {
                reported(key, &finding, settings.disclosure)
            }
            // Another request may have claimed the order while this one asked the upstream, here or in another
            // process.
            Found::NoSuchOrder => match self.inner.ledger.get(key).await {
                Ok(None) if !self.inner.single_flight.has(key) => not_found(key),
                Ok(None | Some(_)) => failed_by(&ApiError::processing(), key),
                Err(_) => failed_by(&ApiError::unknown(), key),
            },
            Found::Unclear { why } => {
                tracing::warn!(order = %key, why, "the upstream did not say how an order stands");
                failed_by(&ApiError::unknown(), key)
            }
        })
    }
}
