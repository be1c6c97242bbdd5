//! WebSockets during shutdown: the sidecar sends both peers a close frame between two frames, and gives them time to
//! close.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::support::sidecar::{Sidecar, embedded};
use test_support::h2::connect;

async fn before(backend: &TcpListener) -> Sidecar {
    let dir = tempfile::tempdir().unwrap();
    let backend = backend.local_addr().unwrap();
    let configuration = format!(
        "[server]\nlame_duck = \"0s\"\ndrain_timeout = \"60s\"\n{}[backend]\nurl = \"http://{backend}\"\n\
         [[merchant]]\nmch_id = \"*\"\nto = \"handler\"\nhandler_url = \"http://{backend}\"\n",
        embedded(&dir)
    );
    Sidecar::start_in(dir, &configuration, &[]).await
}

fn code(message: &Message) -> Option<CloseCode> {
    match message {
        Message::Close(Some(frame)) => Some(frame.code),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_are_told_that_it_goes_away() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut sidecar = before(&listener).await;
    let backend = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        let mut codes = Vec::new();
        // tungstenite answers a close frame itself.
        while let Some(message) = socket.next().await {
            match message {
                Ok(message) if message.is_text() => socket.send(message).await.unwrap(),
                Ok(message) => codes.extend(code(&message)),
                Err(error) => panic!("the backend sees {error}"),
            }
        }
        codes
    });
    let address = format!("ws://{}/live", sidecar.main);
    let (mut socket, _) = tokio_tungstenite::connect_async(address).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
    sidecar.signal("TERM");
    assert_eq!(
        code(&socket.next().await.unwrap().unwrap()),
        Some(CloseCode::Away)
    );
    assert!(socket.next().await.is_none(), "a clean end");
    assert_eq!(backend.await.unwrap(), [CloseCode::Away]);
    // The sidecar exits once all have closed, without waiting for the end of the drain.
    assert_eq!(sidecar.ended().await, Some(0));
}

async fn upgraded(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_has_begun_is_finished_first() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut sidecar = before(&listener).await;
    let ask = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut caller = connect(sidecar.main, ask.as_bytes()).await.unwrap();
    let (mut backend, _) = listener.accept().await.unwrap();
    upgraded(&mut backend).await;
    backend
        .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await
        .unwrap();
    upgraded(&mut caller).await;
    // Half of a frame has reached the caller when the shutdown begins.
    backend.write_all(b"\x81\x05he").await.unwrap();
    let mut half = [0; 4];
    caller.read_exact(&mut half).await.unwrap();
    sidecar.signal("TERM");
    // The backend has no frame in progress; it gets its masked close frame at once.
    let mut close = [0; 8];
    backend.read_exact(&mut close).await.unwrap();
    assert_eq!(close[..2], [0x88, 0x82]);
    assert_eq!([close[6] ^ close[2], close[7] ^ close[3]], 1001u16.to_be_bytes());
    backend
        .write_all(b"llo\x81\x04more\x88\x02\x03\xe9")
        .await
        .unwrap();
    let mut rest = [0; 7];
    caller.read_exact(&mut rest).await.unwrap();
    assert_eq!(
        &rest, b"llo\x88\x02\x03\xe9",
        "the frame, and no other after the close frame"
    );
    caller.write_all(b"\x88\x80\0\0\0\0").await.unwrap();
    assert_eq!(caller.read(&mut rest).await.unwrap(), 0);
    assert_eq!(sidecar.ended().await, Some(0));
}
