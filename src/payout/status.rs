//! How a payout stands: the upstream is asked, what it says settles the ledger, and the ledger answers where the
//! upstream cannot. Document: specification, section 2.4.

use super::Payouts;
use super::ports::OrderQuestion;
use crate::rules::contract::answer::{failed_by, not_found, remembered, reported};
use crate::rules::contract::fault::Fault;
use crate::rules::contract::status::StatusRequest;
use crate::rules::encoding::Encoding;
use crate::rules::fields::Fields;
use crate::rules::order::{Order, State, UpstreamKind};
use crate::rules::outcome::{Finding, Found};

use super::merchant::{Merchant, MerchantKind};

impl Payouts {
    /// Answers how a payout stands. `asked` is the request's encoding.
    ///
    /// # Errors
    /// When no merchant entry matches or the app is not the order's, then the fault; the request was not taken.
    ///
    /// # Cancel safety
    /// May be dropped at any time; what the upstream said is then asked again by somebody else.
    pub async fn status(&self, request: StatusRequest, asked: Encoding) -> Result<Fields<'static>, Fault> {
        let settings = self.settings();
        let disclosure = settings.disclosure;
        let key = &request.key;
        let merchant = settings
            .merchant(&key.mch_id, &request.wx_app_id)
            .ok_or_else(Fault::no_merchant)?;
        let mut order = match self.inner.ledger.get(key).await {
            Ok(order) => order,
            Err(error) => {
                tracing::warn!(order = %key, %error, "the ledger is out of reach; the upstream is asked alone");
                None
            }
        };
        if let Some(known) = &order {
            if known.wx_app_id != request.wx_app_id {
                return Err(Fault::differs("wxAppId"));
            }
            if let State::Pending(pending) = &known.state {
                if pending.lease_until > self.inner.clock.now() {
                    // WeChat must not be asked about an order while it is being paid.
                    return Ok(failed_by(&Fault::processing(), key));
                }
                order = Some(
                    self.record_lapse(known, merchant.policy)
                        .await
                        .unwrap_or_else(|_| known.clone()),
                );
            }
        }
        let finding = self.ask(&request, order.as_ref(), &merchant, asked).await;
        if let Some(known) = order.take() {
            order = Some(
                match self
                    .record_finding(&known, finding.clone(), merchant.policy)
                    .await
                {
                    Ok(order) => order,
                    Err(error) => {
                        tracing::warn!(order = %key, %error, "what the upstream said was not recorded");
                        known
                    }
                },
            );
        }
        Ok(match (&finding.found, &order) {
            (Found::Accepted { .. } | Found::NotPaid(_) | Found::Moving, order) => {
                reported(key, &finding, order.as_ref(), disclosure)
            }
            (Found::NoSuchOrder, None) => not_found(key),
            (Found::NoSuchOrder | Found::Unclear { .. }, Some(order)) => remembered(order, disclosure),
            (Found::Unclear { why }, None) => {
                tracing::warn!(order = %key, why, "the upstream did not say how an order stands");
                failed_by(&Fault::unknown(), key)
            }
        })
    }

    async fn ask(
        &self,
        request: &StatusRequest,
        order: Option<&Order>,
        merchant: &Merchant,
        asked: Encoding,
    ) -> Finding {
        let question = match order {
            Some(order) => OrderQuestion::of(order),
            None => OrderQuestion {
                key: request.key.clone(),
                wx_app_id: request.wx_app_id.clone(),
                trade_record_id: request.trade_record_id,
                upstream: match &merchant.kind {
                    MerchantKind::Wechat { product, .. } => UpstreamKind::Wechat(*product),
                    MerchantKind::TransferBill { .. } => UpstreamKind::TransferBill,
                    MerchantKind::Handler { .. } => UpstreamKind::Handler,
                },
                encoding: asked,
                expected: None,
            },
        };
        merchant
            .upstream
            .query(&question, &merchant.credentials(&request.credentials))
            .await
    }
}
