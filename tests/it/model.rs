//! Random histories of whole requests over the real stores, compared with a plain model of the promise
//! (`docs/promise.md`): requests, repeats, changed repeats, answers, silence, processes that die before and after
//! paying, expired leases, queries.
//!
//! A failing seed is printed; `PAYOUT_MODEL_SEED=<n>` replays it, `PAYOUT_MODEL_SEEDS=<count>` runs more.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use payout_domain::contract::answer::Disclosure;
use payout_domain::contract::send::{RequestCredentials, SendRequest};
use payout_domain::encoding::Encoding;
use payout_domain::fields::Fields;
use payout_domain::ids::{Millis, OpenId, OrderKey, UserId, WxAppId};
use payout_domain::json;
use payout_domain::limits::Limits;
use payout_domain::merchant::MerchantKind;
use payout_domain::order::State;
use payout_domain::order::step::Policy;
use payout_domain::outcome::{Class, Evidence, Finding, Found};
use payout_domain::route::MerchantPattern;
use payout_sidecar::clock::Clock;
use payout_sidecar::payouts::claim::Claim;
use payout_sidecar::payouts::merchant::Merchant;
use payout_sidecar::payouts::ports::{Identity, Ledger, LookupError, OrderQuestion, Upstream};
use payout_sidecar::payouts::{Payouts, Settings};
use payout_sidecar::rng::SystemRng;
use tokio::sync::Notify;

use crate::support::file_ledger;
use test_support::redis::Redis;
use test_support::rng::Rng;

const TIMEOUT: Duration = Duration::from_secs(10);
const DAY_MS: i64 = 86_400_000;
/// Milliseconds; longer than any lease.
const LEASE_MS: i64 = 120_000;

struct ManualClock(AtomicI64);

impl ManualClock {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(1_795_400_000_000)))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::Relaxed))
    }

    fn passed(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.load(Ordering::Relaxed)).unwrap())
    }
}

/// What the next attempt leads to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Accept,
    PayAndSayNothing,
    SayNothing,
    NeverSent,
    Refuse,
    Burn,
    DieBeforePaying,
    DieAfterPaying,
}

const OUTCOMES: [Outcome; 8] = [
    Outcome::Accept,
    Outcome::PayAndSayNothing,
    Outcome::SayNothing,
    Outcome::NeverSent,
    Outcome::Refuse,
    Outcome::Burn,
    Outcome::DieBeforePaying,
    Outcome::DieAfterPaying,
];

/// What the model knows of an order.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    /// As if the order had never been sent.
    Nothing,
    Paid,
    Refused,
    /// Refused, and the order number is spent.
    NumberSpent,
    /// May have been paid.
    Doubt,
}

/// The upstream, the mapping and the clock of one history. They outlive the processes.
struct World {
    refuses_doubles: bool,
    clock: Arc<ManualClock>,
    next: Mutex<Outcome>,
    answers_queries: AtomicBool,
    payments: Mutex<BTreeMap<String, Vec<(String, i64)>>>,
    attempts: AtomicI64,
    person: AtomicI64,
}

impl World {
    fn times_paid(&self, order_no: &str) -> usize {
        self.payments.lock().unwrap().get(order_no).map_or(0, Vec::len)
    }
}

/// One process. Its calls after its death never return.
struct Process {
    world: Arc<World>,
    has_died: Notify,
}

#[async_trait]
impl Identity for Process {
    async fn openid(&self, _app: &WxAppId, _user: &UserId) -> Result<Option<OpenId>, LookupError> {
        // Each lookup returns another openid: the upstream must only ever pay the first claim's.
        let person = self.world.person.fetch_add(1, Ordering::Relaxed);
        Ok(OpenId::parse(&format!("oPERSON{person}")).ok())
    }

    async fn ready(&self) -> Result<(), LookupError> {
        Ok(())
    }
}

