//! Asks a running sidecar's admin port, for the commands that are about it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::config::Config;
use crate::secret::Secret;

const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// Where the admin port is, and what it asks for.
pub(super) struct AdminPort {
    address: SocketAddr,
    token: Option<Secret>,
}

impl AdminPort {
    /// The same, to change something: for that the port asks for a token.
    pub(super) fn to_change(path: &Path) -> anyhow::Result<Self> {
        let port = Self::of(path)?;
        if port.token.is_none() {
            bail!(
                "nothing is changed over the admin port without a token: set one under [admin] in {}, e.g. \
                 token = {{ file = \"admin-token\" }}, with the output of: openssl rand -hex 32. A running sidecar reads it \
                 within seconds",
                path.display()
            );
        }
        Ok(port)
    }

    /// The admin port of the sidecar that runs with this configuration.
    pub(super) fn of(path: &Path) -> anyhow::Result<Self> {
        let config: Config = crate::config::load(path, crate::config::environment().into_iter())?;
        let mut address = config.admin.listen;
        if address.ip().is_unspecified() {
            // A wildcard is for listening; it is reached on this machine's own address.
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        Ok(Self {
            address,
            token: config.admin.token,
        })
    }

    /// Asks, and returns status and body.
    pub(super) async fn ask(&self, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, String)> {
        let asked = tokio::time::timeout(TIMEOUT, self.exchange(method, path, body)).await;
        asked.with_context(|| format!("{} did not answer within {} s", self.address, TIMEOUT.as_secs()))?
    }

    async fn exchange(&self, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, String)> {
        let address = self.address;
        if path.bytes().any(|byte| !byte.is_ascii_graphic()) {
            bail!("{path:?} cannot be asked for: it has blanks or control characters");
        }
        let connected = TcpStream::connect(address).await;
        let mut stream =
            connected.with_context(|| format!("{address} cannot be connected: is the sidecar running?"))?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
        if let Some(token) = &self.token {
            head.push_str(&format!("Authorization: Bearer {}\r\n", token.expose()));
        }
        head.push_str(&format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        stream.write_all(head.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(MAX_ANSWER_BYTES).read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let Some(status) = head.split(' ').nth(1).and_then(|status| status.parse().ok()) else {
            bail!("{address} did not answer in HTTP");
        };
        Ok((status, body.trim().to_owned()))
    }
}
