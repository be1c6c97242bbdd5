//! One request, one answer, over pooled HTTP/1.1 connections, and exact knowledge of what can have been sent.
//!
//! The rule that everything else follows from: a request is handed to a connection once. It comes back unsent, which is
//! [`Failure::NeverSent`] or another connection's turn, or it is gone, and then only an answer ends the doubt.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::dial::Dialer;
use crate::telemetry::log::chain;

/// The most bytes of an answer that are read.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// How long an unused connection is kept. Shorter than the 5 s after which Node.js closes one, so that the upstream's
/// closing and our next request seldom cross; where they do, hyper hands the request back unsent.
const IDLE: Duration = Duration::from_secs(4);
/// How many unused connections are kept.
const MAX_IDLE: usize = 128;

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

struct Idle {
    sender: SendRequest<Full<Bytes>>,
    since: Instant,
}

/// A client of one upstream.
pub struct Client {
    dialer: Dialer,
    timeout: Duration,
    idle: Mutex<Vec<Idle>>,
}

impl Client {
    /// A client whose exchanges take at most `timeout` from the moment a connection is there.
    #[must_use]
    pub fn new(dialer: Dialer, timeout: Duration) -> Self {
        Self {
            dialer,
            timeout,
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Posts a body and waits for the answer. `may_send` is asked at the last moment before the request is handed to a
    /// connection; where it says no, nothing is sent.
    ///
    /// # Errors
    /// When there is no answer, then [`Failure`], which says what can have been sent.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection; what was written is not unsent by that.
    pub async fn post(
        &self,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
        may_send: impl Fn() -> bool,
    ) -> Result<Answer, Failure> {
        let mut request = self.request(path, headers, body)?;
        // Connections that turn out to be closed hand the request back; each is tried once, then a new one is opened.
        loop {
            let mut sender = match self.take_idle() {
                Some(sender) => sender,
                None => self.connect().await?,
            };
            if !may_send() {
                return Err(Failure::NeverSent(
                    "the process was held up and the lease is ending".to_owned(),
                ));
            }
            let exchange = tokio::time::timeout(self.timeout, async {
                let response = sender.try_send_request(request).await;
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
                    return Err(Failure::MaybeSent(why));
                }
                Ok(Ok(Ok(answer))) => {
                    self.keep(sender);
                    return Ok(answer);
                }
                Ok(Ok(Err(why))) => return Err(Failure::MaybeSent(why)),
                Ok(Err(mut refused)) => match refused.take_message() {
                    // Handed back before its first byte was written.
                    Some(unsent) => request = unsent,
                    None => {
                        let why = chain(&refused.into_error());
                        return Err(Failure::MaybeSent(format!(
                            "{} broke off: {why}",
                            self.dialer.target()
                        )));
                    }
                },
            }
        }
    }

    fn request(&self, path: &str, headers: &HeaderMap, body: Bytes) -> Result<Request<Full<Bytes>>, Failure> {
        let target = self.dialer.target();
        let mut request = Request::post(format!("{}{path}", target.base_path))
            .header(http::header::HOST, &target.authority)
            .body(Full::new(body))
            .map_err(|error| {
                Failure::NeverSent(format!("the request to {target} cannot be built: {error}"))
            })?;
        request
            .headers_mut()
            .extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        Ok(request)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let stream = self.dialer.dial().await.map_err(Failure::NeverSent)?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(64 * 1024)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Failure::NeverSent(format!("{}: {}", self.dialer.target(), chain(&error))))?;
        tokio::spawn(async move {
            // Whoever waits on this connection is told; nobody else needs to know.
            if let Err(error) = connection.await {
                tracing::debug!(error = chain(&error), "an upstream connection ended");
            }
        });
        Ok(sender)
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
    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle();
        idle.retain(|kept| !kept.sender.is_closed() && kept.since.elapsed() < IDLE);
        let at = idle.iter().rposition(|kept| kept.sender.is_ready())?;
        Some(idle.swap_remove(at).sender)
    }

    fn keep(&self, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle();
        if !sender.is_closed() && idle.len() < MAX_IDLE {
            idle.push(Idle {
                sender,
                since: Instant::now(),
            });
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
