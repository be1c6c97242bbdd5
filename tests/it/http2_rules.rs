//! What RFC 9113 demands of an intermediary: HTTP/2 from callers, HTTP/1.1 to the backend. One test for each row of
//! `docs/http.md`.

use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::support::sidecar::{Encoding, Payout, Sidecar, To, Upstream, embedded};
use crate::support::wire::{Backend, HANGS_UP, values};
use test_support::frames::{Part, ask};

use Part::{Data, Fields};

const HTTP2: &str = "http2 = true";

/// The pseudo-header fields of a plain GET request.
const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const AUTHORITY: (&str, &str) = (":authority", "a");
const PATH: (&str, &str) = (":path", "/x");
const PLAIN: [(&str, &str); 4] = [METHOD, SCHEME, AUTHORITY, PATH];

/// A plain GET request with more fields.
fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&PLAIN, more].concat()
}

/// Sections 8.1.1, 8.2.1, 8.2.2 and 8.3.1; RFC 9110, section 8.6.
#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_not_forwarded() {
    let backend = Backend::start().await;
    let sidecar = backend.sidecar(HTTP2).await;
    let cases: Vec<Vec<(&str, &str)>> = vec![
        // 8.2.1: names.
        with(&[("X-Upper", "1")]),
        with(&[("x y", "1")]),
        with(&[("x\u{e9}", "1")]),
        with(&[("", "1")]),
        with(&[("x:", "1")]),
        // 8.2.1: values.
        with(&[("x", "a\0b")]),
        with(&[("x", "a\rb")]),
        with(&[("x", "a\nb")]),
        with(&[("x", " a")]),
        with(&[("x", "a ")]),
        with(&[("x", "\ta")]),
        with(&[("x", "a\t")]),
        // 8.2.2: connection-specific fields.
        with(&[("connection", "close")]),
        with(&[("keep-alive", "5")]),
        with(&[("proxy-connection", "x")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("upgrade", "websocket")]),
        with(&[("te", "gzip")]),
        with(&[("te", "trailers, gzip")]),
        // 8.3: pseudo-header fields.
        with(&[(":unknown", "1")]),
        with(&[(":status", "200")]),
        with(&[("x", "1"), (":method", "GET")]),
        with(&[(":path", "/y")]),
        with(&[(":protocol", "websocket")]),
        vec![SCHEME, AUTHORITY, PATH],
        vec![METHOD, AUTHORITY, PATH],
        vec![METHOD, SCHEME, AUTHORITY],
        vec![METHOD, SCHEME, AUTHORITY, (":path", "")],
        vec![METHOD, SCHEME, AUTHORITY, (":path", "x")],
        vec![METHOD, SCHEME, AUTHORITY, (":path", "/a b")],
        vec![METHOD, SCHEME, AUTHORITY, (":path", "/\u{7ea2}")],
        vec![METHOD, SCHEME, AUTHORITY, (":path", "*")],
        vec![(":method", ""), SCHEME, AUTHORITY, PATH],
        vec![(":method", "G T"), SCHEME, AUTHORITY, PATH],
        // 8.3.1: the authority.
        vec![METHOD, SCHEME, PATH],
        vec![METHOD, SCHEME, (":authority", ""), PATH],
        vec![METHOD, SCHEME, (":authority", "me@a"), PATH],
        vec![METHOD, SCHEME, (":authority", "a:80x"), PATH],
        with(&[("host", "b")]),
        with(&[("host", "a"), ("host", "a")]),
        // 8.1.1, and RFC 9110, section 8.6: lengths.
        with(&[("content-length", "3")]),
        with(&[("content-length", "")]),
        with(&[("content-length", "+0")]),
        with(&[("content-length", "0, 0")]),
        with(&[("content-length", "0"), ("content-length", "0")]),
        with(&[("content-length", "0"), ("content-length", "1")]),
    ];
    let mut forwarded = Vec::new();
    for fields in &cases {
        let told = ask(sidecar.main, &[Fields(fields)]).await;
        if !told.is_malformed() || !backend.seen().is_empty() {
            forwarded.push(format!("{fields:?}: {told:?}"));
        }
    }
    assert!(forwarded.is_empty(), "{forwarded:#?}");
    let told = ask(sidecar.main, &[Fields(&PLAIN)]).await;
    assert_eq!((told.status, told.body.as_str()), (200, "ok"));
}

/// Section 8.1.1: a content-length that does not match the content.
#[tokio::test(flavor = "multi_thread")]
async fn a_length_that_the_content_does_not_have_breaks_the_stream() {
    let backend = Backend::start().await;
    let sidecar = backend.sidecar(HTTP2).await;
    for (length, data) in [("3", &b"abcd"[..]), ("5", b"abcd")] {
        let fields = [
            [(":method", "POST"), SCHEME, AUTHORITY, PATH].as_slice(),
            &[("content-length", length)],
        ]
        .concat();
        let told = ask(sidecar.main, &[Fields(&fields), Data(data)]).await;
        assert!(told.is_reset || told.status == 400, "{length}: {told:?}");
        assert!(
            backend.seen().iter().all(|seen| !seen.contains("abcd")),
            "{length}"
        );
    }
}

