//! Accepts connections and serves HTTP on each, within the limits, until the drain begins. It speaks HTTP/1.1, and
//! HTTP/2 if TLS negotiates it or the configuration allows callers to start with it.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::TryFutureExt as _;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::task::TaskTracker;
use tower::BoxError;

use super::activity::{Activity, ConnectionTimeouts, Cut, Noted, Watched};
use super::budget::{Room, SEND_BUFFER, Speaks, WINDOW};
use super::connections::{ConnectionSlot, ConnectionSlots, Full};
use super::contract_api::Call;
use super::control_frames::{Frames, Wider};
use super::streams::Streams;
use super::strict::{self, Strict};
use super::tls;
use crate::http::drain::{Drain, Phase};
use crate::http::http1::Http1Exchange;

/// How the listener treats a connection. [`serve`] asks for it anew for each connection, so a reload applies to the
/// next one.
#[derive(Clone)]
pub(crate) struct ListenerConfig {
    /// Timeouts of a connection's phases.
    pub timeouts: ConnectionTimeouts,
    /// What all connections together may hold; one more makes the idlest one give way.
    pub room: Room,
    /// Whether callers may start with HTTP/2 without TLS ("prior knowledge").
    pub http2: bool,
    /// TLS, if callers must use it.
    pub tls: Option<TlsAcceptor>,
}

/// The other end of an accepted connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connected {
    /// Its address and port.
    pub from: SocketAddr,
    /// Whether it uses TLS to us.
    pub is_tls: bool,
}

/// The most bytes of a request's head in HTTP/2, which counts 32 bytes more for each header. Source: RFC 9113, section
/// 6.5.2.
const MAX_HEADER_LIST_BYTES: u32 = 16 * 1024;
/// The most HTTP/2 requests that callers reset before we accepted them, and the most streams that we reset because of
/// errors. One more ends the connection.
const MAX_RESETS: usize = 20;
const MAX_ERRORS: usize = 128;
/// How many bytes of a response the kernel queues unsent for a caller that does not read it. Small, since a cgroup's
/// limit counts them. Bytes in transit to a caller that reads do not count.
const UNSENT_BYTES: u32 = 32 * 1024;
/// The idle time after which TCP keep-alive probes a connection: an upgraded one may be silent for hours.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How many connections the kernel queues for `accept`. A caller that finds the queue full tries again after a second.
const BACKLOG: u32 = 4096;
/// How long the accept loop waits before it tries again to get a slot.
const SLOT_PAUSE: Duration = Duration::from_millis(5);
/// The pause after `accept` failed, for example because file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Binds an address.
///
/// # Errors
/// The error if the address is in use or not this machine's; its text names the address.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener =
        listener(address).map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
    // Accepted sockets inherit these options from the listener.
    let socket = socket2::SockRef::from(&listener);
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE);
    if let Err(error) = socket.set_tcp_keepalive(&keepalive) {
        tracing::debug!(%error, "SO_KEEPALIVE was refused");
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = socket.set_tcp_notsent_lowat(UNSENT_BYTES) {
        tracing::debug!(%error, "TCP_NOTSENT_LOWAT was refused");
    }
    Ok(listener)
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // As tokio's own `bind` does: a restart must not wait for connections of the previous process.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves a listener until the drain begins, then lets every connection finish its requests. `service` makes the
/// service of a connection. That service must always be ready: it accepts or refuses a request, and makes none wait.
pub(crate) async fn serve<S, B, F>(
    listener: TcpListener,
    config: impl Fn() -> ListenerConfig,
    drain: Drain,
    service: F,
) where
    F: Fn(Connected) -> S,
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + From<Bytes> + Send + 'static,
{
    let connections = TaskTracker::new();
    let slots = Arc::new(ConnectionSlots::default());
    loop {
        let (stream, from) = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = drain.reached(Phase::Draining) => break,
        };
        let config = config();
        let is_tls = config.tls.is_some();
        // The protocol is not known yet; [`Wider`] pays for HTTP/2 later.
        let speaks = Speaks {
            tls: is_tls,
            http2: false,
        };
        let activity = Activity::new(is_tls || !config.http2);
        let slot = loop {
            match slots.take(&activity, config.room.cost(speaks), &config.room) {
                Ok(slot) => break Some(slot),
                // Meanwhile, later connections wait in the kernel's queue, in order of arrival.
                Err(Full::ForNow) => tokio::time::sleep(SLOT_PAUSE).await,
                Err(Full::OfPayouts) => break None,
            }
        };
        let Some(slot) = slot else {
            tracing::warn!(%from, connections = config.room.most, "a connection too many was closed: payouts wait on all others");
            continue;
        };
        let service = service(Connected { from, is_tls });
        connections.spawn(async move {
            let slot = Arc::new(slot);
            meet(stream, config, activity, &slot, service, from).await;
        });
    }
    drop(listener);
    slots.finish();
    connections.close();
    connections.wait().await;
}

