//! Accepts connections and serves HTTP on each, within limits, until the drain begins: HTTP/1.1, and HTTP/2 where TLS
//! agrees on it or the configuration lets callers begin with it.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::activity::{Activity, Counted, Noted, Patience, Watched};
use super::drain::{Drain, Phase};
use super::strict::{Framed, Opening, Strict, Wire};
use super::tls;

/// How connections are taken; asked for anew with each one, so that a reload holds for the next.
#[derive(Clone)]
pub struct Terms {
    /// How long a connection may take over what it is doing.
    pub patience: Patience,
    /// The most connections at the same time; one more is closed at once.
    pub max_connections: usize,
    /// Whether callers may begin with HTTP/2 without TLS ("prior knowledge").
    pub http2: bool,
    /// TLS, where callers must speak it.
    pub tls: Option<TlsAcceptor>,
}

/// Who has connected.
#[derive(Clone, Copy, Debug)]
pub struct Connected {
    /// Its address and port.
    pub from: SocketAddr,
    /// Whether it speaks TLS to us.
    pub is_tls: bool,
}

/// Which versions of HTTP a connection may speak.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Versions {
    Http1,
    Http2,
    Either,
}

impl Versions {
    fn opening(self) -> Opening {
        match self {
            Self::Http1 => Opening::Http1,
            Self::Http2 => Opening::Http2,
            Self::Either => Opening::Either,
        }
    }
}

/// The most bytes of a request's head.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// The same for HTTP/2, which counts 32 bytes more for each header. Source: RFC 9113, section 6.5.2.
const MAX_HEADER_LIST_BYTES: u32 = 16 * 1024;
/// Requests at the same time on one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;
/// The pause after `accept` failed, e.g. for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Binds an address.
///
/// # Errors
/// When it is taken or not ours, then the error with the address in its text.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
}

/// Serves a listener until the drain begins, then lets every connection finish its requests. `service` makes the service
/// of a connection.
pub async fn serve<S, B, F>(listener: TcpListener, terms: impl Fn() -> Terms, drain: Drain, service: F)
where
    F: Fn(Connected) -> S,
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + From<Bytes> + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let connections = TaskTracker::new();
    loop {
        let (stream, from) = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = drain.reached(Phase::Draining) => break,
        };
        let terms = terms();
        if connections.len() >= terms.max_connections {
            tracing::warn!(%from, max_connections = terms.max_connections, "a connection too many was closed");
            continue;
        }
        let is_tls = terms.tls.is_some();
        let service = service(Connected { from, is_tls });
        let drain = drain.clone();
        // Each way of conversing in a box: a plain connection would otherwise have the room that TLS and HTTP/2 need.
        connections.spawn(async move {
            let Terms {
                patience, http2, tls, ..
            } = terms;
            match tls {
                None => {
                    let versions = if http2 { Versions::Either } else { Versions::Http1 };
                    Box::pin(converse(stream, versions, patience, &drain, service, from)).await;
                }
                Some(acceptor) => {
                    // Callers that do not finish the greeting have as long as for a head.
                    match tokio::time::timeout(patience.head, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => {
                            let versions = if tls::is_http2(&stream) {
                                Versions::Http2
                            } else {
                                Versions::Http1
                            };
                            Box::pin(converse(stream, versions, patience, &drain, service, from)).await;
                        }
                        Ok(Err(error)) => tracing::debug!(%from, %error, "a caller's TLS was refused"),
                        Err(_) => tracing::debug!(%from, "a caller's TLS greeting took too long"),
                    }
                }
            }
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Serves one connection to its end.
async fn converse<T, S, B>(
    stream: T,
    versions: Versions,
    patience: Patience,
    drain: &Drain,
    service: S,
    from: SocketAddr,
) where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + From<Bytes> + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let activity = Activity::new(versions == Versions::Http1);
    let wire = Wire::default();
    let service = Counted::new(Framed::new(service, wire.clone()), activity.clone());
    let service = hyper_util::service::TowerToHyperService::new(service);
    let stream = Strict::new(
        Noted::new(stream, activity.clone()),
        versions.opening(),
        MAX_HEAD_BYTES,
        wire,
    );
    let stream = TokioIo::new(stream);
    match versions {
        Versions::Http1 => {
            let connection = http1().serve_connection(stream, service).with_upgrades();
            let watched = Watched::new(connection, activity, patience);
            Box::pin(watch(
                watched,
                |connection| connection.graceful_shutdown(),
                drain,
                from,
            ))
            .await;
        }
        Versions::Http2 => {
            let connection = http2().serve_connection(stream, service);
            let watched = Watched::new(connection, activity, patience);
            Box::pin(watch(
                watched,
                |connection| connection.graceful_shutdown(),
                drain,
                from,
            ))
            .await;
        }
        Versions::Either => {
            let builder = either();
            let connection = builder.serve_connection_with_upgrades(stream, service);
            let watched = Watched::new(connection, activity, patience);
            Box::pin(watch(
                watched,
                |connection| connection.graceful_shutdown(),
                drain,
                from,
            ))
            .await;
        }
    }
}

/// Waits for a connection's end, asks for it when the drain begins, and cuts off what takes too long.
async fn watch<C, E>(connection: Watched<C>, end: impl FnOnce(Pin<&mut C>), drain: &Drain, from: SocketAddr)
where
    C: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = drain.reached(Phase::Draining) => {
            end(connection.as_mut().connection());
            connection.await
        }
    };
    match ended {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(%from, %error, "a connection ended early"),
        None => tracing::debug!(%from, "a slow or idle connection was closed"),
    }
}

fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // `activity` keeps the time, and knows an idle connection from a slow head.
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD_BYTES)
        .half_close(false);
    builder
}

fn http2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        .max_concurrent_streams(MAX_STREAMS);
    builder
}

/// Looks at the first bytes. It cannot be told to take one version only (hyper-util says so), so those that may speak but
/// one have builders of their own.
fn either() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD_BYTES)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        .max_concurrent_streams(MAX_STREAMS);
    builder
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are small and complete: there is nothing to wait for.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%peer, %error, "TCP_NODELAY was refused");
                }
                return (stream, peer);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
