//! Every path that is not the contract's: forwarded to the customer's backend, streaming both ways, upgrades included.
//! Document: specification, section 3.
//!
//! [`body`] is the one body type of the main port, [`headers`] the rules about headers (pure), [`upgrade`] the tunnel.
//! Where a Service's target port is switched from the backend to the sidecar, nothing else changes.

pub mod body;

pub mod headers;

mod upgrade;

use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use self::body::Body;
use crate::door::peer::Peer;

/// How long the backend, which stands beside us, may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an unused connection to the backend is kept: less than the 5 s after which Node.js closes one.
const IDLE: Duration = Duration::from_secs(4);

/// Forwards requests to one backend. Cheap to clone.
#[derive(Clone)]
pub struct Proxy {
    client: Client<HttpConnector, Incoming>,
    backend: Authority,
}

/// Why a backend's URL cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the backend {url:?} must be http://host:port, without path and query")]
pub struct BackendError {
    url: String,
}

impl Proxy {
    /// Forwards to `http://host:port`.
    ///
    /// # Errors
    /// When the URL is another one, then [`BackendError`].
    pub fn new(url: &str) -> Result<Self, BackendError> {
        let error = || BackendError { url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| error())?;
        let plain =
            uri.scheme() == Some(&Scheme::HTTP) && uri.query().is_none() && matches!(uri.path(), "" | "/");
        let backend = uri.authority().filter(|_| plain).cloned().ok_or_else(error)?;
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        connector.enforce_http(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(128)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            // The caller's Host passes unchanged.
            .set_host(false)
            .http1_max_buf_size(64 * 1024)
            // Only a request of which nothing was written is put on another connection.
            .retry_canceled_requests(true)
            .build(connector);
        Ok(Self { client, backend })
    }

    /// Forwards one request. Whatever goes wrong is an answer: 502 where the backend cannot be reached or breaks off.
    ///
    /// # Cancel safety
    /// Dropping the future cuts the exchange with the backend, which is what a caller that hangs up wants.
    pub async fn forward(&self, mut request: Request<Incoming>, peer: &Peer) -> Response<Body> {
        let Some(uri) = self.uri(request.uri()) else {
            return said(
                StatusCode::BAD_REQUEST,
                "the request has no path that could be forwarded",
            );
        };
        let wants = upgrade::wanted(&request);
        let caller = wants.is_some().then(|| hyper::upgrade::on(&mut request));
        headers::strip_hop_by_hop(request.headers_mut());
        let ids = headers::Ids {
            request: random_u128(),
            trace: random_u128(),
            span: getrandom::u64().unwrap_or(1),
        };
        headers::announce(request.headers_mut(), peer, ids);
        if let Some(protocol) = &wants {
            upgrade::ask_for(request.headers_mut(), protocol);
        }
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        match self.client.request(request).await {
            Ok(mut response) => {
                if let (StatusCode::SWITCHING_PROTOCOLS, Some(caller)) = (response.status(), caller) {
                    let backend = hyper::upgrade::on(&mut response);
                    tokio::spawn(upgrade::tunnel(caller, backend));
                    return response.map(|_| Body::empty());
                }
                headers::strip_hop_by_hop(response.headers_mut());
                response.map(Body::stream)
            }
            Err(error) => {
                tracing::warn!(backend = %self.backend, error = chain(&error), "the backend did not answer");
                let what = if error.is_connect() {
                    "cannot be reached"
                } else {
                    "broke off"
                };
                said(
                    StatusCode::BAD_GATEWAY,
                    &format!("the backend http://{} {what}", self.backend),
                )
            }
        }
    }

    /// The same path and query, byte for byte, at the backend.
    fn uri(&self, asked: &Uri) -> Option<Uri> {
        let path: PathAndQuery = asked.path_and_query()?.clone();
        Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.backend.clone())
            .path_and_query(path)
            .build()
            .ok()
    }
}

/// An answer of our own to a proxied request.
#[must_use]
pub fn said(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::full(format!("payout-sidecar: {text}\n")));
    *response.status_mut() = status;
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    response
}

fn random_u128() -> u128 {
    let mut bytes = [0; 16];
    // Ids that are all alike are better than no answer.
    let _filled = getrandom::fill(&mut bytes).is_ok();
    std::cmp::max(u128::from_be_bytes(bytes), 1)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
