//! `payout-sidecar healthcheck`: asks the admin port, for probes in an image without a shell.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Ending;

const TIMEOUT: Duration = Duration::from_secs(3);

pub(super) async fn check(path: &Path, live: bool) -> Ending {
    let config = match crate::config::load(path, crate::config::environment().into_iter()) {
        Ok(config) => config,
        Err(errors) => return Ending::Misconfigured(errors.into()),
    };
    let mut address = config.admin.listen;
    if address.ip().is_unspecified() {
        // A wildcard is for listening; it is reached on this machine's own address.
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let asked = tokio::time::timeout(TIMEOUT, ask(address, if live { "/livez" } else { "/readyz" })).await;
    match asked {
        Ok(Ok(())) => Ending::Done,
        Ok(Err(error)) => Ending::Failed(error),
        Err(_) => Ending::Failed(anyhow::anyhow!(
            "{address} did not answer within {} s",
            TIMEOUT.as_secs()
        )),
    }
}

async fn ask(address: std::net::SocketAddr, path: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("{address} cannot be connected"))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    bail!("{path}: {}", body.trim())
}
