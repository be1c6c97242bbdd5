//! The two paths of the platform's contract: reads and checks a request, runs the payout or the query, and encodes the
//! response. The contract is in `docs/api.md`; `payout_domain::contract` has its types.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};

use super::call_error::{BodyError, CallError};
use crate::http::framing_error::FramingError;
use crate::http::http1::Http1Exchange;
use crate::http::in_flight::InFlightPermit;
use crate::http::responses::{Refused as _, closing, refusal, respond, text_of};
use crate::payouts::Payouts;
use crate::proxy::body::Body;
use crate::proxy::target::{TargetError, check_message, names_one_host};
use crate::server::signature;
use crate::telemetry::context::RequestContext;
use crate::telemetry::log::{causes, chain};
use crate::telemetry::propagation::X_REQUEST_ID;
use crate::telemetry::traces::server::{learn_answer, learn_order};
use payout_domain::contract::answer;
use payout_domain::contract::error::ApiError;
use payout_domain::contract::reason::Reason;
use payout_domain::contract::send::SendRequest;
use payout_domain::contract::status::StatusRequest;
use payout_domain::encoding::{Encoding, EncodingError};
use payout_domain::fields::Fields;
use payout_domain::handler::{SEND_PATH, STATUS_PATH};
use payout_domain::secret::Secret;
use payout_domain::text::cut;

/// One of the contract's two calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Pays.
    Send,
    /// Asks for the state of a payout.
    Status,
}

impl Call {
    /// The call that a path names; `None` for the paths that the proxy serves.
    #[must_use]
    pub(crate) fn of(path: &str) -> Option<Self> {
        match path {
            SEND_PATH => Some(Self::Send),
            STATUS_PATH => Some(Self::Status),
            _ => None,
        }
    }
}

/// A call with its parameters.
#[expect(
    clippy::large_enum_variant,
    reason = "taken apart where it is made, and the larger one is the usual one"
)]
enum Asked {
    Send(SendRequest),
    Status(StatusRequest),
}

/// Serves the contract's calls.
#[derive(Clone)]
pub(crate) struct Contract {
    payouts: Payouts,
    max_body: usize,
    body_timeout: Duration,
    sign_key: Option<Arc<Secret>>,
}

impl Contract {
    /// Accepts bodies of at most `max_body` bytes that arrive within `body_timeout`. With a `sign_key`, they must be
    /// signed.
    #[must_use]
    pub(crate) fn new(
        payouts: Payouts,
        max_body: usize,
        body_timeout: Duration,
        sign_key: Option<Secret>,
    ) -> Self {
        Self {
            payouts,
            max_body,
            body_timeout,
            sign_key: sign_key.map(Arc::new),
        }
    }

    /// Answers one call, in the context of the request's id and trace.
    pub(crate) async fn answer(&self, call: Call, request: Request<Incoming>) -> Response<Body> {
        let (mut head, body) = request.into_parts();
        let context = RequestContext::of(&mut head.headers, head.extensions.get());
        let request_id = context.request_id().cloned();
        let mut response = context.within(self.answer_within(call, head, body)).await;
        response
            .headers_mut()
            .extend(request_id.map(|id| (X_REQUEST_ID, id)));
        response
    }

    async fn answer_within(&self, call: Call, head: Parts, body: Incoming) -> Response<Body> {
        let headers = &head.headers;
        let content_type = match check(&head) {
            Ok(content_type) => content_type,
            Err(error) if error.status() == StatusCode::BAD_REQUEST => {
                return closing(refused(headers, &error));
            }
            Err(error) => return refused(headers, &error),
        };
        let permit = head.extensions.get::<InFlightPermit>().cloned();
        let body = match self.collect_under(body, &head, permit.as_ref()).await {
            Ok(body) => body,
            Err(error) => return closing(refused(headers, &error)),
        };
        let accept = text_of(headers, header::ACCEPT);
        let (asked, told_in) = match Encoding::of_request(content_type, &body) {
            Ok(encoding) => (encoding, encoding.of_answer(accept)),
            Err(error @ EncodingError::Unsupported(_)) => {
                return refused(headers, &error.into());
            }
            Err(error @ EncodingError::Undecided) => {
                let fields = answer::not_taken(&Reason::Encoding(error).into(), None);
                return respond(Encoding::Json.of_answer(accept), &fields);
            }
        };
        let read = self.read(call, asked, &body);
        // Both are slices of the connection's read buffer. hyper can reuse it once they are dropped.
        drop((head, body));
        let told = match read {
            Ok(asked_for) => self.do_as_asked(asked_for, asked, permit).await,
            Err(not_taken) => not_taken,
        };
        respond(told_in, &told)
    }

