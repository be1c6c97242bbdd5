//! Requests that two parsers could read differently: the bytes, the answer, and what the backend received. A second
//! request follows each case on the same connection; it must never become part of the first, nor be made out of its
//! body. The cases come from RFC 9112, sections 2.2, 3.2, 5, 6 and 7, and from known differences between servers.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::support::sidecar::{Encoding, Payout, Sidecar, To, Upstream, embedded};

/// What the backend received: a line for each request, `POST /x [body]`, or `POST /x broke off`.
type Seen = Arc<Mutex<Vec<String>>>;

async fn backend() -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen = Seen::default();
    let all = seen.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let seen = all.clone();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                while let Some(request) = read(&mut stream).await {
                    let is_whole = request.ends_with(']');
                    seen.lock().unwrap().push(request);
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                    if !is_whole || stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, seen)
}

/// Reads one request as strictly as possible. Panics if it could be read in two ways.
async fn read(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let start = lines.next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    let (mut lengths, mut codings, mut hosts) = (Vec::new(), Vec::new(), 0);
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => lengths.push(value.parse::<usize>().unwrap()),
            "transfer-encoding" => codings.push(value.to_owned()),
            "host" => hosts += 1,
            _ => {}
        }
        assert!(!line.contains(['\n', '\0']), "{line:?} was passed on");
    }
    assert_eq!(hosts, 1, "{head}");
    let body = match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => Some(Vec::new()),
        ([length], []) => exactly(stream, *length).await,
        ([], [coding]) if coding == "chunked" => chunks(stream).await,
        both => panic!("{start} can be read in two ways: {both:?}"),
    };
    Some(match body {
        Some(body) => format!("{start} [{}]", String::from_utf8(body).unwrap()),
        None => format!("{start} broke off"),
    })
}

async fn exactly(stream: &mut BufReader<TcpStream>, length: usize) -> Option<Vec<u8>> {
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(body)
}

async fn chunks(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut size = Vec::new();
        while !size.ends_with(b"\r\n") {
            size.push(stream.read_u8().await.ok()?);
        }
        let size = usize::from_str_radix(std::str::from_utf8(&size).unwrap().trim_end(), 16).unwrap();
        body.extend(exactly(stream, size).await?);
        assert_eq!(exactly(stream, 2).await?, b"\r\n", "trailers were passed on");
        if size == 0 {
            return Some(body);
        }
    }
}

