//! What the replicas of one run share: chance, clocks, what is in the store and in the upstream's books.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use crate::chance::Chance;
use crate::clock::Clock;
use crate::payout::tests::world::PausedClock;
use crate::rules::order::Order;
use crate::rules::term::{Millis, OrderKey};

/// The one source of chance of a run.
pub(super) struct Dice(pub(super) Mutex<u64>);

impl Dice {
    pub(super) fn roll(&self, below: u64) -> u64 {
        let mut state = self.0.lock().unwrap();
        // splitmix64
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    pub(super) fn happens(&self, in_a_hundred: u64) -> bool {
        self.roll(100) < in_a_hundred
    }
}

impl Chance for Dice {
    fn number(&self) -> Option<u64> {
        Some(self.roll(u64::MAX))
    }
}

/// What kind of world a run is in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// The upstream refuses doubles by order number, as WeChat does; otherwise it pays on each call.
    pub(super) refuses_doubles: bool,
    /// The store fails over to a copy that lacks the last writes.
    pub(super) forgets: bool,
    /// How far a replica's clock may be from the true time, in milliseconds.
    pub(super) skew_ms: i64,
}

impl Kind {
    pub(super) fn choose(dice: &Dice) -> Self {
        let refuses_doubles = dice.happens(50);
        Self {
            refuses_doubles,
            // Only an upstream that refuses doubles holds the promise through it (docs/promise.md).
            forgets: refuses_doubles && dice.happens(40),
            // Towards one that pays on each call, clocks must agree better than the time that is left between the longest
            // attempt and the moment when "no such order" is believed.
            skew_ms: if refuses_doubles { 600_000 } else { 2_000 },
        }
    }
}

/// One replica's clock: off by so much, which changes at any moment, backwards too.
pub(super) struct SkewedClock {
    pub(super) truth: Arc<PausedClock>,
    pub(super) off_ms: AtomicI64,
}

impl Clock for SkewedClock {
    fn now(&self) -> Millis {
        Millis(self.truth.now().0 + self.off_ms.load(Ordering::Relaxed))
    }
}

/// What all replicas share: the store's content and the upstream's books.
pub(super) struct Shared {
    pub(super) dice: Arc<Dice>,
    pub(super) faulty: AtomicBool,
    pub(super) kind: Kind,
    pub(super) orders: Mutex<BTreeMap<OrderKey, Order>>,
    /// What a fail-over goes back to.
    pub(super) copy: Mutex<BTreeMap<OrderKey, Order>>,
    /// Orders whose record was lost or set back by a fail-over.
    pub(super) forgotten: Mutex<BTreeSet<OrderKey>>,
    pub(super) hidden: Mutex<BTreeMap<OrderKey, Millis>>,
    /// Openid and amount of each payment.
    pub(super) payments: Mutex<BTreeMap<OrderKey, Vec<(String, i64)>>>,
    /// Payments that are still on their way.
    pub(super) late: Mutex<BTreeMap<OrderKey, u32>>,
    pub(super) trace: Mutex<Vec<String>>,
    pub(super) begun: Instant,
    /// Whether the trace is printed as it goes.
    pub(super) is_told: bool,
}

impl Shared {
    pub(super) fn goes_wrong(&self, in_a_hundred: u64) -> bool {
        self.faulty.load(Ordering::Relaxed) && self.dice.happens(in_a_hundred)
    }

    pub(super) fn note(&self, what: String) {
        if self.is_told {
            eprintln!("{:>9.3} {what}", self.begun.elapsed().as_secs_f64());
        }
        self.trace.lock().unwrap().push(what);
    }

    pub(super) fn pay(&self, order: &Order) {
        let mut payments = self.payments.lock().unwrap();
        let made = payments.entry(order.key.clone()).or_default();
        if !self.kind.refuses_doubles || made.is_empty() {
            made.push((order.openid.as_str().to_owned(), order.amount.get()));
            self.note(format!("paid {}", order.key));
        }
    }

    pub(super) fn times_paid(&self, key: &OrderKey) -> usize {
        self.payments.lock().unwrap().get(key).map_or(0, Vec::len)
    }

    pub(super) fn is_on_its_way(&self, key: &OrderKey) -> bool {
        self.late.lock().unwrap().get(key).is_some_and(|late| *late > 0)
    }

    /// How far a clock is off now, in milliseconds.
    pub(super) fn skew(&self) -> i64 {
        let most = self.kind.skew_ms;
        let roll = self.dice.roll(u64::try_from(2 * most + 1).unwrap());
        i64::try_from(roll).unwrap() - most
    }

    /// The copy catches up with the store.
    pub(super) fn replicate(&self) {
        *self.copy.lock().unwrap() = self.orders.lock().unwrap().clone();
    }

    /// The store is the copy from now on.
    pub(super) fn fail_over(&self) {
        let copy = self.copy.lock().unwrap().clone();
        let lost = std::mem::replace(&mut *self.orders.lock().unwrap(), copy.clone());
        let mut forgotten = self.forgotten.lock().unwrap();
        for (key, order) in lost {
            if copy.get(&key) != Some(&order) {
                self.note(format!("{key} was forgotten"));
                forgotten.insert(key);
            }
        }
    }

    pub(super) fn is_forgotten(&self, key: &OrderKey) -> bool {
        self.forgotten.lock().unwrap().contains(key)
    }
}
