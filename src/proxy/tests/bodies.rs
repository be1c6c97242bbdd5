//! Bodies stream both ways, complete, and only as fast as the receiver reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::{played, within};

const BIG: usize = 64 << 20;
/// More than the system's socket buffers hold between two ends that share no memory, but far less than the whole body.
const IN_BUFFERS: usize = 40 << 20;

/// A piece of the big body. Its bytes depend on the position, so a lost, doubled or swapped piece shows.
fn piece(at: usize) -> Vec<u8> {
    let word = |n: usize| {
        u64::try_from(n)
            .unwrap()
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .to_le_bytes()
    };
    (at / 8..(at + (64 << 10)) / 8).flat_map(word).collect()
}

/// Writes the big body and counts its bytes.
async fn write_big(mut to: OwnedWriteHalf, written: Arc<AtomicUsize>) -> OwnedWriteHalf {
    for at in (0..BIG).step_by(64 << 10) {
        let piece = piece(at);
        let mut rest = piece.as_slice();
        while !rest.is_empty() {
            let count = to.write(rest).await.unwrap();
            written.fetch_add(count, Ordering::SeqCst);
            rest = &rest[count..];
        }
    }
    to
}

/// Reads the big body and compares it.
async fn read_big(from: &mut OwnedReadHalf, mut ahead: Vec<u8>) {
    let mut at = 0;
    while at < BIG {
        while ahead.len() < 64 << 10 {
            assert!(
                from.read_buf(&mut ahead).await.unwrap() > 0,
                "the end after {at} bytes"
            );
        }
        let expected = piece(at);
        assert!(ahead[..expected.len()] == expected, "another piece at {at}");
        ahead.drain(..expected.len());
        at += expected.len();
    }
    assert!(ahead.is_empty());
}

