//! The error answer of the admin port: a status and `{"error":"…"}`.

use std::borrow::Cow;
use std::fmt::Display;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::WWW_AUTHENTICATE;
use serde_json::json;

use crate::payouts::operator::{CancelError, SettleError};
use crate::payouts::ports::StoreError;

/// Why the admin port refuses a request, and what the caller can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) text: Cow<'static, str>,
}

impl Refusal {
    pub(super) const fn of(status: StatusCode, text: &'static str) -> Self {
        Self {
            status,
            text: Cow::Borrowed(text),
        }
    }

    pub(super) fn new(status: StatusCode, text: impl Display) -> Self {
        Self {
            status,
            text: text.to_string().into(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let challenge = (self.status == StatusCode::UNAUTHORIZED).then_some([(WWW_AUTHENTICATE, "Bearer")]);
        (self.status, challenge, Json(json!({ "error": self.text }))).into_response()
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error)
    }
}

impl From<SettleError> for Refusal {
    fn from(error: SettleError) -> Self {
        let status = match error {
            SettleError::NotFound(_) => StatusCode::NOT_FOUND,
            SettleError::NotUnknown(_) | SettleError::Moved => StatusCode::CONFLICT,
            SettleError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error)
    }
}

impl From<CancelError> for Refusal {
    fn from(error: CancelError) -> Self {
        let status = match error {
            CancelError::NotFound(_) => StatusCode::NOT_FOUND,
            CancelError::NotABill
            | CancelError::NotOpen(_)
            | CancelError::NoMerchant
            | CancelError::Refused { .. } => StatusCode::CONFLICT,
            CancelError::Unclear(_) => StatusCode::BAD_GATEWAY,
            CancelError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error)
    }
}
