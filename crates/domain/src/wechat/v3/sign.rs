//! Signatures of v3: signs requests with the merchant's key, and verifies responses and notifications with WeChat
//! Pay's keys (`docs/wechat-pay.md`, signatures).
//!
//! RSA, PKCS#1 v1.5, SHA-256, in base64. A key is parsed once, when it is read.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
use zeroize::Zeroize as _;

use crate::ids::{MchId, Millis};

/// The scheme of the `Authorization` header.
const SCHEME: &str = "WECHATPAY2-SHA256-RSA2048";
/// How far a signature's timestamp may lie from our clock (`docs/wechat-pay.md`, signatures).
pub const FRESHNESS: Duration = Duration::from_secs(300);
/// How the signatures of WeChat's probes begin. They are wrong on purpose, to test that receivers refuse them.
const PROBE: &str = "WECHATPAY/SIGNTEST/";

/// Why a key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The PEM text holds no key of this kind.
    #[error("holds no {0} in PEM: give the whole text, from its BEGIN line to its END line")]
    NoKey(&'static str),
    /// Not RSA, or not of 2048 to 8192 bits.
    #[error("holds a key that is not RSA of at least 2048 bits: v3 signs with RSA only")]
    NotRsa,
}

/// A merchant's private key, which signs its requests. `Debug` does not reveal it.
pub struct SigningKey(KeyPair);

impl SigningKey {
    /// Reads a private key (PKCS#8 or PKCS#1) from PEM.
    ///
    /// # Errors
    /// [`KeyError`] if there is none or it is not RSA.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let key =
            PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::NoKey("private key"))?;
        Self::from_der(key)
    }

    /// Takes a private key that was read elsewhere, and wipes it. A key in SEC1 form is refused without being
    /// wiped.
    ///
    /// # Errors
    /// [`KeyError::NotRsa`] if it is not RSA.
    pub fn from_der(mut key: PrivateKeyDer<'static>) -> Result<Self, KeyError> {
        let pair = match &key {
            PrivateKeyDer::Pkcs1(der) => KeyPair::from_der(der.secret_pkcs1_der()),
            PrivateKeyDer::Pkcs8(der) => KeyPair::from_pkcs8(der.secret_pkcs8_der()),
            PrivateKeyDer::Sec1(_) | _ => return Err(KeyError::NotRsa),
        };
        key.zeroize();
        pair.map(Self).map_err(|_| KeyError::NotRsa)
    }

    /// Signs a message, in base64.
    ///
    /// # Errors
    /// The library's error, which no message causes.
    pub fn sign(&self, message: &[u8]) -> Result<String, aws_lc_rs::error::Unspecified> {
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0
            .sign_digest(&RSA_PKCS1_SHA256, &digest(&SHA256, message), &mut signature)?;
        Ok(STANDARD.encode(signature))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[signing key]")
    }
}

/// A public key of WeChat Pay, which verifies its responses and notifications.
pub struct VerifyingKey(ParsedPublicKey);

impl VerifyingKey {
    /// Reads a public key from PEM.
    ///
    /// # Errors
    /// [`KeyError`] if there is none or it is not RSA.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let key = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| KeyError::NoKey("public key"))?;
        Self::from_der(&key)
    }

    /// Takes the DER of a `SubjectPublicKeyInfo` or of an `RSAPublicKey`.
    ///
    /// # Errors
    /// [`KeyError::NotRsa`] if it is not RSA.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der)
            .map(Self)
            .map_err(|_| KeyError::NotRsa)
    }

    /// Whether `signature`, in base64, is this key's signature of a message.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &str) -> bool {
        STANDARD
            .decode(signature)
            .is_ok_and(|signature| self.0.verify_sig(message, &signature).is_ok())
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[verifying key]")
    }
}

/// The text that a request's signature covers. `path` is the path as sent, with its query.
#[must_use]
pub fn request_message(method: &str, path: &str, seconds: i64, nonce: &str, body: &str) -> String {
    format!("{method}\n{path}\n{seconds}\n{nonce}\n{body}\n")
}

/// The value of the `Authorization` header.
#[must_use]
pub fn authorization(mch_id: &MchId, serial: &str, seconds: i64, nonce: &str, signature: &str) -> String {
    format!(
        "{SCHEME} mchid=\"{mch_id}\",nonce_str=\"{nonce}\",signature=\"{signature}\",timestamp=\"{seconds}\",\
         serial_no=\"{serial}\""
    )
}

/// The headers that sign a response or a notification, as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed<'a> {
    /// `Wechatpay-Timestamp`: seconds since 1970.
    pub timestamp: &'a str,
    /// `Wechatpay-Nonce`.
    pub nonce: &'a str,
    /// `Wechatpay-Serial`: which key signed.
    pub serial: &'a str,
    /// `Wechatpay-Signature`, base64.
    pub signature: &'a str,
}

