//! Where WebSocket frames begin and end, so that a close frame can be put between two of them. Nothing else of a frame is
//! looked at. Source: RFC 6455, sections 5.2 and 7.4.1.

/// What is read of a direction.
#[derive(Debug)]
pub(super) struct Frames {
    at: At,
    /// The frame that is being read is a close frame.
    is_close: bool,
    has_closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Between,
    /// The second byte comes next.
    Length,
    /// So many bytes of an extended length are to come; what was read of it; whether a mask follows.
    Extended {
        left: u8,
        length: u64,
        is_masked: bool,
    },
    /// So many bytes of mask and payload are to come.
    Payload(u64),
}

/// The bytes of a mask.
const MASK: u64 = 4;

impl Frames {
    pub(super) fn new() -> Self {
        Self {
            at: At::Between,
            is_close: false,
            has_closed: false,
        }
    }

    /// Whether the next byte begins a frame.
    pub(super) fn is_between(&self) -> bool {
        self.at == At::Between
    }

    /// Whether a close frame was seen to its end: no other frame may follow.
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

    /// Reads to the end of the frame that has begun. Returns the bytes up to there; all of them where it goes on.
    pub(super) fn read_frame<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let mut rest = bytes;
        while !rest.is_empty() && !self.is_between() {
            rest = self.step(rest);
        }
        let read = bytes.len().saturating_sub(rest.len());
        bytes.get(..read).unwrap_or(bytes)
    }

    /// Reads one byte of a head, or what there is of a payload. Returns what follows.
    fn step<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        const CLOSE: u8 = 8;
        let Some((&first, rest)) = bytes.split_first() else {
            return bytes;
        };
        match self.at {
            At::Between => {
                self.is_close = first & 0x0f == CLOSE;
                self.at = At::Length;
                rest
            }
            At::Length => {
                let is_masked = first & 0x80 != 0;
                let extended = |left| At::Extended {
                    left,
                    length: 0,
                    is_masked,
                };
                match first & 0x7f {
                    126 => self.at = extended(2),
                    127 => self.at = extended(8),
                    length => self.begin_payload(u64::from(length), is_masked),
                }
                rest
            }
            At::Extended {
                left,
                length,
                is_masked,
            } => {
                let length = (length << 8) | u64::from(first);
                match left.saturating_sub(1) {
                    0 => self.begin_payload(length, is_masked),
                    left => {
                        self.at = At::Extended {
                            left,
                            length,
                            is_masked,
                        };
                    }
                }
                rest
            }
            At::Payload(left) => {
                let step = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                self.await_payload(left.saturating_sub(u64::try_from(step).unwrap_or(u64::MAX)));
                bytes.get(step..).unwrap_or_default()
            }
        }
    }

    fn begin_payload(&mut self, length: u64, is_masked: bool) {
        self.await_payload(length.saturating_add(if is_masked { MASK } else { 0 }));
    }

    fn await_payload(&mut self, left: u64) {
        self.at = match left {
            0 => {
                self.has_closed |= self.is_close;
                At::Between
            }
            left => At::Payload(left),
        };
    }
}

/// A close frame that says 1001, "going away". Towards a server it must be masked, by a key that the peer cannot guess.
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
            let (mut reader, mut read) = (Frames::new(), 0);
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
            let mut reader = Frames::new();
            reader.read(&frame(1, 300, mask));
            let close = frame(8, 2, mask);
            reader.read(&close[..close.len() - 1]);
            assert!(!reader.has_closed() && !reader.is_between());
            reader.read(&close[close.len() - 1..]);
            assert!(reader.has_closed() && reader.is_between());
        }
        let mut reader = Frames::new();
        reader.read(&[0x88, 0]);
        assert!(reader.has_closed(), "one without a code");
    }

    #[test]
    fn going_away_is_a_close_frame() {
        for mask in [None, Some([9, 8, 7, 6])] {
            let mut reader = Frames::new();
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
