//! `/api`: payouts looked up, settled by hand and cancelled, and the configuration without its secrets. Document: specification,
//! section 8. Asked for with the admin token; without one, served to loopback only.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, ORIGIN};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::{Value, json};

use super::view::{parse_moment, view};
use crate::payout::Payouts;
use crate::payout::operator::{CancelError, SettleError};
use crate::payout::ports::ListFilter;
use crate::rules::order::StateName;
use crate::rules::term::{MchId, OrderKey, OrderNo};
use crate::secret::Secret;

/// How many orders a page has where the caller does not say, and at most.
const PAGE: usize = 50;
const PAGE_AT_MOST: usize = 1000;
/// The longest reason that is kept, in characters.
const REASON_CHARS: usize = 500;

/// The API. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    payouts: Payouts,
    token: Option<Arc<Secret>>,
    config: Arc<Value>,
}

/// A request, with its body read.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) peer: IpAddr,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Word {
    #[serde(rename = "as")]
    outcome: Outcome,
    reason: String,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Succeeded,
    Refused,
}

impl Api {
    /// The API over a flow. `config` is shown as it is, so it must be redacted.
    #[must_use]
    pub fn new(payouts: Payouts, token: Option<Secret>, config: Value) -> Self {
        Self {
            payouts,
            token: token.map(Arc::new),
            config: Arc::new(config),
        }
    }

    /// Answers a request under `/api`.
    pub(super) async fn answer(&self, asked: Asked) -> Response<Full<Bytes>> {
        if !self.admits(asked.peer, &asked.headers) {
            return refuse(
                StatusCode::UNAUTHORIZED,
                "the admin token is missing or wrong, or the caller is not on loopback",
            );
        }
        let path: Vec<&str> = asked.path.trim_matches('/').split('/').collect();
        match (asked.method.as_str(), path.as_slice()) {
            ("GET", ["api", "payouts"]) => self.list(&asked.query).await,
            ("GET", ["api", "payouts", mch_id, order_no]) => match key(mch_id, order_no) {
                Ok(key) => self.show(&key).await,
                Err(refusal) => *refusal,
            },
            ("POST", ["api", "payouts", mch_id, order_no, "settle"]) => match key(mch_id, order_no) {
                Ok(key) => self.settle(&key, &asked).await,
                Err(refusal) => *refusal,
            },
            ("POST", ["api", "payouts", mch_id, order_no, "cancel"]) => match key(mch_id, order_no) {
                Ok(key) => self.cancel(&key, &asked).await,
                Err(refusal) => *refusal,
            },
            ("GET", ["api", "config"]) => answer(StatusCode::OK, &self.config),
            (_, ["api", "payouts" | "config", ..]) => {
                refuse(StatusCode::METHOD_NOT_ALLOWED, "not by this method")
            }
            _ => refuse(StatusCode::NOT_FOUND, "no such path under /api"),
        }
    }

    /// Whether the caller has the token, or, where there is none, is on loopback.
    pub(super) fn admits(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else {
            return peer.is_loopback();
        };
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        given
            .and_then(|value| value.strip_prefix("Bearer "))
            .is_some_and(|given| token.matches(given.trim()))
    }

