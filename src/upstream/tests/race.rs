//! Thousands of requests in a race with an upstream that cuts connections at random moments. The upstream sees no
//! request twice, and the client calls no request unsent of which the upstream saw a byte.
//!
//! A failing run prints its seed; `PAYOUT_RACE_SEED=<n>` makes the same choices again, the machine's timing aside.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use http::HeaderMap;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use test_support::rng::Rng;

use crate::http::base_url::BaseUrl;
use crate::http::client_tls::{ClientCertificate, tls_config};
use crate::upstream::dial::Connector;
use crate::upstream::http_client::{Client, Failure};

/// How many requests are under way at once.
const AT_ONCE: usize = 24;
/// How long the client waits for an answer. Short, since the upstream leaves one request in fifty unanswered.
const TIMEOUT: Duration = Duration::from_millis(150);

/// What the upstream does to a connection, or at the next request on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cut {
    Accepted,
    InTheHandshake,
    InTheHead,
    InTheBody,
    BeforeTheAnswer,
    InTheAnswer,
    BehindTheAnswer,
    /// It reads, and never answers.
    NotAtAll,
    /// By the proxy.
    Tunnel,
    InTheTunnel,
}

/// What became of a request, according to its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Answered,
    /// The lease was over when the client checked it.
    HeldUp,
    NeverSent,
    MaybeSent,
}

/// What the upstream saw of the requests, each under its number.
struct Books {
    /// On how many connections it saw any byte of the request, and on how many all of them.
    seen: Vec<(AtomicUsize, AtomicUsize)>,
    on_fresh: AtomicUsize,
    on_reused: AtomicUsize,
    cuts: Mutex<BTreeMap<Cut, usize>>,
    /// How often it saw something with no valid number.
    strange: AtomicUsize,
}

impl Books {
    fn note(&self, cut: Cut) {
        *self.cuts.lock().unwrap().entry(cut).or_default() += 1;
    }
}

fn increment(count: &AtomicUsize) {
    count.fetch_add(1, Ordering::Relaxed);
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The bytes of one request that have come.
struct Part(Vec<u8>);

impl Part {
    /// Its path is its number.
    fn number(&self) -> Option<usize> {
        let text = String::from_utf8_lossy(&self.0);
        let (number, _) = text.strip_prefix("POST /")?.split_once(' ')?;
        number.parse().ok()
    }

    /// Where its body begins, and where it ends.
    fn body(&self) -> Option<(usize, usize)> {
        let end = self.0.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&self.0[..end]).to_lowercase();
        let (_, length) = head.split_once("content-length: ")?;
        let length: usize = length.split("\r\n").next()?.parse().ok()?;
        Some((end, end + length))
    }

    fn is_whole(&self) -> bool {
        self.body().is_some_and(|(_, end)| self.0.len() >= end)
    }

    /// Whether more came.
    async fn grow(&mut self, stream: &mut dyn Stream, most: usize) -> bool {
        let mut some = vec![0; most];
        match stream.read(&mut some).await {
            Ok(0) | Err(_) => false,
            Ok(n) => {
                self.0.extend_from_slice(&some[..n]);
                true
            }
        }
    }
}

