//! Several replicas, one store and two upstreams under simulated time. Everything between them can go wrong: lost
//! acknowledgements, refused writes, writes that arrive late and out of order, crashes before and after every call,
//! silence, refusals, payments that come late. So can everything around them: reloads that move, add and remove
//! destinations; status calls at every moment; stores that lose the last writes, a merchant, some records or
//! everything; clocks that step by hours and by years; upstreams that stand still; a mapping that is slow, empty or
//! away; processes that start on an empty store, that are stopped, and that go on later; a node that goes away;
//! months that pass.
//!
//! The judge compares with the upstreams' own books: at most one payment per order number, one openid, one amount; no
//! reply and no status call says "refused" of an order that is paid or may still be; and once faults stop, everything
//! settles. A failing run prints its seed; replay it with `PAYOUT_SIM_SEED=<n>`, run more with
//! `PAYOUT_SIM_SEEDS=<count>`.

mod judge;
mod store;
mod upstream;
mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use self::judge::{judge, judge_answer, judge_silences};
use self::store::Process;
use self::upstream::At;
use self::world::{Books, Kind, Loss, Mends, Shared, SharedRng, SkewedClock, Store};
use super::world::PausedClock;
use crate::payouts::merchant::Merchant;
use crate::payouts::watch::Contact;
use crate::payouts::{Payouts, Settings};
use payout_domain::contract::answer::Disclosure;
use payout_domain::contract::status::StatusRequest;
use payout_domain::encoding::Encoding;
use payout_domain::ids::{HandlerId, MchId, TradeRecordId, WxAppId};
use payout_domain::limits::Limits;
use payout_domain::merchant::MerchantKind;
use payout_domain::order::fixtures::request;
use payout_domain::order::step::Policy;
use payout_domain::route::MerchantPattern;
use payout_domain::wechat::Product;
use payout_domain::wechat::v2::Texts;

const ORDERS: u64 = 4;
const REPLICAS: usize = 3;
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// The merchant whose records lie on a separate node.
const NODE_OF_ITS_OWN: &str = "20";

/// Where new orders go, and where old ones are asked about.
#[derive(Clone, Copy, Debug)]
enum Layout {
    /// All to place 0.
    First,
    /// All to place 1; no entry leads to place 0 any more.
    Second,
    /// One merchant's to place 1, by a more specific entry.
    Split,
    /// Nothing is configured.
    Nothing,
    /// All to place 1; place 0 is kept for its old orders.
    Kept,
    /// All to place 0, which has a new name.
    Renamed,
    /// Everything leads somewhere: what a person would do in the end.
    Whole,
}

impl Layout {
    fn roll(rng: &SharedRng) -> Self {
        match rng.below(6) {
            0 => Self::First,
            1 => Self::Second,
            2 => Self::Split,
            3 => Self::Nothing,
            4 => Self::Kept,
            _ => Self::Renamed,
        }
    }

    fn settings(self, process: &Process) -> Settings {
        let entry = |mch_id: Option<&str>, place, id, formerly: &[&str], is_settle_only| {
            let pattern = MerchantPattern {
                mch_id: mch_id.map(|id| MchId::parse(id).unwrap()),
                wx_app_id: None,
            };
            (
                pattern,
                Arc::new(merchant(process, place, id, formerly, is_settle_only)),
            )
        };
        let first = || entry(None, 0, "first", &[], false);
        let second = |mch_id| entry(mch_id, 1, "second", &[], false);
        let merchants = match self {
            Self::First => vec![first()],
            Self::Second => vec![second(None)],
            Self::Split => vec![first(), second(Some("19"))],
            Self::Nothing => vec![],
            Self::Kept => vec![second(None), entry(None, 0, "first", &[], true)],
            Self::Renamed => vec![entry(None, 0, "first-again", &["first"], false)],
            Self::Whole => vec![
                entry(None, 0, "first", &["first-again"], false),
                entry(None, 1, "second", &[], true),
            ],
        };
        Settings {
            merchants,
            client_ip: Some([203, 0, 113, 7].into()),
            limits: Limits::default(),
            disclosure: Disclosure::default(),
            request_timeout: REQUEST_TIMEOUT,
        }
    }
}

