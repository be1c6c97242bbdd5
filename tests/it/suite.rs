//! What every store must do; `ledger.rs` runs these tests over each of them.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use payout_domain::contract::send::SendRequest;
use payout_domain::encoding::Encoding;
use payout_domain::fields::Fields;
use payout_domain::ids::{HandlerId, LedgerTime, MchId, Millis, Moment, OpenId};
use payout_domain::json;
use payout_domain::limits::{Charge, Counter};
use payout_domain::order::fixtures::pinned_mut;
use payout_domain::order::step::{Event, Policy, Step, step};
use payout_domain::order::{Destination, Lease, NewOrder, Order, State, StateName};
use payout_domain::outcome::{Class, Evidence};
use payout_sidecar::clock::{Clock as _, SystemClock};
use payout_sidecar::payouts::ports::{Inserted, Ledger, ListFilter, QueryRate, Replaced};

const POLICY: Policy = Policy {
    refuses_doubles: true,
    not_found_after: Duration::from_secs(86_400),
};

pub fn order(no: &str, amount: i64) -> Order {
    order_of("19", no, amount, 7, *BASE)
}

pub fn order_of(mch_id: &str, no: &str, amount: i64, trade_record_id: i64, now: Moment) -> Order {
    claim(1, mch_id, no, amount, trade_record_id, now)
}

/// A claim with this nonce.
pub fn order_by(nonce: u64, no: &str, amount: i64) -> Order {
    claim(nonce, "19", no, amount, 7, *BASE)
}

fn claim(nonce: u64, mch_id: &str, no: &str, amount: i64, trade_record_id: i64, now: Moment) -> Order {
    let text = format!(
        r#"{{"wxAppId":"wx1","mchId":"{mch_id}","mchBillno":"{no}","openid":"user-1","amount":{amount},"actName":"a","remark":"r","tradeRecordId":{trade_record_id}}}"#
    );
    let mut parameters = Fields::new();
    parameters.set("remark", "备注\r\n\"]]>");
    parameters.set_number("amount", amount);
    let new = NewOrder {
        upstream: Destination::Handler(HandlerId::parse("http://127.0.0.1:1").unwrap()),
        encoding: Encoding::Json,
        openid: OpenId::parse("oX12abcdefghijk9f").unwrap(),
        parameters,
        charges: vec![],
    };
    let lease = Lease {
        nonce,
        length: Duration::from_secs(30),
    };
    Order::claimed(
        &SendRequest::read(json::decode(&text).unwrap()).unwrap(),
        new,
        lease,
        now,
    )
}

/// When the orders of this process were claimed: a minute ago on both clocks, so that each is due.
pub static BASE: LazyLock<Moment> = LazyLock::new(|| moment(SystemClock.now().0 - 60_000));

pub fn moment(ms: i64) -> Moment {
    Moment::from((ms, ms))
}

/// A v3 bill that WeChat Pay accepted ten minutes before the other orders, and that is followed to its final state.
fn followed(no: &str) -> Order {
    let accepted_at = moment(BASE.wall.0 - 600_000);
    let mut order = order_of("19", no, 100, 7, accepted_at);
    pinned_mut(&mut order).upstream = Destination::TransferBill;
    next(
        &order,
        Evidence::Opened {
            fields: Fields::new(),
            status: "WAIT_USER_CONFIRM".into(),
        },
    )
}

/// A pending order that is due at this time.
pub fn due_at(no: &str, at: LedgerTime) -> Order {
    due_of("19", no, at)
}

pub fn due_of(mch_id: &str, no: &str, at: LedgerTime) -> Order {
    let mut order = order_of(mch_id, no, 100, 7, *BASE);
    let lease = order.due_at().unwrap().0 - order.attempted_at.ledger.0;
    order.attempted_at = moment(at.0 - lease);
    order
}

fn of_merchant(no: &str, mch_id: &str, created_ms: i64) -> Order {
    order_of(mch_id, no, 100, 7, moment(created_ms))
}

fn next(order: &Order, evidence: Evidence) -> Order {
    let event = Event::Attempted {
        version: order.version,
        evidence,
    };
    match step(order, event, POLICY, order.created_at, 0) {
        Step::Become(next) => *next,
        other => panic!("{other:?}"),
    }
}

pub fn settled(order: &Order) -> Order {
    let mut fields = Fields::new();
    fields.set("sendListid", "100000000020150520314766074200");
    next(order, Evidence::Accepted { fields })
}

fn refused(order: &Order) -> Order {
    next(
        order,
        Evidence::Declined {
            class: Class::Refused,
            code: "NOTENOUGH".into(),
            text: "余额不足".into(),
        },
    )
}

fn unknown(order: &Order) -> Order {
    next(
        order,
        Evidence::NoAnswer {
            why: "time-out".into(),
        },
    )
}