/// Why a signature is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// Signed too long ago, or in the future.
    #[error("it was signed at {0}, more than 5 minutes from this machine's time")]
    Stale(String),
    /// Wrong on purpose: WeChat tests whether we refuse it.
    #[error("it carries a probe of WeChat's in place of a signature")]
    Probe,
    /// Not this key's signature of these bytes.
    #[error("its signature is not that of the key {0}")]
    Wrong(String),
}

/// The text that the signature of a response or a notification covers. `body` is the body as received.
#[must_use]
pub fn answer_message(timestamp: &str, nonce: &str, body: &[u8]) -> Vec<u8> {
    [timestamp.as_bytes(), b"\n", nonce.as_bytes(), b"\n", body, b"\n"].concat()
}

/// Checks that something was signed within [`FRESHNESS`] of `now`.
///
/// # Errors
/// [`Unverified::Stale`] if it was not, or if the timestamp is not a number.
pub fn fresh(signed: Signed<'_>, now: Millis) -> Result<(), Unverified> {
    let seconds: Option<i64> = signed.timestamp.parse().ok();
    let at = seconds.and_then(|seconds| seconds.checked_mul(1000)).map(Millis);
    if at.is_some_and(|at| at.since(now) <= FRESHNESS && now.since(at) <= FRESHNESS) {
        Ok(())
    } else {
        Err(Unverified::Stale(signed.timestamp.chars().take(20).collect()))
    }
}

