//! The main port's requests: how many, how they ended, how long they took, how many there are now.

use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::{Durations, seconds};
use crate::rules::handler::{SEND_PATH, STATUS_PATH};

/// What of the main port a request is for.
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
    /// Its path, where it is one of the contract's.
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

/// The families.
#[derive(Clone)]
pub struct HttpMetrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<EndpointLabels, Histogram, Durations>,
    in_flight: Family<EndpointLabels, Gauge>,
}

impl HttpMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(Durations),
            in_flight: Family::default(),
        };
        registry.register(
            "http_requests",
            "Requests to the main port, by HTTP status",
            metrics.requests.clone(),
        );
        registry.register_with_unit(
            "http_request_duration",
            "From a request's head to its answer's",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register(
            "http_requests_in_flight",
            "Requests that are not answered yet",
            metrics.in_flight.clone(),
        );
        metrics
    }

    /// A request has come; it is in flight until the guard is dropped.
    #[must_use]
    pub fn begun(&self, endpoint: Endpoint) -> InFlight {
        let gauge = self.in_flight.get_or_create_owned(&endpoint.labels());
        gauge.inc();
        InFlight(gauge)
    }

    /// A request was answered.
    pub fn answered(&self, endpoint: Endpoint, status: StatusCode, took: Duration) {
        let labels = endpoint.labels();
        let of_status = RequestLabels {
            endpoint: labels.endpoint,
            code: status.as_u16(),
        };
        self.requests.get_or_create(&of_status).inc();
        self.durations.get_or_create(&labels).observe(seconds(took));
    }
}

/// A request in flight.
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
