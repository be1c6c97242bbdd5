//! Unknown orders that an operator settles.

use std::process::Command;

use super::{at_handler, on_files, pay, stands};
use crate::support::sidecar::{ADMIN, MERCHANT, Sidecar, To, Upstream, binary};

/// `settle --as refused` spends the number: a new payment needs a new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_was_settled_as_refused_is_spent() {
    let upstream = Upstream::start(To::Handler { idempotent: true }).await;
    upstream
        .fake
        .set_faults("pay=reset-before;query=status:502".parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!(
        "{ADMIN}{}",
        on_files(&dir, &at_handler(MERCHANT, upstream.fake.addr(), ""))
    );
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    assert_eq!(pay(&sidecar, "O1").await, "SYSTEMERROR");
    let done = Command::new(binary())
        .arg("--config")
        .arg(sidecar.dir.path().join("config.toml"))
        .args([
            "payout",
            "settle",
            MERCHANT,
            "O1",
            "--as",
            "refused",
            "--reason",
            "not in the statement",
        ])
        .env("PAYOUT_SIDECAR__ADMIN__LISTEN", sidecar.admin.to_string())
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    upstream.fake.set_faults("".parse().unwrap());
    let sent = upstream.times_sent("O1");
    for _ in 0..2 {
        assert_eq!(pay(&sidecar, "O1").await, "OPERATOR");
        assert_eq!(stands(&sidecar, "O1").await, "FAILED");
    }
    assert_eq!(
        (upstream.times_sent("O1"), upstream.fake.books().times_paid("O1")),
        (sent, 0)
    );
    assert_eq!(
        pay(&sidecar, "O2").await,
        "SUCCESS",
        "a new payment needs a new number"
    );

    // The document tells operators the same.
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operate.md");
    let text = std::fs::read_to_string(path).unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    let (_, rest) = text.split_once("`--as refused`").unwrap();
    assert!(rest[..300].contains("the number is spent"), "{}", &rest[..300]);
}
