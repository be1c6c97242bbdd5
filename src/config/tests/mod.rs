//! Tests of the configuration as a whole: from files and variables to values or messages.
//!
//! `files` loads the files of `tests/config/`, `shipped` compares the shipped file with the schema,
//! `credentials` and `bills` make certificates, `secrets` searches all output for secrets, `otlp` tests the
//! settings of traces.

use std::path::Path;

use p12_keystore::{Certificate as P12Certificate, KeyStore, KeyStoreEntry, PrivateKey, PrivateKeyChain};
use rcgen::{CertificateParams, KeyPair};

use super::{Config, ConfigErrors};
use crate::clock::{Clock as _, SystemClock};
use payout_domain::secret::Secret;

mod bills;

mod credentials;

mod files;

mod otlp;

mod secrets;

mod shipped;

/// The smallest valid configuration.
const LEAST: &str = r#"
[identity]
source = "file"
path = "openids.csv"
[ledger]
store = "file"
path = "payouts.redb"
"#;

/// A key and its self-signed certificate.
struct Made {
    cert: rcgen::Certificate,
    key: KeyPair,
}

impl Made {
    fn of(params: &CertificateParams, key: KeyPair) -> Self {
        Self {
            cert: params.self_signed(&key).unwrap(),
            key,
        }
    }

    fn p12(&self, password: &str) -> Vec<u8> {
        let key = PrivateKey::from_der(self.key.serialized_der()).unwrap();
        let cert = P12Certificate::from_der(self.cert.der()).unwrap();
        let mut store = KeyStore::new();
        store.add_entry(
            "m",
            KeyStoreEntry::PrivateKeyChain(PrivateKeyChain::new("id", key, [cert])),
        );
        store.writer(password).write().unwrap()
    }

    /// Writes `cert.pem`, `key.pem`, and `m.p12` with this password.
    fn put(&self, dir: &Path, password: &str) {
        std::fs::write(dir.join("cert.pem"), self.cert.pem()).unwrap();
        std::fs::write(dir.join("key.pem"), self.key.serialize_pem()).unwrap();
        std::fs::write(dir.join("m.p12"), self.p12(password)).unwrap();
    }
}

/// Loads a text as the `config.toml` of an otherwise empty directory.
fn load_text(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let dir = tempfile::tempdir().unwrap();
    load_in(dir.path(), text, env)
}

/// Loads a text as the `config.toml` of a directory.
fn load_in(dir: &Path, text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let path = dir.join("config.toml");
    std::fs::write(&path, text).unwrap();
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    super::load::load_at(&path, env, SystemClock.now())
}

/// The messages of an invalid configuration.
fn mistakes(text: &str, env: &[(&str, &str)]) -> Vec<String> {
    load_text(text, env)
        .unwrap_err()
        .errors
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn what_is_left_out_has_the_specified_default() {
    let config = load_text(LEAST, &[]).unwrap();
    let view = super::redacted::redacted(&config).unwrap();
    assert_eq!(
        view["server"],
        serde_json::json!({
            "listen": "0.0.0.0:8080", "max_body": "64KiB", "header_timeout": "5s", "body_timeout": "5s", "idle_timeout": "75s",
            "request_timeout": "15s",
            "max_in_flight": 1024, "max_connections": 8192, "memory_limit": null, "http2": false, "lame_duck": "3s", "drain_timeout": "25s", "tls": null
        })
    );
    assert_eq!(view["admin"]["listen"], "127.0.0.1:9090");
    assert_eq!(view["client_ip"]["value"], "keep");
    assert_eq!(view["ledger"]["retention"], "400d");
    assert_eq!(view["wechat"]["base_url"], "https://api.mch.weixin.qq.com");
    assert_eq!(view["wechat"]["backup_url"], "https://api2.mch.weixin.qq.com");
    assert_eq!(view["wechat"]["not_found_after"], "24h");
    assert_eq!(view["answer"]["reveal_openid"], false);
    assert_eq!(
        view["log"],
        serde_json::json!({ "format": "json", "level": "info" })
    );
    assert_eq!(view["backend"]["url"], serde_json::Value::Null);
}

#[test]
fn the_backend_is_spoken_to_in_plain_http_without_a_path_of_its_own() {
    for (url, wrong) in [
        ("https://app:8443", "must be http"),
        ("http://app:8000/base", "must have no path"),
        ("http://me:pw@app", "must hold no user or password"),
    ] {
        let found = mistakes(&format!("{LEAST}[backend]\nurl = \"{url}\"\n"), &[]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].contains("backend.url") && found[0].contains(wrong),
            "{}",
            found[0]
        );
        assert!(!found[0].contains("pw@"), "{}", found[0]);
    }
}

