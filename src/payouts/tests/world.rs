//! Fakes in memory for the flow's tests: a ledger, a mapping and an upstream whose every answer is scripted, under
//! tokio's paused time.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::payouts::claim::Claim;
use crate::payouts::events::{Observer, PayoutChanged};
use crate::payouts::merchant::Merchant;
use crate::payouts::ports::{
    Identity, Inserted, Ledger, ListFilter, LookupError, OrderQuestion, Page, QueryRate, Replaced,
    StoreError, Upstream,
};
use crate::payouts::watch::Contact;
use crate::payouts::{Payouts, Settings};
use crate::rng::SystemRng;
use payout_domain::contract::answer::Disclosure;
use payout_domain::contract::send::RequestCredentials;
use payout_domain::fields::Fields;
use payout_domain::ids::{HandlerId, LedgerTime, MchId, Millis, OpenId, OrderKey, UserId, WxAppId};
use payout_domain::limits::Limits;
use payout_domain::merchant::MerchantKind;
use payout_domain::order::step::Policy;
use payout_domain::order::{Order, State};
use payout_domain::outcome::{Class, Evidence, Finding, Found};
use payout_domain::route::MerchantPattern;

/// Tokio's clock as a wall clock, so that pausing one pauses both.
pub(super) struct PausedClock(pub(super) Instant);

impl Clock for PausedClock {
    fn now(&self) -> Millis {
        Millis(1_795_400_000_000).after(self.0.elapsed())
    }

    fn passed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// How much of a merchant's sum is used up, by the charges that its orders hold.
pub(super) fn charged<'a>(orders: impl Iterator<Item = &'a Order>, mch_id: &MchId, sum: &str) -> i64 {
    let of_merchant = orders.filter(|order| order.key.mch_id == *mch_id);
    let charges = of_merchant.flat_map(|order| &order.charges);
    charges
        .filter(|charge| charge.name == sum)
        .map(|charge| charge.amount)
        .sum()
}

/// The orders that are due. Hides them from then on.
pub(super) fn due<'a>(
    orders: impl Iterator<Item = &'a Order>,
    hidden: &mut BTreeMap<OrderKey, LedgerTime>,
    now: LedgerTime,
    hidden_until: LedgerTime,
    limit: usize,
) -> Vec<OrderKey> {
    let is_due = |order: &&Order| {
        order.due_at().is_some_and(|at| at <= now) && hidden.get(&order.key).is_none_or(|until| *until <= now)
    };
    let keys: Vec<_> = orders
        .filter(is_due)
        .take(limit)
        .map(|order| order.key.clone())
        .collect();
    hidden.extend(keys.iter().map(|key| (key.clone(), hidden_until)));
    keys
}

/// What a store does wrong at the next write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum StoreFault {
    /// Answers with an error and writes nothing.
    Refuses,
    /// Writes, but its acknowledgement is lost.
    LosesAcknowledgement,
}

pub(super) struct MemoryLedger {
    begun: Instant,
    orders: Mutex<HashMap<OrderKey, Order>>,
    hidden: Mutex<BTreeMap<OrderKey, LedgerTime>>,
    faults: Mutex<VecDeque<Option<StoreFault>>>,
    has_forgotten: Mutex<bool>,
    /// How long the store takes to acknowledge a replacement that it has written.
    pub(super) acknowledges_after: Mutex<Duration>,
}

impl Default for MemoryLedger {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            orders: Mutex::default(),
            hidden: Mutex::default(),
            faults: Mutex::default(),
            has_forgotten: Mutex::default(),
            acknowledges_after: Mutex::default(),
        }
    }
}

impl MemoryLedger {
    /// The faults of the next writes, in order.
    pub(super) fn next_writes(&self, faults: &[Option<StoreFault>]) {
        self.faults.lock().unwrap().extend(faults.iter().copied());
    }

    /// The order `A1`.
    pub(super) fn order(&self) -> Option<Order> {
        let orders = self.orders.lock().unwrap();
        orders
            .values()
            .find(|order| order.key.order_no.as_str() == "A1")
            .cloned()
    }

    pub(super) fn forget(&self) {
        self.orders.lock().unwrap().clear();
    }

    /// Forgets, and notices it as a real store does: takes no claim, and says of no order that there is none.
    pub(super) fn lose(&self) {
        self.forget();
        *self.has_forgotten.lock().unwrap() = true;
    }