    async fn list(&self, query: &str) -> Response<Full<Bytes>> {
        let filter = match filter(query) {
            Ok(filter) => filter,
            Err(why) => return refuse(StatusCode::BAD_REQUEST, &why),
        };
        match self.payouts.list(&filter).await {
            Ok(page) => {
                let payouts: Vec<Value> = page.orders.iter().map(view).collect();
                answer(StatusCode::OK, &json!({ "payouts": payouts, "next": page.next }))
            }
            Err(error) => refuse(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        }
    }

    async fn show(&self, key: &OrderKey) -> Response<Full<Bytes>> {
        match self.payouts.show(key).await {
            Ok(Some(order)) => answer(StatusCode::OK, &view(&order)),
            Ok(None) => refuse(StatusCode::NOT_FOUND, &format!("no order {key} is on record")),
            Err(error) => refuse(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        }
    }

    async fn settle(&self, key: &OrderKey, asked: &Asked) -> Response<Full<Bytes>> {
        if asked.headers.contains_key(ORIGIN) {
            // A page of somebody else's must not settle payouts through an operator's browser.
            return refuse(StatusCode::FORBIDDEN, "requests of web pages are not taken");
        }
        let word: Word = match serde_json::from_slice(&asked.body) {
            Ok(word) => word,
            Err(error) => {
                let form = r#"{"as":"succeeded"|"refused","reason":"…"}"#;
                return refuse(StatusCode::BAD_REQUEST, &format!("send {form}: {error}"));
            }
        };
        let reason = word.reason.trim();
        if reason.is_empty() || reason.chars().count() > REASON_CHARS {
            return refuse(
                StatusCode::BAD_REQUEST,
                "a reason of 1 to 500 characters is needed: it is audited",
            );
        }
        match self
            .payouts
            .settle_by_hand(key, word.outcome == Outcome::Succeeded, reason)
            .await
        {
            Ok(order) => answer(StatusCode::OK, &view(&order)),
            Err(error @ SettleError::NotFound(_)) => refuse(StatusCode::NOT_FOUND, &error.to_string()),
            Err(error @ (SettleError::NotUnknown(_) | SettleError::Moved)) => {
                refuse(StatusCode::CONFLICT, &error.to_string())
            }
            Err(error @ SettleError::Store(_)) => refuse(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        }
    }
}

impl Api {
    async fn cancel(&self, key: &OrderKey, asked: &Asked) -> Response<Full<Bytes>> {
        if asked.headers.contains_key(ORIGIN) {
            return refuse(StatusCode::FORBIDDEN, "requests of web pages are not taken");
        }
        match self.payouts.cancel(key).await {
            Ok(order) => answer(StatusCode::OK, &view(&order)),
            Err(error) => {
                let status = match &error {
                    CancelError::NotFound(_) => StatusCode::NOT_FOUND,
                    CancelError::NotABill
                    | CancelError::NotOpen(_)
                    | CancelError::NoMerchant
                    | CancelError::Refused { .. } => StatusCode::CONFLICT,
                    CancelError::Unclear(_) => StatusCode::BAD_GATEWAY,
                    CancelError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
                };
                refuse(status, &error.to_string())
            }
        }
    }
}

fn key(mch_id: &str, order_no: &str) -> Result<OrderKey, Box<Response<Full<Bytes>>>> {
    match (MchId::parse(mch_id), OrderNo::parse(order_no)) {
        (Ok(mch_id), Ok(order_no)) => Ok(OrderKey { mch_id, order_no }),
        (Err(rule), _) => Err(Box::new(refuse(
            StatusCode::BAD_REQUEST,
            &format!("mchId {rule}"),
        ))),
        (_, Err(rule)) => Err(Box::new(refuse(
            StatusCode::BAD_REQUEST,
            &format!("mchBillno {rule}"),
        ))),
    }
}

/// `state=&mchId=&since=&limit=&cursor=`, each optional; none of them has characters that need escaping, but a cursor's or
/// a moment's `:` and `+`.
fn filter(query: &str) -> Result<ListFilter, String> {
    let mut filter = ListFilter {
        limit: PAGE,
        ..ListFilter::default()
    };
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let value = value.replace("%3A", ":").replace("%3a", ":").replace("%2B", "+");
        if value.is_empty() {
            continue;
        }
        match name {
            "state" => filter.state = Some(state(&value)?),
            "mchId" => filter.mch_id = Some(MchId::parse(&value).map_err(|rule| format!("mchId {rule}"))?),
            "since" => {
                filter.since =
                    Some(parse_moment(&value).ok_or("since must be RFC 3339, or milliseconds since 1970")?);
            }
            "limit" => {
                let limit: usize = value.parse().map_err(|_| "limit must be a number")?;
                filter.limit = limit.clamp(1, PAGE_AT_MOST);
            }
            "cursor" => filter.cursor = Some(value),
            _ => {
                return Err(format!(
                    "{name} is not known here: state, mchId, since, limit, cursor"
                ));
            }
        }
    }
    Ok(filter)
}

fn state(text: &str) -> Result<StateName, String> {
    let all = [
        StateName::Pending,
        StateName::Unknown,
        StateName::Succeeded,
        StateName::Refused,
    ];
    let found = all.into_iter().find(|state| state.as_str() == text);
    found.ok_or_else(|| "state must be pending, unknown, succeeded or refused".to_owned())
}

fn answer(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{value}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    );
    response
}

fn refuse(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    answer(status, &json!({ "error": text }))
}
