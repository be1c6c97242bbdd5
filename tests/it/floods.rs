//! Clients that hold as many resources as they can, against a sidecar with a pod's 64 MiB and 4,096 descriptors: the
//! process survives, pays payouts meanwhile, and frees everything afterwards. Where the test cannot create a cgroup, it
//! checks the resident size instead.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::sidecar::{Confined, Encoding, Payout, Sidecar, To, Upstream, embedded};
use test_support::cgroup::Cgroup;
use test_support::h2::{DATA, END_STREAM, connect, frame, head, preface};
use test_support::http::{exchange, request};
use test_support::until;

const LIMIT_MIB: u64 = 64;

/// A backend for floods: `/big` sends without end, `/poll` never answers, `/up` answers at once and does not read the
/// upload, and an upgrade is accepted. It counts its open connections.
struct Backend {
    address: SocketAddr,
    open: Arc<AtomicUsize>,
}

impl Backend {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let open = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&open);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::Relaxed);
                let counter = Arc::clone(&counter);
                tokio::spawn(async move {
                    let _ended = play(stream).await;
                    counter.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Self { address, open }
    }
}

async fn play(mut stream: TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    if head.starts_with("GET /big") {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            .await?;
        loop {
            stream.write_all(&[b'x'; 65_536]).await?;
        }
    }
    if head.starts_with("POST /up") {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await?;
    }
    if head.contains("upgrade: ") {
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            )
            .await?;
    }
    until_closed(&stream).await
}

/// Starts a sidecar limited to 64 MiB and 4,096 descriptors, with a backend for floods.
async fn confined() -> (Upstream, Backend, Sidecar) {
    let upstream = Upstream::start(To::Redpack).await;
    let backend = Backend::start().await;
    let dir = tempfile::tempdir().unwrap();
    let fake = format!("[backend]\nurl = \"http://{}\"", upstream.fake.addr());
    let configuration = upstream
        .configuration()
        .replace(&fake, &format!("[backend]\nurl = \"http://{}\"", backend.address));
    let configuration = format!("[server]\nhttp2 = true\n{}{configuration}", embedded(&dir));
    let confined = Confined {
        cgroup: Cgroup::of_mib(LIMIT_MIB),
        descriptors: 4096,
    };
    // Without a cgroup, the configuration states the limit.
    let limit = format!("{LIMIT_MIB}MiB");
    let environment = [("PAYOUT_SIDECAR__SERVER__MEMORY_LIMIT", limit.as_str())];
    let environment = if confined.cgroup.is_some() {
        &[]
    } else {
        &environment[..]
    };
    let sidecar = Sidecar::start_confined(dir, &configuration, environment, Some(confined)).await;
    (upstream, backend, sidecar)
}

