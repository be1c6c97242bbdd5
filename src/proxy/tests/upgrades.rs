//! Tunnels for WebSocket and other protocols, and requests that must not open one.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::Message;

use super::{Sidecar, Wire, played, within};

const ASK: &str = "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\n";
const GRANT: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\nX-Own: 1\r\n\r\n";

async fn tunnelled() -> (Sidecar, Wire, Wire) {
    let (sidecar, backend) = played().await;
    let mut caller = sidecar.call().await;
    caller.send(ASK).await;
    let mut inside = backend.accept().await;
    let seen = inside.head().await;
    assert_eq!(
        (seen.get("connection"), seen.get("upgrade")),
        (Some("Upgrade"), Some("echo"))
    );
    inside.send(GRANT).await;
    let answer = caller.head().await;
    assert_eq!(answer.start, "HTTP/1.1 101 Switching Protocols");
    assert_eq!(
        (answer.get("connection"), answer.get("upgrade")),
        (Some("Upgrade"), Some("echo"))
    );
    assert_eq!(answer.get("x-own"), Some("1"));
    assert_eq!(
        (answer.get("content-length"), answer.get("transfer-encoding")),
        (None, None)
    );
    (sidecar, caller, inside)
}

#[tokio::test]
async fn a_websocket_talks_through_the_proxy() {
    let (sidecar, backend) = played().await;
    let echo = tokio::spawn(async move {
        let mut socket = tokio_tungstenite::accept_async(backend.accept().await.stream)
            .await
            .unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() || message.is_binary() {
                socket.send(message).await.unwrap();
            }
        }
    });
    let url = format!("ws://{}/chat?room=1", sidecar.address);
    let (mut socket, answer) = within("the handshake", tokio_tungstenite::connect_async(url))
        .await
        .unwrap();
    assert_eq!(answer.status(), 101);
    for message in [
        Message::text("红包"),
        Message::binary(vec![7; 1 << 20]),
        Message::text(""),
    ] {
        within("to send", socket.send(message.clone())).await.unwrap();
        assert_eq!(within("the echo", socket.next()).await.unwrap().unwrap(), message);
    }
    within("to close", socket.close(None)).await.unwrap();
    while within("the end", socket.next()).await.is_some() {}
    within("the backend to see the end", echo).await.unwrap();
}

#[tokio::test]
async fn an_end_that_has_finished_sending_still_receives() {
    let (_sidecar, mut caller, mut inside) = tunnelled().await;
    caller.send("question").await;
    caller.stream.shutdown().await.unwrap();
    assert_eq!(inside.rest().await.unwrap(), b"question");
    inside.send("answer").await;
    inside.stream.shutdown().await.unwrap();
    assert_eq!(caller.rest().await.unwrap(), b"answer");
}

#[tokio::test]
async fn where_one_end_breaks_the_other_one_is_closed() {
    for breaks_inside in [false, true] {
        let (_sidecar, caller, inside) = tunnelled().await;
        let (broken, mut other) = if breaks_inside {
            (inside, caller)
        } else {
            (caller, inside)
        };
        // Close with a reset, as a crash does.
        broken.stream.set_zero_linger().unwrap();
        drop(broken);
        assert_eq!(other.rest_text().await, "");
    }
}

#[tokio::test]
async fn nothing_is_tunnelled_before_the_backend_agrees() {
    let (sidecar, backend) = played().await;
    let mut caller = sidecar.call().await;
    caller
        .send(format!("{ASK}GET /next HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n"))
        .await;
    let mut inside = backend.accept().await;
    assert_eq!(inside.head().await.start, "GET /echo HTTP/1.1");
    inside
        .send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        .await;
    let refused = caller.head().await;
    assert_eq!(refused.start, "HTTP/1.1 403 Forbidden");
    assert_eq!((refused.get("connection"), refused.get("upgrade")), (None, None));
    assert_eq!(caller.until("no").await, "no");
    // What the caller sent ahead is an ordinary request.
    let next = inside.head().await;
    assert_eq!(next.start, "GET /next HTTP/1.1");
    assert_eq!(next.get("x-forwarded-for"), Some("127.0.0.1"));
}

#[tokio::test]
async fn what_was_sent_ahead_of_the_agreement_arrives_after_it() {
    let (sidecar, backend) = played().await;
    let mut caller = sidecar.call().await;
    caller.send(format!("{ASK}ahead")).await;
    let mut inside = backend.accept().await;
    inside.head().await;
    assert!(inside.ahead.is_empty());
    inside.send(format!("{GRANT}hello")).await;
    caller.head().await;
    assert_eq!(caller.until("hello").await, "hello");
    assert_eq!(inside.until("ahead").await, "ahead");
}

#[tokio::test]
async fn another_protocol_than_the_one_asked_for_is_no_tunnel() {
    for grant in [
        GRANT.replace("Upgrade: echo", "Upgrade: other"),
        GRANT.replace("Upgrade: echo\r\n", ""),
    ] {
        let (sidecar, backend) = played().await;
        let mut caller = sidecar.call().await;
        caller.send(ASK).await;
        let mut inside = backend.accept().await;
        inside.head().await;
        inside.send(&grant).await;
        assert_eq!(caller.head().await.start, "HTTP/1.1 502 Bad Gateway", "{grant}");
        assert_eq!(inside.rest_text().await, "", "the backend's end is closed");
    }
}

#[tokio::test]
async fn an_upgrade_to_another_http_is_an_ordinary_request() {
    let (sidecar, backend) = played().await;
    let mut caller = sidecar.call().await;
    caller
        .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n")
        .await;
    let seen = backend.accept().await.head().await;
    for gone in ["connection", "upgrade", "http2-settings"] {
        assert_eq!(seen.get(gone), None, "{gone}");
    }
}
