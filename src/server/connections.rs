//! The slots for the connections of one port. If there is none for a new connection, another one gives way.
//! [`Activity::standing`] ranks them: first connections with a slow head, then idle ones, then those that serve other
//! requests than contract calls; within a rank, the one on which nothing has moved for longest. A connection that has
//! just begun does not give way yet, and the newest waits for that. A connection with an unanswered contract call never
//! gives way; if all are such, the newest is closed.
//!
//! Upgraded connections are not counted: they have given up their slots, and the proxy's `Tunnels` limits them.

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

/// Why there is no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// No connection can give way now, but some have just begun and may soon.
    ForNow,
    /// Every connection has a contract call that waits for its response.
    OfPayouts,
}

/// A connection's slot. Dropping it frees the slot.
pub(super) struct ConnectionSlot {
    slots: Arc<ConnectionSlots>,
    number: u64,
}

impl ConnectionSlots {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a slot for a connection that costs `bytes` bytes.
    ///
    /// # Errors
    /// [`Full`] if there is no room and no connection can give way now; it says whether that will change.
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

    /// Asks all connections to end after their current requests.
    pub(super) fn finish(&self) {
        for taken in self.state().taken.values() {
            taken.activity.ask(Asked::ToFinish);
        }
    }
}

impl State {
    fn has_bytes(&self, more: u64, room: &Room) -> bool {
        // A single connection is always served, however little room there is.
        self.taken.is_empty() || self.bytes.saturating_add(more) <= room.bytes
    }

    /// Makes the connection that is first in line give way, but never number `but`.
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
    /// Enlarges the connection's slot by `more` bytes. Returns false if there is no room, or if the connection itself
    /// has been asked to give way.
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
    async fn the_idlest_gives_way_and_slots_come_back() {
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
        // The slot of a connection that gave way is not freed twice.
        drop(one);
        drop(other);
        let fourth = connect().await;
        let _slot = slots.take(&fourth, 10, &room).unwrap();
        assert!(!gives_way(&third));
        let state = slots.state();
        assert_eq!((state.taken.len(), state.bytes), (2, 20));
        drop(state);
        // A connection that has just begun does not give way.
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
