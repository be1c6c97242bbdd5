//! What the replicas of one run share: rng, clocks, the store's content, the upstreams' books, and which mends
//! outside of the flow are taken out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Clock;
use crate::payouts::tests::world::PausedClock;
use crate::rng::Rng;
use payout_domain::ids::{LedgerTime, MchId, Millis, OrderKey};
use payout_domain::order::{Before, Order, State};

/// The one source of random numbers of a run.
pub(super) struct SharedRng(Mutex<test_support::rng::Rng>);

impl SharedRng {
    pub(super) fn new(seed: u64) -> Self {
        Self(Mutex::new(test_support::rng::Rng::new(seed)))
    }

    pub(super) fn below(&self, end: u64) -> u64 {
        self.0.lock().unwrap().below(end)
    }

    pub(super) fn happens(&self, in_a_hundred: u64) -> bool {
        self.below(100) < in_a_hundred
    }
}

impl Rng for SharedRng {
    fn next_u64(&self) -> u64 {
        self.below(u64::MAX)
    }
}

/// The kind of the upstreams in a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Books {
    /// WeChat Pay: refuses doubles by order number, and forgets them after 30 days.
    Wechat,
    /// A handler that refuses doubles.
    Idempotent,
    /// A handler that pays on each call.
    PaysEachCall,
}

/// What a store loses, in one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Loss {
    Nothing,
    /// The last writes: it fails over to a copy that lacks them.
    LastWrites,
    /// All records of one merchant, as when one master of a Cluster comes back empty.
    Merchant,
    /// Some records, as when a node dies in the middle of a slot's migration.
    Records,
    /// Everything, the mapping too.
    Everything,
}

/// The kind of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) books: Books,
    pub(super) loss: Loss,
    /// Whether reloads move, add and remove destinations.
    pub(super) moves: bool,
    /// Whether the node that has the second merchant goes away for good.
    pub(super) loses_a_node: bool,
    /// Whether a month may pass.
    pub(super) is_long: bool,
}

impl Kind {
    pub(super) fn choose(rng: &SharedRng) -> Self {
        let books = match rng.below(4) {
            0 => Books::Wechat,
            1 => Books::Idempotent,
            _ => Books::PaysEachCall,
        };
        let loss = match rng.below(10) {
            // Only an upstream that refuses doubles holds the promise through it (docs/promise.md).
            0 | 1 if books != Books::PaysEachCall => Loss::LastWrites,
            2 => Loss::Merchant,
            3 => Loss::Records,
            4 => Loss::Everything,
            _ => Loss::Nothing,
        };
        Self {
            books,
            loss,
            // What a fail-over forgets may be known at another place: no store can keep the promise then.
            moves: loss != Loss::LastWrites && rng.happens(50),
            loses_a_node: rng.happens(15),
            is_long: rng.happens(25),
        }
    }

    pub(super) fn refuses_doubles(self) -> bool {
        self.books != Books::PaysEachCall
    }
}

/// The mends in the stores. A test can take out each one, to see whether the judge notices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mends {
    /// A claim compares the ledger's identity, and the merchant's part of it, in the step that writes.
    pub(super) claims_compare_identity: bool,
    /// A claim compares the merchant's list of orders with the records.
    pub(super) claims_compare_the_log: bool,
    /// A store says "no such order" only where it would take a claim.
    pub(super) reads_ask_what_claims_ask: bool,
    /// A process that starts on an empty store does not take it for a new ledger.
    pub(super) a_restart_is_no_decision: bool,
    /// Retention is counted in the ledger's time.
    pub(super) retention_by_ledger_time: bool,
    /// A script's last possible failure comes before its first write.
    pub(super) scripts_fail_first: bool,
    /// The failure of one node does not affect the others.
    pub(super) nodes_are_apart: bool,
}

impl Mends {
    pub(super) const ALL: Self = Self {
        claims_compare_identity: true,
        claims_compare_the_log: true,
        reads_ask_what_claims_ask: true,
        a_restart_is_no_decision: true,
        retention_by_ledger_time: true,
        scripts_fail_first: true,
        nodes_are_apart: true,
    };
}

/// What a store holds.
#[derive(Clone, Default)]
pub(super) struct Store {
    pub(super) orders: BTreeMap<OrderKey, Order>,
    /// Every order number that was ever claimed, in its merchant's part.
    pub(super) log: BTreeSet<OrderKey>,
    /// Records that a script wrote without listing them as due.
    pub(super) unlisted: BTreeSet<OrderKey>,
    /// The ledger's identity, and the merchants that it knows.
    pub(super) identity: Option<u64>,
    pub(super) registry: BTreeSet<MchId>,
    /// The identity as each merchant's part holds it.
    pub(super) parts: BTreeMap<MchId, u64>,
}

