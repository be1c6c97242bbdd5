//! Decrypts what WeChat Pay encrypts under the merchant's APIv3 key: notifications and platform certificates
//! (`docs/wechat-pay.md`, notifications). Signatures are in [`sign`](super::sign).

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data_encoding::HEXUPPER;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::sign::VerifyingKey;
use crate::ids::Millis;

/// The only algorithm that WeChat Pay documents.
const ALGORITHM: &str = "AEAD_AES_256_GCM";
/// The event of a bill that has reached its final state.
const BILL_FINISHED: &str = "MCHTRANSFER.BILL.FINISHED";

/// A merchant's APIv3 key. `Debug` does not reveal it.
pub struct Apiv3Key(LessSafeKey);

impl Apiv3Key {
    /// Takes a key of exactly 32 bytes; `None` for any other.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let key = UnboundKey::new(&AES_256_GCM, text.as_bytes()).ok()?;
        Some(Self(LessSafeKey::new(key)))
    }

    /// Decrypts a ciphertext (base64, with its tag at the end).
    ///
    /// # Errors
    /// [`Unopened`] if the algorithm is another one, the nonce is not 12 bytes, or the text is not base64 or was
    /// not encrypted under this key.
    pub fn open(&self, sealed: &Sealed) -> Result<Vec<u8>, Unopened> {
        if sealed.algorithm != ALGORITHM {
            return Err(Unopened::Algorithm);
        }
        let nonce = Nonce::try_assume_unique_for_key(sealed.nonce.as_bytes()).map_err(|_| Unopened::Nonce)?;
        let mut text = STANDARD
            .decode(&sealed.ciphertext)
            .map_err(|_| Unopened::Base64)?;
        let aad = Aad::from(sealed.associated_data.as_bytes());
        let open = self
            .0
            .open_in_place(nonce, aad, &mut text)
            .map_err(|_| Unopened::Key)?;
        Ok(open.to_vec())
    }
}

impl fmt::Debug for Apiv3Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[APIv3 key]")
    }
}

/// An encrypted text, as WeChat Pay sends it.
#[derive(Clone, Debug, Deserialize)]
pub struct Sealed {
    /// The name of the algorithm.
    pub algorithm: String,
    /// Base64 of ciphertext and tag.
    pub ciphertext: String,
    /// The data that is authenticated with it; may be empty or absent.
    #[serde(default)]
    pub associated_data: String,
    /// The nonce: 12 bytes of text.
    pub nonce: String,
}

/// Why an encrypted text was not decrypted or not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// Another algorithm.
    #[error("its algorithm is not AEAD_AES_256_GCM")]
    Algorithm,
    /// A nonce of another length.
    #[error("its nonce is not of 12 bytes")]
    Nonce,
    /// Not base64.
    #[error("its ciphertext is not base64")]
    Base64,
    /// Encrypted under another key, or changed.
    #[error("it does not open with this merchant's apiv3_key")]
    Key,
    /// Not in the documented form; says what is wrong.
    #[error("it is not as documented: {0}")]
    Form(String),
    /// About another event.
    #[error("its event {0} is not one of transfer bills")]
    Event(String),
}

#[derive(Deserialize)]
struct Envelope {
    event_type: String,
    resource: Sealed,
}

/// Decrypts a notification about a bill and returns the JSON text inside. The caller must have verified its
/// signature.
///
/// # Errors
/// [`Unopened`] if it is not in the documented form, not about a bill's end, or encrypted under another key.
pub fn open_notification(body: &[u8], key: &Apiv3Key) -> Result<String, Unopened> {
    let form = |error: &dyn fmt::Display| Unopened::Form(error.to_string());
    let envelope: Envelope = serde_json::from_slice(body).map_err(|error| form(&error))?;
    if envelope.event_type != BILL_FINISHED {
        return Err(Unopened::Event(envelope.event_type.chars().take(64).collect()));
    }
    String::from_utf8(key.open(&envelope.resource)?).map_err(|error| form(&error))
}

/// A platform certificate: the older way in which WeChat Pay publishes and replaces its key.
#[derive(Debug)]
pub struct PlatformCertificate {
    /// Its serial number, as `Wechatpay-Serial` names it.
    pub serial: String,
    /// Its key.
    pub key: VerifyingKey,
    /// From when it is valid.
    pub not_before: Millis,
    /// Until when it is valid.
    pub not_after: Millis,
}

#[derive(Deserialize)]
struct Certificates {
    data: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    serial_no: String,
    encrypt_certificate: Sealed,
}

/// A certificate's serial number in upper-case hexadecimal, as WeChat Pay shows it.
#[must_use]
pub fn serial_no(certificate: &X509Certificate<'_>) -> String {
    let serial = certificate.raw_serial();
    HEXUPPER.encode(serial.strip_prefix(&[0]).unwrap_or(serial))
}

