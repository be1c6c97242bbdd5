//! What the other side of a connection sees: the bytes of a request, a reset if the client gives it up, one
//! connection for many requests if they are answered.

mod race;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::dial::Connector;
use super::http_client::{Answer, Client, Failure, MAX_ANSWER_BYTES};
use super::wechat_v2::{Clients, Hosts};
use crate::http::base_url::BaseUrl;
use crate::http::client_tls::tls_config;
use crate::telemetry::metrics::Metrics;
use payout_domain::ids::OrderNo;
use payout_domain::wechat::v3::{cancel_path, query_path};

/// Longer than anything that a test waits for.
const LONG: Duration = Duration::from_secs(20);

fn client(base: &str, timeout: Duration) -> Client {
    Client::new(
        base.parse().unwrap(),
        tls_config(None, None).unwrap(),
        LONG,
        timeout,
    )
    .unwrap()
}

fn client_of(address: SocketAddr, timeout: Duration) -> Client {
    client(&format!("http://{address}"), timeout)
}

async fn post(client: &Client, body: impl Into<Bytes>) -> Result<Answer, Failure> {
    client.post("/pay", &HeaderMap::new(), body.into(), || true).await
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A listener that takes less than what is written to it. The rest waits in our kernel.
fn listen_narrowly() -> (TcpListener, SocketAddr) {
    let listener = TcpSocket::new_v4().unwrap();
    listener.set_recv_buffer_size(4096).unwrap();
    listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = listener.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Reads up to and including `end`, and returns what came.
async fn read_to(stream: &mut TcpStream, end: &[u8]) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        assert_ne!(
            stream.read_buf(&mut read).await.unwrap(),
            0,
            "the request broke off"
        );
    }
    String::from_utf8(read).unwrap()
}

/// Lets the other tasks of this thread run until they must wait.
async fn turns() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// How a connection ends, and how many bytes came before.
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
    let client = client_of(address, Duration::from_millis(100));
    assert!(matches!(post(&client, "order").await, Err(Failure::Silent(_))));
    assert_eq!(upstream.await.unwrap(), (Some(ErrorKind::ConnectionReset), 0));
}

#[tokio::test]
async fn a_request_that_is_dropped_ends_in_a_reset() {
    let (listener, address) = listen().await;
    let client = client_of(address, LONG);
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
    let client = client_of(address, LONG);
    assert!(matches!(post(&client, "order").await, Err(Failure::Silent(_))));
    assert_eq!(upstream.await.unwrap(), Some(ErrorKind::ConnectionReset));
}

/// A handler stands still while the client writes the request, and goes on long after the caller heard "unknown".
#[tokio::test]
async fn what_was_not_delivered_when_a_request_was_given_up_never_is() {
    // The second body fits our kernel's buffer: only a reset prevents its whole delivery.
    for length in [16 << 20, 64 << 10] {
        let (listener, address) = listen_narrowly();
        let client = client_of(address, Duration::from_millis(200));
        let body = vec![7; length];
        assert!(matches!(post(&client, body).await, Err(Failure::Silent(_))));
        turns().await;
        let (mut stream, _) = listener.accept().await.unwrap();
        let (ended, delivered) = end_of(&mut stream).await;
        assert_eq!(ended, Some(ErrorKind::ConnectionReset));
        assert!(delivered < length / 2, "{delivered} of {length} bytes");
    }
}

/// A process has written and then stands still: nobody closes its connection.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_kernel_gives_up_after_the_time_out_by_itself() {
    let (listener, address) = listen_narrowly();
    let base: BaseUrl = format!("http://{address}").parse().unwrap();
    let tls = tls_config(None, None).unwrap();
    let connector = Connector::new(base, tls, LONG, Duration::from_millis(200)).unwrap();
    let mut ours = TokioIo::new(connector.open().await.unwrap());
    let (mut theirs, _) = listener.accept().await.unwrap();
    let written = vec![7; 16 << 20];
    let given_up = tokio::time::timeout(LONG, ours.write_all(&written)).await;
    assert_eq!(given_up.unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
    let (ended, delivered) = end_of(&mut theirs).await;
    assert_eq!(ended, Some(ErrorKind::ConnectionReset));
    assert!(delivered < written.len() / 2, "{delivered}");
}

