//! Receives WeChat Pay's notifications on the paths of the merchants' `notify_url` (`docs/wechat-pay.md`,
//! "notifications"; the setting is in `config.toml`).
//!
//! The platform's rules (`[access]`) do not apply to notifications: WeChat Pay has none of our tokens, and calls from
//! changing addresses. Instead the handler verifies WeChat Pay's signature over the bytes as they came. It refuses
//! every other request to such a path, and touches no other path.

use std::time::Duration;

use futures_util::future::{Either, FutureExt as _};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::contract_api::collect;
use super::serves::Serves;
use crate::http::responses::{Refused, closing, with_status};
use crate::payouts::Payouts;
use crate::payouts::ports::Notice;
use crate::payouts::webhook::NoticeError;
use crate::proxy::body::Body;
use crate::proxy::target::check_message;
use crate::telemetry::context::RequestContext;
use crate::telemetry::traces::server::learn_notified;
use payout_domain::wechat::v3::sign::Signed;

/// The most bytes of a notification; usual ones have about 1000.
const MAX_BODY: usize = 64 * 1024;
/// How long the body may take to arrive; WeChat waits 5 s for the response.
const BODY_TIMEOUT: Duration = Duration::from_secs(4);

/// Serves notifications, and passes other requests to `inner`. The paths are those of the settings of `payouts`.
pub(crate) fn before(mut inner: impl Serves<Incoming>, payouts: Payouts) -> impl Serves<Incoming> {
    tower::service_fn(move |request: Request<Incoming>| {
        if payouts.settings().is_notified_at(request.uri().path()) {
            let payouts = payouts.clone();
            let (mut head, body) = request.into_parts();
            let context = RequestContext::of(&mut head.headers, head.extensions.get());
            let taking = async move { Ok(take(&payouts, &head, body).await) };
            Either::Left(context.within(taking).boxed())
        } else {
            Either::Right(inner.call(request))
        }
    })
}

async fn take(payouts: &Payouts, head: &Parts, body: Incoming) -> Response<Body> {
    let path = head.uri.path();
    learn_notified(&head.method, path);
    match answer(payouts, head, body).await {
        Ok(()) => with_status(StatusCode::NO_CONTENT, Response::new(Body::empty())),
        Err((status, why)) => {
            if status.is_server_error() || status == StatusCode::CONFLICT {
                tracing::warn!(path, status = status.as_u16(), why, "a notification was refused");
            } else {
                // Not a warning: anybody may post here, and WeChat Pay itself sends wrong signatures to test us.
                tracing::info!(path, status = status.as_u16(), why, "a notification was refused");
            }
            refused(status, &why)
        }
    }
}

async fn answer(payouts: &Payouts, head: &Parts, body: Incoming) -> Result<(), (StatusCode, String)> {
    let headers = &head.headers;
    check_message(&head.uri, head.version, headers).map_err(|error| told(&error))?;
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
    let body = collect(body, head, MAX_BODY, BODY_TIMEOUT)
        .await
        .map_err(|error| told(&error))?;
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

/// What WeChat Pay and the log are told, in English.
fn told(error: &impl Refused) -> (StatusCode, String) {
    (error.status(), error.to_string())
}

/// WeChat repeats a notification unless the response is 200 or 204.
fn refused(status: StatusCode, why: &str) -> Response<Body> {
    // WeChat need not know in detail what was wrong; the log does.
    let message = match status {
        StatusCode::UNAUTHORIZED => "the signature is not believed",
        StatusCode::SERVICE_UNAVAILABLE => "come again",
        _ => why,
    };
    let body = serde_json::json!({ "code": "FAIL", "message": message }).to_string();
    let mut response = with_status(status, Response::new(Body::full(body)));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    );
    if status == StatusCode::BAD_REQUEST {
        closing(response)
    } else {
        response
    }
}
