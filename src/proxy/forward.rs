//! Forwards one request to the backend, and its response back. The rules about heads are in `headers.rs`, `target.rs`
//! and `telemetry/propagation.rs`; the client is in `backend.rs`.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HOST, HeaderValue, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;

use super::backend::{Backend, BackendClient, client};
use super::body::Body;
use super::exchange::{Download, Exchange, ExchangeTimeouts, Upload, UploadError};
use super::headers::Hops;
use super::target::{self, TargetError};
use super::upgrade::{self, Tunnel, Tunnels};
use super::{headers, interim};
use crate::http::base_url::BaseUrl;
use crate::http::http1::Http1Exchange;
use crate::http::in_flight::InFlightPermit;
use crate::http::line::Line;
use crate::http::peer::Peer;
use crate::http::responses::{Refused as _, closing, text_response};
use crate::telemetry::context::shown;
use crate::telemetry::log::{causes, chain};
use crate::telemetry::propagation;
use crate::telemetry::traces::server::Begun;

/// Forwards requests to one backend. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub(crate) struct Proxy {
    client: BackendClient,
    backend: Arc<Backend>,
    timeouts: ExchangeTimeouts,
    tunnels: Tunnels,
}

/// The settings of a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `http://host[:port][/base]`.
    pub url: BaseUrl,
    /// How long an exchange may stall.
    pub timeouts: ExchangeTimeouts,
    /// The most bytes of a response's head, and of a body read ahead of a slow caller; at least 8 KiB.
    pub read_ahead: usize,
    /// The most requests at the same time; also the most idle connections to keep.
    pub most: usize,
    /// The most upgraded connections at the same time.
    pub upgraded: usize,
}

/// An upgrade that a caller asks for, and its permit.
struct Asked {
    protocol: HeaderValue,
    caller: OnUpgrade,
    tunnel: Tunnel,
}

/// What the response must take into account about the request.
struct Expected {
    upgrade: Option<Asked>,
    takes_trailers: bool,
}

impl Proxy {
    /// Forwards to the backend, and upgraded connections through `tunnels`.
    #[must_use]
    pub(crate) fn new(settings: Settings, tunnels: &Tunnels) -> Self {
        let backend = Backend::new(settings.url);
        Self {
            client: client(&backend, settings.read_ahead, settings.most),
            backend: Arc::new(backend),
            timeouts: settings.timeouts,
            tunnels: tunnels.limited(settings.upgraded),
        }
    }

    /// Forwards one request. Every failure is a response: 4xx or 501 if the request cannot be forwarded faithfully, 502
    /// or 504 if the backend cannot be reached, stalls, or breaks off before it responds. If the backend stalls or
    /// breaks off later, the response's body ends with an error, which aborts the caller's connection.
    ///
    /// # Cancel safety
    /// Dropping the future cuts the exchange with the backend, as it should when a caller hangs up.
    pub(crate) async fn forward(&self, mut request: Request<Incoming>, peer: &Peer) -> Response<Body> {
        let id = propagation::identify(request.headers());
        // The upload holds the permit too, because the response may end before it.
        let permit = request.extensions().get::<InFlightPermit>().cloned();
        let expected = match self.prepare(&mut request, peer, &id) {
            Ok(Some(expected)) => expected,
            // An intermediary answers this way when the request asks about itself. Source: RFC 9110, section 9.3.7.
            Ok(None) => return Response::new(Body::empty()),
            Err(error) => {
                tracing::debug!(request_id = shown(&id), %error, "a request was not forwarded");
                let response = text_response(error.status(), &error.to_string());
                return if error == TargetError::Upgrades {
                    response
                } else {
                    closing(response)
                };
            }
        };
        let method = request.method().clone();
        let exchange = Exchange::begin();
        let request =
            request.map(|body| Upload::new(body, Arc::clone(&exchange), permit, self.timeouts.caller));
        tokio::select! {
            // A response that is there counts, however late it is.
            biased;
            answered = self.client.request(request) => match answered {
                Ok(response) => self.pass_back(response, expected, exchange, &id),
                Err(error) => self.failed(&error, &method, &id),
            },
            () = exchange.stands_still(self.timeouts.backend) => self.stood_still(&method, &id),
        }
    }

    fn stood_still(&self, method: &Method, id: &HeaderValue) -> Response<Body> {
        tracing::warn!(backend = %self.backend, request_id = shown(id), %method, "the backend stood still");
        let text = format!("the backend {} did not answer in time", self.backend);
        text_response(StatusCode::GATEWAY_TIMEOUT, &text)
    }

