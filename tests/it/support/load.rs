//! Callers under load, and a judge that compares what they were told with the upstream's books and the ledger.
//!
//! The seed determines what callers send, but not which request meets which fault, since the processes are real. So the
//! judge checks only what must hold in every run.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fake_wechat::books::Books;
use tokio::task::JoinHandle;

use super::sidecar::{BOTH, MERCHANT, OPENID, Payout, Upstream};
use test_support::http::{Answer, call, exchange, request};
use test_support::rng::Rng;
use test_support::until;

const CALLERS: u64 = 12;

/// What one call observed.
#[derive(Clone, Debug)]
struct Told {
    /// `SUCCESS` or an error code; `None` if no answer came.
    code: Option<String>,
    /// The answer says that the sidecar sent nothing.
    not_sent: bool,
    /// What the upstream had seen of the order when the call began, and when its answer came.
    before: Seen,
    after: Seen,
    /// No other call for this order overlapped this one.
    alone: bool,
}

/// How often the upstream was asked to pay an order, and how often it paid it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    asked: usize,
    paid: usize,
}

/// The calls for one order: how many have begun, and what each ended call was told.
#[derive(Clone, Default)]
struct Story {
    begun: usize,
    told: Vec<Told>,
}

/// The orders of one test, and what callers were told about each.
pub struct Load {
    tag: &'static str,
    paying_call: &'static str,
    next: AtomicUsize,
    stop: AtomicBool,
    stories: Mutex<BTreeMap<String, Story>>,
}

impl Load {
    /// Orders whose numbers begin with `tag`.
    pub fn new(tag: &'static str, upstream: &Upstream) -> Arc<Self> {
        Arc::new(Self {
            tag,
            paying_call: upstream.paying_call(),
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            stories: Mutex::default(),
        })
    }