#[async_trait]
impl Upstream for Process {
    async fn attempt(&self, claim: &Claim, _credentials: &RequestCredentials) -> Evidence {
        let (world, order) = (&self.world, claim.order());
        world.attempts.fetch_add(1, Ordering::Relaxed);
        let order_no = order.key.order_no.as_str();
        let pay = || {
            let mut payments = world.payments.lock().unwrap();
            let made = payments.entry(order_no.to_owned()).or_default();
            if !world.refuses_doubles || made.is_empty() {
                made.push((order.openid.as_str().to_owned(), order.amount.get()));
            }
        };
        let silence = || Evidence::NoAnswer {
            why: "scripted".into(),
        };
        let decline = |class| Evidence::Declined {
            class,
            code: "NOTENOUGH".into(),
            text: String::new(),
        };
        let outcome = *world.next.lock().unwrap();
        match outcome {
            Outcome::Accept => pay(),
            Outcome::PayAndSayNothing | Outcome::DieAfterPaying => pay(),
            _ => {}
        }
        match outcome {
            Outcome::Accept => Evidence::Accepted {
                fields: Fields::new(),
            },
            Outcome::PayAndSayNothing | Outcome::SayNothing => silence(),
            Outcome::NeverSent => Evidence::NeverSent {
                why: "scripted".into(),
            },
            Outcome::Refuse => decline(Class::Refused),
            // An upstream does not report a number as spent if it has paid under it.
            Outcome::Burn if world.times_paid(order_no) > 0 => decline(Class::Conflict),
            Outcome::Burn => decline(Class::NumberSpent),
            Outcome::DieBeforePaying | Outcome::DieAfterPaying => {
                self.has_died.notify_one();
                std::future::pending().await
            }
        }
    }

    async fn query(&self, question: &OrderQuestion, _credentials: &RequestCredentials) -> Finding {
        if !self.world.answers_queries.load(Ordering::Relaxed) {
            return Finding::unclear("scripted");
        }
        if self.world.times_paid(question.key.order_no.as_str()) == 0 {
            return Finding::no_such_order();
        }
        Finding {
            found: Found::Accepted {
                fields: Fields::new(),
            },
            status: Some("SENT".into()),
            report: Fields::new(),
        }
    }

    fn longest(&self) -> Duration {
        TIMEOUT
    }
}

fn start(world: &Arc<World>, ledger: &Arc<dyn Ledger>) -> (Payouts, Arc<Process>) {
    let process = Arc::new(Process {
        world: Arc::clone(world),
        has_died: Notify::new(),
    });
    let not_found_after = if world.refuses_doubles {
        Duration::from_secs(86_400)
    } else {
        TIMEOUT * 2
    };
    let merchant = Merchant {
        kind: MerchantKind::Handler {
            format: None,
            id: payout_domain::ids::HandlerId::parse("http://127.0.0.1:1").unwrap(),
            formerly: Vec::new(),
        },
        upstream: Arc::clone(&process) as _,
        policy: Policy {
            refuses_doubles: world.refuses_doubles,
            not_found_after,
        },
        is_settle_only: false,
        contact: payout_sidecar::payouts::watch::Contact::default(),
        takes_credentials: false,
    };
    let any = MerchantPattern {
        mch_id: None,
        wx_app_id: None,
    };
    let settings = Settings {
        merchants: vec![(any, Arc::new(merchant))],
        client_ip: Some([203, 0, 113, 7].into()),
        limits: Limits::default(),
        disclosure: Disclosure::default(),
        request_timeout: Duration::from_secs(30),
    };
    let clock = Arc::clone(&world.clock) as _;
    let payouts = Payouts::new(
        Arc::clone(ledger),
        Arc::clone(&process) as _,
        clock,
        Arc::new(SystemRng),
        vec![],
        settings,
    );
    (payouts, process)
}

fn request(order_no: &str, amount: i64) -> SendRequest {
    let text = format!(
        r#"{{"wxAppId":"wx1","mchId":"19","mchBillno":"{order_no}","openid":"u","amount":{amount},"actName":"a","remark":"r","tradeRecordId":7}}"#
    );
    SendRequest::read(json::decode(&text).unwrap()).unwrap()
}

/// What the caller must be told, and what the model knows afterwards. `None`: the promise does not say.
fn predict(known: Known, outcome: Outcome) -> Option<(&'static str, Known)> {
    match (known, outcome) {
        (Known::Paid, _) => Some(("SUCCESS", Known::Paid)),
        (Known::NumberSpent, _) => Some(("NOTENOUGH", Known::NumberSpent)),
        (Known::Doubt, _) | (_, Outcome::DieBeforePaying | Outcome::DieAfterPaying) => None,
        (Known::Nothing | Known::Refused, Outcome::Accept) => Some(("SUCCESS", Known::Paid)),
        (Known::Nothing | Known::Refused, Outcome::PayAndSayNothing | Outcome::SayNothing) => {
            Some(("SYSTEMERROR", Known::Doubt))
        }
        (Known::Nothing | Known::Refused, Outcome::NeverSent) => Some(("SYSTEMERROR", known)),
        (Known::Nothing | Known::Refused, Outcome::Refuse) => Some(("NOTENOUGH", Known::Refused)),
        (Known::Nothing | Known::Refused, Outcome::Burn) => Some(("NOTENOUGH", Known::NumberSpent)),
    }
}

