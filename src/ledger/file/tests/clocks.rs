//! Wrong clocks, and the ledger's own time.

use std::time::Instant;

use super::*;
use payout_domain::limits::{Charge, Counter};

/// The machine's clock, off by this many days.
struct Off(i64);

impl Clock for Off {
    fn now(&self) -> Millis {
        Millis(SystemClock.now().0 + self.0 * 86_400_000)
    }

    fn passed(&self) -> Duration {
        SystemClock.passed()
    }
}

fn open_off(path: &Path, days: i64) -> FileLedger {
    FileLedger::open(path, RETENTION, true, Arc::new(Off(days))).unwrap()
}

/// An order that was settled this long ago.
fn settled_ago(ledger: &FileLedger, no: &str, ago: Duration) -> Order {
    let mut order = settled(&order(no, 1));
    let at = LedgerTime(ledger.time().0 - i64::try_from(ago.as_millis()).unwrap());
    pinned_mut(&mut order).created_at.ledger = at;
    order.changed_at = at;
    order
}

/// Ages the file as if the ledger had been open this much longer.
fn age(path: &Path, by: Duration) {
    let locked = DiskLocation(path.to_owned()).take().unwrap();
    let opened = open::open(&locked, path).unwrap();
    let transaction = opened.database.begin_write().unwrap();
    drop(tables::Tables::open(&transaction, opened.about.time.after(by)).unwrap());
    transaction.commit().unwrap();
}

