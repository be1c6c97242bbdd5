//! Wall clocks that are wrong, disagree or step while sidecars run: the sidecars pay nothing twice, forget nothing,
//! call nothing refused that may be paid, and wait for no clock. Each test shifts the wall clock of single processes;
//! timers keep running normally.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::load::Load;
use crate::support::sidecar::{
    APP, Encoding, MERCHANT, OPENID, Payout, Sidecar, To, Upstream, embedded, in_redis,
};
use test_support::http::{call, exchange, request};
use test_support::redis::Redis;
use test_support::until;

const LIBRARY: &str = "libfaketimeMT.so.1";

/// A wall clock for the processes started with it: the machine's time plus an offset.
struct WallClock {
    dir: TempDir,
    library: String,
}

impl WallClock {
    fn new(offset: &str) -> Self {
        let folders = [
            "/usr/lib/x86_64-linux-gnu/faketime",
            "/usr/lib/aarch64-linux-gnu/faketime",
            "/usr/lib/faketime",
            "/usr/local/lib/faketime",
            "/usr/lib64/faketime",
        ];
        let found = folders.iter().map(|folder| format!("{folder}/{LIBRARY}"));
        let library = found.into_iter().find(|path| Path::new(path).exists());
        let clock = Self {
            dir: tempfile::tempdir().unwrap(),
            library: library.unwrap_or_else(|| {
                panic!("{LIBRARY} is not installed: run scripts/test, which installs it (apt-get install faketime)")
            }),
        };
        clock.step_to(offset);
        clock
    }

    /// Sets the clock's offset from now on: `+2h`, `-401d`, `+0`.
    fn step_to(&self, offset: &str) {
        let beside = self.dir.path().join("next");
        std::fs::write(&beside, format!("{offset}\n")).unwrap();
        std::fs::rename(beside, self.dir.path().join("offset")).unwrap();
    }

    /// Starts or restarts a sidecar with this clock.
    async fn launch(&self, sidecar: &mut Sidecar) {
        self.with_environment(async |environment| sidecar.launch(environment).await)
            .await;
    }

    async fn start_in(&self, dir: TempDir, configuration: &str) -> Sidecar {
        self.with_environment(async |environment| Sidecar::start_in(dir, configuration, environment).await)
            .await
    }

    async fn start(&self, configuration: &str) -> Sidecar {
        self.start_in(tempfile::tempdir().unwrap(), configuration).await
    }

