//! Tests of the certificates and keys of merchants and of the main port: they parse, match and are in force.

use std::path::Path;

use rcgen::{CertificateParams, KeyPair, SerialNumber};

use super::{LEAST, Made, load_in};
use crate::config::{Certificate, CertificateError, ClientName, Config, To};
use payout_domain::ids::Millis;

/// A certificate that is in force from 2020 to 2030.
fn made() -> Made {
    let mut params = CertificateParams::new(vec!["merchant".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2030, 1, 1);
    params.serial_number = Some(SerialNumber::from(vec![0xA1, 0x02, 0xF3]));
    Made::of(&params, KeyPair::generate().unwrap())
}

/// 2026-01-01.
const NOW: Millis = Millis(1_767_225_600_000);

fn read(cert: &Made, key: &Made, now: Millis) -> Result<Certificate, CertificateError> {
    Certificate::from_pem(&cert.cert.pem(), &key.key.serialize_pem(), now)
}

/// Loads from `dir` a configuration whose merchant has these credential keys.
fn load(dir: &Path, credentials: &str) -> Result<Config, Vec<String>> {
    let text = format!(
        "{LEAST}[[merchant]]\nmch_id = \"1900000109\"\nto = \"wechat\"\nproduct = \"transfer\"\n\
         api_key = \"0123456789abcdef0123456789abcdef\"\n{credentials}\n"
    );
    let path = dir.join("config.toml");
    std::fs::write(&path, text).unwrap();
    crate::config::load::load_at(&path, std::iter::empty(), NOW)
        .map_err(|errors| errors.errors.into_iter().map(|error| error.message).collect())
}

#[test]
fn a_pair_is_read_with_its_serial_and_end() {
    let made = made();
    let certificate = read(&made, &made, NOW).unwrap();
    assert_eq!(certificate.serial(), "A102F3");
    assert_eq!(certificate.not_after(), Millis(1_893_456_000_000));
    assert_eq!(certificate.chain()[0], *made.cert.der());
    assert_eq!(certificate.key().secret_der(), made.key.serialized_der());
    let shown = format!("{certificate:?}");
    assert!(shown.contains("A102F3") && !shown.contains("key"), "{shown}");
}

#[test]
fn a_p12_opens_with_the_merchant_number_only() {
    let made = made();
    let p12 = made.p12("1900000109");
    let certificate = Certificate::from_p12(&p12, "1900000109", NOW).unwrap();
    assert_eq!(certificate.chain()[0], *made.cert.der());
    assert_eq!(certificate.key().secret_der(), made.key.serialized_der());
    assert_eq!(
        Certificate::from_p12(&p12, "1900000108", NOW).unwrap_err(),
        CertificateError::P12
    );
    assert_eq!(
        Certificate::from_p12(b"garbage", "1900000109", NOW).unwrap_err(),
        CertificateError::P12
    );
}

#[test]
fn what_does_not_fit_or_is_not_in_force_is_refused() {
    let (one, other) = (made(), made());
    assert_eq!(read(&one, &other, NOW).unwrap_err(), CertificateError::Mismatch);
    let late = Millis(1_893_456_000_001);
    assert!(matches!(
        read(&one, &one, late),
        Err(CertificateError::Expired(_))
    ));
    assert!(matches!(
        read(&one, &one, Millis(0)),
        Err(CertificateError::NotYetValid(_))
    ));
    let (cert, key) = (one.cert.pem(), one.key.serialize_pem());
    assert_eq!(
        Certificate::from_pem("", &key, NOW).unwrap_err(),
        CertificateError::NoCertificate
    );
    assert_eq!(
        Certificate::from_pem(&key, &cert, NOW).unwrap_err(),
        CertificateError::NoCertificate
    );
    assert_eq!(
        Certificate::from_pem(&cert, "x", NOW).unwrap_err(),
        CertificateError::NoKey
    );
}

#[test]
fn a_merchant_has_its_certificate_from_either_form() {
    let dir = tempfile::tempdir().unwrap();
    made().put(dir.path(), "1900000109");
    for credentials in [
        "cert = { file = \"cert.pem\" }\nkey = { file = \"key.pem\" }",
        "p12 = { file = \"m.p12\" }",
    ] {
        let config = load(dir.path(), credentials).unwrap();
        let To::Wechat(wechat) = &config.merchants[0].to else {
            panic!("not WeChat")
        };
        assert_eq!(
            wechat
                .certificate
                .as_ref()
                .map(|c| c.serial().to_owned())
                .as_deref(),
            Some("A102F3")
        );
        assert!(config.files.len() > 1, "{:?}", config.files);
    }
}

#[test]
fn the_merchant_is_named_when_its_credentials_are_wrong() {
    let dir = tempfile::tempdir().unwrap();
    made().put(dir.path(), "1900000109");
    std::fs::write(dir.path().join("other.pem"), made().key.serialize_pem()).unwrap();
    let cases = [
        (
            "cert = { file = \"cert.pem\" }\nkey = { file = \"other.pem\" }",
            "merchant[0].cert: the private key does not belong to the certificate: take both from the same download \
             (merchant[0] 1900000109)",
        ),
        (
            "cert = { file = \"cert.pem\" }\nkey = \"hush\"",
            "merchant[0].key: holds no private key in PEM: give the text from -----BEGIN PRIVATE KEY----- on, without a \
             password (merchant[0] 1900000109)",
        ),
        (
            "cert = { file = \"cert.pem\" }",
            "merchant[0].key: is missing beside cert: give both",
        ),
        (
            "p12 = { file = \"cert.pem\" }",
            "merchant[0].p12: cannot be opened: take the file as WeChat Pay gave it (its password is the merchant number) \
             (merchant[0] 1900000109)",
        ),
        (
            "p12 = \"text\"",
            "merchant[0].p12: is not text but a binary file: write { file = \"path\" }",
        ),
        (
            "p12 = { file = \"m.p12\" }\ncert = { file = \"cert.pem\" }",
            "merchant[0].p12: stands instead of cert and key: remove it, or them",
        ),
        (
            "",
            "merchant[0].cert: is missing: give cert and key, or p12, or set request_credentials = true",
        ),
    ];
    for (credentials, message) in cases {
        assert_eq!(
            load(dir.path(), credentials).unwrap_err(),
            [message],
            "{credentials}"
        );
    }
}

#[test]
fn a_certificate_that_ends_soon_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["merchant".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2026, 1, 21);
    let cert = params.self_signed(&key).unwrap();
    Made { cert, key }.put(dir.path(), "1900000109");
    let config = load(dir.path(), "p12 = { file = \"m.p12\" }").unwrap();
    let warning = "merchant[0].p12: the certificate of merchant[0] 1900000109 expires in 20 days: renew it";
    assert!(
        config.warnings.iter().any(|text| text == warning),
        "{:?}",
        config.warnings
    );
}

