//! `allow_from`: from which addresses calls are taken. 403 otherwise. Document: specification, section 7, `[access]`.
//!
//! Whose address counts behind proxies is `peer.rs`.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response, StatusCode};
use ipnet::IpNet;
use tower::{Layer, Service};

use super::{Passed, Refuse, refused};
use crate::peer::Peer;
use crate::proxy::body::Body;

/// The rule.
#[derive(Clone)]
pub struct AddressLayer {
    rule: Arc<Rule>,
}

struct Rule {
    allow_from: Vec<IpNet>,
    trusted_proxies: Vec<IpNet>,
    refuse: Refuse,
}

impl AddressLayer {
    /// Takes calls from these ranges; from anywhere where there is none.
    #[must_use]
    pub fn new(allow_from: Vec<IpNet>, trusted_proxies: Vec<IpNet>, refuse: Refuse) -> Self {
        Self {
            rule: Arc::new(Rule {
                allow_from,
                trusted_proxies,
                refuse,
            }),
        }
    }
}

impl<S> Layer<S> for AddressLayer {
    type Service = Address<S>;
    fn layer(&self, inner: S) -> Address<S> {
        Address {
            inner,
            rule: Arc::clone(&self.rule),
        }
    }
}

/// A service behind the rule.
#[derive(Clone)]
pub struct Address<S> {
    inner: S,
    rule: Arc<Rule>,
}

impl<S, B> Service<Request<B>> for Address<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Passed<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let rule = &self.rule;
        let caller = request
            .extensions()
            .get::<Peer>()
            .and_then(|p| p.caller(request.headers(), &rule.trusted_proxies));
        let allowed = rule.allow_from.is_empty()
            || caller.is_some_and(|caller| rule.allow_from.iter().any(|range| range.contains(&caller)));
        if allowed {
            return Passed::Right(self.inner.call(request));
        }
        tracing::warn!(?caller, "a call from an address that is not allowed was refused");
        refused((rule.refuse)(
            StatusCode::FORBIDDEN,
            request.headers(),
            "the caller's address is not allowed",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::tests::{Passage, pass, plainly, text};

    fn layer(allow_from: &[&str]) -> AddressLayer {
        let ranges = allow_from.iter().map(|range| range.parse().unwrap()).collect();
        AddressLayer::new(ranges, vec!["10.0.0.0/8".parse().unwrap()], plainly)
    }

    /// Whether a call passes, from a peer, with this `X-Forwarded-For`.
    async fn passes(layer: &AddressLayer, peer: &str, forwarded_for: Option<&str>) -> bool {
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
        match pass(layer, request).await {
            Passage::Reached(_) => true,
            Passage::Refused(response) => {
                assert_eq!(response.status(), StatusCode::FORBIDDEN);
                assert_eq!(text(response).await, "403 the caller's address is not allowed");
                false
            }
        }
    }

    #[tokio::test]
    async fn only_listed_ranges_pass_and_without_a_list_anybody() {
        let listed = layer(&["192.0.2.0/24", "2001:db8::/32"]);
        for (peer, expected) in [
            ("192.0.2.1", true),
            ("2001:db8::1", true),
            ("192.0.3.1", false),
            ("2001:db9::1", false),
        ] {
            assert_eq!(passes(&listed, peer, None).await, expected, "{peer}");
            assert!(passes(&layer(&[]), peer, None).await, "{peer}, no list");
        }
    }

    #[tokio::test]
    async fn a_forwarded_address_counts_behind_trusted_proxies_only() {
        let listed = layer(&["192.0.2.0/24"]);
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
        assert!(passes(&layer(&[]), "10.0.0.1", Some("unknown")).await);
    }

    #[tokio::test]
    async fn a_request_without_a_peer_is_refused_where_there_is_a_list() {
        let refused = pass(&layer(&["0.0.0.0/0"]), Request::new(())).await;
        assert!(matches!(refused, Passage::Refused(_)));
    }
}
