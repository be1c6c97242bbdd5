//! Every layer that a request on the main port passes, outermost first. [`Generation::new`] lists them with their
//! reasons. Innermost is the router: it sends the contract's two paths to [`contract_api`](super::contract_api), every
//! other path to [`proxy`].
//!
//! No layer above the router, except [`webhook`] on its own paths, reads a byte of the body. The TLS handshake, which
//! checks client certificates, comes before all layers.

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
use super::serves::Serves;
use super::{tls, webhook};
use crate::config::{Config, IdentitySource};
use crate::http::drain::Drain;
use crate::http::peer::Peer;
use crate::http::responses::text_response;
use crate::payouts::Payouts;
use crate::proxy::body::Body;
use crate::proxy::{self, Proxy, Tunnels, exchange};
use crate::server::layers::in_flight::InFlightPermits;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Tracer;

type Answering = BoxFuture<'static, Result<Response<Body>, Infallible>>;

/// The layers as one configuration makes them. A request passes all its layers in the same generation.
pub(crate) struct Generation {
    layered: Box<dyn Fn(Request<Incoming>) -> Answering + Send + Sync>,
    trusted_proxies: Vec<IpNet>,
    listener: ListenerConfig,
    shutdown_timeouts: ShutdownTimeouts,
    budget: Budget,
    permits: Arc<InFlightPermits>,
    proxy: Option<(proxy::Settings, Arc<Proxy>)>,
}

/// What every generation shares for the life of the process.
#[derive(Clone)]
pub(crate) struct Standing {
    /// Memory and descriptors of the process, measured once at the start. A configured `memory_limit` replaces the
    /// measured memory, so a changed one needs a restart.
    pub means: Means,
    /// All upgraded connections.
    pub tunnels: Tunnels,
}

impl Standing {
    /// Starts with these means; `drain` ends the upgraded connections.
    #[must_use]
    pub(crate) fn new(means: Means, drain: Drain) -> Self {
        Self {
            means,
            // Each generation sets its own limit.
            tunnels: Tunnels::new(0, drain),
        }
    }
}

/// How long the phases of a shutdown take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShutdownTimeouts {
    /// From SIGTERM until the port takes no new connections.
    pub lame_duck: Duration,
    /// After that, how long running payouts may take to finish.
    pub drain_timeout: Duration,
}

impl Generation {
    /// Builds the layers from a configuration; `payouts` has its settings already. It takes over from the generation
    /// `before` what has not changed: the permits in flight and the connections to the backend.
    ///
    /// # Errors
    /// The reason if the TLS material is unusable.
    pub(crate) fn new(
        config: &Config,
        payouts: &Payouts,
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
            payouts.clone(),
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
            // A reload can replace the TLS material, but only a restart can switch TLS on or off.
            (_, Some(kept)) => kept.cloned(),
            (None, None) => None,
        };
        let layered = ServiceBuilder::new()
            // First, so that it counts a request whichever layer answers it.
            .layer_fn(|inner| requests::before(inner, metrics.http.clone(), tracer.cloned()))
            // Before any layer spends work on the request.
            .layer_fn(|inner| Arc::clone(&permits).before(inner))
            // Notifications have their own signature check; the platform's rules below do not apply to them.
            .layer_fn(|inner| webhook::before(inner, payouts.clone()))
            // Before any layer looks at a secret.
            .layer(ValidateRequestHeaderLayer::custom(allow_ip::rule(
                access.allow_from.clone(),
                access.trusted_proxies.clone(),
            )))
            // Removes the token from the request, so that no inner layer sees it.
            .layer(ValidateRequestHeaderLayer::custom(token::rule(
                access.token.clone(),
            )))
            .service(router(
                contract,
                proxy.as_ref().map(|(_, proxy)| Arc::clone(proxy)),
            ));
        Ok(Self {
            // The one box that a request needs.
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

    /// How the listener treats new connections now.
    #[must_use]
    pub(crate) fn listener_config(&self) -> ListenerConfig {
        self.listener.clone()
    }

    /// How long the phases of a shutdown take.
    #[must_use]
    pub(crate) fn shutdown_timeouts(&self) -> ShutdownTimeouts {
        self.shutdown_timeouts
    }
}

/// The main port's service for one connection. It sends each request through the generation in force when the request
/// comes.
pub(crate) fn service<L: AsRef<Generation> + Send + Sync + 'static>(
    live: Arc<ArcSwap<L>>,
    connected: &Connected,
) -> impl Serves<Incoming> + use<L> {
    let peer = Peer::new(connected.from.ip().to_canonical(), connected.is_tls);
    tower::service_fn(move |mut request: Request<Incoming>| {
        let live = live.load();
        let generation: &Generation = live.as_ref().as_ref();
        let mut trusted = generation.trusted_proxies.iter();
        let is_trusted = trusted.any(|range| range.contains(&peer.address));
        request.extensions_mut().insert(peer.clone().trusted(is_trusted));
        (generation.layered)(request)
    })
}

impl Wanted {
    /// Reads the wanted limits from a configuration.
    #[must_use]
    pub(crate) fn of(config: &Config) -> Self {
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

/// Logs the limits, which settings were lowered, and a shortage of memory.
fn tell(budget: &Budget, wanted: Wanted) {
    let lowered = budget.lowered(wanted).join("; ");
    tracing::info!(%budget, lowered, "what connections may hold together");
    if let Some(shortage) = budget.shortage(wanted) {
        tracing::warn!(shortage, "there is too little memory");
    }
}

/// The router: the contract's paths to `contract`, all others to the proxy, if there is one.
fn router(contract: Arc<Contract>, proxy: Option<Arc<Proxy>>) -> impl Serves<Incoming> {
    tower::service_fn(move |mut request: Request<Incoming>| {
        if let Some(call) = Call::of(request.uri().path()) {
            let contract = Arc::clone(&contract);
            // A box of its own, so that a proxied request's future is smaller.
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
