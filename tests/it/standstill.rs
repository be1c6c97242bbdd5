//! Stalled exchanges: because of the backend, because of the caller, or in one direction only. The sidecar ends each of
//! them and frees its in-flight permit and its connection.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::sidecar::{Encoding, Payout, Sidecar, To, Upstream, embedded};
use test_support::h2::{DATA, END_STREAM, RST_STREAM, connect, frame, head, preface, read_frame};
use test_support::http::{call, exchange, request};
use test_support::until;

/// Starts a sidecar with one in-flight permit. Its backend reads a request's head and then runs `play` on each
/// connection.
async fn before<F>(
    settings: &str,
    play: impl Fn(TcpStream) -> F + Clone + Send + 'static,
) -> (Upstream, Sidecar)
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let play = play.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                play(stream).await
            });
        }
    });
    let upstream = Upstream::start(To::Redpack).await;
    let dir = tempfile::tempdir().unwrap();
    let fake = format!("[backend]\nurl = \"http://{}\"", upstream.fake.addr());
    let timeout = if settings.contains("backend.timeout") {
        "500ms"
    } else {
        "1h"
    };
    let configuration = upstream.configuration().replace(
        &fake,
        &format!("[backend]\nurl = \"http://{backend}\"\ntimeout = \"{timeout}\""),
    );
    let server = settings.replace("backend.timeout", "");
    let configuration = format!(
        "[server]\nmax_in_flight = 1\nhttp2 = true\n{server}\n{}{configuration}",
        embedded(&dir)
    );
    (upstream, Sidecar::start_in(dir, &configuration, &[]).await)
}

/// Fails if `step` takes longer than 30 s, which is enough for a busy machine.
async fn within<F: Future>(what: &str, step: F) -> F::Output {
    match tokio::time::timeout(Duration::from_secs(30), step).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within 30 s"),
    }
}

/// Waits until the one permit is free: the sidecar answers another request with anything but 503.
async fn place_is_free(sidecar: &Sidecar) {
    until("the place is free", async || {
        let get = b"GET /probe HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut stream = connect(sidecar.main, get).await.unwrap();
        let mut start = [0; 12];
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut start)).await;
        // Either the backend received the request and does not answer, or the sidecar answered.
        read.is_err() || (read.unwrap().is_ok() && !start.ends_with(b"503"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payout_whose_body_does_not_come_keeps_no_other_out() {
    let (_upstream, sidecar) = before("body_timeout = \"1h\"", async |_| Ok(())).await;
    let begun = b"POST /pay/sendApiRedPack HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{";
    let mut slow = connect(sidecar.main, begun).await.unwrap();
    let mut answer = String::new();
    // The next payout takes the permit from a request whose body does not arrive.
    for number in 0.. {
        assert!(number < 300, "it keeps its place");
        let payout = Payout::new(&format!("S2n{number}"));
        let paid = within("an answer", sidecar.pay(Encoding::Json, &payout)).await;
        // The slow request may get the permit between this payout's head and its body. Then the next payout takes it.
        if paid.status == 503 {
            continue;
        }
        assert_eq!(paid.code(), "SUCCESS", "{}", paid.body);
        let given_up =
            tokio::time::timeout(Duration::from_millis(100), slow.read_to_string(&mut answer)).await;
        if given_up.is_ok() {
            break;
        }
    }
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_never_answers_is_given_up() {
    let (_upstream, sidecar) = before("backend.timeout", async |mut stream| {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.map(drop)
    })
    .await;
    let answer = within("an answer", call(sidecar.main, "POST", "/slow", &[], b"12345")).await;
    assert_eq!(answer.status, 504, "{}", answer.body);
    assert!(answer.body.contains("did not answer in time"), "{}", answer.body);
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("S1")).await.code(),
        "SUCCESS"
    );
    // The permit is free again at once.
    assert_eq!(call(sidecar.main, "GET", "/slow", &[], b"").await.status, 504);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_stops_is_broken_off() {
    let (_upstream, sidecar) = before("backend.timeout", async |mut stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            .await?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.map(drop)
    })
    .await;
    let answer = within(
        "an answer",
        exchange(sidecar.main, &request("GET", "/half", &[], b"")),
    )
    .await
    .unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "half"));
    let answer = within(
        "an answer",
        exchange(sidecar.main, &request("GET", "/half", &[], b"")),
    )
    .await
    .unwrap();
    assert_eq!(answer.status, 200, "its place is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_byte_begins_the_time_anew() {
    let (_upstream, sidecar) = before("backend.timeout", async |mut stream| {
        // The request and the answer both arrive slowly: 3 s in all.
        let mut body = [0; 10];
        stream.read_exact(&mut body).await?;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
            .await?;
        for byte in body {
            tokio::time::sleep(Duration::from_millis(150)).await;
            stream.write_all(&[byte]).await?;
        }
        Ok(())
    })
    .await;
    let mut stream = connect(
        sidecar.main,
        b"POST /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 10\r\n\r\n",
    )
    .await
    .unwrap();
    for byte in b"0123456789" {
        tokio::time::sleep(Duration::from_millis(150)).await;
        stream.write_all(&[*byte]).await.unwrap();
    }
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer))
        .await
        .unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n0123456789"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn event_streams_may_be_silent() {
    let (_upstream, sidecar) = before("backend.timeout", async |mut stream| {
        let head =
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).await?;
        // Four times the backend's timeout.
        tokio::time::sleep(Duration::from_secs(2)).await;
        stream.write_all(b"data: 1\n\n").await
    })
    .await;
    let answer = within("an answer", call(sidecar.main, "GET", "/events", &[], b"")).await;
    assert!(answer.body.contains("data: 1"), "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_stops_in_its_upload_is_given_up() {
    let (_upstream, sidecar) = before("idle_timeout = \"500ms\"", async |mut stream| {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.map(drop)
    })
    .await;
    let begun = b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345";
    let mut stream = connect(sidecar.main, begun).await.unwrap();
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer))
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    place_is_free(&sidecar).await;
}

