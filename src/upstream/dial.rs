//! Opens one connection: name, TCP, TLS. Everything that fails here fails before a byte of a payout is written, and what a
//! connection still holds when it is given up is delivered to nobody.

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroize as _;

use super::target::Target;
use crate::secret::Secret;

/// A merchant's client certificate with its key, which is wiped when this is dropped.
#[derive(Debug)]
pub struct ClientCertificate {
    /// The certificate, followed by its chain if there is one.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key. Its `Debug` shows nothing of it.
    pub key: PrivateKeyDer<'static>,
}

impl Drop for ClientCertificate {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl ClientCertificate {
    /// Reads both from PEM.
    ///
    /// # Errors
    /// When either text holds none or a broken one, then [`TlsError::Pem`].
    pub fn from_pem(cert: &Secret, key: &Secret) -> Result<Self, TlsError> {
        let chain = CertificateDer::pem_slice_iter(cert.expose().as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| TlsError::Pem {
                what: "the client certificate",
                source,
            })?;
        let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).map_err(|source| TlsError::Pem {
            what: "the client certificate's key",
            source,
        })?;
        Ok(Self { chain, key })
    }
}

/// Why TLS could not be set up from the configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM text holds no certificate or no key, or a broken one.
    #[error("{what} is not usable PEM: {source}")]
    Pem {
        /// Which of them.
        what: &'static str,
        /// The reader's word.
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not fit, or rustls refuses them.
    #[error("the client certificate and its key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// Opens connections to one target.
#[derive(Clone)]
pub struct Dialer {
    target: Target,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
    answer_timeout: Option<Duration>,
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
        Ok(Self {
            target,
            tls,
            timeout,
            answer_timeout: None,
        })
    }

    /// Lets the kernel, too, give a connection up when what was written to it is not acknowledged for so long.
    #[must_use]
    pub fn giving_up_after(self, answer_timeout: Duration) -> Self {
        Self {
            answer_timeout: Some(answer_timeout),
            ..self
        }
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
        self.set_options(&tcp)
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

    fn set_options(&self, tcp: &TcpStream) -> std::io::Result<()> {
        // One small request, one small answer: waiting for more to send only costs time.
        tcp.set_nodelay(true)?;
        // Closing resets: the kernel would otherwise go on sending what an abandoned request has left in its buffer, and
        // deliver it long after "no such order" was believed. Nothing is lost by it: a connection is closed only once its
        // answer was read, or when it is given up.
        tcp.set_zero_linger()?;
        // A process that stands still closes nothing; then the kernel gives up by itself.
        #[cfg(target_os = "linux")]
        if self.answer_timeout.is_some() {
            socket2::SockRef::from(tcp).set_tcp_user_timeout(self.answer_timeout)?;
        }
        Ok(())
    }
}

/// Roots: the given CA, else the public ones that are built in, since the image has no store. TLS 1.2 and 1.3.
///
/// # Errors
/// When the CA, the certificate or the key cannot be used, then [`TlsError`].
pub fn tls_config(
    ca_pem: Option<&str>,
    certificate: Option<&ClientCertificate>,
) -> Result<rustls::ClientConfig, TlsError> {
    let mut roots = rustls::RootCertStore::empty();
    match ca_pem {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                roots.add(certificate.map_err(|source| TlsError::Pem {
                    what: "the CA",
                    source,
                })?)?;
            }
            if roots.is_empty() {
                return Err(TlsError::Unusable(rustls::Error::General(
                    "the CA file holds no certificate".into(),
                )));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let Some(certificate) = certificate else {
        return Ok(builder.with_no_client_auth());
    };
    // By the key itself, since the library takes a copy over that nobody wipes.
    let own = CertifiedKey::new(certificate.chain.clone(), any_supported_type(&certificate.key)?);
    own.keys_match()?;
    Ok(builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpSocket;

    use super::*;

    /// What a process wrote that then stands still: nobody closes its connection.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_kernel_gives_up_after_the_time_out_by_itself() {
        let listener = TcpSocket::new_v4().unwrap();
        // Less than what is written, which then waits in our kernel.
        listener.set_recv_buffer_size(4096).unwrap();
        listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listener.listen(1).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let connect = Duration::from_secs(3);
        let dialer = Dialer::new(Target::parse(&url).unwrap(), None, None, connect).unwrap();
        let mut ours = dialer
            .giving_up_after(Duration::from_millis(200))
            .dial()
            .await
            .unwrap();
        let (mut theirs, _) = listener.accept().await.unwrap();
        let written = vec![7; 16 << 20];
        let given_up = tokio::time::timeout(Duration::from_secs(20), ours.write_all(&written)).await;
        assert_eq!(
            given_up.unwrap().unwrap_err().kind(),
            std::io::ErrorKind::TimedOut
        );
        let mut delivered = Vec::new();
        let read = theirs.read_to_end(&mut delivered).await;
        assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        assert!(delivered.len() < written.len() / 2, "{}", delivered.len());
    }

    #[test]
    fn the_built_in_roots_hold_wechat_pays() {
        let name = b"DigiCert Global Root G2";
        let holds = webpki_roots::TLS_SERVER_ROOTS
            .iter()
            .any(|root| root.subject.windows(name.len()).any(|part| part == name));
        assert!(
            holds,
            "without it WeChat Pay cannot be reached from an image that has no root store"
        );
    }
}
