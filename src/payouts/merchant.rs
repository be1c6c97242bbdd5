//! A merchant's entry of the configuration as the flow uses it: how to compose its payouts, where they go, and what
//! its upstream promises about repeats.

use std::sync::Arc;
use std::time::Duration;

use super::ports::Upstream;
use super::watch::Contact;
use payout_domain::contract::send::RequestCredentials;
use payout_domain::merchant::MerchantKind;
use payout_domain::order::step::Policy;

/// A merchant's entry.
pub struct Merchant {
    /// How its payouts are composed.
    pub kind: MerchantKind,
    /// Where they go.
    pub upstream: Arc<dyn Upstream>,
    /// What the upstream promises about repeats.
    pub policy: Policy,
    /// `settle_only`: the sidecar asks about old orders here, but sends none.
    pub is_settle_only: bool,
    /// How long the upstream has answered without a break.
    pub contact: Contact,
    /// Whether the upstream gets the credentials in a request: `request_credentials` towards WeChat,
    /// `forward_credentials` towards a handler.
    pub takes_credentials: bool,
}

/// How much longer than the longest attempt a lease is: time for the record, and for a process that is held up.
const LEASE_MARGIN: Duration = Duration::from_secs(10);

impl Merchant {
    /// How long a claim of this merchant is held.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.upstream.longest().saturating_add(LEASE_MARGIN)
    }

    /// The request's credentials if this entry takes any, otherwise none.
    #[must_use]
    pub fn credentials(&self, given: &RequestCredentials) -> RequestCredentials {
        if self.takes_credentials {
            given.clone()
        } else {
            RequestCredentials::default()
        }
    }
}
