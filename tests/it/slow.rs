//! A thousand slow clients: the sidecar cuts off those that send a byte a second or nothing at all, and serves the
//! others.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::sidecar::{Encoding, Payout, Sidecar, To, Upstream, embedded};
use test_support::http::{exchange, request};

/// A thousand connections need that many descriptors here and in the sidecar, which inherits the limit.
fn allow_many_descriptors() {
    let id = std::process::id().to_string();
    let raised = Command::new("prlimit")
        .args(["--pid", &id, "--nofile=4096:"])
        .status();
    assert!(raised.unwrap().success(), "4096 file descriptors are needed");
}

/// Sends `beginning`, then the byte `then` once a second if given, until the other side closes. Returns what it
/// answered.
async fn dawdle(address: SocketAddr, beginning: Vec<u8>, then: Option<u8>) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    write.write_all(&beginning).await.unwrap();
    let mut answer = Vec::new();
    let sending = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if let Some(byte) = then
                && write.write_all(&[byte]).await.is_err()
            {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        _closed = read.read_to_end(&mut answer) => {}
        () = sending => {}
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("still open after a minute"),
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_slow_clients_are_cut_off_and_the_others_are_served() {
    allow_many_descriptors();
    let upstream = Upstream::start(To::Handler { idempotent: false }).await;
    let dir = tempfile::tempdir().unwrap();
    let server = "[server]\nheader_timeout = \"3s\"\nbody_timeout = \"3s\"\nidle_timeout = \"3s\"\n";
    let configuration = format!("{server}{}{}", embedded(&dir), upstream.configuration());
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    let address = sidecar.main;

    let slow = (0..1000).map(|n| {
        let whole = Payout::new(&format!("SLOW{n}")).body(Encoding::Json);
        let headers = [("Content-Type", "application/json")];
        let (beginning, then) = match n % 4 {
            // A head that never ends.
            0 => (
                b"POST /pay/sendApiRedPack HTTP/1.1\r\nHost: a\r\nX: ".to_vec(),
                Some(b'x'),
            ),
            // A body that never ends, with a length or in chunks.
            1 => {
                let all = request("POST", "/pay/sendApiRedPack", &headers, whole.as_bytes());
                (all[..all.len() - 100].to_vec(), Some(b' '))
            }
            2 => {
                let head =
                    "POST /pay/sendApiRedPack HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
                let chunk = format!(
                    "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n",
                    whole.len() + 100
                );
                ([chunk.as_bytes(), whole.as_bytes()].concat(), Some(b' '))
            }
            // One request, then an idle connection.
            _ => (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), None),
        };
        tokio::spawn(dawdle(address, beginning, then))
    });
    let slow: Vec<_> = slow.collect();

    let normal = (0..8).map(|caller| {
        tokio::spawn(async move {
            for n in 0..40 {
                let body = Payout::new(&format!("N{caller}x{n}")).body(Encoding::Json);
                let headers = [("Content-Type", "application/json")];
                let bytes = request("POST", "/pay/sendApiRedPack", &headers, body.as_bytes());
                let answer = exchange(address, &bytes).await.expect("an answer");
                assert_eq!((answer.status, answer.code().as_str()), (200, "SUCCESS"));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
    });
    for caller in normal.collect::<Vec<_>>() {
        caller.await.unwrap();
    }

    let mut told = 0;
    for (n, client) in slow.into_iter().enumerate() {
        let answer = client.await.unwrap();
        let first = answer.lines().next().unwrap_or_default();
        match n % 4 {
            0 => assert_eq!(first, ""),
            1 | 2 => {
                // A reset may overtake the answer.
                assert!(first.is_empty() || first.starts_with("HTTP/1.1 408 "), "{answer}");
                told += usize::from(!first.is_empty());
            }
            _ => assert_eq!(first, "HTTP/1.1 200 OK"),
        }
    }
    assert!(
        told > 400,
        "only {told} of 500 were told that the body took too long"
    );
    let books = upstream.fake.books();
    assert_eq!(books.payments().len(), 320);
    assert!(
        books
            .requests()
            .iter()
            .all(|asked| asked.order_no.starts_with('N')),
        "a body that has no end pays nothing"
    );
}
