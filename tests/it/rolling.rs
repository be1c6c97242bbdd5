//! Rolling restarts under load: replicas that are replaced one by one, and an application that stops before its
//! sidecar.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::sidecar::{APP, Encoding, OPENID, Payout, Sidecar, To, Upstream, embedded, in_redis};
use test_support::http::{exchange, request};
use test_support::redis::Redis;
use test_support::{free_port, until};

/// The replicas in a Service's endpoints. The test removes a replica a moment after it stops being ready.
#[derive(Default)]
struct Endpoints(Mutex<Vec<SocketAddr>>);

impl Endpoints {
    fn set(&self, all: &[SocketAddr]) {
        *self.0.lock().unwrap() = all.to_vec();
    }

    fn pick(&self, n: usize) -> Option<SocketAddr> {
        let all = self.0.lock().unwrap();
        (!all.is_empty()).then(|| all[n % all.len()])
    }
}

/// The last code that callers received for each order.
type Told = Mutex<BTreeMap<String, String>>;

/// Plays the platform: sends one order after the other and repeats each until it succeeds.
async fn platform(name: usize, endpoints: &Endpoints, is_over: &AtomicBool, told: &Told) {
    let mut n = 0;
    while !is_over.load(Ordering::Relaxed) {
        n += 1;
        let order_no = format!("R{name}n{n}");
        let body = Payout::new(&order_no).body(Encoding::Json);
        let headers = [("Content-Type", "application/json")];
        let bytes = request("POST", "/pay/sendApiRedPack", &headers, body.as_bytes());
        let mut tries = 0;
        loop {
            tries += 1;
            assert!(tries < 600, "{order_no} has no end");
            let answer = match endpoints.pick(name + n + tries) {
                Some(address) => exchange(address, &bytes).await,
                None => None,
            };
            if let Some(answer) = answer {
                let code = answer.code();
                told.lock().unwrap().insert(order_no.clone(), code.clone());
                if code == "SUCCESS" {
                    break;
                }
                assert!(
                    ["SYSTEMERROR", "PROCESSING"].contains(&code.as_str()),
                    "{order_no} was told {code}"
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn judge(upstream: &Upstream, told: &Told) -> usize {
    let told = told.lock().unwrap();
    for (order_no, code) in told.iter() {
        assert_eq!(code, "SUCCESS", "{order_no}");
        assert_eq!(upstream.fake.books().times_paid(order_no), 1, "{order_no}");
    }
    assert_eq!(upstream.fake.books().payments().len(), told.len());
    told.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_loses_refuses_and_doubles_no_payout() {
    let redis = Redis::start();
    let upstream = Upstream::start(To::Redpack).await;
    redis.cli(&["SET", &format!("openid:{APP}:user-1"), OPENID]);
    upstream.fake.set_faults("pay=delay:50ms".parse().unwrap());
    let configuration = format!(
        "[server]\nlame_duck = \"500ms\"\n{}{}",
        in_redis(&redis.url()),
        upstream.configuration()
    );
    let mut replicas = Vec::new();
    for _ in 0..2 {
        replicas.push(Sidecar::start(&configuration).await);
    }
    let endpoints = Endpoints::default();
    let all: Vec<SocketAddr> = replicas.iter().map(|replica| replica.main).collect();
    endpoints.set(&all);
    let (is_over, told) = (AtomicBool::new(false), Told::default());
    let rolling = async {
        for at in [0, 1, 0, 1] {
            let other = all[1 - at];
            replicas[at].signal("TERM");
            until("not ready any more", async || !replicas[at].is_ready().await).await;
            // Endpoints lag behind: requests still arrive for a part of the lame-duck time.
            tokio::time::sleep(Duration::from_millis(200)).await;
            endpoints.set(&[other]);
            assert_eq!(replicas[at].ended().await, Some(0));
            replicas[at].launch(&[]).await;
            until("ready again", async || replicas[at].is_ready().await).await;
            endpoints.set(&all);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let callers = (0..6).map(|name| platform(name, &endpoints, &is_over, &told));
    tokio::join!(rolling, futures_util::future::join_all(callers));
    assert!(judge(&upstream, &told) > 50);
}

/// An application beside the sidecar that can stop and restart. It forwards its connections to the fake.
struct Application {
    port: u16,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl Application {
    async fn start(port: u16, to: SocketAddr) -> Self {
        let mut bound = None;
        until("the application's port is free", async || {
            bound = TcpListener::bind(("127.0.0.1", port)).await.ok();
            bound.is_some()
        })
        .await;
        let listener = bound.unwrap();
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut caller, _) = listener.accept().await.unwrap();
                connections.spawn(async move {
                    let mut behind = TcpStream::connect(to).await.unwrap();
                    let _ended = tokio::io::copy_bidirectional(&mut caller, &mut behind).await;
                });
            }
        });
        Self {
            port,
            serving: Some(serving),
        }
    }

    /// Stops at once and closes every connection.
    async fn stop(&mut self) {
        let serving = self.serving.take().unwrap();
        serving.abort();
        let _aborted = serving.await;
    }
}

/// A native sidecar outlives its application: requests still arrive, and their upstream is gone.
#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_goes_first_loses_and_doubles_no_payout() {
    // The handler pays on each call: only the ledger prevents a second payment.
    let upstream = Upstream::start(To::Handler { idempotent: false }).await;
    upstream.fake.set_faults("pay=delay:30ms".parse().unwrap());
    let port = free_port();
    let application = Arc::new(tokio::sync::Mutex::new(
        Application::start(port, upstream.fake.addr()).await,
    ));
    let dir = tempfile::tempdir().unwrap();
    let own = upstream.fake.addr().to_string();
    let configuration = format!("{}{}", embedded(&dir), upstream.configuration())
        .replace(&own, &format!("127.0.0.1:{port}"))
        .replace("timeout = \"3s\"\n", "timeout = \"1s\"\n");
    let configuration = format!("[server]\nlame_duck = \"500ms\"\n{configuration}");
    let mut sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    let endpoints = Endpoints::default();
    endpoints.set(&[sidecar.main]);
    let (is_over, told) = (AtomicBool::new(false), Told::default());
    let pods = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            application.lock().await.stop().await;
            // Requests still arrive at the sidecar while the application is gone.
            tokio::time::sleep(Duration::from_millis(500)).await;
            sidecar.signal("TERM");
            until("not ready any more", async || !sidecar.is_ready().await).await;
            endpoints.set(&[]);
            assert_eq!(sidecar.ended().await, Some(0));
            let port = application.lock().await.port;
            *application.lock().await = Application::start(port, upstream.fake.addr()).await;
            sidecar.launch(&[]).await;
            until("ready again", async || sidecar.is_ready().await).await;
            endpoints.set(&[sidecar.main]);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        is_over.store(true, Ordering::Relaxed);
    };
    let callers = (0..4).map(|name| platform(name, &endpoints, &is_over, &told));
    tokio::join!(pods, futures_util::future::join_all(callers));
    assert!(judge(&upstream, &told) > 20);
}
