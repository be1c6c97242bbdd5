//! Who may do what on the admin port: other processes on the same machine, web pages in an operator's browser, and
//! operators.

use std::process::{Command, Output};

use crate::support::sidecar::{
    ADMIN, Encoding, MERCHANT, OPERATOR, Payout, Sidecar, To, Upstream, binary, embedded,
};
use test_support::http::{Answer, exchange};

/// Starts a sidecar with one unknown order, `UNK1`.
async fn with_an_unknown(admin: &str) -> (Upstream, Sidecar) {
    let upstream = Upstream::start(To::Handler { idempotent: false }).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!(
        "{}{admin}[server]\nlame_duck = \"0s\"\n{}not_found_after = \"1h\"\n",
        embedded(&dir),
        upstream.configuration()
    );
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    upstream
        .fake
        .set_faults("pay/UNK=reset-before;query=status:502".parse().unwrap());
    let told = sidecar.pay(Encoding::Json, &Payout::new("UNK1")).await.code();
    assert_eq!(told, "SYSTEMERROR");
    (upstream, sidecar)
}

/// Sends a request whose headers, `Host` among them, the caller chooses.
async fn ask(sidecar: &Sidecar, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let request = format!("{head}\r\n{body}");
    exchange(sidecar.admin, request.as_bytes())
        .await
        .expect("an answer")
}

async fn state(sidecar: &Sidecar) -> String {
    let headers = [("Host", "localhost"), OPERATOR[0]];
    let shown = ask(
        sidecar,
        "GET",
        &format!("/api/payouts/{MERCHANT}/UNK1"),
        &headers,
        "",
    )
    .await;
    let shown: serde_json::Value = serde_json::from_str(&shown.body).unwrap();
    shown["state"].as_str().unwrap().to_owned()
}

const WORD: &str = r#"{"as":"refused","reason":"nobody knows"}"#;

fn settle() -> String {
    format!("/api/payouts/{MERCHANT}/UNK1/settle")
}

