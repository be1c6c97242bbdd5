//! Limits the control frames that a caller may send on an HTTP/2 connection: those that requests and responses justify,
//! and some more. A flood of SETTINGS, PING, PRIORITY, WINDOW_UPDATE, RST_STREAM, empty DATA or CONTINUATION frames
//! costs the caller nothing, and us a reply or a search each. The limit applies to their rate, not to their number.
//!
//! [`FrameAllowance`] is the rule. [`Frames`] reads just enough of the frames to count them as they arrive. Source: RFC
//! 9113, sections 3.4, 4.1, 6 and 10.5.

use std::io;
use std::sync::Weak;

use tokio::time::Instant;

use super::activity::Activity;
use super::budget::Room;
use super::connections::ConnectionSlot;

/// The most frames that an allowance can hold: a client may send some at once when it starts or resumes after a pause.
const MOST: u32 = 2000;
/// Frames that each second adds, for keep-alives and whatever else needs no justification.
const PER_SECOND: u32 = 200;
/// Frames that a request adds: the client may prioritise it, cancel it, and open its windows.
const PER_REQUEST: u32 = 10;
/// Frames that a frame of a response's body adds: gRPC measures bandwidth with a ping and two window updates for each.
const PER_ANSWER_FRAME: u32 = 4;

/// How many control frames the caller may still send.
#[derive(Debug)]
pub(super) struct FrameAllowance {
    left: u32,
    filled: Instant,
}

impl FrameAllowance {
    pub(super) fn full(now: Instant) -> Self {
        Self {
            left: MOST,
            filled: now,
        }
    }

    pub(super) fn earn_request(&mut self) {
        self.earn(PER_REQUEST);
    }

    pub(super) fn earn_frame(&mut self) {
        self.earn(PER_ANSWER_FRAME);
    }

    fn earn(&mut self, frames: u32) {
        self.left = self.left.saturating_add(frames).min(MOST);
    }

    /// Takes `frames` from the allowance. Returns false if too few are left, even with those that have accrued since
    /// the last refill.
    pub(super) fn spend(&mut self, frames: u32, now: Instant) -> bool {
        if frames > self.left {
            let passed = now.saturating_duration_since(self.filled).as_millis();
            let brought = passed.saturating_mul(u128::from(PER_SECOND)).checked_div(1000);
            self.earn(u32::try_from(brought.unwrap_or(0)).unwrap_or(MOST));
            self.filled = now;
        }
        let is_enough = frames <= self.left;
        self.left = self.left.saturating_sub(frames);
        is_enough
    }
}

/// The first bytes of a client. Source: RFC 9113, section 3.4.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;

/// Reads the heads of the frames after the preface, however the bytes are split.
#[derive(Debug)]
struct Reader {
    /// How many bytes to skip before the next head.
    payload: usize,
    head: Vec<u8>,
}

/// What some bytes contained.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    control: u32,
    has_data: bool,
}

impl Reader {
    fn new() -> Self {
        Self {
            payload: PREFACE.len(),
            head: Vec::with_capacity(FRAME_HEAD),
        }
    }

    fn read(&mut self, mut bytes: &[u8]) -> Seen {
        let mut seen = Seen::default();
        loop {
            bytes = self.pass(bytes);
            let Some((&first, rest)) = bytes.split_first() else {
                return seen;
            };
            self.head.push(first);
            if let [high, middle, low, kind, flags, _, _, _, _] = *self.head {
                self.payload = count([high, middle, low], kind, flags, &mut seen);
                self.head.clear();
            }
            bytes = rest;
        }
    }

    /// Skips payload. Returns the bytes after it.
    fn pass<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let step = self.payload.min(bytes.len());
        self.payload = self.payload.saturating_sub(step);
        bytes.get(step..).unwrap_or_default()
    }
}

/// Counts a frame by its head. Returns the length of its payload.
fn count([high, middle, low]: [u8; 3], kind: u8, flags: u8, seen: &mut Seen) -> usize {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const END_STREAM: u8 = 1;
    let length = u32::from_be_bytes([0, high, middle, low]);
    match (kind, length) {
        // A body often ends with an empty frame of its own.
        (DATA, 0) if flags & END_STREAM != 0 => {}
        (DATA, 1..) => seen.has_data = true,
        // A request or its trailers: streams have limits of their own.
        (HEADERS, _) => {}
        (_, _) => seen.control = seen.control.saturating_add(1),
    }
    usize::try_from(length).unwrap_or(usize::MAX)
}