#[test]
fn redis_stores_have_the_specified_defaults() {
    let text = "[identity]\nurl = \"redis://a/0\"\n[ledger]\nurl = \"redis://b/1\"\n";
    let view = super::redacted::redacted(&load_text(text, &[]).unwrap()).unwrap();
    assert_eq!(
        view["identity"],
        serde_json::json!({
            "source": "redis", "url": "redis://a/0", "ca": null, "key": "openid:{wxAppId}:{userId}", "field": null,
            "cache_ttl": "60s", "cache_entries": 100_000
        })
    );
    assert_eq!(
        view["ledger"],
        serde_json::json!({
            "store": "redis", "url": "redis://b/1", "ca": null, "prefix": "payout:", "wait_replicas": 0,
            "create": false, "retention": "400d"
        })
    );
}

#[test]
fn the_environment_wins_over_the_file_and_is_named_in_mistakes() {
    let text = format!("{LEAST}[server]\nlisten = \"nonsense\"\n");
    let config = load_text(&text, &[("PAYOUT_SIDECAR__SERVER__LISTEN", "127.0.0.1:1")]).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:1");

    let merchant = [
        ("PAYOUT_SIDECAR__MERCHANT__0__MCH_ID", "1900000109"),
        ("PAYOUT_SIDECAR__MERCHANT__0__TO", "handler"),
        (
            "PAYOUT_SIDECAR__MERCHANT__0__HANDLER_URL",
            "http://127.0.0.1:1/x/",
        ),
    ];
    let config = load_text(LEAST, &merchant).unwrap();
    assert_eq!(config.merchants[0].name, "merchant[0] 1900000109");

    assert_eq!(
        mistakes(
            LEAST,
            &[
                ("PAYOUT_SIDECAR__SERVER__LISEN", "x"),
                ("PAYOUT_SIDECAR__LEDGER__RETENTION", "30d")
            ]
        ),
        [
            "PAYOUT_SIDECAR__LEDGER__RETENTION: ledger.retention: must be at least 365d, for so long does WeChat know an \
             order number, not 30d",
            "PAYOUT_SIDECAR__SERVER__LISEN: unknown key server.lisen: did you mean server.listen?",
        ]
    );
}

#[test]
fn an_ipv4_address_written_as_ipv6_is_the_ipv4_address() {
    let text = format!("{LEAST}[client_ip]\nvalue = \"::ffff:203.0.113.7\"\n");
    let config = load_text(&text, &[]).unwrap();
    assert_eq!(config.client_ip, super::ClientIp::Value([203, 0, 113, 7].into()));
}