/// One connection of the upstream, until it is cut.
async fn serve(mut stream: Box<dyn Stream>, mut rng: Rng, books: Arc<Books>) {
    for nth in 0.. {
        let cut = match rng.below(100) {
            0..4 => Some(Cut::InTheHead),
            4..8 => Some(Cut::InTheBody),
            8..12 => Some(Cut::BeforeTheAnswer),
            12..16 => Some(Cut::InTheAnswer),
            16..26 => Some(Cut::BehindTheAnswer),
            26..28 => Some(Cut::NotAtAll),
            _ => None,
        };
        let mut part = Part(Vec::new());
        let mut is_open = true;
        while is_open && !part.is_whole() {
            let most = match (cut, part.body()) {
                (Some(Cut::InTheHead), _) if !part.0.is_empty() => break,
                (Some(Cut::InTheHead), _) => 1 + rng.index(40),
                (Some(Cut::InTheBody), Some((begin, _))) if part.0.len() > begin => break,
                (Some(Cut::InTheBody), _) => 1 + rng.index(200),
                (_, _) => 64 * 1024,
            };
            is_open = part.grow(&mut *stream, most).await;
        }
        let is_cut = matches!(cut, Some(Cut::InTheHead | Cut::InTheBody | Cut::BeforeTheAnswer));
        if is_cut {
            // What has come counts, also if the upstream cuts the connection before it reads that far.
            while part.grow(&mut *stream, 64 * 1024).now_or_never() == Some(true) {}
        }
        enter(&mut part, &mut *stream, nth, &books).await;
        let Some((begin, end)) = part.body().filter(|(_, end)| part.0.len() >= *end) else {
            if let (Some(cut), true) = (cut, is_open) {
                books.note(cut);
            }
            return;
        };
        if let Some(cut) = cut {
            books.note(cut);
        }
        if is_cut {
            return;
        }
        let number = part.number().unwrap_or_default().to_string();
        if !part.0[begin..end].starts_with(format!("order={number};").as_bytes()) {
            increment(&books.strange);
        }
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{number}",
            number.len()
        );
        match cut {
            Some(Cut::NotAtAll) => {
                while part.grow(&mut *stream, 64 * 1024).await {}
                return;
            }
            Some(Cut::InTheAnswer) => {
                let some = rng.index(answer.len());
                let _cut_anyway = stream.write_all(&answer.as_bytes()[..some]).await;
                return;
            }
            _ => {}
        }
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        if cut == Some(Cut::BehindTheAnswer) {
            tokio::time::sleep(Duration::from_micros(rng.below(3000))).await;
            let mut next = Part(Vec::new());
            while next.grow(&mut *stream, 64 * 1024).now_or_never() == Some(true) {}
            enter(&mut next, &mut *stream, nth + 1, &books).await;
            return;
        }
    }
}

/// Notes what came of the `nth` request on its connection.
async fn enter(part: &mut Part, stream: &mut dyn Stream, nth: usize, books: &Books) {
    if part.0.is_empty() {
        return;
    }
    while part.number().is_none() && part.grow(stream, 1024).await {}
    increment(if nth == 0 {
        &books.on_fresh
    } else {
        &books.on_reused
    });
    match part.number().and_then(|number| books.seen.get(number)) {
        Some((any, whole)) => {
            increment(any);
            if part.is_whole() {
                increment(whole);
            }
        }
        None => increment(&books.strange),
    }
}

/// Accepts connections for ever.
async fn listen_for_ever(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    seed: u64,
    books: Arc<Books>,
    tasks: TaskTracker,
) {
    for nth in 0.. {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut rng = Rng::new(seed ^ (nth << 32));
        let (tls, books) = (tls.clone(), Arc::clone(&books));
        tasks.spawn(async move {
            if rng.happens(50) {
                // A cut then resets this connection instead of closing it.
                stream.set_zero_linger().unwrap();
            }
            if rng.happens(20) {
                books.note(Cut::Accepted);
                let mut part = Part(Vec::new());
                if tls.is_none() {
                    while part.grow(&mut stream, 64 * 1024).now_or_never() == Some(true) {}
                    enter(&mut part, &mut stream, 0, &books).await;
                }
                return;
            }
            let Some(tls) = tls else {
                return serve(Box::new(stream), rng, books).await;
            };
            if rng.happens(5) {
                books.note(Cut::InTheHandshake);
                let some = 1 + rng.index(200);
                let _cut_anyway = stream.read(&mut vec![0; some]).await;
                return;
            }
            if let Ok(stream) = tls.accept(stream).await {
                serve(Box::new(stream), rng, books).await;
            }
        });
    }
}

