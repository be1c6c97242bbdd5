//! Every layer of the main port, in the order in which a request meets them, outermost first.
//!
//! 1. [`observe`](super::observe): counts, times and traces, whoever answers.
//! 2. [`overload`](crate::door::overload): one request too many is turned away before anything is spent on it.
//! 3. [`notify`](super::notify): WeChat Pay's notifications leave here for their own signature check; the platform's rules
//!    below are not theirs.
//! 4. [`address`](crate::door::address): who may reach us at all, before any secret is looked at.
//! 5. [`token`](crate::door::token): who is known; takes the token out of the request, so that nothing further in sees it.
//! 6. the fork: the contract's two paths to [`contract`](super::contract), every other path to [`proxy`].
//!
//! No layer above the fork reads a byte of the body. TLS and client certificates come before all of them, in the greeting.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use ipnet::IpNet;
use tower::{Layer as _, Service};

use super::activity::Patience;
use super::budget::{Budget, Means, Wanted};
use super::contract::{Call, Contract, refusal};
use super::drain::Drain;
use super::listen::{Connected, Terms};
use super::notify::Notifications;
use super::observe::{Observe, ObserveLayer};
use super::tls;
use crate::config::{Config, IdentitySource};
use crate::door::address::{Address, AddressLayer};
use crate::door::overload::{Overload, OverloadLayer};
use crate::door::token::{Token, TokenLayer};
use crate::payout::{Payouts, Settings};
use crate::peer::Peer;
use crate::proxy::body::Body;
use crate::proxy::{self, exchange};
use crate::proxy::{Proxy, Tunnels, said};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otlp::Tracer;

/// The main port's service: for each request the stack that is in force when it comes. Cheap to clone.
#[derive(Clone)]
pub struct Stack {
    current: Arc<ArcSwap<Generation>>,
}

/// The stack as one configuration makes it. A request passes one generation from its first layer to its last.
pub struct Generation {
    layered: Layered,
    trusted_proxies: Vec<IpNet>,
    terms: Terms,
    pauses: Pauses,
    budget: Budget,
    overload: OverloadLayer,
    proxy: Option<(proxy::Settings, Arc<Proxy>)>,
}

/// What every generation shares for as long as the process lives.
#[derive(Clone)]
pub struct Standing {
    /// What the process has, but for what the configuration says of it.
    pub means: Means,
    /// All upgraded connections.
    pub tunnels: Tunnels,
}

impl Standing {
    /// With these means, until the drain begins.
    #[must_use]
    pub fn new(means: Means, drain: Drain) -> Self {
        Self {
            means,
            // Each generation sets its own number.
            tunnels: Tunnels::new(0, drain),
        }
    }
}

/// How long the orderly end takes.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    /// Between SIGTERM and the end of new calls.
    pub lame_duck: Duration,
    /// For running payouts after that.
    pub drain_timeout: Duration,
}

type Layered = Observe<Overload<Notifications<Address<Token<Fork>>>>>;

impl Generation {
    /// Builds the layers from a configuration and its settings. What has not changed since the generation `before` is
    /// taken over: the places in flight, the connections to the backend.
    ///
    /// # Errors
    /// When the backend's URL or the TLS material cannot be used, then why.
    pub fn new(
        config: &Config,
        payouts: &Payouts,
        settings: Arc<Settings>,
        metrics: &Metrics,
        tracer: Option<&Tracer>,
        standing: &Standing,
        before: Option<&Self>,
    ) -> anyhow::Result<Self> {
        let (server, access) = (&config.server, &config.access);
        let wanted = Wanted::of(config);
        let budget = Budget::of(standing.means, wanted);
        if before.is_none_or(|before| before.budget != budget) {
            tell(&budget, wanted);
        }
        let forwarding = config.backend.as_ref().map(|backend| proxy::Settings {
            url: backend.url.clone(),
            patience: exchange::Patience {
                backend: backend.timeout,
                caller: server.idle_timeout,
            },
            read_ahead: budget.read_ahead,
            most: budget.proxied,
            upgraded: budget.upgraded,
        });
        let proxy = match (forwarding, before.and_then(|before| before.proxy.as_ref())) {
            (None, _) => None,
            (Some(forwarding), Some(kept)) if kept.0 == forwarding => Some(kept.clone()),
            (Some(forwarding), _) => {
                let proxy = Proxy::new(forwarding.clone(), &standing.tunnels)?;
                Some((forwarding, Arc::new(proxy)))
            }
        };
        let fork = Fork {
            contract: Arc::new(Contract::new(
                payouts.under(Arc::clone(&settings)),
                server.max_body,
                server.body_timeout,
                access.sign_key.clone(),
            )),
            proxy: proxy.as_ref().map(|(_, proxy)| Arc::clone(proxy)),
        };
        let overload = match before {
            Some(kept) if (kept.budget.calls, kept.budget.proxied) == (budget.calls, budget.proxied) => {
                kept.overload.clone()
            }
            Some(_) | None => OverloadLayer::new(budget.calls, budget.proxied, refuse),
        };
        let tls = match (&server.tls, before.map(|before| before.terms.tls.as_ref())) {
            (Some(tls), None | Some(Some(_))) => Some(tls::acceptor(tls)?),
            // Whether there is TLS at all is the listener's nature, which changes with a restart only.
            (_, Some(kept)) => kept.cloned(),
            (None, None) => None,
        };
        let known = TokenLayer::new(access.token.clone(), refuse).layer(fork);
        let reachable =
            AddressLayer::new(access.allow_from.clone(), access.trusted_proxies.clone(), refuse).layer(known);
        let apart = Notifications::before(reachable, payouts.under(settings));
        Ok(Self {
            layered: ObserveLayer::new(metrics.http.clone(), tracer.cloned()).layer(overload.layer(apart)),
            trusted_proxies: access.trusted_proxies.clone(),
            terms: Terms {
                patience: Patience {
                    head: server.header_timeout,
                    idle: server.idle_timeout,
                },
                room: budget.connections,
                http2: server.http2,
                tls,
            },
            pauses: Pauses {
                lame_duck: server.lame_duck,
                drain_timeout: server.drain_timeout,
            },
            budget,
            overload,
            proxy,
        })
    }
}