const SUM: &str = "user-fen:20780:wx1:u";

fn charged(no: &str, amount: i64, limit: i64) -> Order {
    let mut order = order(no, amount);
    order.charges = vec![Charge {
        counter: Counter::UserFen,
        name: SUM.into(),
        amount,
        limit,
    }];
    order
}

fn is_done(replaced: &Replaced) -> bool {
    matches!(replaced, Replaced::Done)
}

/// Runs the whole suite over an empty store.
pub async fn run(ledger: &dyn Ledger) {
    ledger.ready().await.unwrap();
    writes_follow_versions(ledger).await;
    limits_are_charged_with_the_claim(ledger).await;
    due_orders_are_handed_out_once(ledger).await;
    lists_come_newest_first(ledger).await;
    unsettled_orders_are_found_among_all_others(ledger).await;
    one_of_many_claims_wins(ledger).await;
    limits_hold_in_a_race(ledger).await;
    a_plain_model_agrees(ledger).await;
}

async fn writes_follow_versions(ledger: &dyn Ledger) {
    let first = order("V1", 100);
    assert!(ledger.get(&first.key).await.unwrap().is_none());
    assert!(matches!(ledger.insert(&first).await.unwrap(), Inserted::Done));
    assert!(
        matches!(ledger.insert(&first).await.unwrap(), Inserted::Done),
        "the very same claim, written again"
    );
    let other = order("V1", 101);
    match ledger.insert(&other).await.unwrap() {
        Inserted::Exists(found) => assert_eq!(*found, first),
        other => panic!("{other:?}"),
    }
    // Another replica's claim that was never written has the same version number. It must not change this one.
    let mut never_written = first.clone();
    never_written.version.nonce += 1;
    assert!(matches!(
        ledger.remove(&never_written).await.unwrap(),
        Replaced::Moved(Some(_))
    ));
    assert!(matches!(
        ledger
            .replace(&never_written, &settled(&never_written))
            .await
            .unwrap(),
        Replaced::Moved(Some(_))
    ));
    let second = unknown(&first);
    let third = settled(&first);
    assert!(is_done(&ledger.replace(&first, &second).await.unwrap()));
    assert!(
        is_done(&ledger.replace(&first, &second).await.unwrap()),
        "the very same change, written again"
    );
    match ledger.replace(&first, &third).await.unwrap() {
        Replaced::Moved(Some(found)) => assert_eq!(*found, second),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        ledger.remove(&first).await.unwrap(),
        Replaced::Moved(Some(_))
    ));
    assert_eq!(ledger.get(&first.key).await.unwrap().unwrap(), second);
    assert!(is_done(&ledger.remove(&second).await.unwrap()));
    assert!(matches!(
        ledger.remove(&second).await.unwrap(),
        Replaced::Moved(None)
    ));
    assert!(matches!(
        ledger.replace(&first, &second).await.unwrap(),
        Replaced::Moved(None)
    ));
    assert!(ledger.get(&first.key).await.unwrap().is_none());
}

async fn limits_are_charged_with_the_claim(ledger: &dyn Ledger) {
    let (first, second, third) = (
        charged("L1", 60, 100),
        charged("L2", 41, 100),
        charged("L3", 40, 100),
    );
    let used = async |sum| ledger.used(&first.key.mch_id, sum).await.unwrap();
    assert_eq!(used(SUM).await, 0);
    assert!(matches!(ledger.insert(&first).await.unwrap(), Inserted::Done));
    assert!(
        matches!(ledger.insert(&first).await.unwrap(), Inserted::Done),
        "not charged again"
    );
    assert_eq!((used(SUM).await, used("user-fen:20780:wx1:v").await), (60, 0));
    let other = MchId::parse("1900000110").unwrap();
    assert_ne!(other, first.key.mch_id);
    assert_eq!(ledger.used(&other, SUM).await.unwrap(), 0);
    assert!(matches!(
        ledger.insert(&second).await.unwrap(),
        Inserted::OverLimit(0)
    ));
    assert!(
        ledger.get(&second.key).await.unwrap().is_none(),
        "what is over a limit is not recorded"
    );
    assert!(
        matches!(ledger.insert(&third).await.unwrap(), Inserted::Done),
        "exactly the limit"
    );
    assert_eq!(used(SUM).await, 100);
    // A refusal returns the charges. A new claim of the order charges them again, and fails if the limit has no room
    // left.
    let given_back = refused(&first);
    assert!(is_done(&ledger.replace(&first, &given_back).await.unwrap()));
    assert!(
        is_done(&ledger.replace(&first, &given_back).await.unwrap()),
        "not given back twice"
    );
    assert!(matches!(ledger.insert(&second).await.unwrap(), Inserted::Done) == (40 + 41 <= 100));
    let mut again = given_back.clone();
    again.version.number += 1;
    again.charges = first.charges.clone();
    assert!(matches!(
        ledger.replace(&given_back, &again).await.unwrap(),
        Replaced::OverLimit(0)
    ));
    assert_eq!(ledger.get(&first.key).await.unwrap().unwrap(), given_back);
    assert!(
        is_done(&ledger.remove(&second).await.unwrap()),
        "a claim that is taken back gives back too"
    );
    assert!(is_done(&ledger.replace(&given_back, &again).await.unwrap()));
    for order in [&again, &third] {
        assert!(is_done(&ledger.remove(order).await.unwrap()));
    }
    assert_eq!(used(SUM).await, 0);
}

