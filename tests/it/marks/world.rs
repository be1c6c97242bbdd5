//! The set-up of `marks`: a configuration and keys in which every secret is marked, and configurations with mistakes
//! next to the secrets.

use fake_wechat::{APIV3_KEY, FakeWechat, Options, PUBLIC_KEY_ID};
use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, PrivateKey, PrivateKeyChain};
use payout_sidecar::private::replace_all;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

use crate::support::otlp::{Collector, Does};
use crate::support::sidecar::{APP, MERCHANT};
use test_support::redis::Redis;

pub const ADMIN: &str = "MARKadmin7f3a9c";
pub const CALLER: &str = "MARKcaller51bd20";
pub const WRONG: &str = "MARKwrong9e8d7c6b";
pub const SIGN_KEY: &str = "MARKsignkey0a1b2c";
pub const REDIS: &str = "MARKredis4d5e6f";
pub const HANDLER: &str = "MARKhandler6c5d4e";
pub const COLLECTOR: &str = "MARKcollector3b2a19";
pub const API_KEY: &str = "MARKapikey0123456789abcdefghijkl";
pub const API_KEY_SENT: &str = "MARKsentkey0123456789abcdefghijk";
pub const USER: &str = "MARKuser-0123456789abcdef";
pub const OPENID: &str = "oMARKopenid0123456789abcdef";
pub const SENDS_KEYS: &str = "1900000777";
pub const HAS_P12: &str = "1900000888";
pub const HANDLED: &str = "1900000999";
pub const BILLED: &str = "1900000113";

fn p12(cert: &str, key: &str) -> Vec<u8> {
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
    let chain = PrivateKeyChain::new(
        "id",
        PrivateKey::from_der(key.secret_der()).unwrap(),
        [Certificate::from_der(&cert).unwrap()],
    );
    let mut store = KeyStore::new();
    store.add_entry("m", KeyStoreEntry::PrivateKeyChain(chain));
    store.writer(HAS_P12).write().unwrap()
}

/// The lines of a PEM key without its first and last one.
fn lines_of(pem: &str) -> Vec<String> {
    let lines: Vec<&str> = pem.trim().lines().collect();
    lines[1..lines.len() - 1]
        .iter()
        .map(|line| (*line).to_owned())
        .collect()
}

pub struct World {
    pub fake: FakeWechat,
    pub redis: Redis,
    pub collector: Collector,
    pub pki: TempDir,
    pub sent_cert: String,
    pub sent_key: String,
}

impl World {
    pub async fn start() -> Self {
        let own = [(SENDS_KEYS.to_owned(), API_KEY_SENT.to_owned())];
        let fake = FakeWechat::start(Options {
            api_key: API_KEY.to_owned(),
            merchants: own.to_vec(),
            ..Options::loopback()
        })
        .await
        .unwrap();
        let pki = tempfile::tempdir().unwrap();
        replace_all(pki.path(), &fake.pki(&[MERCHANT]).unwrap()).unwrap();
        replace_all(pki.path(), &fake.v3_pki(&[BILLED]).unwrap()).unwrap();
        let (cert, key) = fake.client_certificate(HAS_P12).unwrap();
        std::fs::write(pki.path().join("merchant.p12"), p12(&cert, &key)).unwrap();
        std::fs::write(pki.path().join("p12.key"), key).unwrap();
        std::fs::write(pki.path().join("caller-token"), CALLER).unwrap();
        let (sent_cert, sent_key) = fake.client_certificate(SENDS_KEYS).unwrap();
        let synced = [
            "--requirepass",
            REDIS,
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        ];
        let redis = Redis::start_with(&synced, Some(REDIS));
        redis.cli(&["SET", &format!("openid:{APP}:{USER}"), OPENID]);
        Self {
            fake,
            redis,
            collector: Collector::start(Does::Takes).await,
            pki,
            sent_cert,
            sent_key,
        }
    }

    pub fn configuration(&self) -> String {
        let pki = self.pki.path().display();
        let redis = format!("redis://:{REDIS}@127.0.0.1:{}/0", self.redis.port);
        let plain = self.fake.addr();
        let collector = self.collector.address;
        let tls = self.fake.tls_addr().unwrap().port();
        let redpack = "to = \"wechat\"\nproduct = \"redpack\"\nsend_name = \"s\"\nwishing = \"w\"";
        format!(
            "[server]\nhttp2 = true\n[admin]\ntoken = \"{ADMIN}\"\n\
             [access]\ntoken = {{ file = \"{pki}/caller-token\" }}\nsign_key = {{ env = \"SIGN_KEY\" }}\n\
             [client_ip]\nvalue = \"203.0.113.7\"\n\
             [identity]\nsource = \"redis\"\nurl = \"{redis}\"\n[ledger]\nstore = \"redis\"\nurl = \"{redis}\"\ncreate = true\n\
             [limits]\nmax_amount = 20000\n[backend]\nurl = \"http://{plain}\"\n[log]\nlevel = \"trace\"\n\
             [telemetry]\notlp = \"http://{collector}\"\n\
             [wechat]\nbase_url = \"https://localhost:{tls}\"\nca = \"{pki}/stub-ca.crt\"\ntimeout = \"1s\"\n\
             [[merchant]]\nmch_id = \"{MERCHANT}\"\n{redpack}\napi_key = \"{API_KEY}\"\n\
             cert = {{ file = \"{pki}/{MERCHANT}/apiclient_cert.pem\" }}\nkey = {{ file = \"{pki}/{MERCHANT}/apiclient_key.pem\" }}\n\
             [[merchant]]\nmch_id = \"{SENDS_KEYS}\"\n{redpack}\nrequest_credentials = true\n\
             [[merchant]]\nmch_id = \"{HAS_P12}\"\n{redpack}\napi_key = \"{API_KEY}\"\np12 = {{ file = \"{pki}/merchant.p12\" }}\n\
             [[merchant]]\nmch_id = \"{HANDLED}\"\nto = \"handler\"\nhandler_url = \"http://{plain}\"\nforward_credentials = true\n\
             handler_token = \"{HANDLER}\"\n\
             [[merchant]]\nmch_id = \"{BILLED}\"\nto = \"wechat\"\nproduct = \"transfer-bill\"\n\
             cert = {{ file = \"{pki}/{BILLED}/v3/apiclient_cert.pem\" }}\nkey = {{ file = \"{pki}/{BILLED}/v3/apiclient_key.pem\" }}\n\
             apiv3_key = {{ file = \"{pki}/{BILLED}/v3/apiv3-key\" }}\npublic_key_id = \"{PUBLIC_KEY_ID}\"\n\
             public_key = {{ file = \"{pki}/{BILLED}/v3/wechatpay_pub_key.pem\" }}\ntransfer_scene_id = \"1000\"\n\
             user_recv_perception = \"现金奖励\"\nscene_report_infos = [{{ info_type = \"活动名称\", info_content = \"{{actName}}\" }}, {{ info_type = \"奖励说明\", info_content = \"{{remark}}\" }}]\n\
             notify_url = \"http://127.0.0.1:MAIN_PORT/notify/bill\"\n"
        )
    }