    fn refuse_if_lost(&self) -> Result<(), StoreError> {
        if *self.has_forgotten.lock().unwrap() {
            return Err(StoreError {
                unsure: false,
                text: "forgotten".into(),
            });
        }
        Ok(())
    }

    pub(super) fn put(&self, order: Order) {
        self.orders.lock().unwrap().insert(order.key.clone(), order);
    }

    fn write<T>(&self, write: impl FnOnce(&mut HashMap<OrderKey, Order>) -> T) -> Result<T, StoreError> {
        let fault = self.faults.lock().unwrap().pop_front().flatten();
        let text = || "scripted".to_owned();
        match fault {
            Some(StoreFault::Refuses) => Err(StoreError {
                unsure: false,
                text: text(),
            }),
            Some(StoreFault::LosesAcknowledgement) => {
                write(&mut self.orders.lock().unwrap());
                Err(StoreError {
                    unsure: true,
                    text: text(),
                })
            }
            None => Ok(write(&mut self.orders.lock().unwrap())),
        }
    }
}

#[async_trait]
impl Ledger for MemoryLedger {
    fn time(&self) -> LedgerTime {
        LedgerTime(1_000_000).after(self.begun.elapsed())
    }

    async fn insert(&self, order: &Order) -> Result<Inserted, StoreError> {
        self.refuse_if_lost()?;
        self.write(|orders| match orders.get(&order.key) {
            Some(stored) if stored == order => Inserted::Done,
            Some(stored) => Inserted::Exists(Box::new(stored.clone())),
            None => {
                orders.insert(order.key.clone(), order.clone());
                Inserted::Done
            }
        })
    }

    async fn replace(&self, previous: &Order, next: &Order) -> Result<Replaced, StoreError> {
        let replaced = self.write(|orders| match orders.get(&next.key) {
            Some(stored) if stored == next => Replaced::Done,
            Some(stored) if stored.version == previous.version => {
                orders.insert(next.key.clone(), next.clone());
                Replaced::Done
            }
            stored => Replaced::Moved(stored.cloned().map(Box::new)),
        });
        let acknowledges_after = *self.acknowledges_after.lock().unwrap();
        tokio::time::sleep(acknowledges_after).await;
        replaced
    }

    async fn remove(&self, order: &Order) -> Result<Replaced, StoreError> {
        self.write(|orders| match orders.get(&order.key) {
            Some(stored) if stored.version == order.version => {
                orders.remove(&order.key);
                Replaced::Done
            }
            stored => Replaced::Moved(stored.cloned().map(Box::new)),
        })
    }

    async fn get(&self, key: &OrderKey) -> Result<Option<Order>, StoreError> {
        let order = self.orders.lock().unwrap().get(key).cloned();
        if order.is_none() {
            self.refuse_if_lost()?;
        }
        Ok(order)
    }

    async fn due(
        &self,
        for_so_long: Duration,
        limit: usize,
        _rate: QueryRate<'_>,
    ) -> Result<Vec<OrderKey>, StoreError> {
        let now = self.time();
        let hidden_until = now.after(for_so_long);
        let mut hidden = self.hidden.lock().unwrap();
        let orders = self.orders.lock().unwrap();
        Ok(due(orders.values(), &mut hidden, now, hidden_until, limit))
    }

    async fn list(&self, _filter: &ListFilter) -> Result<Page, StoreError> {
        Ok(Page {
            orders: self.orders.lock().unwrap().values().cloned().collect(),
            next: None,
        })
    }

    async fn unsettled(&self, _limit: usize) -> Result<Vec<Order>, StoreError> {
        let orders = self.orders.lock().unwrap();
        let unsettled = orders.values().filter(|order| order.settled_at().is_none());
        Ok(unsettled.cloned().collect())
    }

    async fn used(&self, mch_id: &MchId, sum: &str) -> Result<i64, StoreError> {
        let orders = self.orders.lock().unwrap();
        Ok(charged(orders.values(), mch_id, sum))
    }

    async fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn warnings(&self) -> Result<Vec<String>, StoreError> {
        Ok(vec![])
    }
}

/// Maps every user to the same openid, unless told otherwise.
#[derive(Default)]
pub(super) struct Mapping {
    /// How long a lookup takes.
    pub(super) takes: Mutex<Duration>,
    pub(super) openid: Mutex<Option<Result<Option<&'static str>, ()>>>,
}