#[test]
fn the_main_ports_certificate_is_checked_like_a_merchants() {
    let dir = tempfile::tempdir().unwrap();
    made().put(dir.path(), "1900000109");
    let text = |client_ca: &str| {
        let tls = format!("tls = {{ cert = \"cert.pem\", key = \"key.pem\", client_ca = \"{client_ca}\" }}");
        format!("{LEAST}[server]\n{tls}\n")
    };
    let config = load_in(dir.path(), &text("cert.pem"), &[]).unwrap();
    let tls = config.server.tls.unwrap();
    assert_eq!(tls.certificate.serial(), "A102F3");
    assert!(tls.client_ca_pem.unwrap().contains("BEGIN CERTIFICATE"));
    let errors = load_in(dir.path(), &text("key.pem"), &[]).unwrap_err();
    assert!(
        errors
            .to_string()
            .contains("server.tls.client_ca: the file holds no certificate"),
        "{errors}"
    );
}

#[test]
fn client_names_are_names_and_belong_to_a_client_ca() {
    let dir = tempfile::tempdir().unwrap();
    made().put(dir.path(), "1900000109");
    let load = |more: &str| {
        let tls = format!("tls = {{ cert = \"cert.pem\", key = \"key.pem\"{more} }}");
        load_in(dir.path(), &format!("{LEAST}[server]\n{tls}\n"), &[])
    };
    let names = |names: &str| load(&format!(", client_ca = \"cert.pem\", client_names = [{names}]"));
    let config = names("\"Tuzhan.example\", \"spiffe://c/ns/pay\"").unwrap();
    assert_eq!(
        config.server.tls.unwrap().client_names,
        [
            ClientName::Dns("tuzhan.example".into()),
            ClientName::Uri("spiffe://c/ns/pay".into())
        ]
    );
    let warns = |warnings: &[String]| warnings.iter().any(|warning| warning.contains("client_names"));
    assert!(!warns(&config.warnings), "{:?}", config.warnings);
    assert!(
        warns(&names("").unwrap().warnings),
        "any certificate of the CA would do"
    );
    for wrong in [
        "",
        " ",
        "*.tuzhan.example",
        "tuzhan.example.",
        "兔展.example",
        "://x",
        "a b",
        "CN=tuzhan",
    ] {
        let errors = names(&format!("\"{wrong}\"")).unwrap_err().to_string();
        assert!(
            errors.contains("server.tls.client_names[0]: must be a DNS name"),
            "{wrong:?}: {errors}"
        );
    }
    let errors = load(", client_names = [\"tuzhan.example\"]")
        .unwrap_err()
        .to_string();
    assert!(errors.contains("give server.tls.client_ca too"), "{errors}");
}

/// A complete example of the file; the test supplies its secrets.
#[test]
fn the_documented_example_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = dir.path().join("secrets");
    let merchant = secrets.join("1900000109");
    std::fs::create_dir_all(&merchant).unwrap();
    std::fs::write(secrets.join("token"), "t0ken\n").unwrap();
    std::fs::write(merchant.join("api-key"), "0123456789abcdef0123456789abcdef\n").unwrap();
    let made = made();
    std::fs::write(merchant.join("apiclient_cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(merchant.join("apiclient_key.pem"), made.key.serialize_pem()).unwrap();
    let text = include_str!("../../../tests/config/example.toml");
    let config = load_in(dir.path(), text, &[("SIGN_KEY", "k")]).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!(config.merchants.len(), 2);
    assert_eq!(config.limits.max_amount, Some(20_000));
    let To::Wechat(wechat) = &config.merchants[0].to else {
        panic!("not WeChat")
    };
    assert!(wechat.certificate.is_some() && wechat.api_key.is_some());
}