    /// Reads a call from a body. The error is the response to a request that is not accepted.
    fn read(&self, call: Call, asked: Encoding, body: &[u8]) -> Result<Asked, Fields<'static>> {
        let mut fields = asked
            .decode(body)
            .map_err(|why| answer::not_taken(&ApiError::body(why), None))?;
        // The response repeats even an invalid order number, but only its first 64 characters.
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

    async fn do_as_asked(
        &self,
        asked_for: Asked,
        asked: Encoding,
        permit: Option<InFlightPermit>,
    ) -> Fields<'static> {
        let (key, answered) = match asked_for {
            Asked::Send(request) => {
                let key = request.key();
                learn_order(&key);
                let disclosure = self.payouts.settings().disclosure;
                let reply = self.payouts.send(request, asked, permit).await;
                let told = reply.into_fields(&key, disclosure);
                (key, Ok(told))
            }
            Asked::Status(request) => {
                let key = request.key.clone();
                learn_order(&key);
                // In a box, so that the rarer call does not enlarge the other one's future.
                (key, Box::pin(self.payouts.status(request, asked, permit)).await)
            }
        };
        let told = answered.unwrap_or_else(|fault| answer::not_taken(&fault, Some(key.order_no.as_str())));
        learn_answer(&told);
        told
    }

    /// Reads the body, unless a newer call takes the permit before the body has arrived.
    async fn collect_under(
        &self,
        body: Incoming,
        head: &Parts,
        permit: Option<&InFlightPermit>,
    ) -> Result<Bytes, CallError> {
        let collect = collect(body, head, self.max_body, self.body_timeout);
        let Some(permit) = permit else {
            return Ok(collect.await?);
        };
        let collected = tokio::select! {
            biased;
            collected = collect => Some(collected),
            () = permit.taken_away() => None,
        };
        match collected.filter(|_| permit.keep()) {
            Some(collected) => Ok(collected?),
            None => Err(CallError::TakenAway),
        }
    }
}

/// The response to a call whose HTTP is wrong.
fn refused(headers: &HeaderMap, error: &CallError) -> Response<Body> {
    tracing::debug!(%error, "a call was refused");
    refusal(headers, error)
}

/// Checks a call's head. Returns its `Content-Type`, if it has one.
fn check(head: &Parts) -> Result<Option<&str>, CallError> {
    let Parts { uri, headers, .. } = head;
    check_message(uri, head.version, headers)?;
    if !names_one_host(uri, headers) {
        return Err(TargetError::TwoHosts.into());
    }
    if head.method != Method::POST {
        return Err(CallError::Method);
    }
    let coding = headers.get(header::CONTENT_ENCODING);
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    match (types.next().map(|value| value.to_str()), types.next()) {
        _ if coding.is_some_and(|coding| coding != "identity") => Err(CallError::ContentEncoding),
        (None, _) => Ok(None),
        (Some(Ok(only)), None) => Ok(Some(only)),
        (Some(Err(_)), None) => Err(CallError::UnreadableType),
        (Some(_), Some(_)) => Err(CallError::TwoTypes),
    }
}

/// Reads a whole body of at most `most` bytes, which must arrive within `within`. `head` is its request's.
/// (tower-http's limits of size and time would respond with texts of their own.)
///
/// # Errors
/// When it has not come whole, or with parts that a reader may see or not, then [`BodyError`].
pub(super) async fn collect(
    body: Incoming,
    head: &Parts,
    most: usize,
    within: Duration,
) -> Result<Bytes, BodyError> {
    let too_large = || BodyError::TooLarge(most);
    if body.size_hint().lower() > u64::try_from(most).unwrap_or(u64::MAX) {
        return Err(too_large());
    }
    let collected = match tokio::time::timeout(within, Limited::new(body, most).collect()).await {
        Ok(Ok(collected)) => collected,
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
        Ok(Err(error)) => {
            return Err(match framing_of(error.as_ref()) {
                Some(fault) => BodyError::Framing(fault),
                None => BodyError::BrokeOff(chain(error.as_ref())),
            });
        }
        Err(_) => return Err(BodyError::Slow),
    };
    let has_extensions = |http1: &Http1Exchange| http1.has_chunk_extensions();
    if collected.trailers().is_some() {
        Err(BodyError::Trailers)
    } else if head.extensions.get().is_some_and(has_extensions) {
        Err(BodyError::Extensions)
    } else {
        Ok(collected.to_bytes())
    }
}

/// What [`strict`](super::strict) found wrong with a body's bytes, where that ended it.
fn framing_of(error: &(dyn Error + 'static)) -> Option<FramingError> {
    causes(error)
        .filter_map(|error| error.downcast_ref::<io::Error>()?.get_ref())
        .find_map(|inner| inner.downcast_ref::<FramingError>().copied())
}
