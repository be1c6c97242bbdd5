//! Sends one HTTP/2 request made of arbitrary frames, and reads the response. Sources: RFC 9113, sections 4 and
//! 6; RFC 7541.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::h2::{DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, SETTINGS, frame};

const AT_MOST: Duration = Duration::from_secs(30);
const GOAWAY: u8 = 7;

/// A part of a request: a field section or content.
pub enum Part<'a> {
    Fields(&'a [(&'a str, &'a str)]),
    Data(&'a [u8]),
}

/// The response of the stream.
#[derive(Debug, Default)]
pub struct Told {
    pub status: u16,
    pub body: String,
    /// Whether the server reset the stream, or ended the connection.
    pub is_reset: bool,
}

impl Told {
    /// Whether the server refused the request as malformed, in one of the two permitted ways. Source: RFC 9113,
    /// section 8.1.1.
    pub fn is_malformed(&self) -> bool {
        self.status == 400 || (self.status == 0 && self.is_reset)
    }
}

fn integer(to: &mut Vec<u8>, mut number: usize) {
    if number < 127 {
        to.push(u8::try_from(number).unwrap());
        return;
    }
    to.push(127);
    number -= 127;
    while number >= 128 {
        to.push(u8::try_from(number % 128).unwrap() | 128);
        number /= 128;
    }
    to.push(u8::try_from(number).unwrap());
}

/// Encodes a field section of literals without indexing.
fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// The status in a response's field section, whose first field it is.
fn status(block: &[u8]) -> u16 {
    let text = match block {
        [indexed @ 0x88..=0x8e, ..] => {
            return [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)];
        }
        [0x48 | 0x08 | 0x18, length, rest @ ..] if length & 0x80 == 0 => {
            String::from_utf8(rest[..usize::from(*length)].to_vec()).unwrap()
        }
        // Huffman-coded digits: 0 to 2 take 5 bits, 3 to 9 take 6.
        [0x48 | 0x08 | 0x18, length, rest @ ..] => {
            let bits: String = rest[..usize::from(length & 0x7f)]
                .iter()
                .map(|byte| format!("{byte:08b}"))
                .collect();
            let mut digits = String::new();
            let mut at = 0;
            while digits.len() < 3 {
                let five = u32::from_str_radix(&bits[at..at + 5], 2).unwrap();
                if five <= 2 {
                    digits += &five.to_string();
                    at += 5;
                } else {
                    let six = u32::from_str_radix(&bits[at..at + 6], 2).unwrap();
                    digits += &(six - 0b011001 + 3).to_string();
                    at += 6;
                }
            }
            digits
        }
        other => panic!("a field section that does not begin with the status: {other:?}"),
    };
    text.parse().unwrap()
}

/// Sends one request on a new connection, with END_STREAM on the last part, and reads the response.
pub async fn ask(address: SocketAddr, parts: &[Part<'_>]) -> Told {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    all.extend(frame(SETTINGS, 0, 0, &[]));
    for (n, part) in parts.iter().enumerate() {
        let end = if n + 1 == parts.len() { END_STREAM } else { 0 };
        all.extend(match part {
            Part::Fields(fields) => frame(HEADERS, END_HEADERS | end, 1, &section(fields)),
            Part::Data(data) => frame(DATA, end, 1, data),
        });
    }
    let _written = stream.write_all(&all).await;
    tokio::time::timeout(AT_MOST, listen(&mut stream)).await.unwrap()
}

async fn listen(stream: &mut TcpStream) -> Told {
    let mut told = Told::default();
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            told.is_reset = true;
            return told;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).await.unwrap();
        let (kind, flags, id) = (head[3], head[4], head[8]);
        match kind {
            SETTINGS if flags == 0 => stream.write_all(&frame(SETTINGS, 1, 0, &[])).await.unwrap(),
            HEADERS if id == 1 && told.status == 0 => told.status = status(&payload),
            DATA if id == 1 => told.body += &String::from_utf8_lossy(&payload),
            RST_STREAM if id == 1 => {
                told.is_reset = true;
                return told;
            }
            GOAWAY => {
                told.is_reset = true;
                return told;
            }
            _ => {}
        }
        if id == 1 && matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            return told;
        }
    }
}
