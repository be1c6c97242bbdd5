//! The admin port's router. It answers `/livez`, `/readyz` and `/metrics` here and `/api` in [`api`]; `guard` checks
//! every request before routing. See docs/operate.md.
//!
//! Liveness never asks a store, because a store that is down must not make Kubernetes restart every pod. Readiness does
//! ask the stores, and fails while the sidecar drains.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use futures_util::future::join;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use http::{Method, StatusCode};
use tokio::time::timeout;
use tower::Layer as _;

use super::Admin;
use super::api::{self, Api};
use super::guard::Access;
use super::refusal::Refusal;
use crate::http::drain::Phase;
use crate::server::accept::Connected;
use crate::telemetry::metrics;

/// Limits for a request's body: bytes, and time to read it.
const MAX_BODY_BYTES: usize = 16 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Caches must not store these answers, and foreign pages must not load them.
const PRIVATE: [(HeaderName, &str); 3] = [
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];
/// Tells the caller that it cannot change anything.
const READ_ONLY: [(HeaderName, &str); 1] = [(
    HeaderName::from_static("payout-admin-access"),
    "read-only; no [admin] token is configured",
)];
/// How long the stores may take to answer a readiness probe.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

impl Admin {
    /// The admin port's service. Its requests must carry [`Connected`] as an extension.
    pub(crate) fn router(&self) -> Router {
        let routes = Router::new()
            .route("/livez", get("ok\n"))
            .route("/readyz", get(ready))
            .route("/metrics", get(show_metrics))
            .route("/api/payouts", get(api::list))
            .route("/api/payouts/{mchId}/{orderNo}", get(api::show))
            .route("/api/payouts/{mchId}/{orderNo}/settle", post(api::settle))
            .route("/api/payouts/{mchId}/{orderNo}/cancel", post(api::cancel))
            .route("/api/drain", post(api::drain))
            .route("/api/config", get(api::config))
            .fallback(async || {
                Refusal::of(
                    StatusCode::NOT_FOUND,
                    "see /livez, /readyz, /metrics and /api/payouts",
                )
            })
            .with_state(self.clone());
        // A layer on the router itself would run after the choice of a route.
        Router::new().fallback_service(from_fn_with_state(self.clone(), admit).layer(routes))
    }
}

/// Accepts or refuses a request by its head, and reads its body within limits.
async fn admit(
    State(admin): State<Admin>,
    Extension(connected): Extension<Connected>,
    request: Request,
    routes: Next,
) -> Result<Response, Refusal> {
    let (mut head, body) = request.into_parts();
    let api = admin.api();
    let access = api.guard.decide(connected.from.ip().to_canonical(), &head)?;
    // Reads need no body, so do not wait for one.
    let body = if access == Access::Open || matches!(head.method, Method::GET | Method::HEAD) {
        Body::empty()
    } else if let Ok(Ok(body)) = timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_BYTES)).await {
        Body::from(body)
    } else {
        return Err(Refusal::of(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is too large, or did not come to its end",
        ));
    };
    head.extensions.insert(api);
    let answer = routes.run(Request::from_parts(head, body)).await;
    let answer = match answer.headers().get(ALLOW).and_then(|allow| allow.to_str().ok()) {
        Some(allowed) if answer.status() == StatusCode::METHOD_NOT_ALLOWED => {
            let allowed = allowed.replace(',', ", ");
            let text = format!("not by this method: {allowed}");
            ([(ALLOW, allowed)], Refusal::new(answer.status(), text)).into_response()
        }
        Some(_) | None => answer,
    };
    Ok(match access {
        Access::Open => answer,
        Access::ReadOnly => (PRIVATE, READ_ONLY, answer).into_response(),
        Access::Full => (PRIVATE, answer).into_response(),
    })
}

async fn show_metrics(State(admin): State<Admin>) -> Response {
    match admin.metrics.text() {
        Ok(shown) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], shown).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            let text = "the metrics could not be written\n";
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}

/// Whether this instance can take calls now, or the reason why not.
async fn ready(
    State(admin): State<Admin>,
    Extension(api): Extension<Arc<Api>>,
) -> Result<&'static str, (StatusCode, String)> {
    let unready = |why: &dyn Display| Err((StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")));
    if admin.drain.phase() > Phase::Serving {
        return unready(&"draining");
    }
    let (ledger, identity) = (api.payouts.ledger(), api.payouts.identity());
    match timeout(STORE_TIMEOUT, join(ledger.ready(), identity.ready())).await {
        Ok((Ok(()), Ok(()))) => Ok("ok\n"),
        Ok((Err(error), _)) => unready(&error),
        Ok((Ok(()), Err(error))) => unready(&error),
        Err(_) => unready(&"the stores did not answer in time"),
    }
}