/// Does the TLS handshake, if there is TLS, and serves a connection to its end.
async fn meet<S, B>(
    stream: TcpStream,
    config: ListenerConfig,
    activity: Activity,
    slot: &Arc<ConnectionSlot>,
    service: S,
    from: SocketAddr,
) where
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + From<Bytes> + Send + 'static,
{
    let ListenerConfig {
        timeouts,
        room,
        http2,
        tls,
    } = config;
    activity.looked_at();
    let is_tls = tls.is_some();
    let (stream, http2) = match tls {
        None => (Either::Left(stream), http2),
        Some(acceptor) => match greet(&acceptor, stream, timeouts.head, &activity).await {
            Ok((stream, http2)) => (Either::Right(stream), http2),
            Err(why) => return tracing::debug!(%from, why, "a caller's TLS greeting came to nothing"),
        },
    };
    let frames = http2.then(|| {
        let cost = |http2| room.cost(Speaks { tls: is_tls, http2 });
        let wider = Wider {
            slot: Arc::downgrade(slot),
            by: cost(true).saturating_sub(cost(false)),
            room,
        };
        Frames::new(activity.clone(), wider)
    });
    let exchange = Http1Exchange::default();
    let stream = Noted::new(stream, activity.clone());
    let stream = TokioIo::new(Strict::new(stream, frames, room.head, exchange.clone()));
    let counted = activity.clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let busy = counted.begin(Call::of(request.uri().path()).is_some());
        let answer = strict::answer(exchange.clone(), request, service.clone());
        answer.map_ok(move |response| busy.answered(response))
    });
    if http2 {
        let builder = either(Streams { idle: timeouts.idle }, &room);
        let connection = builder.serve_connection_with_upgrades(stream, service);
        let watched = Watched::new(connection, |it| it.graceful_shutdown(), activity, timeouts);
        Box::pin(watch(watched, from)).await;
    } else {
        let connection = http1(&room).serve_connection(stream, service).with_upgrades();
        let watched = Watched::new(connection, |it| it.graceful_shutdown(), activity, timeouts);
        Box::pin(watch(watched, from)).await;
    }
}

/// Waits until a connection ends, and logs why.
async fn watch<C, E>(connection: Watched<C>, from: SocketAddr)
where
    C: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    match connection.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%from, %error, "a connection ended early"),
        Err(Cut::Slow) => tracing::debug!(%from, "a slow or idle connection was closed"),
        Err(Cut::MadeRoom) => tracing::debug!(%from, "a connection made room for another"),
    }
}

/// Does the TLS handshake, within `timeout`, which is the timeout of a head. Returns the stream, and whether both
/// sides agreed on HTTP/2. The stream is boxed, so that plain connections do not reserve room for it.
async fn greet(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    timeout: Duration,
    activity: &Activity,
) -> Result<(Box<TlsStream<TcpStream>>, bool), String> {
    let greeting = acceptor.accept_with(stream, |session| session.set_buffer_limit(Some(SEND_BUFFER)));
    let greeted = tokio::select! {
        greeted = tokio::time::timeout(timeout, Box::pin(greeting)) => greeted,
        () = activity.must_go() => return Err("it made room for another".to_owned()),
    };
    let stream = greeted
        .map_err(|_| "it took too long".to_owned())?
        .map_err(|error| error.to_string())?;
    let http2 = tls::is_http2(&stream);
    if http2 {
        activity.has_no_heads_in_pieces();
    }
    Ok((Box::new(stream), http2))
}

fn http1(room: &Room) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // `activity` keeps this timeout, because it can tell an idle connection from a slow head.
        .header_read_timeout(None)
        .max_buf_size(room.head)
        .half_close(false);
    builder
}

/// The builder that tells HTTP/1 from HTTP/2 by the first bytes. This costs a read of its own, which connections that
/// can only be HTTP/1 avoid.
fn either(streams: Streams, room: &Room) -> auto::Builder<Streams> {
    let mut builder = auto::Builder::new(streams);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(room.head)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_ERRORS)
        .max_concurrent_streams(room.streams);
    builder
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Responses are small and complete, so waiting for more data only delays them.
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
