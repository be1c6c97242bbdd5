//! The payout flow: look the user up, claim the order in the ledger, send it once, record the outcome.
//!
//! Entry points: [`pay`] takes a request to pay, [`status`] a status call, [`webhook`] an upstream's notification,
//! [`operator`] an operator's command; [`settle`] asks about unsettled orders in the background.
//!
//! Their steps: `repeat` (what a repeat may do with an order on record), `attempt` (send once and record),
//! `query` (ask the upstream and record), `apply` (the only place that writes the ledger and tells the observers).
//!
//! The parts: [`ports`] (traits of the ledger, the identity store and the upstreams), [`claim`] (proof that an
//! order is claimed; an attempt needs it), [`merchant`] (an entry of the configuration as the flow uses it),
//! [`reply`] (what a caller gets), `single_flight` (repeats in one process wait for one reply), [`watch`] (what this
//! process has itself observed about orders), [`events`] (`PayoutChanged`, `Observer`), [`audit`] and `measure` (the
//! two observers).
//!
//! A caller's connection may close at any time. So each payout runs in a task of [`Payouts::tasks`], from before its
//! claim until its outcome is recorded. The connection only waits for the reply.

pub mod ports;

pub mod claim;

pub mod merchant;

pub(crate) mod reply;

pub(crate) mod operator;

pub(crate) mod webhook;

mod apply;

mod attempt;

pub(crate) mod audit;

pub(crate) mod pay;

mod query;

mod repeat;

pub(crate) mod settle;

pub(crate) mod status;

mod single_flight;

pub mod watch;

pub(crate) mod events;

mod measure;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use self::events::Observer;
use self::merchant::Merchant;
use self::ports::{Identity, Ledger};
use self::single_flight::SingleFlight;
use self::watch::Watch;
use crate::clock::Clock;
use crate::rng::Rng;
use crate::telemetry::context::carried;
use crate::telemetry::log::throttle::Throttle;
use payout_domain::contract::answer::Disclosure;
use payout_domain::ids::{MchId, Moment, WxAppId};
use payout_domain::limits::Limits;
use payout_domain::order::{Attention, Order};
use payout_domain::route::{MerchantPattern, most_specific};

/// The parts of the configuration that the flow uses. A reload replaces them as a whole.
pub struct Settings {
    /// The merchants' entries.
    pub merchants: Vec<(MerchantPattern, Arc<Merchant>)>,
    /// `[client_ip]`: the client address to send on; `None` keeps the platform's.
    pub client_ip: Option<IpAddr>,
    /// `[limits]`.
    pub limits: Limits,
    /// `[answer]`.
    pub disclosure: Disclosure,
    /// `[server] request_timeout`: how long a caller waits.
    pub request_timeout: Duration,
}

impl Settings {
    /// Whether any entry's upstream sends its notifications to this path.
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

    /// The entry for a new order of this merchant and app: the most specific one that takes new orders.
    #[must_use]
    pub fn merchant(&self, mch_id: &MchId, app: &WxAppId) -> Option<Arc<Merchant>> {
        self.entry(mch_id, app, |merchant| !merchant.is_settle_only)
    }

    /// The entry that leads to where the order was sent. No other entry may send the order again or ask about it. An
    /// entry that takes new orders comes before a `settle_only` one.
    #[must_use]
    pub fn leads_to(&self, order: &Order) -> Option<Arc<Merchant>> {
        let leads = |merchant: &Merchant| merchant.kind.leads_to(&order.upstream);
        let sends = |merchant: &Merchant| leads(merchant) && !merchant.is_settle_only;
        let (mch_id, app) = (&order.key.mch_id, &order.wx_app_id);
        self.entry(mch_id, app, sends)
            .or_else(|| self.entry(mch_id, app, leads))
    }

