//! What RFC 9110 and RFC 9112 demand of an intermediary, in raw bytes: HTTP/1 from callers, and the backend's answers.
//! One test for each row of `docs/http.md`. Request smuggling is in `smuggling.rs`.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::sidecar::{Encoding, Payout, Sidecar, To, Upstream, embedded};
use crate::support::wire::{Backend, HANGS_UP, shown, status, tell, values};

/// Faulty framing around a payout or status request. `{P}` is the method and target, `{H}` the head up to and including
/// `Host`, `{B}` the body, `{L}` its length, `{X}` its length in hexadecimal.
const FAULTS: &[&str] = &[
    // RFC 9112, section 6.3: both lengths.
    "{H}Content-Length: {L}\r\nTransfer-Encoding: chunked\r\n\r\n{X}\r\n{B}\r\n0\r\n\r\n",
    "{H}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n{X}\r\n{B}\r\n0\r\n\r\n",
    // RFC 9110, section 8.6: several lengths.
    "{H}Content-Length: {L}\r\nContent-Length: {L}\r\n\r\n{B}",
    "{H}Content-Length: {L}, {L}\r\n\r\n{B}",
    "{H}Content-Length: {L}\r\nContent-Length: 1\r\n\r\n{B}",
    "{H}Content-Length: +{L}\r\n\r\n{B}",
    "{H}Content-Length: 0x{X}\r\n\r\n{B}",
    "{H}Content-Length:\r\n\r\n{B}",
    "{H}Content-Length: 99999999999999999999\r\n\r\n{B}",
    // RFC 9112, section 2.2: bare line feeds and carriage returns.
    "{H}X: 1\nContent-Length: {L}\r\n\r\n{B}",
    "{H}Content-Length: {L}\n\r\n{B}",
    "{H}Content-Length: {L}\r\n\n{B}",
    "{H}X: a\rb\r\nContent-Length: {L}\r\n\r\n{B}",
    "\n{H}Content-Length: {L}\r\n\r\n{B}",
    // RFC 9112, sections 5.1 and 5.2; RFC 9110, sections 5.1 and 5.5.
    "{H}X: 1\r\n folded\r\nContent-Length: {L}\r\n\r\n{B}",
    "{H}Content-Length : {L}\r\n\r\n{B}",
    "{H}X Y: 1\r\nContent-Length: {L}\r\n\r\n{B}",
    "{H}: 1\r\nContent-Length: {L}\r\n\r\n{B}",
    "{H}X\r\nContent-Length: {L}\r\n\r\n{B}",
    "{H}X: a\0\r\nContent-Length: {L}\r\n\r\n{B}",
    "{H}X: a\u{7f}\r\nContent-Length: {L}\r\n\r\n{B}",
    "{H}X\u{e9}: a\r\nContent-Length: {L}\r\n\r\n{B}",
    // RFC 9112, section 7.1: lines of chunks.
    "{H}Transfer-Encoding: chunked\r\n\r\n{X};\r\n{B}\r\n0\r\n\r\n",
    "{H}Transfer-Encoding: chunked\r\n\r\n{X} \r\n{B}\r\n0\r\n\r\n",
    "{H}Transfer-Encoding: chunked\r\n\r\n {X}\r\n{B}\r\n0\r\n\r\n",
    "{H}Transfer-Encoding: chunked\r\n\r\n+{X}\r\n{B}\r\n0\r\n\r\n",
    "{H}Transfer-Encoding: chunked\r\n\r\n0x{X}\r\n{B}\r\n0\r\n\r\n",
    "{H}Transfer-Encoding: chunked\r\n\r\n{X}\n{B}\r\n0\r\n\r\n",
    "{H}Transfer-Encoding: chunked\r\n\r\n{X}\r\n{B}\n0\r\n\r\n",
    "{H}Transfer-Encoding: chunked\r\n\r\n{X}\r\n{B}\r\n0\n\r\n",
    "{H}Transfer-Encoding: chunked\r\n\r\n{X}\r\n{B}\r\n0\r\n\n",
    "{H}Transfer-Encoding: chunked\r\n\r\n{X}\r\n{B}\r\n0;\r\n\r\n",
    "{H}Transfer-Encoding: chunked\r\n\r\n{X}\r\n{B}\r\n0 \r\n\r\n",
    "{H}Transfer-Encoding: chunked\r\n\r\n0000000000000000{X}\r\n{B}\r\n0\r\n\r\n",
    // Legal on other paths: chunk extensions and trailers.
    "{H}Transfer-Encoding: chunked\r\n\r\n{X};a=b\r\n{B}\r\n0\r\n\r\n",
    "{H}Transfer-Encoding: chunked\r\n\r\n{X}\r\n{B}\r\n0;a\r\n\r\n",
    "{H}Transfer-Encoding: chunked\r\n\r\n{X}\r\n{B}\r\n0\r\nX-Sum: 1\r\n\r\n",
    "{H}Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n{X}\r\n{B}\r\n0\r\nX-Sum: 1\r\n\r\n",
    // RFC 9112, sections 6.1 and 7.
    "{H}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n{X}\r\n{B}\r\n0\r\n\r\n",
    "{H}Transfer-Encoding: chunked, chunked\r\n\r\n{X}\r\n{B}\r\n0\r\n\r\n",
    "{H}Transfer-Encoding: xchunked\r\nContent-Length: {L}\r\n\r\n{B}",
    "{P} HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{X}\r\n{B}\r\n0\r\n\r\n",
    // RFC 9112, section 3.2: Host.
    "{P} HTTP/1.1\r\nContent-Length: {L}\r\n\r\n{B}",
    "{P} HTTP/1.1\r\nHost:\r\nContent-Length: {L}\r\n\r\n{B}",
    "{P} HTTP/1.1\r\nHost: a:80x\r\nContent-Length: {L}\r\n\r\n{B}",
    "{H}Host: a\r\nContent-Length: {L}\r\n\r\n{B}",
];