    /// Turns the caller's request into one to the backend. `None` if `Max-Forwards` has run out.
    fn prepare(
        &self,
        request: &mut Request<Incoming>,
        peer: &Peer,
        id: &HeaderValue,
    ) -> Result<Option<Expected>, TargetError> {
        target::check_scheme(request.uri(), request.version(), peer)?;
        let host = target::check(
            request.method(),
            request.uri(),
            request.version(),
            request.headers(),
            self.backend.authority(),
        )?;
        let http1 = request.extensions().get::<Http1Exchange>().cloned();
        let uri = if http1.as_ref().is_some_and(Http1Exchange::is_of_server) {
            self.backend.uri(&Uri::from_static("*"))
        } else {
            self.backend.uri(request.uri())
        };
        let uri = uri.ok_or(TargetError::NoPath)?;
        match headers::count_hop(&request.method().clone(), request.headers_mut()) {
            Hops::Left => {}
            Hops::Over => return Ok(None),
            Hops::Unreadable => return Err(TargetError::MaxForwards),
        }
        let version = request.version();
        let upgrade = match upgrade::wanted(request) {
            Some(protocol) => Some(Asked {
                protocol,
                caller: hyper::upgrade::on(&mut *request),
                tunnel: self.tunnels.open().ok_or(TargetError::Upgrades)?,
            }),
            None => None,
        };
        let asks_for_trailers = headers::takes_trailers(request.headers());
        // HTTP/2 always carries trailers.
        let takes_trailers = version == Version::HTTP_2 || asks_for_trailers;
        // Only the caller's connection needs the extensions. A permit among them, for one, must not last as long as the
        // client holds the request; the response releases it.
        let begun = request.extensions_mut().remove::<Begun>();
        request.extensions_mut().clear();
        // HTTP/1.0 has no interim responses, and the HTTP/2 library cannot write them.
        if let Some(http1) = http1.filter(|_| version == Version::HTTP_11) {
            hyper::ext::on_informational(request, move |word| {
                http1.send_interim(interim::written(word.status(), word.headers()));
            });
        }
        let is_chunked = !request.body().is_end_stream() && request.body().size_hint().exact().is_none();
        let headers = request.headers_mut();
        headers::clean_request(headers, peer);
        if version == Version::HTTP_2 {
            headers::join_cookies(headers);
        }
        if headers.get(HOST) != Some(&host) {
            headers.insert(HOST, host);
        }
        headers::announce(headers, peer, version);
        headers.insert(propagation::X_REQUEST_ID, id.clone());
        match begun {
            Some(begun) => drop(begun.go_on(headers)),
            None => drop(propagation::continue_trace(headers)),
        }
        if is_chunked {
            // Without this header the client leaves out the body of a GET.
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        } else {
            headers.remove(TRAILER);
        }
        if let Some(asked) = &upgrade {
            upgrade::announce(headers, asked.protocol.clone());
        }
        if asks_for_trailers {
            headers::ask_for_trailers(headers);
        }
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        Ok(Some(Expected {
            upgrade,
            takes_trailers,
        }))
    }

    /// Turns the backend's response into one to the caller.
    fn pass_back(
        &self,
        mut response: Response<Incoming>,
        expected: Expected,
        exchange: Arc<Exchange>,
        id: &HeaderValue,
    ) -> Response<Body> {
        let status = response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return match expected.upgrade {
                Some(asked) if upgrade::is_granted(&asked.protocol, response.headers()) => {
                    let backend = hyper::upgrade::on(&mut response);
                    asked.tunnel.run(&asked.protocol, asked.caller, backend);
                    headers::clean_response(response.headers_mut());
                    upgrade::announce(response.headers_mut(), asked.protocol);
                    response.map(|_| Body::empty())
                }
                _ => self.broken(id, "it changed to a protocol that it was not asked for"),
            };
        }
        let headers = response.headers_mut();
        if let Err(error) = headers::settle_length(status, headers) {
            return self.broken(id, error);
        }
        // Source: RFC 9110, section 15.5.22.
        let needed = (status == StatusCode::UPGRADE_REQUIRED)
            .then(|| headers.get(UPGRADE).cloned())
            .flatten();
        headers::clean_response(headers);
        if let Some(needed) = needed {
            upgrade::announce(headers, needed);
        }
        if !expected.takes_trailers {
            headers.remove(TRAILER);
        }
        // Answer an HTTP/1.0 backend's response in HTTP/1.1, or an aborted body would look complete to the caller.
        *response.version_mut() = Version::HTTP_11;
        // An event stream may be silent for as long as there are no events.
        let timeout = self
            .timeouts
            .backend
            .filter(|_| !is_event_stream(response.headers()));
        let line = response.extensions_mut().remove::<Arc<Line>>();
        response.map(|body| Body::stream(Download::new(body, exchange, line, timeout)))
    }

    fn broken(&self, id: &HeaderValue, error: &str) -> Response<Body> {
        tracing::warn!(backend = %self.backend, request_id = shown(id), error, "an answer of the backend was not passed on");
        let text = format!(
            "the backend {} gave an answer that cannot be passed on",
            self.backend
        );
        text_response(StatusCode::BAD_GATEWAY, &text)
    }

    fn failed(
        &self,
        error: &hyper_util::client::legacy::Error,
        method: &Method,
        id: &HeaderValue,
    ) -> Response<Body> {
        if let Some(slow @ UploadError::Slow(_)) = causes(error).find_map(|cause| cause.downcast_ref()) {
            tracing::debug!(request_id = shown(id), error = %slow, "a caller was too slow");
            return text_response(
                StatusCode::REQUEST_TIMEOUT,
                "nothing more of the request's body came",
            );
        }
        if causes(error).any(|cause| {
            cause
                .downcast_ref::<hyper::Error>()
                .is_some_and(hyper::Error::is_user)
        }) {
            tracing::debug!(
                request_id = shown(id),
                error = chain(error),
                "a caller's body broke off"
            );
            return text_response(StatusCode::BAD_REQUEST, "the request's body broke off");
        }
        tracing::warn!(
            backend = %self.backend, request_id = shown(id), %method, error = chain(error),
            "the backend did not answer"
        );
        let is_late = causes(error)
            .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
            .any(|cause| cause.kind() == std::io::ErrorKind::TimedOut);
        let (status, what) = match (error.is_connect(), is_late) {
            (true, true) => (StatusCode::GATEWAY_TIMEOUT, "cannot be reached in time"),
            (true, false) => (StatusCode::BAD_GATEWAY, "cannot be reached"),
            (false, _) => (StatusCode::BAD_GATEWAY, "broke off before it answered"),
        };
        text_response(status, &format!("the backend {} {what}", self.backend))
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let media = headers
        .get(CONTENT_TYPE)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    let media = media.split(|byte| *byte == b';').next().unwrap_or_default();
    media.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}
