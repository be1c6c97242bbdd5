//! `allow_from`: the address ranges that may call; other callers get 403. The setting is in `[access]` in
//! `config.toml`.
//!
//! `peer.rs` decides which address counts behind proxies.

use std::sync::Arc;

use http::{Request, Response};
use ipnet::IpNet;

use crate::http::peer::Peer;
use crate::http::responses::{NotAdmitted, refusal};
use crate::proxy::body::Body;

/// The rule: accepts calls from the ranges in `allow_from`, or from any address if the list is empty.
#[expect(
    clippy::result_large_err,
    reason = "a refusal is a whole answer to the library, too"
)]
pub(crate) fn rule<B>(
    allow_from: Vec<IpNet>,
    trusted_proxies: Vec<IpNet>,
) -> impl FnMut(&mut Request<B>) -> Result<(), Response<Body>> + Clone {
    let ranges = Arc::new((allow_from, trusted_proxies));
    move |request| {
        let (allow_from, trusted_proxies) = &*ranges;
        let peer = request.extensions().get::<Peer>();
        let caller = peer.and_then(|peer| peer.caller(request.headers(), trusted_proxies));
        let is_in = |caller| allow_from.iter().any(|range| range.contains(&caller));
        if allow_from.is_empty() || caller.is_some_and(is_in) {
            return Ok(());
        }
        tracing::warn!(?caller, "a call from an address that is not allowed was refused");
        Err(refusal(request.headers(), &NotAdmitted::Address))
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::server::layers::tests::text;

    /// Whether a call from `peer` with this `X-Forwarded-For` passes when only `allow_from` may call.
    async fn passes(allow_from: &[&str], peer: &str, forwarded_for: Option<&str>) -> bool {
        let address: std::net::IpAddr = peer.parse().unwrap();
        let mut request = Request::new(());
        request
            .extensions_mut()
            .insert(Peer::new(address, false).trusted(peer.starts_with("10.")));
        if let Some(forwarded_for) = forwarded_for {
            request
                .headers_mut()
                .insert("x-forwarded-for", forwarded_for.parse().unwrap());
        }
        match check(allow_from, &mut request) {
            Ok(()) => true,
            Err(response) => {
                assert_eq!(response.status(), StatusCode::FORBIDDEN);
                let text = text(response).await;
                assert!(
                    text.contains("请求未受理: 调用方的地址不在允许的范围内"),
                    "{text}"
                );
                false
            }
        }
    }

    #[expect(clippy::result_large_err, reason = "as the rule")]
    fn check(allow_from: &[&str], request: &mut Request<()>) -> Result<(), Response<Body>> {
        let ranges = allow_from.iter().map(|range| range.parse().unwrap()).collect();
        rule(ranges, vec!["10.0.0.0/8".parse().unwrap()])(request)
    }

    #[tokio::test]
    async fn only_listed_ranges_pass_and_without_a_list_anybody() {
        let listed = ["192.0.2.0/24", "2001:db8::/32"];
        for (peer, expected) in [
            ("192.0.2.1", true),
            ("2001:db8::1", true),
            ("192.0.3.1", false),
            ("2001:db9::1", false),
        ] {
            assert_eq!(passes(&listed, peer, None).await, expected, "{peer}");
            assert!(passes(&[], peer, None).await, "{peer}, no list");
        }
    }

    #[tokio::test]
    async fn a_forwarded_address_counts_behind_trusted_proxies_only() {
        let listed = ["192.0.2.0/24"];
        assert!(passes(&listed, "10.0.0.1", Some("192.0.2.7")).await);
        assert!(
            !passes(&listed, "10.0.0.1", Some("192.0.2.7, 198.51.100.1")).await,
            "spoofed"
        );
        assert!(
            !passes(&listed, "198.51.100.1", Some("192.0.2.7")).await,
            "no proxy"
        );
        assert!(
            !passes(&listed, "10.0.0.1", Some("unknown")).await,
            "nobody knows whose"
        );
        assert!(
            !passes(&listed, "10.0.0.1", None).await,
            "the proxy itself is not listed"
        );
        assert!(passes(&[], "10.0.0.1", Some("unknown")).await);
    }

    #[test]
    fn a_request_without_a_peer_is_refused_where_there_is_a_list() {
        assert!(check(&["0.0.0.0/0"], &mut Request::new(())).is_err());
    }
}
