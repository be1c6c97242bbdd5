//! The way of a request on the main port: every layer, in the order in which a request meets them, outermost first, as
//! [`Generation::new`] lists them with their reasons. At its end is the router: the contract's two paths to
//! [`contract`](super::contract_api), every other path to [`proxy`].
//!
//! No layer above the router reads a byte of the body. TLS and client certificates come before all of them, in the greeting.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::{BoxFuture, Either, FutureExt as _};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use ipnet::IpNet;
use tower::{Service, ServiceBuilder};
use tower_http::validate_request::ValidateRequestHeaderLayer;

use super::accept::{Connected, ListenerConfig};
use super::activity::ConnectionTimeouts;
use super::budget::{Budget, Means, Wanted};
use super::contract_api::{Call, Contract};
use super::layers::{allow_ip, metrics as requests, token};
use super::{tls, webhook};
use crate::config::{Config, IdentitySource};
use crate::http::drain::Drain;
use crate::http::peer::Peer;
use crate::http::responses::text_response;
use crate::payouts::{Payouts, Settings};
use crate::proxy::body::Body;
use crate::proxy::{self, Proxy, Tunnels, exchange};
use crate::server::layers::in_flight::InFlightPermits;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Tracer;

/// A service on the way of a request. It is always ready, and makes no request wait: it takes it or turns it away.
pub trait Serves<B>:
    Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send + 'static> + Clone
{
}

impl<S, B> Serves<B> for S where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send + 'static> + Clone
{
}

type Answering = BoxFuture<'static, Result<Response<Body>, Infallible>>;

/// The main port's service: for each request the stack that is in force when it comes. Cheap to clone.
#[derive(Clone)]
pub struct Stack {
    current: Arc<ArcSwap<Generation>>,
}

/// The stack as one configuration makes it. A request passes one generation from its first layer to its last.
pub struct Generation {
    layered: Box<dyn Fn(Request<Incoming>) -> Answering + Send + Sync>,
    trusted_proxies: Vec<IpNet>,
    listener: ListenerConfig,
    shutdown_timeouts: ShutdownTimeouts,
    budget: Budget,
    permits: Arc<InFlightPermits>,
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
pub struct ShutdownTimeouts {
    /// Between SIGTERM and the end of new calls.
    pub lame_duck: Duration,
    /// For running payouts after that.
    pub drain_timeout: Duration,
}

impl Generation {
    /// Builds the layers from a configuration and its settings. What has not changed since the generation `before` is
    /// taken over: the permits in flight, the connections to the backend.
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
            timeouts: exchange::ExchangeTimeouts {
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
                let proxy = Proxy::new(forwarding.clone(), &standing.tunnels);
                Some((forwarding, Arc::new(proxy)))
            }
        };
        let contract = Arc::new(Contract::new(
            payouts.under(Arc::clone(&settings)),
            server.max_body,
            server.body_timeout,
            access.sign_key.clone(),
        ));
        let permits = match before {
            Some(kept) if (kept.budget.calls, kept.budget.proxied) == (budget.calls, budget.proxied) => {
                Arc::clone(&kept.permits)
            }
            Some(_) | None => InFlightPermits::new(budget.calls, budget.proxied),
        };
        let tls = match (&server.tls, before.map(|before| before.listener.tls.as_ref())) {
            (Some(tls), None | Some(Some(_))) => Some(tls::acceptor(tls)?),
            // Whether there is TLS at all is the listener's nature, which changes with a restart only.
            (_, Some(kept)) => kept.cloned(),
            (None, None) => None,
        };
        let payouts = payouts.under(settings);
        let layered = ServiceBuilder::new()
            // Whoever answers, it is counted.
            .layer_fn(|inner| requests::before(inner, metrics.http.clone(), tracer.cloned()))
            // Before anything is spent on it.
            .layer_fn(|inner| Arc::clone(&permits).before(inner))
            // They have their own signature check; the platform's rules below are not theirs.
            .layer_fn(|inner| webhook::before(inner, payouts.clone()))
            // Before any secret is looked at.
            .layer(ValidateRequestHeaderLayer::custom(allow_ip::rule(
                access.allow_from.clone(),
                access.trusted_proxies.clone(),
            )))
            // Takes the token out of the request, so that nothing further in sees it.
            .layer(ValidateRequestHeaderLayer::custom(token::rule(
                access.token.clone(),
            )))
            .service(router(
                contract,
                proxy.as_ref().map(|(_, proxy)| Arc::clone(proxy)),
            ));
        Ok(Self {
            // In the one box that a request needs.
            layered: Box::new(move |request| layered.clone().call(request).boxed()),
            trusted_proxies: access.trusted_proxies.clone(),
            listener: ListenerConfig {
                timeouts: ConnectionTimeouts {
                    head: server.header_timeout,
                    idle: server.idle_timeout,
                },
                room: budget.connections,
                http2: server.http2,
                tls,
            },
            shutdown_timeouts: ShutdownTimeouts {
                lame_duck: server.lame_duck,
                drain_timeout: server.drain_timeout,
            },
            budget,
            permits,
            proxy,
        })
    }
}

impl Generation {
    /// How long the orderly end takes.
    #[must_use]
    pub fn shutdown_timeouts(&self) -> ShutdownTimeouts {
        self.shutdown_timeouts
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
    pub fn apply(&self, next: Generation) {
        self.current.store(Arc::new(next));
    }

    /// How connections are taken now.
    #[must_use]
    pub fn listener_config(&self) -> ListenerConfig {
        self.current.load().listener.clone()
    }

    /// The service of one connection.
    #[must_use]
    pub fn of(&self, connected: Connected) -> impl Serves<Incoming> + use<> {
        let current = Arc::clone(&self.current);
        let peer = Peer::new(connected.from.ip().to_canonical(), connected.is_tls);
        tower::service_fn(move |mut request: Request<Incoming>| {
            let generation = current.load();
            let mut trusted = generation.trusted_proxies.iter();
            let is_trusted = trusted.any(|range| range.contains(&peer.address));
            request.extensions_mut().insert(peer.clone().trusted(is_trusted));
            (generation.layered)(request)
        })
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

/// The contract's paths, or the proxy.
fn router(contract: Arc<Contract>, proxy: Option<Arc<Proxy>>) -> impl Serves<Incoming> {
    tower::service_fn(move |mut request: Request<Incoming>| {
        if let Some(call) = Call::of(request.uri().path()) {
            let contract = Arc::clone(&contract);
            // In a box of its own, so that a proxied request needs less room.
            let answer = async move { Ok(contract.answer(call, request).await) };
            return Either::Left(answer.boxed());
        }
        let (proxy, peer) = (proxy.clone(), request.extensions_mut().remove::<Peer>());
        Either::Right(async move {
            Ok(match (proxy, peer) {
                (Some(proxy), Some(peer)) => proxy.forward(request, &peer).await,
                _ => text_response(
                    StatusCode::NOT_FOUND,
                    "no such path here, and no [backend] to forward to",
                ),
            })
        })
    })
}
