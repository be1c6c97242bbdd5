//! Configuration reloads: a running sidecar takes a changed configuration as a whole, or refuses it and names the
//! mistake.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::sidecar::{Encoding, Payout, Sidecar, To, Upstream, embedded};
use test_support::http::call;
use test_support::tls::{Authority, greet, serial};
use test_support::until;

/// A sidecar whose configuration a test rewrites.
struct Changing {
    upstream: Upstream,
    sidecar: Sidecar,
}

impl Changing {
    async fn start(dir: TempDir, first: &str) -> Self {
        let upstream = Upstream::start(To::Redpack).await;
        let configuration = format!("{first}\n{}{}", embedded(&dir), upstream.configuration());
        let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
        Self { upstream, sidecar }
    }

    fn write(&self, first: &str) {
        let rest = embedded(&self.sidecar.dir) + &self.upstream.configuration();
        // Replaces the file by renaming a finished one, as an editor or a ConfigMap does.
        let beside = self.sidecar.dir.path().join("config.new");
        std::fs::write(&beside, format!("{first}\n{rest}")).unwrap();
        std::fs::rename(beside, self.sidecar.dir.path().join("config.toml")).unwrap();
    }

    async fn pay(&self, token: &str, order_no: &str) -> String {
        let body = Payout::new(order_no).body(Encoding::Json);
        let authorization = format!("Bearer {token}");
        let headers = [
            ("Content-Type", "application/json"),
            ("Authorization", authorization.as_str()),
        ];
        let answer = call(
            self.sidecar.main,
            "POST",
            "/pay/sendApiRedPack",
            &headers,
            body.as_bytes(),
        )
        .await;
        answer.code()
    }

    async fn logged(&self, what: &str) -> String {
        self.sidecar.logged(what).await
    }