/// The sidecar refuses each fault on the contract's paths. The body is a complete payout, so that a lenient parser
/// would pay.
#[tokio::test(flavor = "multi_thread")]
async fn payout_paths_take_strict_http_only() {
    let upstream = Upstream::start(To::Handler { idempotent: false }).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!("{}{}", embedded(&dir), upstream.configuration());
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    let mut lenient = Vec::new();
    for (n, fault) in FAULTS.iter().enumerate() {
        for (kind, path) in [
            ("PAY", "/pay/sendApiRedPack"),
            ("ASK", "/pay/getApiRedPacketStatus"),
        ] {
            let order_no = format!("{kind}{n}");
            let body = Payout::new(&order_no)
                .body(Encoding::Json)
                .replace("新年抽奖", "a")
                .replace("恭喜中奖", "b");
            let head = "{P} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
            let request = fault
                .replace("{H}", head)
                .replace("{P}", &format!("POST {path}"))
                .replace("{L}", &body.len().to_string())
                .replace("{X}", &format!("{:x}", body.len()))
                .replace("{B}", &body);
            let told = tell(sidecar.main, &request).await;
            let begins = shown("\"returnCode\":\"FAIL\",\"returnMsg\":\"请求未受理: ".as_bytes());
            let is_contract = told.contains(&begins) && told.contains("\"errCode\":\"PARAM_ERROR\"");
            if status(&told) != 400 || !is_contract || upstream.times_sent(&order_no) > 0 {
                lenient.push(format!("{fault:?} on {path}: {told}"));
            }
        }
    }
    assert!(
        lenient.is_empty(),
        "{} of {}: {lenient:#?}",
        lenient.len(),
        2 * FAULTS.len()
    );
    assert!(upstream.fake.books().payments().is_empty(), "nothing was paid");
    let answer = sidecar.pay(Encoding::Json, &Payout::new("GOOD")).await;
    assert_eq!(answer.code(), "SUCCESS", "{}", answer.body);
}

