//! What the other side of a connection sees: a reset where a request was given up, one connection where requests are answered.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::super::target::Target;
use super::*;

/// Long enough for everything that is waited for.
const LONG: Duration = Duration::from_secs(20);

fn client(address: SocketAddr, timeout: Duration) -> Client {
    let target = Target::parse(&format!("http://{address}")).unwrap();
    Client::new(Dialer::new(target, None, None, LONG).unwrap(), timeout)
}

async fn post(client: &Client, body: impl Into<Bytes>) -> Result<Answer, Failure> {
    client.post("/pay", &HeaderMap::new(), body.into(), || true).await
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Reads a request whose body is `end`.
async fn read_to(stream: &mut TcpStream, end: &[u8]) {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        assert_ne!(
            stream.read_buf(&mut read).await.unwrap(),
            0,
            "the request broke off"
        );
    }
}

/// How a connection ends after this, and what came before.
async fn end_of(stream: &mut TcpStream) -> (Option<ErrorKind>, usize) {
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(LONG, stream.read_to_end(&mut rest)).await;
    (ended.unwrap().err().map(|error| error.kind()), rest.len())
}

#[tokio::test]
async fn a_request_that_times_out_ends_in_a_reset() {
    let (listener, address) = listen().await;
    let upstream = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_to(&mut stream, b"order").await;
        end_of(&mut stream).await
    });
    let client = client(address, Duration::from_millis(100));
    assert!(matches!(post(&client, "order").await, Err(Failure::MaybeSent(_))));
    assert_eq!(upstream.await.unwrap(), (Some(ErrorKind::ConnectionReset), 0));
    assert!(client.idle().is_empty());
}

#[tokio::test]
async fn a_request_that_is_dropped_ends_in_a_reset() {
    let (listener, address) = listen().await;
    let client = client(address, LONG);
    let upstream = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_to(&mut stream, b"order").await;
        stream
    };
    let mut stream = tokio::select! {
        stream = upstream => stream,
        answer = post(&client, "order") => panic!("{answer:?}"),
    };
    assert_eq!(end_of(&mut stream).await, (Some(ErrorKind::ConnectionReset), 0));
}

#[tokio::test]
async fn an_answer_that_is_too_long_or_breaks_off_ends_in_a_reset() {
    let (listener, address) = listen().await;
    let upstream = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_to(&mut stream, b"order").await;
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            MAX_ANSWER_BYTES + 1
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&[b'a'; MAX_ANSWER_BYTES + 1]).await.unwrap();
        end_of(&mut stream).await.0
    });
    let client = client(address, LONG);
    assert!(matches!(post(&client, "order").await, Err(Failure::MaybeSent(_))));
    assert_eq!(upstream.await.unwrap(), Some(ErrorKind::ConnectionReset));
}

/// A handler that stands still while the request is written, and goes on when its caller has long been told "unknown".
#[tokio::test]
async fn what_was_not_delivered_when_a_request_was_given_up_never_is() {
    let listener = TcpSocket::new_v4().unwrap();
    listener.set_recv_buffer_size(4096).unwrap();
    listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = listener.listen(1).unwrap();
    let client = client(listener.local_addr().unwrap(), Duration::from_millis(200));
    let body = vec![7; 16 << 20];
    let length = body.len();
    assert!(matches!(post(&client, body).await, Err(Failure::MaybeSent(_))));
    let (mut stream, _) = listener.accept().await.unwrap();
    let (ended, delivered) = end_of(&mut stream).await;
    assert_eq!(ended, Some(ErrorKind::ConnectionReset));
    assert!(delivered < length / 2, "{delivered} bytes");
}

#[tokio::test]
async fn an_answered_connection_is_used_again() {
    let (listener, address) = listen().await;
    let upstream = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..3 {
            read_to(&mut stream, b"order").await;
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            stream.write_all(answer).await.unwrap();
        }
        stream
    });
    let client = client(address, LONG);
    for _ in 0..3 {
        assert_eq!(post(&client, "order").await.unwrap().body, "ok");
        // Until the connection can take the next request.
        while !client.idle().iter().all(|kept| kept.connection.sender.is_ready()) {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(client.idle().len(), 1);
    let mut stream = upstream.await.unwrap();
    drop(client);
    assert_eq!(end_of(&mut stream).await, (Some(ErrorKind::ConnectionReset), 0));
}
