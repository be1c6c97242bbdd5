//! The process: command line, crashes, orderly shutdown, a damaged ledger.

use std::process::{Command, Output};

use crate::support::sidecar::{
    ADMIN, APP, Encoding, OPENID, Payout, Sidecar, To, Upstream, binary, embedded, in_redis,
};
use test_support::http::call;
use test_support::redis::Redis;
use test_support::until;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_payout-sidecar"))
        .args(arguments)
        .output()
        .unwrap()
}

fn printed(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn the_demo_pays_and_exits_with_0() {
    let demo = run(&["demo", "--once"]);
    let shown = printed(&demo);
    assert_eq!(demo.status.code(), Some(0), "{shown}");
    assert_eq!(shown.matches("ok   ").count(), 12, "{shown}");
    assert!(shown.contains("5 payments were made for 11 requests"), "{shown}");
    assert!(!shown.contains("BAD"), "{shown}");
}

#[test]
fn commands_end_with_the_documented_codes() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml");
    let check = run(&["check", "--config", shipped]);
    assert_eq!(check.status.code(), Some(0), "{}", printed(&check));
    let missing = run(&["check", "--config", "/no/such.toml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(printed(&missing).contains("/no/such.toml"));
    assert_eq!(run(&["nonsense"]).status.code(), Some(2));
    let schema = run(&["schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&schema.stdout).unwrap();
    assert!(schema["properties"]["ledger"].is_object());
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(&run(&["completions", shell]));
        for word in ["payout-sidecar", "openid", "import", "rejects", "settle"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let manual = printed(&run(&["man"]));
    assert!(
        manual.starts_with(".ie") && manual.contains(".TH payout-sidecar 1"),
        "{manual}"
    );
    let pages = dir.path().join("man1");
    assert_eq!(
        run(&["man", "--dir", &pages.display().to_string()]).status.code(),
        Some(0)
    );
    let page = std::fs::read_to_string(pages.join("payout-sidecar-openid-import.1")).unwrap();
    assert!(page.contains("rejects") && page.contains("restart"), "{page}");
    let path = dir.path().join("config.toml");
    std::fs::write(&path, "[server]\nlisen = \"0.0.0.0:1\"\n").unwrap();
    let wrong = run(&["run", "--config", &path.display().to_string()]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(printed(&wrong).contains("did you mean"), "{}", printed(&wrong));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_connects_and_healthcheck_asks() {
    let redis = Redis::start();
    let upstream = Upstream::start(To::Redpack).await;
    let mut sidecar =
        Sidecar::start(&format!("{}{}", in_redis(&redis.url()), upstream.configuration())).await;
    let config = sidecar.dir.path().join("config.toml").display().to_string();
    let ask = |arguments: &[&str], admin: std::net::SocketAddr| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_payout-sidecar"));
        command
            .args(arguments)
            .args(["--config", &config])
            .env("PAYOUT_SIDECAR__ADMIN__LISTEN", admin.to_string());
        command.output().unwrap().status.code()
    };
    until("healthy", async || {
        ask(&["healthcheck"], sidecar.admin) == Some(0)
    })
    .await;
    assert_eq!(ask(&["check", "--connect"], sidecar.admin), Some(0));
    drop(redis);
    until("unhealthy", async || {
        ask(&["healthcheck"], sidecar.admin) == Some(1)
    })
    .await;
    assert_eq!(ask(&["healthcheck", "--live"], sidecar.admin), Some(0));
    assert_eq!(ask(&["check", "--connect"], sidecar.admin), Some(1));
    sidecar.kill();
    assert_eq!(ask(&["healthcheck", "--live"], sidecar.admin), Some(1));
}

/// Kills the process repeatedly in the middle of payouts. In the end every order is paid once.
async fn survives_kills(upstream: &Upstream, mut sidecar: Sidecar, tag: &str) {
    upstream
        .fake
        .set_faults(format!("pay/{tag}=delay:80ms").parse().unwrap());
    let orders: Vec<Payout> = (0..40).map(|n| Payout::new(&format!("{tag}{n}"))).collect();
    for round in 0..4 {
        let address = sidecar.main;
        let bodies: Vec<Vec<u8>> = orders
            .iter()
            .map(|order| order.body(Encoding::Json).into_bytes())
            .collect();
        let calls: Vec<_> = bodies
            .into_iter()
            .enumerate()
            .filter(|(n, _)| n % 4 == round)
            .map(|(_, body)| {
                let bytes = test_support::http::request(
                    "POST",
                    "/pay/sendApiRedPack",
                    &[("Content-Type", "application/json")],
                    &body,
                );
                tokio::spawn(async move { test_support::http::exchange(address, &bytes).await })
            })
            .collect();
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
        sidecar.kill();
        for call in calls {
            let answer = call.await.unwrap();
            assert!(answer.is_none_or(|answer| ["SUCCESS", "SYSTEMERROR"].contains(&answer.code().as_str())));
        }
        sidecar.launch(&[]).await;
    }
    for order in &orders {
        until("paid in the end", async || {
            let code = sidecar.pay(Encoding::Json, order).await.code();
            assert!(
                ["SUCCESS", "SYSTEMERROR", "PROCESSING"].contains(&code.as_str()),
                "{code}"
            );
            code == "SUCCESS"
        })
        .await;
        assert_eq!(
            upstream.fake.books().times_paid(&order.order_no),
            1,
            "{}",
            order.order_no
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_with_the_embedded_ledger() {
    let upstream = Upstream::start(To::Redpack).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!("{}{}", embedded(&dir), upstream.configuration());
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    survives_kills(&upstream, sidecar, "KE").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_with_redis() {
    let redis = Redis::start();
    redis.cli(&["SET", &format!("openid:{APP}:user-1"), OPENID]);
    let upstream = Upstream::start(To::Redpack).await;
    let sidecar = Sidecar::start(&format!("{}{}", in_redis(&redis.url()), upstream.configuration())).await;
    survives_kills(&upstream, sidecar, "KR").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_ledger_is_refused_and_left_as_it_is() {
    let upstream = Upstream::start(To::Redpack).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!("{}{}", embedded(&dir), upstream.configuration());
    let mut sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("DMG1")).await.code(),
        "SUCCESS"
    );
    sidecar.kill();
    let ledger = sidecar.dir.path().join("payouts.redb");
    let config = sidecar.dir.path().join("config.toml").display().to_string();
    let whole = std::fs::read(&ledger).unwrap();
    for damaged in [&whole[..whole.len() / 2], b"", b"something else"] {
        std::fs::write(&ledger, damaged).unwrap();
        let ended = run(&["run", "--config", &config]);
        assert_eq!(ended.status.code(), Some(1));
        let said = printed(&ended);
        assert!(
            said.contains("payouts.redb") && (said.contains("damaged") || said.contains("is empty")),
            "{said}"
        );
        assert_eq!(std::fs::read(&ledger).unwrap(), damaged, "never overwritten");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_begins_the_same_end_and_waits_for_it() {
    let upstream = Upstream::start(To::Redpack).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!(
        "{}{ADMIN}[server]\nlame_duck = \"300ms\"\n{}",
        embedded(&dir),
        upstream.configuration()
    );
    let mut sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    let mut drain = Command::new(binary());
    drain.args([
        "drain",
        "--config",
        &sidecar.dir.path().join("config.toml").display().to_string(),
    ]);
    drain.env("PAYOUT_SIDECAR__ADMIN__LISTEN", sidecar.admin.to_string());
    let drained = tokio::task::spawn_blocking(move || drain.output().unwrap())
        .await
        .unwrap();
    assert_eq!(drained.status.code(), Some(0), "{}", printed(&drained));
    assert_eq!(sidecar.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_is_written_at_any_level() {
    let upstream = Upstream::start(To::Redpack).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!(
        "{}[log]\nlevel = \"error\"\n{}",
        embedded(&dir),
        upstream.configuration()
    );
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("AUD1")).await.code(),
        "SUCCESS"
    );
    let log = sidecar.logged(r#""state":"succeeded""#).await;
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let states: Vec<_> = lines
        .iter()
        .map(|line| (line["target"].as_str(), line["state"].as_str()))
        .collect();
    assert_eq!(
        states,
        [
            (Some("audit"), Some("pending")),
            (Some("audit"), Some("succeeded"))
        ],
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_in_order() {
    let upstream = Upstream::start(To::Redpack).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!(
        "{}[server]\nlame_duck = \"2s\"\n{}",
        embedded(&dir),
        upstream.configuration()
    );
    let mut sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    upstream.fake.set_faults("pay/SLOW=delay:2500ms".parse().unwrap());
    let (main, body) = (sidecar.main, Payout::new("SLOW1").body(Encoding::Json));
    let slow = tokio::spawn(async move {
        call(
            main,
            "POST",
            "/pay/sendApiRedPack",
            &[("Content-Type", "application/json")],
            body.as_bytes(),
        )
        .await
    });
    until("it is under way", async || upstream.times_sent("SLOW1") == 1).await;
    sidecar.signal("TERM");
    until("not ready", async || !sidecar.is_ready().await).await;
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("LATE1")).await.code(),
        "SUCCESS",
        "calls are still taken"
    );
    assert_eq!(slow.await.unwrap().code(), "SUCCESS", "what runs is finished");
    assert_eq!(sidecar.ended().await, Some(0));
    assert!(sidecar.log().contains("everything under way was finished"));
}
