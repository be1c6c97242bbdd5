//! Signs a merchant's requests to WeChat Pay v3 and sends them (docs/wechat-pay.md, signatures). It believes no answer:
//! its callers verify them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::http_client::{Answer, Failure};
use super::wechat_v2::{Clients, Hosts, nonce};
use crate::clock::Clock;
use crate::http::client_tls::TlsError;
use crate::payouts::claim::Claim;
use payout_domain::ids::{MchId, Millis};
use payout_domain::wechat::v3::sign::{SigningKey, authorization, request_message};

/// v3 refuses requests without this header.
const USER_AGENT: &str = concat!("payout-sidecar/", env!("CARGO_PKG_VERSION"));
const WECHATPAY_SERIAL: HeaderName = HeaderName::from_static("wechatpay-serial");

/// Signs and sends requests. Cheap to clone.
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

impl Caller {
    /// # Errors
    /// When the CA cannot be used, then [`TlsError`].
    pub(super) fn new(
        hosts: Hosts,
        mch_id: MchId,
        serial_no: String,
        key: Arc<SigningKey>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TlsError> {
        // v3 identifies the merchant by its signature, so no client certificate is needed.
        let clients = Clients::new(&hosts, Some(&hosts.metrics), None)?;
        Ok(Self(Arc::new(Inner {
            mch_id,
            serial_no,
            key,
            hosts,
            clients,
            clock,
        })))
    }

    pub(super) fn mch_id(&self) -> &MchId {
        &self.0.mch_id
    }

    /// The longest that one call takes.
    pub(super) fn longest(&self) -> Duration {
        self.0.hosts.longest()
    }

    /// Whether the claim's lease still allows sending.
    pub(super) fn lease(&self, claim: &Claim) -> impl Fn() -> bool + Clone + Send + use<> {
        claim.lease(&self.0.clock, self.0.hosts.timeout)
    }

    pub(super) fn now(&self) -> Millis {
        self.0.clock.now()
    }

    /// Sends a request without a body. It pays nothing, so no lease limits it.
    pub(super) async fn ask(
        &self,
        method: &Method,
        path: &str,
        serial: Option<&str>,
    ) -> Result<Answer, Failure> {
        self.send(method, path, String::new(), serial, || true).await
    }

    /// Signs and sends. `serial` names the key that must sign the answer.
    pub(super) async fn send(
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
