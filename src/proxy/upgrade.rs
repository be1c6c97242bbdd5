//! Upgrades (WebSocket): asks the backend on the caller's behalf, and tunnels only after the backend responds 101. When
//! the drain begins, a close frame tells both ends of a WebSocket; other protocols may continue until the drain ends.

use std::io;
use std::sync::Arc;

use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::{Request, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use super::headers::elements;
use super::websocket::{Frames, going_away};
use crate::http::drain::{Drain, Phase};

/// Protocols that carry HTTP. A caller that switches to one could call the backend's payout paths without the ledger.
const CARRIERS: [&str; 5] = ["h2", "h2c", "http", "spdy", "tls"];

/// The protocol to which a request asks to switch. A request that asks for several, or for one that carries HTTP, is
/// forwarded as an ordinary one, which is always allowed.
pub(super) fn wanted<B>(request: &Request<B>) -> Option<HeaderValue> {
    let mut protocols = request.headers().get_all(UPGRADE).iter();
    let protocol = protocols.next().filter(|_| protocols.next().is_none())?;
    let mut options = elements(request.headers(), CONNECTION);
    let asks = options.any(|option| option.eq_ignore_ascii_case(b"upgrade"));
    (asks && request.version() == Version::HTTP_11 && is_tunnelled(protocol)).then(|| protocol.clone())
}

fn is_tunnelled(protocol: &HeaderValue) -> bool {
    let Ok(text) = protocol.to_str() else { return false };
    let name = text.split('/').next().unwrap_or_default().trim();
    !name.is_empty()
        && !text.contains(',')
        && !CARRIERS.iter().any(|carrier| name.eq_ignore_ascii_case(carrier))
}

/// Sets the headers that ask for the protocol, or that confirm the switch to it.
pub(super) fn announce(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Whether a response switches to the protocol that was asked for, and to no other.
pub(super) fn is_granted(asked: &HeaderValue, answer: &HeaderMap) -> bool {
    let mut granted = answer.get_all(UPGRADE).iter();
    match (granted.next(), granted.next()) {
        (Some(granted), None) => granted.as_bytes().eq_ignore_ascii_case(asked.as_bytes()),
        _ => false,
    }
}

/// All upgraded connections. Clones share them.
#[derive(Clone)]
pub(crate) struct Tunnels {
    permits: Arc<Semaphore>,
    drain: Drain,
    running: TaskTracker,
}

/// The permit of one upgraded connection. Dropping it frees the permit.
pub(super) struct Tunnel {
    _permit: OwnedSemaphorePermit,
    tunnels: Tunnels,
}

impl Tunnels {
    /// At most `most` at the same time, until the drain begins.
    #[must_use]
    pub(crate) fn new(most: usize, drain: Drain) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            drain,
            running: TaskTracker::new(),
        }
    }

    /// At most `most` new ones from now on. Open ones stay; they hold permits of the previous limit and do not count
    /// towards this one.
    #[must_use]
    pub(crate) fn limited(&self, most: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            ..self.clone()
        }
    }

    /// Takes a permit for one more.
    pub(super) fn open(&self) -> Option<Tunnel> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        Some(Tunnel {
            _permit: permit,
            tunnels: self.clone(),
        })
    }

    /// Waits until all have ended. Call it after the drain has begun, when no new ones start.
    pub(crate) async fn ended(&self) {
        self.running.close();
        self.running.wait().await;
    }
}

