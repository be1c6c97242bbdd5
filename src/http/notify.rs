//! Where WeChat Pay's notifications come in: the paths of the merchants' `notify_url`. Document: wechat-pay.md, section 11;
//! specification, section 7.
//!
//! A notification is not the platform's call, so that the platform's rules (`[access]`) are not asked: WeChat Pay knows no
//! token of ours and comes from changing addresses. What is asked instead is its own signature, over the bytes as they came.
//! Everything else that comes to such a path is refused; no other path is touched.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, FutureExt as _};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use tower::Service;

use super::strict::Wire;
use crate::payout::Payouts;
use crate::payout::notify::NoticeError;
use crate::payout::ports::Notice;
use crate::proxy::body::Body;
use crate::proxy::target::check_message;
use crate::rules::wechat::v3::sign::Signed;
use crate::telemetry::context::RequestContext;
use crate::telemetry::log::chain;
use crate::telemetry::otlp::server::learn_notified;

/// The most bytes of a notification: they have about 1000.
const MAX_BODY: usize = 64 * 1024;
/// How long its body may take; WeChat waits 5 s for the answer.
const BODY_TIMEOUT: Duration = Duration::from_secs(4);

/// Takes notifications out of the stream of requests; the rest goes on to `inner`.
#[derive(Clone)]
pub struct Notifications<S> {
    payouts: Payouts,
    inner: S,
}

impl<S> Notifications<S> {
    /// Stands before `inner`. Which paths are meant is read from the settings in force with each request.
    pub fn before(inner: S, payouts: Payouts) -> Self {
        Self { payouts, inner }
    }
}

type Answering = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<S> Service<Request<Incoming>> for Notifications<S>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Answering, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        if !self.payouts.settings().is_notified_at(request.uri().path()) {
            return Either::Right(self.inner.call(request));
        }
        let payouts = self.payouts.clone();
        let (mut head, body) = request.into_parts();
        let context = RequestContext::of(&mut head.headers, head.extensions.get());
        let answering = async move {
            let path = head.uri.path();
            learn_notified(&head.method, path);
            Ok(match answer(&payouts, &head, body).await {
                Ok(()) => taken(),
                Err((status, why)) => {
                    if status.is_server_error() || status == StatusCode::CONFLICT {
                        tracing::warn!(path, status = status.as_u16(), why, "a notification was refused");
                    } else {
                        // Anybody may post here, and WeChat Pay itself tries wrong signatures: no reason to alarm.
                        tracing::info!(path, status = status.as_u16(), why, "a notification was refused");
                    }
                    refused(status, &why)
                }
            })
        };
        Either::Left(context.within(answering).boxed())
    }
}

async fn answer(payouts: &Payouts, head: &Parts, body: Incoming) -> Result<(), (StatusCode, String)> {
    let headers = &head.headers;
    check_message(&head.uri, head.version, headers).map_err(|error| (error.status(), error.to_string()))?;
    if head.method != Method::POST {
        return Err((
            StatusCode::METHOD_NOT_ALLOWED,
            "notifications come by POST".to_owned(),
        ));
    }
    let one = |name: &str| {
        let mut values = headers.get_all(name).iter();
        match (values.next().map(HeaderValue::to_str), values.next()) {
            (Some(Ok(value)), None) => Ok(value),
            _ => Err((
                StatusCode::UNAUTHORIZED,
                format!("{name} is needed once, to verify the signature"),
            )),
        }
    };
    let signed = Signed {
        timestamp: one("wechatpay-timestamp")?,
        nonce: one("wechatpay-nonce")?,
        serial: one("wechatpay-serial")?,
        signature: one("wechatpay-signature")?,
    };
    let body = collect(body).await?;
    if head
        .extensions
        .get::<Wire>()
        .is_some_and(Wire::has_chunk_extensions)
    {
        let text = "the body's chunks must not have extensions";
        return Err((StatusCode::BAD_REQUEST, text.to_owned()));
    }
    let notice = Notice { signed, body: &body };
    payouts.notified(head.uri.path(), notice).await.map_err(|error| {
        let status = match &error {
            NoticeError::NoSuchPath | NoticeError::NoSuchOrder(_) => StatusCode::NOT_FOUND,
            NoticeError::Unverified(_) => StatusCode::UNAUTHORIZED,
            NoticeError::Contradiction(_, _) => StatusCode::CONFLICT,
            NoticeError::Busy(_) | NoticeError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, error.to_string())
    })
}

async fn collect(body: Incoming) -> Result<Bytes, (StatusCode, String)> {
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(collected)) if collected.trailers().is_some() => Err((
            StatusCode::BAD_REQUEST,
            "the body must not have a trailer section".to_owned(),
        )),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) => Err((
            StatusCode::BAD_REQUEST,
            format!(
                "the body broke off, or has more than {MAX_BODY} bytes: {}",
                chain(error.as_ref())
            ),
        )),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body took too long".to_owned())),
    }
}

fn taken() -> Response<Body> {
    let mut response = Response::new(Body::full(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// WeChat repeats what is not answered by 200 or 204.
fn refused(status: StatusCode, why: &str) -> Response<Body> {
    // What was wrong with it, WeChat need not know in detail; the log does.
    let message = match status {
        StatusCode::UNAUTHORIZED => "the signature is not believed",
        StatusCode::SERVICE_UNAVAILABLE => "come again",
        _ => why,
    };
    let body = serde_json::json!({ "code": "FAIL", "message": message }).to_string();
    let mut response = Response::new(Body::full(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    );
    if status == StatusCode::BAD_REQUEST {
        // What follows it on this connection may be a part of it to somebody else.
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}