/// Compares the record with the upstream's books: no order may be recorded as paid or refused against them.
async fn on_record(ledger: &dyn Ledger, world: &World, key: &OrderKey) -> Known {
    let times_paid = world.times_paid(key.order_no.as_str());
    match ledger.get(key).await.unwrap().map(|order| order.state) {
        None => {
            assert_eq!(times_paid, 0, "{key} was paid, and there is no record");
            Known::Nothing
        }
        Some(State::Succeeded(_)) => {
            assert_eq!(times_paid, 1, "{key} is succeeded");
            Known::Paid
        }
        Some(State::Refused(refused)) => {
            assert_eq!(times_paid, 0, "{key} is refused");
            if refused.refusal.number_spent {
                Known::NumberSpent
            } else {
                Known::Refused
            }
        }
        Some(State::Pending(_) | State::Unknown(_)) => Known::Doubt,
    }
}

async fn history(seed: u64, ledger: &Arc<dyn Ledger>, clock: &Arc<ManualClock>) {
    let mut rng = Rng::new(seed);
    let world = Arc::new(World {
        refuses_doubles: rng.index(2) == 0,
        clock: Arc::clone(clock),
        next: Mutex::new(Outcome::Accept),
        answers_queries: AtomicBool::new(true),
        payments: Mutex::default(),
        attempts: AtomicI64::new(0),
        person: AtomicI64::new(0),
    });
    let advance = |ms: i64| clock.0.fetch_add(ms, Ordering::Relaxed);
    let (mut payouts, mut process) = start(&world, ledger);
    let mut model: BTreeMap<String, (Known, i64)> = BTreeMap::new();
    for _event in 0..14 {
        // At least a second passes between two attempts.
        advance(1_500 + i64::try_from(rng.index(3_000)).unwrap());
        match rng.index(10) {
            0 => {
                advance([LEASE_MS, 20_000, 1_000][rng.index(3)]);
            }
            1 => {
                world.answers_queries.store(rng.index(4) > 0, Ordering::Relaxed);
                payouts.settle_due().await.unwrap();
            }
            2 => (payouts, process) = start(&world, ledger),
            _ => {
                let order_no = format!("S{seed}O{}", rng.index(3));
                let amount = if rng.index(8) == 0 { 101 } else { 100 };
                let outcome = OUTCOMES[rng.index(OUTCOMES.len())];
                *world.next.lock().unwrap() = outcome;
                let request = request(&order_no, amount);
                let key = request.key();
                let before = world.attempts.load(Ordering::Relaxed);
                let told = tokio::select! {
                    reply = payouts.send(request, Encoding::Json, ()) => {
                        let fields = reply.into_fields(&key, Disclosure::default());
                        let code = fields.characters("errCode").or_else(|| fields.characters("resultCode"));
                        Some(code.unwrap().to_owned())
                    }
                    () = process.has_died.notified() => None,
                };
                let has_sent = world.attempts.load(Ordering::Relaxed) > before;
                let (known, first) = match model.get(&order_no) {
                    // Without a record, the next request counts as the first.
                    None | Some((Known::Nothing, _)) => (Known::Nothing, amount),
                    Some(known) => *known,
                };
                if number("PAYOUT_MODEL_SEED").is_some() {
                    eprintln!(
                        "{order_no}: {known:?}, {amount} fen, {outcome:?}: told {told:?}, sent: {has_sent}"
                    );
                }
                let is_changed = known != Known::Nothing && amount != first;
                match (told, is_changed) {
                    (None, _) => {
                        // Others find the claim in place until its lease expires.
                        (payouts, process) = start(&world, ledger);
                        for _look in 0..2 {
                            advance(LEASE_MS);
                            payouts.settle_due().await.unwrap();
                        }
                    }
                    (Some(told), true) => {
                        assert_eq!(told, "PARAM_ERROR", "{order_no} changed");
                        assert!(!has_sent, "{order_no} was sent though it had changed");
                    }
                    (Some(told), false) => match predict(known, outcome) {
                        Some((expected, _)) => {
                            assert_eq!(told, expected, "{order_no}, {known:?}, {outcome:?}");
                            assert_eq!(
                                has_sent,
                                !matches!(known, Known::Paid | Known::NumberSpent),
                                "{order_no}, {known:?}, {outcome:?}"
                            );
                        }
                        None => match told.as_str() {
                            "SUCCESS" => assert_eq!(world.times_paid(&order_no), 1, "{order_no}"),
                            "SYSTEMERROR" | "PROCESSING" => {}
                            other => {
                                assert_eq!(world.times_paid(&order_no), 0, "{order_no} was told {other}")
                            }
                        },
                    },
                }
                let recorded = on_record(&**ledger, &world, &key).await;
                if let (false, Some((_, expected))) = (is_changed, predict(known, outcome)) {
                    assert_eq!(recorded, expected, "{order_no}, {known:?}, {outcome:?}");
                }
                let first = if recorded == Known::Nothing { amount } else { first };
                model.insert(order_no, (recorded, first));
            }
        }
        for (order_no, payments) in world.payments.lock().unwrap().iter() {
            assert_eq!(payments.len(), 1, "{order_no} was paid {payments:?}");
            let (_, amount) = model[order_no];
            assert_eq!(payments[0].1, amount, "{order_no}");
        }
    }
    // Every open order settles once queries are answered and time passes.
    world.answers_queries.store(true, Ordering::Relaxed);
    let (payouts, _process) = start(&world, ledger);
    // An abandoned claim, and a handler's `NOT_FOUND`, count only after the settler has looked for a while. WeChat's
    // own `NOT_FOUND` must repeat for a day.
    advance(DAY_MS / 48);
    let pause = if world.refuses_doubles { DAY_MS / 24 } else { 2_000 };
    for _turn in 0..60 {
        if all_settled(&**ledger, model.keys()).await {
            break;
        }
        payouts.settle_due().await.unwrap();
        advance(pause);
    }
    for order_no in model.keys() {
        let key = request(order_no, 100).key();
        let settled = on_record(&**ledger, &world, &key).await;
        let record = ledger.get(&key).await.unwrap();
        assert_ne!(settled, Known::Doubt, "{order_no} did not settle: {record:?}");
        if world.times_paid(order_no) == 1 {
            let order = ledger.get(&key).await.unwrap().unwrap();
            let paid = world.payments.lock().unwrap()[order_no][0].clone();
            assert_eq!(paid, (order.openid.as_str().to_owned(), order.amount.get()));
        }
    }
}