/// The result of a case, and of the request that follows it.
#[derive(Clone, Copy, PartialEq)]
enum Outcome {
    /// Refused with this status for its head; the backend receives neither request.
    Refused(u16),
    /// Served once, with this body. The connection ends; the backend does not receive the second request.
    Once(&'static str),
    /// Served with this body, and the second request too.
    Both(&'static str),
    /// Legal, so proxied paths serve it like `Both`. Parsers differ about it, so the contract's paths refuse it with
    /// 400.
    Legal(&'static str),
    /// Its head is good but its body is not: refused with 400. The backend receives nothing, or a request that breaks
    /// off.
    Broken,
}

use Outcome::{Both, Broken, Legal, Once, Refused};

/// `~` is the start of a plain POST, `{P}` the path, `{H}` another request hidden in the body, `{L}` its length.
const CASES: &[(&str, Outcome)] = &[
    // Well-formed requests, for comparison.
    ("~Content-Length: 3\r\n\r\nabc", Both("abc")),
    (
        "~Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        Both("abc"),
    ),
    ("~\r\n", Both("")),
    // Content-Length and Transfer-Encoding together.
    (
        "~Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
        Refused(400),
    ),
    (
        "~Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "~Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        Refused(400),
    ),
    // Several lengths.
    ("~Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", Refused(400)),
    ("~Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", Refused(400)),
    ("~Content-Length: 0\r\ncontent-length: 3\r\n\r\nabc", Refused(400)),
    ("~Content-Length: 3, 3\r\n\r\nabc", Refused(400)),
    ("~Content-Length: 3,4\r\n\r\nabc", Refused(400)),
    // Malformed lengths.
    ("~Content-Length: +3\r\n\r\nabc", Refused(400)),
    ("~Content-Length: -3\r\n\r\nabc", Refused(400)),
    ("~Content-Length: 0x3\r\n\r\nabc", Refused(400)),
    ("~Content-Length: 3 0\r\n\r\nabc", Refused(400)),
    ("~Content-Length: 3.0\r\n\r\nabc", Refused(400)),
    ("~Content-Length:\r\n\r\nabc", Refused(400)),
    ("~Content-Length: 18446744073709551619\r\n\r\nabc", Refused(400)),
    ("~Content-Length : 3\r\n\r\nabc", Refused(400)),
    ("~Content-Length: 003\r\n\r\nabc", Both("abc")),
    ("~Content_Length: 3\r\nContent-Length: 3\r\n\r\nabc", Both("abc")),
    // Transfer codings.
    ("~Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (
        "~Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc",
        Refused(400),
    ),
    (
        "~Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "~Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        Refused(501),
    ),
    ("~Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Refused(501)),
    (
        "~Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "~Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "~Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    ("~Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ("~Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (
        "~ Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
        Refused(400),
    ),
    ("~Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n", Both("")),
    ("~Transfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ("~Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", Refused(400)),
    ("~Transfer-Encoding:\r\n\r\n0\r\n\r\n", Refused(400)),
    (
        "~Transfer_Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
        Both("abc"),
    ),
    ("~X: a\r\n\tTransfer-Encoding: chunked\r\n\r\n", Refused(400)),
    (
        "POST {P} HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "POST {P} HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    // Line endings and field lines.
    ("~X: a\r\n folded\r\n\r\n", Refused(400)),
    ("~X: a\r\n\tContent-Length: 3\r\n\r\nabc", Refused(400)),
    (
        "POST {P} HTTP/1.1\nHost: a\nContent-Length: 3\n\nabc",
        Refused(400),
    ),
    ("~X: a\nContent-Length: 3\r\n\r\nabc", Refused(400)),
    ("\n~\r\n", Refused(400)),
    ("~X: a\rContent-Length: 3\r\n\r\nabc", Refused(400)),
    ("~X: a\0b\r\n\r\n", Refused(400)),
    ("~X\0: a\r\n\r\n", Refused(400)),
    ("~: a\r\n\r\n", Refused(400)),
    ("~X\r\n\r\n", Refused(400)),
    ("~X Y: a\r\n\r\n", Refused(400)),
    ("\r\n~\r\n", Both("")),
    // Chunk syntax.
    (
        "~Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
        Broken,
    ),
    (
        "~Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
        Broken,
    ),
    (
        "~Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
        Broken,
    ),
    (
        "~Transfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n",
        Broken,
    ),
    (
        "~Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n",
        Legal("abc"),
    ),
    ("~Transfer-Encoding: chunked\r\n\r\n3;a\nabc\r\n0\r\n\r\n", Broken),
    (
        "~Transfer-Encoding: chunked\r\n\r\n3;\nxx\r\nabc\r\n0\r\n\r\n",
        Broken,
    ),
    ("~Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", Broken),
    ("~Transfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n", Broken),
    (
        "~Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n",
        Broken,
    ),
    (
        "~Transfer-Encoding: chunked\r\n\r\n 3\r\nabc\r\n0\r\n\r\n",
        Broken,
    ),
    (
        "~Transfer-Encoding: chunked\r\n\r\n3;\r\nabc\r\n0\r\n\r\n",
        Broken,
    ),
    (
        "~Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0;\r\n\r\n",
        Broken,
    ),
    (
        "~Transfer-Encoding: chunked\r\n\r\n3 ; a = \"\\\"x\"\r\nabc\r\n0\r\n\r\n",
        Legal("abc"),
    ),
    (
        "~Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        Broken,
    ),
    (
        "~Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n",
        Legal("abc"),
    ),
    ("~Transfer-Encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n", Broken),
    // Target and Host.
    ("POST http://a{P} HTTP/1.1\r\nHost: a\r\n\r\n", Both("")),
    ("POST http://b{P} HTTP/1.1\r\nHost: a\r\n\r\n", Legal("")),
    ("POST http://a{P} HTTP/1.1\r\n\r\n", Refused(400)),
    ("POST {P} HTTP/1.1\r\nHost:\r\n\r\n", Refused(400)),
    ("POST {P} HTTP/1.1\r\nHost: a:80x\r\n\r\n", Refused(400)),
    ("POST {P}#x HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("~Host: a\r\n\r\n", Refused(400)),
    ("~Host: b\r\n\r\n", Refused(400)),
    ("POST {P} HTTP/1.1\r\n\r\n", Refused(400)),
    ("POST {P} HTTP/1.1\r\nHost: a@b\r\n\r\n", Refused(400)),
    (
        "~Connection: content-length, close\r\nContent-Length: 3\r\n\r\nabc",
        Once("abc"),
    ),
    // The request line.
    ("POST  {P} HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("POST {P} HTTP/1.1 x\r\nHost: a\r\n\r\n", Refused(400)),
    ("POST {P} HTTP/1.2\r\nHost: a\r\n\r\n", Refused(505)),
    ("POST {P}\r\nHost: a\r\n\r\n", Refused(400)),
    ("POST {P} x HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    // A request in a body.
    ("~Content-Length: {L}\r\n\r\n{H}", Both("{H}")),
    (
        "GET {P} HTTP/1.1\r\nHost: a\r\nContent-Length: {L}\r\n\r\n{H}",
        Both("{H}"),
    ),
];

/// Short timeouts, since some cases wait for bytes that never come.
const QUICK: &str = "[server]\nheader_timeout = \"1s\"\nbody_timeout = \"1s\"\nidle_timeout = \"1s\"\n";

/// Sends bytes, and reads the statuses of the answers until the sidecar closes.
async fn statuses(sidecar: &Sidecar, bytes: &str) -> Vec<u16> {
    let mut stream = TcpStream::connect(sidecar.main).await.unwrap();
    // The sidecar may refuse and close before everything is written.
    let _written = stream.write_all(bytes.as_bytes()).await;
    let mut answers = Vec::new();
    let _ended = stream.read_to_end(&mut answers).await;
    let answers = String::from_utf8(answers).unwrap();
    let heads = answers
        .lines()
        .filter_map(|line| line.split_once("HTTP/1.")?.1.split_once(' '));
    heads
        .filter_map(|(_, rest)| rest.get(..3)?.parse().ok())
        .collect()
}

fn filled(case: &str, path: &str, second: &str) -> String {
    let plain = case.replace('~', "POST {P} HTTP/1.1\r\nHost: a\r\n");
    let first = plain
        .replace("{P}", path)
        .replace("{L}", &second.len().to_string())
        .replace("{H}", second);
    format!("{first}{second}")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_case_on_a_path_that_is_proxied() {
    let (backend, seen) = backend().await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!(
        "{QUICK}{}[backend]\nurl = \"http://{backend}\"\n[[merchant]]\nmch_id = \"*\"\nto = \"handler\"\n\
         handler_url = \"http://{backend}\"\n",
        embedded(&dir)
    );
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    let mut expected = Vec::new();
    for (n, (case, outcome)) in CASES.iter().enumerate() {
        let (path, hidden) = (format!("/x{n}"), format!("/second{n}"));
        let second = format!("GET {hidden} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let method = if case.starts_with("GET") { "GET" } else { "POST" };
        let first = |body: &str| format!("{method} {path} [{}]", body.replace("{H}", &second));
        let told = match *outcome {
            Refused(status) => vec![status],
            Broken => vec![400],
            Once(body) => {
                expected.push(first(body));
                vec![200]
            }
            Both(body) | Legal(body) => {
                expected.extend([first(body), format!("GET {hidden} []")]);
                vec![200, 200]
            }
        };
        assert_eq!(
            statuses(&sidecar, &filled(case, &path, &second)).await,
            told,
            "{case:?}"
        );
    }
    let is_broken = |line: &String| {
        let of = |n: usize| matches!(CASES[n].1, Broken) && *line == format!("POST /x{n} broke off");
        (0..CASES.len()).any(of)
    };
    let mut all = seen.lock().unwrap().clone();
    all.retain(|line| !is_broken(line));
    assert_eq!(all, expected);
}

/// The body here is never a payout, so the contract's path answers a served request with its own error. The request
/// that follows is a payout.
#[tokio::test(flavor = "multi_thread")]
async fn each_case_on_the_contracts_path() {
    let upstream = Upstream::start(To::Handler { idempotent: false }).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!("{QUICK}{}{}", embedded(&dir), upstream.configuration());
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    for (n, (case, outcome)) in CASES.iter().enumerate() {
        let order_no = format!("SECOND{n}");
        let body = Payout::new(&order_no).body(Encoding::Json);
        let second = format!(
            "POST /pay/sendApiRedPack HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let first = if case.starts_with("GET") { 405 } else { 200 };
        let (told, paid) = match *outcome {
            Refused(status) => (vec![status], 0),
            Broken | Legal(_) => (vec![400], 0),
            Once(_) => (vec![first], 0),
            Both(_) => (vec![first, 200], 1),
        };
        let answered = statuses(&sidecar, &filled(case, "/pay/sendApiRedPack", &second)).await;
        assert_eq!(answered, told, "{case:?}");
        assert_eq!(upstream.times_sent(&order_no), paid, "{case:?}");
    }
    let both = CASES
        .iter()
        .filter(|(_, outcome)| matches!(outcome, Both(_)))
        .count();
    assert_eq!(
        upstream.fake.books().payments().len(),
        both,
        "nothing else was paid"
    );
}
