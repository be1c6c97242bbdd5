//! One request, one answer, over hyper-util's pool of HTTP/1.1 connections, and exact knowledge of what can have been sent.
//!
//! The rule that everything else follows from: hyper asks for the first part of a body before it writes the first byte of its
//! head, and asks once. So the body tells ([`Handed`]): until it was asked for, not a byte was written, and where it then
//! refuses, none ever is; a connection that was closed under a request hands it back unasked, and another one has its turn.
//! Once it was asked for, only an answer ends the doubt.

use std::error::Error as _;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{self, Authority, PathAndQuery, Scheme};
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;

use super::PATIENCE;
use super::dial::{Connect, Connector, TlsError, host_and_port, is_tls};
use crate::circuit::Breaker;
use crate::proxy::line::Line;
use crate::telemetry::log::chain;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::upstreams::{Ended, UpstreamMeter};
use crate::telemetry::otlp::child::OpenSpan;

/// The most bytes of an answer that are read.
pub(super) const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// How long an unused connection is kept. Shorter than the 5 s after which Node.js closes one, so that the upstream's
/// closing and our next request seldom cross.
const IDLE: Duration = Duration::from_secs(4);
/// How many unused connections are kept.
const MAX_IDLE: usize = 1024;

/// Whose connections the client's pool keeps: those to this upstream, whatever its address is. The pool hashes the name twice
/// for each request, letter by letter.
const POOL: &str = "u";

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No byte of the request was written.
    NeverSent(String),
    /// Bytes may have been written, and no whole answer came back.
    MaybeSent(String),
}

/// Why an exchange came to nothing, as its circuit needs to know it.
enum Lost {
    /// No connection could be had.
    Unreachable(String),
    /// The request was not handed over, for a reason of ours.
    HeldUp,
    /// Bytes may have been written, and no whole answer came back.
    Silent(String),
}

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Unreachable(why) => Self::NeverSent(why),
            Lost::HeldUp => Self::NeverSent("the process was held up and the lease is ending".to_owned()),
            Lost::Silent(why) => Self::MaybeSent(why),
        }
    }
}

/// How an exchange ended, as spans have it.
fn name_of(exchanged: &Result<Answer, Lost>) -> &'static str {
    match exchanged {
        Ok(_) => Ended::Answered.name(),
        Err(Lost::Unreachable(_)) => Ended::Unreachable.name(),
        Err(Lost::Silent(_)) => Ended::Silent.name(),
        Err(Lost::HeldUp) => "held_up",
    }
}

/// What keeps an eye on a client's exchanges.
struct Watched {
    breaker: Breaker,
    meter: Option<UpstreamMeter>,
}

impl Watched {
    fn ended(&self, exchanged: &Result<Answer, Lost>, took: Duration) {
        let how = match exchanged {
            Ok(_) => {
                self.breaker.answered();
                Ended::Answered
            }
            Err(Lost::Unreachable(why)) => {
                self.breaker.unreachable(why);
                Ended::Unreachable
            }
            Err(Lost::Silent(why)) => {
                self.breaker.failed(why);
                Ended::Silent
            }
            Err(Lost::HeldUp) => return,
        };
        self.meter(how, took);
    }

    fn meter(&self, how: Ended, took: Duration) {
        if let Some(meter) = &self.meter {
            meter.ended(how, took);
        }
    }
}

/// What has become of a request, decided once: by the connection that asks for its body, or by whoever gives it up before.
#[derive(Clone, Copy)]
enum Handed {
    /// A connection writes it.
    Over,
    /// A connection was about to, and it was too late.
    HeldUp,
    /// No connection has begun, and none will.
    Never,
}

/// A request's body, which is asked for before the first byte of the request is written, unless it is empty.
struct Gate {
    body: Full<Bytes>,
    handed: Arc<OnceLock<Handed>>,
    may_send: Box<dyn Fn() -> bool + Send>,
}