/// The same rules on the contract's paths.
#[tokio::test(flavor = "multi_thread")]
async fn payout_paths_take_well_formed_requests_only() {
    let upstream = Upstream::start(To::Handler { idempotent: false }).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!(
        "[server]\n{HTTP2}\n{}{}",
        embedded(&dir),
        upstream.configuration()
    );
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    let (path, media) = (
        (":path", "/pay/sendApiRedPack"),
        ("content-type", "application/json"),
    );
    let pay = [(":method", "POST"), SCHEME, AUTHORITY, path, media];
    let body = |order_no: &str| Payout::new(order_no).body(Encoding::Json).into_bytes();
    let length = body("H20").len().to_string();
    let (longer, list) = ((body("H20").len() + 1).to_string(), format!("{length}, {length}"));
    let trailers = Fields(&[("x-sum", "1")]);
    for (order_no, more, tail) in [
        ("H20", vec![("x", " a")], None),
        ("H21", vec![("content-length", longer.as_str())], None),
        (
            "H22",
            vec![("content-length", length.as_str()), ("content-length", &length)],
            None,
        ),
        ("H23", vec![("content-length", list.as_str())], None),
        ("H24", vec![("host", "b")], None),
        ("H25", vec![("transfer-encoding", "chunked")], None),
        ("H26", vec![], Some(trailers)),
    ] {
        let (fields, body) = ([pay.as_slice(), &more].concat(), body(order_no));
        let mut parts = vec![Fields(&fields), Data(&body)];
        parts.extend(tail);
        let told = ask(sidecar.main, &parts).await;
        assert!(told.is_malformed(), "{order_no}: {told:?}");
        assert_eq!(upstream.times_sent(order_no), 0, "{order_no}");
    }
    let told = ask(sidecar.main, &[Fields(&pay), Data(&body("H2GOOD"))]).await;
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(upstream.times_sent("H2GOOD"), 1);
}

/// Section 8.2.3.
#[tokio::test(flavor = "multi_thread")]
async fn cookies_are_joined() {
    let backend = Backend::start().await;
    let sidecar = backend.sidecar(HTTP2).await;
    let fields = with(&[
        ("cookie", "a=b"),
        ("x", "1"),
        ("cookie", "c=d"),
        ("cookie", "e=f"),
        ("x", "2"),
    ]);
    assert_eq!(ask(sidecar.main, &[Fields(&fields)]).await.status, 200);
    let seen = backend.seen().remove(0);
    assert_eq!(values(&seen, "cookie"), ["a=b; c=d; e=f"]);
    assert_eq!(values(&seen, "x"), ["1", "2"], "others stay apart");
}

