//! Runs the handler of `docs/handler.md`, exactly as printed there, behind a sidecar that is also its proxy: it pays
//! only for requests from the ledger. Also follows `handler_token`: the sidecar sends it to the handler, takes a new
//! one on reload, and removes it from proxied requests.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::support::sidecar::{APP, Encoding, MERCHANT, OPENID, Payout, Sidecar, embedded};
use test_support::http::{Answer, call};
use test_support::{free_port, until};

/// The document's handler, as a child process. Killed when dropped.
struct Handler {
    child: Child,
    address: SocketAddr,
    token: String,
    books: TempDir,
}

impl Handler {
    async fn start(token: &str) -> Self {
        let document =
            std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/handler.md")).unwrap();
        let code = document
            .split("```python\n")
            .nth(1)
            .unwrap()
            .split("```")
            .next()
            .unwrap();
        let port = free_port();
        let books = tempfile::tempdir().unwrap();
        let start = || {
            Command::new("python3")
                .args(["-c", code])
                .env("HANDLER_TOKEN", token)
                .env("PORT", port.to_string())
                .env("BOOKS", books.path().join("books.sqlite3"))
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        let handler = Self {
            child: start(),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            token: token.to_owned(),
            books,
        };
        until("the handler listens", async || {
            tokio::net::TcpStream::connect(handler.address).await.is_ok()
        })
        .await;
        handler
    }

    /// One line per row: `order openid fen`.
    fn paid(&self) -> Vec<String> {
        let code = "import sqlite3, sys\n\
                    for row in sqlite3.connect(sys.argv[1]).execute('SELECT order_no, openid, fen FROM paid ORDER BY 1'):\n    print(*row)";
        let output = Command::new("python3")
            .args(["-c", code])
            .arg(self.books.path().join("books.sqlite3"))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    fn configuration(&self, token: &str) -> String {
        let address = self.address;
        format!(
            "[backend]\nurl = \"http://{address}\"\n[[merchant]]\nmch_id = \"*\"\nto = \"handler\"\nhandler_url = \"http://{address}\"\n\
             handler_format = \"json\"\nidempotent = true\nhandler_token = {token}\n"
        )
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn direct(order_no: &str) -> String {
    format!(
        r#"{{"mchId":"{MERCHANT}","mchBillno":"{order_no}","openid":"oTHIEF","amount":100,"wxAppId":"{APP}"}}"#
    )
}

async fn ask(address: SocketAddr, path: &str, token: &[(&str, &str)], body: &str) -> Answer {
    let headers = [&[("Content-Type", "application/json")], token].concat();
    call(address, "POST", path, &headers, body.as_bytes()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_handler_pays_the_ledgers_calls_and_nobody_elses() {
    let handler = Handler::start("s3cret-0123456789abcdef").await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = embedded(&dir) + &handler.configuration("\"s3cret-0123456789abcdef\"");
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    for order in ["H1", "H1", "H2"] {
        let answer = sidecar.pay(Encoding::Xml, &Payout::new(order)).await;
        assert_eq!(
            (answer.code(), answer.field("sendListid")),
            ("SUCCESS".into(), order.into())
        );
    }
    let told = sidecar.status(Encoding::Json, &Payout::new("H1")).await;
    assert_eq!(
        (told.code(), told.field("status")),
        ("SUCCESS".into(), "RECEIVED".into())
    );
    let paid = ["H1", "H2"].map(|order| format!("{order} {OPENID} 100"));
    assert_eq!(handler.paid(), paid);

    // Requests that bypass the ledger: other spellings of the path, paths whose target the sidecar cannot know, and the
    // real token, which the sidecar removes under every name that a handler could read it by.
    for path in [
        "//pay/sendApiRedPack",
        "/pay/%73endApiRedPack",
        "/?s=/pay/sendApiRedPack",
    ] {
        assert_eq!(
            ask(sidecar.main, path, &[], &direct("T1")).await.status,
            404,
            "{path}"
        );
    }
    for name in ["X-Handler-Token", "x_handler_token", "X.Handler.Token"] {
        let token = [(name, handler.token.as_str())];
        let answer = ask(sidecar.main, "/other", &token, &direct("T2")).await;
        assert_eq!(answer.status, 403, "{name}: the handler had no token to look at");
        assert_eq!(
            ask(sidecar.main, "//pay/sendApiRedPack", &token, &direct("T3"))
                .await
                .status,
            404
        );
    }
    let right = handler.token.as_str();
    for token in [
        &[][..],
        &[("X-Handler-Token", "s3cret")],
        &[("X-Handler-Token", right), ("X-Handler-Token", right)],
    ] {
        let answer = ask(handler.address, "/pay/sendApiRedPack", token, &direct("T4")).await;
        assert_eq!(answer.status, 403, "{token:?}");
    }
    assert_eq!(handler.paid(), paid, "nobody else was paid");
    let answer = ask(
        handler.address,
        "/pay/sendApiRedPack",
        &[("X-Handler-Token", right)],
        &direct("CONTROL"),
    )
    .await;
    assert_eq!(answer.status, 200);
    assert_eq!(handler.paid().len(), 3, "the books are read");
    assert!(!sidecar.log().contains("s3cret"));
}

/// A new token is a new secret, not a new handler: the sidecar uses it to query orders it sent with the old one.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_is_taken_without_a_restart_and_strands_no_order() {
    let handler = Handler::start("second").await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("handler-token"), "second\n").unwrap();
    let configuration = embedded(&dir) + &handler.configuration("{ file = \"handler-token\" }");
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    let change = |token: &str| {
        let beside = sidecar.dir.path().join("new-token");
        std::fs::write(&beside, token).unwrap();
        std::fs::rename(beside, sidecar.dir.path().join("handler-token")).unwrap();
    };
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("N1")).await.code(),
        "SUCCESS"
    );
    change("first");
    let mut n = 1;
    until("the other token is sent", async || {
        n += 1;
        sidecar
            .pay(Encoding::Json, &Payout::new(&format!("N{n}")))
            .await
            .code()
            == "NO_AUTH"
    })
    .await;
    let wrong = Payout::new(&format!("N{n}"));
    change("second");
    until("the first one is sent again", async || {
        sidecar.pay(Encoding::Json, &wrong).await.code() == "SUCCESS"
    })
    .await;
    for order in [&Payout::new("N1"), &wrong] {
        assert_eq!(
            sidecar.status(Encoding::Json, order).await.field("status"),
            "RECEIVED"
        );
    }
    let shown = call(sidecar.admin, "GET", "/api/config", &[], b"").await;
    assert!(
        shown.body.contains("\"handler_token\":\"[set]\""),
        "{}",
        shown.body
    );
}
