//! `/api`: payouts looked up, settled by hand and cancelled, and the configuration without its secrets. Document: specification,
//! section 8. Who may ask what was decided before, in `guard`.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::{Value, json};

use super::guard::Guard;
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
    guard: Arc<Guard>,
    config: Arc<Value>,
}

/// A request that was let in, with its body read.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) body: Bytes,
}

/// What is under `/api`.
enum Resource<'a> {
    Payouts,
    Payout(&'a str, &'a str),
    Settle(&'a str, &'a str),
    Cancel(&'a str, &'a str),
    Drain,
    Config,
}

impl<'a> Resource<'a> {
    fn at(path: &'a str) -> Option<Self> {
        let path: Vec<&str> = path.trim_matches('/').split('/').collect();
        match path.as_slice() {
            ["api", "payouts"] => Some(Self::Payouts),
            ["api", "payouts", mch_id, order_no] => Some(Self::Payout(mch_id, order_no)),
            ["api", "payouts", mch_id, order_no, "settle"] => Some(Self::Settle(mch_id, order_no)),
            ["api", "payouts", mch_id, order_no, "cancel"] => Some(Self::Cancel(mch_id, order_no)),
            ["api", "drain"] => Some(Self::Drain),
            ["api", "config"] => Some(Self::Config),
            _ => None,
        }
    }

    /// By which methods it is asked: it is read, or it changes something.
    const fn allowed(&self) -> &'static str {
        match self {
            Self::Payouts | Self::Payout(..) | Self::Config => "GET, HEAD",
            Self::Settle(..) | Self::Cancel(..) | Self::Drain => "POST",
        }
    }

    fn allows(&self, method: &Method) -> bool {
        self.allowed()
            .split(", ")
            .any(|allowed| allowed == method.as_str())
    }
}

/// What the answer to a request is, where it is not an answer yet.
pub(super) enum Answered {
    /// This.
    With(Response<Full<Bytes>>),
    /// The orderly end is to begin.
    Drain,
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
            guard: Arc::new(Guard::new(token)),
            config: Arc::new(config),
        }
    }

    /// Who may ask.
    pub(super) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Answers a request under `/api` that was let in.
    pub(super) async fn answer(&self, asked: Asked) -> Answered {
        let Some(resource) = Resource::at(&asked.path) else {
            return Answered::With(refuse(StatusCode::NOT_FOUND, "no such path under /api"));
        };
        if !resource.allows(&asked.method) {
            return Answered::With(not_by_this_method(resource.allowed()));
        }
        Answered::With(match resource {
            Resource::Payouts => self.list(&asked.query).await,
            Resource::Config => answer(StatusCode::OK, &self.config),
            Resource::Payout(mch_id, order_no) => match key(mch_id, order_no) {
                Ok(key) => self.show(&key).await,
                Err(refusal) => *refusal,
            },
            Resource::Settle(mch_id, order_no) => match key(mch_id, order_no) {
                Ok(key) => self.settle(&key, &asked.body).await,
                Err(refusal) => *refusal,
            },
            Resource::Cancel(mch_id, order_no) => match key(mch_id, order_no).and_then(|key| {
                says_nothing(&asked.body)?;
                Ok(key)
            }) {
                Ok(key) => self.cancel(&key).await,
                Err(refusal) => *refusal,
            },
            Resource::Drain => match says_nothing(&asked.body) {
                Ok(()) => return Answered::Drain,
                Err(refusal) => *refusal,
            },
        })
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

    async fn settle(&self, key: &OrderKey, body: &[u8]) -> Response<Full<Bytes>> {
        let word: Word = match serde_json::from_slice(body) {
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
    async fn cancel(&self, key: &OrderKey) -> Response<Full<Bytes>> {
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

/// What needs no more said is asked with no body, or with `{}`.
fn says_nothing(body: &[u8]) -> Result<(), Box<Response<Full<Bytes>>>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    if body.is_empty() {
        return Ok(());
    }
    match serde_json::from_slice(body) {
        Ok(Nothing {}) => Ok(()),
        Err(error) => Err(Box::new(refuse(
            StatusCode::BAD_REQUEST,
            &format!("send no body, or {{}}: {error}"),
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

pub(super) fn refuse(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    answer(status, &json!({ "error": text }))
}

pub(super) fn not_by_this_method(allowed: &'static str) -> Response<Full<Bytes>> {
    let text = format!("not by this method: {allowed}");
    let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, &text);
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    response
}