/// A proxy that makes tunnels, but not always.
async fn tunnel_for_ever(listener: TcpListener, seed: u64, books: Arc<Books>, tasks: TaskTracker) {
    for nth in 0.. {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut rng = Rng::new(seed ^ (nth << 32));
        let books = Arc::clone(&books);
        tasks.spawn(async move {
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut asked).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let asked = String::from_utf8(asked).unwrap();
            let upstream = asked.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap();
            let answer: &[u8] = match rng.below(100) {
                0..4 => b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
                4..8 => b"",
                _ => b"HTTP/1.1 200 Connection established\r\n\r\n",
            };
            let written = stream.write_all(answer).await;
            if !answer.starts_with(b"HTTP/1.1 200") {
                books.note(Cut::Tunnel);
                return;
            }
            let Ok(mut far) = TcpStream::connect(upstream).await else {
                return;
            };
            let passing_on = tokio::io::copy_bidirectional(&mut stream, &mut far);
            if written.is_ok() && rng.happens(10) {
                books.note(Cut::InTheTunnel);
                let some = Duration::from_micros(rng.below(20_000));
                let _cut_anyway = tokio::time::timeout(some, passing_on).await;
            } else {
                let _ended = passing_on.await;
            }
        });
    }
}

/// A CA, and what it certifies: the upstream and its client.
fn certified() -> (String, TlsAcceptor, ClientCertificate) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let leaf = |usage| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let cert = params.signed_by(&key, &issuer).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        (vec![cert.der().clone()], key)
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca_cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let (chain, key) = leaf(ExtendedKeyUsagePurpose::ServerAuth);
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    let (chain, key) = leaf(ExtendedKeyUsagePurpose::ClientAuth);
    (
        ca_cert.pem(),
        TlsAcceptor::from(Arc::new(server)),
        ClientCertificate { chain, key },
    )
}

/// Sends requests until all numbers are used, a few of them to a port without a listener. Says what became of each.
async fn send(
    [client, dead]: [Arc<Client>; 2],
    next: Arc<AtomicUsize>,
    number_of_requests: usize,
    mut rng: Rng,
) -> Vec<(usize, Verdict)> {
    let mut verdicts = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= number_of_requests {
            return verdicts;
        }
        let size = match rng.below(100) {
            // More than the kernel takes at once.
            0 => 4_000_000,
            _ => rng.index(3000),
        };
        let body = format!("order={number};{}", "x".repeat(size));
        let is_good = !rng.happens(4);
        let client = if rng.happens(1) { &dead } else { &client };
        let sent = client
            .post(&format!("/{number}"), &HeaderMap::new(), body.into(), move || {
                is_good
            })
            .await;
        let verdict = match sent {
            Ok(answer) => {
                assert_eq!(answer.body, number.to_string(), "it is another one's answer");
                assert!(is_good, "{number} was sent with its lease over");
                Verdict::Answered
            }
            Err(Failure::HeldUp) => Verdict::HeldUp,
            Err(failure) if failure.is_unsent() => Verdict::NeverSent,
            Err(failure) => {
                assert!(is_good, "{number}: {failure:?}");
                Verdict::MaybeSent
            }
        };
        verdicts.push((number, verdict));
        if rng.happens(40) {
            tokio::time::sleep(Duration::from_micros(rng.below(3000))).await;
        }
    }
}