/// A refusal of an XML request is XML, and it comes in the order of the pipelined requests.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_has_the_requests_encoding_and_its_place() {
    let backend = Backend::start().await;
    let sidecar = backend.sidecar("").await;
    let told = tell(
        sidecar.main,
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /pay/sendApiRedPack HTTP/1.1\r\nHost: a\r\nContent-Type: text/xml\r\nX: 1\nY: 2\r\n\r\n\
         GET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    .await;
    let (first, second) = told.split_once("ok").unwrap();
    assert_eq!(status(first), 200);
    assert_eq!(status(second), 400, "{second}");
    assert_eq!(values(second, "content-type"), ["application/xml; charset=utf-8"]);
    assert_eq!(values(second, "connection"), ["close"]);
    assert!(
        second.contains(&shown(
            "请求未受理: 行尾只有换行符(LF): 须以 CRLF 结尾".as_bytes()
        )),
        "it says what is wrong: {second}"
    );
    assert_eq!(backend.seen().len(), 1);
    // A body's fault ends the reading of it, and is told all the same.
    let told = tell(
        sidecar.main,
        "POST /pay/sendApiRedPack HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;\r\n{}\r\n0\r\n\r\n",
    )
    .await;
    let says = "请求未受理: 分块不正确: 须以一行十六进制长度开头, 其后可有扩展";
    assert!(told.contains(&shown(says.as_bytes())), "{told}");
}

/// Proxied paths and the admin port are as strict, except for what is legal there.
#[tokio::test(flavor = "multi_thread")]
async fn faults_are_refused_on_every_path() {
    let backend = Backend::start().await;
    let sidecar = backend.sidecar("").await;
    for fault in FAULTS {
        let head = "{P} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
        let request = fault
            .replace("{H}", head)
            .replace("{P}", "POST /x")
            .replace("{L}", "3")
            .replace("{X}", "3")
            .replace("{B}", "abc");
        let is_legal = ["3;a=b\r\n", "0;a\r\n", "X-Sum: 1"]
            .iter()
            .any(|legal| request.contains(legal));
        let told = tell(sidecar.main, &request).await;
        assert_eq!(
            status(&told),
            if is_legal { 200 } else { 400 },
            "{fault:?}: {told}"
        );
        let whole = backend.seen().iter().filter(|seen| seen.contains("abc")).count();
        assert_eq!(whole, usize::from(is_legal), "{fault:?}");
        // The admin port checks `Host` by a rule of its own.
        if !is_legal && !fault.contains("Host:") && !fault.starts_with("{P}") {
            let of_admin = status(&tell(sidecar.admin, &request.replace("/x", "/livez")).await);
            assert!(of_admin >= 400, "{fault:?}: {of_admin}");
        }
    }
}

/// RFC 9112, sections 2.2 and 7.1.1: what a recipient must accept.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_legal_is_served() {
    let backend = Backend::start().await;
    let sidecar = backend.sidecar("").await;
    for request in [
        "\r\n\r\nPOST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
        "POST /x HTTP/1.1\r\nhOST:a\t \r\nConnection: close\r\nContent-Length:\t3 \r\n\r\nabc",
        "POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: Chunked\r\n\r\n003;x\r\nabc\r\n000\r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3 ;\ta = \"q\\\"\" ; b\r\nabc\r\n0\r\n\r\n",
        "POST /x HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        let told = tell(sidecar.main, request).await;
        assert_eq!(status(&told), 200, "{request:?}: {told}");
        let seen = backend.seen();
        assert!(
            seen.len() == 1 && seen[0].contains("abc"),
            "{request:?}: {seen:?}"
        );
        assert!(!seen[0].contains(';'), "extensions end here: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_and_targets_have_a_limit() {
    let backend = Backend::start().await;
    let sidecar = backend.sidecar("").await;
    let long = "a".repeat(70_000);
    for (request, expected) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), 431),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(101)),
            431,
        ),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), 505),
    ] {
        assert_eq!(
            status(&tell(sidecar.main, &request).await),
            expected,
            "{}",
            &request[..30]
        );
    }
    assert!(backend.seen().is_empty());
}

