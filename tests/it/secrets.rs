//! Searches a process's memory for rotated secrets: none may remain once the new ones are in force.

use payout_sidecar::private::replace_all;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use crate::support::sidecar::{Encoding, MERCHANT, Payout, Sidecar, To, Upstream, embedded};
use test_support::until;

/// Bytes per read, and bytes by which two reads overlap. The overlap is longer than any secret.
const PIECE: usize = 4 << 20;
const OVERLAP: usize = 4096;

/// Which of `texts` the memory of a process contains. Needs root, since the process is not dumpable.
fn found<'a>(process: u32, texts: &[&'a str]) -> Vec<&'a str> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let mut memory = File::open(format!("/proc/{process}/mem")).unwrap();
    let mut found = Vec::new();
    let (mut piece, zeros) = (vec![0; PIECE], vec![0; PIECE]);
    for line in maps.lines() {
        let mut columns = line.split_ascii_whitespace();
        let (range, rights) = (columns.next().unwrap(), columns.next().unwrap());
        // Read-only mappings hold the program itself.
        if !rights.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|hex| u64::from_str_radix(hex, 16).unwrap());
        let mut at = from;
        while at < to {
            let length = usize::try_from(std::cmp::min(to - at, PIECE as u64)).unwrap();
            memory.seek(SeekFrom::Start(at)).unwrap();
            // A page that was unmapped meanwhile cannot be read. Most of an allocator's memory was never written.
            let bytes = &mut piece[..length];
            if memory.read_exact(bytes).is_ok() && *bytes != zeros[..length] {
                let text = String::from_utf8_lossy(bytes);
                found.extend(texts.iter().filter(|secret| text.contains(**secret)));
            }
            at += (length.max(OVERLAP + 1) - if at + (length as u64) < to { OVERLAP } else { 0 }) as u64;
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// One version of all secrets.
struct Secrets {
    token: String,
    admin: String,
    sign_key: String,
    api_key: String,
    apiv3_key: String,
}

impl Secrets {
    fn new(tag: &str) -> Self {
        Self {
            token: format!("token-{tag}-of-callers-8d1f"),
            admin: format!("admin-{tag}-of-operators-77c2"),
            sign_key: format!("sign-{tag}-of-requests-03be"),
            api_key: format!("api{tag}OfTheMerchant{:032}", 0)
                .chars()
                .take(32)
                .collect(),
            apiv3_key: format!("apiv3{tag}OfTheMerchant{:032}", 0)
                .chars()
                .take(32)
                .collect(),
        }
    }

    fn all(&self) -> [&str; 5] {
        [
            &self.token,
            &self.admin,
            &self.sign_key,
            &self.api_key,
            &self.apiv3_key,
        ]
    }

    fn configuration(&self, rest: &str, bill: &str) -> String {
        let Self {
            token,
            sign_key,
            api_key,
            ..
        } = self;
        format!(
            "[access]\ntoken = \"{token}\"\nsign_key = \"{sign_key}\"\n[admin]\ntoken = {{ file = \"admin-token\" }}\n{}{bill}",
            rest.replace(fake_wechat::API_KEY, api_key)
        )
    }

    fn write(&self, sidecar: &std::path::Path, configuration: &str) {
        std::fs::write(sidecar.join("admin-token"), &self.admin).unwrap();
        std::fs::write(sidecar.join("apiv3-key"), &self.apiv3_key).unwrap();
        let beside = sidecar.join("config.new");
        std::fs::write(&beside, configuration).unwrap();
        std::fs::rename(beside, sidecar.join("config.toml")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rotated_away_is_in_memory_no_more() {
    let upstream = Upstream::start(To::Redpack).await;
    let pki = upstream.fake.v3_pki(&["1900000113"]).unwrap();
    replace_all(upstream.dir.path(), &pki).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let v3 = upstream.dir.path().join("1900000113/v3");
    let bill = format!(
        "[[merchant]]\nmch_id = \"1900000113\"\nto = \"wechat\"\nproduct = \"transfer-bill\"\n\
         cert = {{ file = \"{0}/apiclient_cert.pem\" }}\nkey = {{ file = \"{0}/apiclient_key.pem\" }}\n\
         apiv3_key = {{ file = \"apiv3-key\" }}\npublic_key_id = \"{1}\"\n\
         public_key = {{ file = \"{0}/wechatpay_pub_key.pem\" }}\ntransfer_scene_id = \"1000\"\n\
         user_recv_perception = \"现金奖励\"\nscene_report_infos = [\
         {{ info_type = \"活动名称\", info_content = \"{{actName}}\" }}, \
         {{ info_type = \"奖励说明\", info_content = \"{{remark}}\" }}]\n",
        v3.display(),
        fake_wechat::PUBLIC_KEY_ID
    );
    let rest = embedded(&dir) + &upstream.configuration();
    let (first, second) = (Secrets::new("first"), Secrets::new("second"));
    let configuration = first.configuration(&rest, &bill);
    first.write(dir.path(), &configuration);
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    // Even a payout that the sidecar refuses uses the secrets.
    sidecar.pay(Encoding::Json, &Payout::new("A1")).await;
    let path = upstream.dir.path().join(MERCHANT);
    let before = found(sidecar.id(), &first.all());
    assert_eq!(before.len(), 5, "the secrets in force are found: {before:?}");

    let (cert, key) = upstream.fake.client_certificate(MERCHANT).unwrap();
    std::fs::write(path.join("apiclient_cert.pem"), cert).unwrap();
    std::fs::write(path.join("apiclient_key.pem"), key).unwrap();
    second.write(sidecar.dir.path(), &second.configuration(&rest, &bill));
    sidecar.logged("the new configuration is in force").await;
    let mut left = Vec::new();
    until("none of the first is left", async || {
        // Memory of the last request is freed with the next one.
        sidecar.pay(Encoding::Json, &Payout::new("A2")).await;
        let now = found(sidecar.id(), &first.all());
        if now != left {
            eprintln!("left: {now:?}");
            left = now;
        }
        left.is_empty()
    })
    .await;
    let now = found(sidecar.id(), &second.all());
    assert_eq!(now.len(), 5, "{now:?}");
}
