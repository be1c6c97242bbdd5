//! The fake's own v3 keys, generated on first use: WeChat Pay's (a public key, and a platform certificate that
//! can be rotated) and its merchants'. Signing, verifying and encrypting follow WeChat's document and share no
//! code with `payout-domain`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::error::KeyRejected;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data_encoding::{HEXLOWER, HEXUPPER};
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_RSA_SHA256, RsaKeySize, SerialNumber};

use crate::Failure;
use crate::pki::Pki;

/// The APIv3 key of every merchant.
pub const APIV3_KEY: &str = "stub-apiv3-key-0123456789abcdefg";
/// The id of the fake's public key.
pub const PUBLIC_KEY_ID: &str = "PUB_KEY_ID_0119000001092026";

/// What a merchant's v3 configuration needs.
#[derive(Clone, Debug)]
pub struct BillKeys {
    /// The merchant's certificate, PEM.
    pub cert_pem: String,
    /// Its RSA key, PEM.
    pub key_pem: String,
    /// The certificate's serial number, upper-case hexadecimal.
    pub serial_no: String,
    /// WeChat Pay's public key, PEM. Its id is [`PUBLIC_KEY_ID`].
    pub public_key_pem: String,
}

/// A key that signs responses and notifications, and its name in `Wechatpay-Serial`.
pub(super) struct Signer {
    pub(super) serial: String,
    pair: RsaKeyPair,
    /// The certificate or the public key, PEM.
    pub(super) pem: String,
}

#[derive(Default)]
pub(crate) struct V3Keys {
    public: Mutex<Option<Arc<Signer>>>,
    platform: Mutex<Option<Arc<Signer>>>,
    merchants: Mutex<BTreeMap<(String, String), Vec<u8>>>,
}

impl Signer {
    pub(super) fn sign(&self, message: &[u8]) -> String {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        let signed = self
            .pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature);
        signed.map(|()| STANDARD.encode(signature)).unwrap_or_default()
    }
}

impl V3Keys {
    pub(super) fn public(&self) -> Result<Arc<Signer>, Failure> {
        kept(&self.public, public_signer)
    }

    /// The current platform certificate.
    pub(super) fn platform(&self) -> Result<Arc<Signer>, Failure> {
        kept(&self.platform, platform_signer)
    }

    /// Replaces the platform certificate.
    pub(crate) fn rotate(&self) -> Result<(), Failure> {
        *lock(&self.platform) = Some(Arc::new(platform_signer()?));
        Ok(())
    }

    /// Generates a merchant's certificate and key, and remembers the public key.
    pub(crate) fn merchant(&self, pki: &Pki, mch_id: &str) -> Result<BillKeys, Failure> {
        let key = rsa()?;
        let serial = serial();
        let serial_no = HEXUPPER.encode(&serial);
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, mch_id);
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let cert_pem = pki.signed(params, &key)?;
        lock(&self.merchants).insert(
            (mch_id.to_owned(), serial_no.clone()),
            rcgen::PublicKeyData::subject_public_key_info(&key),
        );
        Ok(BillKeys {
            cert_pem,
            key_pem: key.serialize_pem(),
            serial_no,
            public_key_pem: self.public()?.pem.clone(),
        })
    }

    /// Whether a request was signed with the key of this merchant's certificate.
    pub(super) fn verifies(&self, mch_id: &str, serial: &str, message: &[u8], signature: &str) -> bool {
        let known = lock(&self.merchants)
            .get(&(mch_id.to_owned(), serial.to_owned()))
            .cloned();
        let (Some(key), Ok(signature)) = (known, STANDARD.decode(signature)) else {
            return false;
        };
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key)
            .verify(message, &signature)
            .is_ok()
    }
}

/// Encrypts a text as a `resource` or an `encrypt_certificate`.
pub(super) fn seal(text: &str, kind: &str) -> BTreeMap<&'static str, String> {
    let nonce = HEXLOWER.encode(&rand::random::<[u8; 6]>());
    let mut sealed = text.as_bytes().to_vec();
    let key = UnboundKey::new(&AES_256_GCM, APIV3_KEY.as_bytes()).map(LessSafeKey::new);
    let aead_nonce = Nonce::try_assume_unique_for_key(nonce.as_bytes());
    if let (Ok(key), Ok(aead_nonce)) = (key, aead_nonce) {
        let done = key.seal_in_place_append_tag(aead_nonce, Aad::from(kind.as_bytes()), &mut sealed);
        if done.is_err() {
            sealed.clear();
        }
    }
    [
        ("original_type", kind.to_owned()),
        ("algorithm", "AEAD_AES_256_GCM".to_owned()),
        ("ciphertext", STANDARD.encode(sealed)),
        ("associated_data", kind.to_owned()),
        ("nonce", nonce),
    ]
    .into()
}

/// Returns the signer in the slot, or makes it.
fn kept(
    slot: &Mutex<Option<Arc<Signer>>>,
    make: fn() -> Result<Signer, Failure>,
) -> Result<Arc<Signer>, Failure> {
    let mut slot = lock(slot);
    let signer = match slot.take() {
        Some(signer) => signer,
        None => Arc::new(make()?),
    };
    Ok(Arc::clone(slot.insert(signer)))
}

fn public_signer() -> Result<Signer, Failure> {
    let key = rsa()?;
    Ok(Signer {
        serial: PUBLIC_KEY_ID.to_owned(),
        pair: pair(&key)?,
        pem: key.public_key_pem(),
    })
}

fn platform_signer() -> Result<Signer, Failure> {
    let key = rsa()?;
    let serial = serial();
    let mut params = CertificateParams::new(Vec::new())?;
    params
        .distinguished_name
        .push(DnType::CommonName, "payout-sidecar stub platform");
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let certificate = params.self_signed(&key)?;
    Ok(Signer {
        serial: HEXUPPER.encode(&serial),
        pair: pair(&key)?,
        pem: certificate.pem(),
    })
}

/// A positive serial number of 20 bytes, without leading zeros.
fn serial() -> [u8; 20] {
    let mut serial: [u8; 20] = rand::random();
    let [first, ..] = &mut serial;
    *first = *first & 0x3F | 0x40;
    serial
}

fn rsa() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)
}

fn pair(key: &KeyPair) -> Result<RsaKeyPair, KeyRejected> {
    RsaKeyPair::from_pkcs8(&key.serialize_der())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