/// One race, over TLS with client certificates or not, through a proxy or not.
async fn race(number_of_requests: usize, over_tls: bool, by_proxy: bool) {
    let seed = std::env::var("PAYOUT_RACE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    eprintln!("PAYOUT_RACE_SEED={seed}");
    let books = Arc::new(Books {
        seen: (0..number_of_requests).map(|_| Default::default()).collect(),
        on_fresh: AtomicUsize::new(0),
        on_reused: AtomicUsize::new(0),
        cuts: Mutex::default(),
        strange: AtomicUsize::new(0),
    });
    let (ca_pem, acceptor, certificate) = certified();
    let connections = TaskTracker::new();
    let (listener, address) = super::listen().await;
    let acceptor = over_tls.then_some(acceptor);
    let upstream = listen_for_ever(listener, acceptor, seed, Arc::clone(&books), connections.clone());
    let mut listening = vec![tokio::spawn(upstream)];

    let scheme = if over_tls { "https" } else { "http" };
    let base: BaseUrl = format!("{scheme}://{address}").parse().unwrap();
    let tls = tls_config(Some(&ca_pem), Some(&certificate)).unwrap();
    let mut connector = Connector::new(base, tls, super::LONG, TIMEOUT).unwrap();
    if by_proxy {
        let (listener, address) = super::listen().await;
        connector.proxy = Some(format!("http://{address}").parse().unwrap());
        let proxy = tunnel_for_ever(listener, seed ^ 1, Arc::clone(&books), connections.clone());
        listening.push(tokio::spawn(proxy));
    }
    let nowhere = TcpSocket::new_v4().unwrap();
    nowhere.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let dead = super::client_of(nowhere.local_addr().unwrap(), TIMEOUT);
    let clients = [Client::over(connector, TIMEOUT), dead].map(Arc::new);
    let next = Arc::new(AtomicUsize::new(0));
    let senders: Vec<_> = (2..)
        .take(AT_ONCE)
        .map(|nth| {
            let rng = Rng::new(seed ^ (nth << 48));
            tokio::spawn(send(clients.clone(), Arc::clone(&next), number_of_requests, rng))
        })
        .collect();
    let mut verdicts = BTreeMap::new();
    for sender in senders {
        verdicts.extend(sender.await.unwrap());
    }
    // Until every connection has ended, so that the books have late bytes, too.
    drop(clients);
    tokio::time::sleep(Duration::from_millis(50)).await;
    listening.iter().for_each(tokio::task::JoinHandle::abort);
    connections.close();
    tokio::time::timeout(super::LONG, connections.wait())
        .await
        .unwrap();

    judge(&books, &verdicts, over_tls, by_proxy);
}

fn judge(books: &Books, verdicts: &BTreeMap<usize, Verdict>, over_tls: bool, by_proxy: bool) {
    let mut came_to = BTreeMap::<Verdict, usize>::new();
    assert_eq!(verdicts.len(), books.seen.len());
    for (number, verdict) in verdicts {
        *came_to.entry(*verdict).or_default() += 1;
        let (any, whole) = &books.seen[*number];
        let (any, whole) = (any.load(Ordering::Relaxed), whole.load(Ordering::Relaxed));
        assert!(any <= 1, "{number} was seen {any} times, and called {verdict:?}");
        match verdict {
            Verdict::Answered => assert_eq!(whole, 1, "{number}"),
            Verdict::HeldUp | Verdict::NeverSent => assert_eq!(any, 0, "{number} was seen: {verdict:?}"),
            Verdict::MaybeSent => {}
        }
    }
    let on = [&books.on_fresh, &books.on_reused].map(|count| count.load(Ordering::Relaxed));
    let cuts = books.cuts.lock().unwrap();
    eprintln!("{came_to:?}, on fresh and reused connections {on:?}, cut {cuts:?}");
    assert_eq!(books.strange.load(Ordering::Relaxed), 0);
    assert!(on[0] > 0 && on[1] > 0, "{on:?}");
    for verdict in [
        Verdict::Answered,
        Verdict::HeldUp,
        Verdict::NeverSent,
        Verdict::MaybeSent,
    ] {
        assert!(
            came_to.contains_key(&verdict),
            "nothing was {verdict:?}: {came_to:?}"
        );
    }
    for (cut, is_tried) in [
        (Cut::Accepted, true),
        (Cut::InTheHandshake, over_tls),
        (Cut::InTheHead, true),
        (Cut::InTheBody, true),
        (Cut::BeforeTheAnswer, true),
        (Cut::InTheAnswer, true),
        (Cut::BehindTheAnswer, true),
        (Cut::NotAtAll, true),
        (Cut::Tunnel, by_proxy),
        (Cut::InTheTunnel, by_proxy),
    ] {
        assert_eq!(cuts.contains_key(&cut), is_tried, "{cut:?}: {cuts:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cut_plain_connections() {
    race(4000, false, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cut_tls_connections_with_client_certificates() {
    race(2000, true, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cut_connections_through_a_proxy() {
    race(2000, true, true).await;
}