async fn due_orders_are_handed_out_once(ledger: &dyn Ledger) {
    const HIDDEN: Duration = Duration::from_secs(1);
    let no_pace: QueryRate<'_> = &|_| None;
    let due = async |limit| ledger.due(HIDDEN, limit, no_pace).await.unwrap();
    let again = || tokio::time::sleep(HIDDEN + Duration::from_millis(100));
    let now = ledger.time();
    let pending = due_at("D1", LedgerTime(now.0 - 1000));
    let mut asked = unknown(&order("D2", 100));
    let State::Unknown(unknown) = &mut asked.state else {
        panic!()
    };
    unknown.next_query_at = LedgerTime(now.0 - 2000);
    let done = settled(&order("D3", 100));
    let later = due_at("D4", LedgerTime(now.0 + 3_600_000));
    for order in [&pending, &asked, &done, &later] {
        assert!(matches!(ledger.insert(order).await.unwrap(), Inserted::Done));
    }
    assert_eq!(due(1).await, [asked.key.clone()], "the oldest first");
    assert_eq!(due(9).await, [pending.key.clone()]);
    assert_eq!(due(9).await, [], "hidden");
    again().await;
    let mut found = due(9).await;
    found.sort();
    assert_eq!(
        found,
        [pending.key.clone(), asked.key.clone()],
        "nobody settled them"
    );
    let after = settled(&pending);
    assert!(is_done(&ledger.replace(&pending, &after).await.unwrap()));
    again().await;
    assert_eq!(due(9).await, [asked.key.clone()]);
    again().await;
    let one: QueryRate<'_> = &|_| Some(1);
    let more = due_at("D5", LedgerTime(now.0 - 500));
    assert!(matches!(ledger.insert(&more).await.unwrap(), Inserted::Done));
    assert_eq!(ledger.due(HIDDEN, 9, one).await.unwrap(), [more.key.clone()]);
    assert_eq!(
        ledger.due(HIDDEN, 9, one).await.unwrap(),
        [],
        "one in a second is the rate"
    );
    again().await;
    assert_eq!(ledger.due(HIDDEN, 9, one).await.unwrap().len(), 1);
    for order in [&after, &asked, &done, &later, &more] {
        assert!(is_done(&ledger.remove(order).await.unwrap()));
    }
    again().await;
    assert_eq!(due(9).await, []);
}

async fn unsettled_orders_are_found_among_all_others(ledger: &dyn Ledger) {
    let pending = order("U1", 100);
    let (one, other) = (unknown(&order("U2", 100)), unknown(&order("U3", 100)));
    let done = settled(&order("U4", 100));
    for order in [&pending, &one, &other, &done] {
        assert!(matches!(ledger.insert(order).await.unwrap(), Inserted::Done));
    }
    // Accepted bills that are followed are looked at like unsettled orders, and before these, but are settled.
    let bills: Vec<Order> = (0..12).map(|n| followed(&format!("UB{n:02}"))).collect();
    for bill in &bills {
        assert!(matches!(ledger.insert(bill).await.unwrap(), Inserted::Done));
    }
    let mut found = ledger.unsettled(9).await.unwrap();
    found.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(found, [pending.clone(), one.clone(), other.clone()]);
    assert_eq!(ledger.unsettled(1).await.unwrap().len(), 1);
    for order in [&pending, &one, &other, &done].into_iter().chain(&bills) {
        assert!(is_done(&ledger.remove(order).await.unwrap()));
    }
    assert_eq!(ledger.unsettled(9).await.unwrap(), []);
}

