//! Finds where WebSocket frames begin and end, so that the tunnel can put a close frame between two of them. It reads
//! nothing else of a frame. Source: RFC 6455, sections 5.2 and 7.4.1.

/// The state of one direction.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The bytes of a frame's head that have arrived.
    head: Vec<u8>,
    /// How many bytes of mask and payload are still to come.
    payload: u64,
    /// Whether the current frame is a close frame.
    is_close: bool,
    has_closed: bool,
}

impl Frames {
    /// Whether the next byte begins a frame.
    pub(super) fn is_between(&self) -> bool {
        self.head.is_empty() && self.payload == 0
    }

    /// Whether a whole close frame has passed; no frame may follow it.
    pub(super) fn has_closed(&self) -> bool {
        self.has_closed
    }

    /// Reads all of the bytes.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = self.step(rest);
        }
    }

    /// Reads to the end of the current frame. Returns the bytes up to there, or all of them if the frame continues.
    pub(super) fn read_frame<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let mut rest = bytes;
        while !rest.is_empty() && !self.is_between() {
            rest = self.step(rest);
        }
        let read = bytes.len().saturating_sub(rest.len());
        bytes.get(..read).unwrap_or(bytes)
    }

    /// Reads one byte of a head, or the available part of a payload. Returns what follows.
    fn step<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        const CLOSE: u8 = 8;
        let step = if self.payload == 0 {
            self.head.extend(bytes.first());
            if let Some(payload) = payload(&self.head) {
                self.is_close = self.head.first().is_some_and(|first| first & 0x0f == CLOSE);
                self.payload = payload;
                self.head.clear();
            }
            1
        } else {
            let step = usize::try_from(self.payload)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            self.payload = self
                .payload
                .saturating_sub(u64::try_from(step).unwrap_or(u64::MAX));
            step
        };
        self.has_closed |= self.is_close && self.is_between();
        bytes.get(step..).unwrap_or_default()
    }
}

/// How many bytes follow a head, including its mask; `None` if the head is incomplete.
fn payload(head: &[u8]) -> Option<u64> {
    const MASK: u64 = 4;
    let [_, second, extended @ ..] = head else {
        return None;
    };
    let length = match second & 0x7f {
        126 => u64::from(u16::from_be_bytes(extended.try_into().ok()?)),
        127 => u64::from_be_bytes(extended.try_into().ok()?),
        length => u64::from(length),
    };
    Some(length.saturating_add(if second & 0x80 == 0 { 0 } else { MASK }))
}

/// A close frame with code 1001, "going away". To a server it must be masked, with a key that the peer cannot guess.
pub(super) fn going_away(mask: Option<[u8; 4]>) -> Vec<u8> {
    const CODE: [u8; 2] = 1001u16.to_be_bytes();
    let mut frame = vec![0x88];
    match mask {
        None => {
            frame.push(2);
            frame.extend(CODE);
        }
        Some(mask) => {
            frame.push(0x82);
            frame.extend(mask);
            frame.extend(CODE.iter().zip(mask).map(|(byte, key)| byte ^ key));
        }
    }
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(opcode: u8, length: usize, mask: bool) -> Vec<u8> {
        let bit = if mask { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match length {
            0..126 => frame.push(bit | u8::try_from(length).unwrap()),
            126..65_536 => {
                frame.push(bit | 126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(bit | 127);
                frame.extend(u64::try_from(length).unwrap().to_be_bytes());
            }
        }
        if mask {
            frame.extend([1, 2, 3, 4]);
        }
        // Payloads that look like close frames.
        frame.extend(vec![0x88; length]);
        frame
    }

    proptest! {
        #[test]
        fn frames_end_where_they_end(
            frames in prop::collection::vec((0u8..8, prop_oneof![0usize..200, 65_000usize..66_000], any::<bool>()), 1..6),
            pieces in prop::collection::vec(1usize..70_000, 1..60),
        ) {
            let each: Vec<Vec<u8>> = frames.iter().map(|(opcode, length, mask)| frame(*opcode, *length, *mask)).collect();
            let all = each.concat();
            let mut ends: Vec<usize> = each.iter().scan(0, |end, frame| { *end += frame.len(); Some(*end) }).collect();
            ends.insert(0, 0);
            let (mut reader, mut read) = (Frames::default(), 0);
            for piece in pieces {
                let piece = &all[read..(read + piece).min(all.len())];
                reader.read(piece);
                read += piece.len();
                prop_assert_eq!(reader.is_between(), ends.contains(&read));
            }
            let end = ends.iter().copied().find(|end| *end >= read).unwrap();
            prop_assert_eq!(reader.read_frame(&all[read..]), &all[read..end]);
            prop_assert!(!reader.has_closed());
        }
    }

    #[test]
    fn a_close_frame_is_seen_when_it_is_over() {
        for mask in [false, true] {
            let mut reader = Frames::default();
            reader.read(&frame(1, 300, mask));
            let close = frame(8, 2, mask);
            reader.read(&close[..close.len() - 1]);
            assert!(!reader.has_closed() && !reader.is_between());
            reader.read(&close[close.len() - 1..]);
            assert!(reader.has_closed() && reader.is_between());
        }
        let mut reader = Frames::default();
        reader.read(&[0x88, 0]);
        assert!(reader.has_closed(), "one without a code");
    }

    #[test]
    fn going_away_is_a_close_frame() {
        for mask in [None, Some([9, 8, 7, 6])] {
            let mut reader = Frames::default();
            reader.read(&going_away(mask));
            assert!(reader.has_closed() && reader.is_between());
        }
        assert_eq!(going_away(None), [0x88, 2, 0x03, 0xe9]);
        assert_eq!(
            going_away(Some([1, 0, 0, 0])),
            [0x88, 0x82, 1, 0, 0, 0, 0x02, 0xe9]
        );
    }
}
