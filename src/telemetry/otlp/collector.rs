//! One collector, and the calls to it: a unary gRPC call over HTTP/2, or a POST over HTTP/1.1, on a connection that is kept.
//! Documents: OTLP specification 1.x, sections "OTLP/gRPC" and "OTLP/HTTP"; gRPC over HTTP/2.
//!
//! Nothing that a collector says is repeated but codes: it may say a header back.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, TE, USER_AGENT};
use http::response::Parts;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Collected, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::proto::rejected;
use super::{Protocol, Settings};
use crate::telemetry::log::chain;
use crate::upstream::dial::{Dialer, TlsError};
use crate::upstream::target::{Target, TargetError};

/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(3);
/// How long an export may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of an answer that are read.
const MAX_ANSWER: usize = 64 * 1024;
/// The method that takes traces.
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Why a collector cannot be spoken to as it is configured.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    /// Its URL is none.
    #[error("the collector's URL cannot be used")]
    Url(#[from] TargetError),
    /// TLS cannot be set up.
    #[error("TLS towards the collector cannot be set up")]
    Tls(#[from] TlsError),
    /// A URL or a header cannot be sent.
    #[error("the request to the collector cannot be built")]
    Request(#[from] http::Error),
}

/// Why a batch was not taken.
#[derive(Debug)]
pub(super) struct Refusal {
    /// In words for the log.
    pub(super) why: String,
    /// Whether it may be taken if it comes again.
    pub(super) may_pass: bool,
}

impl Refusal {
    fn passing(why: String) -> Self {
        Self { why, may_pass: true }
    }
}

/// A collector.
pub(super) struct Collector {
    dialer: Dialer,
    protocol: Protocol,
    uri: Uri,
    headers: HeaderMap,
    connection: Option<Connection>,
}

enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// An answer, read to its end.
struct Answer {
    head: Parts,
    body: Collected<Bytes>,
}

impl Connection {
    async fn is_ready(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    async fn ask(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => sender.send_request(request).await,
            Self::Http2(sender) => sender.send_request(request).await,
        }
    }
}

impl Collector {
    /// Prepares the calls; nothing is connected yet.
    pub(super) fn new(settings: &Settings) -> Result<Self, Unusable> {
        let target = Target::parse(&settings.url)?;
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers {
            let mut value = HeaderValue::from_str(value.expose()).map_err(http::Error::from)?;
            // Shown by no `Debug` then, also not by those of the HTTP library.
            value.set_sensitive(true);
            headers.append(name.clone(), value);
        }
        let agent = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        let (media, version) = match settings.protocol {
            Protocol::Grpc => ("application/grpc", "h2"),
            Protocol::Http => ("application/x-protobuf", "http/1.1"),
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        let uri = match settings.protocol {
            Protocol::Grpc => {
                headers.insert(TE, HeaderValue::from_static("trailers"));
                let scheme = if target.tls { "https" } else { "http" };
                let path = format!("{}{EXPORT}", target.base_path);
                let uri = Uri::builder().scheme(scheme).authority(target.authority.as_str());
                uri.path_and_query(path).build()?
            }
            Protocol::Http => {
                let host = HeaderValue::from_str(&target.authority).map_err(http::Error::from)?;
                headers.insert(HOST, host);
                let path = match target.base_path.as_str() {
                    "" => "/",
                    path => path,
                };
                Uri::builder().path_and_query(path).build()?
            }
        };
        Ok(Self {
            dialer: Dialer::new(target, settings.ca_pem.as_deref(), None, CONNECT)?.offering(version),
            protocol: settings.protocol,
            uri,
            headers,
            connection: None,
        })
    }

    /// Sends one `ExportTraceServiceRequest`; returns how many of its spans the collector rejects.
    pub(super) async fn send(&mut self, message: &Bytes) -> Result<u64, Refusal> {
        let answer = match tokio::time::timeout(TIMEOUT, self.exchange(message)).await {
            Ok(answer) => answer.map_err(Refusal::passing)?,
            Err(_) => {
                let (target, seconds) = (self.dialer.target(), TIMEOUT.as_secs());
                let why = format!("{target} did not answer within {seconds} s");
                return Err(Refusal::passing(why));
            }
        };
        let taken = match self.protocol {
            Protocol::Grpc => grpc(answer),
            Protocol::Http => http(answer),
        };
        taken.map_err(|refusal| Refusal {
            why: format!("{} {}", self.dialer.target(), refusal.why),
            ..refusal
        })
    }

    /// On the connection that was kept, or on a new one. It is kept again once there is a whole answer.
    async fn exchange(&mut self, message: &Bytes) -> Result<Answer, String> {
        let kept = match self.connection.take() {
            Some(mut kept) => kept.is_ready().await.then_some(kept),
            None => None,
        };
        let mut connection = match kept {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        let mut request = Request::new(Full::new(match self.protocol {
            Protocol::Grpc => framed(message),
            Protocol::Http => message.clone(),
        }));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let failed = |why: String| format!("{}: {why}", self.dialer.target());
        let response = connection.ask(request).await;
        let (head, body) = response.map_err(|error| failed(chain(&error)))?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|error| failed(format!("the answer broke off, or is too long: {error}")))?;
        self.connection = Some(connection);
        Ok(Answer { head, body })
    }

    async fn connect(&self) -> Result<Connection, String> {
        let io = TokioIo::new(self.dialer.dial().await?);
        let failed = |error: hyper::Error| format!("{}: {}", self.dialer.target(), chain(&error));
        match self.protocol {
            Protocol::Grpc => {
                let made = http2::handshake(TokioExecutor::new(), io).await;
                let (sender, connection) = made.map_err(failed)?;
                tokio::spawn(async { drop(connection.await) });
                Ok(Connection::Http2(sender))
            }
            Protocol::Http => {
                let (sender, connection) = http1::handshake(io).await.map_err(failed)?;
                tokio::spawn(async { drop(connection.await) });
                Ok(Connection::Http1(sender))
            }
        }
    }
}

/// A gRPC message: a byte that says that it is not compressed, four of length, and itself.
fn framed(message: &Bytes) -> Bytes {
    let mut framed = BytesMut::with_capacity(message.len().saturating_add(5));
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.extend_from_slice(message);
    framed.freeze()
}

fn grpc(Answer { head, body }: Answer) -> Result<u64, Refusal> {
    if head.status != StatusCode::OK {
        return Err(of_http(head.status));
    }
    // An answer without a body may have its status in the head.
    let trailer = body.trailers().and_then(|trailers| trailers.get(GRPC_STATUS));
    let code = trailer.or_else(|| head.headers.get(GRPC_STATUS));
    match code.and_then(|code| code.to_str().ok()) {
        Some("0") => Ok(rejected(body.to_bytes().get(5..).unwrap_or_default())),
        Some(code) => Err(Refusal {
            why: format!("answered with the gRPC status {code}"),
            // CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS.
            may_pass: matches!(code, "1" | "4" | "8" | "10" | "11" | "14" | "15"),
        }),
        None => Err(Refusal {
            why: "answered without a gRPC status: is it a gRPC port?".to_owned(),
            may_pass: false,
        }),
    }
}

fn http(Answer { head, body }: Answer) -> Result<u64, Refusal> {
    if head.status.is_success() {
        return Ok(rejected(&body.to_bytes()));
    }
    Err(of_http(head.status))
}

fn of_http(status: StatusCode) -> Refusal {
    Refusal {
        why: format!("answered HTTP {}", status.as_u16()),
        may_pass: matches!(status.as_u16(), 429 | 502 | 503 | 504),
    }
}
