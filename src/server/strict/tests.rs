//! The HTTP library behind the framer: it must see the same requests, whatever arrives in whatever pieces.

use std::sync::{Arc, Mutex};

use http::StatusCode;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;
use crate::server::activity::Activity;
use crate::server::budget::Room;
use crate::server::connections::ConnectionSlots;
use crate::server::control_frames::Wider;
use test_support::rng::Rng;

const MAX_HEAD: usize = 64 * 1024;

/// Each request that was served: its request line, and its body if it arrived whole.
type Served = Arc<Mutex<Vec<(String, Option<Vec<u8>>)>>>;

/// Serves a connection as the main port does. Returns the caller's end.
fn serve() -> (DuplexStream, Served, tokio::task::JoinHandle<()>) {
    let (caller, ours) = tokio::io::duplex(256);
    let served = Served::default();
    let all = Arc::clone(&served);
    let service = tower::service_fn(move |request: Request<hyper::body::Incoming>| {
        let all = Arc::clone(&all);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.ok().map(|body| body.to_bytes().to_vec());
            all.lock()
                .unwrap()
                .push((format!("{} {}", head.method, head.uri), body));
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }
    });
    let http1 = Http1Exchange::default();
    let io = TokioIo::new(Strict::new(ours, None, MAX_HEAD, http1.clone()));
    let service = hyper::service::service_fn(move |request| answer(http1.clone(), request, service.clone()));
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
    let task = tokio::spawn(async move { drop(connection.await) });
    (caller, served, task)
}

/// What the framer alone reads: the number of whole requests, the fault, and whether it stopped within a head.
fn framed(bytes: &[u8]) -> (usize, Option<FramingError>, bool) {
    let mut framer = Framer::new(MAX_HEAD);
    let (mut at, mut whole) = (0, 0);
    loop {
        let step = framer.advance(&bytes[at..]);
        at += step.pass;
        if step.fault.is_some() || !framer.is_ended() {
            return (whole, step.fault, framer.is_in_head());
        }
        whole += 1;
        framer.begin();
    }
}

/// No step takes longer, however busy the machine is.
async fn soon<F: Future>(step: F) -> F::Output {
    tokio::time::timeout(std::time::Duration::from_secs(30), step)
        .await
        .unwrap()
}

/// Parts of requests, good and bad.
const PARTS: [&str; 28] = [
    "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /2 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
    "POST /2 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
    "POST /3 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "POST /3 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX: 1\r\n\r\n",
    "POST /4 HTTP/1.1\r\n",
    "GET /5 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "HEAD /6 HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    "OPTIONS * HTTP/1.1\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "Host: a\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "X: y\r\n",
    "X: y\n",
    " folded\r\n",
    "X : y\r\n",
    "\r\n",
    "\r\n",
    "\n",
    "abc",
    "3\r\nabc\r\n",
    "3;\r\nabc\r\n",
    "0\r\n",
    "0\r\n\r\n",
    "\0",
    "CONNECT a:1 HTTP/1.1\r\n\r\n",
];

#[tokio::test]
async fn the_library_sees_the_requests_that_the_framer_sees() {
    let mut rng = Rng::new(1);
    for _ in 0..3000 {
        let bytes: String = (0..=rng.index(6))
            .map(|_| PARTS[rng.index(PARTS.len())])
            .collect();
        let (whole, fault, in_head) = framed(bytes.as_bytes());
        let (mut caller, served, task) = serve();
        let told = {
            let (mut from, mut to) = tokio::io::split(&mut caller);
            let reading = async {
                let mut told = Vec::new();
                from.read_to_end(&mut told).await.unwrap();
                String::from_utf8(told).unwrap()
            };
            let writing = async {
                let mut rest = bytes.as_bytes();
                while !rest.is_empty() {
                    let (piece, after) = rest.split_at(1 + rng.index(rest.len()));
                    if to.write_all(piece).await.is_err() {
                        return;
                    }
                    tokio::task::yield_now().await;
                    rest = after;
                }
                // The caller hangs up only after the whole requests are answered.
                while served
                    .lock()
                    .unwrap()
                    .iter()
                    .filter(|(_, body)| body.is_some())
                    .count()
                    < whole
                    && !task.is_finished()
                {
                    tokio::task::yield_now().await;
                }
                to.shutdown().await.unwrap_or_default();
            };
            soon(async { tokio::join!(reading, writing).0 }).await
        };
        let served = served.lock().unwrap().clone();
        let good = served.iter().filter(|(_, body)| body.is_some()).count();
        // The library may refuse a well-framed request (with an invalid target), or end after an HTTP/1.0 request, but
        // must never serve more.
        assert!(good <= whole, "{bytes:?}: {served:?}, {told}");
        let ends_early = bytes.contains("CONNECT") || bytes.contains("HTTP/1.0") || bytes.contains("HEAD");
        assert!(
            good == whole || ends_early,
            "{bytes:?}: {served:?} of {whole}, {told}"
        );
        if fault.is_some_and(|fault| fault.status() == StatusCode::BAD_REQUEST)
            && in_head
            && good == whole
            && !ends_early
        {
            assert_eq!(told.matches("400 Bad Request").count(), 1, "{bytes:?}: {told}");
        }
    }
}