fn merchant(
    process: &Process,
    place: usize,
    name: &str,
    formerly: &[&str],
    is_settle_only: bool,
) -> Merchant {
    let shared = &process.shared;
    let id = |name: &str| HandlerId::parse(name).unwrap();
    let kind = if shared.kind.books == Books::Wechat && place == 0 {
        MerchantKind::Wechat {
            product: Product::Redpack,
            texts: Texts {
                send_name: "s".into(),
                wishing: "w".into(),
                scene_id: None,
            },
        }
    } else {
        MerchantKind::Handler {
            format: None,
            id: id(name),
            formerly: formerly.iter().map(|name| id(name)).collect(),
        }
    };
    let refuses_doubles = shared.kind.refuses_doubles();
    let not_found_after = if refuses_doubles {
        Duration::from_secs(86_400)
    } else {
        UPSTREAM_TIMEOUT * 2
    };
    Merchant {
        kind,
        upstream: Arc::new(At {
            process: process.clone(),
            place,
        }),
        policy: Policy {
            refuses_doubles,
            not_found_after,
        },
        is_settle_only,
        contact: Contact::default(),
        takes_credentials: false,
    }
}

fn replica(
    shared: &Arc<Shared>,
    clock: Arc<SkewedClock>,
    layout: Layout,
) -> (Arc<ArcSwap<Payouts>>, Process) {
    let process = Process {
        shared: Arc::clone(shared),
        is_dead: Arc::default(),
        clock: Arc::clone(&clock),
        knows: Arc::default(),
        lag: Duration::from_millis(shared.rng.below(30_000)),
        silent: Arc::default(),
        asked_to_pay: Arc::default(),
    };
    let (ledger, identity) = (Arc::new(process.clone()), Arc::new(process.clone()));
    let settings = layout.settings(&process);
    let rng = Arc::clone(&shared.rng) as _;
    (
        Arc::new(ArcSwap::from_pointee(Payouts::new(
            ledger,
            identity,
            clock,
            rng,
            vec![],
            settings,
        ))),
        process,
    )
}

