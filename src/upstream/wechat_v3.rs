//! WeChat Pay v3 as an upstream: transfer bills. The merchant's key signs requests; WeChat Pay's keys verify answers
//! and notifications. See docs/wechat-pay.md (signatures, notifications).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::Method;

use super::http_client::{Answer, Failure};
use super::platform_keys::{PlatformKeys, signed};
use super::v3_caller::Caller;
use super::wechat_v2::Hosts;
use crate::clock::Clock;
use crate::http::client_tls::TlsError;
use crate::payouts::claim::Claim;
use crate::payouts::ports::{Notice, OrderQuestion, Upstream};
use payout_domain::contract::send::RequestCredentials;
use payout_domain::ids::MchId;
use payout_domain::order::Destination;
use payout_domain::outcome::{Evidence, Finding};
use payout_domain::wechat::v3::answer::{self, Notification, Signature, Withdrawal};
use payout_domain::wechat::v3::envelope::{Apiv3Key, open_notification};
use payout_domain::wechat::v3::sign::{SigningKey, VerifyingKey, fresh, verify};
use payout_domain::wechat::v3::{BILLS_PATH, cancel_path, query_path};

/// A merchant's credentials for v3.
#[derive(Debug)]
pub struct BillCredentials {
    /// The merchant.
    pub mch_id: MchId,
    /// Serial number of its certificate.
    pub serial_no: String,
    /// The certificate's key.
    pub key: Arc<SigningKey>,
    /// WeChat Pay's public key with its id; `None`: the sidecar downloads platform certificates.
    pub public_key: Option<(String, Arc<VerifyingKey>)>,
    /// Decrypts notifications and platform certificates.
    pub apiv3_key: Option<Arc<Apiv3Key>>,
}

/// A merchant at WeChat Pay v3.
pub struct BillUpstream {
    caller: Caller,
    keys: Arc<PlatformKeys>,
    apiv3_key: Option<Arc<Apiv3Key>>,
    notify_path: Option<String>,
}

impl BillUpstream {
    /// A merchant whose notifications come to `notify_path` of the main port.
    ///
    /// # Errors
    /// When the CA cannot be used, then [`TlsError`].
    pub fn new(
        hosts: Hosts,
        credentials: BillCredentials,
        notify_path: Option<String>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TlsError> {
        let caller = Caller::new(
            hosts,
            credentials.mch_id,
            credentials.serial_no,
            credentials.key,
            clock,
        )?;
        Ok(Self {
            keys: Arc::new(PlatformKeys::new(
                caller.clone(),
                credentials.public_key,
                credentials.apiv3_key.clone(),
            )),
            apiv3_key: credentials.apiv3_key,
            caller,
            notify_path,
        })
    }

    /// Verifies an answer's signature. Logs why if the answer cannot be believed.
    async fn signature(&self, answer: &Answer) -> Result<Signature, String> {
        let verified = self.verified(answer).await;
        if let (Err(why), request_id) = (&verified, answer.headers.get("request-id")) {
            tracing::warn!(
                why,
                ?request_id,
                status = answer.status.as_u16(),
                "an answer of WeChat Pay is not believed"
            );
        }
        verified
    }

    async fn verified(&self, answer: &Answer) -> Result<Signature, String> {
        let Some(signed) = signed(&answer.headers)? else {
            return Ok(Signature::Absent);
        };
        let now = self.caller.now();
        let key = self.keys.of_serial(signed.serial, now).await?;
        verify(signed, &answer.body, key.key(), self.caller.now()).map_err(|error| error.to_string())?;
        Ok(Signature::Verified)
    }

    async fn asked(&self, method: &Method, path: &str) -> Result<Answer, String> {
        let serial = self.keys.current(self.caller.now()).await?;
        let sent = self.caller.ask(method, path, Some(&serial)).await;
        sent.map_err(Failure::why)
    }
}

fn check(upstream: &Destination) -> Result<(), String> {
    match upstream {
        Destination::TransferBill => Ok(()),
        Destination::Wechat(_) | Destination::Handler(_) => {
            Err(super::moved(upstream, "WeChat Pay v3 (transfer-bill)"))
        }
    }
}

#[async_trait]
impl Upstream for BillUpstream {
    async fn attempt(&self, claim: &Claim, _credentials: &RequestCredentials) -> Evidence {
        let order = claim.order();
        if let Err(why) = check(&order.upstream) {
            return Evidence::NeverSent { why };
        }
        let serial = match self.keys.current(self.caller.now()).await {
            Ok(serial) => serial,
            // The sidecar could believe no answer, so it sends nothing.
            Err(why) => return Evidence::NeverSent { why },
        };
        let body = order.parameters.json().to_owned();
        let may_send = self.caller.lease(claim);
        let sent = self
            .caller
            .send(&Method::POST, BILLS_PATH, body, Some(&serial), may_send);
        match sent.await {
            Ok(answer) => {
                let signature = self.signature(&answer).await;
                answer::evidence(order, answer.status.as_u16(), &signature, &answer.body)
            }
            Err(failure) => failure.evidence(),
        }
    }

    async fn query(&self, question: &OrderQuestion, _credentials: &RequestCredentials) -> Finding {
        if let Err(why) = check(&question.upstream) {
            return Finding::unclear(&why);
        }
        match self
            .asked(&Method::GET, &query_path(&question.key.order_no))
            .await
        {
            Ok(answer) => {
                let signature = self.signature(&answer).await;
                let expected = question
                    .expected
                    .as_ref()
                    .map(|(amount, openid)| (*amount, openid));
                answer::finding(
                    &question.key,
                    expected,
                    answer.status.as_u16(),
                    &signature,
                    &answer.body,
                )
            }
            Err(why) => Finding::unclear(&why),
        }
    }

    /// The time of the bill's own call and of the downloads that may be needed to verify its answer.
    fn longest(&self) -> Duration {
        let calls = self.keys.downloads().saturating_add(1);
        self.caller.longest().saturating_mul(calls)
    }

    async fn cancel(&self, order: &OrderQuestion) -> Withdrawal {
        if let Err(why) = check(&order.upstream) {
            return Withdrawal::Unclear(why);
        }
        match self.asked(&Method::POST, &cancel_path(&order.key.order_no)).await {
            Ok(answer) => {
                let signature = self.signature(&answer).await;
                answer::withdrawal(&order.key, answer.status.as_u16(), &signature, &answer.body)
            }
            Err(why) => Withdrawal::Unclear(why),
        }
    }

    fn notify_path(&self) -> Option<&str> {
        self.notify_path.as_deref()
    }

    async fn open(&self, notice: Notice<'_>) -> Result<Notification, String> {
        let apiv3_key = self.apiv3_key.as_ref().ok_or("there is no apiv3_key")?;
        // Verifying may need the download of a key, and a stale notification is not worth that.
        fresh(notice.signed, self.caller.now()).map_err(|error| error.to_string())?;
        let key = self
            .keys
            .of_serial(notice.signed.serial, self.caller.now())
            .await?;
        verify(notice.signed, notice.body, key.key(), self.caller.now())
            .map_err(|error| error.to_string())?;
        let text = open_notification(notice.body, apiv3_key).map_err(|error| error.to_string())?;
        let notification = Notification::read(&text)?;
        if notification.key.mch_id != *self.caller.mch_id() {
            return Err("it is about another merchant's bill".to_owned());
        }
        Ok(notification)
    }
}