async fn lists_come_newest_first(ledger: &dyn Ledger) {
    let base = order("X", 1).created_at.wall.0;
    let orders: Vec<Order> = (0..25)
        .map(|n| {
            of_merchant(
                &format!("N{n:02}"),
                if n % 2 == 0 { "19" } else { "20" },
                base + n,
            )
        })
        .map(|order| {
            if order.created_at.wall.0 % 5 == 0 {
                settled(&order)
            } else {
                order
            }
        })
        .collect();
    for order in &orders {
        assert!(matches!(ledger.insert(order).await.unwrap(), Inserted::Done));
    }
    let pages = |filter: ListFilter| async move {
        let (mut found, mut filter) = (vec![], filter);
        loop {
            let page = ledger.list(&filter).await.unwrap();
            assert!(page.orders.len() <= filter.limit);
            found.extend(
                page.orders
                    .iter()
                    .map(|order| order.key.order_no.as_str().to_owned()),
            );
            filter.cursor = page.next;
            if filter.cursor.is_none() {
                return found;
            }
        }
    };
    let expected = |keep: &dyn Fn(&Order) -> bool| -> Vec<String> {
        orders
            .iter()
            .rev()
            .filter(|order| keep(order))
            .map(|order| order.key.order_no.as_str().to_owned())
            .collect()
    };
    let all = ListFilter {
        limit: 7,
        ..ListFilter::default()
    };
    assert_eq!(pages(all.clone()).await, expected(&|_| true));
    let mch_id = MchId::parse("20").ok();
    assert_eq!(
        pages(ListFilter {
            mch_id: mch_id.clone(),
            ..all.clone()
        })
        .await,
        expected(&|o| o.key.mch_id == mch_id.clone().unwrap())
    );
    let since = Some(Millis(base + 10));
    assert_eq!(
        pages(ListFilter { since, ..all.clone() }).await,
        expected(&|o| o.created_at.wall.0 >= base + 10)
    );
    let state = Some(StateName::Succeeded);
    assert_eq!(
        pages(ListFilter { state, ..all.clone() }).await,
        expected(&|o| o.state.name() == StateName::Succeeded)
    );
    assert!(
        ledger
            .list(&ListFilter {
                cursor: Some("nonsense".into()),
                ..all
            })
            .await
            .is_err()
    );
    for order in &orders {
        assert!(is_done(&ledger.remove(order).await.unwrap()));
    }
}

async fn one_of_many_claims_wins(ledger: &dyn Ledger) {
    let claims: Vec<Order> = (0..200).map(|n| order_of("19", "R1", 100, n, *BASE)).collect();
    let all = futures_util::future::join_all(claims.iter().map(|order| ledger.insert(order))).await;
    let won = all
        .iter()
        .filter(|inserted| matches!(inserted, Ok(Inserted::Done)))
        .count();
    assert_eq!(won, 1);
    assert!(all.iter().all(Result::is_ok));
    let stored = ledger.get(&claims.first().unwrap().key).await.unwrap().unwrap();
    assert!(is_done(&ledger.remove(&stored).await.unwrap()));
}

async fn limits_hold_in_a_race(ledger: &dyn Ledger) {
    let orders: Vec<Order> = (0..60).map(|n| charged(&format!("C{n}"), 7, 100)).collect();
    let all = futures_util::future::join_all(orders.iter().map(|order| ledger.insert(order))).await;
    let taken: Vec<&Order> = orders
        .iter()
        .zip(&all)
        .filter(|(_, inserted)| matches!(inserted, Ok(Inserted::Done)))
        .map(|(o, _)| o)
        .collect();
    assert_eq!(taken.len(), 14, "14 times 7 fen are within 100");
    for order in taken {
        assert!(is_done(&ledger.remove(order).await.unwrap()));
    }
}

/// Compares random writes, in random order, with a map.
async fn a_plain_model_agrees(ledger: &dyn Ledger) {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % u64::try_from(below).unwrap()).unwrap()
    };
    let mut model: HashMap<String, Order> = HashMap::new();
    for _ in 0..400 {
        let name = format!("M{}", random(5));
        let stored = model.get(&name).cloned();
        match (random(4), stored) {
            (0 | 1, stored) => {
                let new = order(&name, i64::try_from(random(3)).unwrap() + 1);
                let expected = stored.as_ref().is_none_or(|stored| *stored == new);
                let inserted = ledger.insert(&new).await.unwrap();
                assert_eq!(matches!(inserted, Inserted::Done), expected);
                model.entry(name).or_insert(new);
            }
            (2, Some(stored)) => {
                let mut stale = stored.clone();
                stale.version.nonce ^= u64::try_from(random(2)).unwrap();
                let mut next = stale.clone();
                next.version.number += 1;
                next.attempts += 1;
                let expected = stale.version == stored.version;
                assert_eq!(is_done(&ledger.replace(&stale, &next).await.unwrap()), expected);
                if expected {
                    model.insert(name, next);
                }
            }
            (3, Some(stored)) => {
                assert!(is_done(&ledger.remove(&stored).await.unwrap()));
                model.remove(&name);
            }
            _ => {}
        }
    }
    for order in model.values() {
        assert_eq!(ledger.get(&order.key).await.unwrap().as_ref(), Some(order));
    }
    for order in model.values() {
        assert!(is_done(&ledger.remove(order).await.unwrap()));
    }
}