    /// How many of this merchant's orders the settlers of all replicas together may ask about in a second; `None`: no
    /// limit. WeChat Pay answers `gettransferinfo` 30 times a second (`docs/wechat-pay.md`), and repeats and status
    /// calls ask too.
    #[must_use]
    pub fn queries_per_second(&self, mch_id: &MchId) -> Option<u32> {
        let mut entries = self.merchants.iter();
        let is_meant = |pattern: &MerchantPattern| pattern.mch_id.as_ref().is_none_or(|id| id == mch_id);
        entries
            .any(|(pattern, merchant)| is_meant(pattern) && merchant.kind.destination().is_wechat())
            .then_some(WECHAT_QUERIES_PER_SECOND)
    }

    /// Why an unsettled order needs a person, if it does.
    #[must_use]
    pub fn needs_a_person(&self, order: &Order, now: Moment) -> Option<Attention> {
        let is_stranded = order.settled_at().is_none() && self.leads_to(order).is_none();
        if is_stranded {
            Some(Attention::NoDestination)
        } else {
            order
                .nears_the_end_of_its_window(now)
                .then_some(Attention::QueryWindow)
        }
    }

    fn entry(
        &self,
        mch_id: &MchId,
        app: &WxAppId,
        is_meant: impl Fn(&Merchant) -> bool,
    ) -> Option<Arc<Merchant>> {
        let entries = self
            .merchants
            .iter()
            .filter(|(_, merchant)| is_meant(merchant))
            .map(|(pattern, merchant)| (pattern, merchant));
        most_specific(entries, mch_id, app).map(Arc::clone)
    }
}

const WECHAT_QUERIES_PER_SECOND: u32 = 20;

/// The flow, with everything it needs. Cheap to clone. A clone keeps its settings alive, and with them the merchants'
/// secrets: hold none while waiting for the next thing to do.
#[derive(Clone)]
pub struct Payouts {
    inner: Arc<Inner>,
    settings: Arc<Settings>,
}

struct Inner {
    ledger: Arc<dyn Ledger>,
    identity: Arc<dyn Identity>,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    observers: Vec<Arc<dyn Observer>>,
    single_flight: SingleFlight,
    watch: Watch,
    /// Limits the log lines about an unreachable ledger: otherwise each refused request would write one.
    out_of_reach: Throttle,
    tasks: TaskTracker,
}

impl Payouts {
    /// Creates the flow. It tells `observers` of every change.
    #[must_use]
    pub fn new(
        ledger: Arc<dyn Ledger>,
        identity: Arc<dyn Identity>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        observers: Vec<Arc<dyn Observer>>,
        settings: Settings,
    ) -> Self {
        let inner = Inner {
            ledger,
            identity,
            clock,
            rng,
            observers,
            single_flight: SingleFlight::default(),
            watch: Watch::default(),
            out_of_reach: Throttle::new(Duration::from_secs(1)),
            tasks: TaskTracker::new(),
        };
        Self {
            inner: Arc::new(inner),
            settings: Arc::new(settings),
        }
    }

    /// The settings under which everything that begins here runs.
    #[must_use]
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// The same flow under other settings. What runs already goes on under its own: a request sees one configuration
    /// from its first byte to its last.
    #[must_use]
    pub fn under(&self, settings: Arc<Settings>) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            settings,
        }
    }

    /// The tasks that outlive their callers. Shutdown waits for them.
    #[must_use]
    pub fn tasks(&self) -> &TaskTracker {
        &self.inner.tasks
    }

    /// Runs work in its own task. The work goes on if the caller is dropped, so the observers still hear of every
    /// change that it writes. A panic in the work resumes in the caller.
    async fn detached<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        match self.tasks().spawn(carried(work)).await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down, and with it the caller that waits here.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// The time now, by the wall clock and by the ledger's.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment {
            wall: self.inner.clock.now(),
            ledger: self.inner.ledger.time(),
        }
    }

    /// A random number: for a version's nonce, and to spread what would otherwise happen at the same time.
    fn jitter(&self) -> u64 {
        self.inner.rng.next_u64()
    }

    /// The ledger.
    #[must_use]
    pub fn ledger(&self) -> &Arc<dyn Ledger> {
        &self.inner.ledger
    }

    /// The identity store.
    #[must_use]
    pub fn identity(&self) -> &dyn Identity {
        &*self.inner.identity
    }
}
