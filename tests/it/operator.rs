//! Operators' requests: the API on the admin port, and the commands that use it.

use std::process::Command;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::sidecar::{
    ADMIN, Encoding, MERCHANT, OPENID, OPERATOR, Payout, Sidecar, To, Upstream, binary, embedded,
};
use test_support::http::{Answer, call};

async fn with_orders(more: &str) -> (Upstream, Sidecar) {
    let upstream = Upstream::start(To::Handler { idempotent: false }).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!(
        "{}{more}{}not_found_after = \"1h\"\n",
        embedded(&dir),
        upstream.configuration()
    );
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    upstream.fake.set_faults(
        "pay/REF=error:NOTENOUGH;pay/UNK=reset-before;query=status:502"
            .parse()
            .unwrap(),
    );
    for (order_no, code) in [
        ("OK1", "SUCCESS"),
        ("REF1", "NOTENOUGH"),
        ("UNK1", "SYSTEMERROR"),
        ("UNK2", "SYSTEMERROR"),
    ] {
        assert_eq!(
            sidecar.pay(Encoding::Json, &Payout::new(order_no)).await.code(),
            code
        );
    }
    (upstream, sidecar)
}

async fn get(sidecar: &Sidecar, path: &str) -> serde_json::Value {
    serde_json::from_str(&call(sidecar.admin, "GET", path, &OPERATOR, b"").await.body).unwrap()
}

async fn settle(sidecar: &Sidecar, order_no: &str, body: &str) -> Answer {
    call(
        sidecar.admin,
        "POST",
        &format!("/api/payouts/{MERCHANT}/{order_no}/settle"),
        &OPERATOR,
        body.as_bytes(),
    )
    .await
}

