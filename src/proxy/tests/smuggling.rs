//! Requests that two readers could read differently: the sidecar refuses them, or forwards them as exactly one.

use std::sync::{Arc, Mutex};

use tokio::io::AsyncReadExt as _;

use super::{Backend, Head, Sidecar, Wire};

/// Follows each case on the same connection. Nobody may read it as a request.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// What a backend that answers everything has seen: heads with whole bodies, or `None` for a broken body.
type Seen = Arc<Mutex<Vec<(Head, Option<String>)>>>;

async fn record(backend: Backend, seen: Seen) {
    loop {
        let mut inside = backend.accept().await;
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Some(head) = try_head(&mut inside).await {
                let body = body(&mut inside, &head).await;
                let is_whole = body.is_some();
                seen.lock().unwrap().push((head, body));
                if !is_whole {
                    return;
                }
                inside.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            }
        });
    }
}

/// A head, or `None` at the end of the connection.
async fn try_head(inside: &mut Wire) -> Option<Head> {
    while !inside.ahead.windows(4).any(|part| part == b"\r\n\r\n") {
        if inside.stream.read_buf(&mut inside.ahead).await.unwrap_or(0) == 0 {
            return None;
        }
    }
    Some(inside.head().await)
}

/// A body, read strictly; `None` if it breaks off.
async fn body(inside: &mut Wire, head: &Head) -> Option<String> {
    match (head.get("transfer-encoding"), head.get("content-length")) {
        (None, None) => Some(String::new()),
        (None, Some(length)) => exactly(inside, length.parse().unwrap()).await,
        (Some("chunked"), None) => {
            let mut body = String::new();
            loop {
                let mut size = String::new();
                while !size.ends_with("\r\n") {
                    size += &exactly(inside, 1).await?;
                }
                let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
                body += &exactly(inside, size).await?;
                // After the last chunk this is the empty line, so trailers would fail here.
                assert_eq!(exactly(inside, 2).await?, "\r\n");
                if size == 0 {
                    return Some(body);
                }
            }
        }
        other => panic!("the backend got a frame that can be read in two ways: {other:?}"),
    }
}

async fn exactly(inside: &mut Wire, count: usize) -> Option<String> {
    while inside.ahead.len() < count {
        if inside.stream.read_buf(&mut inside.ahead).await.unwrap_or(0) == 0 {
            return None;
        }
    }
    Some(String::from_utf8(inside.ahead.drain(..count).collect()).unwrap())
}

/// Sends a case and [`HIDDEN`] after it. Returns the responses until the sidecar closes, and what the backend saw.
async fn send(case: &str) -> (String, Vec<(Head, Option<String>)>) {
    let backend = Backend::bind().await;
    let sidecar = Sidecar::before(&backend.url(), true).await;
    let seen = Seen::default();
    let recording = tokio::spawn(record(backend, Arc::clone(&seen)));
    let mut caller = sidecar.call().await;
    caller.send(format!("{case}{HIDDEN}")).await;
    let answers = caller.rest_text().await;
    recording.abort();
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    (answers, seen)
}

fn post(headers: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n{body}")
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused() {
    let chunked = "Transfer-Encoding: chunked";
    for case in [
        post("Transfer-Encoding: xchunked", "0\r\n\r\n"),
        post("Transfer-Encoding : chunked", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked, identity", "0\r\n\r\n"),
        post("Transfer-Encoding: gzip, chunked", "0\r\n\r\n"),
        post(
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "0\r\n\r\n",
        ),
        post("Transfer-Encoding: \u{b}chunked", "0\r\n\r\n"),
        post("Transfer-Encoding: \"chunked\"", "0\r\n\r\n"),
        post("Content-Length: +3", "abc"),
        post("Content-Length: -3", "abc"),
        post("Content-Length: 0x3", "abc"),
        post("Content-Length: 3 3", "abc"),
        post("Content-Length: 3,4", "abc"),
        post("Content-Length: ", "abc"),
        post("Content-Length: 3\r\nContent-Length: 4", "abc"),
        post("Content-Length: 99999999999999999999", "abc"),
        post("X: a\r\n folded: b", ""),
        post("X: a\rb", ""),
        post("X: a\0b", ""),
        post(": a", ""),
        post("X Y: a", ""),
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET / HTTP/1.1 x\r\nHost: a\r\n\r\n".to_owned(),
        "GET / HTTP/3.1\r\nHost: a\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        post("Content-Length: 3\r\nContent-Length: 3", "abc"),
        post("Content-Length: 6\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        post(
            "Transfer-Encoding: chunked\r\nContent-Length: 6",
            "3\r\nabc\r\n0\r\n\r\n",
        ),
        post(chunked, "0x0\r\n\r\n"),
        post(chunked, "3;\r\nabc\r\n0\r\n\r\n"),
        post(chunked, "3 \r\nabc\r\n0\r\n\r\n"),
        post(chunked, "3;a=b;\r\nabc\r\n0\r\n\r\n"),
        post(chunked, "3\r\nabc\r\n0\r\nX : 1\r\n\r\n"),
        post(chunked, "+0\r\n\r\n"),
        post(chunked, "1_0\r\nabc\r\n"),
        post(chunked, "\r\n"),
        post(chunked, "fffffffffffffffff\r\nabc\r\n"),
        post(chunked, "3\r\nabcd\r\n0\r\n\r\n"),
        post(chunked, "3\nabc\r\n0\r\n\r\n"),
        post(chunked, "3\r\nabc0\r\n\r\n"),
    ] {
        let (answers, seen) = send(&case).await;
        assert!(!answers.contains(" 200 "), "{case:?} was served: {answers}");
        assert!(
            seen.iter()
                .all(|(head, body)| head.start.starts_with("POST / ") && body.is_none()),
            "{case:?} reached the backend: {seen:?}"
        );
    }
}

#[tokio::test]
async fn what_has_one_reading_arrives_as_one_request() {
    let close = "Connection: close\r\nTransfer-Encoding:";
    for (case, arrives) in [
        (
            post(&format!("{close}\tCHUNKED "), "3\r\nabc\r\n0\r\n\r\n"),
            "abc",
        ),
        (
            post(&format!("{close} chunked"), "03;x=y\r\nabc\r\n0\r\n\r\n"),
            "abc",
        ),
        (
            post(
                &format!("{close} chunked\r\nTrailer: X-Forwarded-For"),
                "0\r\nContent-Length: 5\r\nX-Forwarded-For: 1\r\n\r\n",
            ),
            "",
        ),
        (
            post(
                "Connection: close\r\nTransfer_Encoding: chunked\r\nContent-Length: 5",
                "0\r\n\r\n",
            ),
            "0\r\n\r\n",
        ),
        (
            post("Connection: close, content-length\r\nContent-Length: 3", "abc"),
            "abc",
        ),
        (
            post(
                &format!("Connection: close\r\nContent-Length: {}", HIDDEN.len()),
                HIDDEN,
            ),
            HIDDEN,
        ),
    ] {
        let (answers, seen) = send(&case).await;
        assert_eq!(
            answers.matches("HTTP/1.1 200 OK").count(),
            1,
            "{case:?}: {answers}"
        );
        let bodies: Vec<_> = seen.iter().map(|(_, body)| body.as_deref()).collect();
        assert_eq!(bodies, [Some(arrives)], "{case:?}");
        assert_eq!(seen[0].0.get("transfer_encoding"), None, "{case:?}");
    }
}
