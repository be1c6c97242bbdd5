//! Sends requests to a running sidecar's admin port, for the commands that need one.

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

/// The address of the admin port, and the token for it.
pub(super) struct AdminPort {
    address: SocketAddr,
    token: Option<Secret>,
    client: Client,
}

impl AdminPort {
    /// Like [`AdminPort::of`], for requests that change something: the admin port accepts those only with a token.
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

    /// The admin port of the sidecar that runs with this configuration file.
    pub(super) fn of(path: &Path) -> anyhow::Result<Self> {
        let config = configuration(path)?;
        let mut address = config.admin.listen;
        if address.ip().is_unspecified() {
            // A wildcard address is only for listening; connect to this machine's loopback address instead.
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        Ok(Self {
            address,
            token: config.admin.token,
            client: plain_client(TIMEOUT).map_err(anyhow::Error::from_boxed)?,
        })
    }

    /// A request with address and token set.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self
            .client
            .request(method, format!("http://{}{path}", self.address));
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    /// Sends a request and returns status and body.
    pub(super) async fn ask(&self, request: RequestBuilder) -> anyhow::Result<(StatusCode, String)> {
        let no_answer = || format!("{} does not answer: is the sidecar running?", self.address);
        let answer = request.send().await.with_context(no_answer)?;
        let status = answer.status();
        let body = answer.text().await.with_context(no_answer)?;
        Ok((status, body.trim().to_owned()))
    }
}
