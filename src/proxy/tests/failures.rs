//! Ends that go away, and responses that cannot be forwarded.

use super::{Backend, Sidecar, Wire, played};

async fn answered(caller: &mut Wire) -> (String, String) {
    let head = caller.head().await;
    let text = caller.until("\n").await;
    (head.start, text)
}

#[tokio::test]
async fn a_backend_that_is_not_there_is_said_to_be_so() {
    let backend = Backend::bind().await;
    let url = backend.url();
    drop(backend);
    let sidecar = Sidecar::before(&url, false).await;
    let mut caller = sidecar.call().await;
    caller.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (status, text) = answered(&mut caller).await;
    assert_eq!(status, "HTTP/1.1 502 Bad Gateway");
    assert_eq!(
        text,
        format!("payout-sidecar: the backend {url} cannot be reached\n")
    );

    // Once the backend is there, the caller's same connection reaches it.
    let address: std::net::SocketAddr = url.trim_start_matches("http://").parse().unwrap();
    let backend = Backend(tokio::net::TcpListener::bind(address).await.unwrap());
    caller.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(backend.accept().await.head().await.start, "GET /2 HTTP/1.1");
}

#[tokio::test]
async fn a_backend_that_reads_and_closes_sees_a_request_once() {
    let (sidecar, backend) = played().await;
    let mut caller = sidecar.call().await;
    caller
        .send("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        .await;
    let mut inside = backend.accept().await;
    inside.head().await;
    inside
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    caller.until("ok").await;
    // On a connection that was used before, where a careless client would repeat the request by itself.
    caller
        .send("POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(inside.head().await.start, "POST /2 HTTP/1.1");
    drop(inside);
    let (status, text) = answered(&mut caller).await;
    assert_eq!(status, "HTTP/1.1 502 Bad Gateway");
    assert_eq!(
        text,
        format!(
            "payout-sidecar: the backend {} broke off before it answered\n",
            backend.url()
        )
    );
    assert!(backend.is_untouched().await, "it was not sent again");
}

#[tokio::test]
async fn a_connection_that_the_backend_closed_while_idle_is_replaced() {
    let (sidecar, backend) = played().await;
    for _ in 0..3 {
        let mut caller = sidecar.call().await;
        caller.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut inside = backend.accept().await;
        inside.head().await;
        inside
            .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            .await;
        drop(inside);
        assert!(caller.until("ok").await.starts_with("HTTP/1.1 200 OK"));
    }
}

#[tokio::test]
async fn a_backend_that_dies_within_its_answer_is_never_a_clean_end() {
    for (version, frame, part, rest) in [
        ("1.1", "Content-Length: 10", "part", ""),
        ("1.0", "Content-Length: 10", "part", ""),
        // The last chunk is missing.
        ("1.1", "Transfer-Encoding: chunked", "4\r\npart\r\n", "\r\n"),
        // The body is as long as `Content-Length` says, but the transfer coding overrides that.
        (
            "1.1",
            "Content-Length: 4\r\nTransfer-Encoding: chunked",
            "4\r\npart\r\n",
            "\r\n",
        ),
    ] {
        let (sidecar, backend) = played().await;
        let mut caller = sidecar.call().await;
        caller
            .send(format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n"))
            .await;
        let mut inside = backend.accept().await;
        inside.head().await;
        inside
            .send(format!("HTTP/1.1 200 OK\r\n{frame}\r\n\r\n{part}"))
            .await;
        assert!(caller.head().await.start.ends_with("200 OK"));
        caller.until("part").await;
        drop(inside);
        assert_eq!(caller.rest_text().await, rest, "{version} {frame}");
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_before_the_answer_cancels_the_request() {
    let (sidecar, backend) = played().await;
    let mut caller = sidecar.call().await;
    caller.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut inside = backend.accept().await;
    inside.head().await;
    drop(caller);
    assert_eq!(inside.rest_text().await, "");
}

#[tokio::test]
async fn a_caller_that_hangs_up_within_the_answer_cancels_the_rest() {
    let (sidecar, backend) = played().await;
    let mut caller = sidecar.call().await;
    caller.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut inside = backend.accept().await;
    inside.head().await;
    inside
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n")
        .await;
    caller.until("part").await;
    drop(caller);
    // The backend sends nothing meanwhile, so it learns of the hang-up only because its connection ends.
    assert_eq!(inside.rest_text().await, "");
}

#[tokio::test]
async fn a_caller_that_hangs_up_within_its_body_is_never_a_clean_end() {
    for (frame, part) in [
        ("Content-Length: 10", "part"),
        ("Transfer-Encoding: chunked", "4\r\npart\r\n"),
    ] {
        let (sidecar, backend) = played().await;
        let mut caller = sidecar.call().await;
        caller
            .send(format!("POST / HTTP/1.1\r\nHost: a\r\n{frame}\r\n\r\n{part}"))
            .await;
        let mut inside = backend.accept().await;
        inside.head().await;
        inside.until("part").await;
        drop(caller);
        assert!(!inside.rest_text().await.contains('0'), "{frame}");
    }
}

#[tokio::test]
async fn a_callers_broken_body_is_the_callers_fault() {
    let (sidecar, backend) = played().await;
    let mut caller = sidecar.call().await;
    caller
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n")
        .await;
    let mut inside = backend.accept().await;
    inside.head().await;
    inside.until("part").await;
    caller.send("nonsense\r\n").await;
    let (status, text) = answered(&mut caller).await;
    assert_eq!(status, "HTTP/1.1 400 Bad Request");
    assert_eq!(text, "payout-sidecar: the request's body broke off\n");
    assert!(!inside.rest_text().await.contains('0'));
}

#[tokio::test]
async fn an_answer_before_the_bodys_end_is_passed_on() {
    let (sidecar, backend) = played().await;
    let mut caller = sidecar.call().await;
    caller
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\npart")
        .await;
    let mut inside = backend.accept().await;
    inside.head().await;
    inside
        .send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge")
        .await;
    assert_eq!(caller.head().await.start, "HTTP/1.1 413 Content Too Large");
    assert_eq!(caller.until("large").await, "large");
    // The sidecar never reads the rest of the body as a request.
    caller.send("GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n").await;
    drop(inside);
    assert!(!caller.rest_text().await.contains("HTTP/1.1"));
    assert!(backend.is_untouched().await);
}

#[tokio::test]
async fn an_answer_that_cannot_be_passed_on_is_a_bad_gateway() {
    for answer in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
        "HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\na",
        "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
    ] {
        let (sidecar, backend) = played().await;
        let mut caller = sidecar.call().await;
        caller.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut inside = backend.accept().await;
        inside.head().await;
        inside.send(answer).await;
        let (status, text) = answered(&mut caller).await;
        assert_eq!(status, "HTTP/1.1 502 Bad Gateway", "{answer:?}");
        assert!(
            text.starts_with(&format!("payout-sidecar: the backend {} ", backend.url())),
            "{text}"
        );
    }
}
