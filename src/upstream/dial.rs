//! Opens one connection: name, TCP, perhaps a proxy's tunnel, TLS. Everything that fails here fails before a byte of
//! a payout is written. Closing a connection resets it: what it still holds is never delivered.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tower::ServiceExt as _;

use crate::http::base_url::BaseUrl;
use crate::http::client_tls::TlsError;
use crate::http::line::OnLine;
use crate::telemetry::log::chain;

/// Opens connections to one upstream.
pub(super) struct Connector {
    pub(super) upstream: BaseUrl,
    tcp: HttpConnector,
    /// If set, the connection goes through a tunnel of this proxy.
    pub(super) proxy: Option<Uri>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
}

impl Connector {
    /// `timeout` covers name, TCP, tunnel and TLS of one connection. On Linux, the kernel also gives a connection up
    /// if the other side does not acknowledge written bytes for `answer_timeout`.
    pub(super) fn new(
        upstream: BaseUrl,
        tls: rustls::ClientConfig,
        timeout: Duration,
        answer_timeout: Duration,
    ) -> Result<Self, TlsError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        // One small request, one small answer: waiting for more bytes to send only costs time.
        tcp.set_nodelay(true);
        // A process that stands still closes nothing. Then the kernel gives the connection up by itself.
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(answer_timeout));
        let tls = if upstream.is_tls() {
            let (host, _) = upstream.host_and_port();
            let name = ServerName::try_from(host.to_owned())
                .map_err(|_| rustls::Error::General(format!("{host} is no host name")))?;
            Some((TlsConnector::from(Arc::new(tls)), name))
        } else {
            None
        };
        Ok(Self {
            upstream,
            tcp,
            proxy: None,
            tls,
            timeout,
        })
    }

    /// Opens a connection. An error is a text for the operator that follows the upstream's name.
    pub(super) async fn open(&self) -> Result<Connection, String> {
        match tokio::time::timeout(self.timeout, self.connect()).await {
            Ok(opened) => opened,
            Err(_) => Err(format!(
                "was not connected within {} ms",
                self.timeout.as_millis()
            )),
        }
    }

    async fn connect(&self) -> Result<Connection, String> {
        let unreachable = |error: &dyn std::error::Error| format!("cannot be connected: {}", chain(error));
        let (tcp, upstream) = (self.tcp.clone(), self.upstream.uri().clone());
        let tcp = match &self.proxy {
            None => tcp.oneshot(upstream).await.map_err(|error| unreachable(&error))?,
            Some(proxy) => {
                let tunnel = Tunnel::new(proxy.clone(), tcp).oneshot(upstream).await;
                tunnel.map_err(|error| unreachable(&error))?
            }
        };
        let tcp = tcp.into_inner();
        // Closing must reset: otherwise the kernel goes on sending what an abandoned request has left in its buffer,
        // and delivers it long after "no such order" was believed. A reset loses nothing: a connection closes only
        // once its answer was read, or when it is given up.
        tcp.set_zero_linger().map_err(|error| unreachable(&error))?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(tcp),
            Some((tls, name)) => {
                let tls = tls.connect(name.clone(), tcp).await;
                Box::new(tls.map_err(|error| format!("refused TLS: {error}"))?)
            }
        };
        Ok(OnLine::without_farewell(TokioIo::new(stream)))
    }
}

/// A connection of either kind. Dropping it resets it.
pub(super) type Connection = OnLine<TokioIo<Box<dyn Stream>>>;

/// TCP, or TLS on it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
