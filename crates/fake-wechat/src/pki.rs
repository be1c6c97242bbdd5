//! The fake's certificates, generated at startup: a CA and a server certificate for this machine; client
//! certificates on demand.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

use super::Failure;

pub(super) struct Pki {
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
    server_pem: String,
    server_key: String,
}

impl Pki {
    pub(super) fn make() -> Result<Self, Failure> {
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.distinguished_name
            .push(DnType::CommonName, "payout-sidecar stub CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_pem = ca.self_signed(&ca_key)?.pem();
        let issuer = Issuer::new(ca, ca_key);
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        let (server_pem, server_key) =
            leaf(&issuer, names, "localhost", ExtendedKeyUsagePurpose::ServerAuth)?;
        Ok(Self {
            ca_pem,
            issuer,
            server_pem,
            server_key,
        })
    }

    pub(super) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    pub(super) fn client(&self, name: &str) -> Result<(String, String), Failure> {
        leaf(
            &self.issuer,
            Vec::new(),
            name,
            ExtendedKeyUsagePurpose::ClientAuth,
        )
    }

    /// Signs a certificate for `key` with this CA. Returns PEM.
    pub(super) fn signed(&self, params: CertificateParams, key: &KeyPair) -> Result<String, Failure> {
        let cert = params.signed_by(key, &self.issuer)?;
        Ok(cert.pem())
    }

    /// Accepts TLS with or without a client certificate. Each call decides whether it needs one.
    pub(super) fn acceptor(&self) -> Result<TlsAcceptor, Failure> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.ca_pem.as_bytes())?;
        roots.add(ca)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()?;
        let chain = CertificateDer::from_pem_slice(self.server_pem.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(self.server_key.as_bytes())?;
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![chain], key)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn leaf(
    issuer: &Issuer<'_, KeyPair>,
    names: Vec<String>,
    common_name: &str,
    usage: ExtendedKeyUsagePurpose,
) -> Result<(String, String), Failure> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.extended_key_usages = vec![usage];
    let cert = params.signed_by(&key, issuer)?;
    Ok((cert.pem(), key.serialize_pem()))
}

/// The common name of a certificate's subject.
pub(super) fn common_name(der: &[u8]) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let name = certificate
        .subject()
        .iter_common_name()
        .next()?
        .as_str()
        .ok()?
        .to_owned();
    Some(name)
}