/// RFC 9112, section 3.2; RFC 9110, sections 7.2 and 7.4.
#[tokio::test(flavor = "multi_thread")]
async fn targets_and_hosts() {
    let backend = Backend::start().await;
    let sidecar = backend.sidecar("").await;
    for (line, host, expected) in [
        ("GET /a?b", "Host: shop:81\r\n", Ok(("GET /a?b", "shop:81"))),
        // The target's host wins, and the request still needs a `Host` field.
        ("GET http://shop:1/a", "Host: other\r\n", Ok(("GET /a", "shop:1"))),
        ("GET http://shop:1/a", "", Err(400)),
        ("GET http://me@shop/a", "Host: shop\r\n", Err(400)),
        ("GET https://shop/a", "Host: shop\r\n", Err(421)),
        ("GET ftp://shop/a", "Host: shop\r\n", Err(421)),
        ("OPTIONS *", "Host: shop\r\n", Ok(("OPTIONS *", "shop"))),
        ("OPTIONS http://shop", "Host: shop\r\n", Ok(("OPTIONS *", "shop"))),
        (
            "OPTIONS http://shop/",
            "Host: shop\r\n",
            Ok(("OPTIONS /", "shop")),
        ),
        (
            "OPTIONS http://shop?q",
            "Host: shop\r\n",
            Ok(("OPTIONS /?q", "shop")),
        ),
        ("GET http://shop", "Host: shop\r\n", Ok(("GET /", "shop"))),
        ("GET *", "Host: shop\r\n", Err(400)),
        ("GET /", "", Err(400)),
        ("GET /", "Host:\r\n", Err(400)),
        ("GET /", "Host: \r\n", Err(400)),
        ("GET /", "Host: a:80x\r\n", Err(400)),
        ("GET /", "Host: a:99999\r\n", Err(400)),
        ("GET /", "Host: me@a\r\n", Err(400)),
        ("GET /", "Host: a\r\nHost: a\r\n", Err(400)),
        ("GET /", "Host: [::1]:80\r\n", Ok(("GET /", "[::1]:80"))),
        ("GET /a#b", "Host: a\r\n", Err(400)),
        ("GET /a b", "Host: a\r\n", Err(400)),
    ] {
        let told = tell(
            sidecar.main,
            &format!("{line} HTTP/1.1\r\n{host}Connection: close\r\n\r\n"),
        )
        .await;
        let seen = backend.seen();
        match expected {
            Ok((line, host)) => {
                assert_eq!(status(&told), 200, "{line}: {told}");
                assert!(seen[0].starts_with(&format!("{line} HTTP/1.1\r\n")), "{seen:?}");
                assert_eq!(values(&seen[0], "host"), [host]);
            }
            Err(expected) => {
                assert_eq!(status(&told), expected, "{line} {host:?}: {told}");
                assert!(seen.is_empty(), "{line} {host:?}");
            }
        }
    }
}

