//! Sends one request and reads one answer over pooled HTTP/1.1 connections, and knows exactly what can have been
//! sent.
//!
//! Everything follows from one rule: hyper asks for the first part of a body before it writes the first byte of the
//! head, and asks once. So the body notes what happened ([`Handed`]): until hyper asks for it, not a byte was
//! written, and if it then refuses, none ever is. If a connection closes before hyper asked, hyper hands the request
//! back, and another connection gets it. Once hyper has asked, only an answer ends the doubt.

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Body as _;
use hyper::client::conn::http1;
use tokio::time::Instant;

use super::BREAKER;
use super::dial::Connector;
pub(crate) use super::exchange::{Answer, Failure};
use super::exchange::{Watched, outcome};
use super::gate::{Gate, Handed, Handing};
use super::pool::{Connection, Pool};
use crate::breaker::Breaker;
use crate::http::base_url::BaseUrl;
use crate::http::client_tls::TlsError;
use crate::telemetry::log::chain;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::child::OpenSpan;

/// The most bytes of an answer to read.
pub(super) const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// Why a connection brought no answer.
enum Broken {
    /// It handed the request back, unsent.
    Unsent(Box<Request<Gate>>, String),
    /// The request may be on its way.
    Silent(String),
}

/// A client of one upstream.
pub(crate) struct Client {
    connector: Connector,
    host: HeaderValue,
    /// The upstream's URL as the operator wrote it.
    shown: String,
    timeout: Duration,
    watched: Option<Watched>,
    idle: Pool,
}

impl Client {
    /// A client of the upstream at `base`. If `base` has a path, that path precedes each request's. `connect_timeout`
    /// covers name, TCP, tunnel and TLS of one connection; an exchange takes at most `timeout` once it has a
    /// connection.
    ///
    /// # Errors
    /// When `base` needs TLS and no certificate can be for its host, then [`TlsError`].
    pub(crate) fn new(
        base: BaseUrl,
        tls: rustls::ClientConfig,
        connect_timeout: Duration,
        timeout: Duration,
    ) -> Result<Self, TlsError> {
        let connector = Connector::new(base, tls, connect_timeout, timeout)?;
        Ok(Self::over(connector, timeout))
    }

    pub(super) fn over(connector: Connector, timeout: Duration) -> Self {
        let base = &connector.upstream;
        Self {
            // An authority is visible ASCII, so this cannot fail.
            host: HeaderValue::try_from(base.authority()).unwrap_or_else(|_| HeaderValue::from_static("")),
            shown: base.to_string(),
            connector,
            timeout,
            watched: None,
            idle: Pool::default(),
        }
    }

