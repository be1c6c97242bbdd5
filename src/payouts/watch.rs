//! What this process has itself seen pass over orders: for how long a claim has stood unchanged, and for how long an upstream
//! has said nothing but "no such order" while it answered all along. Document: specification, section 5.
//!
//! No moment that another process wrote down is compared with a clock here, since no two clocks agree and every clock may
//! step: time has passed over an order only if this process has seen the order before and after it, by its own monotonic
//! clock (the way of DynamoDB's lock client). A restart begins anew.
//!
//! The same table is the settler's agenda: when to look at an order again that is being watched.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use payout_domain::ids::{LedgerTime, OrderKey};
use payout_domain::order::{Order, State, Version};
use payout_domain::schedule::LONGEST_STANDSTILL;

/// How many orders are watched at once. More than these wait until some have gone.
const AT_MOST: usize = 100_000;

/// What this process watches.
#[derive(Default)]
pub(super) struct Watch {
    seen: Mutex<HashMap<OrderKey, Sighting>>,
}

#[derive(Clone, Copy)]
struct Sighting {
    what: Watched,
    /// When it was seen first, and when it is to be looked at again, by the process's monotonic clock.
    since: Duration,
    look_again: Duration,
}

#[derive(Clone, Copy, PartialEq)]
enum Watched {
    /// A claim: this very version.
    Claim(Version),
    /// "No such order": this unbroken hearing of it, named by its beginning as the record has it.
    Absence(LedgerTime),
}

impl Watch {
    /// For how long this version of a pending order has been seen here; notes it where it is seen for the first time.
    pub(super) fn of_claim(&self, order: &Order, now: Duration) -> Duration {
        let State::Pending(pending) = &order.state else {
            self.seen().remove(&order.key);
            return Duration::ZERO;
        };
        let again = now.saturating_add(pending.lease());
        self.note(order, Watched::Claim(order.version), now, again)
    }

    /// For how long "no such order" has been heard here about an unknown order, if the upstream says it once more now:
    /// never longer than `contact`, for how long the upstream has answered all along.
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

    /// Notes how an order stands after its upstream was asked: an absence is listened to from here on, to be asked about again
    /// after `pause`; everything else is no longer watched.
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

    /// The order is settled, gone, or another process's.
    pub(super) fn forget(&self, key: &OrderKey) {
        self.seen().remove(key);
    }

    /// Up to `limit` orders that are to be looked at again by now, each once.
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

/// For how long an upstream has answered all along: every exchange since then, with no long silence in between.
#[derive(Default)]
pub struct Contact(Mutex<Option<Unbroken>>);

#[derive(Clone, Copy)]
struct Unbroken {
    since: Duration,
    last: Duration,
}

impl Contact {
    /// The upstream has answered. Returns for how long it has done so all along.
    pub(super) fn answered(&self, now: Duration) -> Duration {
        let mut contact = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let unbroken = contact.filter(|contact| now.saturating_sub(contact.last) <= LONGEST_STANDSTILL);
        let since = unbroken.map_or(now, |contact| contact.since);
        *contact = Some(Unbroken { since, last: now });
        now.saturating_sub(since)
    }

    /// It has not answered, or not so that anybody could understand it.
    pub(super) fn missed(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
