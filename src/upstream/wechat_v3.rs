//! WeChat Pay v3 as an upstream: transfer bills. The merchant's key signs requests; WeChat Pay's keys verify answers
//! and notifications. See docs/wechat-pay.md (signatures, notifications).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::http_client::{Answer, Failure};
use super::platform_keys::{PlatformKeys, signed};
use super::wechat_v2::{Clients, Hosts, nonce};
use crate::clock::Clock;
use crate::http::client_tls::TlsError;
use crate::payouts::claim::Claim;
use crate::payouts::ports::{Notice, OrderQuestion, Upstream};
use payout_domain::contract::send::RequestCredentials;
use payout_domain::ids::{MchId, Millis};
use payout_domain::order::Destination;
use payout_domain::outcome::{Evidence, Finding};
use payout_domain::wechat::v3::answer::{self, Notification, Signature, Withdrawal};
use payout_domain::wechat::v3::envelope::{Apiv3Key, open_notification};
use payout_domain::wechat::v3::sign::{
    SigningKey, VerifyingKey, authorization, fresh, request_message, verify,
};
use payout_domain::wechat::v3::{BILLS_PATH, cancel_path, query_path};

/// v3 refuses requests without this header.
const USER_AGENT: &str = concat!("payout-sidecar/", env!("CARGO_PKG_VERSION"));
const WECHATPAY_SERIAL: HeaderName = HeaderName::from_static("wechatpay-serial");

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

/// Signs and sends requests.
#[derive(Clone)]
pub(super) struct Caller(Arc<Inner>);

struct Inner {
    mch_id: MchId,
    serial_no: String,
    key: Arc<SigningKey>,
    hosts: Hosts,
    clients: Clients,
    clock: Arc<dyn Clock>,
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
        // v3 identifies the merchant by its signature, so no client certificate is needed.
        let clients = Clients::new(&hosts, Some(&hosts.metrics), None)?;
        let caller = Caller(Arc::new(Inner {
            mch_id: credentials.mch_id,
            serial_no: credentials.serial_no,
            key: credentials.key,
            hosts,
            clients,
            clock,
        }));
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
        let sent = self
            .caller
            .send(method, path, String::new(), Some(&serial), || true)
            .await;
        sent.map_err(Failure::why)
    }
}

impl Caller {
    pub(super) fn now(&self) -> Millis {
        self.0.clock.now()
    }

    pub(super) async fn get(&self, path: &str, serial: Option<&str>) -> Result<Answer, Failure> {
        self.send(&Method::GET, path, String::new(), serial, || true)
            .await
    }

    /// Signs and sends. `serial` names the key that must sign the answer.
    async fn send(
        &self,
        method: &Method,
        path: &str,
        body: String,
        serial: Option<&str>,
        may_send: impl Fn() -> bool + Clone + Send + Sync + 'static,
    ) -> Result<Answer, Failure> {
        let headers = self
            .headers(method, path, &body, serial)
            .map_err(Failure::NotMade)?;
        let body = Bytes::from(body);
        self.0.clients.send(method, path, &headers, &body, may_send).await
    }

    fn headers(
        &self,
        method: &Method,
        path: &str,
        body: &str,
        serial: Option<&str>,
    ) -> Result<HeaderMap, String> {
        let Inner {
            mch_id,
            serial_no,
            key,
            ..
        } = &*self.0;
        let seconds = self.now().0.div_euclid(1000);
        let nonce = nonce();
        let message = request_message(method.as_str(), path, seconds, &nonce, body);
        let signature = key
            .sign(message.as_bytes())
            .map_err(|_| "the request could not be signed".to_owned())?;
        let value = |text: &str| HeaderValue::try_from(text).map_err(|error| error.to_string());
        let json = HeaderValue::from_static("application/json");
        let mut headers = HeaderMap::with_capacity(5);
        headers.insert(header::ACCEPT, json.clone());
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        if method == Method::POST {
            headers.insert(header::CONTENT_TYPE, json);
        }
        let authorization = authorization(mch_id, serial_no, seconds, &nonce, &signature);
        let mut authorization = value(&authorization)?;
        authorization.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, authorization);
        if let Some(serial) = serial {
            headers.insert(WECHATPAY_SERIAL, value(serial)?);
        }
        Ok(headers)
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
        let may_send = claim.lease(&self.caller.0.clock, self.caller.0.hosts.timeout);
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
        self.caller.0.hosts.longest().saturating_mul(calls)
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
        if notification.key.mch_id != self.caller.0.mch_id {
            return Err("it is about another merchant's bill".to_owned());
        }
        Ok(notification)
    }
}
