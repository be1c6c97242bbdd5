//! The two paths of the platform's contract: bytes in, the flow, bytes out. Document: specification, section 2.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::strict::Wire;
use crate::door::overload::{Place, retry_later};
use crate::door::signature;
use crate::media;
use crate::payout::Payouts;
use crate::proxy::target::{TargetError, check_message, names_one_host};
use crate::rules::contract::answer;
use crate::rules::contract::fault::{ErrCode, Fault};
use crate::rules::contract::send::SendRequest;
use crate::rules::contract::status::StatusRequest;
use crate::rules::encoding::{Encoding, EncodingError};
use crate::rules::fields::Fields;
use crate::rules::handler::{SEND_PATH, STATUS_PATH};
use crate::rules::text::cut;
use crate::secret::Secret;
use crate::telemetry::context::RequestContext;
use crate::telemetry::log::chain;
use crate::telemetry::otlp::server::{learn_answer, learn_order};
use crate::telemetry::trace::X_REQUEST_ID;

/// One of the contract's two calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Pays.
    Send,
    /// Asks how a payout stands.
    Status,
}

impl Call {
    /// The call of a path; `None` for the paths that are proxied.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        match path {
            SEND_PATH => Some(Self::Send),
            STATUS_PATH => Some(Self::Status),
            _ => None,
        }
    }
}

/// A call with what it is about.
#[expect(
    clippy::large_enum_variant,
    reason = "taken apart where it is made, and the larger one is the usual one"
)]
enum Asked {
    Send(SendRequest),
    Status(StatusRequest),
}

/// Answers the contract's calls.
#[derive(Clone)]
pub struct Contract {
    payouts: Payouts,
    max_body: usize,
    body_timeout: Duration,
    sign_key: Option<Arc<Secret>>,
}

impl Contract {
    /// Takes bodies of at most `max_body` bytes that arrive within `body_timeout`, signed where there is a `sign_key`.
    #[must_use]
    pub fn new(payouts: Payouts, max_body: usize, body_timeout: Duration, sign_key: Option<Secret>) -> Self {
        Self {
            payouts,
            max_body,
            body_timeout,
            sign_key: sign_key.map(Arc::new),
        }
    }