    async fn with_environment<T>(&self, run: impl AsyncFnOnce(&[(&str, &str)]) -> T) -> T {
        let offset = self.dir.path().join("offset").display().to_string();
        let environment = [
            ("LD_PRELOAD", self.library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", &offset),
            // The process sees a step at once.
            ("FAKETIME_NO_CACHE", "1"),
            // The monotonic clock stays right, as when someone sets a machine's clock.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        run(&environment).await
    }
}

async fn code(sidecar: &Sidecar, order_no: &str) -> String {
    sidecar.pay(Encoding::Json, &Payout::new(order_no)).await.code()
}

async fn told(sidecar: &Sidecar, order_no: &str) -> String {
    let answer = sidecar.status(Encoding::Json, &Payout::new(order_no)).await;
    let status = answer.field("status");
    if status.is_empty() { answer.code() } else { status }
}

async fn shown(sidecar: &Sidecar, order_no: &str) -> serde_json::Value {
    let path = format!("/api/payouts/{MERCHANT}/{order_no}");
    let answer = call(sidecar.admin, "GET", &path, &[], b"").await;
    serde_json::from_str(&answer.body).unwrap_or_default()
}

async fn state(sidecar: &Sidecar, order_no: &str) -> String {
    let shown = shown(sidecar, order_no).await;
    shown["state"].as_str().unwrap_or("none").to_owned()
}

fn faults(upstream: &Upstream, spec: &str) {
    upstream.fake.set_faults(spec.parse().unwrap());
}

fn redis_with_a_user() -> Redis {
    let redis = Redis::start();
    redis.cli(&["SET", &format!("openid:{APP}:user-1"), OPENID]);
    redis
}

const PAYS_EACH_CALL: To = To::Handler { idempotent: false };

/// Timeouts of one second. `not_found_after` is 3 s, longer than anything the fake does late.
fn impatient(upstream: &Upstream) -> String {
    let spans = "timeout = \"1s\"\nnot_found_after = \"3s\"\n";
    upstream
        .configuration()
        .replace(
            "connect_timeout = \"3s\"\ntimeout = \"3s\"\n",
            &format!("connect_timeout = \"1s\"\n{spans}"),
        )
        .replace(
            "idempotent = false\ntimeout = \"3s\"\n",
            &format!("idempotent = false\n{spans}"),
        )
}

/// What all of these tests rely on: the process's wall clock is off and steps at once, and its timers do not notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_is_off_and_timers_are_not() {
    let upstream = Upstream::start(PAYS_EACH_CALL).await;
    let dir = tempfile::tempdir().unwrap();
    let stores = embedded(&dir);
    let clock = WallClock::new("-401d");
    let sidecar = clock
        .start_in(dir, &format!("{stores}{}", upstream.configuration()))
        .await;
    let created = async |order_no: &str| {
        let shown = shown(&sidecar, order_no).await;
        let at: jiff::Timestamp = shown["createdAt"].as_str().unwrap().parse().unwrap();
        jiff::Timestamp::now().duration_since(at).as_hours()
    };
    assert_eq!(code(&sidecar, "A1").await, "SUCCESS");
    assert_eq!(created("A1").await, 401 * 24);
    clock.step_to("+10h");
    assert_eq!(code(&sidecar, "A2").await, "SUCCESS");
    assert_eq!(created("A2").await, -9);
    // One second passes during an attempt of up to 3 s, and two hours pass on the wall clock.
    faults(&upstream, "pay=delay:1s");
    let begun = Instant::now();
    let attempt = async {
        let code = code(&sidecar, "A3").await;
        (code, begun.elapsed())
    };
    let step = async {
        until("it is sent", async || upstream.times_sent("A3") == 1).await;
        clock.step_to("+12h");
    };
    let ((code, took), ()) = tokio::join!(attempt, step);
    assert_eq!(code, "SUCCESS");
    assert!(took >= Duration::from_secs(1), "{took:?}");
}

/// Runs two replicas with these clock offsets, which then step by `steps`. Callers repeat orders at both, and the
/// handler pays on each call and often answers late or never.
async fn two_replicas(tag: &'static str, offsets: [&str; 2], steps: &[&str], seed: u64) {
    let redis = redis_with_a_user();
    let upstream = Arc::new(Upstream::start(PAYS_EACH_CALL).await);
    let configuration = format!("{}{}", in_redis(&redis.url()), impatient(&upstream));
    let clocks = offsets.map(WallClock::new);
    let replicas = [
        clocks[0].start(&configuration).await,
        clocks[1].start(&configuration).await,
    ];
    let load = Load::new(tag, &upstream);
    let callers = load.begin(&upstream, &replicas.each_ref().map(|replica| replica.main), seed);
    for n in 0..12 {
        faults(
            &upstream,
            "pay=late:900ms*4;pay=hang-after*1;pay=reset-after*3;pay=late:900ms*2;pay=delay:500ms*4;pay=delay:150ms",
        );
        tokio::time::sleep(Duration::from_millis(800)).await;
        if !steps.is_empty() {
            for clock in &clocks {
                clock.step_to(steps[n % steps.len()]);
            }
        }
    }
    callers.stop().await;
    faults(&upstream, "");
    load.settle_by_repeats(&upstream, replicas[1].main, replicas[1].admin)
        .await;
    load.judge(&upstream, replicas[0].admin, &["NOT_FOUND"]).await;
}

/// Guards against leases and `not_found_after` that compare clocks minutes apart.
#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_whose_clocks_are_five_minutes_apart_pay_each_order_once() {
    two_replicas("CM", ["+0", "+5m"], &[], 1).await;
}

/// Guards against leases and `not_found_after` that compare clocks hours apart.
#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_whose_clocks_are_two_hours_apart_pay_each_order_once() {
    two_replicas("CH", ["-2h", "+0"], &[], 2).await;
}

/// Guards against leases and `not_found_after` that break when all clocks step at once, forwards and back.
#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_whose_clocks_step_two_hours_together_pay_each_order_once() {
    two_replicas("CS", ["+0", "+0"], &["+2h", "+4h", "+2h", "+0"], 3).await;
}

const PAID: [&str; 3] = ["A1", "A2", "A3"];

/// Starts a sidecar with its own clock and an embedded ledger, and pays orders through a handler that pays on each
/// call.
async fn with_paid_orders(offset: &str) -> (Upstream, WallClock, Sidecar) {
    let upstream = Upstream::start(PAYS_EACH_CALL).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!("{}{}", embedded(&dir), upstream.configuration());
    let clock = WallClock::new(offset);
    let sidecar = clock.start_in(dir, &configuration).await;
    for order_no in PAID {
        assert_eq!(code(&sidecar, order_no).await, "SUCCESS");
    }
    (upstream, clock, sidecar)
}