#[async_trait]
impl Identity for Mapping {
    async fn openid(&self, _app: &WxAppId, _user: &UserId) -> Result<Option<OpenId>, LookupError> {
        let takes = *self.takes.lock().unwrap();
        tokio::time::sleep(takes).await;
        match *self.openid.lock().unwrap() {
            None => Ok(OpenId::parse("oX12abcdefghijk9f").ok()),
            Some(Ok(openid)) => Ok(openid.and_then(|openid| OpenId::parse(openid).ok())),
            Some(Err(())) => Err(LookupError::Unreachable("scripted".into())),
        }
    }

    async fn ready(&self) -> Result<(), LookupError> {
        Ok(())
    }
}

/// What the upstream does with the next attempt.
#[derive(Clone, Debug)]
pub(super) enum Deed {
    Pays,
    PaysAndSaysNothing,
    Refuses(Class),
    SaysNothing,
    IsNotThere,
    /// Pays after this long.
    PaysAfter(Duration),
    Panics,
}

#[derive(Default)]
pub(super) struct Upstairs {
    pub(super) deeds: Mutex<VecDeque<Deed>>,
    /// Every payment: openid and the parameters that it was sent with.
    pub(super) payments: Mutex<Vec<(String, Fields<'static>)>>,
    pub(super) paid_numbers: Mutex<Vec<String>>,
    pub(super) attempts: Mutex<Vec<Fields<'static>>>,
    pub(super) queries: Mutex<u32>,
    pub(super) silent_to_queries: Mutex<bool>,
    pub(super) refuses_doubles: bool,
}

impl Upstairs {
    pub(super) fn will(&self, deeds: &[Deed]) {
        self.deeds.lock().unwrap().extend(deeds.iter().cloned());
    }

    pub(super) fn paid(&self) -> usize {
        self.payments.lock().unwrap().len()
    }

    pub(super) fn attempted(&self) -> usize {
        self.attempts.lock().unwrap().len()
    }

    fn pay(&self, order: &Order) -> Evidence {
        let mut payments = self.payments.lock().unwrap();
        let number = order.key.order_no.as_str().to_owned();
        let mut numbers = self.paid_numbers.lock().unwrap();
        if !self.refuses_doubles || !numbers.contains(&number) {
            numbers.push(number);
            payments.push((order.openid.as_str().to_owned(), Fields::clone(&order.parameters)));
        }
        let mut fields = Fields::new();
        fields.set("sendListid", payments.len().to_string());
        Evidence::Accepted { fields }
    }
}

#[async_trait]
impl Upstream for Upstairs {
    async fn attempt(&self, claim: &Claim, _credentials: &RequestCredentials) -> Evidence {
        let order = claim.order();
        self.attempts
            .lock()
            .unwrap()
            .push(Fields::clone(&order.parameters));
        let deed = self.deeds.lock().unwrap().pop_front().unwrap_or(Deed::Pays);
        let silence = || Evidence::NoAnswer {
            why: "scripted".into(),
        };
        match deed {
            Deed::Pays => self.pay(order),
            Deed::PaysAndSaysNothing => {
                self.pay(order);
                silence()
            }
            Deed::Refuses(class) => Evidence::Declined {
                class,
                code: "NOTENOUGH".into(),
                text: "余额不足".into(),
            },
            Deed::SaysNothing => silence(),
            Deed::IsNotThere => Evidence::NeverSent {
                why: "scripted".into(),
            },
            Deed::PaysAfter(pause) => {
                tokio::time::sleep(pause).await;
                self.pay(order)
            }
            Deed::Panics => panic!("scripted"),
        }
    }

    async fn query(&self, question: &OrderQuestion, _credentials: &RequestCredentials) -> Finding {
        *self.queries.lock().unwrap() += 1;
        if *self.silent_to_queries.lock().unwrap() {
            return Finding::unclear("scripted");
        }
        let number = question.key.order_no.as_str();
        if !self
            .paid_numbers
            .lock()
            .unwrap()
            .iter()
            .any(|paid| paid == number)
        {
            return Finding::no_such_order();
        }
        Finding {
            found: Found::Accepted {
                fields: Fields::new(),
            },
            status: Some("SENT".into()),
            report: Fields::new(),
        }
    }

