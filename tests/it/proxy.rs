//! Proxied paths: the sidecar forwards every other path to the backend and streams in both directions, upgrades
//! included.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use crate::support::sidecar::{Sidecar, To, Upstream, embedded};
use test_support::http::{call, exchange, request};

async fn before(backend: &str) -> Sidecar {
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!(
        "{}[backend]\nurl = \"http://{backend}\"\n[[merchant]]\nmch_id = \"*\"\nto = \"handler\"\nhandler_url = \"http://{backend}\"\n",
        embedded(&dir)
    );
    Sidecar::start_in(dir, &configuration, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_pass_byte_for_byte_with_our_headers_set() {
    let upstream = Upstream::start(To::Redpack).await;
    let sidecar = before(&upstream.fake.addr().to_string()).await;
    for (method, path) in [
        ("GET", "/a/../b//c%2F?x=%20&y"),
        ("POST", "/pay/other"),
        ("DELETE", "/pay/sendApiRed/x"),
        ("PATCH", "/"),
    ] {
        let headers = [
            ("X-Forwarded-For", "1.2.3.4"),
            ("Cookie", "a=b"),
            ("Authorization", "Bearer theirs"),
        ];
        let answer = call(sidecar.main, method, path, &headers, b"12345").await;
        assert_eq!(answer.status, 200);
        let seen: serde_json::Value = serde_json::from_str(answer.body.trim_start_matches(|c| c != '{'))
            .unwrap_or_else(|_| {
                serde_json::from_str(
                    &answer.body[answer.body.find('{').unwrap()..=answer.body.rfind('}').unwrap()],
                )
                .unwrap()
            });
        assert_eq!(
            (seen["method"].as_str(), seen["path"].as_str()),
            (Some(method), Some(path))
        );
        assert_eq!(seen["bodyBytes"], 5);
        let header = |name: &str| {
            let all: Vec<&str> = seen["headers"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|h| h[0] == name)
                .map(|h| h[1].as_str().unwrap())
                .collect();
            all.join("|")
        };
        assert_eq!(header("x-forwarded-for"), "127.0.0.1", "a stranger's is replaced");
        assert_eq!(
            (
                header("host"),
                header("x-forwarded-host"),
                header("x-forwarded-proto")
            ),
            ("localhost".into(), "localhost".into(), "http".into())
        );
        assert_eq!(
            (header("cookie"), header("authorization")),
            ("a=b".into(), "Bearer theirs".into())
        );
        assert_eq!(
            (header("x-request-id").len(), header("traceparent").len()),
            (32, 55)
        );
        assert_eq!(header("connection"), "", "hop-by-hop headers end here");
    }
    assert_eq!(upstream.fake.books().requests(), [], "nothing of it was a payout");
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_pass() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() {
                socket.send(message).await.unwrap();
            }
        }
    });
    let sidecar = before(&backend.to_string()).await;
    let (mut socket, answer) = tokio_tungstenite::connect_async(format!("ws://{}/live", sidecar.main))
        .await
        .unwrap();
    assert_eq!(answer.status(), 101);
    for text in ["你好", "again"] {
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(
            socket
                .next()
                .await
                .unwrap()
                .unwrap()
                .into_text()
                .unwrap()
                .as_str(),
            text
        );
    }
    socket.close(None).await.unwrap();
}

/// A backend that serves one connection at a time with `play`.
async fn backend<F: Future<Output = ()> + Send + 'static>(
    play: impl Fn(TcpStream) -> F + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(play(stream));
        }
    });
    address
}

async fn read_head(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    head
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_and_wait_for_a_slow_reader() {
    const CHUNK: usize = 64 * 1024;
    const ALL: usize = 64 * 1024 * 1024;
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = sent.clone();
    let address = backend(move |mut stream| {
        let counter = counter.clone();
        async move {
            read_head(&mut stream).await;
            stream
                .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {ALL}\r\n\r\n").as_bytes())
                .await
                .unwrap();
            for _ in 0..ALL / CHUNK {
                if stream.write_all(&[b'x'; CHUNK]).await.is_err() {
                    return;
                }
                counter.fetch_add(CHUNK, std::sync::atomic::Ordering::Relaxed);
            }
        }
    })
    .await;
    let sidecar = before(&address).await;
    let mut stream = TcpStream::connect(sidecar.main).await.unwrap();
    stream.write_all(&request("GET", "/big", &[], b"")).await.unwrap();
    read_head(&mut stream).await;
    // The caller does not read. The backend must block long before the end of its body, since nothing in between
    // buffers all of it.
    let mut last = 0;
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let now = sent.load(std::sync::atomic::Ordering::Relaxed);
        if now == last {
            break;
        }
        last = now;
    }
    assert!(
        last < ALL / 2,
        "{last} of {ALL} bytes went into a body that nobody reads"
    );
    let mut got = 0;
    let mut buffer = vec![0; CHUNK];
    while got < ALL {
        got += stream.read(&mut buffer).await.unwrap();
    }
    assert_eq!(sent.load(std::sync::atomic::Ordering::Relaxed), ALL);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_breaks_off_is_never_a_whole_answer() {
    let address = backend(|mut stream| async move {
        read_head(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            .await
            .unwrap();
    })
    .await;
    let sidecar = before(&address).await;
    let answer = exchange(sidecar.main, &request("GET", "/half", &[], b""))
        .await
        .unwrap();
    assert_eq!(
        (answer.headers["content-length"].as_str(), answer.body.as_str()),
        ("100", "half")
    );
    let nowhere = before(&format!("127.0.0.1:{}", test_support::free_port())).await;
    let answer = call(nowhere.main, "GET", "/", &[], b"").await;
    assert_eq!(answer.status, 502);
    assert!(answer.body.contains("cannot be reached"), "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_backend_other_paths_are_not_found() {
    let upstream = Upstream::start(To::Redpack).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = upstream.configuration().replace("[backend]\nurl", "# url");
    let configuration = format!("{}{configuration}", embedded(&dir));
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    assert_eq!(call(sidecar.main, "GET", "/", &[], b"").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_and_empty_answers_have_no_body() {
    let address = backend(|mut stream| async move {
        loop {
            let head = read_head(&mut stream).await;
            let answer: &[u8] = if head.starts_with(b"HEAD") {
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
            } else {
                b"HTTP/1.1 204 No Content\r\n\r\n"
            };
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
    })
    .await;
    let sidecar = before(&address).await;
    let head = call(sidecar.main, "HEAD", "/", &[], b"").await;
    assert_eq!(
        (
            head.status,
            head.headers["content-length"].as_str(),
            head.body.as_str()
        ),
        (200, "5", "")
    );
    let empty = call(sidecar.main, "GET", "/", &[], b"").await;
    assert_eq!((empty.status, empty.body.as_str()), (204, ""));
}