impl Tunnel {
    /// Copies both ways until both ends have finished; if one breaks, closes both. An end that has only finished
    /// sending still receives.
    pub(super) fn run(self, protocol: &HeaderValue, caller: OnUpgrade, backend: OnUpgrade) {
        let is_websocket = protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
        let running = self.tunnels.running.clone();
        running.spawn(async move {
            // Move the whole tunnel into the task, its permit included.
            let this = self;
            let (caller, backend) = match futures_util::future::try_join(caller, backend).await {
                Ok(ends) => ends,
                Err(error) => {
                    tracing::debug!(%error, "an upgrade did not come about");
                    return;
                }
            };
            let (mut caller, mut backend) = (TokioIo::new(caller), TokioIo::new(backend));
            let ended = if is_websocket {
                relay(caller, backend, &this.tunnels.drain).await
            } else {
                let copied = tokio::io::copy_bidirectional(&mut caller, &mut backend).await;
                copied.map(drop)
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "an upgraded connection broke");
            }
            drop(this);
        });
    }
}

/// Copies a WebSocket's frames both ways.
async fn relay<C, B>(caller: C, backend: B, drain: &Drain) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (from_caller, to_caller) = tokio::io::split(caller);
    let (from_backend, to_backend) = tokio::io::split(backend);
    // Only frames to a server are masked.
    let one = copy(from_caller, to_backend, going_away(Some(rand::random())), drain);
    let other = copy(from_backend, to_caller, going_away(None), drain);
    futures_util::future::try_join(one, other).await.map(drop)
}

/// How many bytes to read at once.
const BUFFER: usize = 8 * 1024;

/// Copies one direction to its end. When the drain begins, it sends `close` to the receiver after the current frame,
/// and nothing after that. It then reads from the sender until that closes too.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    close: Vec<u8>,
    drain: &Drain,
) -> io::Result<()> {
    let mut frames = Frames::default();
    let mut buffer = vec![0; BUFFER];
    while drain.phase() < Phase::Draining || frames.has_closed() {
        let read = tokio::select! {
            // First, because the other direction may already have sent its close frame, after which this end's frames
            // must not pass.
            biased;
            () = drain.reached(Phase::Draining), if !frames.has_closed() => break,
            read = from.read(&mut buffer) => read?,
        };
        let bytes = buffer.get(..read).unwrap_or_default();
        frames.read(bytes);
        to.write_all(bytes).await?;
        if read == 0 {
            return to.shutdown().await;
        }
    }
    let mut is_told = frames.has_closed();
    while !frames.is_between() {
        let read = from.read(&mut buffer).await?;
        let bytes = buffer.get(..read).unwrap_or_default();
        let passed = frames.read_frame(bytes);
        to.write_all(passed).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        if frames.is_between() {
            is_told = frames.has_closed();
            frames.read(bytes.get(passed.len()..).unwrap_or_default());
            break;
        }
    }
    if !is_told {
        to.write_all(&close).await?;
        to.flush().await?;
    }
    // Discard what is left, up to the sender's own close frame, after which it is done.
    while !frames.has_closed() {
        match from.read(&mut buffer).await? {
            0 => break,
            read => frames.read(buffer.get(..read).unwrap_or_default()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(version: Version, connection: &str, upgrades: &[&str]) -> bool {
        let mut request = Request::builder().version(version).header(CONNECTION, connection);
        for upgrade in upgrades {
            request = request.header(UPGRADE, *upgrade);
        }
        wanted(&request.body(()).unwrap()).is_some()
    }

    #[test]
    fn only_one_protocol_that_carries_no_http_is_asked_for() {
        let new = Version::HTTP_11;
        assert!(asks(new, "keep-alive, Upgrade", &["WebSocket"]));
        assert!(asks(new, "upgrade", &["echo/1"]));
        assert!(!asks(new, "keep-alive", &["websocket"]), "not in Connection");
        assert!(!asks(new, "upgrade", &[]));
        assert!(!asks(new, "upgrade", &["websocket", "echo"]));
        assert!(!asks(Version::HTTP_10, "upgrade", &["websocket"]));
        for carrier in [
            "h2c",
            "H2C",
            "HTTP/2.0",
            "tls/1.2",
            "SPDY/3.1",
            "h2c, websocket",
            "",
            "/",
        ] {
            assert!(!asks(new, "upgrade", &[carrier]), "{carrier}");
        }
    }
}