/// Verifies a response or a notification with the key that its serial names.
///
/// # Errors
/// [`Unverified`] if it was not signed within 5 minutes of `now`, or not by this key.
pub fn verify(signed: Signed<'_>, body: &[u8], key: &VerifyingKey, now: Millis) -> Result<(), Unverified> {
    fresh(signed, now)?;
    if signed.signature.starts_with(PROBE) {
        return Err(Unverified::Probe);
    }
    let message = answer_message(signed.timestamp, signed.nonce, body);
    if key.verifies(&message, signed.signature) {
        Ok(())
    } else {
        Err(Unverified::Wrong(signed.serial.chars().take(64).collect()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::Value;

    use super::*;

    /// WeChat's documented samples and those of its SDKs' test suites; each names its source.
    pub(crate) fn vectors(algorithm: &str) -> Vec<Value> {
        let all: Vec<Value> =
            serde_json::from_str(include_str!("../../../tests/data/wechat-sign-vectors.json")).unwrap();
        let chosen: Vec<Value> = all
            .into_iter()
            .filter(|vector| vector["algorithm"] == algorithm)
            .collect();
        assert!(!chosen.is_empty(), "{algorithm}");
        chosen
    }

    pub(crate) fn text<'a>(vector: &'a Value, name: &str) -> &'a str {
        vector["params"][name].as_str().unwrap()
    }

    fn expected(vector: &Value) -> &str {
        vector["expected"].as_str().unwrap()
    }

    fn private_key(vector: &Value) -> SigningKey {
        let pem = vector["key"]
            .as_str()
            .unwrap()
            .replace("TESTING KEY", "PRIVATE KEY");
        SigningKey::from_pem(&pem).unwrap()
    }

    #[test]
    fn published_messages_and_headers() {
        for vector in vectors("V3-REQUEST-MESSAGE") {
            let message = request_message(
                text(&vector, "method"),
                text(&vector, "url"),
                text(&vector, "timestamp").parse().unwrap(),
                text(&vector, "nonce_str"),
                text(&vector, "body"),
            );
            assert_eq!(message, expected(&vector), "{}", vector["name"]);
        }
        for vector in vectors("V3-RESPONSE-MESSAGE") {
            let message = answer_message(
                text(&vector, "timestamp"),
                text(&vector, "nonce"),
                text(&vector, "body").as_bytes(),
            );
            assert_eq!(message, expected(&vector).as_bytes(), "{}", vector["name"]);
        }
        for vector in vectors("V3-AUTHORIZATION") {
            let items = |header: &str| {
                let (scheme, items) = header.split_once(' ').unwrap();
                let mut items: Vec<String> = items.split(',').map(str::to_owned).collect();
                items.sort();
                (scheme.to_owned(), items)
            };
            let header = authorization(
                &MchId::parse(text(&vector, "mchid")).unwrap(),
                text(&vector, "serial_no"),
                text(&vector, "timestamp").parse().unwrap(),
                text(&vector, "nonce_str"),
                text(&vector, "signature"),
            );
            assert_eq!(items(&header), items(expected(&vector)));
        }
    }

    #[test]
    fn published_signatures_are_made_and_verified() {
        for vector in vectors("V3-RSA-SHA256-PKCS1V15-SIGN") {
            let signature = private_key(&vector).sign(text(&vector, "message").as_bytes());
            assert_eq!(signature.unwrap(), expected(&vector));
        }
        let verified = vectors("V3-RSA-SHA256-PKCS1V15-VERIFY");
        assert_eq!(verified.len(), 2);
        for vector in verified {
            let key = VerifyingKey::from_pem(vector["key"].as_str().unwrap()).unwrap();
            let valid = key.verifies(text(&vector, "message").as_bytes(), text(&vector, "signature"));
            assert_eq!(valid, expected(&vector) == "valid", "{}", vector["name"]);
        }
    }

    /// Project Wycheproof, `rsa_signature_2048_sha256_test`: a subset, see the file.
    #[test]
    fn wycheproofs_signatures() {
        let file: Value = serde_json::from_str(include_str!(
            "../../../tests/data/wycheproof-rsa-2048-sha256.json"
        ))
        .unwrap();
        let key = hex(file["publicKeyDer"].as_str().unwrap());
        let key = VerifyingKey::from_der(&key).unwrap();
        let tests = file["tests"].as_array().unwrap();
        assert!(tests.len() > 20, "{}", tests.len());
        for test in tests {
            let signature = STANDARD.encode(hex(test["sig"].as_str().unwrap()));
            let valid = key.verifies(&hex(test["msg"].as_str().unwrap()), &signature);
            assert_eq!(
                valid,
                test["result"] == "valid",
                "{} {}",
                test["tcId"],
                test["comment"]
            );
        }
    }

    pub(crate) fn hex(text: &str) -> Vec<u8> {
        assert_eq!(text.len() % 2, 0);
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(text.get(at..at + 2).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn a_whole_notification_verifies_and_nothing_else_does() {
        for vector in vectors("V3-NOTIFICATION") {
            let key = VerifyingKey::from_pem(text(&vector, "public_key")).unwrap();
            let header = |name: &str| vector["params"]["headers"][name].as_str().unwrap();
            let signed = Signed {
                timestamp: header("Wechatpay-Timestamp"),
                nonce: header("Wechatpay-Nonce"),
                serial: header("Wechatpay-Serial"),
                signature: header("Wechatpay-Signature"),
            };
            let body = text(&vector, "body").as_bytes();
            let at = Millis(signed.timestamp.parse::<i64>().unwrap() * 1000);
            let check = |signed: Signed<'_>, body: &[u8], now: Millis| verify(signed, body, &key, now);
            assert_eq!(check(signed, body, at), Ok(()));
            for shift in [-300_000, 300_000] {
                assert_eq!(check(signed, body, Millis(at.0 + shift)), Ok(()), "{shift}");
            }
            for shift in [-300_001, 300_001] {
                let stale = check(signed, body, Millis(at.0 + shift));
                assert!(matches!(stale, Err(Unverified::Stale(_))), "{shift}");
            }
            for at_byte in [0, body.len() / 2, body.len() - 1] {
                let mut tampered = body.to_vec();
                tampered[at_byte] ^= 1;
                assert!(matches!(check(signed, &tampered, at), Err(Unverified::Wrong(_))));
            }
            let later = (at.0 / 1000 + 1).to_string();
            let probe = format!("{PROBE}{}", signed.signature);
            for (wrong, why) in [
                (Signed { nonce: "x", ..signed }, "wrong"),
                (
                    Signed {
                        timestamp: &later,
                        ..signed
                    },
                    "wrong",
                ),
                (
                    Signed {
                        signature: "",
                        ..signed
                    },
                    "wrong",
                ),
                (
                    Signed {
                        signature: "!",
                        ..signed
                    },
                    "wrong",
                ),
                (
                    Signed {
                        signature: &probe,
                        ..signed
                    },
                    "probe",
                ),
                (
                    Signed {
                        timestamp: "",
                        ..signed
                    },
                    "stale",
                ),
                (
                    Signed {
                        timestamp: "9223372036854775807",
                        ..signed
                    },
                    "stale",
                ),
            ] {
                let found = match check(wrong, body, at) {
                    Ok(()) => "believed",
                    Err(Unverified::Stale(_)) => "stale",
                    Err(Unverified::Probe) => "probe",
                    Err(Unverified::Wrong(_)) => "wrong",
                };
                assert_eq!(found, why, "{wrong:?}");
            }
        }
    }

    #[test]
    fn what_is_no_rsa_key_is_refused() {
        let elliptic = rcgen::KeyPair::generate().unwrap();
        assert_eq!(
            SigningKey::from_pem(&elliptic.serialize_pem()).unwrap_err(),
            KeyError::NotRsa
        );
        assert_eq!(
            VerifyingKey::from_pem(&elliptic.public_key_pem()).unwrap_err(),
            KeyError::NotRsa
        );
        for pem in ["", "x", &elliptic.public_key_pem()] {
            assert!(matches!(
                SigningKey::from_pem(pem).unwrap_err(),
                KeyError::NoKey(_)
            ));
        }
        assert!(matches!(
            VerifyingKey::from_pem(&elliptic.serialize_pem()).unwrap_err(),
            KeyError::NoKey(_)
        ));
    }
}
