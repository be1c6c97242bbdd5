//! WeChat Pay v2 as an upstream: the merchant's client certificate, the main host and its backup. Not here: bodies,
//! and the meaning of answers (`payout_domain::wechat::v2`). See docs/wechat-pay.md.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};

use super::http_client::{Answer, Client, Failure};
use crate::clock::Clock;
use crate::http::base_url::BaseUrl;
use crate::http::client_tls::{ClientCertificate, TlsError, tls_config};
use crate::payouts::claim::Claim;
use crate::payouts::ports::{OrderQuestion, Upstream};
use crate::telemetry::metrics::Metrics;
use payout_domain::contract::send::RequestCredentials;
use payout_domain::order::Destination;
use payout_domain::outcome::{Evidence, Finding};
use payout_domain::secret::Secret;
use payout_domain::wechat::{Product, v2};

/// How many clients made from credentials in requests to keep. The oldest one goes first.
const MAX_REQUEST_CLIENTS: usize = 16;

/// Where WeChat Pay is, and how long calls may take.
#[derive(Clone)]
pub struct Hosts {
    /// The main host.
    pub base: BaseUrl,
    /// Used when the main host cannot be reached. No byte can have reached it then.
    pub backup: Option<BaseUrl>,
    /// Replaces the public root certificates.
    pub ca_pem: Option<String>,
    /// The timeout for name, TCP and TLS of one connection.
    pub connect_timeout: Duration,
    /// The timeout from the first byte sent to the last one received.
    pub timeout: Duration,
    /// The merchant's entry. Its circuit breakers are named after it.
    pub name: String,
    /// Shows its circuit breakers and exchanges.
    pub metrics: Metrics,
}

impl Hosts {
    /// The longest that one call takes: a connect timeout at each host, and one exchange.
    #[must_use]
    pub fn longest(&self) -> Duration {
        let hosts: u32 = if self.backup.is_some() { 2 } else { 1 };
        self.connect_timeout
            .saturating_mul(hosts)
            .saturating_add(self.timeout)
    }
}

/// A merchant at WeChat Pay.
pub struct WechatUpstream {
    hosts: Hosts,
    api_key: Option<Secret>,
    clients: Arc<Clients>,
    from_requests: Mutex<Vec<FromRequest>>,
    clock: Arc<dyn Clock>,
}

/// The clients of both hosts, with or without a client certificate.
pub(super) struct Clients {
    base: Client,
    backup: Option<Client>,
}

/// Clients made from credentials in requests, found again by those credentials.
struct FromRequest {
    cert: Secret,
    key: Secret,
    clients: Arc<Clients>,
}

impl WechatUpstream {
    /// A merchant with its configured key and certificate, if it has them.
    ///
    /// # Errors
    /// When the CA, the certificate or its key cannot be used, then [`TlsError`].
    pub fn new(
        hosts: Hosts,
        api_key: Option<Secret>,
        certificate: Option<&ClientCertificate>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TlsError> {
        let clients = Arc::new(Clients::new(&hosts, Some(&hosts.metrics), certificate)?);
        Ok(Self {
            hosts,
            api_key,
            clients,
            from_requests: Mutex::new(Vec::new()),
            clock,
        })
    }

    /// The clients and the API key for a request: from its own credentials if it has some, otherwise the configured
    /// ones.
    fn clients_and_key(&self, credentials: &RequestCredentials) -> Result<(Arc<Clients>, Secret), String> {
        let api_key = credentials.api_secret_key.as_ref().or(self.api_key.as_ref());
        let api_key = api_key.ok_or(
            "there is no API key: neither api_key in the configuration nor apiSecretKey in the request",
        )?;
        let clients = match (&credentials.cert_key, &credentials.private_key) {
            (Some(cert), Some(key)) => self.clients_of(cert, key)?,
            (None, None) => Arc::clone(&self.clients),
            (Some(_), None) | (None, Some(_)) => {
                return Err("certKey and privateKey must be given together".to_owned());
            }
        };
        Ok((clients, api_key.clone()))
    }

    fn clients_of(&self, cert: &Secret, key: &Secret) -> Result<Arc<Clients>, String> {
        let mut kept = self.from_requests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = kept
            .iter()
            .find(|k| k.cert.matches(cert.expose()) && k.key.matches(key.expose()))
        {
            return Ok(Arc::clone(&found.clients));
        }
        let certificate = ClientCertificate::from_pem(cert, key);
        let clients = certificate.and_then(|certificate| {
            // A caller's wrong certificate says nothing about the merchant's own, so these clients have their own
            // circuit breakers.
            Clients::new(&self.hosts, None, Some(&certificate))
        });
        let clients =
            Arc::new(clients.map_err(|error| format!("certKey and privateKey of the request: {error}"))?);
        if kept.len() >= MAX_REQUEST_CLIENTS {
            kept.remove(0);
        }
        kept.push(FromRequest {
            cert: cert.clone(),
            key: key.clone(),
            clients: Arc::clone(&clients),
        });
        Ok(clients)
    }
}

impl Clients {
    pub(super) fn new(
        hosts: &Hosts,
        metrics: Option<&Metrics>,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Self, TlsError> {
        let tls = tls_config(hosts.ca_pem.as_deref(), certificate)?;
        let client = |base: &BaseUrl| {
            let client = Client::new(base.clone(), tls.clone(), hosts.connect_timeout, hosts.timeout)?;
            Ok::<_, TlsError>(client.watched(&hosts.name, metrics))
        };
        Ok(Self {
            base: client(&hosts.base)?,
            backup: hosts.backup.as_ref().map(client).transpose()?,
        })
    }

    async fn post(
        &self,
        path: &str,
        body: &Bytes,
        may_send: impl Fn() -> bool + Clone + Send + Sync + 'static,
    ) -> Result<Answer, Failure> {
        let mut headers = HeaderMap::with_capacity(1);
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/xml; charset=utf-8"),
        );
        self.send(&Method::POST, path, &headers, body, may_send).await
    }

