//! The main port's requests: how many, how they ended, how long they took, how many there are now.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::{Durations, seconds};
use payout_domain::handler::{SEND_PATH, STATUS_PATH};

/// The part of the main port that a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/pay/sendApiRedPack`.
    Send,
    /// `/pay/getApiRedPacketStatus`.
    Status,
    /// Every other path.
    Proxy,
}

impl Endpoint {
    /// Its path, if it is one of the contract's.
    #[must_use]
    pub fn path(self) -> Option<&'static str> {
        match self {
            Self::Send => Some(SEND_PATH),
            Self::Status => Some(STATUS_PATH),
            Self::Proxy => None,
        }
    }

    fn labels(self) -> EndpointLabels {
        let endpoint = match self {
            Self::Send => "send",
            Self::Status => "status",
            Self::Proxy => "proxy",
        };
        EndpointLabels { endpoint }
    }

    fn with(self, status: StatusCode) -> RequestLabels {
        RequestLabels {
            endpoint: self.labels().endpoint,
            code: status.as_u16(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    endpoint: &'static str,
    code: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    endpoint: &'static str,
}

/// The metric families. Cheap to clone, since each request clones them.
#[derive(Clone)]
pub struct HttpMetrics {
    shared: Arc<Shared>,
}

struct Shared {
    requests: Family<RequestLabels, Counter>,
    send: EndpointMeter,
    status: EndpointMeter,
    proxy: EndpointMeter,
}

/// The meters of one endpoint. Made once and kept.
struct EndpointMeter {
    ok: Counter,
    took: Histogram,
    in_flight: Gauge,
}

impl HttpMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let requests = Family::<RequestLabels, Counter>::default();
        let durations = Family::<EndpointLabels, Histogram, _>::new_with_constructor(Durations);
        let in_flight = Family::<EndpointLabels, Gauge>::default();
        registry.register(
            "http_requests",
            "Requests to the main port, by HTTP status",
            requests.clone(),
        );
        registry.register_with_unit(
            "http_request_duration",
            "From a request's head to its answer's",
            Unit::Seconds,
            durations.clone(),
        );
        registry.register(
            "http_requests_in_flight",
            "Requests that are not answered yet",
            in_flight.clone(),
        );
        let of = |endpoint: Endpoint| EndpointMeter {
            ok: requests.get_or_create_owned(&endpoint.with(StatusCode::OK)),
            took: durations.get_or_create_owned(&endpoint.labels()),
            in_flight: in_flight.get_or_create_owned(&endpoint.labels()),
        };
        let (send, status, proxy) = (of(Endpoint::Send), of(Endpoint::Status), of(Endpoint::Proxy));
        Self {
            shared: Arc::new(Shared {
                requests,
                send,
                status,
                proxy,
            }),
        }
    }

    fn of(&self, endpoint: Endpoint) -> &EndpointMeter {
        match endpoint {
            Endpoint::Send => &self.shared.send,
            Endpoint::Status => &self.shared.status,
            Endpoint::Proxy => &self.shared.proxy,
        }
    }

    /// A request has come; it is in flight until the guard is dropped.
    #[must_use]
    pub fn begun(&self, endpoint: Endpoint) -> InFlight {
        let gauge = self.of(endpoint).in_flight.clone();
        gauge.inc();
        InFlight(gauge)
    }

    /// A request was answered.
    pub fn answered(&self, endpoint: Endpoint, status: StatusCode, took: Duration) {
        let meter = self.of(endpoint);
        if status == StatusCode::OK {
            meter.ok.inc();
        } else {
            self.shared.requests.get_or_create(&endpoint.with(status)).inc();
        }
        meter.took.observe(seconds(took));
    }
}

/// A request that is not answered yet. Dropping it takes the request out of the gauge.
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
