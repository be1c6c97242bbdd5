//! Upgrades (WebSocket): asked for on the caller's behalf, and tunnelled only after the backend has said 101.

use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::{Request, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

/// The protocol that a request asks to change to.
pub(super) fn wanted<B>(request: &Request<B>) -> Option<HeaderValue> {
    let asks = request
        .headers()
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|option| option.trim().eq_ignore_ascii_case("upgrade"));
    let protocol = request.headers().get(UPGRADE)?;
    // The sidecar speaks HTTP/1.1 to the backend: an upgrade to another HTTP would go past it.
    let is_http2 = protocol
        .to_str()
        .is_ok_and(|protocol| protocol.to_ascii_lowercase().contains("h2c"));
    (asks && !is_http2 && request.version() == Version::HTTP_11).then(|| protocol.clone())
}

pub(super) fn ask_for(headers: &mut HeaderMap, protocol: &HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol.clone());
}

/// Copies both ways until both ends have finished, or one breaks.
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
