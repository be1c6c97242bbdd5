//! How an exchange with an upstream ends: with an answer, or without one and with what can have been sent.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::breaker::Breaker;
use crate::telemetry::metrics::upstreams::{ExchangeOutcome, UpstreamMeter};
use payout_domain::outcome::Evidence;

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// Why there is no answer, and so what can have been sent. Each `String` is the reason, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The request could not be built. No byte of it was written.
    NotMade(String),
    /// The circuit breaker is open. No byte was written.
    CircuitOpen(String),
    /// No connection could be opened, or none took the request. No byte was written.
    Unreachable(String),
    /// This process was held up, and the lease is about to end. No byte was written.
    HeldUp,
    /// Bytes may have been written, and no whole answer came back.
    Silent(String),
}

impl Failure {
    /// Whether it is certain that no byte was written.
    #[must_use]
    pub(crate) fn is_unsent(&self) -> bool {
        match self {
            Self::NotMade(_) | Self::CircuitOpen(_) | Self::Unreachable(_) | Self::HeldUp => true,
            Self::Silent(_) => false,
        }
    }

    /// What the failure proves about an attempt.
    #[must_use]
    pub(crate) fn evidence(self) -> Evidence {
        if self.is_unsent() {
            Evidence::NeverSent { why: self.why() }
        } else {
            Evidence::NoAnswer { why: self.why() }
        }
    }

    /// The reason, for the operator.
    #[must_use]
    pub(crate) fn why(self) -> String {
        match self {
            Self::NotMade(why) | Self::CircuitOpen(why) | Self::Unreachable(why) | Self::Silent(why) => why,
            Self::HeldUp => "the process was held up and the lease is ending".to_owned(),
        }
    }
}

/// How an exchange ended, for metrics and spans.
pub(super) fn outcome(exchanged: &Result<Answer, Failure>) -> ExchangeOutcome {
    match exchanged {
        Ok(_) => ExchangeOutcome::Answered,
        Err(Failure::NotMade(_)) => ExchangeOutcome::NotMade,
        Err(Failure::CircuitOpen(_)) => ExchangeOutcome::CircuitOpen,
        Err(Failure::Unreachable(_)) => ExchangeOutcome::Unreachable,
        Err(Failure::HeldUp) => ExchangeOutcome::HeldUp,
        Err(Failure::Silent(_)) => ExchangeOutcome::Silent,
    }
}

/// What observes a client's exchanges: its circuit breaker and its metrics.
pub(super) struct Watched {
    pub(super) breaker: Breaker,
    pub(super) meter: Option<UpstreamMeter>,
}

impl Watched {
    /// An exchange has ended.
    pub(super) fn ended(&self, exchanged: &Result<Answer, Failure>, took: Duration) {
        match exchanged {
            Ok(_) => self.breaker.answered(),
            Err(Failure::Unreachable(why)) => self.breaker.unreachable(why),
            Err(Failure::Silent(why)) => self.breaker.failed(why),
            // These failures say nothing about the upstream.
            Err(Failure::NotMade(_) | Failure::CircuitOpen(_) | Failure::HeldUp) => {}
        }
        if let Some(meter) = &self.meter {
            meter.ended(outcome(exchanged), took);
        }
    }
}
