//! Connections to the main port: TLS, client certificates, HTTP/2, and the timeouts that cut off slow clients.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::Full;
use rcgen::ExtendedKeyUsagePurpose;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::sidecar::{Encoding, Payout, Sidecar, To, Upstream, embedded};
use test_support::http::{exchange, request};
use test_support::tls::{Authority, Pair, ask_http1, ask_http2, greet};

/// Starts a sidecar with these settings in `[server]`.
async fn with_server(dir: TempDir, server: &str) -> (Upstream, Sidecar) {
    let upstream = Upstream::start(To::Redpack).await;
    let configuration = format!(
        "[server]\n{server}\n{}{}",
        embedded(&dir),
        upstream.configuration()
    );
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    (upstream, sidecar)
}

fn with_certificate(authority: &Authority) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let pair = authority.issue("sidecar");
    std::fs::write(dir.path().join("tls.crt"), pair.cert).unwrap();
    std::fs::write(dir.path().join("tls.key"), pair.key).unwrap();
    dir
}

fn pay(version: Version, order_no: &str) -> Request<Full<Bytes>> {
    let body = Payout::new(order_no).body(Encoding::Json);
    to(version, "POST", "/pay/sendApiRedPack", body)
}

fn to(version: Version, method: &str, path: &str, body: String) -> Request<Full<Bytes>> {
    let request = Request::builder()
        .method(method)
        .version(version)
        .header("content-type", "application/json");
    let request = if version == Version::HTTP_2 {
        request.uri(format!("https://localhost{path}"))
    } else {
        request.uri(path).header("host", "localhost")
    };
    request.body(Full::from(body)).unwrap()
}

