//! A trace collector's address, and connections to it. Nothing but `telemetry/otlp/collector.rs` uses this file.

use std::sync::Arc;
use std::time::Duration;

use http::uri::{Scheme, Uri};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::dial::{ClientCertificate, TlsError, tls_config};

/// Scheme, host, port and base path of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// `Host` header: the authority as it was written.
    pub authority: String,
    /// What stands before every path; empty, or `/…` without a slash at the end.
    pub base_path: String,
}

/// Why a URL is no upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} {why}")]
pub struct TargetError {
    /// The URL as it was written.
    pub url: String,
    /// What is wrong, and what would be right.
    pub why: &'static str,
}

impl Target {
    /// Reads `http://host[:port][/base]` or `https://…`.
    ///
    /// # Errors
    /// When it is no such URL, or has a user, a query or a fragment, then [`TargetError`].
    pub fn parse(url: &str) -> Result<Self, TargetError> {
        let error = |why| TargetError {
            url: url.to_owned(),
            why,
        };
        let uri: Uri = url
            .parse()
            .map_err(|_| error("is not a URL: write http://host:port or https://host"))?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(error("must begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| error("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(error("must not carry a user or password"));
        }
        if uri.query().is_some() || url.contains('#') {
            return Err(error("must not have a query or a fragment"));
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        if host.is_empty() {
            return Err(error("has no host"));
        }
        // The parser takes `h:99999`, and says then that there is no port.
        let names_port = authority.as_str() != authority.host();
        let port = match (authority.port_u16(), tls) {
            (Some(port), _) => port,
            (None, _) if names_port => return Err(error("has a port that is not one")),
            (None, true) => 443,
            (None, false) => 80,
        };
        let base_path = uri.path().trim_end_matches('/').to_owned();
        Ok(Self {
            tls,
            host,
            port,
            authority: authority.as_str().to_owned(),
            base_path,
        })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}://{}{}",
            if self.tls { "https" } else { "http" },
            self.authority,
            self.base_path
        )
    }
}

/// Opens connections to one target.
#[derive(Clone)]
pub struct Dialer {
    target: Target,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
}

/// A connection of either kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Dialer {
    /// Prepares a dialer. `ca_pem` replaces the public roots; `timeout` covers name, TCP and TLS of one connection.
    ///
    /// # Errors
    /// When the CA, the certificate or the key cannot be used, then [`TlsError`].
    pub fn new(
        target: Target,
        ca_pem: Option<&str>,
        certificate: Option<&ClientCertificate>,
        timeout: Duration,
    ) -> Result<Self, TlsError> {
        let tls = if target.tls {
            let name = ServerName::try_from(target.host.clone())
                .map_err(|_| rustls::Error::General(format!("{} is no host name", target.host)))?;
            Some((
                TlsConnector::from(Arc::new(tls_config(ca_pem, certificate)?)),
                name,
            ))
        } else {
            None
        };
        Ok(Self { target, tls, timeout })
    }

    /// Offers this version of HTTP in the TLS greeting.
    #[must_use]
    pub fn offering(mut self, version: &str) -> Self {
        if let Some((connector, _)) = &mut self.tls {
            let mut config = rustls::ClientConfig::clone(connector.config());
            config.alpn_protocols = vec![version.as_bytes().to_vec()];
            *connector = TlsConnector::from(Arc::new(config));
        }
        self
    }

    /// The target.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// When the name, TCP or the TLS handshake fails or takes longer than the time-out, then what failed, in words for
    /// the operator. Nothing of any request was written then.
    pub async fn dial(&self) -> Result<Box<dyn Stream>, String> {
        match tokio::time::timeout(self.timeout, self.open()).await {
            Ok(opened) => opened,
            Err(_) => Err(format!(
                "{} was not connected within {} ms",
                self.target,
                self.timeout.as_millis()
            )),
        }
    }

    async fn open(&self) -> Result<Box<dyn Stream>, String> {
        let tcp = TcpStream::connect((self.target.host.as_str(), self.target.port))
            .await
            .map_err(|error| format!("{} cannot be connected: {error}", self.target))?;
        tcp.set_nodelay(true)
            .map_err(|error| format!("{}: {error}", self.target))?;
        match &self.tls {
            None => Ok(Box::new(tcp)),
            Some((connector, name)) => {
                let tls = connector.connect(name.clone(), tcp).await;
                Ok(Box::new(tls.map_err(|error| {
                    format!("{} refused TLS: {error}", self.target)
                })?))
            }
        }
    }
}
