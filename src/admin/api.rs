//! The handlers of `/api`: list, show, settle and cancel payouts, begin the shutdown, and show the configuration
//! without secrets. See docs/operate.md. `guard` has decided before who may call them.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde::de::IntoDeserializer as _;
use serde_json::{Value, json};

use super::Admin;
use super::guard::Guard;
use super::refusal::Refusal;
use super::view::{parse_moment, view};
use crate::http::drain::Phase;
use crate::payouts::Payouts;
use crate::payouts::operator::SettleError;
use crate::payouts::ports::ListFilter;
use payout_domain::ids::{MchId, OrderKey};
use payout_domain::order::StateName;
use payout_domain::secret::Secret;

/// How many orders a page has by default, and at most.
const PAGE: usize = 50;
const PAGE_AT_MOST: usize = 1000;
/// The longest accepted reason, in characters.
const REASON_CHARS: usize = 500;

/// The part of the admin port that a reload replaces.
pub(crate) struct Api {
    pub(super) payouts: Payouts,
    pub(super) guard: Guard,
    config: Value,
}

impl Api {
    /// `token` is the token that callers need. `config` is shown unchanged, so it must be redacted already.
    #[must_use]
    pub(crate) fn new(payouts: Payouts, token: Option<Secret>, config: Value) -> Self {
        Self {
            payouts,
            guard: Guard::new(token),
            config,
        }
    }
}

type Answer = Result<Json<Value>, Refusal>;

fn bad(why: impl std::fmt::Display) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, why)
}

/// The filter of a list. A blank field does not restrict it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Wanted {
    state: String,
    mch_id: String,
    since: String,
    limit: String,
    cursor: String,
}

impl Wanted {
    fn filter(&self) -> Result<ListFilter, String> {
        let limit = given(&self.limit, |text| {
            text.parse().map_err(|error| format!("limit: {error}"))
        })?;
        Ok(ListFilter {
            state: given(&self.state, |text| {
                let read: Result<_, serde::de::value::Error> =
                    StateName::deserialize(text.into_deserializer());
                read.map_err(|error| format!("state: {error}"))
            })?,
            mch_id: given(&self.mch_id, |text| {
                MchId::parse(text).map_err(|rule| format!("mchId {rule}"))
            })?,
            since: given(&self.since, |text| {
                // Form decoding turns an unescaped `+` into a blank.
                let moment = parse_moment(&text.replace(' ', "+"));
                moment.ok_or_else(|| "since must be RFC 3339, or milliseconds since 1970".to_owned())
            })?,
            limit: limit.unwrap_or(PAGE).clamp(1, PAGE_AT_MOST),
            cursor: given(&self.cursor, |text| Ok(text.to_owned()))?,
        })
    }
}

fn given<T>(text: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    if text.is_empty() {
        Ok(None)
    } else {
        read(text).map(Some)
    }
}

pub(super) async fn list(
    Extension(api): Extension<Arc<Api>>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Answer {
    let Query(wanted) = wanted.map_err(|error| bad(error.body_text()))?;
    let page = api.payouts.list(&wanted.filter().map_err(bad)?).await?;
    let payouts: Vec<Value> = page.orders.iter().map(view).collect();
    Ok(Json(json!({ "payouts": payouts, "next": page.next })))
}

type Key = Result<Path<OrderKey>, PathRejection>;

fn key(given: Key) -> Result<OrderKey, Refusal> {
    given.map(|Path(key)| key).map_err(|error| bad(error.body_text()))
}

pub(super) async fn show(Extension(api): Extension<Arc<Api>>, given: Key) -> Answer {
    let key = key(given)?;
    let order = api.payouts.show(&key).await?;
    let order = order.ok_or(SettleError::NotFound(key))?;
    Ok(Json(view(&order)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Word {
    #[serde(rename = "as")]
    outcome: Outcome,
    reason: String,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Succeeded,
    Refused,
}

pub(super) async fn settle(Extension(api): Extension<Arc<Api>>, given: Key, body: Bytes) -> Answer {
    let key = key(given)?;
    let word: Word = serde_json::from_slice(&body).map_err(|error| {
        bad(format!(
            r#"send {{"as":"succeeded"|"refused","reason":"…"}}: {error}"#
        ))
    })?;
    let reason = word.reason.trim();
    if reason.is_empty() || reason.chars().count() > REASON_CHARS {
        return Err(bad("a reason of 1 to 500 characters is needed: it is audited"));
    }
    let has_succeeded = word.outcome == Outcome::Succeeded;
    let order = api.payouts.settle_by_hand(&key, has_succeeded, reason).await?;
    Ok(Json(view(&order)))
}

pub(super) async fn cancel(Extension(api): Extension<Arc<Api>>, given: Key, body: Bytes) -> Answer {
    let key = key(given)?;
    says_nothing(&body)?;
    Ok(Json(view(&api.payouts.cancel(&key).await?)))
}

pub(super) async fn drain(State(admin): State<Admin>, body: Bytes) -> Result<impl IntoResponse, Refusal> {
    says_nothing(&body)?;
    tracing::info!("asked over the admin port to stop");
    admin.drain.enter(Phase::LameDuck);
    Ok((StatusCode::ACCEPTED, "draining\n"))
}

pub(super) async fn config(Extension(api): Extension<Arc<Api>>) -> Json<Value> {
    Json(api.config.clone())
}

/// Accepts an empty body, or `{}`.
fn says_nothing(body: &[u8]) -> Result<(), Refusal> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    if body.is_empty() {
        return Ok(());
    }
    serde_json::from_slice(body)
        .map(|Nothing {}| ())
        .map_err(|error| bad(format!("send no body, or {{}}: {error}")))
}