impl Body for Gate {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let ask = || {
            if (this.may_send)() {
                Handed::Over
            } else {
                Handed::HeldUp
            }
        };
        match this.handed.get_or_init(ask) {
            Handed::Over => Pin::new(&mut this.body)
                .poll_frame(cx)
                .map_err(|never| match never {}),
            Handed::HeldUp | Handed::Never => Poll::Ready(Some(Err("it is not to be sent any more"))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request that is not answered yet. Dropped, it cuts the connection that it is on.
struct Unanswered(Option<CaptureConnection>);

impl Unanswered {
    fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        let Some(connection) = &self.0 else { return };
        let mut extras = Extensions::new();
        if let Some(connected) = &*connection.connection_metadata() {
            connected.get_extras(&mut extras);
        }
        if let Some(line) = extras.get::<Arc<Line>>() {
            line.cut();
        }
    }
}

/// A client of one upstream.
pub struct Client {
    http: legacy::Client<Connect, Gate>,
    base: Uri,
    /// The upstream as the operator wrote it.
    shown: String,
    timeout: Duration,
    watched: Option<Watched>,
}

impl Client {
    /// A client of the upstream at `base`, whose path, if it has one, goes before each request's. `connect_timeout` covers
    /// name, TCP and TLS of one connection; an exchange takes at most `timeout` from the moment one is there.
    ///
    /// # Errors
    /// When `base` needs TLS, and its host is none that a certificate can be for, then [`TlsError`].
    pub fn new(
        base: Uri,
        tls: rustls::ClientConfig,
        connect_timeout: Duration,
        timeout: Duration,
    ) -> Result<Self, TlsError> {
        let connector = Connector::new(base, tls, connect_timeout, timeout)?;
        Ok(Self::over(connector, timeout))
    }

    pub(super) fn over(connector: Connector, timeout: Duration) -> Self {
        let base = connector.upstream.clone();
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            // As it was written, with the port that it was written with.
            .set_host(false)
            // Only what is handed back unasked, see above.
            .retry_canceled_requests(true)
            // More than any head of ours: none is written before its body was asked for.
            .http1_max_buf_size(MAX_ANSWER_BYTES)
            .build(connector.into_service());
        Self {
            http,
            shown: base.to_string().trim_end_matches('/').to_owned(),
            base,
            timeout,
            watched: None,
        }
    }

    /// Lets a circuit turn requests away while the upstream does not answer. `name` is whose client it is; with
    /// `metrics`, circuit and exchanges are shown under it.
    #[must_use]
    pub fn watched(self, name: &str, metrics: Option<&Metrics>) -> Self {
        let name = format!("{name} {}", self.shown);
        let watched = match metrics {
            Some(metrics) => Watched {
                breaker: metrics.breakers().named(&name, PATIENCE),
                meter: Some(metrics.upstreams.of(&name)),
            },
            None => Watched {
                breaker: Breaker::new(&name, PATIENCE),
                meter: None,
            },
        };
        Self {
            watched: Some(watched),
            ..self
        }
    }

    /// Posts a body and waits for the answer; see [`Client::send`].
    ///
    /// # Errors
    /// As [`Client::send`].
    ///
    /// # Cancel safety
    /// As [`Client::send`].
    pub async fn post(
        &self,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
        may_send: impl Fn() -> bool + Send + 'static,
    ) -> Result<Answer, Failure> {
        self.send(&Method::POST, path, headers, body, may_send).await
    }

    /// Sends one request and waits for the answer. `path` is sent byte for byte. `may_send` is asked at the last moment
    /// before a body is written; where it says no, nothing is sent. It is not asked about a request without a body.
    ///
    /// # Errors
    /// When there is no answer, then [`Failure`], which says what can have been sent.
    ///
    /// # Cancel safety
    /// Dropping the future resets the connection. What the other side has received is not unsent by that; what it has not, it
    /// does not receive any more.
    pub async fn send(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
        may_send: impl Fn() -> bool + Send + 'static,
    ) -> Result<Answer, Failure> {
        let body = Gate {
            body: Full::new(body),
            handed: Arc::default(),
            may_send: Box::new(may_send),
        };
        let mut request = self.request(method, path, headers, body).map_err(|error| {
            Failure::NeverSent(format!("the request to {} cannot be built: {error}", self.shown))
        })?;
        let Some(watched) = &self.watched else {
            return Ok(self.exchange(request).await?);
        };
        let (host, port) = host_and_port(&self.base);
        let span = OpenSpan::exchange(method, path, host, port, is_tls(&self.base));
        if let Err(why) = watched.breaker.may_try() {
            watched.meter(Ended::TurnedAway, Duration::ZERO);
            if let Some(span) = span {
                span.exchanged(Ended::TurnedAway.name(), None);
            }
            return Err(Failure::NeverSent(format!("{}: {why}", self.shown)));
        }
        if let Some(span) = &span {
            span.pass_on(request.headers_mut());
        }
        let begun = Instant::now();
        let exchanged = self.exchange(request).await;
        watched.ended(&exchanged, begun.elapsed());
        if let Some(span) = span {
            span.exchanged(
                name_of(&exchanged),
                exchanged.as_ref().ok().map(|answer| answer.status),
            );
        }
        Ok(exchanged?)
    }

    async fn exchange(&self, mut request: Request<Gate>) -> Result<Answer, Lost> {
        let has_body = !request.body().is_end_stream();
        let handed = Arc::clone(&request.body().handed);
        let mut connected = capture_connection(&mut request);
        let captured = connected.clone();
        let answer = async {
            let mut response = self.http.request(request);
            // Dropped before the response, so that the connection is cut first.
            let unanswered = Unanswered(Some(captured));
            match (&mut response).await {
                Ok(response) => {
                    unanswered.answered();
                    self.read(response).await.map_err(|why| (false, why))
                }
                Err(error) => Err((error.is_connect(), self.why(&error))),
            }
        };
        let given_up = async {
            drop(connected.wait_for_connection_metadata().await);
            tokio::time::sleep(self.timeout).await;
        };
        let (is_unconnected, why) = tokio::select! {
            biased;
            answer = answer => match answer {
                Ok(answer) => return Ok(answer),
                Err(lost) => lost,
            },
            () = given_up => {
                let ms = self.timeout.as_millis();
                (false, format!("{} did not answer within {ms} ms", self.shown))
            }
        };
        // An empty body is never asked for: only a connection that could not be had tells that nothing was written.
        let unasked = if has_body || is_unconnected {
            Handed::Never
        } else {
            Handed::Over
        };
        Err(match handed.get_or_init(|| unasked) {
            Handed::Over => Lost::Silent(why),
            Handed::HeldUp => Lost::HeldUp,
            Handed::Never => Lost::Unreachable(why),
        })
    }

    /// An error's causes behind the upstream's name. The HTTP client's own word for it says nothing to the operator.
    fn why(&self, error: &legacy::Error) -> String {
        let cause = error.source().map_or_else(|| error.to_string(), chain);
        if error.is_connect() {
            format!("{} {cause}", self.shown)
        } else {
            format!("{} broke off: {cause}", self.shown)
        }
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: Gate,
    ) -> Result<Request<Gate>, http::Error> {
        let host = self.base.authority().map_or("", |authority| authority.as_str());
        let host = HeaderValue::try_from(host)?;
        let base_path = self.base.path().trim_end_matches('/');
        let mut url = uri::Parts::default();
        url.scheme = Some(Scheme::HTTP);
        url.authority = Some(Authority::from_static(POOL));
        url.path_and_query = Some(PathAndQuery::try_from([base_path, path].concat())?);
        let mut all = HeaderMap::with_capacity(headers.len().saturating_add(2));
        all.insert(http::header::HOST, host);
        all.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        let mut request = Request::new(body);
        *request.method_mut() = method.clone();
        *request.uri_mut() = Uri::from_parts(url)?;
        *request.headers_mut() = all;
        Ok(request)
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Answer, String> {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|error| {
                format!(
                    "{} answered HTTP {}, but not to the end: {error}",
                    self.shown, head.status
                )
            })?;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    }
}
