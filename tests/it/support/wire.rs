//! A backend with scripted answers in raw bytes, a sidecar in front of it, and raw requests to that sidecar. Bytes are
//! shown as one character each, so that none is lost.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::sidecar::{Sidecar, embedded};

/// Limit for each step; enough for a busy machine.
const AT_MOST: Duration = Duration::from_secs(30);

/// One character for each byte.
pub fn shown(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// One byte for each character.
pub fn bytes(shown: &str) -> Vec<u8> {
    shown
        .chars()
        .map(|c| u8::try_from(c).expect("one byte for each character"))
        .collect()
}

#[derive(Default)]
struct Script {
    answer: String,
    seen: Vec<String>,
}

/// Answers every request with the same bytes, and records what it received.
pub struct Backend {
    pub address: String,
    script: Arc<Mutex<Script>>,
}

/// At the end of an answer: the backend closes the connection.
pub const HANGS_UP: char = '\u{1}';

impl Backend {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let script = Arc::new(Mutex::new(Script {
            answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(),
            seen: Vec::new(),
        }));
        let shared = script.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let script = shared.clone();
                tokio::spawn(async move {
                    while let Some(request) = read(&mut stream).await {
                        let answer = {
                            let mut script = script.lock().unwrap();
                            script.seen.push(shown(&request));
                            script.answer.clone()
                        };
                        let whole = answer.trim_end_matches(HANGS_UP);
                        if stream.write_all(&bytes(whole)).await.is_err() || whole != answer {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, script }
    }

    pub fn answers(&self, answer: &str) {
        self.script.lock().unwrap().answer = answer.to_owned();
    }

    /// The requests since the last call.
    pub fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.script.lock().unwrap().seen)
    }

    /// Starts a sidecar that proxies to this backend.
    pub async fn sidecar(&self, server: &str) -> Sidecar {
        let dir = tempfile::tempdir().unwrap();
        let configuration = format!(
            "[server]\n{server}\n{}[backend]\nurl = \"http://{}\"\n[[merchant]]\nmch_id = \"*\"\nto = \"handler\"\n\
             handler_url = \"http://{}\"\n",
            embedded(&dir),
            self.address,
            self.address
        );
        Sidecar::start_in(dir, &configuration, &[]).await
    }
}

/// Reads a request as its framing says.
async fn read(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    while !all.ends_with(b"\r\n\r\n") {
        all.push(stream.read_u8().await.ok()?);
    }
    let head = shown(&all).to_ascii_lowercase();
    if head.contains("\r\ntransfer-encoding: chunked\r\n") {
        let start = all.len();
        while !(all.ends_with(b"\r\n\r\n") && is_last_chunk(&all[start..])) {
            all.push(stream.read_u8().await.ok()?);
        }
    } else if let Some((_, rest)) = head.split_once("\r\ncontent-length: ") {
        let length: usize = rest.split("\r\n").next()?.parse().ok()?;
        for _ in 0..length {
            all.push(stream.read_u8().await.ok()?);
        }
    }
    Some(all)
}

fn is_last_chunk(body: &[u8]) -> bool {
    body.starts_with(b"0\r\n") || body.windows(5).any(|part| part == b"\r\n0\r\n")
}

/// Sends bytes, and reads until the sidecar closes.
pub async fn tell(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The sidecar may refuse and close before everything is written.
    let _written = stream.write_all(&bytes(request)).await;
    let mut told = Vec::new();
    let ended = tokio::time::timeout(AT_MOST, stream.read_to_end(&mut told)).await;
    assert!(
        ended.is_ok(),
        "the connection stays open after {:?}",
        shown(&told)
    );
    shown(&told)
}

/// The status of the first answer; 0 if there is none.
pub fn status(told: &str) -> u16 {
    told.get(9..12)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0)
}

/// The values of a field in a head, in order.
pub fn values<'a>(message: &'a str, name: &str) -> Vec<&'a str> {
    let head = message.split("\r\n\r\n").next().unwrap();
    head.split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .filter(|(given, _)| given.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
        .collect()
}