/// Reads the response of `GET /v3/certificates`. The caller must not believe any of it before it has verified its
/// signature with one of these certificates or an earlier one.
///
/// # Errors
/// [`Unopened`] if any of it is not in the documented form or does not decrypt.
pub fn certificates(body: &[u8], key: &Apiv3Key) -> Result<Vec<PlatformCertificate>, Unopened> {
    let form = |what: &dyn fmt::Display| Unopened::Form(what.to_string());
    let listed: Certificates = serde_json::from_slice(body).map_err(|error| form(&error))?;
    let read = |listed: Listed| {
        let pem = key.open(&listed.encrypt_certificate)?;
        let der = CertificateDer::from_pem_slice(&pem).map_err(|error| form(&error))?;
        let (_, certificate) = X509Certificate::from_der(&der).map_err(|error| form(&error))?;
        let serial = serial_no(&certificate);
        if !serial.eq_ignore_ascii_case(&listed.serial_no) {
            return Err(Unopened::Form(
                "a certificate has another serial number".to_owned(),
            ));
        }
        let key = VerifyingKey::from_der(certificate.public_key().raw).map_err(|error| form(&error))?;
        let millis = |seconds: i64| Millis(seconds.saturating_mul(1000));
        Ok(PlatformCertificate {
            serial,
            key,
            not_before: millis(certificate.validity().not_before.timestamp()),
            not_after: millis(certificate.validity().not_after.timestamp()),
        })
    };
    listed.data.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::sign::tests::{hex, text, vectors};
    use super::*;

    fn sealed(ciphertext: &str, nonce: &str, associated_data: &str) -> Sealed {
        Sealed {
            algorithm: ALGORITHM.into(),
            ciphertext: ciphertext.into(),
            nonce: nonce.into(),
            associated_data: associated_data.into(),
        }
    }

    #[test]
    fn published_ciphertexts_open_and_tampered_ones_do_not() {
        for vector in vectors("V3-AES-256-GCM") {
            let key = Apiv3Key::new(vector["key"].as_str().unwrap()).unwrap();
            let good = sealed(
                vector["expected"].as_str().unwrap(),
                text(&vector, "nonce"),
                text(&vector, "associated_data"),
            );
            assert_eq!(
                key.open(&good),
                Ok(text(&vector, "plaintext").as_bytes().to_vec())
            );
            let flipped = good.ciphertext.replacen('u', "v", 1);
            for (wrong, why) in [
                (
                    sealed(&flipped, &good.nonce, &good.associated_data),
                    Unopened::Key,
                ),
                (sealed(&good.ciphertext, &good.nonce, ""), Unopened::Key),
                (
                    sealed(&good.ciphertext, "uluk4a9R25RX", &good.associated_data),
                    Unopened::Key,
                ),
                (
                    sealed(&good.ciphertext, "short", &good.associated_data),
                    Unopened::Nonce,
                ),
                (
                    sealed(&good.ciphertext, "a nonce too long", &good.associated_data),
                    Unopened::Nonce,
                ),
                (sealed("!", &good.nonce, &good.associated_data), Unopened::Base64),
                (sealed("", &good.nonce, &good.associated_data), Unopened::Key),
                (
                    Sealed {
                        algorithm: "AEAD_AES_128_GCM".into(),
                        ..good.clone()
                    },
                    Unopened::Algorithm,
                ),
            ] {
                assert_eq!(key.open(&wrong), Err(why), "{wrong:?}");
            }
            let other = Apiv3Key::new("b7cde1ZJB1kG2e7VfTs3jQzaWizur8Gb").unwrap();
            assert_eq!(other.open(&good), Err(Unopened::Key));
        }
    }

    #[test]
    fn a_key_has_exactly_32_bytes() {
        for vector in vectors("V3-AES-128-GCM") {
            assert!(Apiv3Key::new(vector["key"].as_str().unwrap()).is_none());
        }
        for length in [0, 31, 33, 64] {
            assert!(Apiv3Key::new(&"k".repeat(length)).is_none(), "{length}");
        }
    }

    /// Project Wycheproof, `aes_gcm_test`: the group with keys of 256, nonces of 96 and tags of 128 bits.
    #[test]
    fn wycheproofs_ciphertexts() {
        let file: Value =
            serde_json::from_str(include_str!("../../../tests/data/wycheproof-aes-256-gcm.json")).unwrap();
        let tests = file["tests"].as_array().unwrap();
        assert!(tests.len() > 20, "{}", tests.len());
        for test in tests {
            let bytes = |name: &str| hex(test[name].as_str().unwrap());
            let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes("key")).unwrap());
            let nonce = Nonce::try_assume_unique_for_key(&bytes("iv")).unwrap();
            let mut text = [bytes("ct"), bytes("tag")].concat();
            let opened = key.open_in_place(nonce, Aad::from(bytes("aad")), &mut text);
            match test["result"].as_str().unwrap() {
                "valid" => assert_eq!(opened.unwrap(), bytes("msg"), "{}", test["tcId"]),
                _ => assert!(opened.is_err(), "{}", test["tcId"]),
            }
        }
    }

    #[test]
    fn another_event_or_form_is_no_notification() {
        let key = Apiv3Key::new("a7cde1ZJB1kG2e7VfTs3jQzaWizur8Gb").unwrap();
        for vector in vectors("V3-NOTIFICATION") {
            let body = text(&vector, "body");
            assert_eq!(
                open_notification(body.as_bytes(), &key),
                Err(Unopened::Event("PAYSCORE.USER_OPEN_SERVICE".into()))
            );
            let renamed = body.replace("PAYSCORE.USER_OPEN_SERVICE", BILL_FINISHED);
            assert_eq!(open_notification(renamed.as_bytes(), &key), Err(Unopened::Key));
        }
        for body in ["", "{}", "[]", r#"{"event_type":"MCHTRANSFER.BILL.FINISHED"}"#] {
            assert!(
                matches!(open_notification(body.as_bytes(), &key), Err(Unopened::Form(_))),
                "{body}"
            );
        }
    }
}