/// Name, TCP, tunnel and TLS have a timeout of their own.
#[tokio::test]
async fn an_answer_has_its_time_from_the_moment_that_a_connection_is_there() {
    let (listener, address) = listen().await;
    let base: BaseUrl = "http://upstream.invalid:80".parse().unwrap();
    let timeout = Duration::from_millis(1000);
    let mut connector = Connector::new(base, tls_config(None, None).unwrap(), LONG, timeout).unwrap();
    connector.proxy = Some(format!("http://{address}").parse().unwrap());
    let proxy = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let asked = read_to(&mut stream, b"\r\n\r\n").await;
        assert!(asked.starts_with("CONNECT upstream.invalid:80 "), "{asked}");
        tokio::time::sleep(timeout + Duration::from_millis(300)).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        read_to(&mut stream, b"order").await;
        stream.write_all(ANSWER).await.unwrap();
    });
    let client = Client::over(connector, timeout);
    assert_eq!(post(&client, "order").await.unwrap().body, "ok");
    proxy.await.unwrap();
}

#[tokio::test]
async fn an_answered_connection_is_used_again() {
    let (listener, address) = listen().await;
    let upstream = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..3 {
            read_to(&mut stream, b"order").await;
            stream.write_all(ANSWER).await.unwrap();
        }
        stream
    });
    let client = client_of(address, LONG);
    for _ in 0..3 {
        assert_eq!(post(&client, "order").await.unwrap().body, "ok");
        // Lets the connection return to the pool.
        turns().await;
    }
    let mut stream = upstream.await.unwrap();
    drop(client);
    assert_eq!(end_of(&mut stream).await, (Some(ErrorKind::ConnectionReset), 0));
}

/// An upstream that answers each connection's first request, and counts the connections.
async fn one_answer_each(listener: TcpListener, count: Arc<AtomicUsize>) {
    let mut kept = Vec::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        count.fetch_add(1, Ordering::SeqCst);
        read_to(&mut stream, b"order").await;
        stream.write_all(ANSWER).await.unwrap();
        kept.push(stream);
    }
}

#[tokio::test]
async fn a_connection_that_nobody_used_for_long_is_not_used_again() {
    let (listener, address) = listen().await;
    let count = Arc::new(AtomicUsize::new(0));
    let upstream = tokio::spawn(one_answer_each(listener, Arc::clone(&count)));
    let client = client_of(address, LONG);
    assert_eq!(post(&client, "order").await.unwrap().body, "ok");
    turns().await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(5)).await;
    tokio::time::resume();
    assert_eq!(post(&client, "order").await.unwrap().body, "ok");
    assert_eq!(count.load(Ordering::SeqCst), 2);
    upstream.abort();
}

#[tokio::test]
async fn an_upstream_that_closes_each_connection_at_once_is_tried_once() {
    let (listener, address) = listen().await;
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let upstream = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(stream);
        }
    });
    let client = client_of(address, LONG);
    assert!(post(&client, "order").await.is_err());
    turns().await;
    assert_eq!(count.load(Ordering::SeqCst), 1);
    upstream.abort();
}

/// Sends one request to `base`, whose `HOST` stands for an upstream that answers, and returns what the upstream
/// reads.
async fn written(base: &str, method: Method, path: &str, headers: &HeaderMap, body: &'static str) -> String {
    let (listener, address) = listen().await;
    let upstream = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let end = if body.is_empty() { "\r\n\r\n" } else { body };
        let read = read_to(&mut stream, end.as_bytes()).await;
        stream.write_all(ANSWER).await.unwrap();
        read
    });
    let client = client(&base.replace("HOST", &address.to_string()), LONG);
    let answer = client.send(&method, path, headers, body.into(), || true).await;
    assert_eq!(answer.unwrap().body, "ok");
    upstream.await.unwrap().replace(&address.to_string(), "HOST")
}

/// The client sends no header but the host, the length of a body, and those that it is given.
#[tokio::test]
async fn a_request_is_written_as_it_was_made() {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/xml"));
    let posted = written("http://HOST", Method::POST, "/pay", &headers, "order").await;
    assert_eq!(
        posted,
        "POST /pay HTTP/1.1\r\nhost: HOST\r\ncontent-type: text/xml\r\ncontent-length: 5\r\n\r\norder"
    );
    for method in [Method::GET, Method::POST] {
        let asked = written("http://HOST/base/", method.clone(), "/pay?a=b", &headers, "").await;
        assert_eq!(
            asked,
            format!("{method} /base/pay?a=b HTTP/1.1\r\nhost: HOST\r\ncontent-type: text/xml\r\n\r\n")
        );
    }
}

