//! Raw HTTP/1.1 over a socket, one request per connection. A test can send anything.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use payout_domain::xml::{Nested, decode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Answer {
    /// The fields of a contract response, decoded by its content type.
    pub fn fields(&self) -> BTreeMap<String, String> {
        let media = self.headers.get("content-type").map_or("", String::as_str);
        match media {
            "application/json; charset=utf-8" => {
                let object: BTreeMap<String, serde_json::Value> = serde_json::from_str(&self.body).unwrap();
                let text = |value: serde_json::Value| {
                    value
                        .as_str()
                        .expect("all values in answers are strings")
                        .to_owned()
                };
                object
                    .into_iter()
                    .map(|(name, value)| (name, text(value)))
                    .collect()
            }
            "application/xml; charset=utf-8" => {
                assert!(self.body.starts_with("<xml>"), "{}", self.body);
                let fields = decode(&self.body, Nested::Refuse).unwrap();
                fields
                    .iter()
                    .map(|(name, value)| (name.to_owned(), value.characters().to_owned()))
                    .collect()
            }
            other => panic!("{other}: {}", self.body),
        }
    }

    pub fn field(&self, name: &str) -> String {
        self.fields().get(name).cloned().unwrap_or_default()
    }

    /// `SUCCESS`, or the error code.
    pub fn code(&self) -> String {
        let fields = self.fields();
        fields
            .get("errCode")
            .or_else(|| fields.get("resultCode"))
            .cloned()
            .unwrap_or_default()
    }
}

/// Sends bytes and reads until the server closes. Returns `None` if there is no response.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(bytes).await.ok()?;
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all).await;
    let text = String::from_utf8_lossy(&all).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Some(Answer {
        status,
        headers,
        body: body.to_owned(),
    })
}

pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

pub async fn call(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    exchange(address, &request(method, path, headers, body))
        .await
        .expect("an answer")
}