/// Sections 8.3.1 and 8.3.2; RFC 9110, section 7.6.3: how the sidecar builds the HTTP/1.1 request.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_becomes_one_of_http_1_1() {
    let backend = Backend::start().await;
    let sidecar = backend.sidecar(HTTP2).await;
    for (fields, line, host) in [
        (with(&[]), "GET /x HTTP/1.1", "a"),
        (with(&[("host", "A")]), "GET /x HTTP/1.1", "a"),
        (vec![METHOD, SCHEME, PATH, ("host", "b")], "GET /x HTTP/1.1", "b"),
        (
            vec![(":method", "OPTIONS"), SCHEME, AUTHORITY, (":path", "*")],
            "OPTIONS * HTTP/1.1",
            "a",
        ),
        // A gateway that ended TLS in front of the sidecar says so here; the sidecar passes it on as
        // `X-Forwarded-Proto`.
        (
            vec![METHOD, (":scheme", "https"), AUTHORITY, (":path", "/?q")],
            "GET /?q HTTP/1.1",
            "a",
        ),
    ] {
        let told = ask(sidecar.main, &[Fields(&fields)]).await;
        assert_eq!(told.status, 200, "{fields:?}: {told:?}");
        let seen = backend.seen().remove(0);
        assert_eq!(seen.split("\r\n").next(), Some(line));
        assert_eq!(values(&seen, "host"), [host], "{fields:?}");
        assert_eq!(values(&seen, "via"), ["2 payout-sidecar"]);
        assert_eq!(values(&seen, "x-forwarded-proto"), ["http"]);
    }
    // The sidecar frames content without a length itself, and leaves the bytes of the values unchanged.
    let fields = [
        [(":method", "POST"), SCHEME, AUTHORITY, PATH].as_slice(),
        &[("x", "\u{7ea2} a"), ("y", "")],
    ]
    .concat();
    ask(sidecar.main, &[Fields(&fields), Data(b"abc")]).await;
    let seen = backend.seen().remove(0);
    assert_eq!(values(&seen, "transfer-encoding"), ["chunked"]);
    assert!(seen.ends_with("\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), "{seen}");
    assert_eq!(
        (values(&seen, "x"), values(&seen, "y")),
        (vec!["\u{e7}\u{ba}\u{a2} a"], vec![""])
    );
}

/// Section 8.5, and RFC 9110, section 9.3.8.
#[tokio::test(flavor = "multi_thread")]
async fn connect_and_trace_are_not_forwarded() {
    let backend = Backend::start().await;
    let sidecar = backend.sidecar(HTTP2).await;
    for fields in [
        vec![(":method", "CONNECT"), (":authority", "a:443")],
        vec![(":method", "TRACE"), SCHEME, AUTHORITY, PATH],
    ] {
        assert_eq!(
            ask(sidecar.main, &[Fields(&fields)]).await.status,
            501,
            "{fields:?}"
        );
    }
    assert!(backend.seen().is_empty());
}

/// Section 8.6; RFC 9110, section 15.2: no protocol upgrade and no interim response reaches an HTTP/2 caller.
#[tokio::test(flavor = "multi_thread")]
async fn answers_have_nothing_of_one_connection() {
    let backend = Backend::start().await;
    let sidecar = backend.sidecar(HTTP2).await;
    for (answer, status, body) in [
        (
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
            502,
            None,
        ),
        (
            "HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade, X-Hop\r\nUpgrade: websocket\r\nX-Hop: 1\r\nContent-Length: 2\r\n\r\nno",
            426,
            Some("no"),
        ),
        (
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            200,
            Some("ok"),
        ),
        // RFC 9112, section 6.3: the transfer coding wins.
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            200,
            Some("ok"),
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
            200,
            Some("ok"),
        ),
        (
            "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n",
            204,
            Some(""),
        ),
    ] {
        backend.answers(answer);
        let stream = TcpStream::connect(sidecar.main).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        let request = http::Request::get("http://a/x")
            .body(Full::<Bytes>::default())
            .unwrap();
        let told = sender.send_request(request).await.unwrap();
        assert_eq!(told.status(), status, "{answer:?}");
        for name in [
            "connection",
            "upgrade",
            "x-hop",
            "transfer-encoding",
            "keep-alive",
        ] {
            assert!(!told.headers().contains_key(name), "{answer:?}: {name}");
        }
        let length = told.headers().get_all("content-length").iter().count();
        assert!(length <= 1 && (status != 204 || length == 0), "{answer:?}");
        let got = told.into_body().collect().await.unwrap().to_bytes();
        assert!(
            body.is_none_or(|body| body.as_bytes() == got),
            "{answer:?}: {got:?}"
        );
    }
}

/// RFC 9112, section 8; section 8.1.1: a caller can detect a truncated response.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_cut_short_is_told_as_such() {
    let backend = Backend::start().await;
    let sidecar = backend.sidecar(HTTP2).await;
    for answer in [
        "Content-Length: 5\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        backend.answers(&format!("HTTP/1.1 200 OK\r\n{answer}{HANGS_UP}"));
        let told = ask(sidecar.main, &[Fields(&PLAIN)]).await;
        assert!(told.is_reset, "{answer:?}: {told:?}");
    }
}

/// Section 8.1; RFC 9110, section 6.5.
#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_both_ways() {
    let backend = Backend::start().await;
    backend.answers(
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\
         X-Forwarded-For: 1\r\nAuthorization: x\r\n\r\n",
    );
    let sidecar = backend.sidecar(HTTP2).await;
    let stream = TcpStream::connect(sidecar.main).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let mut sums = http::HeaderMap::new();
    sums.insert("x-sum", "2".parse().unwrap());
    sums.insert("x-forwarded-for", "2".parse().unwrap());
    let frames = [Frame::data(Bytes::from_static(b"abc")), Frame::trailers(sums)];
    let body = StreamBody::new(futures_util::stream::iter(
        frames.map(Ok::<_, std::convert::Infallible>),
    ));
    let request = http::Request::post("http://a/x")
        .header("te", "trailers")
        .header("trailer", "x-sum, x-forwarded-for")
        .body(body)
        .unwrap();
    let told = sender.send_request(request).await.unwrap();
    let told = told.into_body().collect().await.unwrap();
    let trailers = told.trailers().unwrap();
    assert_eq!(trailers.get("x-sum").unwrap(), "1");
    assert_eq!(
        trailers.len(),
        1,
        "what no trailer may be ends here: {trailers:?}"
    );
    let seen = backend.seen().remove(0);
    assert!(seen.ends_with("3\r\nabc\r\n0\r\nx-sum: 2\r\n\r\n"), "{seen}");
    assert_eq!(values(&seen, "te"), ["trailers"]);
}
