//! Asks a running sidecar's admin port, for the commands that are about it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use http::{Method, StatusCode};
use reqwest::{Client, RequestBuilder};

use crate::app::{configuration, misconfigured};
use crate::http::plain_client::plain_client;
use payout_domain::secret::Secret;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Where the admin port is, and what it asks for.
pub(super) struct AdminPort {
    address: SocketAddr,
    token: Option<Secret>,
    client: Client,
}

impl AdminPort {
    /// The same, to change something: for that the port asks for a token.
    pub(super) fn to_change(path: &Path) -> anyhow::Result<Self> {
        let port = Self::of(path)?;
        if port.token.is_none() {
            return Err(misconfigured(anyhow::anyhow!(
                "nothing is changed over the admin port without a token: set one under [admin] in {}, e.g. \
                 token = {{ file = \"admin-token\" }}, with the output of: openssl rand -hex 32. A running sidecar reads it \
                 within seconds",
                path.display()
            )));
        }
        Ok(port)
    }

    /// The admin port of the sidecar that runs with this configuration.
    pub(super) fn of(path: &Path) -> anyhow::Result<Self> {
        let config = configuration(path)?;
        let mut address = config.admin.listen;
        if address.ip().is_unspecified() {
            // A wildcard is for listening; it is reached on this machine's own address.
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        Ok(Self {
            address,
            token: config.admin.token,
            client: plain_client(TIMEOUT).map_err(anyhow::Error::from_boxed)?,
        })
    }

    /// A request that knows where it goes, and who asks.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self
            .client
            .request(method, format!("http://{}{path}", self.address));
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    /// Sends a request, and returns status and body.
    pub(super) async fn ask(&self, request: RequestBuilder) -> anyhow::Result<(StatusCode, String)> {
        let no_answer = || format!("{} does not answer: is the sidecar running?", self.address);
        let answer = request.send().await.with_context(no_answer)?;
        let status = answer.status();
        let body = answer.text().await.with_context(no_answer)?;
        Ok((status, body.trim().to_owned()))
    }
}