fn numbers(page: &serde_json::Value) -> Vec<&str> {
    page["payouts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|payout| payout["mchBillno"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn payouts_are_listed_shown_and_settled_by_hand() {
    let (upstream, sidecar) = with_orders(ADMIN).await;
    assert_eq!(
        numbers(&get(&sidecar, "/api/payouts").await),
        ["UNK2", "UNK1", "REF1", "OK1"]
    );
    assert_eq!(
        numbers(&get(&sidecar, "/api/payouts?state=unknown").await),
        ["UNK2", "UNK1"]
    );
    assert_eq!(
        numbers(&get(&sidecar, "/api/payouts?state=refused&mchId=1900000109").await),
        ["REF1"]
    );
    assert_eq!(
        numbers(&get(&sidecar, "/api/payouts?since=2100-01-01T00:00:00Z").await),
        Vec::<&str>::new()
    );
    let first = get(&sidecar, "/api/payouts?limit=3").await;
    let next = get(
        &sidecar,
        &format!("/api/payouts?limit=3&cursor={}", first["next"].as_str().unwrap()),
    )
    .await;
    assert_eq!((numbers(&first).len(), numbers(&next)), (3, vec!["OK1"]));
    for bad in [
        "state=paid",
        "mchId=x",
        "since=yesterday",
        "limit=x",
        "cursor=x",
        "other=1",
    ] {
        let status = call(
            sidecar.admin,
            "GET",
            &format!("/api/payouts?{bad}"),
            &OPERATOR,
            b"",
        )
        .await
        .status;
        assert!(
            status == 400 || (bad == "cursor=x" && status == 503),
            "{bad}: {status}"
        );
    }
    let shown = get(&sidecar, &format!("/api/payouts/{MERCHANT}/OK1")).await;
    for (name, value) in [
        ("state", "succeeded"),
        ("wxAppId", "wx8888888888888888"),
        ("upstream", "handler"),
    ] {
        assert_eq!(shown[name], value);
    }
    assert_eq!(
        (shown["amount"].as_i64(), shown["attempts"].as_i64()),
        (Some(100), Some(1))
    );
    assert!(shown["createdAt"].as_str().unwrap() <= shown["settledAt"].as_str().unwrap());
    assert_eq!(shown["history"].as_array().unwrap().len(), 2);
    assert!(
        !shown.to_string().contains(OPENID) && !shown.to_string().contains("user-1"),
        "{shown}"
    );

    for (body, status) in [
        (r#"{"as":"paid","reason":"r"}"#, 400),
        (r#"{"as":"succeeded"}"#, 400),
        (r#"{"as":"succeeded","reason":"  "}"#, 400),
        ("", 400),
    ] {
        assert_eq!(settle(&sidecar, "UNK1", body).await.status, status, "{body}");
    }
    let word = r#"{"as":"succeeded","reason":"statement, line 7"}"#;
    for (order_no, status) in [
        ("OK1", 409),
        ("REF1", 409),
        ("NOBODY", 404),
        ("UNK1", 200),
        ("UNK1", 409),
    ] {
        assert_eq!(
            settle(&sidecar, order_no, word).await.status,
            status,
            "{order_no}"
        );
    }
    assert_eq!(
        settle(
            &sidecar,
            "UNK2",
            r#"{"as":"refused","reason":"not in the statement"}"#
        )
        .await
        .status,
        200
    );
    let shown = get(&sidecar, &format!("/api/payouts/{MERCHANT}/UNK1")).await;
    assert!(
        shown["history"]
            .to_string()
            .contains("operator: statement, line 7"),
        "{shown}"
    );
    sidecar.logged("operator: statement, line 7").await;
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("UNK1")).await.code(),
        "SUCCESS"
    );
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("UNK2")).await.code(),
        "OPERATOR"
    );
    assert_eq!(
        (upstream.times_sent("UNK1"), upstream.times_sent("UNK2")),
        (1, 1),
        "neither is sent again"
    );
    let by_get = call(
        sidecar.admin,
        "GET",
        &format!("/api/payouts/{MERCHANT}/UNK1/settle"),
        &OPERATOR,
        b"",
    )
    .await;
    assert_eq!(by_get.status, 405, "nothing changes by GET");
    let of_a_page = call(
        sidecar.admin,
        "POST",
        &format!("/api/payouts/{MERCHANT}/UNK1/settle"),
        &[OPERATOR[0], OPERATOR[1], ("Origin", "https://elsewhere")],
        word.as_bytes(),
    )
    .await;
    assert_eq!(of_a_page.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_token_is_asked_for_and_never_shown() {
    let (_upstream, sidecar) = with_orders("[admin]\ntoken = \"marked-admin\"\n").await;
    for headers in [&[][..], &[("Authorization", "Bearer wrong")]] {
        assert_eq!(
            call(sidecar.admin, "GET", "/api/payouts", headers, b"")
                .await
                .status,
            401
        );
        assert_eq!(
            call(sidecar.admin, "GET", "/readyz", headers, b"").await.status,
            200,
            "probes need none"
        );
    }
    let known = [("Authorization", "Bearer marked-admin")];
    assert_eq!(
        call(sidecar.admin, "GET", "/api/payouts", &known, b"")
            .await
            .status,
        200
    );
    let config = call(sidecar.admin, "GET", "/api/config", &known, b"").await;
    assert!(
        config.status == 200 && config.body.contains("max_in_flight") && !config.body.contains("marked"),
        "{}",
        config.body
    );
}

/// Runs `payout-sidecar payout` with a sidecar's configuration. Returns the exit code and the output.
fn payout(sidecar: &Sidecar, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    command
        .arg("--config")
        .arg(sidecar.dir.path().join("config.toml"));
    let done = command
        .arg("payout")
        .args(arguments)
        .env("PAYOUT_SIDECAR__ADMIN__LISTEN", sidecar.admin.to_string())
        .output()
        .unwrap();
    let text = [done.stdout, done.stderr].concat();
    (done.status.code(), String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_do_the_same() {
    let (_upstream, sidecar) = with_orders("[admin]\ntoken = \"marked-admin\"\n").await;
    let run = |arguments: &[&str]| payout(&sidecar, arguments);
    let (code, listed) = run(&["list", "--state", "unknown"]);
    assert_eq!((code, listed.lines().count()), (Some(0), 2), "{listed}");
    let (code, shown) = run(&["show", MERCHANT, "REF1"]);
    assert!(code == Some(0) && shown.contains("NOTENOUGH"), "{shown}");
    let (code, exported) = run(&["export"]);
    assert_eq!(code, Some(0));
    for line in exported.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    assert_eq!(exported.lines().count(), 4);
    let (code, refused) = run(&["settle", MERCHANT, "OK1", "--as", "refused", "--reason", "r"]);
    assert!(
        code == Some(1) && refused.contains("only an unknown one"),
        "{refused}"
    );
    let (code, settled) = run(&[
        "settle",
        MERCHANT,
        "UNK1",
        "--as",
        "succeeded",
        "--reason",
        "seen",
    ]);
    assert!(
        code == Some(0) && settled.contains("is succeeded now"),
        "{settled}"
    );
    assert_eq!(run(&["show", MERCHANT, "NOBODY"]).0, Some(1));
    assert_eq!(
        run(&["settle", MERCHANT, "UNK2", "--as", "paid", "--reason", "r"]).0,
        Some(2)
    );
}

/// Terminal control codes in the answer of a hostile handler: they clear the screen, set the window title, reverse the
/// line and overwrite text.
const HOSTILE: &str = "NO\u{1b}[2J\u{1b}]2mine\u{7}\u{9b}31m\u{202e}\r\u{8}\u{7f}\u{2066}";

/// A handler that refuses every payout and gives the hostile text as its reason.
async fn hostile_handler() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let refusal =
        serde_json::json!({ "returnCode": "FAIL", "errCode": HOSTILE, "errCodeDes": HOSTILE }).to_string();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{refusal}",
        refusal.len()
    );
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 8192];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn no_text_of_a_handlers_reaches_the_terminal_as_a_command() {
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!(
        "{}{ADMIN}[[merchant]]\nmch_id = \"*\"\nto = \"handler\"\nhandler_url = \"http://{}\"\n",
        embedded(&dir),
        hostile_handler().await
    );
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    let refused = sidecar.pay(Encoding::Json, &Payout::new("ESC1")).await;
    assert_eq!(refused.code(), HOSTILE);
    let is_obeyed = |c: &char| {
        (c.is_control() && *c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    for arguments in [&["list"][..], &["show", MERCHANT, "ESC1"], &["export"]] {
        let (code, shown) = payout(&sidecar, arguments);
        assert!(
            code == Some(0) && shown.contains("ESC1") && shown.contains("NO"),
            "{shown}"
        );
        let obeyed: Vec<char> = shown.chars().filter(is_obeyed).collect();
        assert_eq!(obeyed, Vec::<char>::new(), "{arguments:?}");
    }
    // JSON output keeps the original characters.
    let shown: serde_json::Value =
        serde_json::from_str(&payout(&sidecar, &["show", MERCHANT, "ESC1"]).1).unwrap();
    assert_eq!(shown["errCode"], HOSTILE);
    let log = sidecar.logged("ESC1").await;
    assert!(!log.chars().any(|c| is_obeyed(&c)), "{log:?}");
}