fn result(answer: &Bytes) -> String {
    let answer: serde_json::Value = serde_json::from_slice(answer).unwrap();
    let code = answer.get("errCode").or_else(|| answer.get("resultCode"));
    code.unwrap().as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_carries_both_versions_of_http() {
    let authority = Authority::new();
    let dir = with_certificate(&authority);
    let (upstream, sidecar) = with_server(dir, "tls = { cert = \"tls.crt\", key = \"tls.key\" }").await;

    let stream = greet(sidecar.main, &authority, None, &["http/1.1"])
        .await
        .unwrap();
    let answer = ask_http1(stream, pay(Version::HTTP_11, "H1")).await.unwrap();
    assert_eq!(result(answer.body()), "SUCCESS");

    let stream = greet(sidecar.main, &authority, None, &["h2", "http/1.1"])
        .await
        .unwrap();
    assert_eq!(
        stream.get_ref().1.alpn_protocol(),
        Some(&b"h2"[..]),
        "HTTP/2 is preferred"
    );
    let orders: Vec<_> = (0..20).map(|n| format!("H2n{n}")).collect();
    let mut requests: Vec<_> = orders.iter().map(|no| pay(Version::HTTP_2, no)).collect();
    requests.push(to(Version::HTTP_2, "PUT", "/shop/a?b=c", "12345".into()));
    let mut answers = ask_http2(stream, requests).await.unwrap();
    let proxied = answers.pop().unwrap();
    assert!(answers.iter().all(|answer| result(answer.body()) == "SUCCESS"));
    for order_no in &orders {
        assert_eq!(upstream.fake.books().times_paid(order_no), 1);
    }
    // The sidecar speaks HTTP/1.1 to the backend, and tells it where the request came from.
    let seen: serde_json::Value = serde_json::from_slice(proxied.body()).unwrap();
    assert_eq!(
        (
            seen["method"].as_str(),
            seen["path"].as_str(),
            seen["bodyBytes"].as_i64()
        ),
        (Some("PUT"), Some("/shop/a?b=c"), Some(5))
    );
    let headers = seen["headers"].as_array().unwrap();
    for (name, value) in [("x-forwarded-proto", "https"), ("host", "localhost")] {
        let found = headers
            .iter()
            .any(|header| header[0] == name && header[1] == value);
        assert!(found, "{name}: {value} is not in {headers:?}");
    }

    let plain = request("GET", "/", &[], b"");
    let answer = exchange(sidecar.main, &plain).await;
    assert!(answer.is_none_or(|answer| answer.status != 200), "without TLS");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_callers_with_a_certificate_of_the_client_ca_get_in() {
    let (authority, callers, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let dir = with_certificate(&authority);
    std::fs::write(dir.path().join("ca.crt"), &callers.pem).unwrap();
    let (upstream, sidecar) = with_server(
        dir,
        "tls = { cert = \"tls.crt\", key = \"tls.key\", client_ca = \"ca.crt\" }",
    )
    .await;
    let (caller, stranger) = (callers.issue("platform"), strangers.issue("platform"));
    for (own, is_served) in [(None, false), (Some(&stranger), false), (Some(&caller), true)] {
        // In TLS 1.3 the client learns of the refusal only when it reads.
        let answered = match greet(sidecar.main, &authority, own, &["http/1.1"]).await {
            Ok(stream) => ask_http1(stream, pay(Version::HTTP_11, "C1")).await.ok(),
            Err(_) => None,
        };
        assert_eq!(
            answered.is_some_and(|answer| result(answer.body()) == "SUCCESS"),
            is_served
        );
        assert_eq!(
            upstream.fake.books().times_asked("sendredpack", "C1"),
            usize::from(is_served)
        );
    }
}

const CLIENT: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ClientAuth;
const SERVER: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ServerAuth;

/// Whether the sidecar pays for a client with this certificate.
async fn is_let_in(sidecar: &Sidecar, authority: &Authority, own: &Pair, order_no: &str) -> bool {
    match greet(sidecar.main, authority, Some(own), &["http/1.1"]).await {
        Ok(stream) => ask_http1(stream, pay(Version::HTTP_11, order_no)).await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_client_ca_only_client_names_get_in_and_only_with_certificates_for_clients() {
    const SPIFFE: &str = "spiffe://cluster.local/ns/pay/sa/tuzhan";
    let (authority, callers) = (Authority::new(), Authority::new());
    let dir = with_certificate(&authority);
    std::fs::write(dir.path().join("ca.crt"), &callers.pem).unwrap();
    let tls = |names: &str| {
        format!(
            "[server.tls]\ncert = \"tls.crt\"\nkey = \"tls.key\"\nclient_ca = \"ca.crt\"\nclient_names = [{names}]"
        )
    };
    let (upstream, sidecar) = with_server(dir, &tls(&format!("\"Tuzhan.example\", \"{SPIFFE}\""))).await;
    let both = &[CLIENT, SERVER][..];
    let mut paid = 0;
    for (n, (common, dns, uris, usages, expected)) in [
        ("", &["tuzhan.example"][..], &[][..], &[CLIENT][..], true),
        ("", &["other.example", "TUZHAN.example"], &[], both, true),
        ("", &[], &[SPIFFE], both, true),
        // Issued by the CA to another client.
        ("", &["other.example"], &[], both, false),
        (
            "",
            &["tuzhan.example.other.example", "x.tuzhan.example"],
            &[],
            both,
            false,
        ),
        ("", &["*.example", "*"], &[], both, false),
        (
            "",
            &[],
            &[
                "spiffe://cluster.local/ns/pay/sa/tuzhan2",
                "https://tuzhan.example",
            ],
            both,
            false,
        ),
        ("", &[SPIFFE], &["tuzhan.example"], both, false),
        // The sidecar does not match the common name.
        ("tuzhan.example", &[], &[], both, false),
        ("tuzhan.example", &["other.example"], &[], both, false),
        // Certificates that are not for client authentication.
        ("", &["tuzhan.example"], &[], &[SERVER], false),
        ("", &["tuzhan.example"], &[], &[], false),
    ]
    .into_iter()
    .enumerate()
    {
        let own = callers.issue_for(common, dns, uris, usages);
        let is_in = is_let_in(&sidecar, &authority, &own, &format!("N{n}")).await;
        assert_eq!(is_in, expected, "{common:?} {dns:?} {uris:?} {usages:?}");
        paid += usize::from(expected);
        assert_eq!(upstream.fake.books().payments().len(), paid);
    }

    // A reload changes the accepted names.
    let other = callers.issue_for("", &["other.example"], &[], both);
    let text = std::fs::read_to_string(sidecar.dir.path().join("config.toml")).unwrap();
    std::fs::write(
        sidecar.dir.path().join("config.toml"),
        text.replace("Tuzhan.example", "other.example"),
    )
    .unwrap();
    sidecar.logged("the new configuration is in force").await;
    assert!(is_let_in(&sidecar, &authority, &other, "R1").await);
    let first = callers.issue_for("", &["tuzhan.example"], &[], both);
    assert!(!is_let_in(&sidecar, &authority, &first, "R2").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_client_names_every_client_of_the_ca_gets_in_and_that_is_said() {
    let (authority, callers) = (Authority::new(), Authority::new());
    let dir = with_certificate(&authority);
    std::fs::write(dir.path().join("ca.crt"), &callers.pem).unwrap();
    let (_upstream, sidecar) = with_server(
        dir,
        "tls = { cert = \"tls.crt\", key = \"tls.key\", client_ca = \"ca.crt\" }",
    )
    .await;
    for (n, (usages, expected)) in [(&[CLIENT][..], true), (&[SERVER], false), (&[], false)]
        .into_iter()
        .enumerate()
    {
        let own = callers.issue_for("anybody", &[], &[], usages);
        assert_eq!(
            is_let_in(&sidecar, &authority, &own, &format!("W{n}")).await,
            expected,
            "{usages:?}"
        );
    }
    sidecar.logged("server.tls.client_names").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_without_tls_is_for_those_who_ask_for_it() {
    let (_upstream, without) = with_server(tempfile::tempdir().unwrap(), "").await;
    let stream = TcpStream::connect(without.main).await.unwrap();
    assert!(ask_http2(stream, vec![pay(Version::HTTP_2, "K0")]).await.is_err());

    let (upstream, with) = with_server(tempfile::tempdir().unwrap(), "http2 = true").await;
    let stream = TcpStream::connect(with.main).await.unwrap();
    let answers = ask_http2(
        stream,
        vec![pay(Version::HTTP_2, "K1"), pay(Version::HTTP_2, "K2")],
    )
    .await
    .unwrap();
    assert!(answers.iter().all(|answer| result(answer.body()) == "SUCCESS"));
    let answer = with.pay(Encoding::Xml, &Payout::new("K3")).await;
    assert_eq!(answer.code(), "SUCCESS", "HTTP/1.1 on the same port");
    assert_eq!(upstream.fake.books().payments().len(), 3);
}

/// Whether the other side closes the connection within 60 s.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut rest)).await;
    read.is_ok()
}

async fn open(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_are_cut_off_early_and_idle_connections_late() {
    let (_upstream, sidecar) = with_server(
        tempfile::tempdir().unwrap(),
        "header_timeout = \"300ms\"\nidle_timeout = \"1h\"",
    )
    .await;
    for begun in [
        &b""[..],
        b"POST /pay/sendApiRedPack HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: ",
    ] {
        assert!(is_closed(&mut open(sidecar.main, begun).await).await, "{begun:?}");
    }
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut kept = open(sidecar.main, get).await;
    for _ in 0..2 {
        let mut answer = [0; 4096];
        assert!(kept.read(&mut answer).await.unwrap() > 0);
        // Three times the limit for a request's head.
        tokio::time::sleep(Duration::from_millis(900)).await;
        kept.write_all(get).await.unwrap();
    }
    // The timeout also applies to a request that begins on an idle keep-alive connection.
    let mut answer = [0; 4096];
    assert!(kept.read(&mut answer).await.unwrap() > 0);
    kept.write_all(b"GET / HT").await.unwrap();
    assert!(is_closed(&mut kept).await);

    let (_upstream, sidecar) = with_server(
        tempfile::tempdir().unwrap(),
        "header_timeout = \"1h\"\nidle_timeout = \"300ms\"",
    )
    .await;
    assert!(is_closed(&mut open(sidecar.main, get).await).await, "idle");
}

/// A backend that answers every request with more than all buffers hold.
async fn endless_backend() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let _read = stream.read(&mut head).await;
                let _head = stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
                    .await;
                while stream.write_all(&[b'x'; 65_536]).await.is_ok() {}
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_takes_nothing_of_its_answer_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let backend = endless_backend().await;
    let configuration = format!(
        "[server]\nidle_timeout = \"500ms\"\nmax_in_flight = 1\n{}[backend]\nurl = \"http://{backend}\"\n\
         [[merchant]]\nto = \"handler\"\nhandler_url = \"http://{backend}\"\n",
        embedded(&dir)
    );
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    let get = b"GET /film HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut first = open(sidecar.main, get).await;
    let mut answer = [0; 1024];
    assert!(first.read(&mut answer).await.unwrap() > 0);
    // The request holds the only permit until the sidecar cuts it off.
    test_support::until("the place is free again", async || {
        let mut other = open(sidecar.main, get).await;
        let mut answer = [0; 12];
        other.read_exact(&mut answer).await.is_ok() && answer.ends_with(b"200")
    })
    .await;
    drop(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_takes_the_place_of_the_idlest() {
    let (_upstream, sidecar) = with_server(tempfile::tempdir().unwrap(), "max_connections = 2").await;
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut stream = open(sidecar.main, get).await;
        let mut answer = [0; 4096];
        assert!(stream.read(&mut answer).await.unwrap() > 0);
        kept.push(stream);
    }
    let mut third = open(sidecar.main, get).await;
    let mut answer = [0; 4096];
    assert!(third.read(&mut answer).await.unwrap() > 0, "the newest is served");
    let (second, mut first) = (kept.pop().unwrap(), kept.pop().unwrap());
    assert!(is_closed(&mut first).await);
    for mut stays in [second, third] {
        stays.write_all(get).await.unwrap();
        assert!(stays.read(&mut answer).await.unwrap() > 0);
    }
}