/// Checks for 4 s that no order is forgotten. The sidecar removes expired records in the background and with other
/// orders' writes, within seconds.
async fn all_stay(upstream: &Upstream, sidecar: &Sidecar) {
    let begun = Instant::now();
    let mut others = 0;
    while begun.elapsed() < Duration::from_secs(4) {
        for order_no in PAID {
            assert_eq!(code(sidecar, order_no).await, "SUCCESS", "{order_no}");
            assert_eq!(upstream.times_sent(order_no), 1, "{order_no}: sent again");
        }
        others += 1;
        assert_eq!(code(sidecar, &format!("B{others}")).await, "SUCCESS");
    }
    for order_no in PAID {
        assert_eq!(state(sidecar, order_no).await, "succeeded", "{order_no}");
    }
}

/// Guards against retention by the wall clock: orders paid while the clock was far behind would expire when it is set
/// right.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_right_by_more_than_the_retention_forgets_nothing() {
    let (upstream, clock, sidecar) = with_paid_orders("-401d").await;
    clock.step_to("+0");
    all_stay(&upstream, &sidecar).await;
}

/// Guards against retention by the wall clock: one start with a clock far ahead would erase every settled order.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_a_clock_that_is_ahead_by_more_than_the_retention_forgets_nothing() {
    let (upstream, clock, mut sidecar) = with_paid_orders("+0").await;
    for offset in ["+401d", "+0"] {
        sidecar.kill();
        clock.step_to(offset);
        clock.launch(&mut sidecar).await;
        all_stay(&upstream, &sidecar).await;
    }
}

/// Guards against a clock step that ends the process's own lease during an attempt: a status call would then report
/// that nothing was paid.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_during_an_attempt_makes_no_status_call_deny_it() {
    for (to, step) in [
        (PAYS_EACH_CALL, "+60s"),
        (To::Redpack, "+60s"),
        (PAYS_EACH_CALL, "-2h"),
    ] {
        let upstream = Upstream::start(to).await;
        let dir = tempfile::tempdir().unwrap();
        let configuration = format!("{}{}", embedded(&dir), upstream.configuration());
        let clock = WallClock::new("+0");
        let sidecar = clock.start_in(dir, &configuration).await;
        faults(&upstream, "pay=delay:2s");
        let attempt = async {
            assert_eq!(code(&sidecar, "A1").await, "SUCCESS", "{to:?} {step}");
        };
        let calls = async {
            until("it is sent", async || upstream.times_sent("A1") == 1).await;
            clock.step_to(step);
            let mut calls = 0;
            while upstream.fake.look(|books| books.times_paid("A1")) == 0 {
                let told = told(&sidecar, "A1").await;
                if upstream.fake.look(|books| books.times_paid("A1")) == 0 {
                    assert_eq!(told, "PROCESSING", "{to:?} {step}");
                    calls += 1;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(calls > 0);
        };
        tokio::join!(attempt, calls);
        assert_eq!(state(&sidecar, "A1").await, "succeeded", "{to:?} {step}");
        let told = told(&sidecar, "A1").await;
        assert!(
            ["SENT", "SENDING"].contains(&told.as_str()),
            "{to:?} {step}: {told}"
        );
        assert_eq!(upstream.times_sent("A1"), 1);
    }
}

/// WeChat answers "no such order" for an order older than its query window. It has forgotten the order and may have
/// paid it.
#[tokio::test(flavor = "multi_thread")]
async fn what_wechat_has_forgotten_is_not_called_refused() {
    let upstream = Upstream::start(To::Redpack).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!("{}{}", embedded(&dir), impatient(&upstream));
    let clock = WallClock::new("-31d");
    let sidecar = clock.start_in(dir, &configuration).await;
    faults(&upstream, "pay=reset-after;query=status:502");
    assert_eq!(code(&sidecar, "A1").await, "SYSTEMERROR");
    clock.step_to("+0");
    let asked = || upstream.fake.look(|books| books.times_asked("gethbinfo", "A1"));
    faults(&upstream, "query=error:NOT_FOUND");
    sidecar.logged("near the end of WeChat's query window").await;
    // Longer than `not_found_after`, with a status call every 500 ms.
    let (begun, asked_before) = (Instant::now(), asked());
    while begun.elapsed() < Duration::from_secs(6) {
        let told = told(&sidecar, "A1").await;
        assert!(["SYSTEMERROR", "PROCESSING"].contains(&told.as_str()), "{told}");
        assert_eq!(state(&sidecar, "A1").await, "unknown");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(asked() >= asked_before + 3, "the status calls asked");
}

/// Guards against a query window counted from the first claim: an order sent again on day 31, with its answer lost,
/// would never be queried.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_again_after_a_month_is_asked_about() {
    let upstream = Upstream::start(To::Redpack).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!("{}{}", embedded(&dir), upstream.configuration());
    let clock = WallClock::new("-31d");
    let sidecar = clock.start_in(dir, &configuration).await;
    faults(&upstream, "pay=error:NOTENOUGH");
    assert_eq!(code(&sidecar, "A1").await, "NOTENOUGH");
    assert_eq!(state(&sidecar, "A1").await, "refused");
    clock.step_to("+0");
    faults(&upstream, "pay=reset-after;query=status:502*1");
    assert_eq!(code(&sidecar, "A1").await, "SYSTEMERROR");
    until("the settler asks, and hears that it is paid", async || {
        state(&sidecar, "A1").await == "succeeded"
    })
    .await;
    assert_eq!(upstream.fake.books().times_paid("A1"), 1);
}

/// Guards against applying WeChat's query window to a handler, which has none: its unknown order would no longer be
/// queried.
#[tokio::test(flavor = "multi_thread")]
async fn a_handlers_order_is_asked_about_after_a_month() {
    let upstream = Upstream::start(PAYS_EACH_CALL).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!("{}{}", embedded(&dir), upstream.configuration());
    let clock = WallClock::new("-31d");
    let sidecar = clock.start_in(dir, &configuration).await;
    faults(&upstream, "pay=reset-after;query=status:502");
    assert_eq!(code(&sidecar, "A1").await, "SYSTEMERROR");
    clock.step_to("+0");
    faults(&upstream, "");
    until("the settler asks, and hears that it is paid", async || {
        state(&sidecar, "A1").await == "succeeded"
    })
    .await;
    assert_eq!(upstream.times_sent("A1"), 1);
}

/// Guards against a pause measured on another replica's clock: a repeat would wait until its own clock catches up.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_waits_for_no_other_replicas_clock() {
    let redis = redis_with_a_user();
    let upstream = Upstream::start(To::Redpack).await;
    let configuration = format!("{}{}", in_redis(&redis.url()), upstream.configuration());
    let (right, ahead) = (WallClock::new("+0"), WallClock::new("+5m"));
    let one = right.start(&configuration).await;
    let other = ahead.start(&configuration).await;
    for (order_no, fault, first) in [
        ("A1", "pay=error:NOTENOUGH", "NOTENOUGH"),
        ("A2", "pay=reset-before;query=status:502", "SYSTEMERROR"),
    ] {
        faults(&upstream, fault);
        assert_eq!(code(&other, order_no).await, first);
        faults(&upstream, "");
        let begun = Instant::now();
        assert_eq!(code(&one, order_no).await, "SUCCESS");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(upstream.times_sent(order_no), 2);
    }
}

