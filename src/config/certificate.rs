//! A certificate chain with its private key, read from PEM or PKCS#12. The two must belong together, and the
//! certificate must be valid now.
//!
//! These checks report a wrong file by name at startup. Without them the first payout would fail with WeChat's
//! `CA_ERROR`.

use std::fmt;
use std::time::Duration;

use p12_keystore::{KeyStore, Pkcs12ImportPolicy};
use rustls::InconsistentKeys;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use payout_domain::ids::Millis;
use payout_domain::wechat::v3::envelope::serial_no;

/// Why the sidecar cannot use a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// No certificate in the PEM text.
    #[error("holds no certificate in PEM: give the text from -----BEGIN CERTIFICATE----- on")]
    NoCertificate,
    /// No private key in the PEM text.
    #[error(
        "holds no private key in PEM: give the text from -----BEGIN PRIVATE KEY----- on, without a password"
    )]
    NoKey,
    /// The certificate does not parse.
    #[error("holds a certificate that cannot be read: take the file as WeChat Pay or your CA gave it")]
    Unreadable,
    /// The key does not parse or is of an unknown kind.
    #[error("holds a private key that cannot be used (RSA or ECDSA is needed)")]
    UnusableKey,
    /// Key and certificate belong to different pairs.
    #[error("the private key does not belong to the certificate: take both from the same download")]
    Mismatch,
    /// The PKCS#12 file cannot be opened.
    #[error("cannot be opened: take the file as WeChat Pay gave it (its password is the merchant number)")]
    P12,
    /// The certificate has expired.
    #[error("the certificate expired at {0}: put its successor there")]
    Expired(String),
    /// The certificate is not valid yet.
    #[error("the certificate is not valid before {0}: check this machine's clock")]
    NotYetValid(String),
}

/// A certificate chain and its private key. Dropping the last owner wipes the key; `Debug` does not print it.
pub struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    key: Zeroizing<PrivateKeyDer<'static>>,
    serial: String,
    not_after: Millis,
}

impl Certificate {
    /// Reads a chain (the merchant's or server's own certificate first) and its key.
    ///
    /// # Errors
    /// Returns [`CertificateError`] if one of the texts does not parse, if the key does not belong to the
    /// certificate, or if `now` lies outside the certificate's validity.
    pub fn from_pem(cert: &str, key: &str, now: Millis) -> Result<Self, CertificateError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(cert.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| CertificateError::NoCertificate)?;
        if chain.is_empty() {
            return Err(CertificateError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| CertificateError::NoKey)?;
        Self::new(chain, key, now)
    }

    /// Reads WeChat Pay's `apiclient_cert.p12`, whose password is the merchant number.
    ///
    /// # Errors
    /// Returns [`CertificateError::P12`] if the file does not open, otherwise the errors of
    /// [`Certificate::from_pem`].
    pub fn from_p12(p12: &[u8], password: &str, now: Millis) -> Result<Self, CertificateError> {
        let store = KeyStore::from_pkcs12(p12, password, Pkcs12ImportPolicy::Strict)
            .map_err(|_| CertificateError::P12)?;
        let (_, entry) = store.private_key_chain().ok_or(CertificateError::P12)?;
        let chain = entry
            .certs()
            .iter()
            .map(|cert| CertificateDer::from(cert.as_der().to_vec()))
            .collect();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(entry.key().as_der().to_vec()));
        Self::new(chain, key, now)
    }

    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        now: Millis,
    ) -> Result<Self, CertificateError> {
        let key = Zeroizing::new(key);
        let own = chain.first().ok_or(CertificateError::NoCertificate)?;
        let (_, parsed) = X509Certificate::from_der(own).map_err(|_| CertificateError::Unreadable)?;
        let serial = serial_no(&parsed);
        let validity = parsed.validity();
        let millis = |time: ASN1Time| Millis(time.timestamp().saturating_mul(1000));
        let (not_before, not_after) = (millis(validity.not_before), millis(validity.not_after));
        // `CertifiedKey::from_der` would copy the key and never wipe the copy.
        let signer = any_supported_type(&key).map_err(|_| CertificateError::UnusableKey)?;
        match CertifiedKey::new(chain.clone(), signer).keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => return Err(CertificateError::Mismatch),
            Err(_) => return Err(CertificateError::Unreadable),
        }
        if now > not_after {
            return Err(CertificateError::Expired(validity.not_after.to_string()));
        }
        if now < not_before {
            return Err(CertificateError::NotYetValid(validity.not_before.to_string()));
        }
        Ok(Self {
            chain,
            key,
            serial,
            not_after,
        })
    }

    /// The chain, own certificate first. Never empty.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.clone()
    }

    /// A copy of the key, for building a TLS configuration. The caller must wipe it.
    #[must_use]
    pub fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }

    /// The serial number of the own certificate in upper-case hexadecimal, as WeChat Pay shows it.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// When the own certificate expires.
    #[must_use]
    pub const fn not_after(&self) -> Millis {
        self.not_after
    }

    /// The whole days until the certificate expires, if it expires within `span` of `now`.
    pub(super) fn days_left_within(&self, span: Duration, now: Millis) -> Option<u64> {
        let left = self.not_after.since(now);
        (left < span).then(|| left.as_secs().checked_div(86_400).unwrap_or_default())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("serial", &self.serial)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Whether a PEM text holds at least one certificate and no broken PEM section.
pub(super) fn holds_certificates(pem: &str) -> bool {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .is_ok_and(|certificates| !certificates.is_empty())
}