impl Generation {
    /// How long the orderly end takes.
    #[must_use]
    pub fn pauses(&self) -> Pauses {
        self.pauses
    }
}

impl Stack {
    /// Serves by this generation until another one is put in force.
    #[must_use]
    pub fn new(first: Generation) -> Self {
        Self {
            current: Arc::new(ArcSwap::from_pointee(first)),
        }
    }

    /// The generation in force.
    #[must_use]
    pub fn current(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// Puts another generation in force for the requests and connections that begin from now on.
    pub fn put_in_force(&self, next: Generation) {
        self.current.store(Arc::new(next));
    }

    /// How connections are taken now.
    #[must_use]
    pub fn terms(&self) -> Terms {
        self.current.load().terms.clone()
    }

    /// The service of one connection.
    #[must_use]
    pub fn of(&self, connected: Connected) -> OfConnection {
        OfConnection {
            stack: self.clone(),
            peer: Peer::new(connected.from.ip().to_canonical(), connected.is_tls),
        }
    }
}

impl Wanted {
    /// What a configuration asks for.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let cached = match config.identity {
            IdentitySource::Redis { cache_entries, .. } => cache_entries,
            IdentitySource::File { .. } => 0,
        };
        Self {
            connections: config.server.max_connections,
            in_flight: config.server.max_in_flight,
            body: config.server.max_body,
            cached,
        }
    }
}

/// Says once what there is room for, and what of the configuration cannot be had.
fn tell(budget: &Budget, wanted: Wanted) {
    let lowered = budget.lowered(wanted).join("; ");
    tracing::info!(%budget, lowered, "what connections may hold together");
    if let Some(shortage) = budget.shortage(wanted) {
        tracing::warn!(shortage, "there is too little memory");
    }
}

fn refuse(status: StatusCode, headers: &HeaderMap, text: &str) -> Response<Body> {
    refusal(status, headers, text).map(Body::full)
}

/// The stack for one connection: says whose requests they are.
#[derive(Clone)]
pub struct OfConnection {
    stack: Stack,
    peer: Peer,
}

impl Service<Request<Incoming>> for OfConnection {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <Layered as Service<Request<Incoming>>>::Future;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // No layer ever makes a request wait: it is taken or turned away.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        let generation = self.stack.current.load();
        let mut trusted = generation.trusted_proxies.iter();
        let is_trusted = trusted.any(|range| range.contains(&self.peer.address));
        request
            .extensions_mut()
            .insert(self.peer.clone().trusted(is_trusted));
        generation.layered.clone().call(request)
    }
}

/// The contract's paths, or the proxy.
#[derive(Clone)]
pub struct Fork {
    contract: Arc<Contract>,
    proxy: Option<Arc<Proxy>>,
}

impl Service<Request<Incoming>> for Fork {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        match Call::of(request.uri().path()) {
            Some(call) => {
                let contract = Arc::clone(&self.contract);
                Box::pin(async move { Ok(contract.answer(call, request).await.map(Body::full)) })
            }
            None => {
                let (proxy, peer) = (self.proxy.clone(), request.extensions_mut().remove::<Peer>());
                Box::pin(async move {
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
