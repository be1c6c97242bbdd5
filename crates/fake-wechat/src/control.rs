//! The control endpoints under `/_stub`, and the echo that plays a customer's backend.

use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::books::{Asked, Payment};
use super::faults::Faults;
use super::serve::pairs;
use super::{World, wechat_v3};

/// The response to a control request. `Err`: the fake could not do it.
type Told = Result<String, (StatusCode, String)>;

/// The routes below `/_stub`.
pub(super) fn router() -> Router<Arc<World>> {
    Router::new()
        .route("/payments", get(payments))
        .route("/requests", get(requests))
        .route("/faults", post(faults))
        .route("/status", post(status))
        .route("/notify", post(notify))
        .route("/rotate", post(rotate))
}

async fn payments(State(world): State<Arc<World>>) -> Json<Vec<Payment>> {
    Json(world.books().payments().to_vec())
}

async fn requests(State(world): State<Arc<World>>) -> Json<Vec<Asked>> {
    Json(world.books().requests().to_vec())
}

async fn faults(State(world): State<Arc<World>>, spec: String) -> Told {
    let faults: Faults = spec.parse().map_err(refused)?;
    *world.faults() = faults;
    Ok("ok\n".to_owned())
}

#[derive(Deserialize)]
struct Status {
    order: String,
    status: String,
}

async fn status(State(world): State<Arc<World>>, Query(query): Query<Status>) -> Told {
    world.books().set_status(&query.order, &query.status);
    Ok("ok\n".to_owned())
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Notify {
    order: String,
    how: String,
}

async fn notify(State(world): State<Arc<World>>, Query(asked): Query<Notify>) -> Told {
    let status = wechat_v3::notify(&world, &asked.order, &asked.how).await;
    Ok(format!("{}\n", status.map_err(refused)?))
}

async fn rotate(State(world): State<Arc<World>>) -> Told {
    world.v3.rotate().map_err(refused)?;
    Ok("ok\n".to_owned())
}

fn refused(why: impl std::fmt::Display) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, format!("{why}\n"))
}

/// Echoes the request as the backend received it, as JSON.
pub(super) async fn echo(request: Request) -> Result<Json<Value>, StatusCode> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| StatusCode::BAD_REQUEST)?;
    Ok(Json(json!({
        "method": head.method.as_str(),
        "path": head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str),
        "headers": pairs(&head.headers),
        "bodyBytes": body.to_bytes().len(),
    })))
}
