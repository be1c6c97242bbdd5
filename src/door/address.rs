//! `allow_from`: from which addresses calls are taken. 403 otherwise.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response, StatusCode};
use ipnet::IpNet;
use tower::{Layer, Service};

use super::peer::Peer;
use super::{Passed, Refuse, refused};
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