async fn has(ledger: &FileLedger, order: &Order) -> bool {
    ledger.get(&order.key).await.unwrap().is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_stands_401_days_wrong_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (case, clocks) in [[0, 401, 0], [0, -401, 0], [-401, 0, 401], [401, 0, -401]]
        .iter()
        .enumerate()
    {
        let path = dir.path().join(format!("{case}.redb"));
        let mut kept = Vec::new();
        let charge = Charge {
            counter: Counter::UserFen,
            name: "user-fen:20780:wx1:u".into(),
            amount: 1,
            limit: 100,
        };
        for (nth, days) in clocks.iter().enumerate() {
            let ledger = open_off(&path, *days);
            ledger.ready().await.unwrap();
            for order in &kept {
                assert!(has(&ledger, order).await, "clocks {clocks:?}, start {nth}");
            }
            let sum = ledger
                .used(&order("A", 1).key.mch_id, &charge.name)
                .await
                .unwrap();
            assert_eq!(sum, i64::try_from(nth).unwrap(), "clocks {clocks:?}, start {nth}");
            let mut order = settled_ago(&ledger, &format!("A{nth}"), Duration::ZERO);
            pinned_mut(&mut order).created_at.wall = Off(*days).now();
            order.charges = vec![charge.clone()];
            ledger.insert(&order).await.unwrap();
            kept.push(order);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settled_records_go_after_their_retention_and_unsettled_ones_stay() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("payouts.redb");
    let ledger = open(&path).unwrap();
    let minute = Duration::from_secs(60);
    let gone = settled_ago(&ledger, "A1", RETENTION + minute);
    let young = settled_ago(&ledger, "A2", RETENTION - minute);
    let mut settled_late = settled_ago(&ledger, "A3", RETENTION + minute);
    settled_late.changed_at = ledger.time();
    let mut pending = order("A4", 1);
    pinned_mut(&mut pending).created_at.ledger = LedgerTime(0);
    pending.changed_at = LedgerTime(0);
    for order in [&gone, &young, &settled_late, &pending] {
        ledger.insert(order).await.unwrap();
    }
    drop(ledger);
    let ledger = open(&path).unwrap();
    ledger.ready().await.unwrap();
    assert!(!has(&ledger, &gone).await);
    for order in [&young, &settled_late, &pending] {
        assert!(has(&ledger, order).await, "{}", order.key);
    }
}

/// More records than one clearing step examines, with unsettled ones between them.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_is_cleared_away_behind_what_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("payouts.redb");
    let ledger = open(&path).unwrap();
    let mut orders: Vec<Order> = (0..600)
        .map(|n| {
            let mut order = order(&format!("P{n}"), 1);
            pinned_mut(&mut order).created_at.ledger = LedgerTime(n);
            order
        })
        .collect();
    let old = settled_ago(&ledger, "OLD", RETENTION + DAY);
    orders.push(old.clone());
    futures_util::future::join_all(orders.iter().map(|order| ledger.insert(order))).await;
    drop(ledger);
    let ledger = open(&path).unwrap();
    ledger.ready().await.unwrap();
    assert!(has(&ledger, &old).await, "not all at once");
    let begun = Instant::now();
    while has(&ledger, &old).await {
        assert!(begun.elapsed() < Duration::from_secs(10), "it is never reached");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_go_three_days_after_their_last_change() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("payouts.redb");
    let mut charged = order("A1", 7);
    charged.charges = vec![Charge {
        counter: Counter::UserFen,
        name: "user-fen:20780:wx1:u".into(),
        amount: 7,
        limit: 100,
    }];
    let ledger = open(&path).unwrap();
    ledger.insert(&charged).await.unwrap();
    drop(ledger);
    for (days, left) in [(2, 7), (2, 0)] {
        age(&path, DAY * days);
        let ledger = open(&path).unwrap();
        ledger.ready().await.unwrap();
        assert_eq!(
            ledger
                .used(&charged.key.mch_id, &charged.charges[0].name)
                .await
                .unwrap(),
            left
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledgers_time_goes_on_from_where_it_was_and_while_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("payouts.redb");
    drop(open(&path).unwrap());
    age(&path, DAY * 10);
    let before = Instant::now();
    let begun = FileLedger::open(&path, RETENTION, false, Arc::new(Off(-30)))
        .unwrap()
        .time();
    // It may not have saved the time that passed while it was open.
    let unwritten = before.elapsed();
    assert!(
        begun.since(LedgerTime(SystemClock.now().0)) > DAY * 9,
        "not the wall clock's"
    );
    let config = WriterConfig {
        retention: RETENTION,
        tick: Duration::from_millis(100),
    };
    let place = Arc::new(DiskLocation(path.clone()));
    let locked = place.take().unwrap();
    let ledger = FileLedger::over(
        place,
        Some(locked),
        config,
        Arc::new(SystemClock),
        Syncs::default(),
    )
    .unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let passed = ledger.time().since(begun);
    let (least, most) = (Duration::from_millis(1490), before.elapsed());
    assert!(passed + unwritten >= least, "{passed:?} {unwritten:?}");
    assert!(passed <= most + Duration::from_millis(10), "{passed:?} {most:?}");
    drop(ledger);
    let later = open(&path).unwrap().time();
    assert!(
        later.since(begun) + unwritten >= Duration::from_secs(1),
        "nothing was written meanwhile"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_since_a_day_goes_by_the_wall_clock_of_each_claim() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("payouts.redb");
    let ledger = open_off(&path, -401);
    let at = |ledger: &FileLedger, days: i64, no: &str| {
        let mut order = order(no, 1);
        pinned_mut(&mut order).created_at.wall = Off(days).now();
        pinned_mut(&mut order).created_at.ledger = ledger.time();
        order
    };
    ledger.insert(&at(&ledger, -401, "OLD")).await.unwrap();
    drop(ledger);
    // Orders claimed in the same millisecond have no defined order.
    age(&path, Duration::from_secs(1));
    let ledger = open_off(&path, 0);
    ledger.insert(&at(&ledger, 0, "NEW")).await.unwrap();
    let since = |days: i64| ListFilter {
        since: Some(Off(days).now()),
        limit: 9,
        ..ListFilter::default()
    };
    let listed = async |days| {
        let page = ledger.list(&since(days)).await.unwrap();
        let names = page
            .orders
            .iter()
            .map(|order| order.key.order_no.as_str().to_owned());
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(listed(-1).await, "NEW");
    assert_eq!(listed(-402).await, "NEW OLD");
    assert_eq!(listed(1).await, "");
}
