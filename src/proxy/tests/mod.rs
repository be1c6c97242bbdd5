//! The proxy over real sockets, behind the product's own accept loop and in front of a backend that each test plays
//! byte by byte.
//!
//! [`heads`] covers the heads of requests and responses, [`smuggling`] requests that two readers could read
//! differently, [`bodies`] streaming, [`failures`] ends that go away, [`upgrades`] tunnels.

mod bodies;
mod failures;
mod heads;
mod smuggling;
mod upgrades;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::{Proxy, Settings, Tunnels, exchange};
use crate::http::drain::Drain;
use crate::http::peer::Peer;
use crate::server::accept::{Connected, ListenerConfig, serve};
use crate::server::activity::ConnectionTimeouts;
use crate::server::budget::Room;

/// No step takes longer, however busy the machine is.
const AT_MOST: Duration = Duration::from_secs(30);

async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(AT_MOST, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} took longer than {AT_MOST:?}"),
    }
}

/// A sidecar that only proxies. It stops with the test.
struct Sidecar {
    address: SocketAddr,
    task: AbortHandle,
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sidecar {
    async fn before(url: &str, is_trusted: bool) -> Self {
        Self::patient(url, is_trusted, Some(AT_MOST)).await
    }

    /// A sidecar with this timeout for a stalled backend.
    async fn patient(url: &str, is_trusted: bool, backend: Option<Duration>) -> Self {
        let settings = Settings {
            url: url.parse().unwrap(),
            timeouts: exchange::ExchangeTimeouts {
                backend,
                caller: AT_MOST,
            },
            read_ahead: 64 * 1024,
            most: 1000,
            upgraded: 10,
        };
        let proxy = Proxy::new(settings, &Tunnels::new(0, Drain::default()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let terms = || ListenerConfig {
            timeouts: ConnectionTimeouts {
                head: AT_MOST,
                idle: AT_MOST,
            },
            room: Room {
                most: 1000,
                bytes: u64::MAX,
                head: 64 * 1024,
                streams: 100,
            },
            http2: false,
            tls: None,
        };
        let service = move |connected: Connected| {
            let proxy = proxy.clone();
            let peer = Peer::new(connected.from.ip(), false).trusted(is_trusted);
            tower::service_fn(move |request| {
                let (proxy, peer) = (proxy.clone(), peer.clone());
                async move { Ok::<_, Infallible>(proxy.forward(request, &peer).await) }
            })
        };
        let task = tokio::spawn(serve(listener, terms, Drain::default(), service)).abort_handle();
        Self { address, task }
    }

    async fn call(&self) -> Wire {
        let stream = within("to connect", TcpStream::connect(self.address)).await;
        Wire::of(stream.unwrap())
    }
}

/// A backend that the test plays, and a sidecar in front of it.
async fn played() -> (Sidecar, Backend) {
    let backend = Backend::bind().await;
    (Sidecar::before(&backend.url(), false).await, backend)
}

struct Backend(TcpListener);

impl Backend {
    async fn bind() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    /// The next connection that the sidecar makes.
    async fn accept(&self) -> Wire {
        Wire::of(
            within("a connection to the backend", self.0.accept())
                .await
                .unwrap()
                .0,
        )
    }

    /// Whether the sidecar has opened no other connection so far.
    async fn is_untouched(&self) -> bool {
        futures_util::poll!(Box::pin(self.0.accept())).is_pending()
    }
}

/// One end of a connection, byte by byte.
struct Wire {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl Wire {
    fn of(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        let ahead = Vec::new();
        Self { stream, ahead }
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("to send", self.stream.write_all(bytes.as_ref()))
            .await
            .unwrap();
    }

    /// Reads until `end` has arrived. Returns everything up to and including it.
    async fn until(&mut self, end: &str) -> String {
        let find = |ahead: &[u8]| ahead.windows(end.len()).position(|part| part == end.as_bytes());
        let read = async {
            loop {
                if let Some(at) = find(&self.ahead) {
                    let taken: Vec<u8> = self.ahead.drain(..at + end.len()).collect();
                    return String::from_utf8(taken).unwrap();
                }
                let count = self.stream.read_buf(&mut self.ahead).await.unwrap();
                let so_far = String::from_utf8_lossy(&self.ahead);
                assert!(count > 0, "no {end:?} before the end: {so_far:?}");
            }
        };
        within("to read", read).await
    }

    /// Reads a message's head.
    async fn head(&mut self) -> Head {
        Head::of(&self.until("\r\n\r\n").await)
    }

    /// Reads until the other side closes. If the connection is reset, returns what came as `Err`.
    async fn rest(&mut self) -> Result<Vec<u8>, Vec<u8>> {
        let ended = within("the end", self.stream.read_to_end(&mut self.ahead)).await;
        let rest = std::mem::take(&mut self.ahead);
        match ended {
            Ok(_) => Ok(rest),
            Err(_) => Err(rest),
        }
    }

    /// Reads until the other side closes or resets.
    async fn rest_text(&mut self) -> String {
        let (Ok(rest) | Err(rest)) = self.rest().await;
        String::from_utf8(rest).unwrap()
    }
}

/// A message's head.
#[derive(Debug)]
struct Head {
    start: String,
    headers: Vec<(String, String)>,
}

impl Head {
    fn of(text: &str) -> Self {
        let mut lines = text.trim_end().split("\r\n");
        let start = lines.next().unwrap().to_owned();
        let headers = lines
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap();
                (name.to_ascii_lowercase(), value.trim().to_owned())
            })
            .collect();
        Self { start, headers }
    }

    /// The value of a header. Fails if the header is there twice.
    fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(given, _)| given == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert_eq!(values.next(), None, "{name} is there twice");
        value
    }
}