/// One run. Returns its trace, so that a test can compare two runs of one seed.
async fn run(seed: u64, kind: impl FnOnce(&SharedRng) -> Kind, mends: Mends) -> Vec<String> {
    let rng = Arc::new(SharedRng::new(seed));
    let store = Store {
        identity: Some(1),
        ..Store::default()
    };
    let shared = Arc::new(Shared {
        kind: kind(&rng),
        mends,
        rng,
        faulty: AtomicBool::new(true),
        store: Mutex::new(store.clone()),
        copy: Mutex::new(store),
        forgotten: Mutex::default(),
        hidden: Mutex::default(),
        has_lost: AtomicBool::new(false),
        node_is_away: AtomicBool::new(false),
        payments: Mutex::default(),
        failed: Mutex::default(),
        under_way: Mutex::default(),
        doubted_since: Mutex::default(),
        claims: Mutex::default(),
        refused_at: Mutex::default(),
        broken: Mutex::default(),
        still_until: Mutex::default(),
        trace: Mutex::default(),
        begun: Instant::now(),
        is_told: number("PAYOUT_SIM_SEED").is_some(),
    });
    shared.note(format!("{:?}", shared.kind));
    let truth = Arc::new(PausedClock(Instant::now()));
    let clock = |off_ms| {
        Arc::new(SkewedClock {
            truth: Arc::clone(&truth),
            off_ms: AtomicI64::new(off_ms),
        })
    };
    let clocks: Vec<Arc<SkewedClock>> = (0..REPLICAS).map(|_| clock(shared.skew())).collect();
    let mut layout = Layout::First;
    let mut replicas: Vec<(Arc<ArcSwap<Payouts>>, Process)> = clocks
        .iter()
        .map(|clock| replica(&shared, Arc::clone(clock), layout))
        .collect();
    let mut tasks = Vec::new();
    for _ in 0..45 {
        for (clock, place) in clocks.iter().zip(&mut replicas) {
            if place.1.is_dead.load(Ordering::Relaxed) {
                *place = replica(&shared, Arc::clone(clock), layout);
                shared.note("a process was started".into());
            }
        }
        surround(&shared, &clocks, &replicas, &mut layout);
        let at = usize::try_from(shared.rng.below(REPLICAS as u64)).unwrap();
        let (payouts, process) = replicas[at].clone();
        match shared.rng.below(20) {
            0..=2 => {
                tasks.push(tokio::spawn(settle_for_a_while(payouts, Arc::clone(&shared))));
            }
            3..=7 => tasks.push(tokio::spawn(ask(Payouts::clone(&payouts.load()), process))),
            _ => tasks.push(tokio::spawn(call(Payouts::clone(&payouts.load()), process))),
        }
        tokio::time::sleep(pause(&shared)).await;
    }
    // Faults stop, and a person has put the configuration right. A last replica settles everything.
    shared.faulty.store(false, Ordering::Relaxed);
    // Writes that are still on their way reach the store before the last replica begins.
    tokio::time::sleep(Duration::from_secs(180)).await;
    for (payouts, process) in &replicas {
        let is_held_up = process.is_dead.load(Ordering::Relaxed) || shared.kind.loss != Loss::Nothing;
        let under_way = payouts.load().tasks().len();
        if !is_held_up && !shared.kind.loses_a_node {
            judge_silences(&shared, process);
        }
        assert!(
            is_held_up || shared.kind.loses_a_node || under_way == 0,
            "{under_way} payouts are still under way, minutes after everything went well"
        );
    }
    let (last, _process) = replica(&shared, clock(0), Layout::Whole);
    let is_settled = || {
        let store = shared.store.lock().unwrap();
        let mut orders = store.orders.values();
        orders.all(|order| order.settled_at().is_some())
    };
    // "No such order" is believed after a day of it, or after seconds in which the upstream answers without a break.
    let (turns, pause) = if shared.kind.refuses_doubles() {
        (400, Duration::from_secs(601))
    } else {
        (4_000, Duration::from_millis(700))
    };
    for _ in 0..turns {
        if is_settled() {
            break;
        }
        let _what_the_judge_sees = last.load_full().settle_due().await.is_ok();
        tokio::time::sleep(pause).await;
    }
    for task in tasks {
        // A task in which the judge found something panics here; one that still waits is stopped.
        if task.is_finished() {
            task.await.unwrap();
        } else {
            task.abort();
        }
    }
    judge(&shared, last.load().now());
    shared.trace.lock().unwrap().clone()
}

/// How long until the next event: mostly seconds, now and then minutes, seldom a month.
fn pause(shared: &Shared) -> Duration {
    let most = match shared.rng.below(100) {
        0..=1 if shared.kind.is_long => 32 * 86_400_000,
        0..=9 => 120_000,
        _ => 3_000,
    };
    Duration::from_millis(shared.rng.below(most))
}