    fn longest(&self) -> Duration {
        Duration::from_secs(10)
    }
}

/// An entry that leads to the handler of this name.
pub(super) fn handler_entry(id: &str, upstream: Arc<dyn Upstream>, policy: Policy) -> Merchant {
    Merchant {
        kind: MerchantKind::Handler {
            format: None,
            id: HandlerId::parse(id).unwrap(),
            formerly: vec![],
        },
        upstream,
        policy,
        is_settle_only: false,
        contact: Contact::default(),
        takes_credentials: false,
    }
}

/// What observers were told, one word for each change.
#[derive(Default)]
pub(super) struct Told(Mutex<Vec<String>>);

impl Told {
    pub(super) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Observer for Told {
    fn changed(&self, change: PayoutChanged<'_>) {
        let word = match change {
            PayoutChanged::Claimed(order) => {
                assert!(matches!(order.state, State::Pending(_)));
                "claimed".to_owned()
            }
            PayoutChanged::Replaced { before, after } => {
                assert_eq!(after.version.number, before.version.number + 1);
                format!(
                    "{} to {}",
                    before.state.name().as_str(),
                    after.state.name().as_str()
                )
            }
            PayoutChanged::TakenBack { why, .. } => format!("taken back: {why}"),
        };
        self.0.lock().unwrap().push(word);
    }

    fn over_limit(&self, _order: &Order) {
        self.0.lock().unwrap().push("over a limit".to_owned());
    }
}

/// The flow and its fakes, so that a test can look into each.
pub(super) struct World {
    pub(super) payouts: Payouts,
    pub(super) told: Arc<Told>,
    pub(super) ledger: Arc<MemoryLedger>,
    pub(super) mapping: Arc<Mapping>,
    pub(super) upstream: Arc<Upstairs>,
}

impl World {
    /// Reloads: these entries, each for any merchant and app, and everything else as it is.
    pub(super) fn apply(&mut self, entries: Vec<Merchant>) {
        let any = || MerchantPattern {
            mch_id: None,
            wx_app_id: None,
        };
        let merchants = entries
            .into_iter()
            .map(|entry| (any(), Arc::new(entry)))
            .collect();
        self.apply_with(merchants, self.payouts.settings().limits);
    }

    pub(super) fn apply_with(&mut self, merchants: Vec<(MerchantPattern, Arc<Merchant>)>, limits: Limits) {
        let now = self.payouts.settings();
        self.payouts = self.payouts.under(Arc::new(Settings {
            merchants,
            client_ip: now.client_ip,
            limits,
            disclosure: now.disclosure,
            request_timeout: now.request_timeout,
        }));
    }
}

/// A world with one merchant entry, whose upstream refuses doubles or pays on each call.
pub(super) fn world(refuses_doubles: bool) -> World {
    let ledger = Arc::new(MemoryLedger::default());
    let mapping = Arc::new(Mapping::default());
    let upstream = Arc::new(Upstairs {
        refuses_doubles,
        ..Upstairs::default()
    });
    let not_found_after = Duration::from_secs(if refuses_doubles { 86_400 } else { 20 });
    let policy = Policy {
        refuses_doubles,
        not_found_after,
    };
    let merchant = handler_entry(
        "http://here:80",
        Arc::clone(&upstream) as Arc<dyn Upstream>,
        policy,
    );
    let settings = Settings {
        merchants: vec![(
            MerchantPattern {
                mch_id: None,
                wx_app_id: None,
            },
            Arc::new(merchant),
        )],
        client_ip: Some(IpAddr::from([203, 0, 113, 7])),
        limits: Limits {
            max_amount: Some(20_000),
            ..Limits::default()
        },
        disclosure: Disclosure::default(),
        request_timeout: Duration::from_secs(15),
    };
    let clock = Arc::new(PausedClock(Instant::now()));
    let told = Arc::new(Told::default());
    let payouts = Payouts::new(
        Arc::clone(&ledger) as Arc<dyn Ledger>,
        Arc::clone(&mapping) as Arc<dyn Identity>,
        clock,
        Arc::new(SystemRng),
        vec![Arc::clone(&told) as Arc<dyn Observer>],
        settings,
    );
    World {
        payouts,
        told,
        ledger,
        mapping,
        upstream,
    }
}