/// The frames that arrive on a connection that is, or may become, HTTP/2.
pub(crate) struct Frames {
    reader: Reader,
    activity: Activity,
    /// Present until the first frames arrive.
    slot: Option<Wider>,
}

/// How a connection enlarges its slot for HTTP/2.
pub(super) struct Wider {
    pub(super) slot: Weak<ConnectionSlot>,
    /// By how many bytes.
    pub(super) by: u64,
    pub(super) room: Room,
}

impl Frames {
    /// Counts the frames of a connection, which enlarges its slot with `slot` when the first ones arrive.
    pub(super) fn new(activity: Activity, slot: Wider) -> Self {
        Self {
            reader: Reader::new(),
            activity,
            slot: Some(slot),
        }
    }

    /// Counts the frames in `bytes`, which begin with the preface.
    ///
    /// # Errors
    /// An error if there is no room for another HTTP/2 connection, or if the caller has sent too many control frames.
    pub(super) fn came(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(Wider { slot, by, room }) = self.slot.take()
            && !slot.upgrade().is_some_and(|slot| slot.grow(by, &room))
        {
            return Err(io::Error::other("there is no room for another HTTP/2 connection"));
        }
        let Seen { control, has_data } = self.reader.read(bytes);
        if has_data {
            self.activity.data_came();
        }
        if control > 0 && !self.activity.spend(control) {
            let text = "too many HTTP/2 control frames";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.extend(payload);
        frame
    }

    /// SETTINGS, a request with a body and trailers, and each kind of control frame.
    fn conversation() -> Vec<u8> {
        let frames = [
            frame(4, 0, &[0; 12]),
            frame(1, 4, b"head"),
            frame(0, 0, b"body"),
            frame(0, 1, b""),
            frame(1, 5, b"trailers"),
            frame(6, 0, &[0; 8]),
            frame(2, 0, &[0; 5]),
            frame(8, 0, &[0; 4]),
            frame(3, 0, &[0; 4]),
            frame(0, 0, b""),
            frame(9, 4, b"more"),
            frame(0xbe, 0, b"unknown"),
        ];
        [PREFACE.to_vec(), frames.concat()].concat()
    }

    proptest! {
        #[test]
        fn frames_are_counted_wherever_they_are_cut(pieces in prop::collection::vec(1usize..40, 1..40)) {
            let bytes = conversation();
            let (mut reader, mut control, mut has_data) = (Reader::new(), 0, false);
            let mut rest = bytes.as_slice();
            for piece in pieces.into_iter().chain([usize::MAX]) {
                let (now, later) = rest.split_at(piece.min(rest.len()));
                let seen = reader.read(now);
                control += seen.control;
                has_data |= seen.has_data;
                rest = later;
            }
            prop_assert_eq!((control, has_data), (8, true));
        }

        #[test]
        fn no_bytes_are_too_much_for_it(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            Reader::new().read(&[PREFACE, bytes.as_slice()].concat());
        }
    }

    #[test]
    fn a_flood_uses_the_ration_up_and_reasons_and_time_add_to_it() {
        let begun = Instant::now();
        let mut allowance = FrameAllowance::full(begun);
        assert!(allowance.spend(MOST, begun));
        assert!(!allowance.spend(1, begun));
        let later = begun + Duration::from_secs(1);
        assert!(allowance.spend(PER_SECOND, later));
        assert!(!allowance.spend(1, later));
        allowance.earn_request();
        assert!(allowance.spend(PER_REQUEST, later));
        allowance.earn_frame();
        assert!(allowance.spend(PER_ANSWER_FRAME, later));
        assert!(!allowance.spend(1, later));
        // The allowance has a maximum.
        let much_later = later + Duration::from_secs(3600);
        assert!(allowance.spend(MOST, much_later));
        assert!(!allowance.spend(1, much_later));
    }

    #[test]
    fn a_little_at_a_time_is_never_too_much() {
        let mut now = Instant::now();
        let mut allowance = FrameAllowance::full(now);
        for _ in 0..100_000 {
            now += Duration::from_millis(10);
            assert!(allowance.spend(2, now));
        }
    }
}
