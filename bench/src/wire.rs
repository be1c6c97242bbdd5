//! Just enough HTTP/1.1 for a cheap load generator and upstream: whole messages with a Content-Length.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Reads messages from a connection, one after the other.
pub struct Reader<R> {
    stream: R,
    buffer: Vec<u8>,
    taken: usize,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub fn new(stream: R) -> Self {
        Self {
            stream,
            buffer: Vec::with_capacity(16 * 1024),
            taken: 0,
        }
    }

    /// The next message, as head and body. `None` at the end of the connection.
    pub async fn next(&mut self) -> io::Result<Option<(&[u8], &[u8])>> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        loop {
            if let Some(head) = end_of_head(&self.buffer) {
                let whole = head + length(&self.buffer[..head])?;
                if self.buffer.len() >= whole {
                    self.taken = whole;
                    let (head, rest) = self.buffer.split_at(head);
                    return Ok(Some((head, &rest[..whole - head.len()])));
                }
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "half a message"))
                };
            }
        }
    }
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

fn length(head: &[u8]) -> io::Result<usize> {
    let lower = head.to_ascii_lowercase();
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "a message without a Content-Length");
    let at = find(&lower, b"content-length:").ok_or_else(bad)?;
    let value = lower[at + 15..]
        .split(|byte| *byte == b'\r')
        .next()
        .unwrap_or_default();
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(bad)
}

pub fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// The bytes between two texts.
pub fn between<'a>(bytes: &'a [u8], before: &[u8], after: &[u8]) -> Option<&'a [u8]> {
    let from = find(bytes, before)? + before.len();
    let until = from + find(&bytes[from..], after)?;
    Some(&bytes[from..until])
}