/// RFC 9110, sections 9.3.6 and 9.3.8.
#[tokio::test(flavor = "multi_thread")]
async fn connect_and_trace_are_not_forwarded() {
    let backend = Backend::start().await;
    let sidecar = backend.sidecar("").await;
    for line in ["TRACE /", "TRACE *", "CONNECT a:443"] {
        let request =
            format!("{line} HTTP/1.1\r\nHost: a:443\r\nCookie: secret\r\nAuthorization: secret\r\n\r\n");
        let told = tell(sidecar.main, &request).await;
        assert_eq!(status(&told), 501, "{line}: {told}");
        assert!(!told.contains("secret"), "{told}");
    }
    assert!(backend.seen().is_empty());
    // The sidecar forwards an unknown method to the backend.
    tell(
        sidecar.main,
        "M-!#$%&'*+.^_`|~0 / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(backend.seen()[0].starts_with("M-!#$%&'*+.^_`|~0 / HTTP/1.1\r\n"));
}

/// RFC 9110, section 7.6.2.
#[tokio::test(flavor = "multi_thread")]
async fn max_forwards_counts_down_and_ends_here() {
    let backend = Backend::start().await;
    let sidecar = backend.sidecar("").await;
    for (method, given, expected) in [
        ("OPTIONS", "3", Ok("2")),
        ("OPTIONS", "1", Ok("0")),
        ("OPTIONS", "0", Err(200)),
        ("OPTIONS", "-1", Err(400)),
        ("OPTIONS", "x", Err(400)),
        ("OPTIONS", "1\r\nMax-Forwards: 2", Err(400)),
        ("GET", "0", Ok("0")),
    ] {
        let request =
            format!("{method} / HTTP/1.1\r\nHost: a\r\nMax-Forwards: {given}\r\nConnection: close\r\n\r\n");
        let told = tell(sidecar.main, &request).await;
        let seen = backend.seen();
        match expected {
            Ok(left) => assert_eq!(values(&seen[0], "max-forwards"), [left], "{method} {given}"),
            Err(expected) => {
                assert_eq!(
                    (status(&told), seen.len()),
                    (expected, 0),
                    "{method} {given}: {told}"
                );
                if expected == 200 {
                    assert_eq!(values(&told, "content-length"), ["0"], "RFC 9110, section 9.3.7");
                }
            }
        }
    }
}

/// RFC 9110, section 10.1.1.
#[tokio::test(flavor = "multi_thread")]
async fn expectations() {
    let backend = Backend::start().await;
    let sidecar = backend.sidecar("").await;
    for (version, expect, expected) in [
        ("1.1", "100-continue", 100),
        ("1.1", "100-Continue", 100),
        // Ignored in an HTTP/1.0 request: that version has no interim responses.
        ("1.0", "100-continue", 200),
        ("1.1", "somersault", 417),
        ("1.1", "100-continue, somersault", 417),
    ] {
        let request = format!(
            "POST / HTTP/{version}\r\nHost: a\r\nExpect: {expect}\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
        );
        let told = tell(sidecar.main, &request).await;
        assert_eq!(status(&told), expected, "{version} {expect}: {told}");
        let seen = backend.seen();
        assert_eq!(seen.len(), usize::from(expected != 417));
        assert!(
            seen.iter().all(|seen| values(seen, "expect").is_empty()),
            "{seen:?}"
        );
    }
}

/// RFC 9110, section 7.6.3.
#[tokio::test(flavor = "multi_thread")]
async fn via_names_us_and_the_version_that_came() {
    let backend = Backend::start().await;
    let sidecar = backend.sidecar("").await;
    tell(
        sidecar.main,
        "GET / HTTP/1.1\r\nHost: a\r\nVia: 1.0 fred\r\nConnection: close\r\n\r\n",
    )
    .await;
    tell(sidecar.main, "GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let seen = backend.seen();
    assert_eq!(values(&seen[0], "via"), ["1.0 fred", "1.1 payout-sidecar"]);
    assert_eq!(values(&seen[1], "via"), ["1.0 payout-sidecar"]);
    assert!(
        seen[1].starts_with("GET / HTTP/1.1\r\n"),
        "our own version: RFC 9112, section 2.3"
    );
}

/// RFC 9110, section 7.6.1.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_of_one_connection_ends_here() {
    let backend = Backend::start().await;
    backend.answers(
        "HTTP/1.1 200 OK\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: x\r\n\
         Upgrade: h2c\r\nX-Kept: 1\r\nContent-Length: 2\r\n\r\nok",
    );
    let sidecar = backend.sidecar("").await;
    let told = tell(
        sidecar.main,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\n\
         Proxy-Authorization: x\r\nTE: gzip\r\nUpgrade: h2c\r\nX-Kept: 1\r\n\r\n",
    )
    .await;
    let seen = backend.seen().remove(0);
    for name in [
        "connection",
        "x-hop",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "proxy-authenticate",
        "te",
        "upgrade",
    ] {
        assert!(values(&seen, name).is_empty(), "{name}: {seen}");
        assert!(
            values(&told, name).is_empty() || name == "connection",
            "{name}: {told}"
        );
    }
    assert_eq!(values(&told, "connection"), ["close"]);
    assert_eq!(
        (values(&seen, "x-kept"), values(&told, "x-kept")),
        (vec!["1"], vec!["1"])
    );
}

/// RFC 9110, sections 5.3, 5.5 and 6.6.1: the sidecar keeps the order and bytes of field values, and may add `Date`.
#[tokio::test(flavor = "multi_thread")]
async fn fields_pass_as_they_are() {
    let backend = Backend::start().await;
    backend.answers("HTTP/1.1 200 OK\r\nX: 2\r\nX: 1\r\nY: \u{e7}\u{ba}\u{a2}\r\nServer: app\r\nContent-Length: 2\r\n\r\nok");
    let sidecar = backend.sidecar("").await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: 2\r\nX: 1\r\nY: \u{e7}\u{ba}\u{a2}\r\nRange: bytes=0-1\r\n\
         If-Match: \"x\"\r\nCache-Control: no-transform\r\nX-Unknown:\r\n\r\n";
    let told = tell(sidecar.main, request).await;
    let seen = backend.seen().remove(0);
    for message in [&seen, &told] {
        assert_eq!(values(message, "x"), ["2", "1"]);
        assert_eq!(values(message, "y"), ["\u{e7}\u{ba}\u{a2}"]);
    }
    for (name, value) in [
        ("range", "bytes=0-1"),
        ("if-match", "\"x\""),
        ("cache-control", "no-transform"),
        ("x-unknown", ""),
    ] {
        assert_eq!(values(&seen, name), [value]);
    }
    assert_eq!(
        (values(&told, "server"), values(&told, "date").len()),
        (vec!["app"], 1)
    );
    backend.answers("HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 2\r\n\r\nok");
    let told = tell(sidecar.main, request).await;
    assert_eq!(values(&told, "date"), ["Thu, 01 Jan 1970 00:00:00 GMT"]);
}

/// Some frameworks read the path from these fields instead of the request line.
#[tokio::test(flavor = "multi_thread")]
async fn no_field_chooses_another_path() {
    let names = [
        "X-Original-URL",
        "X-Original-URI",
        "X-Rewrite-URL",
        "X_Original_URL",
        "X-Rewrite_URL",
        "X-Override-URL",
    ];
    let backend = Backend::start().await;
    let sidecar = backend.sidecar("").await;
    let fields: String = names
        .iter()
        .map(|name| format!("{name}: /pay/sendApiRedPack\r\n"))
        .collect();
    tell(
        sidecar.main,
        &format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}X-Mine: 1\r\n\r\n"),
    )
    .await;
    let seen = backend.seen().remove(0);
    assert!(!seen.contains("sendApiRedPack"), "{seen}");
    assert_eq!(values(&seen, "x-mine"), ["1"]);
}