/// Guards against a lease that ends by the wall clock: after a step back and a kill, the order would not be queried
/// before that hour.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_step_back_and_a_kill_orders_settle() {
    let redis = redis_with_a_user();
    let upstream = Upstream::start(PAYS_EACH_CALL).await;
    let dir = tempfile::tempdir().unwrap();
    let embedded = embedded(&dir);
    let clock = WallClock::new("+0");
    for (store, dir, order_no) in [
        (embedded, dir, "A1"),
        (in_redis(&redis.url()), tempfile::tempdir().unwrap(), "A2"),
    ] {
        clock.step_to("+0");
        let configuration = format!("{store}{}", impatient(&upstream));
        let mut sidecar = clock.start_in(dir, &configuration).await;
        let neighbour = match order_no {
            "A2" => Some(clock.start(&configuration).await),
            _ => None,
        };
        faults(&upstream, "pay=hang-after");
        let main = sidecar.main;
        let body = Payout::new(order_no).body(Encoding::Json);
        let bytes = request(
            "POST",
            "/pay/sendApiRedPack",
            &[("Content-Type", "application/json")],
            body.as_bytes(),
        );
        let caller = tokio::spawn(async move { exchange(main, &bytes).await.is_some() });
        until("it is sent and paid", async || {
            upstream.fake.look(|books| books.times_paid(order_no)) == 1
        })
        .await;
        clock.step_to("-2h");
        sidecar.kill();
        assert!(!caller.await.unwrap(), "killed before it knew");
        faults(&upstream, "");
        clock.launch(&mut sidecar).await;
        until("it settles, repeated by nobody", async || {
            state(&sidecar, order_no).await == "succeeded"
        })
        .await;
        assert_eq!(upstream.times_sent(order_no), 1);
        drop(neighbour);
    }
}