/// Changes something around the replicas.
fn surround(
    shared: &Arc<Shared>,
    clocks: &[Arc<SkewedClock>],
    replicas: &[(Arc<ArcSwap<Payouts>>, Process)],
    layout: &mut Layout,
) {
    let rng = &shared.rng;
    if rng.happens(15) {
        let at = usize::try_from(rng.below(REPLICAS as u64)).unwrap();
        clocks[at].off_ms.store(shared.skew(), Ordering::Relaxed);
        shared.note("a clock jumped".into());
    }
    if rng.happens(4) {
        let off = shared.skew();
        clocks
            .iter()
            .for_each(|clock| clock.off_ms.store(off, Ordering::Relaxed));
        shared.note("all clocks jumped".into());
    }
    match shared.kind.loss {
        Loss::Nothing => {}
        Loss::LastWrites => match rng.below(8) {
            0..=2 => shared.replicate(),
            3 => shared.lose(),
            _ => {}
        },
        Loss::Merchant | Loss::Records | Loss::Everything => {
            if rng.happens(4) {
                shared.lose();
            }
        }
    }
    if shared.kind.moves && rng.happens(12) {
        *layout = Layout::roll(rng);
        for (payouts, process) in replicas {
            // A rollout reaches one replica after the other, and some not at all for a while.
            if rng.happens(80) {
                let next = payouts.load().under(Arc::new(layout.settings(process)));
                payouts.store(Arc::new(next));
            }
        }
        shared.note(format!("reloaded: {layout:?}"));
    }
    if rng.happens(12) {
        let place = usize::try_from(rng.below(2)).unwrap();
        let still = Duration::from_millis(rng.below(60_000));
        let until = Instant::now().checked_add(still);
        let mut still_until = shared.still_until.lock().unwrap();
        still_until[place] = std::cmp::max(still_until[place], until);
        shared.note(format!("place {place} stands still"));
    }
    if shared.kind.loses_a_node && rng.happens(5) {
        shared.node_is_away.store(true, Ordering::Relaxed);
    }
}

/// Runs a replica's settler for more than a minute: long enough to see a lease run out, and to hear an absence to its
/// end.
async fn settle_for_a_while(payouts: Arc<ArcSwap<Payouts>>, shared: Arc<Shared>) {
    for _ in 0..120 {
        let _how_many = payouts.load_full().settle_due().await.is_ok();
        tokio::time::sleep(Duration::from_millis(500 + shared.rng.below(250))).await;
    }
}

fn any_order(shared: &Shared) -> (String, &'static str) {
    let which = shared.rng.below(ORDERS);
    (
        format!("A{which}"),
        if which.is_multiple_of(2) {
            "19"
        } else {
            NODE_OF_ITS_OWN
        },
    )
}

/// A caller's request to pay, and a check of its reply.
async fn call(payouts: Payouts, process: Process) {
    let shared = &process.shared;
    let (number, mch_id) = any_order(shared);
    let amount = if shared.rng.happens(10) { "101" } else { "100" };
    let request = request(&[("mchBillno", &number), ("mchId", mch_id), ("amount", amount)]);
    let key = request.key();
    *process
        .asked_to_pay
        .lock()
        .unwrap()
        .entry(key.clone())
        .or_default() += 1;
    let reply = payouts.send(request, Encoding::Json, ()).await;
    if let Some(count) = process.asked_to_pay.lock().unwrap().get_mut(&key) {
        *count -= 1;
    }
    let fields = reply.into_fields(&key, Disclosure::default());
    let told = fields
        .characters("errCode")
        .or_else(|| fields.characters("resultCode"));
    let told = told.unwrap_or_default();
    shared.note(format!("{key} was told {told}"));
    judge_answer(shared, &key, told, false);
    // A caller that waits for an attempt that ends without an answer must hear of the doubt.
    let silent = process.silent.lock().unwrap().get(&key).copied();
    let was_silent = silent.is_some_and(|at| at.elapsed() < Duration::from_millis(200));
    assert!(
        !(was_silent && told == "NOT_FOUND") || shared.kind.moves,
        "{key}: told {told}, though its own attempt had no answer"
    );
}

/// A caller's status call, and a check of its answer.
async fn ask(payouts: Payouts, process: Process) {
    let shared = &process.shared;
    let (number, mch_id) = any_order(shared);
    let key = request(&[("mchBillno", &number), ("mchId", mch_id)]).key();
    let is_asked = || {
        process
            .asked_to_pay
            .lock()
            .unwrap()
            .get(&key)
            .is_some_and(|count| *count > 0)
    };
    let question = StatusRequest {
        key: key.clone(),
        wx_app_id: WxAppId::parse("wx1").unwrap(),
        trade_record_id: TradeRecordId(7),
        credentials: Default::default(),
    };
    let was_asked = is_asked();
    let told = match payouts.status(question, Encoding::Json, ()).await {
        Ok(fields) => {
            let told = fields
                .characters("status")
                .or_else(|| fields.characters("errCode"));
            told.unwrap_or_default().to_owned()
        }
        Err(fault) => fault.code.as_str().to_owned(),
    };
    shared.note(format!("{key} stands at {told}"));
    judge_answer(shared, &key, &told, was_asked && is_asked());
}

