//! TLS for callers: the server's certificate, and with `client_ca` the check of the callers' certificates. The setting
//! is `[server] tls` in `config.toml`.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};
use zeroize::Zeroizing;

use crate::config::{ClientName, ServerTls};

/// The ALPN protocols on offer, the preferred one first.
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The CA of the callers' certificates is unusable.
    #[error("server.tls.client_ca: {0}")]
    ClientCa(String),
    /// rustls refuses the certificate, the key or both.
    #[error("server.tls: {0}")]
    Unusable(#[from] rustls::Error),
}

/// Sets up TLS 1.2 and 1.3. With `client_ca`, the handshake refuses a caller unless its certificate is issued by that
/// CA, is for clients, and carries one of `client_names`, if there are any.
///
/// # Errors
/// [`TlsError`] if the CA or the certificate is unusable.
pub(crate) fn acceptor(tls: &ServerTls) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match &tls.client_ca_pem {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pem)?), provider)
                .build()
                .map_err(|error| TlsError::ClientCa(error.to_string()))?;
            builder.with_client_cert_verifier(Arc::new(Callers {
                issued: verifier,
                names: tls.client_names.clone(),
            }))
        }
    };
    let key = Zeroizing::new(tls.certificate.key());
    let own = CertifiedKey::new(tls.certificate.chain(), any_supported_type(&key)?);
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The verifier of callers' certificates.
struct Callers {
    /// Requires a valid certificate that the CA issued.
    issued: Arc<dyn ClientCertVerifier>,
    /// The certificate must carry one of these names, unless the list is empty.
    names: Vec<ClientName>,
}

impl Callers {
    /// Checks that a certificate issued by the CA is for clients (RFC 5280, section 4.2.1.12) and carries a known name.
    /// The subject's common name does not count (RFC 9525, section 2).
    fn admit(&self, certificate: &CertificateDer<'_>) -> Result<(), CertificateError> {
        let (_, certificate) =
            X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let usage = certificate
            .extended_key_usage()
            .map_err(|_| CertificateError::BadEncoding)?;
        if !usage.is_some_and(|usage| usage.value.client_auth) {
            return Err(CertificateError::InvalidPurpose);
        }
        if self.names.is_empty() {
            return Ok(());
        }
        let carried = certificate
            .subject_alternative_name()
            .map_err(|_| CertificateError::BadEncoding)?;
        let carried = carried.iter().flat_map(|names| &names.value.general_names);
        let is_known = carried
            .into_iter()
            .any(|name| self.names.iter().any(|known| is_same(known, name)));
        is_known.then_some(()).ok_or(CertificateError::NotValidForName)
    }
}

/// Compares byte for byte, DNS names without regard to case. A wildcard in a certificate matches nothing, since the
/// configuration accepts none.
fn is_same(known: &ClientName, carried: &GeneralName<'_>) -> bool {
    match known {
        ClientName::Dns(known) => {
            matches!(carried, GeneralName::DNSName(name) if name.eq_ignore_ascii_case(known))
        }
        ClientName::Uri(known) => matches!(carried, GeneralName::URI(uri) if uri == known),
    }
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callers")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl ClientCertVerifier for Callers {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.issued.verify_client_cert(end_entity, intermediates, now)?;
        self.admit(end_entity)?;
        Ok(verified)
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.issued.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.issued.client_auth_mandatory()
    }

    fn offer_client_auth(&self) -> bool {
        self.issued.offer_client_auth()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.issued.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.issued.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.issued.supported_verify_schemes()
    }
}

fn roots(pem: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| TlsError::ClientCa(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| TlsError::ClientCa(error.to_string()))?;
    }
    Ok(roots)
}

/// Whether both sides agreed on HTTP/2.
#[must_use]
pub(crate) fn is_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(HTTP2)
}
