//! The flow of one payout: identify, claim, dispatch, weigh, record.
//!
//! [`ports`] says what the flow needs from the world. [`send`] is the one page that a request to pay travels through,
//! [`status`] answers how a payout stands, [`settle`] asks about unsettled orders in the background, [`notify`] takes what an
//! upstream tells by itself; all of them end in [`record`], where the state machine's decision is written. [`claim`] is the
//! key to an attempt, [`merchant`] an entry of the configuration as the flow uses it, [`waiters`] lets repeats wait,
//! [`audit`] tells what changed.
//!
//! The caller's connection may go away at any time. So a payout runs in a task of [`Payouts::tasks`] from before its
//! claim to its record, and the connection only waits for the reply.

pub mod ports;

pub mod claim;

pub mod merchant;

pub mod reply;

pub mod operator;

pub mod notify;

mod record;

pub mod send;

pub mod settle;

pub mod status;

mod waiters;

mod audit;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::task::TaskTracker;

use self::merchant::Merchant;
use self::ports::{Identity, Ledger};
use self::waiters::Waiters;
use crate::chance::Chance;
use crate::clock::Clock;
use crate::rules::contract::answer::Disclosure;
use crate::rules::limits::Limits;
use crate::rules::route::MerchantPattern;
use crate::rules::term::{MchId, WxAppId};

/// What of the configuration the flow uses; replaced as a whole on a reload.
pub struct Settings {
    /// The merchants' entries.
    pub merchants: Vec<(MerchantPattern, Arc<Merchant>)>,
    /// `[client_ip]`: the address that is sent on, or `None` to keep the platform's.
    pub client_ip: Option<IpAddr>,
    /// `[limits]`.
    pub limits: Limits,
    /// `[answer]`.
    pub disclosure: Disclosure,
    /// `[server] request_timeout`: how long a caller waits.
    pub request_timeout: Duration,
}

impl Settings {
    /// Whether any entry's notifications come to this path.
    #[must_use]
    pub fn is_notified_at(&self, path: &str) -> bool {
        self.merchants
            .iter()
            .any(|(_, merchant)| merchant.upstream.notify_path() == Some(path))
    }

    /// The entries whose upstream sends its notifications to this path.
    #[must_use]
    pub fn notified_at(&self, path: &str) -> Vec<Arc<Merchant>> {
        self.merchants
            .iter()
            .filter(|(_, merchant)| merchant.upstream.notify_path() == Some(path))
            .map(|(_, merchant)| Arc::clone(merchant))
            .collect()
    }

    /// The entry that a merchant and app belong to: the most specific one.
    #[must_use]
    pub fn merchant(&self, mch_id: &MchId, app: &WxAppId) -> Option<Arc<Merchant>> {
        let entries = self
            .merchants
            .iter()
            .map(|(pattern, merchant)| (pattern, merchant));
        crate::rules::route::most_specific(entries, mch_id, app).map(Arc::clone)
    }
}

/// The flow, with everything it needs. Cheap to clone.
#[derive(Clone)]
pub struct Payouts {
    inner: Arc<Inner>,
    /// The settings of a request that began under them; `None`: those in force.
    pinned: Option<Arc<Settings>>,
}

struct Inner {
    ledger: Arc<dyn Ledger>,
    identity: Arc<dyn Identity>,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
    settings: ArcSwap<Settings>,
    waiters: Waiters,
    tasks: TaskTracker,
}

impl Payouts {
    /// Puts the flow together.
    #[must_use]
    pub fn new(
        ledger: Arc<dyn Ledger>,
        identity: Arc<dyn Identity>,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
        settings: Settings,
    ) -> Self {
        let inner = Inner {
            ledger,
            identity,
            clock,
            chance,
            settings: ArcSwap::from_pointee(settings),
            waiters: Waiters::default(),
            tasks: TaskTracker::new(),
        };
        Self {
            inner: Arc::new(inner),
            pinned: None,
        }
    }

    /// What of the configuration holds here: what is in force now, or what [`Payouts::under`] has fixed.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        match &self.pinned {
            Some(settings) => Arc::clone(settings),
            None => self.inner.settings.load_full(),
        }
    }

    /// The same flow under these settings, whatever is put in force later: a request sees one configuration from its
    /// first byte to its last.
    #[must_use]
    pub fn under(&self, settings: Arc<Settings>) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            pinned: Some(settings),
        }
    }

    /// Puts other settings in force for whatever begins from now on.
    pub fn put_in_force(&self, settings: Arc<Settings>) {
        self.inner.settings.store(settings);
    }

    /// The tasks that outlive their callers; the end of the process waits for them.
    #[must_use]
    pub fn tasks(&self) -> &TaskTracker {
        &self.inner.tasks
    }

    /// A random number, to seal a version and to spread what would otherwise happen at once.
    fn jitter(&self) -> u64 {
        self.inner.chance.number().unwrap_or_default()
    }

    /// The ledger.
    #[must_use]
    pub fn ledger(&self) -> &dyn Ledger {
        &*self.inner.ledger
    }

    /// The identity store.
    #[must_use]
    pub fn identity(&self) -> &dyn Identity {
        &*self.inner.identity
    }
}