    /// Adds a circuit breaker, which refuses requests while the upstream does not answer. `name` says whose client it
    /// is. With `metrics`, breaker and exchanges appear in the metrics under that name.
    #[must_use]
    pub(crate) fn watched(self, name: &str, metrics: Option<&Metrics>) -> Self {
        let name = format!("{name} {}", self.shown);
        let watched = match metrics {
            Some(metrics) => Watched {
                breaker: metrics.breakers().named(&name, BREAKER),
                meter: Some(metrics.upstreams.of(&name)),
            },
            None => Watched {
                breaker: Breaker::new(&name, BREAKER),
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
    pub(crate) async fn post(
        &self,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
        may_send: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<Answer, Failure> {
        self.send(&Method::POST, path, headers, body, may_send).await
    }

    /// Sends one request and waits for the answer. `path` is sent byte for byte. The client asks `may_send` at the
    /// last moment before it writes a body, and sends nothing if it says no. For a request without a body it does not
    /// ask.
    ///
    /// # Errors
    /// When there is no answer, then [`Failure`], which says what can have been sent.
    ///
    /// # Cancel safety
    /// Dropping the future resets the connection. What the other side has received stays received; it receives
    /// nothing more.
    pub(crate) async fn send(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
        may_send: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<Answer, Failure> {
        let body = Gate {
            body: Full::new(body),
            handing: Arc::new(Handing {
                handed: OnceLock::new(),
                may_send,
            }),
        };
        let mut request = self.request(method, path, headers, body).map_err(|error| {
            Failure::NotMade(format!("the request to {} cannot be built: {error}", self.shown))
        })?;
        let Some(watched) = &self.watched else {
            return self.exchange(request).await;
        };
        let base = &self.connector.upstream;
        let (host, port) = base.host_and_port();
        let span = OpenSpan::exchange(method, path, host, port, base.is_tls());
        if let Some(span) = &span {
            span.pass_on(request.headers_mut());
        }
        let begun = Instant::now();
        let exchanged = match watched.breaker.may_try() {
            Ok(()) => self.exchange(request).await,
            Err(why) => Err(Failure::CircuitOpen(format!("{}: {why}", self.shown))),
        };
        watched.ended(&exchanged, begun.elapsed());
        if let Some(span) = span {
            let status = exchanged.as_ref().ok().map(|answer| answer.status);
            span.exchanged(outcome(&exchanged).name(), status);
        }
        exchanged
    }

    async fn exchange(&self, mut request: Request<Gate>) -> Result<Answer, Failure> {
        // What hyper did not ask for was not sent. But hyper never asks for an empty body, so that request may have
        // been sent.
        let unasked = if request.body().is_end_stream() {
            Handed::Over
        } else {
            Handed::Never
        };
        let handing = Arc::clone(&request.body().handing);
        let (why, unasked) = loop {
            let connection = match self.idle.take() {
                Some(connection) => connection,
                // Rare, and boxed: otherwise every exchange's future would be as large as connecting needs.
                None => Box::pin(self.connect()).await.map_err(Failure::Unreachable)?,
            };
            let was_used = connection.was_used;
            let exchange = self.exchange_on(connection, request);
            match tokio::time::timeout(self.timeout, exchange).await {
                Ok(Ok((answer, connection))) => {
                    self.idle.keep(connection);
                    return Ok(answer);
                }
                // The upstream closed this connection while it was idle: try another one.
                Ok(Err(Broken::Unsent(unsent, _))) if was_used => request = *unsent,
                Ok(Err(Broken::Unsent(_, why))) => break (why, Handed::Never),
                Ok(Err(Broken::Silent(why))) => break (why, unasked),
                Err(_) => {
                    let ms = self.timeout.as_millis();
                    break (format!("{} did not answer within {ms} ms", self.shown), unasked);
                }
            }
        };
        Err(match handing.handed.get_or_init(|| unasked) {
            Handed::Over => Failure::Silent(why),
            Handed::HeldUp => Failure::HeldUp,
            Handed::Never => Failure::Unreachable(why),
        })
    }

    /// Hands a request to a connection, and reads the answer to its end. However this ends early, it must cut the
    /// connection first, and only then drop what hyper looks at. Locals drop in reverse order: `open` is declared
    /// after `response`, and again after `body`, so that it drops before both.
    async fn exchange_on(
        &self,
        mut connection: Connection,
        request: Request<Gate>,
    ) -> Result<(Answer, Connection), Broken> {
        let mut response = pin!(connection.sender.try_send_request(request));
        let open = connection;
        let (head, body) = match response.as_mut().await {
            Ok(response) => response.into_parts(),
            Err(mut error) => {
                let unsent = error.take_message();
                let why = format!("{} broke off: {}", self.shown, chain(&error.into_error()));
                return Err(match unsent {
                    Some(unsent) => Broken::Unsent(Box::new(unsent), why),
                    None => Broken::Silent(why),
                });
            }
        };
        let mut body = pin!(Limited::new(body, MAX_ANSWER_BYTES).collect());
        let open = open;
        let body = body.as_mut().await.map_err(|error| {
            Broken::Silent(format!(
                "{} answered HTTP {}, but not to the end: {error}",
                self.shown, head.status
            ))
        })?;
        let answer = Answer {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        };
        Ok((answer, open))
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: Gate,
    ) -> Result<Request<Gate>, http::Error> {
        let base_path = self.connector.upstream.path();
        let path = PathAndQuery::try_from([base_path, path].concat())?;
        let mut all = HeaderMap::with_capacity(headers.len().saturating_add(2));
        all.insert(http::header::HOST, self.host.clone());
        all.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        let mut request = Request::new(body);
        *request.method_mut() = method.clone();
        *request.uri_mut() = Uri::from(path);
        *request.headers_mut() = all;
        Ok(request)
    }

    async fn connect(&self) -> Result<Connection, String> {
        let opened = self.connector.open().await;
        let stream = opened.map_err(|why| format!("{} {why}", self.shown))?;
        let line = Arc::clone(stream.line());
        let (sender, connection) = http1::Builder::new()
            // Larger than any head of ours, so that hyper writes no part of a head before it asks for the body.
            .max_buf_size(MAX_ANSWER_BYTES)
            .handshake(stream)
            .await
            .map_err(|error| format!("{}: {}", self.shown, chain(&error)))?;
        tokio::spawn(async move {
            // The request on this connection gets its own error; nobody else needs to know.
            if let Err(error) = connection.await {
                tracing::debug!(error = chain(&error), "an upstream connection ended");
            }
        });
        Ok(Connection {
            sender,
            line,
            was_used: false,
        })
    }
}
