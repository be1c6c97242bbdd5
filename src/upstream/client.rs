//! One request, one answer, over pooled HTTP/1.1 connections, and exact knowledge of what can have been sent.
//!
//! The rule that everything else follows from: a request is handed to a connection once. It comes back unsent, which is
//! [`Failure::NeverSent`] or another connection's turn, or it is gone, and then only an answer ends the doubt.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::PATIENCE;
use super::dial::Dialer;
use crate::circuit::Breaker;
use crate::telemetry::log::chain;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::upstreams::{Ended, UpstreamMeter};
use crate::telemetry::otlp::child::OpenSpan;

/// The most bytes of an answer that are read.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// How long an unused connection is kept. Shorter than the 5 s after which Node.js closes one, so that the upstream's
/// closing and our next request seldom cross; where they do, hyper hands the request back unsent.
const IDLE: Duration = Duration::from_secs(4);
/// How many unused connections are kept.
const MAX_IDLE: usize = 1024;

#[cfg(test)]
mod tests;

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

/// An open connection. Dropping it closes it at once, whatever has not been written yet.
struct Connection {
    /// Reads and writes. Left to itself it would close the socket only when it notices that nobody waits for it, and not
    /// while it cannot write.
    _task: AbortOnDropHandle<()>,
    sender: SendRequest<Full<Bytes>>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// A client of one upstream.
pub struct Client {
    dialer: Dialer,
    timeout: Duration,
    watched: Option<Watched>,
    /// The one used last stands last.
    idle: Mutex<VecDeque<Idle>>,
}

impl Client {
    /// A client whose exchanges take at most `timeout` from the moment a connection is there.
    #[must_use]
    pub fn new(dialer: Dialer, timeout: Duration) -> Self {
        Self {
            dialer: dialer.giving_up_after(timeout),
            timeout,
            watched: None,
            idle: Mutex::default(),
        }
    }

    /// Lets a circuit turn requests away while the upstream does not answer. `name` is whose client it is; with
    /// `metrics`, circuit and exchanges are shown under it.
    #[must_use]
    pub fn watched(self, name: &str, metrics: Option<&Metrics>) -> Self {
        let name = format!("{name} {}", self.dialer.target());
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
        may_send: impl Fn() -> bool,
    ) -> Result<Answer, Failure> {
        self.send(&Method::POST, path, headers, body, may_send).await
    }

    /// Sends one request and waits for the answer. `may_send` is asked at the last moment before the request is handed to a
    /// connection; where it says no, nothing is sent.
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
        may_send: impl Fn() -> bool,
    ) -> Result<Answer, Failure> {
        let mut request = self.request(method, path, headers, body)?;
        let Some(watched) = &self.watched else {
            return Ok(self.exchange(request, may_send).await?);
        };
        let target = self.dialer.target();
        let span = OpenSpan::exchange(method, path, &target.host, target.port, target.tls);
        if let Err(why) = watched.breaker.may_try() {
            watched.meter(Ended::TurnedAway, Duration::ZERO);
            if let Some(span) = span {
                span.exchanged(Ended::TurnedAway.name(), None);
            }
            return Err(Failure::NeverSent(format!("{}: {why}", self.dialer.target())));
        }
        if let Some(span) = &span {
            span.pass_on(request.headers_mut());
        }
        let begun = Instant::now();
        let exchanged = self.exchange(request, may_send).await;
        watched.ended(&exchanged, begun.elapsed());
        if let Some(span) = span {
            span.exchanged(
                name_of(&exchanged),
                exchanged.as_ref().ok().map(|answer| answer.status),
            );
        }
        Ok(exchanged?)
    }

    async fn exchange(
        &self,
        mut request: Request<Full<Bytes>>,
        may_send: impl Fn() -> bool,
    ) -> Result<Answer, Lost> {
        // Connections that turn out to be closed hand the request back; each is tried once, then a new one is opened.
        loop {
            let mut connection = match self.take_idle() {
                Some(connection) => connection,
                // Seldom, and in a box: every exchange would otherwise have the room that dialling needs.
                None => Box::pin(self.connect()).await.map_err(Lost::Unreachable)?,
            };
            if !may_send() {
                return Err(Lost::HeldUp);
            }
            let exchange = tokio::time::timeout(self.timeout, async {
                let response = connection.sender.try_send_request(request).await;
                match response {
                    Ok(response) => Ok(self.read(response).await),
                    Err(error) => Err(error),
                }
            });
            match exchange.await {
                Err(_) => {
                    let why = format!(
                        "{} did not answer within {} ms",
                        self.dialer.target(),
                        self.timeout.as_millis()
                    );
                    return Err(Lost::Silent(why));
                }
                Ok(Ok(Ok(answer))) => {
                    self.keep(connection);
                    return Ok(answer);
                }
                Ok(Ok(Err(why))) => return Err(Lost::Silent(why)),
                Ok(Err(mut refused)) => match refused.take_message() {
                    // Handed back before its first byte was written.
                    Some(unsent) => request = unsent,
                    None => {
                        let why = chain(&refused.into_error());
                        return Err(Lost::Silent(format!("{} broke off: {why}", self.dialer.target())));
                    }
                },
            }
        }
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let target = self.dialer.target();
        let unfit = |error: &dyn std::fmt::Display| {
            Failure::NeverSent(format!("the request to {target} cannot be built: {error}"))
        };
        let uri = Uri::try_from([target.base_path.as_str(), path].concat()).map_err(|error| unfit(&error))?;
        let host = HeaderValue::try_from(&target.authority).map_err(|error| unfit(&error))?;
        let mut all = HeaderMap::with_capacity(headers.len().saturating_add(2));
        all.insert(http::header::HOST, host);
        all.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = all;
        Ok(request)
    }

    async fn connect(&self) -> Result<Connection, String> {
        let stream = self.dialer.dial().await?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(64 * 1024)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| format!("{}: {}", self.dialer.target(), chain(&error)))?;
        let task = tokio::spawn(async move {
            // Whoever waits on this connection is told; nobody else needs to know.
            if let Err(error) = connection.await {
                tracing::debug!(error = chain(&error), "an upstream connection ended");
            }
        });
        Ok(Connection {
            _task: AbortOnDropHandle::new(task),
            sender,
        })
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Answer, String> {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|error| {
                format!(
                    "{} answered HTTP {}, but not to the end: {error}",
                    self.dialer.target(),
                    head.status
                )
            })?;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    }

    /// The connection used last is taken first, so that the others grow old and are closed.
    fn take_idle(&self) -> Option<Connection> {
        let now = Instant::now();
        let mut idle = self.idle();
        let is_old = |kept: &Idle| now.saturating_duration_since(kept.since) >= IDLE;
        while idle.front().is_some_and(is_old) {
            idle.pop_front();
        }
        // One whose answer has only just been read may need a moment until it takes the next request.
        while let Some(at) = idle
            .iter()
            .map(|kept| &kept.connection.sender)
            .rposition(|sender| sender.is_ready() || sender.is_closed())
        {
            let connection = idle.remove(at)?.connection;
            if !connection.sender.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    fn keep(&self, connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        let since = Instant::now();
        let mut idle = self.idle();
        if idle.len() < MAX_IDLE {
            idle.push_back(Idle { connection, since });
        }
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
