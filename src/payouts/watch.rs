//! What this process has itself observed about orders: how long a claim has stood unchanged, and how long an upstream
//! has said nothing but "no such order" while it answered without a break. See docs/promise.md.
//!
//! Nothing here compares a time that another process wrote with a clock, since no two clocks agree and every clock
//! may step. Time counts for an order only if this process has seen the order before and after it, by its own
//! monotonic clock (as DynamoDB's lock client does). After a restart it begins anew.
//!
//! The same table is the settler's schedule: when to look again at an order that is watched.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use payout_domain::ids::{LedgerTime, OrderKey};
use payout_domain::order::schedule::LONGEST_STANDSTILL;
use payout_domain::order::{Order, State, Version};

/// How many orders are watched at once. Further ones wait until others are forgotten.
const AT_MOST: usize = 100_000;

/// The orders that this process watches.
#[derive(Default)]
pub(super) struct Watch {
    seen: Mutex<HashMap<OrderKey, Sighting>>,
}

#[derive(Clone, Copy)]
struct Sighting {
    what: Watched,
    /// When this process saw it first, and when to look at it again, by the monotonic clock.
    since: Duration,
    look_again: Duration,
}

#[derive(Clone, Copy, PartialEq)]
enum Watched {
    /// A claim: exactly this version.
    Claim(Version),
    /// "No such order": one unbroken series of such answers, identified by its beginning in the record.
    Absence(LedgerTime),
}

impl Watch {
    /// How long this process has seen this version of a pending order. The first sight notes it, and is zero. Forgets
    /// an order that is not pending.
    pub(super) fn of_claim(&self, order: &Order, now: Duration) -> Duration {
        let State::Pending(pending) = &order.state else {
            self.seen().remove(&order.key);
            return Duration::ZERO;
        };
        let again = now.saturating_add(pending.lease());
        self.note(order, Watched::Claim(order.version), now, again)
    }

    /// How long this process has heard "no such order" about an unknown order, if the upstream says it once more now.
    /// Never longer than `contact`: how long the upstream has answered without a break.
    pub(super) fn heard(&self, order: &Order, contact: Duration, now: Duration) -> Duration {
        let State::Unknown(unknown) = &order.state else {
            return Duration::ZERO;
        };
        let Some(absence) = unknown.absence else {
            return Duration::ZERO;
        };
        let seen = self.seen();
        match seen.get(&order.key) {
            Some(sighting) if sighting.what == Watched::Absence(absence.since) => {
                std::cmp::min(now.saturating_sub(sighting.since), contact)
            }
            Some(_) | None => Duration::ZERO,
        }
    }

    /// Notes how an order stands after a query. If its upstream says "no such order", watches the order, and looks
    /// again after `pause`. Otherwise forgets it.
    pub(super) fn after_query(&self, order: &Order, pause: Duration, now: Duration) {
        let absence = match &order.state {
            State::Unknown(unknown) => unknown.absence,
            State::Pending(_) | State::Succeeded(_) | State::Refused(_) => None,
        };
        match absence {
            Some(absence) => {
                let again = now.saturating_add(pause);
                self.note(order, Watched::Absence(absence.since), now, again);
            }
            None => self.forget(&order.key),
        }
    }

    /// Stops watching an order: it is settled, gone or another process's.
    pub(super) fn forget(&self, key: &OrderKey) {
        self.seen().remove(key);
    }

    /// Up to `limit` orders to look at again by now, the longest overdue first. Puts each off, so that it comes only
    /// once.
    pub(super) fn ripe(&self, limit: usize, now: Duration) -> Vec<OrderKey> {
        let mut seen = self.seen();
        let mut ripe: Vec<(Duration, OrderKey)> = seen
            .iter()
            .filter(|(_, sighting)| sighting.look_again <= now)
            .map(|(key, sighting)| (sighting.look_again, key.clone()))
            .collect();
        ripe.sort_unstable_by_key(|(at, _)| *at);
        ripe.truncate(limit);
        let later = now.saturating_add(LONGEST_STANDSTILL);
        for (_, key) in &ripe {
            if let Some(sighting) = seen.get_mut(key) {
                sighting.look_again = later;
            }
        }
        ripe.into_iter().map(|(_, key)| key).collect()
    }

    /// How many orders are watched.
    pub(super) fn len(&self) -> usize {
        self.seen().len()
    }

    fn note(&self, order: &Order, what: Watched, now: Duration, look_again: Duration) -> Duration {
        let mut seen = self.seen();
        if let Some(sighting) = seen.get_mut(&order.key) {
            if sighting.what == what {
                if matches!(what, Watched::Absence(_)) {
                    sighting.look_again = look_again;
                }
                return now.saturating_sub(sighting.since);
            }
        } else if seen.len() >= AT_MOST {
            return Duration::ZERO;
        }
        let sighting = Sighting {
            what,
            since: now,
            look_again,
        };
        seen.insert(order.key.clone(), sighting);
        Duration::ZERO
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<OrderKey, Sighting>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long an upstream has answered without a break: without a failed exchange, and without a long silence in
/// between.
#[derive(Default)]
pub struct Contact(Mutex<Option<Unbroken>>);

#[derive(Clone, Copy)]
struct Unbroken {
    since: Duration,
    last: Duration,
}

impl Contact {
    /// Notes an answer. Returns how long the upstream has answered without a break.
    pub(super) fn answered(&self, now: Duration) -> Duration {
        let mut contact = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let unbroken = contact.filter(|contact| now.saturating_sub(contact.last) <= LONGEST_STANDSTILL);
        let since = unbroken.map_or(now, |contact| contact.since);
        *contact = Some(Unbroken { since, last: now });
        now.saturating_sub(since)
    }

    /// Notes an exchange without an answer, or with one that cannot be understood. The time begins anew.
    pub(super) fn missed(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