    /// Sends to the main host, and to the backup if the main one cannot be reached.
    pub(super) async fn send(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: &Bytes,
        may_send: impl Fn() -> bool + Clone + Send + Sync + 'static,
    ) -> Result<Answer, Failure> {
        let first = self
            .base
            .send(method, path, headers, body.clone(), may_send.clone());
        match (first.await, &self.backup) {
            // A lease that is about to end stays so, and a request that cannot be built will not be built elsewhere.
            (Err(first @ (Failure::CircuitOpen(_) | Failure::Unreachable(_))), Some(backup)) => {
                let why = first.why();
                tracing::warn!(why, "the backup host was taken");
                let sent = backup.send(method, path, headers, body.clone(), may_send).await;
                sent.map_err(|second| {
                    if second.is_unsent() {
                        Failure::Unreachable(format!("{why}; {}", second.why()))
                    } else {
                        second
                    }
                })
            }
            (sent, _) => sent,
        }
    }
}

#[async_trait]
impl Upstream for WechatUpstream {
    async fn attempt(&self, claim: &Claim, credentials: &RequestCredentials) -> Evidence {
        let order = claim.order();
        let prepared = product_of(&order.upstream).and_then(|product| {
            let (clients, api_key) = self.clients_and_key(credentials)?;
            let body =
                v2::signed_body(&order.parameters, &nonce(), &api_key).map_err(|error| error.to_string())?;
            Ok((product, clients, Bytes::from(body)))
        });
        let (product, clients, body) = match prepared {
            Ok(prepared) => prepared,
            Err(why) => return Evidence::NeverSent { why },
        };
        let may_send = claim.lease(&self.clock, self.hosts.timeout);
        match clients.post(v2::path(product), &body, may_send).await {
            Ok(answer) => v2::evidence(product, order, answer.status.as_u16(), &answer.body),
            Err(failure) => failure.evidence(),
        }
    }

    async fn query(&self, question: &OrderQuestion, credentials: &RequestCredentials) -> Finding {
        let prepared = product_of(&question.upstream).and_then(|product| {
            let (clients, api_key) = self.clients_and_key(credentials)?;
            let fields = v2::query_body(product, &question.key, &question.wx_app_id);
            let body = v2::signed_body(&fields, &nonce(), &api_key).map_err(|error| error.to_string())?;
            Ok((product, clients, Bytes::from(body)))
        });
        let (product, clients, body) = match prepared {
            Ok(prepared) => prepared,
            Err(why) => return Finding::unclear(&why),
        };
        match clients.post(v2::query_path(product), &body, || true).await {
            Ok(answer) => {
                let expected = question
                    .expected
                    .as_ref()
                    .map(|(amount, openid)| (*amount, openid));
                v2::finding(
                    product,
                    &question.key,
                    expected,
                    answer.status.as_u16(),
                    &answer.body,
                )
            }
            Err(failure) => Finding::unclear(&failure.why()),
        }
    }

    fn longest(&self) -> Duration {
        self.hosts.longest()
    }
}

fn product_of(upstream: &Destination) -> Result<Product, String> {
    match upstream {
        Destination::Wechat(product) => Ok(*product),
        Destination::Handler(_) | Destination::TransferBill => Err(super::moved(upstream, "WeChat Pay")),
    }
}

/// `nonce_str`: 32 hexadecimal digits.
pub(super) fn nonce() -> String {
    format!("{:032x}", rand::random::<u128>())
}
