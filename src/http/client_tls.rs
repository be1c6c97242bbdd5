//! How TLS is spoken to those whom we call: the roots that are trusted, and a client certificate where one is asked for.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use zeroize::Zeroize as _;

use payout_domain::secret::Secret;

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

/// How TLS is spoken to an upstream, in versions 1.2 and 1.3. `ca_pem` replaces the public roots, which are built in, since
/// the image has no store.
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
