//! Tests of v3 entries: keys of the right kind, the certificate's serial number, and keys that belong together.

use std::path::Path;

use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize, SerialNumber};

use super::{LEAST, Made, load_in};
use crate::config::{BillMerchant, To};

/// Writes an RSA key with a certificate of serial A102F3 and its public key, and an elliptic pair beside it.
fn put(dir: &Path) {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let mut params = CertificateParams::new(vec!["merchant".to_owned()]).unwrap();
    params.serial_number = Some(SerialNumber::from(vec![0xA1, 0x02, 0xF3]));
    let made = Made::of(&params, key);
    made.put(dir, "1900000113");
    std::fs::write(dir.join("public.pem"), made.key.public_key_pem()).unwrap();
    let elliptic = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["merchant".to_owned()]).unwrap();
    std::fs::write(
        dir.join("ec-cert.pem"),
        cert.self_signed(&elliptic).unwrap().pem(),
    )
    .unwrap();
    std::fs::write(dir.join("ec-key.pem"), elliptic.serialize_pem()).unwrap();
}

const KEY: &str = "key = { file = \"key.pem\" }";
const CERT: &str = "cert = { file = \"cert.pem\" }";
const SERIAL: &str = "serial_no = \"a102f3\"";
const APIV3: &str = "apiv3_key = \"0123456789abcdef0123456789abcdef\"";
const PUBLIC: &str = "public_key_id = \"PUB_KEY_ID_01\"\npublic_key = { file = \"public.pem\" }";
const NOTIFY: &str = "notify_url = \"https://pay.example.com/notify/transfer\"";

fn load(dir: &Path, keys: &[&str]) -> Result<BillMerchant, Vec<String>> {
    let text = format!(
        "{LEAST}[[merchant]]\nmch_id = \"1900000113\"\nto = \"wechat\"\nproduct = \"transfer-bill\"\n\
         transfer_scene_id = \"1000\"\n\
         scene_report_infos = [{{ info_type = \"活动名称\", info_content = \"{{actName}}\" }}]\n{}\n",
        keys.join("\n")
    );
    match load_in(dir, &text, &[]) {
        Ok(config) => match &config.merchants[0].to {
            To::TransferBill(bill) => Ok(bill.clone()),
            other => panic!("{other:?}"),
        },
        Err(errors) => Err(errors.errors.into_iter().map(|error| error.message).collect()),
    }
}

#[test]
fn either_mode_with_the_serial_from_either_place() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path());
    let bill = load(dir.path(), &[KEY, SERIAL, APIV3, PUBLIC, NOTIFY]).unwrap();
    assert_eq!(bill.serial_no, "A102F3");
    assert_eq!(bill.notify_path.as_deref(), Some("/notify/transfer"));
    assert!(bill.public_key.is_some_and(|(id, _)| id == "PUB_KEY_ID_01"));
    let certificates = load(dir.path(), &[KEY, CERT, APIV3]).unwrap();
    assert_eq!(certificates.serial_no, "A102F3");
    assert!(certificates.public_key.is_none() && certificates.notify_path.is_none());
    let p12 = load(dir.path(), &["p12 = { file = \"m.p12\" }", APIV3]).unwrap();
    assert_eq!(p12.serial_no, "A102F3");
    let least = load(dir.path(), &[KEY, SERIAL, PUBLIC]).unwrap();
    assert!(least.apiv3_key.is_none(), "nothing to open");
}

#[test]
fn what_does_not_belong_together_is_named() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path());
    let ec = "key = { file = \"ec-key.pem\" }";
    for (keys, says) in [
        (
            &[KEY, CERT, "serial_no = \"A102F4\"", APIV3][..],
            "serial_no: is not that of cert, which is A102F3",
        ),
        (&[KEY, APIV3], "serial_no: is missing"),
        (&[SERIAL, APIV3], "key: is missing"),
        (&[KEY, SERIAL], "apiv3_key: is missing: platform certificates"),
        (
            &[KEY, SERIAL, PUBLIC, NOTIFY],
            "apiv3_key: is missing: notifications",
        ),
        (
            &[ec, SERIAL, APIV3],
            "key: holds a key that is not RSA of at least 2048 bits",
        ),
        (
            &[ec, "cert = { file = \"ec-cert.pem\" }", APIV3],
            "key: holds a key that is not RSA of at least 2048 bits",
        ),
        (
            &[ec, CERT, APIV3],
            "cert: the private key does not belong to the certificate",
        ),
        (
            &[KEY, SERIAL, APIV3, "public_key_id = \"PUB_KEY_ID_01\""],
            "public_key: is missing beside public_key_id",
        ),
        (
            &[KEY, SERIAL, APIV3, "public_key = { file = \"public.pem\" }"],
            "public_key_id: is missing beside public_key",
        ),
        (
            &[KEY, SERIAL, "apiv3_key = \"short\""],
            "apiv3_key: must be exactly 32 bytes, and this is 5",
        ),
        (
            &[
                KEY,
                SERIAL,
                APIV3,
                "notify_url = \"https://pay.example.com/n?x=1\"",
            ],
            "notify_url: must have no query",
        ),
        (
            &[KEY, SERIAL, APIV3, "request_credentials = true"],
            "request_credentials: has no meaning with product = \"transfer-bill\"",
        ),
    ] {
        let errors = load(dir.path(), keys).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains(says), "{errors:?}");
    }
}

#[test]
fn no_key_is_shown_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path());
    let bill = load(dir.path(), &[KEY, SERIAL, APIV3, PUBLIC, NOTIFY]).unwrap();
    let shown = format!("{bill:?}");
    for secret in ["0123456789abcdef", "PRIVATE"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