/// How the sidecar passes on a backend's answer. RFC 9112, section 6; RFC 9110, sections 8.6, 9.3.2, 15.3.5 and 15.4.5.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_framed_afresh_or_not_passed_on() {
    let backend = Backend::start().await;
    let sidecar = backend.sidecar("").await;
    type Frame = Result<(Option<&'static str>, &'static str), u16>;
    let chunked = Ok((None, "3\r\nabc\r\n0\r\n\r\n"));
    let cases: [(&str, &str, Frame); 21] = [
        (
            "GET",
            "200 OK\r\nContent-Length: 3\r\n\r\nabc",
            Ok((Some("3"), "abc")),
        ),
        (
            "GET",
            "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            chunked,
        ),
        // The transfer coding wins, and the sidecar removes the length.
        (
            "GET",
            "200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            chunked,
        ),
        (
            "GET",
            "200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            chunked,
        ),
        // The sidecar merges equal lengths into one.
        (
            "GET",
            "200 OK\r\nContent-Length: 3, 3\r\n\r\nabc",
            Ok((Some("3"), "abc")),
        ),
        (
            "GET",
            "200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
            Ok((Some("3"), "abc")),
        ),
        (
            "GET",
            "200 OK\r\nContent-Length: 003\r\n\r\nabc",
            Ok((Some("3"), "abc")),
        ),
        (
            "HEAD",
            "200 OK\r\nContent-Length: 3, 3\r\n\r\n",
            Ok((Some("3"), "")),
        ),
        (
            "HEAD",
            "200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            Ok((None, "")),
        ),
        (
            "GET",
            "200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            Err(502),
        ),
        ("GET", "200 OK\r\nContent-Length: 3, 4\r\n\r\nabcd", Err(502)),
        ("GET", "200 OK\r\nContent-Length: x\r\n\r\nabc", Err(502)),
        ("HEAD", "200 OK\r\nContent-Length: x\r\n\r\n", Err(502)),
        (
            "GET",
            "200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            Err(502),
        ),
        (
            "GET",
            "200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc\u{1}",
            Err(502),
        ),
        (
            "GET",
            "200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
            Err(502),
        ),
        // These responses have no content, whatever the head says.
        (
            "GET",
            "204 No Content\r\nContent-Length: 3\r\n\r\n",
            Ok((None, "")),
        ),
        (
            "GET",
            "204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
            Ok((None, "")),
        ),
        (
            "GET",
            "304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
            Ok((None, "")),
        ),
        // The end of the connection ends the body.
        ("GET", "200 OK\r\n\r\nabc\u{1}", chunked),
        (
            "GET",
            "200 OK\r\nX: a\r\n folded\r\nContent-Length: 3\r\n\r\nabc",
            Err(502),
        ),
    ];
    for (method, answer, expected) in cases {
        backend.answers(&format!("HTTP/1.1 {answer}"));
        let told = tell(
            sidecar.main,
            &format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        )
        .await;
        let Ok((length, body)) = expected else {
            assert_eq!(status(&told), 502, "{method} {answer:?}: {told}");
            continue;
        };
        assert_eq!(told.get(9..12), answer.get(..3), "{method} {answer:?}: {told}");
        assert_eq!(
            values(&told, "content-length"),
            Vec::from_iter(length),
            "{method} {answer:?}"
        );
        let is_chunked = body.ends_with("0\r\n\r\n");
        assert_eq!(
            values(&told, "transfer-encoding").len(),
            usize::from(is_chunked),
            "{method} {answer:?}"
        );
        assert_eq!(
            told.split_once("\r\n\r\n").unwrap().1,
            body,
            "{method} {answer:?}"
        );
    }
    // RFC 9112, section 6.1: HTTP/1.0 has no transfer codings.
    backend.answers("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(
        status(
            &tell(
                sidecar.main,
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            )
            .await
        ),
        502
    );
    backend.answers("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    let told = tell(sidecar.main, "GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert!(
        values(&told, "transfer-encoding").is_empty() && told.ends_with("\r\n\r\nabc"),
        "{told}"
    );
}

