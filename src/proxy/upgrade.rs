//! Upgrades (WebSocket): asked for on the caller's behalf, and tunnelled only after the backend has said 101.

use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::{Request, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

/// Protocols that carry HTTP: whoever changes to one could call the backend's payout paths past the ledger.
const CARRIERS: [&str; 5] = ["h2", "h2c", "http", "spdy", "tls"];

/// The protocol that a request asks to change to. A request that asks for several, or for one that carries HTTP, is
/// forwarded as an ordinary one, which is always allowed.
pub(super) fn wanted<B>(request: &Request<B>) -> Option<HeaderValue> {
    let asks = request
        .headers()
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
    let mut protocols = request.headers().get_all(UPGRADE).iter();
    let protocol = protocols.next().filter(|_| protocols.next().is_none())?;
    (asks && request.version() == Version::HTTP_11 && is_tunnelled(protocol)).then(|| protocol.clone())
}

fn is_tunnelled(protocol: &HeaderValue) -> bool {
    let Ok(text) = protocol.to_str() else { return false };
    let name = text.split('/').next().unwrap_or_default().trim();
    !name.is_empty()
        && !text.contains(',')
        && !CARRIERS.iter().any(|carrier| name.eq_ignore_ascii_case(carrier))
}

/// Asks for the protocol, or says that it was changed to.
pub(super) fn announce(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Whether an answer changes to the protocol that was asked for, and to no other.
pub(super) fn is_granted(asked: &HeaderValue, answer: &HeaderMap) -> bool {
    let mut granted = answer.get_all(UPGRADE).iter();
    match (granted.next(), granted.next()) {
        (Some(granted), None) => granted.as_bytes().eq_ignore_ascii_case(asked.as_bytes()),
        _ => false,
    }
}

/// Copies both ways until both ends have finished; where one breaks, both are closed. An end that has only finished
/// sending still receives.
pub(super) async fn tunnel(caller: OnUpgrade, backend: OnUpgrade) {
    let (caller, backend) = match futures_util::future::try_join(caller, backend).await {
        Ok(ends) => ends,
        Err(error) => {
            tracing::debug!(%error, "an upgrade did not come about");
            return;
        }
    };
    let (mut caller, mut backend) = (TokioIo::new(caller), TokioIo::new(backend));
    if let Err(error) = tokio::io::copy_bidirectional(&mut caller, &mut backend).await {
        tracing::debug!(%error, "an upgraded connection broke");
    }
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