    async fn metric(&self, line: &str) -> bool {
        let metrics = call(self.sidecar.admin, "GET", "/metrics", &[], b"").await;
        metrics.body.lines().any(|shown| shown == line)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_is_taken_and_a_bad_one_refused_by_name() {
    let changing = Changing::start(tempfile::tempdir().unwrap(), "[access]\ntoken = \"first\"").await;
    assert_eq!(changing.pay("first", "A1").await, "SUCCESS");

    changing.write("[access]\ntoken = \"second\"");
    until("the second token", async || {
        changing.pay("second", "A2").await == "SUCCESS"
    })
    .await;
    assert_eq!(changing.pay("first", "A3").await, "NO_AUTH");
    assert!(
        changing
            .metric("payout_config_reloads_total{result=\"taken\"} 1")
            .await
    );

    changing.write("[access]\ntokn = \"third\"");
    let log = changing.logged("access.tokn").await;
    assert!(log.contains("the new configuration was refused"));
    assert!(changing.metric("payout_config_last_reload_success 0").await);
    assert_eq!(
        changing.pay("second", "A4").await,
        "SUCCESS",
        "the old one serves"
    );
    changing.write("[access]\ntoken = { file = \"gone\" }");
    changing.logged("gone cannot be read").await;
    assert_eq!(changing.pay("second", "A5").await, "SUCCESS");

    changing.write("[access]\ntoken = \"second\"");
    changing
        .logged("the configuration is again the one that is in force")
        .await;
    assert!(changing.metric("payout_config_last_reload_success 1").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secrets_file_is_followed_through_the_swap_of_a_mounted_secret() {
    let dir = tempfile::tempdir().unwrap();
    let version = |name: &str, token: &str| {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        std::fs::write(dir.path().join(name).join("token"), token).unwrap();
    };
    version("v1", "first");
    std::os::unix::fs::symlink("v1", dir.path().join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/token", dir.path().join("token")).unwrap();
    let path = dir.path().to_owned();
    version("v2", "second");
    let changing = Changing::start(dir, "[access]\ntoken = { file = \"token\" }").await;
    assert_eq!(changing.pay("first", "A1").await, "SUCCESS");
    std::os::unix::fs::symlink("v2", path.join("..new")).unwrap();
    std::fs::rename(path.join("..new"), path.join("..data")).unwrap();
    until("the second token", async || {
        changing.pay("second", "A2").await == "SUCCESS"
    })
    .await;
    assert_eq!(changing.pay("first", "A3").await, "NO_AUTH");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_without_a_restart_and_a_wrong_one_refused() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let write = |path: &std::path::Path, cert: &str, key: &str| {
        std::fs::write(path.join("tls.crt"), cert).unwrap();
        std::fs::write(path.join("tls.key"), key).unwrap();
    };
    let (first, second) = (authority.issue("first"), authority.issue("second"));
    write(dir.path(), &first.cert, &first.key);
    let path = dir.path().to_owned();
    let changing = Changing::start(dir, "[server]\ntls = { cert = \"tls.crt\", key = \"tls.key\" }").await;
    let shown = async || {
        let stream = greet(changing.sidecar.main, &authority, None, &["http/1.1"]).await;
        serial(&stream.unwrap())
    };
    let before = shown().await;

    // The new certificate with the old key.
    std::fs::write(path.join("tls.crt"), &second.cert).unwrap();
    changing
        .logged("the private key does not belong to the certificate")
        .await;
    assert_eq!(shown().await, before, "the old one serves");
    std::fs::write(path.join("tls.key"), &second.key).unwrap();
    until("the renewed certificate", async || shown().await != before).await;
    let renewed = shown().await;

    std::fs::write(path.join("tls.crt"), "no certificate").unwrap();
    changing.logged("holds no certificate in PEM").await;
    assert_eq!(shown().await, renewed);
    // Rotation back to the first certificate works too.
    write(&path, &first.cert, &first.key);
    until("the first certificate", async || shown().await == before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_has_the_file_read_and_listeners_and_stores_wait_for_a_restart() {
    let changing = Changing::start(tempfile::tempdir().unwrap(), "[limits]\nmax_amount = 1000").await;
    changing.sidecar.signal("HUP");
    changing.logged("asked by SIGHUP").await;
    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().join("other.redb");
    let rest = embedded(&changing.sidecar.dir).replace(
        "path = \"payouts.redb\"",
        &format!("path = \"{}\"", path.display()),
    );
    let text = format!(
        "[limits]\nmax_amount = 50\n{rest}{}",
        changing.upstream.configuration()
    );
    std::fs::write(changing.sidecar.dir.path().join("config.toml"), text).unwrap();
    let mut n = 0;
    until("the new limit", async || {
        n += 1;
        changing.pay("", &format!("A{n}")).await == "AMOUNT_LIMIT"
    })
    .await;
    changing.logged("hold from the next restart on").await;
    assert!(!path.exists(), "the other ledger is not opened");
    let shown = call(changing.sidecar.admin, "GET", "/api/config", &[], b"").await;
    let shown: serde_json::Value = serde_json::from_str(&shown.body).unwrap();
    assert_eq!(shown["restart_needed_for"], serde_json::json!(["ledger"]));
    assert_eq!(shown["limits"]["max_amount"], 50);
}

/// Under one configuration the token is `a` and 100 fen exceed the limit; under the other it is `b` and they do not. A
/// request that saw a mix would be paid with token `a`, or exceed the limit with token `b`.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_sees_the_old_or_the_new_configuration_never_a_mix() {
    let a = "[access]\ntoken = \"a\"\n[limits]\nmax_amount = 99";
    let b = "[access]\ntoken = \"b\"\n[limits]\nmax_amount = 100";
    let changing = Changing::start(tempfile::tempdir().unwrap(), a).await;
    let is_over = AtomicBool::new(false);
    let caller = async |token: &'static str, allowed: [&'static str; 2]| {
        let mut seen = std::collections::BTreeMap::new();
        let mut n = 0;
        while !is_over.load(Ordering::Relaxed) {
            n += 1;
            let told = changing.pay(token, &format!("{token}{n}")).await;
            assert!(allowed.contains(&told.as_str()), "{token} was told {told}");
            *seen.entry(told).or_insert(0) += 1;
        }
        seen
    };
    let changer = async {
        for round in 0..8 {
            changing.write(if round % 2 == 0 { b } else { a });
            until("the change is taken", async || {
                let taken = format!("payout_config_reloads_total{{result=\"taken\"}} {}", round + 1);
                changing.metric(&taken).await
            })
            .await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let (by_a, by_b, ()) = tokio::join!(
        caller("a", ["NO_AUTH", "AMOUNT_LIMIT"]),
        caller("b", ["NO_AUTH", "SUCCESS"]),
        changer
    );
    for (seen, both) in [
        (by_a, ["NO_AUTH", "AMOUNT_LIMIT"]),
        (by_b, ["NO_AUTH", "SUCCESS"]),
    ] {
        assert!(both.iter().all(|told| seen.contains_key(*told)), "{seen:?}");
    }
}

/// A payout in progress during a reload ends under its old configuration.
#[tokio::test(flavor = "multi_thread")]
async fn a_payout_under_way_is_finished_under_its_own_configuration() {
    let changing = Changing::start(tempfile::tempdir().unwrap(), "[answer]\nreveal_openid = false").await;
    changing
        .upstream
        .fake
        .set_faults("pay/SLOW=delay:2s".parse().unwrap());
    let payout = Payout::new("SLOW1");
    let under_way = changing.sidecar.pay(Encoding::Json, &payout);
    let change = async {
        until("under way", async || changing.upstream.times_sent("SLOW1") == 1).await;
        changing.write("[answer]\nreveal_openid = true");
        changing.logged("the new configuration is in force").await;
    };
    let (answer, ()) = tokio::join!(under_way, change);
    assert_eq!(answer.code(), "SUCCESS");
    assert_eq!(answer.field("reOpenid"), "user-1", "it began under the old one");
    let repeat = changing.sidecar.pay(Encoding::Json, &payout).await;
    assert_eq!(repeat.field("reOpenid"), crate::support::sidecar::OPENID);
    assert_eq!(changing.upstream.fake.books().times_paid("SLOW1"), 1);
}