/// Sends payouts, each on its own connection, during a flood. Prints the time of the slowest and the number of repeats.
async fn payouts_are_answered(upstream: &Upstream, sidecar: &mut Sidecar, flood: &str) {
    let (mut slowest, mut again) = (Duration::ZERO, 0);
    for number in 0..40 {
        let order_no = format!("FLOOD{number}");
        let begun = Instant::now();
        again += paid(upstream, sidecar, &order_no, flood).await;
        slowest = slowest.max(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(sidecar.is_alive(), "{flood}");
    let most = sidecar.memory_kib("VmHWM") / 1024;
    eprintln!(
        "{flood}: the slowest payout took {slowest:?}, {again} were repeated; {most} MiB resident at most, {:?} MiB in the cgroup; {} descriptors",
        sidecar.cgroup().map(Cgroup::peak_mib),
        sidecar.descriptors(),
    );
    assert!(most < LIMIT_MIB, "{flood}: {most} MiB");
    assert_eq!(sidecar.cgroup().map_or(0, Cgroup::killed), 0, "{flood}");
}

/// Ends a flood, and waits until the sidecar has freed its connections, descriptors and memory.
async fn all_is_free_again(
    mut flood: JoinSet<()>,
    backend: &Backend,
    sidecar: &mut Sidecar,
    idle: (u64, usize),
) {
    flood.shutdown().await;
    until("the backend's connections are closed", async || {
        backend.open.load(Ordering::Relaxed) == 0
    })
    .await;
    until("descriptors are free again", async || {
        sidecar.descriptors() <= idle.1 + 16
    })
    .await;
    // The allocator keeps some freed memory, and returns it only after further allocations.
    until("memory is free again", async || {
        let asked = request("GET", "/pay/getApiRedPacketStatus", &[], b"");
        let _answers = futures_util::future::join_all((0..32).map(|_| exchange(sidecar.main, &asked))).await;
        sidecar.memory_kib("RssAnon") <= LIMIT_MIB * 1024 / 2
    })
    .await;
    let after = sidecar.memory_kib("RssAnon");
    eprintln!(
        "afterwards {after} KiB of its own are resident, of {} before",
        idle.0
    );
}

/// Repeats a payout until it is paid, as the platform does, and returns the number of repeats. On an overloaded machine
/// the sidecar may cut off a connection as too slow, or report that the fake cannot be reached.
async fn paid(upstream: &Upstream, sidecar: &Sidecar, order_no: &str, flood: &str) -> u32 {
    let body = Payout::new(order_no).body(Encoding::Json);
    let headers = [("Content-Type", "application/json")];
    let ask = request("POST", "/pay/sendApiRedPack", &headers, body.as_bytes());
    let begun = Instant::now();
    let mut again = 0;
    loop {
        let answer = exchange(sidecar.main, &ask).await;
        if answer.as_ref().is_some_and(|answer| answer.code() == "SUCCESS") {
            assert_eq!(upstream.fake.books().times_paid(order_no), 1);
            return again;
        }
        let told = answer.map(|answer| answer.body).unwrap_or_default();
        let may_be_repeated = told.is_empty() || told.contains("请使用原单号重试: 上游无法连接");
        assert!(may_be_repeated, "{flood}: {told}");
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{flood}: {order_no} is not paid"
        );
        again += 1;
    }
}

/// What the sidecar holds before a flood: anonymous resident KiB and open descriptors.
async fn at_rest(upstream: &Upstream, sidecar: &Sidecar) -> (u64, usize) {
    paid(upstream, sidecar, "REST", "at rest").await;
    (sidecar.memory_kib("RssAnon"), sidecar.descriptors())
}

/// Runs `count` clients. Each reconnects 500 ms after its connection ends.
fn clients<F>(count: usize, client: impl Fn(usize) -> F + Clone + Send + 'static) -> JoinSet<()>
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let mut all = JoinSet::new();
    for number in 0..count {
        let client = client.clone();
        all.spawn(async move {
            loop {
                let _ended = client(number).await;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
    }
    all
}

/// Waits until the other side closes, without reading anything it sent.
async fn until_closed(stream: &TcpStream) -> std::io::Result<()> {
    loop {
        if stream.ready(Interest::READABLE).await?.is_read_closed() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Opens HTTP/2 connections with `streams` requests each, and never reads the large responses.
fn unread_streams(address: SocketAddr, connections: usize, streams: u32, path: &'static str) -> JoinSet<()> {
    clients(connections, move |_| async move {
        let heads: Vec<u8> = (0..streams)
            .flat_map(|n| head(2 * n + 1, "GET", path, END_STREAM))
            .collect();
        let stream = connect(address, &[preface(1_000_000), heads].concat()).await?;
        until_closed(&stream).await
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_streams_of_two_http2_connections() {
    let (upstream, backend, mut sidecar) = confined().await;
    let idle = at_rest(&upstream, &sidecar).await;
    let flood = unread_streams(sidecar.main, 2, 100, "/big");
    until("the flood is there", async || {
        backend.open.load(Ordering::Relaxed) >= 8
    })
    .await;
    payouts_are_answered(&upstream, &mut sidecar, "2 connections, 100 unread streams each").await;
    all_is_free_again(flood, &backend, &mut sidecar, idle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_streams_of_many_http2_connections() {
    let (upstream, backend, mut sidecar) = confined().await;
    let idle = at_rest(&upstream, &sidecar).await;
    let flood = unread_streams(sidecar.main, 100, 100, "/big");
    until("the flood is there", async || {
        backend.open.load(Ordering::Relaxed) >= 30
    })
    .await;
    payouts_are_answered(
        &upstream,
        &mut sidecar,
        "100 connections, 100 unread streams each",
    )
    .await;
    all_is_free_again(flood, &backend, &mut sidecar, idle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_http1_clients() {
    let (upstream, backend, mut sidecar) = confined().await;
    let idle = at_rest(&upstream, &sidecar).await;
    let address = sidecar.main;
    let flood = clients(1000, move |number| async move {
        let long = "x".repeat(12_000);
        let bytes = if number % 2 == 0 {
            "GET /big HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()
        } else {
            format!("GET /big HTTP/1.1\r\nHost: a\r\nX: {long}")
        };
        let stream = connect(address, bytes.as_bytes()).await?;
        until_closed(&stream).await
    });
    until("the flood is there", async || {
        backend.open.load(Ordering::Relaxed) >= 20
    })
    .await;
    payouts_are_answered(&upstream, &mut sidecar, "1000 slow HTTP/1 clients").await;
    all_is_free_again(flood, &backend, &mut sidecar, idle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_never_end() {
    let (upstream, backend, mut sidecar) = confined().await;
    let idle = at_rest(&upstream, &sidecar).await;
    let address = sidecar.main;
    let flood = clients(60, move |_| async move {
        let mut stream = connect(address, &preface(1_000_000)).await?;
        let mut next = 1;
        // The client opens new streams all the time; the backend answers each at once.
        loop {
            stream.write_all(&head(next, "POST", "/up", 0)).await?;
            for number in (0..8).filter_map(|back| u32::checked_sub(next, 2 * back)) {
                stream.write_all(&frame(DATA, 0, number, &[b'x'; 100])).await?;
            }
            next += 2;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    until("the flood is there", async || {
        backend.open.load(Ordering::Relaxed) >= 20
    })
    .await;
    payouts_are_answered(&upstream, &mut sidecar, "uploads that never end").await;
    let open = backend.open.load(Ordering::Relaxed);
    assert!(open <= 300, "{open} connections to the backend");
    all_is_free_again(flood, &backend, &mut sidecar, idle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_polls_over_http2() {
    let (upstream, backend, mut sidecar) = confined().await;
    let idle = at_rest(&upstream, &sidecar).await;
    let flood = unread_streams(sidecar.main, 40, 100, "/poll");
    until("the flood is there", async || {
        backend.open.load(Ordering::Relaxed) >= 30
    })
    .await;
    payouts_are_answered(&upstream, &mut sidecar, "40 connections, 100 long polls each").await;
    all_is_free_again(flood, &backend, &mut sidecar, idle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_websockets() {
    let (upstream, backend, mut sidecar) = confined().await;
    let idle = at_rest(&upstream, &sidecar).await;
    let address = sidecar.main;
    let refused = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&refused);
    let flood = clients(600, move |_| {
        let counter = Arc::clone(&counter);
        async move {
            let ask = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            let mut stream = connect(address, ask.as_bytes()).await?;
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await?;
            if answer.ends_with(b"503") {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            until_closed(&stream).await
        }
    });
    until("the flood is there", async || {
        backend.open.load(Ordering::Relaxed) >= 60
    })
    .await;
    until("some are refused", async || refused.load(Ordering::Relaxed) > 0).await;
    payouts_are_answered(&upstream, &mut sidecar, "600 WebSockets").await;
    let open = backend.open.load(Ordering::Relaxed);
    assert!(open < 200, "{open} upgraded connections");
    all_is_free_again(flood, &backend, &mut sidecar, idle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payouts_whose_bodies_do_not_come() {
    let (upstream, backend, mut sidecar) = confined().await;
    let idle = at_rest(&upstream, &sidecar).await;
    let address = sidecar.main;
    let flood = clients(400, move |_| async move {
        let ask = "POST /pay/sendApiRedPack HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n{";
        let stream = connect(address, ask.as_bytes()).await?;
        until_closed(&stream).await
    });
    until("the flood is there", async || {
        sidecar.descriptors() >= idle.1 + 120
    })
    .await;
    payouts_are_answered(&upstream, &mut sidecar, "400 payouts whose bodies do not come").await;
    all_is_free_again(flood, &backend, &mut sidecar, idle).await;
}