#[test]
fn no_secret_is_shown_anywhere() {
    let text = r#"
        [identity]
        url = "rediss://user:hush-1@h/0"
        [ledger]
        url = { env = "LEDGER_URL" }
        [access]
        token = "hush-3"
        sign_key = { file = "sign" }
        [admin]
        token = { env = "ADMIN" }
        [wechat]
        base_url = "http://127.0.0.1:1"
        [[merchant]]
        mch_id = "1"
        to = "wechat"
        product = "transfer"
        api_key = "hush-6-hush-6-hush-6-hush-6-hush"
        [[merchant]]
        to = "handler"
        handler_url = "http://h"
        handler_token = { env = "HANDLER" }
    "#;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("sign"), "hush-4\n").unwrap();
    let env = [
        ("LEDGER_URL", "redis://:hush-2@h/0"),
        ("ADMIN", "hush-5"),
        ("HANDLER", "hush-7"),
    ];
    let config = load_in(dir.path(), text, &env).unwrap();
    assert_eq!(
        config.access.sign_key.as_ref().map(Secret::expose),
        Some("hush-4")
    );
    assert_eq!(config.admin.token.as_ref().map(Secret::expose), Some("hush-5"));
    let super::To::Handler(handler) = &config.merchants[1].to else {
        panic!("not a handler")
    };
    assert_eq!(handler.token.as_ref().map(Secret::expose), Some("hush-7"));
    let shown = format!(
        "{config:?} {} {}",
        super::redacted::redacted(&config).unwrap(),
        super::redacted::summary(&config).join("\n")
    );
    assert!(!shown.contains("hush"), "{shown}");
    assert!(
        shown.contains("[set]") && shown.contains("rediss://user:***@h/0"),
        "{shown}"
    );
    assert_eq!(
        config.files,
        [dir.path().join("config.toml"), dir.path().join("sign")]
    );
}

/// Secrets at keys that want something else, incomplete, or beside another mistake.
#[test]
fn no_secret_is_quoted_in_a_mistake() {
    for text in [
        "[access]\ntoken = \"hush",
        "[access]\ntoken = hush\n",
        "[access]\ntoken = [\"hush\"]\n",
        "[access]\ntoken = { file = \"no-such-file\", env = \"hush\" }\n",
        "[access]\ntokn = \"hush\"\n",
        "[limits]\nmax_amount = \"hush\"\n",
        "[identity]\nurl = \"http://:hush@h\"\n",
        "[[merchant]]\nto = \"wechat\"\nproduct = \"transfer\"\nmch_id = \"1\"\napi_key = \"hush\"\nkey = \"hush\"\n",
    ] {
        let shown = load_text(text, &[]).unwrap_err().to_string();
        assert!(!shown.contains("hush"), "{shown}");
    }
}

#[test]
fn a_handlers_token_is_a_header_value_and_a_handlers() {
    let entry =
        |more: &str| format!("{LEAST}[[merchant]]\nto = \"handler\"\nhandler_url = \"http://h\"\n{more}\n");
    for good in ["", "handler_token = \"s3cret/+=~\""] {
        assert!(load_text(&entry(good), &[]).is_ok(), "{good}");
    }
    for bad in ["a b", "a\\n", "\\u0000", "schlüssel", "\\t"] {
        let text = entry(&format!("handler_token = \"hush{bad}\""));
        let [mistake] = &mistakes(&text, &[])[..] else {
            panic!("{bad}")
        };
        assert!(
            mistake.contains("merchant[0].handler_token: holds a blank"),
            "{mistake}"
        );
        assert!(!mistake.contains("hush"), "{mistake}");
    }
    assert!(mistakes(&entry("handler_token = \"\""), &[])[0].contains("handler_token: is empty"));
    // A mistake in another key does not hide it.
    let both = entry("handler_id = \"shop\"\nhandler_token = \"a b\"").replace("http://h", "h");
    let [url, token] = &mistakes(&both, &[])[..] else {
        panic!("{:?}", mistakes(&both, &[]))
    };
    assert!(url.contains("merchant[0].handler_url: "), "{url}");
    assert!(
        token.contains("merchant[0].handler_token: holds a blank"),
        "{token}"
    );
}