/// One payment in an upstream's books.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Payment {
    pub(super) place: usize,
    pub(super) openid: String,
    pub(super) amount: i64,
    pub(super) at: Instant,
}

/// A replica's wall clock.
pub(super) struct SkewedClock {
    pub(super) truth: Arc<PausedClock>,
    pub(super) off_ms: AtomicI64,
}

impl Clock for SkewedClock {
    fn now(&self) -> Millis {
        Millis(self.truth.now().0 + self.off_ms.load(Ordering::Relaxed))
    }

    fn passed(&self) -> Duration {
        self.truth.passed()
    }
}

pub(super) struct Shared {
    pub(super) rng: Arc<SharedRng>,
    pub(super) faulty: AtomicBool,
    pub(super) kind: Kind,
    pub(super) mends: Mends,
    pub(super) store: Mutex<Store>,
    /// The copy that a fail-over goes back to.
    pub(super) copy: Mutex<Store>,
    /// Orders whose record was lost or set back.
    pub(super) forgotten: Mutex<BTreeSet<OrderKey>>,
    pub(super) hidden: Mutex<BTreeMap<OrderKey, LedgerTime>>,
    pub(super) has_lost: AtomicBool,
    pub(super) node_is_away: AtomicBool,
    pub(super) payments: Mutex<BTreeMap<OrderKey, Vec<Payment>>>,
    /// The orders that a place has refused. Its queries say so.
    pub(super) failed: Mutex<BTreeSet<(usize, OrderKey)>>,
    /// How many attempts of each order an upstream has or may still get, with nobody knowing yet whether they pay.
    pub(super) under_way: Mutex<BTreeMap<OrderKey, u32>>,
    /// When the first attempt after the last certain refusal began: WeChat's window counts from here.
    pub(super) doubted_since: Mutex<BTreeMap<OrderKey, Instant>>,
    /// When each claim was written, by its version.
    pub(super) claims: Mutex<BTreeMap<String, Instant>>,
    /// When each order was last recorded as refused.
    pub(super) refused_at: Mutex<BTreeMap<OrderKey, Instant>>,
    /// A violation that the store has seen.
    pub(super) broken: Mutex<Option<String>>,
    /// Until when each upstream stands still.
    pub(super) still_until: Mutex<[Option<Instant>; 2]>,
    pub(super) trace: Mutex<Vec<String>>,
    pub(super) begun: Instant,
    /// Whether the trace is printed as it goes.
    pub(super) is_told: bool,
}

impl Shared {
    pub(super) fn goes_wrong(&self, in_a_hundred: u64) -> bool {
        self.faulty.load(Ordering::Relaxed) && self.rng.happens(in_a_hundred)
    }

    pub(super) fn note(&self, what: String) {
        if self.is_told {
            eprintln!("{:>12.3} {what}", self.begun.elapsed().as_secs_f64());
        }
        self.trace.lock().unwrap().push(what);
    }

    pub(super) fn pay(&self, place: usize, order: &Order) {
        let mut payments = self.payments.lock().unwrap();
        let made = payments.entry(order.key.clone()).or_default();
        let is_double = made.iter().any(|payment| payment.place == place);
        if self.kind.refuses_doubles() && is_double {
            return;
        }
        made.push(Payment {
            place,
            openid: order.openid.as_str().to_owned(),
            amount: order.amount.get(),
            at: Instant::now(),
        });
        self.note(format!("paid {} at place {place}", order.key));
    }

    pub(super) fn times_paid(&self, key: &OrderKey) -> usize {
        self.payments.lock().unwrap().get(key).map_or(0, Vec::len)
    }

    pub(super) fn paid_at(&self, place: usize, key: &OrderKey) -> Option<Instant> {
        let payments = self.payments.lock().unwrap();
        let payment = payments
            .get(key)?
            .iter()
            .rfind(|payment| payment.place == place)?;
        Some(payment.at)
    }

    /// Whether an attempt may still pay the order.
    pub(super) fn may_yet_be_paid(&self, key: &OrderKey) -> bool {
        self.under_way
            .lock()
            .unwrap()
            .get(key)
            .is_some_and(|count| *count > 0)
    }

    /// Whether an attempt other than the one being answered may still pay the order.
    pub(super) fn may_yet_be_paid_by_another(&self, key: &OrderKey) -> bool {
        self.under_way
            .lock()
            .unwrap()
            .get(key)
            .is_some_and(|count| *count > 1)
    }

    pub(super) fn begins(&self, key: &OrderKey) {
        *self.under_way.lock().unwrap().entry(key.clone()).or_default() += 1;
    }

    pub(super) fn ends(&self, key: &OrderKey) {
        if let Some(count) = self.under_way.lock().unwrap().get_mut(key) {
            *count -= 1;
        }
    }

