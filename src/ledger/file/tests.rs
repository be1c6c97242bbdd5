//! The embedded ledger: files from before, damaged files, many claims at once.

mod clocks;
mod disk;
mod identity;

use redb::Database;

use super::*;
use crate::clock::SystemClock;
use crate::ledger::samples::{order, settled};
use payout_domain::ids::{Fen, Millis};
use payout_domain::order::fixtures::pinned_mut;

const DAY: Duration = Duration::from_secs(86_400);
const RETENTION: Duration = Duration::from_secs(400 * 86_400);

/// Opens the file, or creates it.
fn open(path: &Path) -> Result<FileLedger, OpenError> {
    FileLedger::open(path, RETENTION, true, Arc::new(SystemClock))
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_everything_when_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("payouts.redb");
    let ledger = open(&path).unwrap();
    let first = order("A1", 100);
    ledger.insert(&first).await.unwrap();
    ledger.replace(&first, &settled(&first)).await.unwrap();
    assert!(
        matches!(open(&path), Err(OpenError::InUse { .. })),
        "one process, one ledger"
    );
    drop(ledger);
    let ledger = open(&path).unwrap();
    assert_eq!(ledger.get(&first.key).await.unwrap(), Some(settled(&first)));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_claims_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir.path().join("payouts.redb")).unwrap();
    let orders: Vec<Order> = (0..300).map(|n| order(&format!("G{n}"), 1)).collect();
    futures_util::future::join_all(orders.iter().map(|order| ledger.insert(order))).await;
    let (syncs, operations) = ledger.syncs_and_operations();
    assert_eq!(operations, 300);
    assert!(syncs < 150, "{syncs} syncs for 300 claims at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_handed_out_at_their_merchants_pace_and_to_one_only() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir.path().join("payouts.redb")).unwrap();
    let of = |mch_id: &str, no: &str| {
        let mut order = order(no, 1);
        pinned_mut(&mut order).key.mch_id = MchId::parse(mch_id).unwrap();
        order.attempted_at.ledger = LedgerTime(0);
        order
    };
    for n in 0..9 {
        ledger.insert(&of("19", &format!("S{n}"))).await.unwrap();
    }
    ledger.insert(&of("20", "F1")).await.unwrap();
    let rate = |mch_id: &MchId| (mch_id.as_str() == "19").then_some(3);
    let hidden = Duration::from_secs(60);
    let begun = std::time::Instant::now();
    let (one, other) = tokio::join!(ledger.due(hidden, 9, &rate), ledger.due(hidden, 9, &rate));
    let mut first = [one.unwrap(), other.unwrap()].concat();
    first.sort();
    let count =
        |keys: &[OrderKey], mch_id: &str| keys.iter().filter(|key| key.mch_id.as_str() == mch_id).count();
    assert_eq!((count(&first, "19"), count(&first, "20")), (3, 1), "{first:?}");
    while begun.elapsed() < Duration::from_millis(900) {
        assert_eq!(ledger.due(hidden, 9, &rate).await.unwrap(), []);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(count(&ledger.due(hidden, 9, &rate).await.unwrap(), "19"), 3);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(
        count(&ledger.due(hidden, 2, &rate).await.unwrap(), "19"),
        2,
        "the limit"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unsettled_orders_are_pending_or_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir.path().join("payouts.redb")).unwrap();
    ledger.insert(&order("A1", 1)).await.unwrap();
    ledger.insert(&settled(&order("A2", 1))).await.unwrap();
    ledger
        .insert(&crate::ledger::samples::bill("A3", 1))
        .await
        .unwrap();
    ledger.insert(&order("A4", 1)).await.unwrap();
    let found = ledger.unsettled(9).await.unwrap();
    assert_eq!(found, [order("A1", 1), order("A4", 1)]);
    assert_eq!(ledger.unsettled(1).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("payouts.redb");
    let ledger = open(&path).unwrap();
    for n in 0..200 {
        ledger.insert(&order(&format!("A{n}"), 1)).await.unwrap();
    }
    drop(ledger);
    let whole = std::fs::read(&path).unwrap();
    let mut refused = 0;
    let mut damaged: Vec<Vec<u8>> = vec![
        vec![],
        b"not a database at all".to_vec(),
        vec![0; 8192],
        whole[..whole.len() / 2].to_vec(),
        whole[..4096].to_vec(),
        whole[..100].to_vec(),
    ];
    let mut flipped = whole.clone();
    let at = whole.windows(9).position(|w| w == b"\"format\":").unwrap();
    flipped[at + 40] ^= 0x55;
    damaged.push(flipped);
    for bytes in damaged {
        std::fs::write(&path, &bytes).unwrap();
        match open(&path) {
            Err(OpenError::Damaged { .. } | OpenError::Empty { .. }) => refused += 1,
            Err(other) => panic!("{} bytes: {other}", bytes.len()),
            Ok(_) => panic!("{} bytes were opened", bytes.len()),
        }
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "it is never overwritten");
    }
    assert_eq!(refused, 7);
    std::fs::write(&path, &whole).unwrap();
    assert!(open(&path).is_ok());
}

/// Reads or changes the record of `A1` in the file, without the ledger.
fn record_in(path: &Path, change: impl FnOnce(&[u8], &[u8]) -> Option<[Vec<u8>; 2]>) {
    let locked = DiskLocation(path.to_owned()).take().unwrap();
    let opened = open::open(&locked, path).unwrap();
    let transaction = opened.database.begin_write().unwrap();
    {
        let mut orders = transaction.open_table(tables::ORDERS).unwrap();
        let stored = redb::ReadableTable::get(&orders, "19:A1").unwrap().unwrap();
        let changed = change(stored.value().0, stored.value().1);
        drop(stored);
        if let Some([pinned, changing]) = changed {
            orders.insert("19:A1", (&*pinned, &*changing)).unwrap();
        }
    }
    transaction.commit().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_lacks_a_part_or_has_another_claims_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let first = order("A1", 100);
    let mut other = first.clone();
    pinned_mut(&mut other).claim = 2;
    pinned_mut(&mut other).amount = Fen::new(101).unwrap();
    other.version.nonce = 2;
    let (ours, our_state) = record::encode(&first).unwrap();
    let (others, other_state) = record::encode(&other).unwrap();
    for (case, damaged) in [
        [ours.clone(), vec![]],
        [vec![], our_state.clone()],
        [ours, other_state],
        [others, our_state],
    ]
    .into_iter()
    .enumerate()
    {
        let path = dir.path().join(format!("{case}.redb"));
        let ledger = open(&path).unwrap();
        ledger.insert(&first).await.unwrap();
        drop(ledger);
        record_in(&path, |_, _| Some(damaged.clone()));
        let ledger = open(&path).unwrap();
        for order in [&first, &other] {
            let results = [
                ledger.insert(order).await.map(|_| ()),
                ledger.replace(order, &settled(order)).await.map(|_| ()),
                ledger.remove(order).await.map(|_| ()),
                ledger.get(&order.key).await.map(|_| ()),
                ledger.unsettled(9).await.map(|_| ()),
            ];
            for result in results {
                let error = result.unwrap_err();
                assert!(
                    !error.unsure && error.text.contains("decides nothing"),
                    "{case}: {error}"
                );
            }
        }
        drop(ledger);
        record_in(&path, |pinned, changing| {
            assert_eq!([pinned, changing], damaged, "{case}");
            None
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_leaves_what_is_pinned_byte_for_byte_and_changes_none_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("payouts.redb");
    let first = order("A1", 100);
    let ledger = open(&path).unwrap();
    ledger.insert(&first).await.unwrap();
    drop(ledger);
    let mut kept = Vec::new();
    record_in(&path, |pinned, changing| {
        kept = [pinned, b" "].concat();
        Some([kept.clone(), changing.to_owned()])
    });
    let ledger = open(&path).unwrap();
    let mut next = first.clone();
    next.version.number += 1;
    next.attempts += 1;
    let mut other = next.clone();
    pinned_mut(&mut other).amount = Fen::new(101).unwrap();
    let error = ledger.replace(&first, &other).await.unwrap_err();
    assert!(!error.unsure && error.text.contains("was not written"), "{error}");
    assert_eq!(ledger.get(&first.key).await.unwrap(), Some(first.clone()));
    let replaced = ledger.replace(&first, &next).await.unwrap();
    assert!(matches!(replaced, Replaced::Done), "{replaced:?}");
    assert_eq!(ledger.get(&first.key).await.unwrap(), Some(next));
    drop(ledger);
    record_in(&path, |pinned, _| {
        assert_eq!(pinned, kept);
        None
    });
}

/// The version is the same, but the claim is another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_another_claim_of_the_same_version_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(&dir.path().join("payouts.redb")).unwrap();
    let first = order("A1", 100);
    ledger.insert(&first).await.unwrap();
    let mut other = first.clone();
    pinned_mut(&mut other).claim = 2;
    match ledger.replace(&other, &settled(&other)).await.unwrap() {
        Replaced::Moved(Some(found)) => assert_eq!(*found, first),
        other => panic!("{other:?}"),
    }
    assert_eq!(ledger.get(&first.key).await.unwrap(), Some(first));
}

#[test]
fn another_programs_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.redb");
    Database::create(&path)
        .unwrap()
        .begin_write()
        .unwrap()
        .commit()
        .unwrap();
    assert!(matches!(open(&path), Err(OpenError::Damaged { .. })));
}

#[test]
fn a_missing_folder_is_said_and_not_made() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        open(&dir.path().join("no/such/payouts.redb")),
        Err(OpenError::NotMade { .. })
    ));
}

/// A file as `kill -9` leaves it, with one damaged bit: opening refuses it, or it still holds every order.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_never_opens_without_an_acknowledged_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("payouts.redb");
    let orders: Vec<Order> = (0..400).map(|n| order(&format!("N{n}"), 1)).collect();
    let ledger = open(&path).unwrap();
    for order in &orders {
        ledger.insert(order).await.unwrap();
    }
    let whole = std::fs::read(&path).unwrap();
    drop(ledger);
    let mut opened = 0;
    for (page, bytes) in whole.chunks(4096).enumerate() {
        let Some(found) = bytes.windows(8).position(|bytes| bytes == b"\"orderNo") else {
            continue;
        };
        let mut damaged = whole.clone();
        damaged[page * 4096 + found] ^= 1;
        let case = dir.path().join("case.redb");
        std::fs::write(&case, &damaged).unwrap();
        let Ok(ledger) = open(&case) else { continue };
        opened += 1;
        for order in &orders {
            assert!(
                matches!(ledger.get(&order.key).await, Ok(Some(_))),
                "with a flipped bit in page {page}, the file opens without {}",
                order.key
            );
        }
    }
    assert!(opened > 0, "pages of older commits do not matter");
}
