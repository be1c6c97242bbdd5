//! Tests that no output shows a secret. They find the secrets in the schema, so they also cover keys that are
//! added later.

use std::path::Path;

use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde::Serialize;
use toml::{Table, Value};

use super::{Made, load_in};
use crate::config::redacted::{redacted, summary};
use crate::config::shape::Shape;
use crate::config::{Certificate, Config};
use crate::redis::RedisUrl;
use payout_domain::wechat::v3::envelope::Apiv3Key;
use payout_domain::wechat::v3::sign::SigningKey;

/// A secret of 32 letters, which every key accepts that takes a text.
const MARK: &str = "hush0hush1hush2hush3hush4hush5hu";

/// Configurations in which a `[[merchant]]` or a store may take a secret. Each is valid without it.
const BASES: [&str; 5] = [
    "[[merchant]]\nto = \"handler\"\nhandler_url = \"http://h\"",
    "[identity]\nsource = \"redis\"\nurl = \"redis://a\"\n[ledger]\nstore = \"redis\"\nurl = \"redis://b\"",
    "[wechat]\nbase_url = \"http://127.0.0.1:1\"\n[[merchant]]\nmch_id = \"1\"\nto = \"wechat\"\nproduct = \"transfer\"\n\
     request_credentials = true",
    "[[merchant]]\nmch_id = \"1\"\nto = \"wechat\"\nproduct = \"transfer\"\nrequest_credentials = true\n\
     cert = { file = \"cert.pem\" }\nkey = { file = \"key.pem\" }",
    "[[merchant]]\nmch_id = \"1\"\nto = \"wechat\"\nproduct = \"transfer-bill\"\nkey = { file = \"key.pem\" }\n\
     serial_no = \"A1\"\napiv3_key = \"0123456789abcdef0123456789abcdef\"\npublic_key_id = \"PUB_KEY_ID_1\"\n\
     public_key = { file = \"public.pem\" }\ntransfer_scene_id = \"1000\"\n\
     scene_report_infos = [{ info_type = \"a\", info_content = \"b\" }]",
];

/// Writes secret files of every form, and returns the parts of their content that no output may show.
fn put(dir: &Path) -> Vec<String> {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let made = Made::of(&CertificateParams::new(Vec::new()).unwrap(), key);
    made.put(dir, "1");
    std::fs::write(dir.join("public.pem"), made.key.public_key_pem()).unwrap();
    let mut marks = vec![
        MARK.to_owned(),
        made.key.serialized_der()[..32]
            .iter()
            .map(|b| format!("{b}, "))
            .collect(),
    ];
    for name in ["cert.pem", "key.pem", "public.pem"] {
        let text = std::fs::read_to_string(dir.join(name)).unwrap();
        marks.push(text.lines().nth(2).unwrap().to_owned());
    }
    marks
}

/// A secret of every form.
fn samples() -> Vec<Value> {
    let file = |name: &str| Value::Table([("file".to_owned(), name.into())].into_iter().collect());
    let mut samples: Vec<_> = ["cert.pem", "key.pem", "public.pem", "m.p12"].map(file).into();
    samples.extend([MARK.into(), format!("redis://user:{MARK}@h/0").into()]);
    samples
}

/// Loads the base with this secret at `path`. Returns `None` if the configuration refuses it there, or if it
/// has no effect.
fn with(dir: &Path, base: &str, path: &str, secret: Value) -> Option<Config> {
    let least: Table = super::LEAST.parse().unwrap();
    let mut file: Table = base.parse().unwrap();
    for (section, value) in least {
        file.entry(section).or_insert(value);
    }
    let (section, key) = path.rsplit_once('.').unwrap();
    let section = match section.strip_suffix("[0]") {
        Some(list) => file.get_mut(list)?.get_mut(0)?,
        None => file.entry(section).or_insert(Value::Table(Table::new())),
    };
    section.as_table_mut()?.insert(key.to_owned(), secret);
    let config = load_in(dir, &file.to_string(), &[]).ok()?;
    let is_idle = config.warnings.iter().any(|text| text.contains("has no effect"));
    (!is_idle).then_some(config)
}

/// Takes the secret keys from the schema: a new one that no base accepts fails this test.
#[test]
fn every_secret_of_the_schema_is_shown_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let marks = put(dir.path());
    let file = Shape::of_file();
    let secrets: Vec<String> = file
        .leaves("")
        .into_iter()
        .filter_map(|(path, shape)| (*shape == Shape::Secret).then_some(path))
        .collect();
    assert!(secrets.len() >= 12, "{secrets:?}");
    for path in secrets {
        let mut seen = 0;
        for base in BASES {
            for secret in samples() {
                let Some(config) = with(dir.path(), base, &path, secret) else {
                    continue;
                };
                seen += 1;
                let summary = summary(&config).join("\n");
                let shown = format!("{} {config:?} {config:#?} {summary}", redacted(&config).unwrap());
                for mark in &marks {
                    assert!(!shown.contains(mark.as_str()), "{path} is shown: {shown}");
                }
            }
        }
        assert!(seen > 0, "no configuration here takes {path}: give it one");
    }
}

/// The compiler proves that none of these is `Serialize`: if one were, `seen` would be ambiguous and would not
/// compile.
#[test]
fn nothing_else_that_holds_a_key_can_be_serialised() {
    trait IsNoText<Kind> {
        fn seen() -> bool {
            true
        }
    }
    struct Serialised;
    impl<T> IsNoText<()> for T {}
    impl<T: Serialize> IsNoText<Serialised> for T {}
    assert!(<SigningKey as IsNoText<_>>::seen());
    assert!(<Apiv3Key as IsNoText<_>>::seen());
    assert!(<Certificate as IsNoText<_>>::seen());
    assert!(<RedisUrl as IsNoText<_>>::seen());
}
