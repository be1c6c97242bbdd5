//! TLS for outgoing connections: the trusted roots, and a client certificate if there is one.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use zeroize::Zeroize as _;

use payout_domain::secret::Secret;

/// A merchant's client certificate with its key. Dropping it wipes the key.
#[derive(Debug)]
pub struct ClientCertificate {
    /// The certificate, followed by its chain if there is one.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key. Its `Debug` shows nothing secret.
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
    /// [`TlsError::Pem`] if either text contains none or a broken one.
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
    /// A PEM text contains no certificate or no key, or a broken one.
    #[error("{what} is not usable PEM: {source}")]
    Pem {
        /// Which text it is.
        what: &'static str,
        /// The parser's error.
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not fit, or rustls refuses them.
    #[error("the client certificate and its key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// The TLS configuration for an upstream, in versions 1.2 and 1.3. `ca_pem` replaces the public roots. Those are built
/// in, since the image has no certificate store.
///
/// # Errors
/// [`TlsError`] if the CA, the certificate or the key is unusable.
pub(crate) fn tls_config(
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
    // Pass the parsed key, not its bytes: rustls's `with_client_auth_cert` would take a copy that nothing wipes.
    let own = CertifiedKey::new(certificate.chain.clone(), any_supported_type(&certificate.key)?);
    own.keys_match()?;
    Ok(builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))))
}