async fn all_settled(ledger: &dyn Ledger, numbers: impl Iterator<Item = &String>) -> bool {
    for order_no in numbers {
        let order = ledger.get(&request(order_no, 100).key()).await.unwrap();
        if order.is_some_and(|order| order.settled_at().is_none()) {
            return false;
        }
    }
    true
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

async fn histories(ledger: Arc<dyn Ledger>, clock: Arc<ManualClock>) {
    let seeds = match number("PAYOUT_MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PAYOUT_MODEL_SEEDS").unwrap_or(2000),
    };
    for seed in seeds {
        let (ledger, clock) = (Arc::clone(&ledger), Arc::clone(&clock));
        let lived = tokio::spawn(async move { history(seed, &ledger, &clock).await }).await;
        if let Err(error) = lived {
            eprintln!("history {seed} breaks the promise; replay it with PAYOUT_MODEL_SEED={seed}");
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_history_keeps_the_promise_over_the_embedded_ledger() {
    // In memory where there is such a directory: the cost of a sync is no part of the model.
    let shared = std::path::Path::new("/dev/shm");
    let dir = if shared.is_dir() {
        tempfile::tempdir_in(shared)
    } else {
        tempfile::tempdir()
    };
    let dir = dir.unwrap();
    let retention = Duration::from_secs(400 * 86_400);
    let clock = ManualClock::new();
    let path = dir.path().join("payouts.redb");
    let ledger = file_ledger(&path, retention, Arc::clone(&clock) as _).await;
    histories(Arc::new(ledger), clock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_history_keeps_the_promise_over_redis() {
    let redis = Redis::start_with(&["--appendonly", "no", "--save", ""], None);
    let clock = ManualClock::new();
    let ledger = crate::ledger::ledger_by(&redis.url(), true, Arc::clone(&clock) as _);
    ledger.ready().await.unwrap();
    histories(Arc::new(ledger), clock).await;
}