/// WeChat Pay v3 signs method and path: the client must send what was signed.
#[tokio::test]
async fn the_path_that_is_signed_is_the_path_that_is_sent() {
    let all: Vec<u8> = (u8::MIN..=u8::MAX)
        .filter(|byte| OrderNo::parse(&char::from(*byte).to_string()).is_ok())
        .collect();
    assert_eq!(all.len(), 62, "what an order number may have");
    for part in all.chunks(32) {
        let order_no = OrderNo::parse(std::str::from_utf8(part).unwrap()).unwrap();
        for base in ["", "/base", "/Base/%7Ea;b=c/.hidden"] {
            for signed in [query_path(&order_no), cancel_path(&order_no)] {
                let url = format!("http://HOST{base}");
                let asked = written(&url, Method::GET, &signed, &HeaderMap::new(), "").await;
                assert_eq!(
                    asked,
                    format!("GET {base}{signed} HTTP/1.1\r\nhost: HOST\r\n\r\n")
                );
            }
        }
    }
}

/// The operator reads why nothing can have been sent.
#[tokio::test]
async fn an_upstream_that_cannot_be_connected_is_named_with_the_reason() {
    let never_sent = async |base: &str| match post(&client(base, LONG), "order").await {
        Err(Failure::Unreachable(why)) => why,
        other => panic!("{other:?}"),
    };
    let (listener, address) = listen().await;
    let base = format!("https://{address}/base");
    let upstream = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        // Until the client gives up.
        end_of(&mut stream).await
    };
    let (why, _) = tokio::join!(never_sent(&base), upstream);
    assert!(why.starts_with(&format!("{base} refused TLS: ")), "{why}");
    drop(listener);
    let base = format!("http://{address}");
    let why = never_sent(&base).await;
    assert!(why.starts_with(&format!("{base} cannot be connected: ")), "{why}");
    assert!(why.contains("refused"), "{why}");
    let why = never_sent("http://no-such-host.invalid").await;
    assert!(
        why.starts_with("http://no-such-host.invalid cannot be connected: "),
        "{why}"
    );

    let (listener, address) = listen().await;
    let base = format!("https://{address}");
    let tls = tls_config(None, None).unwrap();
    let client = Client::new(base.parse().unwrap(), tls, Duration::from_millis(100), LONG).unwrap();
    let why = format!("{base} was not connected within 100 ms");
    assert_eq!(
        post(&client, "order").await.unwrap_err(),
        Failure::Unreachable(why)
    );
    drop(listener);
}

#[test]
fn the_built_in_roots_hold_wechat_pays() {
    let name = b"DigiCert Global Root G2";
    let holds = webpki_roots::TLS_SERVER_ROOTS
        .iter()
        .any(|root| root.subject.windows(name.len()).any(|part| part == name));
    assert!(
        holds,
        "without it WeChat Pay cannot be reached from an image that has no root store"
    );
}

/// The wall clock may step back between two looks at a lease. The first look that says no decides.
#[tokio::test]
async fn a_request_whose_lease_is_ending_does_not_go_to_the_backup_host() {
    let (main, base) = listen().await;
    let (_backup, backup) = listen().await;
    let hosts = Hosts {
        base: format!("http://{base}").parse().unwrap(),
        backup: Some(format!("http://{backup}").parse().unwrap()),
        ca_pem: None,
        connect_timeout: LONG,
        timeout: LONG,
        name: "merchant[0]".to_owned(),
        metrics: Metrics::default(),
    };
    let clients = Clients::new(&hosts, None, None).unwrap();
    let accepted = tokio::spawn(async move { main.accept().await.unwrap() });
    let looks = Arc::new(AtomicUsize::new(0));
    let may_send = {
        let looks = Arc::clone(&looks);
        move || looks.fetch_add(1, Ordering::Relaxed) > 0
    };
    let body = Bytes::from_static(b"<xml/>");
    let sent = clients
        .send(&Method::POST, "/pay", &HeaderMap::new(), &body, may_send)
        .await;
    assert!(matches!(sent, Err(Failure::HeldUp)), "{sent:?}");
    assert_eq!(looks.load(Ordering::Relaxed), 1);
    drop(accepted.await);
}