    /// Starts callers that send new orders and repeats to `sidecars` at random, until [`Callers::stop`].
    pub fn begin(self: &Arc<Self>, upstream: &Arc<Upstream>, sidecars: &[SocketAddr], seed: u64) -> Callers {
        let callers = (0..CALLERS).map(|n| {
            let mut rng = Rng::new(seed * 1000 + n);
            let (load, upstream, sidecars) = (self.clone(), upstream.clone(), sidecars.to_vec());
            tokio::spawn(async move {
                while !load.stop.load(Ordering::Relaxed) {
                    // One call in three is a new order; one in six repeats the newest order, which is mostly still in
                    // progress.
                    let newest = load.next.load(Ordering::Relaxed);
                    let number = match rng.index(6) {
                        0 | 1 => load.next.fetch_add(1, Ordering::Relaxed),
                        2 => newest.saturating_sub(1),
                        _ => rng.index(newest + 1),
                    };
                    let order_no = format!("{}{number}", load.tag);
                    let address = sidecars[rng.index(sidecars.len())];
                    let is_answered = load.ask(&upstream, address, &order_no, rng.index(2)).await;
                    let pause = if is_answered { rng.index(20) as u64 } else { 50 };
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
            })
        });
        Callers {
            load: self.clone(),
            tasks: callers.collect(),
        }
    }

    /// Makes one call and records its result. Returns whether it was answered.
    async fn ask(&self, upstream: &Upstream, address: SocketAddr, order_no: &str, encoding: usize) -> bool {
        let encoding = BOTH[encoding];
        let body = Payout::new(order_no).body(encoding);
        let headers = [("Content-Type", encoding.media())];
        let bytes = request("POST", "/pay/sendApiRedPack", &headers, body.as_bytes());
        let before = self.seen(upstream, order_no);
        let turn = {
            let mut stories = self.stories.lock().unwrap();
            let story = stories.entry(order_no.to_owned()).or_default();
            story.begun += 1;
            // Every earlier call has ended.
            (story.begun, story.begun == story.told.len() + 1)
        };
        let answer = exchange(address, &bytes).await;
        let after = self.seen(upstream, order_no);
        let mut stories = self.stories.lock().unwrap();
        let story = stories.get_mut(order_no).unwrap();
        story.told.push(Told {
            code: answer.as_ref().map(Answer::code),
            not_sent: answer.is_some_and(|answer| answer.field("errCodeDes").contains("未发起付款")),
            before,
            after,
            alone: turn == (story.begun, true),
        });
        story.told.last().is_some_and(|told| told.code.is_some())
    }

    fn seen(&self, upstream: &Upstream, order_no: &str) -> Seen {
        upstream.fake.look(|books| Seen {
            asked: books.times_asked(self.paying_call, order_no),
            paid: books.times_paid(order_no),
        })
    }

    /// Repeats every pending or unknown order until none is left.
    pub async fn settle_by_repeats(&self, upstream: &Upstream, sidecar: SocketAddr, admin: SocketAddr) {
        until("every order settles when it is repeated", async || {
            let open = unsettled(admin).await;
            let repeats = open
                .iter()
                .map(|order_no| self.ask(upstream, sidecar, order_no, 0));
            futures_util::future::join_all(repeats).await;
            open.is_empty()
        })
        .await;
    }

    /// Checks what must hold in every run. Every order must be settled.
    pub async fn judge(&self, upstream: &Upstream, admin: SocketAddr, refusals: &[&str]) {
        let books = upstream.fake.books();
        let recorded = recorded(admin).await;
        let all = self.stories.lock().unwrap().clone();
        let ordered: BTreeSet<&str> = all.keys().map(String::as_str).collect();
        for payment in books.payments() {
            assert!(
                ordered.contains(payment.order_no.as_str()),
                "{payment:?} was never ordered"
            );
            assert_eq!((payment.openid.as_str(), payment.amount), (OPENID, 100));
        }
        for (order_no, story) in &all {
            let state = recorded.get(order_no).map(String::as_str);
            self.judge_one(order_no, &story.told, state, &books, refusals);
        }
        let told = || all.values().flat_map(|story| &story.told);
        let count = |wanted: &str| told().filter(|told| told.code.as_deref() == Some(wanted)).count();
        let silent = told().filter(|told| told.code.is_none()).count();
        eprintln!(
            "{}: {} orders, {} payments, {} attempts; told SUCCESS {}, SYSTEMERROR {}, PROCESSING {}, nothing {silent}",
            self.tag,
            all.len(),
            books.payments().len(),
            books
                .requests()
                .iter()
                .filter(|asked| asked.endpoint == self.paying_call)
                .count(),
            count("SUCCESS"),
            count("SYSTEMERROR"),
            count("PROCESSING"),
        );
        assert!(all.len() > 30 && count("SUCCESS") > 30, "there was load");
    }

    fn judge_one(
        &self,
        order_no: &str,
        told: &[Told],
        state: Option<&str>,
        books: &Books,
        refusals: &[&str],
    ) {
        let paid = books.times_paid(order_no);
        let asked = books.times_asked(self.paying_call, order_no);
        let story =
            || format!("{order_no}: {state:?}, asked {asked} times, paid {paid} times, told {told:?}");
        assert!(paid <= 1, "paid twice: {}", story());
        let fits = match state {
            Some("succeeded") => paid == 1,
            Some("refused") | None => paid == 0,
            _ => false,
        };
        assert!(fits, "the record is not what the books say: {}", story());
        for one in told {
            match one.code.as_deref() {
                None | Some("PROCESSING" | "SYSTEMERROR") => {}
                Some("SUCCESS") => assert_eq!(one.after.paid, 1, "told SUCCESS: {}", story()),
                Some(code) => {
                    assert!(
                        refusals.contains(&code),
                        "{code} was no refusal to expect: {}",
                        story()
                    );
                    assert_eq!(one.before.paid, 0, "told {code} after it was paid: {}", story());
                    // If no attempt followed that the refusal says nothing about, the refused attempt paid.
                    let covered = if one.alone {
                        one.after.asked
                    } else {
                        one.before.asked
                    };
                    assert!(paid == 0 || asked > covered, "told {code}, and paid: {}", story());
                }
            }
        }
        if told.iter().all(|one| one.not_sent) {
            assert_eq!(
                asked,
                0,
                "nobody was told anything but \"nothing was sent\": {}",
                story()
            );
        }
    }
}

/// Running callers.
pub struct Callers {
    load: Arc<Load>,
    tasks: Vec<JoinHandle<()>>,
}

impl Callers {
    /// Waits for every call in progress, and starts no more.
    pub async fn stop(self) {
        self.load.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.load.stop.store(false, Ordering::Relaxed);
    }
}

/// The numbers of the orders that are pending or unknown.
pub async fn unsettled(admin: SocketAddr) -> Vec<String> {
    // Reads all orders instead of two lists: an order that changes from one list to the other meanwhile would be in
    // neither.
    let all = recorded(admin).await.into_iter();
    all.filter(|(_, state)| matches!(state.as_str(), "pending" | "unknown"))
        .map(|(order_no, _)| order_no)
        .collect()
}

/// Every recorded order and its state.
async fn recorded(admin: SocketAddr) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/payouts?limit=1000&mchId={MERCHANT}{cursor}");
        let mut answer = call(admin, "GET", &path, &[], b"").await;
        // The sidecar tries a store that has just come back only after a pause.
        until("the ledger can be listed", async || {
            answer = call(admin, "GET", &path, &[], b"").await;
            answer.status != 503
        })
        .await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let page: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        for payout in page["payouts"].as_array().unwrap() {
            let text = |name: &str| payout[name].as_str().unwrap().to_owned();
            found.insert(text("mchBillno"), text("state"));
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}
