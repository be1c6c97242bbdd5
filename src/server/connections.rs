//! Who is connected: as many as there is room for. Where there is none for another, the one that would be missed least gives
//! way ([`Activity::standing`]): heads that take long, then connections that are idle, then those that are served what is no
//! contract call, the one on which nothing has moved for longest first. One that has just begun has its chance first, and the
//! newest waits for that. A connection with a contract call that has no answer yet never gives way. Where all are such, the newest is turned away. Upgraded connections are none of these: they have left, and
//! have places of their own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::activity::{Activity, Asked, Standing};
use super::budget::Room;

#[derive(Default)]
struct State {
    taken: HashMap<u64, Taken>,
    bytes: u64,
    next: u64,
}

struct Taken {
    activity: Activity,
    bytes: u64,
}

/// The connections of one port.
#[derive(Default)]
pub(super) struct ConnectionSlots {
    state: Mutex<State>,
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Connections that have just begun may give way in a moment.
    ForNow,
    /// Payouts wait on all of them.
    OfPayouts,
}

/// A connection's slot, which is free again once this is dropped.
pub(super) struct ConnectionSlot {
    slots: Arc<ConnectionSlots>,
    number: u64,
}

impl ConnectionSlots {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// ConnectionSlots a connection that costs so many bytes.
    ///
    /// # Errors
    /// When there is no room, and nobody who can give way now, then whether that will change.
    pub(super) fn take(
        self: &Arc<Self>,
        activity: &Activity,
        bytes: u64,
        room: &Room,
    ) -> Result<ConnectionSlot, Full> {
        let mut state = self.state();
        while state.taken.len() >= room.most || !state.has_bytes(bytes, room) {
            state.free_one(None)?;
        }
        let number = state.next;
        state.next = state.next.wrapping_add(1);
        state.bytes = state.bytes.saturating_add(bytes);
        let activity = activity.clone();
        state.taken.insert(number, Taken { activity, bytes });
        Ok(ConnectionSlot {
            slots: Arc::clone(self),
            number,
        })
    }

    /// Has all connections end after the requests at hand.
    pub(super) fn finish(&self) {
        for taken in self.state().taken.values() {
            taken.activity.ask(Asked::ToFinish);
        }
    }
}

impl State {
    fn has_bytes(&self, more: u64, room: &Room) -> bool {
        // A single connection is always served.
        self.taken.is_empty() || self.bytes.saturating_add(more) <= room.bytes
    }

    /// Has the one that is missed least give way, but not `but`.
    fn free_one(&mut self, but: Option<u64>) -> Result<(), Full> {
        let now = Instant::now();
        let (mut first, mut full) = (None, Full::OfPayouts);
        for (number, taken) in self.taken.iter().filter(|(number, _)| Some(**number) != but) {
            match taken.activity.standing(now) {
                Standing::Goes(missed) if first.is_none_or(|(least, _)| missed < least) => {
                    first = Some((missed, *number));
                }
                Standing::Goes(_) | Standing::Stays => {}
                Standing::Soon => full = Full::ForNow,
            }
        }
        let (_, number) = first.ok_or(full)?;
        if let Some(taken) = self.remove(number) {
            taken.activity.ask(Asked::ToGo);
        }
        Ok(())
    }

    fn remove(&mut self, number: u64) -> Option<Taken> {
        let taken = self.taken.remove(&number)?;
        self.bytes = self.bytes.saturating_sub(taken.bytes);
        Some(taken)
    }
}

impl ConnectionSlot {
    /// Gives the connection a larger slot, now that it costs so many bytes more. False: there is no room, or it has been
    /// asked to give way itself.
    #[must_use]
    pub(super) fn grow(&self, more: u64, room: &Room) -> bool {
        let mut state = self.slots.state();
        while state.taken.len() > 1 && !state.has_bytes(more, room) {
            if state.free_one(Some(self.number)).is_err() {
                return false;
            }
        }
        let Some(taken) = state.taken.get_mut(&self.number) else {
            return false;
        };
        taken.bytes = taken.bytes.saturating_add(more);
        state.bytes = state.bytes.saturating_add(more);
        true
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        drop(self.slots.state().remove(self.number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(most: usize, bytes: u64) -> Room {
        Room {
            most,
            bytes,
            head: 1,
            streams: 1,
        }
    }

    /// Whether it has been asked to give way.
    fn gives_way(activity: &Activity) -> bool {
        futures_util::FutureExt::now_or_never(activity.must_go()).is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn the_idlest_gives_way_and_seats_come_back() {
        let slots = Arc::new(ConnectionSlots::default());
        let connect = async || {
            let activity = Activity::new(true);
            activity.looked_at();
            tokio::time::sleep(std::time::Duration::from_millis(600)).await;
            activity
        };
        let (first, second, third) = (connect().await, connect().await, connect().await);
        let room = room(2, 1000);
        let one = slots.take(&first, 10, &room).unwrap();
        let other = slots.take(&second, 10, &room).unwrap();
        let _newest = slots.take(&third, 10, &room).unwrap();
        assert!(gives_way(&first) && !gives_way(&second) && !gives_way(&third));
        // The slot of one that gave way is not given back twice.
        drop(one);
        drop(other);
        let fourth = connect().await;
        let _seat = slots.take(&fourth, 10, &room).unwrap();
        assert!(!gives_way(&third));
        let state = slots.state();
        assert_eq!((state.taken.len(), state.bytes), (2, 20));
        drop(state);
        // One that has just begun has its chance.
        let (begun, one_more) = (Activity::new(true), Activity::new(true));
        let _begun = slots.take(&begun, 10, &room).unwrap();
        let _one_more = slots.take(&one_more, 10, &room).unwrap();
        assert!(gives_way(&third) && gives_way(&fourth));
        let newest = Activity::new(true);
        assert_eq!(slots.take(&newest, 10, &room).err(), Some(Full::ForNow));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_count_as_well() {
        let slots = Arc::new(ConnectionSlots::default());
        let room = room(100, 100);
        let (small, large, larger) = (Activity::new(true), Activity::new(true), Activity::new(true));
        for activity in [&small, &large, &larger] {
            activity.looked_at();
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let slot = slots.take(&small, 40, &room).unwrap();
        let _other = slots.take(&large, 60, &room).unwrap();
        assert!(slot.grow(30, &room), "another makes room");
        assert!(gives_way(&large) && !gives_way(&small));
        let _all = slots.take(&larger, 100, &room).unwrap();
        assert!(gives_way(&small));
        assert!(!slot.grow(1, &room), "it has had to go");
        let huge = Activity::new(true);
        assert!(
            slots.take(&huge, 1000, &room).is_ok(),
            "a single one is always served"
        );
    }
}