    /// The texts that must not appear in any output.
    pub fn marks(&self) -> Vec<String> {
        let named = [
            ADMIN,
            CALLER,
            WRONG,
            SIGN_KEY,
            REDIS,
            HANDLER,
            COLLECTOR,
            API_KEY,
            API_KEY_SENT,
            APIV3_KEY,
        ];
        let mut marks: Vec<String> = named.map(str::to_owned).into();
        let keys = ["apiclient_key.pem", "v3/apiclient_key.pem"].map(|name| match name {
            "apiclient_key.pem" => self.pki.path().join(MERCHANT).join(name),
            _ => self.pki.path().join(BILLED).join(name),
        });
        for key in keys.into_iter().chain([self.pki.path().join("p12.key")]) {
            marks.extend(lines_of(&std::fs::read_to_string(key).unwrap()));
        }
        marks.extend(lines_of(&self.sent_key));
        marks
    }
}

/// Configurations with mistakes next to the secrets.
pub fn wrong_configurations(world: &World, good: &str) -> Vec<String> {
    let instead = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replace(from, to)
    };
    let token = format!("token = \"{ADMIN}\"");
    let api_key = format!("api_key = \"{API_KEY}\"");
    let at = format!(":{REDIS}@127.0.0.1:{}/0", world.redis.port);
    let garbage = world.pki.path().join("garbage");
    std::fs::write(
        &garbage,
        format!("-----BEGIN PRIVATE KEY-----\n{WRONG}\n-----END PRIVATE KEY-----\n"),
    )
    .unwrap();
    let garbage = garbage.display();
    vec![
        instead(&token, &format!("token = \"{ADMIN}")),
        instead(&token, &format!("token = {ADMIN}")),
        instead(&token, &format!("token = [\"{ADMIN}\"]")),
        instead(&token, &format!("token = {{ value = \"{ADMIN}\" }}")),
        instead(
            &token,
            &format!("token = {{ env = \"a\", file = \"{ADMIN}\\q\" }}"),
        ),
        instead(&token, &format!("{token}\n{token}")),
        instead(&token, &format!("tokne = \"{ADMIN}\"")),
        instead(&token, &format!("token = \"\"\"{ADMIN}\n\"\"\"x")),
        instead(&api_key, &format!("api_key = \"{WRONG}\"")),
        instead(&api_key, &format!("api_key = \"{API_KEY}é\"")),
        instead(&api_key, &format!("{api_key}\napikey = \"{API_KEY}\"")),
        instead(HANDLER, &format!("{HANDLER} {WRONG}")),
        instead(
            &format!("handler_token = \"{HANDLER}\""),
            &format!("handler_token = [\"{HANDLER}\"]"),
        ),
        instead(&at, &format!("{at}/x/y?{REDIS}")),
        instead(&format!("redis://{at}"), &format!("redsi://{at}")),
        instead(&format!("redis://{at}"), &format!("redis//{at}")),
        instead(&at, &format!(":{REDIS}@127.0.0.1:port/0")),
        instead(&at, &format!(":{REDIS}#@[::/0")),
        instead(&at, &format!("user:{REDIS}@/0")),
        instead(&format!("{MERCHANT}/apiclient_key.pem"), "garbage"),
        instead(
            &format!("{MERCHANT}/apiclient_key.pem"),
            &format!("{BILLED}/v3/apiclient_key.pem"),
        ),
        instead("merchant.p12", "garbage"),
        instead(&format!("{BILLED}/v3/apiv3-key"), "garbage"),
        instead("wechatpay_pub_key.pem", "apiclient_key.pem"),
        instead("stub-ca.crt", "garbage"),
        instead("caller-token\"", "caller-token\", env = \"B\""),
        instead(
            "[backend]\nurl = \"http://",
            &format!("[backend]\nurl = \"http://user:{WRONG}@"),
        ),
        instead(
            "handler_url = \"http://",
            &format!("handler_url = \"http://user:{WRONG}@"),
        ),
        instead(
            "base_url = \"https://",
            &format!("base_url = \"https://user:{WRONG}@"),
        ),
        instead("otlp = \"http://", &format!("otlp = \"http://user:{WRONG}@")),
        instead(
            "notify_url = \"http://",
            &format!("notify_url = \"http://user:{WRONG}@"),
        ),
        format!("{good}key = {{ file = \"{garbage}\" }}\n"),
    ]
}