#[test]
fn a_stand_in_never_gets_the_real_backup_host() {
    let fake = format!("{LEAST}[wechat]\nbase_url = \"http://127.0.0.1:9\"\n");
    assert_eq!(load_text(&fake, &[]).unwrap().wechat.backup_url, None);
    let real = [(
        "PAYOUT_SIDECAR__WECHAT__BACKUP_URL",
        "https://api2.mch.weixin.qq.com",
    )];
    assert!(mistakes(&fake, &real)[0].contains("one of base_url and backup_url is on this machine"));
    let other = format!("{LEAST}[wechat]\nbase_url = \"https://wechat.example.com\"\n");
    assert_eq!(load_text(&other, &[]).unwrap().wechat.backup_url, None);
}

#[test]
fn a_handler_is_believed_after_twice_its_time_out_unless_it_refuses_doubles() {
    let text =
        format!("{LEAST}[[merchant]]\nto = \"handler\"\nhandler_url = \"http://h/x/\"\ntimeout = \"7s\"\n");
    let found = |env: &[(&str, &str)]| {
        let config = load_text(&text, env).unwrap();
        let super::To::Handler(handler) = &config.merchants[0].to else {
            panic!("not a handler")
        };
        (handler.not_found_after.as_secs(), handler.url.to_string())
    };
    assert_eq!(found(&[]), (14, "http://h/x".to_owned()));
    assert_eq!(
        found(&[("PAYOUT_SIDECAR__MERCHANT__0__IDEMPOTENT", "true")]).0,
        86_400
    );
    assert_eq!(
        found(&[("PAYOUT_SIDECAR__MERCHANT__0__NOT_FOUND_AFTER", "60s")]).0,
        60
    );
}

/// `handler_id` and `formerly` of a handler entry with these keys.
fn names(keys: &str) -> (String, Vec<String>) {
    let text = format!("{LEAST}[[merchant]]\nto = \"handler\"\n{keys}\n");
    let config = load_text(&text, &[]).unwrap();
    let super::To::Handler(handler) = &config.merchants[0].to else {
        panic!("not a handler")
    };
    (
        handler.id.as_str().to_owned(),
        handler.formerly.iter().map(ToString::to_string).collect(),
    )
}

#[test]
fn a_handler_is_called_by_its_address_unless_it_has_a_name() {
    let url = "handler_url = \"HTTPS://Pay.Example.com/Base/\"\n";
    let name = |keys: &str| names(&[url, keys].concat()).0;
    assert_eq!(name(""), "https://pay.example.com:443/Base");
    assert_eq!(name("handler_id = \"商铺-1\""), "商铺-1");
    assert_eq!(name("handler_id = \"http://Old:80/\""), "http://old:80");
    let formerly = "formerly = [\"http://OLD\", \"shop\", \"https://a:1/b/\"]";
    assert_eq!(
        names(&[url, formerly].concat()).1,
        ["http://old:80", "shop", "https://a:1/b"]
    );
    assert_eq!(names(url).1, Vec::<String>::new());
    let two = format!(
        "{LEAST}[[merchant]]\nmch_id = \"1\"\nto = \"handler\"\nhandler_url = \"http://a\"\nformerly = [\"http://old\"]\n\
         [[merchant]]\nmch_id = \"1\"\nto = \"handler\"\nhandler_url = \"http://b\"\nformerly = [\"http://old\"]\nsettle_only = true\n"
    );
    assert!(load_text(&two, &[]).is_ok());
}