/// Uploads without end, over HTTP/1.1 or HTTP/2, until the other side closes. Ignores the answer.
async fn upload(address: SocketAddr, is_http2: bool) {
    if is_http2 {
        let bytes = [preface(1_000_000), head(1, "POST", "/up", 0)].concat();
        let mut stream = connect(address, &bytes).await.unwrap();
        while stream.write_all(&frame(DATA, 0, 1, b"more")).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    } else {
        let begun = b"POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut stream = connect(address, begun).await.unwrap();
        while stream.write_all(b"4\r\nmore\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_goes_on_after_its_answer_is_cut_off() {
    for (is_http2, reads) in [(false, true), (false, false), (true, true), (true, false)] {
        let (ends, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let (_upstream, sidecar) = before("", move |mut stream| {
            let ends = ends.clone();
            async move {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await?;
                if reads {
                    let mut rest = Vec::new();
                    let _read = stream.read_to_end(&mut rest).await;
                } else {
                    // A backend that does not read must still see the end.
                    while !stream
                        .ready(tokio::io::Interest::READABLE)
                        .await?
                        .is_read_closed()
                    {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                let _told = ends.send(());
                Ok(())
            }
        })
        .await;
        let uploading = tokio::spawn(upload(sidecar.main, is_http2));
        let told = tokio::time::timeout(Duration::from_secs(30), ended.recv()).await;
        assert!(
            told.is_ok(),
            "HTTP/2: {is_http2}, read: {reads}: the backend's connection stays"
        );
        place_is_free(&sidecar).await;
        uploading.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_stream_whose_window_stays_shut_is_reset() {
    let (_upstream, sidecar) = before("idle_timeout = \"500ms\"", async |mut stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            .await?;
        loop {
            stream.write_all(&[b'x'; 65_536]).await?;
        }
    })
    .await;
    let bytes = [preface(0), head(1, "GET", "/big", END_STREAM)].concat();
    let mut stream = connect(sidecar.main, &bytes).await.unwrap();
    let reset = async {
        loop {
            let (kind, _, number, _) = read_frame(&mut stream).await.unwrap();
            if (kind, number) == (RST_STREAM, 1) {
                return;
            }
        }
    };
    let was_reset = tokio::time::timeout(Duration::from_secs(30), reset).await;
    assert!(was_reset.is_ok(), "it stays open for ever");
}