/// RFC 9112, sections 6.3 and 8: a caller can detect a truncated response.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_cut_short_is_told_as_such() {
    let backend = Backend::start().await;
    let sidecar = backend.sidecar("").await;
    for (answer, whole) in [
        ("Content-Length: 5\r\n\r\nabc", "abcde"),
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "0\r\n\r\n"),
        (
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "0\r\n\r\n",
        ),
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "0\r\n\r\n",
        ),
    ] {
        backend.answers(&format!("HTTP/1.1 200 OK\r\n{answer}{HANGS_UP}"));
        let told = tell(
            sidecar.main,
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .await;
        // If the backend breaks off before the sidecar has written anything, the caller gets no response at all;
        // `src/proxy/tests/failures.rs` covers a partial one.
        let Some((head, body)) = told.split_once("\r\n\r\n") else {
            assert_eq!(told, "", "{answer:?}");
            continue;
        };
        let is_chunked = head.contains("transfer-encoding: chunked");
        assert_eq!(is_chunked, answer.contains("chunked"), "{answer:?}: {told}");
        assert!(
            body.contains("abc") && !body.ends_with(whole),
            "{answer:?}: {told}"
        );
    }
}

/// RFC 9110, section 15.2: the sidecar forwards interim responses.
#[tokio::test(flavor = "multi_thread")]
async fn words_before_the_answer_are_passed_on() {
    let backend = Backend::start().await;
    backend.answers(
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let sidecar = backend.sidecar("").await;
    let told = tell(
        sidecar.main,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    .await;
    let heads: Vec<_> = told.split("\r\n\r\n").collect();
    assert_eq!(heads[0], "HTTP/1.1 102 Processing");
    assert_eq!(heads[1], "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nlink: </b>");
    assert!(
        heads[2].starts_with("HTTP/1.1 200 OK\r\n") && heads[3] == "ok",
        "{told}"
    );
    let told = tell(sidecar.main, "GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert_eq!(status(&told), 200, "never to HTTP/1.0: {told}");
}

/// RFC 9110, sections 7.8, 15.2.2 and 15.5.22.
#[tokio::test(flavor = "multi_thread")]
async fn upgrades_are_of_one_connection() {
    let backend = Backend::start().await;
    let sidecar = backend.sidecar("").await;
    backend.answers("HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n");
    let told = tell(
        sidecar.main,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(values(&told, "upgrade"), ["websocket"], "{told}");
    let connection = values(&told, "connection").join(", ").to_ascii_lowercase();
    assert!(
        connection.contains("upgrade") && connection.contains("close"),
        "{told}"
    );
    // The caller has not asked for an upgrade.
    backend.answers("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n");
    let told = tell(
        sidecar.main,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(status(&told), 502, "{told}");
    // HTTP/1.0 cannot upgrade.
    backend.answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    backend.seen();
    tell(
        sidecar.main,
        "GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
    )
    .await;
    assert!(values(&backend.seen()[0], "upgrade").is_empty());
}

/// RFC 9110, section 6.5; RFC 9112, section 7.1.2.
#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_to_who_takes_them() {
    let backend = Backend::start().await;
    let section = "0\r\nX-Sum: 1\r\nContent-Length: 9\r\nX-Forwarded-For: 1\r\n\r\n";
    let announced =
        "Trailer: X-Sum, Content-Length, X-Forwarded-For\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    backend.answers(&format!("HTTP/1.1 200 OK\r\n{announced}{section}"));
    let sidecar = backend.sidecar("").await;
    for (takes, expected) in [
        ("close, TE\r\nTE: trailers", "0\r\nx-sum: 1\r\n\r\n"),
        ("close", "0\r\n\r\n"),
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: {takes}\r\n{announced}{section}");
        let told = tell(sidecar.main, &request).await;
        let seen = backend.seen().remove(0);
        assert!(seen.ends_with("3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n"), "{seen}");
        assert_eq!(
            values(&seen, "te").len(),
            usize::from(takes.contains("TE")),
            "{seen}"
        );
        assert!(told.ends_with(&format!("3\r\nabc\r\n{expected}")), "{told}");
        assert_eq!(
            values(&told, "trailer").len(),
            usize::from(takes.contains("TE")),
            "{told}"
        );
    }
}

/// RFC 9112, section 9.3: pipelined requests, and requests split into pieces, stay separate requests.
#[tokio::test(flavor = "multi_thread")]
async fn requests_one_behind_the_other_and_in_pieces() {
    let backend = Backend::start().await;
    let sidecar = backend.sidecar("").await;
    let all = "\r\nPOST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcPOST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
               3;x\r\nabc\r\n0\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for size in [1, 7, all.len()] {
        let mut stream = TcpStream::connect(sidecar.main).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in all.as_bytes().chunks(size) {
            stream.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut told = String::new();
        stream.read_to_string(&mut told).await.unwrap();
        assert_eq!(told.matches("HTTP/1.1 200 OK").count(), 3, "{size}: {told}");
        let seen = backend.seen();
        let lines: Vec<_> = seen
            .iter()
            .map(|seen| seen.split("\r\n").next().unwrap())
            .collect();
        assert_eq!(lines, ["POST /1 HTTP/1.1", "POST /2 HTTP/1.1", "GET /3 HTTP/1.1"]);
    }
}
