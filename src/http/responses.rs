//! Makes responses in the contract's format (`docs/api.md`) and as text. A `refusal` is for a request that the payout
//! code never saw: nothing was sent or recorded.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::http::media;
use payout_domain::contract::answer;
use payout_domain::contract::err_code::ErrCode;
use payout_domain::contract::error::{ApiError, Chinese};
use payout_domain::encoding::Encoding;
use payout_domain::fields::Fields;

/// Why the sidecar refuses a request before the payout code sees it. The platform gets the Chinese text; other callers
/// and the log get `Display`, in English.
pub(crate) trait Refused: Chinese + std::error::Error {
    /// The response's status.
    fn status(&self) -> StatusCode;
}

/// Why the access rules or the limits refuse a request, whatever it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAdmitted {
    /// `max_in_flight`.
    #[error("too many requests at the same time")]
    Busy,
    /// `[access] token`.
    #[error("the token is missing or wrong")]
    Token,
    /// `[access] allow_from`.
    #[error("the caller's address is not allowed")]
    Address,
}

impl Refused for NotAdmitted {
    fn status(&self) -> StatusCode {
        match self {
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::Address => StatusCode::FORBIDDEN,
        }
    }
}

impl Chinese for NotAdmitted {
    fn chinese(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Busy => "同时处理的请求过多, 请稍后使用原单号重试",
            Self::Token => "令牌缺失或不正确, 请检查 token",
            Self::Address => "调用方的地址不在允许的范围内",
        })
    }
}

/// A refusal in the contract's format, with a status other than 200.
#[must_use]
pub(crate) fn refusal<B: From<Bytes>>(headers: &HeaderMap, why: &impl Refused) -> Response<B> {
    let status = why.status();
    let code = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrCode::NoAuth,
        StatusCode::SERVICE_UNAVAILABLE => ErrCode::SystemError,
        _ => ErrCode::ParamError,
    };
    // Without a readable `Content-Type` the response is JSON, unless the caller asks for XML.
    let asked = Encoding::of_request(text_of(headers, CONTENT_TYPE), b"{").unwrap_or(Encoding::Json);
    let fault = ApiError::unserved(code, why);
    let encoding = asked.of_answer(text_of(headers, ACCEPT));
    with_status(status, respond(encoding, &answer::not_taken(&fault, None)))
}

/// A header's value, if it is readable text.
pub(crate) fn text_of(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// A response in the contract's format.
pub(crate) fn respond<B: From<Bytes>>(encoding: Encoding, fields: &Fields<'_>) -> Response<B> {
    let mut response = Response::new(B::from(encoding.encode_answer(fields).into()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, media::content_type(encoding));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A plain-text response, for requests outside the contract.
#[must_use]
pub(crate) fn text_response<B: From<Bytes>>(status: StatusCode, text: &str) -> Response<B> {
    let mut response = Response::new(B::from(format!("payout-sidecar: {text}\n").into()));
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    with_status(status, response)
}

/// Sets the status, and the header that goes with it.
pub(crate) fn with_status<B>(status: StatusCode, mut response: Response<B>) -> Response<B> {
    *response.status_mut() = status;
    let needed = match status {
        StatusCode::METHOD_NOT_ALLOWED => Some((ALLOW, "POST")),
        StatusCode::SERVICE_UNAVAILABLE => Some((RETRY_AFTER, "1")),
        _ => None,
    };
    if let Some((name, value)) = needed {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Makes the response the last on its connection: another reader may count the bytes after the request as part of it.
#[must_use]
pub(crate) fn closing<B>(mut response: Response<B>) -> Response<B> {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    response
}