    /// The store has taken a record: a claim begins or ends. Checks that no claim ends by a lease that has not truly
    /// passed.
    pub(super) fn written(&self, previous: Option<&Order>, next: &Order) {
        if previous.is_some_and(|previous| previous.pinned() != next.pinned()) {
            let changed = format!("{}: what its claim had pinned was changed", next.key);
            self.broken.lock().unwrap().get_or_insert(changed);
        }
        let mut claims = self.claims.lock().unwrap();
        if let State::Pending(pending) = &next.state {
            claims
                .entry(next.version.to_string())
                .or_insert_with(Instant::now);
            if !matches!(pending.before, Before::Unknown(_)) {
                self.doubt(&next.key, false);
            }
        }
        if matches!(&next.state, State::Refused(refused) if !refused.refusal.number_spent) {
            let mut refused_at = self.refused_at.lock().unwrap();
            refused_at.insert(next.key.clone(), Instant::now());
        }
        let lapsed = next
            .history
            .last()
            .is_some_and(|change| change.why.starts_with("the lease ran out"));
        if let (true, Some(previous)) = (lapsed, previous)
            && let State::Pending(pending) = &previous.state
            && let Some(claimed) = claims.get(&previous.version.to_string())
            && claimed.elapsed() < pending.lease()
        {
            let early = format!("{}: its lease was ended after {:?}", next.key, claimed.elapsed());
            self.broken.lock().unwrap().get_or_insert(early);
        }
    }

    /// An attempt begins. `was_in_doubt`: whether its order was in doubt before.
    pub(super) fn doubt(&self, key: &OrderKey, was_in_doubt: bool) {
        let mut doubted_since = self.doubted_since.lock().unwrap();
        if !was_in_doubt || !doubted_since.contains_key(key) {
            doubted_since.insert(key.clone(), Instant::now());
        }
    }

    /// A clock's error, in milliseconds: seconds, hours, or more than a retention.
    pub(super) fn skew(&self) -> i64 {
        let most: i64 = match self.rng.below(4) {
            0 => 2_000,
            1 => 300_000,
            2 => 2 * 3_600_000,
            _ => 401 * 86_400_000,
        };
        let roll = self.rng.below(u64::try_from(2 * most + 1).unwrap());
        i64::try_from(roll).unwrap() - most
    }

    /// How long a place still stands still.
    pub(super) fn stillness(&self, place: usize) -> Duration {
        let until = self.still_until.lock().unwrap()[place];
        until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }

    /// Waits until a place has run for this long, not counting the time in which it stands still.
    pub(super) async fn run_for(&self, place: usize, span: Duration) {
        let mut left = span;
        loop {
            let still = self.stillness(place);
            if !still.is_zero() {
                tokio::time::sleep(still).await;
            } else if left.is_zero() {
                return;
            } else {
                let slice = std::cmp::min(left, Duration::from_millis(500));
                tokio::time::sleep(slice).await;
                left -= slice;
            }
        }
    }

    /// The copy catches up with the store.
    pub(super) fn replicate(&self) {
        *self.copy.lock().unwrap() = self.store.lock().unwrap().clone();
    }

    /// The store loses what the run's kind says.
    pub(super) fn lose(&self) {
        let mut store = self.store.lock().unwrap();
        let before = store.orders.clone();
        match self.kind.loss {
            Loss::Nothing => return,
            Loss::LastWrites => {
                let copy = self.copy.lock().unwrap().clone();
                let (identity, registry, parts) =
                    (store.identity, store.registry.clone(), store.parts.clone());
                *store = copy;
                // A fail-over keeps these: they were written long before.
                (store.identity, store.registry, store.parts) = (identity, registry, parts);
            }
            Loss::Merchant => {
                let Some(lost) = store.parts.keys().next().cloned() else {
                    return;
                };
                store.parts.remove(&lost);
                store.orders.retain(|key, _| key.mch_id != lost);
                store.log.retain(|key| key.mch_id != lost);
            }
            Loss::Records => {
                let rng = &self.rng;
                store.orders.retain(|_, _| rng.happens(50));
            }
            Loss::Everything => *store = Store::default(),
        }
        self.has_lost.store(true, Ordering::Relaxed);
        let mut forgotten = self.forgotten.lock().unwrap();
        for (key, order) in before {
            if store.orders.get(&key) != Some(&order) {
                self.note(format!("{key} was forgotten"));
                forgotten.insert(key);
            }
        }
    }

    /// The order's state on record.
    pub(super) fn state_of(&self, key: &OrderKey) -> Option<State> {
        let store = self.store.lock().unwrap();
        store.orders.get(key).map(|order| order.state.clone())
    }

    pub(super) fn is_forgotten(&self, key: &OrderKey) -> bool {
        self.forgotten.lock().unwrap().contains(key)
    }
}