#[test]
fn an_entry_for_old_orders_stands_beside_a_new_one_and_takes_no_new_order() {
    let old = |n: u8| {
        format!(
            "[[merchant]]\nmch_id = \"1\"\nto = \"handler\"\nhandler_url = \"http://old-{n}\"\nsettle_only = true\n"
        )
    };
    let new = "[[merchant]]\nto = \"handler\"\nhandler_url = \"http://new\"\n";
    let text = [LEAST, &old(0), &old(1), new].concat();
    let config = load_text(&text, &[("PAYOUT_SIDECAR__SERVER__LISTEN", "127.0.0.1:1")]).unwrap();
    assert_eq!(
        config.merchants.iter().map(|m| m.settle_only).collect::<Vec<_>>(),
        [true, true, false]
    );
    assert_eq!(config.warnings, Vec::<String>::new());
    let mch = payout_domain::ids::MchId::parse("1").unwrap();
    let app = payout_domain::ids::WxAppId::parse("wx1").unwrap();
    let found = config.merchant(&mch, &app).map(|merchant| merchant.name.as_str());
    assert_eq!(found, Some("merchant[2] *"));
    let view = super::redacted::redacted(&config).unwrap();
    assert_eq!(view["merchant"][1]["settle_only"], true);
    assert_eq!(view["merchant"][2]["settle_only"], false);
    assert!(
        super::redacted::summary(&config)
            .contains(&"merchant[1] 1: handler http://old-1, no new orders".to_owned())
    );

    let config = load_text(&[LEAST, &old(0), &old(1)].concat(), &[]).unwrap();
    assert!(config.merchant(&mch, &app).is_none());
    assert_eq!(
        config.warnings[0],
        "merchant: every [[merchant]] has settle_only = true, so every new payout is answered NO_AUTH: add one without it"
    );
}

#[test]
fn a_redis_that_is_emptied_must_not_become_a_new_ledger_by_itself() {
    let create = [("PAYOUT_SIDECAR__LEDGER__CREATE", "true")];
    let file = load_text(LEAST, &create).unwrap();
    assert!(file.ledger.create && !load_text(LEAST, &[]).unwrap().ledger.create);
    let about = |config: &Config| {
        let warnings = config.warnings.iter();
        warnings
            .filter(|text| text.starts_with("ledger.create"))
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(about(&file), Vec::<String>::new());
    let redis = "[identity]\nurl = \"redis://a/0\"\n[ledger]\nurl = \"redis://b/1\"\n";
    assert_eq!(about(&load_text(redis, &[]).unwrap()), Vec::<String>::new());
    assert_eq!(
        about(&load_text(redis, &create).unwrap()),
        [
            "ledger.create: is true, so a replica that starts after Redis was emptied would take the empty store for a new \
             ledger: leave it out, and make the ledger once by `payout-sidecar ledger create`"
        ]
    );
}

#[test]
fn the_most_specific_merchant_is_found() {
    let text = format!(
        "{LEAST}[[merchant]]\nto = \"handler\"\nhandler_url = \"http://any\"\n\
         [[merchant]]\nmch_id = \"1\"\nto = \"handler\"\nhandler_url = \"http://one\"\n"
    );
    let config = load_text(&text, &[]).unwrap();
    let app = payout_domain::ids::WxAppId::parse("wx1").unwrap();
    let name = |mch: &str| {
        let mch = payout_domain::ids::MchId::parse(mch).unwrap();
        config.merchant(&mch, &app).map(|merchant| merchant.name.clone())
    };
    assert_eq!(name("1").as_deref(), Some("merchant[1] 1"));
    assert_eq!(name("2").as_deref(), Some("merchant[0] *"));
}

#[test]
fn what_works_but_may_not_be_meant_is_a_warning() {
    let text = r#"
        [identity]
        url = "redis://h"
        key = "openids"
        field = "{userId}"
        path = "left-over.csv"
        [ledger]
        store = "file"
        path = "p.redb"
        wait_replicas = 1
    "#;
    assert_eq!(
        load_text(text, &[]).unwrap().warnings,
        [
            "identity.path: has no effect with source = \"redis\"",
            "identity.key: does not contain {wxAppId}: right only if all payouts are made under one app",
            "ledger.wait_replicas: has no effect with store = \"file\"",
            "merchant: there is no [[merchant]], so every payout is answered NO_AUTH: add one",
            "access: has no rule, so whoever reaches the main port may order payouts: give allow_from, token or sign_key",
        ]
    );
}

#[test]
fn a_missing_file_is_named() {
    let error = super::load(Path::new("no/such/config.toml"), std::iter::empty()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no/such/config.toml has 1 mistake:\n  the file cannot be read (entity not found): name it with --config"
    );
}
