//! The admin port's service: `/livez`, `/readyz` and `/metrics` here, everything under `/api` handed on once `guard` has let it
//! in. Document: specification, section 8; ecosystem.md, section 1.1.
//!
//! Liveness never touches a store: a store that is down must not restart every pod. Readiness does, and says no while
//! draining.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::api::{Answered, Api, Asked, not_by_this_method, refuse};
use super::guard::Access;
use crate::http::drain::{Drain, Phase};
use crate::http::listen::Connected;
use crate::payout::Payouts;
use crate::telemetry::metrics::{self, Metrics};

/// The most bytes of a request's body, and how long they may take.
const MAX_BODY_BYTES: usize = 16 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Says in an answer that nothing can be changed here.
const ADMIN_ACCESS: HeaderName = HeaderName::from_static("payout-admin-access");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
/// How long a store may take to say that it is there.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// The admin port's service. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    payouts: Payouts,
    drain: Drain,
    metrics: Metrics,
    api: Arc<ArcSwap<Api>>,
}

impl Admin {
    /// Answers for this flow.
    #[must_use]
    pub fn new(payouts: Payouts, drain: Drain, metrics: Metrics, api: Api) -> Self {
        Self {
            payouts,
            drain,
            metrics,
            api: Arc::new(ArcSwap::from_pointee(api)),
        }
    }

    /// Puts another configuration's API in force for the requests that come from now on.
    pub fn put_in_force(&self, api: Api) {
        self.api.store(Arc::new(api));
    }

    /// The service of one connection.
    #[must_use]
    pub fn of(&self, connected: Connected) -> OfConnection {
        OfConnection {
            admin: self.clone(),
            peer: connected.from.ip().to_canonical(),
        }
    }

    async fn answer(self, peer: IpAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let api = self.api.load_full();
        match api.guard().decide(peer, &head) {
            Ok(Access::Open) => self.probe(&head).await,
            Ok(access @ (Access::ReadOnly | Access::Full)) => {
                private(self.ask(&api, head, body).await, access)
            }
            Err(refusal) => {
                let mut response = refuse(refusal.status, refusal.text);
                if refusal.status == StatusCode::UNAUTHORIZED {
                    let challenge = HeaderValue::from_static("Bearer");
                    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
                }
                response
            }
        }
    }

    /// What everybody may ask.
    async fn probe(&self, head: &Parts) -> Response<Full<Bytes>> {
        if !matches!(head.method, Method::GET | Method::HEAD) {
            return not_by_this_method("GET, HEAD");
        }
        match head.uri.path() {
            "/metrics" => self.show_metrics(),
            "/readyz" => match self.unready().await {
                None => text(StatusCode::OK, "ok\n".into()),
                Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            },
            _ => text(StatusCode::OK, "ok\n".into()),
        }
    }

    fn show_metrics(&self) -> Response<Full<Bytes>> {
        match self.metrics.text() {
            Ok(shown) => {
                let mut response = text(StatusCode::OK, shown);
                let content_type = HeaderValue::from_static(metrics::CONTENT_TYPE);
                response.headers_mut().insert(header::CONTENT_TYPE, content_type);
                response
            }
            Err(error) => {
                tracing::error!(%error, "the metrics could not be written");
                text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the metrics could not be written\n".into(),
                )
            }
        }
    }

    /// What only those may ask whom the guard let in.
    async fn ask(&self, api: &Api, head: Parts, body: Incoming) -> Response<Full<Bytes>> {
        let path = head.uri.path();
        if path != "/api" && !path.starts_with("/api/") {
            return text(
                StatusCode::NOT_FOUND,
                "see /livez, /readyz, /metrics and /api/payouts\n".into(),
            );
        }
        let body = if matches!(head.method, Method::GET | Method::HEAD) {
            // What is only read needs no body, and nobody waits for one.
            Bytes::new()
        } else if let Ok(Ok(body)) = timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await
        {
            body.to_bytes()
        } else {
            return refuse(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is too large, or did not come to its end",
            );
        };
        let asked = Asked {
            path: path.to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            method: head.method,
            body,
        };
        match api.answer(asked).await {
            Answered::With(response) => response,
            Answered::Drain => {
                tracing::info!("asked over the admin port to stop");
                self.drain.enter(Phase::LameDuck);
                text(StatusCode::ACCEPTED, "draining\n".into())
            }
        }
    }

    /// Why no call should be sent here now.
    async fn unready(&self) -> Option<String> {
        if self.drain.phase() > Phase::Serving {
            return Some("draining".to_owned());
        }
        let stores = async {
            let (ledger, identity) =
                futures_util::future::join(self.payouts.ledger().ready(), self.payouts.identity().ready())
                    .await;
            let ledger = ledger.err().map(|error| error.to_string());
            ledger.or_else(|| identity.err().map(|error| error.to_string()))
        };
        match timeout(STORE_TIMEOUT, stores).await {
            Ok(unready) => unready,
            Err(_) => Some("the stores did not answer in time".to_owned()),
        }
    }
}

/// An answer that no cache keeps and no page of elsewhere is given. Where there is no token, it says what follows.
fn private(mut response: Response<Full<Bytes>>, access: Access) -> Response<Full<Bytes>> {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        CROSS_ORIGIN_RESOURCE_POLICY,
        HeaderValue::from_static("same-origin"),
    );
    if access == Access::ReadOnly {
        headers.insert(
            ADMIN_ACCESS,
            HeaderValue::from_static("read-only; no [admin] token is configured"),
        );
    }
    response
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// The admin port for one connection.
#[derive(Clone)]
pub struct OfConnection {
    admin: Admin,
    peer: IpAddr,
}

impl tower::Service<Request<Incoming>> for OfConnection {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let (admin, peer) = (self.admin.clone(), self.peer);
        Box::pin(async move { Ok(admin.answer(peer, request).await) })
    }
}
