//! The certificate and key of a merchant at WeChat Pay, v2 or v3: from `cert` and `key`, or from `p12`.

use std::sync::Arc;

use super::Entry;
use crate::config::certificate::{Certificate, CertificateError};
use crate::config::check::Check;
use crate::config::secret_ref::SecretRef;
use payout_domain::route::MerchantPattern;

impl Entry<'_> {
    /// Returns the certificate of `p12`, or of `cert` and `key` if the entry has both.
    pub(super) fn given_certificate(
        &self,
        pattern: &MerchantPattern,
        check: &mut Check<'_>,
    ) -> Option<Arc<Certificate>> {
        match (&self.raw.wechat.cert, &self.raw.wechat.key, &self.raw.wechat.p12) {
            (None, None, Some(p12)) => self.certificate_of_p12(p12, pattern, check),
            (_, _, Some(_)) => {
                let text = "stands instead of cert and key: remove it, or them";
                check.error(&self.at("p12"), text);
                None
            }
            (Some(cert), Some(key), None) => {
                let cert = check.secret(Some(cert), &self.at("cert"));
                let key = check.secret(Some(key), &self.at("key"));
                let read = Certificate::from_pem(cert?.expose(), key?.expose(), check.now);
                let blamed = match read {
                    Err(CertificateError::NoKey | CertificateError::UnusableKey) => "key",
                    Ok(_) | Err(_) => "cert",
                };
                check.certificate(read, &self.at(blamed), &self.name)
            }
            (_, _, None) => None,
        }
    }

    fn certificate_of_p12(
        &self,
        p12: &SecretRef,
        pattern: &MerchantPattern,
        check: &mut Check<'_>,
    ) -> Option<Arc<Certificate>> {
        let path = self.at("p12");
        let file = match p12 {
            SecretRef::File(file) => file,
            SecretRef::Text(_) | SecretRef::Env(_) => {
                check.error(&path, "is not text but a binary file: write { file = \"path\" }");
                return None;
            }
        };
        // The password is the merchant number. The check of `mch_id` reports a missing one.
        let mch_id = pattern.mch_id.as_ref()?;
        let bytes = check.bytes(file, &path)?;
        let read = Certificate::from_p12(&bytes, mch_id.as_str(), check.now);
        check.certificate(read, &path, &self.name)
    }
}
