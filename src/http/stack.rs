//! Every layer of the main port, in the order in which a request meets them, outermost first.
//!
//! 1. [`overload`](crate::door::overload): one request too many is turned away before anything is spent on it.
//! 2. [`address`](crate::door::address): who may reach us at all, before any secret is looked at.
//! 3. [`token`](crate::door::token): who is known; takes the token out of the request, so that nothing further in sees it.
//! 4. the fork: the contract's two paths to [`contract`](super::contract), every other path to [`proxy`](crate::proxy).
//!
//! No layer above the fork reads a byte of the body.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use ipnet::IpNet;
use tower::{Layer as _, Service};

use super::contract::{Call, Contract, refusal};
use crate::config::Config;
use crate::door::address::{Address, AddressLayer};
use crate::door::overload::{Overload, OverloadLayer};
use crate::door::token::{Token, TokenLayer};
use crate::payout::Payouts;
use crate::peer::Peer;
use crate::proxy::body::Body;
use crate::proxy::{Proxy, said};

/// The main port's service, without a peer yet. Built once, so that its limits are for all connections together.
#[derive(Clone)]
pub struct Stack {
    layered: Layered,
    trusted_proxies: Arc<[IpNet]>,
}

type Layered = Overload<Address<Token<Fork>>>;

impl Stack {
    /// Builds the layers from the configuration.
    ///
    /// # Errors
    /// When the backend's URL cannot be used, or TLS is asked for, then why.
    pub fn new(config: &Config, payouts: Payouts) -> anyhow::Result<Self> {
        if config.server.tls.is_some() {
            // A rule that is not kept is worse than none: TLS towards callers comes with a later version.
            anyhow::bail!("server.tls is not available yet: end TLS before the sidecar, and remove it");
        }
        let fork = Fork {
            contract: Contract::new(
                payouts,
                config.server.max_body,
                config.server.request_timeout,
                config.access.sign_key.clone(),
            ),
            proxy: config.backend.as_deref().map(Proxy::new).transpose()?,
        };
        let access = &config.access;
        let known = TokenLayer::new(access.token.clone(), refuse).layer(fork);
        let reachable =
            AddressLayer::new(access.allow_from.clone(), access.trusted_proxies.clone(), refuse).layer(known);
        let layered = OverloadLayer::new(config.server.max_in_flight, refuse).layer(reachable);
        Ok(Self {
            layered,
            trusted_proxies: access.trusted_proxies.clone().into(),
        })
    }

    /// The service of one connection.
    #[must_use]
    pub fn for_peer(&self, peer: SocketAddr) -> ForPeer {
        let address = peer.ip().to_canonical();
        let is_trusted = self.trusted_proxies.iter().any(|range| range.contains(&address));
        ForPeer {
            layered: self.layered.clone(),
            peer: Peer {
                address,
                is_tls: false,
                is_trusted,
            },
        }
    }
}

fn refuse(status: StatusCode, headers: &HeaderMap, text: &str) -> Response<Body> {
    refusal(status, headers, text).map(Body::full)
}

/// The stack for one connection: says whose requests they are.
#[derive(Clone)]
pub struct ForPeer {
    layered: Layered,
    peer: Peer,
}

impl Service<Request<Incoming>> for ForPeer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <Layered as Service<Request<Incoming>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.layered.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        self.layered.call(request)
    }
}

/// The contract's paths, or the proxy.
#[derive(Clone)]
pub struct Fork {
    contract: Contract,
    proxy: Option<Proxy>,
}

impl Service<Request<Incoming>> for Fork {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        match Call::of(request.uri().path()) {
            Some(call) => {
                let contract = self.contract.clone();
                Box::pin(async move { Ok(contract.answer(call, request).await.map(Body::full)) })
            }
            None => {
                let proxy = self.proxy.clone();
                Box::pin(async move {
                    let peer = request.extensions().get::<Peer>().copied();
                    Ok(match (proxy, peer) {
                        (Some(proxy), Some(peer)) => proxy.forward(request, &peer).await,
                        _ => said(
                            StatusCode::NOT_FOUND,
                            "no such path here, and no [backend] to forward to",
                        ),
                    })
                })
            }
        }
    }
}