fn run(sidecar: &Sidecar, arguments: &[&str]) -> Output {
    Command::new(binary())
        .arg("--config")
        .arg(sidecar.dir.path().join("config.toml"))
        .args(arguments)
        .env("PAYOUT_SIDECAR__ADMIN__LISTEN", sidecar.admin.to_string())
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_nothing_is_changed_and_loopback_reads_by_a_loopback_name() {
    let (_upstream, sidecar) = with_an_unknown("").await;
    let form = "application/x-www-form-urlencoded";
    let (settle, cancel) = (settle(), format!("/api/payouts/{MERCHANT}/UNK1/cancel"));
    for (path, headers, body) in [
        // Sent by another container of the pod, by a web page that submits a form, and by a program with correct
        // headers.
        (
            settle.as_str(),
            vec![("Host", "shop.example"), ("Content-Type", "text/plain")],
            WORD,
        ),
        (
            "/api/drain",
            vec![
                ("Host", "localhost"),
                ("Content-Type", form),
                ("Origin", "https://elsewhere"),
            ],
            "a=b",
        ),
        (
            &settle,
            vec![("Host", "localhost"), ("Content-Type", "application/json")],
            WORD,
        ),
        (
            &cancel,
            vec![("Host", "localhost"), ("Content-Type", "application/json")],
            "{}",
        ),
        (
            "/api/drain",
            vec![("Host", "localhost"), ("Content-Type", "application/json")],
            "{}",
        ),
    ] {
        let answer = ask(&sidecar, "POST", path, &headers, body).await;
        assert_eq!(answer.status, 403, "{path} {headers:?}: {}", answer.body);
        assert!(answer.body.contains("[admin] token"), "{}", answer.body);
    }
    assert_eq!(state(&sidecar).await, "unknown");
    assert!(sidecar.is_ready().await, "it does not end");

    for (host, status) in [
        ("localhost:9090", 200),
        ("127.0.0.1", 200),
        ("[::1]:9090", 200),
        ("rebound.example:9090", 403),
        ("localhost.rebound.example", 403),
    ] {
        for path in ["/api/payouts", "/api/config", "/api/nothing"] {
            let answer = ask(&sidecar, "GET", path, &[("Host", host)], "").await;
            let expected = if path == "/api/nothing" && status == 200 {
                404
            } else {
                status
            };
            assert_eq!(answer.status, expected, "{host} {path}");
            let access = answer
                .headers
                .get("payout-admin-access")
                .map_or("", String::as_str);
            assert_eq!(access.starts_with("read-only"), status == 200, "{host} {path}");
        }
        for path in ["/livez", "/readyz", "/metrics"] {
            let answer = ask(&sidecar, "GET", path, &[("Host", host)], "").await;
            assert_eq!(
                answer.status, 200,
                "{host} {path}: probes and Prometheus ask by any name"
            );
        }
    }
    sidecar.logged("/api is read-only").await;

    // The commands tell the operator what to do instead.
    let reason = [
        "payout", "settle", MERCHANT, "UNK1", "--as", "refused", "--reason", "r",
    ];
    for arguments in [&reason[..], &["payout", "cancel", MERCHANT, "UNK1"], &["drain"]] {
        let done = run(&sidecar, arguments);
        let output = String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.code() == Some(2) && output.contains("[admin]"),
            "{arguments:?}: {output}"
        );
    }
    let listed = run(&sidecar, &["payout", "list"]);
    assert!(listed.status.success(), "what is only read needs none");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_it_is_needed_for_all_but_the_probes_and_no_page_of_elsewhere_can_use_it() {
    let (_upstream, mut sidecar) = with_an_unknown(ADMIN).await;
    for path in ["/", "/api", "/api/payouts", "/api/config", "/nothing"] {
        let stranger = ask(&sidecar, "GET", path, &[("Host", "localhost")], "").await;
        assert_eq!(stranger.status, 401, "{path}");
        assert_eq!(stranger.headers["www-authenticate"], "Bearer");
        let known = ask(
            &sidecar,
            "GET",
            path,
            &[("Host", "admin.example"), OPERATOR[0]],
            "",
        )
        .await;
        assert!(matches!(known.status, 200 | 404), "{path}: {}", known.status);
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(
            ask(&sidecar, "GET", path, &[("Host", "10.1.2.3:9090")], "")
                .await
                .status,
            200
        );
        let posted = ask(&sidecar, "POST", path, &[("Host", "localhost")], "").await;
        assert_eq!(
            (posted.status, posted.headers["allow"].as_str()),
            (405, "GET, HEAD"),
            "{path}"
        );
    }
    let (settle, host) = (settle(), ("Host", "localhost:9090"));
    let json = OPERATOR[1];
    for (more, status) in [
        (vec![json, ("Origin", "https://elsewhere")], 403),
        (vec![json, ("Origin", "null")], 403),
        (vec![json, ("Origin", "http://localhost:9091")], 403),
        (vec![json, ("Sec-Fetch-Site", "cross-site")], 403),
        (vec![json, ("Sec-Fetch-Site", "same-site")], 403),
        (vec![("Content-Type", "text/plain")], 415),
        (vec![("Content-Type", "application/x-www-form-urlencoded")], 415),
        (vec![], 415),
    ] {
        for (path, body) in [(settle.as_str(), WORD), ("/api/drain", "")] {
            let headers = [&[host, OPERATOR[0]][..], &more].concat();
            let answer = ask(&sidecar, "POST", path, &headers, body).await;
            assert_eq!(answer.status, status, "{path} {more:?}: {}", answer.body);
        }
    }
    let known = [host, OPERATOR[0], json];
    for (path, body) in [
        (settle.as_str(), "as=refused"),
        ("/api/drain", "now=1"),
        ("/api/drain", "{\"now\":1}"),
    ] {
        assert_eq!(
            ask(&sidecar, "POST", path, &known, body).await.status,
            400,
            "{path} {body}"
        );
    }
    for (method, path, allow) in [
        ("PUT", "/api/payouts", "GET, HEAD"),
        ("DELETE", settle.as_str(), "POST"),
        ("GET", "/api/drain", "POST"),
        ("HEAD", &settle, "POST"),
        ("PATCH", "/api/config", "GET, HEAD"),
    ] {
        let answer = ask(&sidecar, method, path, &known, "").await;
        assert_eq!(
            (answer.status, answer.headers["allow"].as_str()),
            (405, allow),
            "{method} {path}"
        );
    }
    let head = ask(&sidecar, "HEAD", "/api/payouts", &known, "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(state(&sidecar).await, "unknown");
    assert!(sidecar.is_ready().await, "it does not end");

    // The same request as the console's own page sends it.
    let own = [
        &known[..],
        &[
            ("Origin", "http://localhost:9090"),
            ("Sec-Fetch-Site", "same-origin"),
        ],
    ]
    .concat();
    assert_eq!(ask(&sidecar, "POST", &settle, &own, WORD).await.status, 200);
    assert_eq!(state(&sidecar).await, "refused");
    assert_eq!(
        ask(&sidecar, "POST", "/api/drain", &known, "{}").await.status,
        202
    );
    assert_eq!(sidecar.ended().await, Some(0));
}

#[test]
fn check_warns_of_an_admin_port_that_is_reached_from_elsewhere_without_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let check = |admin: &str| {
        let merchant =
            "[[merchant]]\nmch_id = \"*\"\nto = \"handler\"\nhandler_url = \"http://127.0.0.1:1\"\n";
        let path = dir.path().join("config.toml");
        std::fs::write(&path, format!("{}{admin}{merchant}", embedded(&dir))).unwrap();
        let done = Command::new(binary())
            .args(["check", "--config"])
            .arg(path)
            .output()
            .unwrap();
        assert!(done.status.success());
        String::from_utf8(done.stdout).unwrap()
    };
    let warned = check("[admin]\nlisten = \"0.0.0.0:9090\"\n");
    assert!(
        warned.contains("warning: ") && warned.contains("admin.token"),
        "{warned}"
    );
    let shut = check("[admin]\nlisten = \"0.0.0.0:9090\"\ntoken = \"t\"\n");
    assert!(!shut.contains("admin.token"), "{shut}");
    assert!(!check("").contains("admin.token"));
}