fn simulate(seed: u64, kind: impl FnOnce(&SharedRng) -> Kind, mends: Mends) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(run(seed, kind, mends))
    }));
    outcome.unwrap_or_else(|panic| {
        if is_whole(mends) {
            eprintln!("seed {seed} broke the promise; replay it with PAYOUT_SIM_SEED={seed}");
        }
        std::panic::resume_unwind(panic)
    })
}

fn is_whole(mends: Mends) -> bool {
    format!("{mends:?}") == format!("{:?}", Mends::ALL)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn the_promise_holds_whatever_goes_wrong() {
    if let Some(seed) = number("PAYOUT_SIM_SEED") {
        simulate(seed, Kind::choose, Mends::ALL);
        return;
    }
    let first = number("PAYOUT_SIM_FIRST").unwrap_or(0);
    let mut told = BTreeMap::new();
    for seed in first..first + number("PAYOUT_SIM_SEEDS").unwrap_or(3000) {
        for line in simulate(seed, Kind::choose, Mends::ALL) {
            *told
                .entry(line.rsplit(' ').next().unwrap_or_default().to_owned())
                .or_insert(0u32) += 1;
        }
    }
    // The runs must not be all alike: everything that matters happened in some of them.
    for word in [
        "SUCCESS",
        "SYSTEMERROR",
        "PROCESSING",
        "PARAM_ERROR",
        "OPENID_ERROR",
        "NO_AUTH",
        "NOT_FOUND",
        "FAILED",
        "SENT",
        "CODE",
        "died",
        "started",
        "arrived",
        "jumped",
        "forgotten",
        "still",
        "Kept",
        "Renamed",
    ] {
        assert!(
            told.get(word).is_some_and(|times| *times > 100),
            "{word} hardly ever happened: {told:?}"
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [1, 7, 42] {
        let run = || simulate(seed, Kind::choose, Mends::ALL);
        assert_eq!(run(), run(), "seed {seed}");
    }
}

/// Takes out each mend of the stores in turn: the judge must see the consequence, as it would if a real store lacked
/// it.
#[test]
fn the_judge_sees_when_a_mend_of_the_stores_is_taken_out() {
    type TakeOut = fn(&mut Mends);
    let each: [(&str, TakeOut); 7] = [
        ("claims compare the identity", |mends| {
            mends.claims_compare_identity = false
        }),
        ("claims compare the log", |mends| {
            mends.claims_compare_the_log = false
        }),
        ("reads ask what claims ask", |mends| {
            mends.reads_ask_what_claims_ask = false
        }),
        ("a restart is no decision", |mends| {
            mends.a_restart_is_no_decision = false
        }),
        ("retention by the ledger's time", |mends| {
            mends.retention_by_ledger_time = false
        }),
        ("scripts fail first", |mends| mends.scripts_fail_first = false),
        ("nodes are apart", |mends| mends.nodes_are_apart = false),
    ];
    // Many panics are expected here: do not print them.
    std::panic::set_hook(Box::new(|_| {}));
    let unseen: Vec<&str> = each
        .into_iter()
        .filter(|(_, take_out)| {
            let mut mends = Mends::ALL;
            take_out(&mut mends);
            !(0..3000).any(|seed| std::panic::catch_unwind(|| simulate(seed, Kind::choose, mends)).is_err())
        })
        .map(|(name, _)| name)
        .collect();
    let _quiet = std::panic::take_hook();
    assert!(unseen.is_empty(), "nobody notices without: {unseen:?}");
}
