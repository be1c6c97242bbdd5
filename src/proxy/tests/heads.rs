//! The heads of requests and responses.

use super::{Backend, Sidecar, played};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_request_passes_with_our_headers_and_nothing_else_changed() {
    let (sidecar, backend) = played().await;
    let mut caller = sidecar.call().await;
    let target = "/a//b/../c;x=1/%2F%zz/\u{7ea2}?q=%20+&&a=/?";
    let head = format!(
        "PURGE {target} HTTP/1.1\r\nHost: Shop.Example:81\r\nX-Kept: 1\r\nCookie: a=b\r\nX-Kept: 2\r\n\
         Connection: keep-alive, X-Named, x-forwarded-for, x-forwarded-proto, x-forwarded-host, x-request-id, \
         traceparent\r\nX-Named: 1\r\nTE: trailers\r\nX-Forwarded-For: 1.2.3.4\r\nX_Forwarded_For: 1.2.3.4\r\n\r\n"
    );
    caller.send(&head).await;
    let mut inside = backend.accept().await;
    let seen = inside.head().await;
    assert_eq!(seen.start, format!("PURGE {target} HTTP/1.1"));
    assert_eq!(seen.get("host"), Some("Shop.Example:81"));
    assert_eq!(seen.get("cookie"), Some("a=b"));
    let kept: Vec<_> = seen.headers.iter().filter(|(name, _)| name == "x-kept").collect();
    assert_eq!(
        kept.iter().map(|kept| kept.1.as_str()).collect::<Vec<_>>(),
        ["1", "2"]
    );
    assert_eq!(seen.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.get("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.get("x-forwarded-host"), Some("Shop.Example:81"));
    let id = seen.get("x-request-id").unwrap();
    assert!(
        id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{id}"
    );
    let trace: Vec<_> = seen.get("traceparent").unwrap().split('-').collect();
    assert_eq!(
        trace.iter().map(|part| part.len()).collect::<Vec<_>>(),
        [2, 32, 16, 2]
    );
    assert_ne!(trace[1], id, "a request and its trace have ids of their own");
    assert_eq!(seen.get("via"), Some("1.1 payout-sidecar"));
    // The caller accepts trailers, so the sidecar asks for them.
    assert_eq!(
        (seen.get("te"), seen.get("connection")),
        (Some("trailers"), Some("TE"))
    );
    for gone in [
        "x-named",
        "x_forwarded_for",
        "transfer-encoding",
        "content-length",
    ] {
        assert_eq!(seen.get(gone), None, "{gone}");
    }
    assert_eq!(seen.headers.len(), 12, "nothing else is added: {seen:?}");

    inside.send("HTTP/1.1 299 Custom Words\r\nContent-Length: 2\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nServer: app\r\n\r\nok").await;
    let answer = caller.head().await;
    assert_eq!(answer.start, "HTTP/1.1 299 Custom Words");
    assert_eq!(answer.get("server"), Some("app"));
    assert_eq!(
        answer
            .headers
            .iter()
            .filter(|(name, _)| name == "set-cookie")
            .count(),
        2
    );
    for gone in ["connection", "x-hop", "keep-alive"] {
        assert_eq!(answer.get(gone), None, "{gone}");
    }
    assert_eq!(caller.until("ok").await, "ok");
}

#[tokio::test]
async fn a_trusted_peers_words_are_kept_and_continued() {
    let backend = Backend::bind().await;
    let sidecar = Sidecar::before(&backend.url(), true).await;
    let mut caller = sidecar.call().await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    caller
        .send(format!(
            "GET / HTTP/1.1\r\nHost: inner\r\nX-Forwarded-For: 198.51.100.1\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-Host: shop\r\nX-Request-Id: theirs-1\r\ntraceparent: 00-{trace}-b7ad6b7169203331-01\r\n\
             tracestate: a=b\r\n\r\n"
        ))
        .await;
    let mut inside = backend.accept().await;
    let seen = inside.head().await;
    assert_eq!(seen.get("x-forwarded-for"), Some("198.51.100.1, 127.0.0.1"));
    assert_eq!(seen.get("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.get("x-forwarded-host"), Some("shop"));
    assert_eq!(seen.get("x-request-id"), Some("theirs-1"));
    let parent = seen.get("traceparent").unwrap();
    assert!(
        parent.starts_with(&format!("00-{trace}-")) && !parent.contains("b7ad6b7169203331"),
        "{parent}"
    );
    assert_eq!(seen.get("tracestate"), Some("a=b"));
}

#[tokio::test]
async fn every_form_of_target_arrives_in_origin_form() {
    for (sent, arrived, host) in [
        (
            "GET http://shop:1/x?y HTTP/1.1\r\nHost: shop:1\r\n\r\n",
            "GET /x?y HTTP/1.1",
            "shop:1",
        ),
        (
            "GET http://shop HTTP/1.1\r\nHost: shop\r\n\r\n",
            "GET / HTTP/1.1",
            "shop",
        ),
        (
            "GET http://shop?y HTTP/1.1\r\nHost: shop\r\n\r\n",
            "GET /?y HTTP/1.1",
            "shop",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: shop\r\n\r\n",
            "OPTIONS * HTTP/1.1",
            "shop",
        ),
        (
            "GET /old HTTP/1.0\r\nHost: shop\r\n\r\n",
            "GET /old HTTP/1.1",
            "shop",
        ),
        ("GET /old HTTP/1.0\r\n\r\n", "GET /old HTTP/1.1", "the backend's"),
    ] {
        let (sidecar, backend) = played().await;
        let mut caller = sidecar.call().await;
        caller.send(sent).await;
        let mut inside = backend.accept().await;
        let seen = inside.head().await;
        assert_eq!(seen.start, arrived, "{sent}");
        let own = backend.url().replace("http://", "");
        let host = if host == "the backend's" {
            own.as_str()
        } else {
            host
        };
        assert_eq!(seen.get("host"), Some(host), "{sent}");
        inside.send(OK).await;
        assert!(caller.head().await.start.ends_with("200 OK"));
    }
}

#[tokio::test]
async fn a_base_path_comes_first() {
    let backend = Backend::bind().await;
    let sidecar = Sidecar::before(&format!("{}/base/", backend.url()), false).await;
    let mut caller = sidecar.call().await;
    caller.send("GET //x?y HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(
        backend.accept().await.head().await.start,
        "GET /base//x?y HTTP/1.1"
    );
}

#[tokio::test]
async fn what_must_not_be_forwarded_is_answered_here() {
    let (sidecar, backend) = played().await;
    for (head, status) in [
        ("CONNECT shop:443 HTTP/1.1\r\nHost: shop:443", "501"),
        ("TRACE / HTTP/1.1\r\nHost: a", "501"),
        ("GET / HTTP/1.1\r\nX: 1", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b", "400"),
        ("GET https://a/ HTTP/1.1\r\nHost: a", "421"),
        ("GET / HTTP/1.1\r\nHost: a, b", "400"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked",
            "501",
        ),
        (
            "POST /pay//sendApiRedPack HTTP/1.1\r\nHost: a\r\nContent-Length: 0",
            "404",
        ),
        (
            "POST /pay/sendApiRedPack HTTP/1.1\r\nHost: a\r\nContent-Length: 0",
            "404",
        ),
    ] {
        let mut caller = sidecar.call().await;
        caller.send(format!("{head}\r\n\r\n")).await;
        let answer = caller.head().await;
        assert_eq!(answer.start.split(' ').nth(1), Some(status), "{head}");
        assert_eq!(answer.get("content-type"), Some("text/plain; charset=utf-8"));
        assert!(caller.until("\n").await.starts_with("payout-sidecar: "));
    }
    assert!(backend.is_untouched().await);
}

#[tokio::test]
async fn answers_without_a_body_keep_their_heads() {
    for (method, answer, length) in [
        ("HEAD", "200 OK\r\nContent-Length: 1000", Some("1000")),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked", None),
        ("GET", "204 No Content", None),
        ("GET", "304 Not Modified\r\nETag: x", None),
        // The HTTP library leaves it out, as it may.
        ("GET", "304 Not Modified\r\nContent-Length: 1000", None),
        ("GET", "200 OK\r\nContent-Length: 0", Some("0")),
    ] {
        let (sidecar, backend) = played().await;
        let (mut caller, mut inside);
        caller = sidecar.call().await;
        caller
            .send(format!("{method} /1 HTTP/1.1\r\nHost: a\r\n\r\n"))
            .await;
        inside = backend.accept().await;
        inside.head().await;
        inside.send(format!("HTTP/1.1 {answer}\r\n\r\n")).await;
        let seen = caller.head().await;
        let status = answer.split("\r\n").next().unwrap();
        assert_eq!(seen.start, format!("HTTP/1.1 {status}"));
        assert_eq!(seen.get("content-length"), length, "{method} {answer}");
        // No byte of a body came, or the next response would be unreadable. Both connections are used again.
        caller.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(inside.head().await.start, "GET /2 HTTP/1.1", "{method} {answer}");
        inside.send(OK).await;
        assert_eq!(caller.head().await.start, "HTTP/1.1 200 OK", "{method} {answer}");
    }
}

#[tokio::test]
async fn words_before_the_answer_come_before_it_and_after_the_answer_before() {
    let (sidecar, backend) = played().await;
    let mut caller = sidecar.call().await;
    // Two requests at once: the interim response to the second must not get into the response to the first.
    caller
        .send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    let mut inside = backend.accept().await;
    for n in 1..=2 {
        assert_eq!(inside.head().await.start, format!("GET /{n} HTTP/1.1"));
        inside
            .send("HTTP/1.1 103 Early Hints\r\nLink: x\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n")
            .await;
        // It is forwarded before the response comes.
        let word = caller.head().await;
        assert_eq!(
            (word.start.as_str(), word.get("link")),
            ("HTTP/1.1 103 Early Hints", Some("x"))
        );
        assert_eq!((word.get("x-hop"), word.get("connection")), (None, None));
        inside
            .send(format!(
                "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 199 Own\r\n\r\n{OK}"
            ))
            .await;
        assert_eq!(caller.head().await.start, "HTTP/1.1 102 Processing");
        assert_eq!(caller.head().await.start, "HTTP/1.1 199");
        let answer = caller.head().await;
        assert_eq!(
            (answer.start.as_str(), answer.get("link")),
            ("HTTP/1.1 200 OK", None)
        );
        assert_eq!(caller.until("ok").await, "ok");
    }
}

#[tokio::test]
async fn an_http_1_0_caller_hears_no_words_before_the_answer() {
    let (sidecar, backend) = played().await;
    let mut caller = sidecar.call().await;
    caller.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let mut inside = backend.accept().await;
    inside.head().await;
    inside
        .send(format!("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{OK}"))
        .await;
    assert_eq!(caller.head().await.start, "HTTP/1.0 200 OK");
}

#[tokio::test]
async fn an_old_backends_answer_ends_where_it_closes() {
    let (sidecar, backend) = played().await;
    let mut caller = sidecar.call().await;
    caller.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut inside = backend.accept().await;
    inside.head().await;
    inside.send("HTTP/1.0 200 OK\r\n\r\nall of it").await;
    drop(inside);
    let answer = caller.head().await;
    assert_eq!(answer.start, "HTTP/1.1 200 OK");
    assert_eq!(
        answer.get("transfer-encoding"),
        Some("chunked"),
        "so that an abort can be told from an end"
    );
    assert!(caller.until("0\r\n\r\n").await.contains("all of it"));
}