#[tokio::test]
async fn the_bytes_behind_a_request_wait_for_its_answer() {
    let http1 = Http1Exchange::default();
    let (mut caller, ours) = tokio::io::duplex(256);
    let mut strict = Strict::new(ours, None, MAX_HEAD, http1.clone());
    let request = b"GET /1 HTTP/1.1\r\nUpgrade: x\r\n\r\n";
    soon(caller.write_all(&[request, b"\nnot HTTP".as_slice()].concat()))
        .await
        .unwrap();
    let mut buf = vec![0; 256];
    assert_eq!(soon(strict.read(&mut buf)).await.unwrap(), request.len());
    http1.call();
    assert!(futures_util::poll!(std::pin::pin!(strict.read(&mut buf))).is_pending());
    http1.answered(StatusCode::SWITCHING_PROTOCOLS);
    let read = soon(strict.read(&mut buf)).await.unwrap();
    assert_eq!(&buf[..read], b"\nnot HTTP");
    soon(caller.write_all(b"\0")).await.unwrap();
    assert_eq!(
        soon(strict.read(&mut buf)).await.unwrap(),
        1,
        "and nothing is looked at any more"
    );
}

#[tokio::test]
async fn a_word_before_the_answer_never_gets_into_another_answer() {
    let http1 = Http1Exchange::default();
    let (mut caller, ours) = tokio::io::duplex(4);
    let mut strict = Strict::new(ours, None, MAX_HEAD, http1.clone());
    let mut told = [0; 4];
    http1.send_interim(Bytes::from_static(b"early"));
    http1.call();
    // The previous response is still being written, so the interim response waits until the library has flushed it.
    http1.send_interim(Bytes::from_static(b"word"));
    assert_eq!(soon(strict.write(b"last")).await.unwrap(), 4);
    soon(caller.read_exact(&mut told)).await.unwrap();
    assert_eq!(&told, b"last");
    soon(strict.flush()).await.unwrap();
    soon(caller.read_exact(&mut told)).await.unwrap();
    assert_eq!(&told, b"word");
    // A half-written interim response is finished first, and one that comes together with the response goes before it.
    http1.send_interim(Bytes::from_static(b"123456"));
    assert!(futures_util::poll!(std::pin::pin!(strict.flush())).is_pending());
    http1.answered(StatusCode::OK);
    http1.send_interim(Bytes::from_static(b"late"));
    assert!(futures_util::poll!(std::pin::pin!(strict.write(b"78"))).is_pending());
    soon(caller.read_exact(&mut told)).await.unwrap();
    assert_eq!(&told, b"1234");
    assert_eq!(soon(strict.write(b"78")).await.unwrap(), 2);
    soon(caller.read_exact(&mut told)).await.unwrap();
    assert_eq!(&told, b"5678");
}

#[tokio::test]
async fn http2_is_known_by_its_preface_and_passes_as_it_is() {
    let room = Room {
        most: 1,
        bytes: 0,
        head: MAX_HEAD,
        streams: 1,
    };
    for (sent, passes) in [
        ([PREFACE, b"\0\n\0".as_slice()].concat(), 27),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\n\r".to_vec(), 0),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), 18),
    ] {
        let activity = Activity::new(false);
        let slot = Arc::new(
            Arc::new(ConnectionSlots::default())
                .take(&activity, 0, &room)
                .unwrap(),
        );
        let wider = Wider {
            slot: Arc::downgrade(&slot),
            by: 0,
            room,
        };
        let (mut caller, ours) = tokio::io::duplex(256);
        let frames = Frames::new(activity, wider);
        let mut strict = Strict::new(ours, Some(frames), MAX_HEAD, Http1Exchange::default());
        let mut read = Vec::new();
        for byte in &sent {
            caller.write_all(&[*byte]).await.unwrap();
            let mut buf = [0; 64];
            if let Poll::Ready(count) = futures_util::poll!(std::pin::pin!(strict.read(&mut buf))) {
                read.extend_from_slice(&buf[..count.unwrap()]);
            }
        }
        let expected = if passes > 0 {
            sent.as_slice()
        } else {
            b"PRI * HTTP/1.1\r\nConnection: close\r\n\r\n"
        };
        assert_eq!(String::from_utf8_lossy(&read), String::from_utf8_lossy(expected));
    }
}
