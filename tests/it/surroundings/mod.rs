//! What changes around an order in progress: where its merchant leads, late delivery, status calls during outages,
//! limits, and many orders at once. The tests compare the results with the upstreams' books.

mod by_hand;
mod destinations;
mod fields;
mod late_delivery;
mod limits;
mod network;
mod query_rate;
mod status;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::support::sidecar::{Encoding, MERCHANT, OPERATOR, Payout, Sidecar};
use test_support::http::call;
use test_support::until;

/// Puts another configuration in force, by renaming a finished file as an editor or a ConfigMap does.
async fn reload(sidecar: &Sidecar, configuration: &str) {
    let name = "payout_config_reloads_total{result=\"taken\"}";
    let taken = metric(sidecar, name).await;
    let configuration = configuration.replace("MAIN_PORT", &sidecar.main.port().to_string());
    let beside = sidecar.dir.path().join("config.new");
    std::fs::write(&beside, configuration).unwrap();
    std::fs::rename(beside, sidecar.dir.path().join("config.toml")).unwrap();
    until("the new configuration is taken", async || {
        metric(sidecar, name).await > taken
    })
    .await;
}

/// A metric's value; zero if it is absent.
async fn metric(sidecar: &Sidecar, name: &str) -> u64 {
    let metrics = call(sidecar.admin, "GET", "/metrics", &[], b"").await.body;
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}

/// An order's record, as operators see it.
async fn record(sidecar: &Sidecar, order_no: &str) -> serde_json::Value {
    let path = format!("/api/payouts/{MERCHANT}/{order_no}");
    serde_json::from_str(&call(sidecar.admin, "GET", &path, &OPERATOR, b"").await.body).unwrap()
}

async fn pay(sidecar: &Sidecar, order_no: &str) -> String {
    sidecar.pay(Encoding::Json, &Payout::new(order_no)).await.code()
}

/// What a status call answers: its `status`, or the error code.
async fn stands(sidecar: &Sidecar, order_no: &str) -> String {
    let answer = sidecar.status(Encoding::Json, &Payout::new(order_no)).await;
    let status = answer.field("status");
    if status.is_empty() { answer.code() } else { status }
}

/// A `[[merchant]]` entry of this merchant with a handler.
fn at_handler(mch_id: &str, handler: SocketAddr, more: &str) -> String {
    format!(
        "[[merchant]]\nmch_id = \"{mch_id}\"\nto = \"handler\"\nhandler_url = \"http://{handler}\"\n{more}"
    )
}

/// `[client_ip]`, which every configuration here needs.
const CLIENT_IP: &str = "[client_ip]\nvalue = \"203.0.113.7\"\n";

/// Forwards bytes, so that the same server has another address.
async fn another_address_of(server: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let passing_on = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut caller, _) = listener.accept().await.unwrap();
            connections.spawn(async move {
                let mut behind = TcpStream::connect(server).await.unwrap();
                let _ended = tokio::io::copy_bidirectional(&mut caller, &mut behind).await;
            });
        }
    });
    (address, passing_on)
}

/// How a handler behaves at the moment.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manners {
    /// Pays and answers.
    Prompt,
    /// Accepts requests to pay without processing them, and answers queries by what it has paid.
    Busy,
    /// Accepts everything, and answers nothing.
    Still,
}

/// A handler that pays on each call, and processes what it has accepted late when the test says so.
struct Handler {
    address: SocketAddr,
    manners: watch::Sender<Manners>,
    books: Arc<Mutex<HandlerBooks>>,
    serving: JoinHandle<()>,
}

#[derive(Clone, Debug, Default)]
struct HandlerBooks {
    /// Accepted requests to pay, per order.
    taken: BTreeMap<String, usize>,
    /// Payments, per order.
    paid: BTreeMap<String, usize>,
    /// Answered queries, per order.
    told: BTreeMap<String, usize>,
}

impl Handler {
    async fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (manners, seen) = watch::channel(manners);
        let books = Arc::new(Mutex::new(HandlerBooks::default()));
        let shared = books.clone();
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (books, manners) = (shared.clone(), seen.clone());
                let service = service_fn(move |request| answer(request, books.clone(), manners.clone()));
                connections.spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self {
            address,
            manners,
            books,
            serving,
        }
    }

    fn set(&self, manners: Manners) {
        self.manners.send_replace(manners);
    }

    /// Processes the accepted and not yet processed requests of an order.
    fn does_late(&self, order_no: &str) {
        let mut books = self.books.lock().unwrap();
        let taken = books.taken[order_no];
        books.paid.insert(order_no.to_owned(), taken);
    }

    fn taken(&self, order_no: &str) -> usize {
        self.count(order_no, |books| &books.taken)
    }

    fn paid(&self, order_no: &str) -> usize {
        self.count(order_no, |books| &books.paid)
    }

    fn told(&self, order_no: &str) -> usize {
        self.count(order_no, |books| &books.told)
    }

    fn count(&self, order_no: &str, of: impl Fn(&HandlerBooks) -> &BTreeMap<String, usize>) -> usize {
        of(&self.books.lock().unwrap())
            .get(order_no)
            .copied()
            .unwrap_or_default()
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    books: Arc<Mutex<HandlerBooks>>,
    mut manners: watch::Receiver<Manners>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let pays = request.uri().path() == "/pay/sendApiRedPack";
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let fields: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&body).unwrap();
    let order_no = fields["mchBillno"].as_str().unwrap().to_owned();
    let add = |counts: &mut BTreeMap<String, usize>| *counts.entry(order_no.clone()).or_default() += 1;
    if pays {
        add(&mut books.lock().unwrap().taken);
        if *manners.borrow() != Manners::Prompt {
            return std::future::pending().await;
        }
        add(&mut books.lock().unwrap().paid);
    } else {
        manners.wait_for(|now| *now != Manners::Still).await.unwrap();
        add(&mut books.lock().unwrap().told);
    }
    let is_paid = books.lock().unwrap().paid.contains_key(&order_no);
    let mut said = match (pays, is_paid) {
        (true, _) => serde_json::json!({ "resultCode": "SUCCESS", "sendListid": "1" }),
        (false, true) => serde_json::json!({ "resultCode": "SUCCESS", "status": "SENT" }),
        (false, false) => serde_json::json!({ "resultCode": "FAIL", "errCode": "NOT_FOUND" }),
    };
    said["returnCode"] = "SUCCESS".into();
    said["mchBillno"] = order_no.into();
    let mut response = Response::new(Full::new(Bytes::from(said.to_string())));
    let media = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, media);
    Ok(response)
}

/// A configuration with stores in files in this directory.
fn on_files(dir: &tempfile::TempDir, entries: &str) -> String {
    format!("{}{CLIENT_IP}{entries}", crate::support::sidecar::embedded(dir))
}