    /// Answers one call, under the request's id and trace.
    pub async fn answer<B>(&self, call: Call, request: Request<B>) -> Response<Bytes>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (mut head, body) = request.into_parts();
        let context = RequestContext::of(&mut head.headers, head.extensions.get());
        let request_id = context.request_id().cloned();
        let mut response = context.within(self.answer_within(call, head, body)).await;
        response
            .headers_mut()
            .extend(request_id.map(|id| (X_REQUEST_ID, id)));
        response
    }

    async fn answer_within<B>(&self, call: Call, head: Parts, body: B) -> Response<Bytes>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if let Err(error) = check_message(&head.uri, head.version, &head.headers) {
            return broken(error.status(), &head.headers, &error.to_string());
        }
        if !names_one_host(&head.uri, &head.headers) {
            return broken(
                StatusCode::BAD_REQUEST,
                &head.headers,
                &TargetError::TwoHosts.to_string(),
            );
        }
        if head.method != Method::POST {
            let mut response = refusal(
                StatusCode::METHOD_NOT_ALLOWED,
                &head.headers,
                "the method must be POST",
            );
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        if head
            .headers
            .get(header::CONTENT_ENCODING)
            .is_some_and(|coding| coding != "identity")
        {
            let text = "the body must not have a Content-Encoding";
            return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, &head.headers, text);
        }
        let content_type = match content_type(&head.headers) {
            Ok(content_type) => content_type,
            Err(text) => return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, &head.headers, text),
        };
        let place = head.extensions.get::<Place>().cloned();
        let body = match self.collect_in_place(body, place.as_ref()).await {
            Ok(body) => body,
            Err((status @ StatusCode::SERVICE_UNAVAILABLE, text)) => {
                return retry_later(broken(status, &head.headers, &text));
            }
            Err((status, text)) => return broken(status, &head.headers, &text),
        };
        if head
            .extensions
            .get::<Wire>()
            .is_some_and(Wire::has_chunk_extensions)
        {
            let text = "the body's chunks must not have extensions";
            return broken(StatusCode::BAD_REQUEST, &head.headers, text);
        }
        let accept = head
            .headers
            .get(header::ACCEPT)
            .and_then(|value| value.to_str().ok());
        let (asked, told_in) = match Encoding::of_request(content_type, &body) {
            Ok(encoding) => (encoding, encoding.of_answer(accept)),
            Err(error @ EncodingError::Unsupported(_)) => {
                return refusal(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    &head.headers,
                    &error.to_string(),
                );
            }
            Err(error @ EncodingError::Undecided) => {
                let fields = answer::not_taken(&Fault::body(&error.to_string()), None);
                return respond(StatusCode::OK, Encoding::Json.of_answer(accept), &fields);
            }
        };
        let read = self.read(call, asked, &body);
        // Both are parts of the buffer that the connection reads into, and which it can use again when they are gone.
        drop((head, body));
        let told = match read {
            Ok(asked_for) => self.do_as_asked(asked_for, asked, place).await,
            Err(not_taken) => not_taken,
        };
        respond(StatusCode::OK, told_in, &told)
    }

    /// What a body asks for; else the answer to a request that is not taken.
    fn read(&self, call: Call, asked: Encoding, body: &[u8]) -> Result<Asked, Fields<'static>> {
        let mut fields = asked
            .decode(body)
            .map_err(|why| answer::not_taken(&Fault::body(&why), None))?;
        // A number that is too long to be one is still told, but not at any length.
        let order_no = fields.characters("mchBillno").map(|no| cut(no, 64).to_owned());
        let read = || {
            if let Some(key) = &self.sign_key {
                signature::check(&mut fields, key)?;
            }
            Ok(match call {
                Call::Send => Asked::Send(SendRequest::read(fields)?),
                Call::Status => Asked::Status(StatusRequest::read(fields)?),
            })
        };
        read().map_err(|fault| {
            let told = answer::not_taken(&fault, order_no.as_deref());
            learn_answer(&told);
            told
        })
    }

    async fn do_as_asked(&self, asked_for: Asked, asked: Encoding, place: Option<Place>) -> Fields<'static> {
        let (key, answered) = match asked_for {
            Asked::Send(request) => {
                let key = request.key();
                learn_order(&key);
                let disclosure = self.payouts.settings().disclosure;
                let reply = self.payouts.send(request, asked, place).await;
                let told = reply.into_fields(&key, disclosure);
                (key, Ok(told))
            }
            Asked::Status(request) => {
                let key = request.key.clone();
                learn_order(&key);
                // The rarer call must not make the other one's future larger.
                (key, Box::pin(self.payouts.status(request, asked)).await)
            }
        };
        let told = answered.unwrap_or_else(|fault| answer::not_taken(&fault, Some(key.order_no.as_str())));
        learn_answer(&told);
        told
    }

    /// Reads the body, unless a newer call needs the place before it has come.
    async fn collect_in_place<B>(&self, body: B, place: Option<&Place>) -> Result<Bytes, (StatusCode, String)>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Some(place) = place else {
            return self.collect(body).await;
        };
        let collected = tokio::select! {
            biased;
            collected = self.collect(body) => Some(collected),
            () = place.taken_away() => None,
        };
        collected.filter(|_| place.keep()).unwrap_or_else(|| {
            let text = "the body was slow, and too many requests came at the same time";
            Err((StatusCode::SERVICE_UNAVAILABLE, text.to_owned()))
        })
    }

    async fn collect<B>(&self, body: B) -> Result<Bytes, (StatusCode, String)>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let too_large = || {
            (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body must be at most {} bytes", self.max_body),
            )
        };
        if body.size_hint().lower() > u64::try_from(self.max_body).unwrap_or(u64::MAX) {
            return Err(too_large());
        }
        match tokio::time::timeout(self.body_timeout, Limited::new(body, self.max_body).collect()).await {
            Ok(Ok(collected)) if collected.trailers().is_some() => Err((
                StatusCode::BAD_REQUEST,
                "the body must not have a trailer section".to_owned(),
            )),
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(error)) => Err((
                StatusCode::BAD_REQUEST,
                format!("the body broke off: {}", chain(error.as_ref())),
            )),
            Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body took too long".to_owned())),
        }
    }
}

/// The one `Content-Type`, where there is one.
fn content_type(headers: &HeaderMap) -> Result<Option<&str>, &'static str> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value
            .to_str()
            .map(Some)
            .map_err(|_| "the Content-Type is not readable"),
        (Some(_), Some(_)) => Err("the Content-Type is given twice"),
    }
}

/// A refusal that ends the connection: what follows the request on it may be a part of it to somebody else.
fn broken(status: StatusCode, headers: &HeaderMap, text: &str) -> Response<Bytes> {
    let mut response = refusal(status, headers, text);
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

/// An answer outside the contract's 200, with a contract body all the same: nothing was sent or recorded.
#[must_use]
pub fn refusal(status: StatusCode, headers: &HeaderMap, text: &str) -> Response<Bytes> {
    let code = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrCode::NoAuth,
        StatusCode::SERVICE_UNAVAILABLE => ErrCode::SystemError,
        StatusCode::TOO_MANY_REQUESTS => ErrCode::FreqLimit,
        _ => ErrCode::ParamError,
    };
    let media = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    // Without a readable type the answer is JSON, unless the caller asks for XML.
    let asked = Encoding::of_request(media, b"{").unwrap_or(Encoding::Json);
    let fault = Fault::new(code, format!("请求未受理: {text}"));
    respond(status, asked.of_answer(accept), &answer::not_taken(&fault, None))
}

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

fn respond(status: StatusCode, encoding: Encoding, fields: &Fields<'_>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(encoding.encode_answer(fields)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, media::content_type(encoding));
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    response
}
