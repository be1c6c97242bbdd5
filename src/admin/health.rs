//! The admin port's service: `/livez`, `/readyz` and `/metrics` here, everything under `/api` handed on. Document: specification, section 8; ecosystem.md, section 1.1.
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
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;

use super::api::{Api, Asked};
use crate::http::drain::{Drain, Phase};
use crate::http::listen::Connected;
use crate::payout::Payouts;
use crate::telemetry::metrics::{self, Metrics};

/// The most bytes of a request's body.
const MAX_BODY_BYTES: usize = 16 * 1024;
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
        let path = request.uri().path().to_owned();
        if path == "/api/drain" && *request.method() == Method::POST {
            return self.begin_drain(peer, request.headers());
        }
        if path == "/api" || path.starts_with("/api/") {
            return self.ask_api(peer, path, request).await;
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET is answered here\n".into(),
            );
        }
        match path.as_str() {
            "/metrics" => self.show_metrics(),
            "/livez" => text(StatusCode::OK, "ok\n".into()),
            "/readyz" => match self.unready().await {
                None => text(StatusCode::OK, "ok\n".into()),
                Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            },
            _ => text(
                StatusCode::NOT_FOUND,
                "see /livez, /readyz, /metrics and /api/payouts\n".into(),
            ),
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

    /// What `payout-sidecar drain` asks for: the orderly end, as SIGTERM begins it.
    fn begin_drain(&self, peer: IpAddr, headers: &HeaderMap) -> Response<Full<Bytes>> {
        if !self.api.load().admits(peer, headers) {
            return text(
                StatusCode::UNAUTHORIZED,
                "the admin token is missing or wrong\n".into(),
            );
        }
        tracing::info!("asked over the admin port to stop");
        self.drain.enter(Phase::LameDuck);
        text(StatusCode::ACCEPTED, "draining\n".into())
    }

    async fn ask_api(&self, peer: IpAddr, path: String, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let Ok(body) = Limited::new(body, MAX_BODY_BYTES).collect().await else {
            return text(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is too large, or broke off\n".into(),
            );
        };
        let asked = Asked {
            method: head.method,
            path,
            query: head.uri.query().unwrap_or_default().to_owned(),
            headers: head.headers,
            body: body.to_bytes(),
            peer,
        };
        let api = self.api.load_full();
        api.answer(asked).await
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
        match tokio::time::timeout(STORE_TIMEOUT, stores).await {
            Ok(unready) => unready,
            Err(_) => Some("the stores did not answer in time".to_owned()),
        }
    }
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