/// Waits until the writer makes no more progress. Returns how many bytes it has written.
async fn blocked(written: &AtomicUsize) -> usize {
    let mut last = usize::MAX;
    within("the writer to be blocked", async {
        loop {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let now = written.load(Ordering::SeqCst);
            if now == last && now > 0 {
                return now;
            }
            last = now;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_big_upload_waits_for_a_slow_backend() {
    let (sidecar, backend) = played().await;
    let mut caller = sidecar.call().await;
    caller
        .send(format!(
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {BIG}\r\n\r\n"
        ))
        .await;
    let (mut answers, sends) = caller.stream.into_split();
    let written = Arc::new(AtomicUsize::new(0));
    let writing = tokio::spawn(write_big(sends, Arc::clone(&written)));
    let mut inside = backend.accept().await;
    assert_eq!(
        inside.head().await.get("content-length"),
        Some(BIG.to_string().as_str())
    );
    let held = blocked(&written).await;
    assert!(held < IN_BUFFERS, "{held} bytes were taken that nobody read");

    let (mut reads, mut says) = inside.stream.into_split();
    within("to read it all", read_big(&mut reads, inside.ahead)).await;
    says.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 15];
    within("the answer", answers.read_exact(&mut answer))
        .await
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    drop(writing.await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_big_download_waits_for_a_slow_caller() {
    let (sidecar, backend) = played().await;
    let mut caller = sidecar.call().await;
    caller.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut inside = backend.accept().await;
    inside.head().await;
    inside
        .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n"))
        .await;
    let (_kept, sends) = inside.stream.into_split();
    let written = Arc::new(AtomicUsize::new(0));
    let writing = tokio::spawn(write_big(sends, Arc::clone(&written)));
    let held = blocked(&written).await;
    assert!(held < IN_BUFFERS, "{held} bytes were taken that nobody read");
    assert_eq!(
        caller.head().await.get("content-length"),
        Some(BIG.to_string().as_str())
    );
    let (mut reads, _kept) = caller.stream.into_split();
    within("to read it all", read_big(&mut reads, caller.ahead)).await;
    drop(writing.await.unwrap());
}

#[tokio::test]
async fn chunks_go_both_ways_at_once() {
    let (sidecar, backend) = played().await;
    let mut caller = sidecar.call().await;
    caller
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    let mut inside = backend.accept().await;
    let seen = inside.head().await;
    assert_eq!(
        (seen.get("transfer-encoding"), seen.get("content-length")),
        (Some("chunked"), None)
    );
    inside
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    assert_eq!(caller.head().await.get("transfer-encoding"), Some("chunked"));
    // Each chunk arrives before the next one is sent, so nothing waits for the end of a body.
    for word in ["one", "two", "six"] {
        caller.send(format!("3\r\n{word}\r\n")).await;
        assert_eq!(
            inside.until(&format!("{word}\r\n")).await,
            format!("3\r\n{word}\r\n")
        );
        inside.send(format!("3\r\n{word}\r\n")).await;
        assert_eq!(
            caller.until(&format!("{word}\r\n")).await,
            format!("3\r\n{word}\r\n")
        );
    }
    let unannounced = "trailers that nobody announced end here";
    caller.send("0\r\nX-Sum: 1\r\n\r\n").await;
    assert_eq!(inside.until("\r\n\r\n").await, "0\r\n\r\n", "{unannounced}");
    inside.send("0\r\nX-Sum: 1\r\n\r\n").await;
    assert_eq!(caller.until("\r\n\r\n").await, "0\r\n\r\n", "{unannounced}");
}

#[tokio::test]
async fn announced_trailers_pass_both_ways_to_who_takes_them() {
    for (takes, arrives) in [("Connection: TE\r\nTE: trailers\r\n", true), ("", false)] {
        let (sidecar, backend) = played().await;
        let mut caller = sidecar.call().await;
        let trailer = "Trailer: X-Sum, Content-Length, X_Forwarded_For, Authorization";
        let section = "0\r\nX-Sum: 1\r\nContent-Length: 9\r\nX_Forwarded_For: 1\r\nAuthorization: x\r\nX-Other: 1\r\n\r\n";
        caller
            .send(format!(
                "POST / HTTP/1.1\r\nHost: a\r\n{takes}{trailer}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n{section}"
            ))
            .await;
        let mut inside = backend.accept().await;
        let seen = inside.head().await;
        assert_eq!(seen.get("trailer"), Some("x-sum"));
        assert_eq!(seen.get("te").is_some(), arrives);
        assert_eq!(inside.until("\r\n\r\n").await, "1\r\na\r\n0\r\nx-sum: 1\r\n\r\n");
        inside
            .send(format!(
                "HTTP/1.1 200 OK\r\n{trailer}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n{section}"
            ))
            .await;
        let answer = caller.head().await;
        assert_eq!(answer.get("trailer"), arrives.then_some("x-sum"));
        let expected = if arrives {
            "1\r\nb\r\n0\r\nx-sum: 1\r\n\r\n"
        } else {
            "1\r\nb\r\n0\r\n\r\n"
        };
        assert_eq!(caller.until("\r\n\r\n").await, expected);
    }
}

#[tokio::test]
async fn a_body_arrives_with_any_method_and_frame() {
    for (head, body, arrives) in [
        (
            "GET / HTTP/1.1\r\nTransfer-Encoding: chunked",
            "3\r\nabc\r\n0\r\n\r\n",
            "transfer-encoding: chunked",
        ),
        ("GET / HTTP/1.1\r\nContent-Length: 3", "abc", "content-length: 3"),
        (
            "DELETE / HTTP/1.1\r\nContent-Length: 3",
            "abc",
            "content-length: 3",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked",
            "3\r\nabc\r\n0\r\n\r\n",
            "transfer-encoding: chunked",
        ),
        ("POST / HTTP/1.1\r\nContent-Length: 0", "", "content-length: 0"),
        ("PUT / HTTP/1.0\r\nContent-Length: 3", "abc", "content-length: 3"),
    ] {
        let (sidecar, backend) = played().await;
        let mut caller = sidecar.call().await;
        caller.send(format!("{head}\r\nHost: a\r\n\r\n{body}")).await;
        let mut inside = backend.accept().await;
        let seen = inside.head().await;
        let (name, value) = arrives.split_once(": ").unwrap();
        assert_eq!(seen.get(name), Some(value), "{head}");
        if !body.is_empty() {
            assert_eq!(inside.until(body).await, body, "{head}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_waited_for_is_asked_for() {
    let (sidecar, backend) = played().await;
    let mut caller = sidecar.call().await;
    caller
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(caller.head().await.start, "HTTP/1.1 100 Continue");
    caller.send("abc").await;
    let mut inside = backend.accept().await;
    assert_eq!(inside.head().await.get("expect"), None);
    assert_eq!(inside.until("abc").await, "abc");
    inside
        .send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(caller.head().await.start, "HTTP/1.1 201 Created");
}

#[tokio::test]
async fn connections_to_the_backend_are_used_again() {
    let (sidecar, backend) = played().await;
    let mut inside = None;
    for _ in 0..3 {
        let mut caller = sidecar.call().await;
        caller
            .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
            .await;
        let inside = match &mut inside {
            Some(inside) => inside,
            none => none.insert(backend.accept().await),
        };
        inside.head().await;
        inside.until("abc").await;
        inside
            .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
        assert_eq!(caller.until("ok").await.lines().next(), Some("HTTP/1.1 200 OK"));
    }
    assert!(backend.is_untouched().await);
}
