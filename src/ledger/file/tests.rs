//! The embedded ledger: the suite of all stores, damaged files, and a disk that forgets what was not synced.

use std::sync::{Mutex, PoisonError};

use redb::StorageBackend;

use super::*;
use crate::clock::SystemClock;
use crate::ledger::samples::{order, settled};

const RETENTION: Duration = Duration::from_secs(400 * 86_400);

fn open(path: &Path) -> Result<FileLedger, OpenError> {
    FileLedger::open(path, RETENTION, Arc::new(SystemClock))
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
async fn settled_records_go_after_their_retention_and_unsettled_ones_stay() {
    struct Later;
    impl Clock for Later {
        fn now(&self) -> Millis {
            Millis(order("A1", 1).created_at.0 + 500 * 86_400_000)
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("payouts.redb");
    let ledger = open(&path).unwrap();
    let (done, pending) = (settled(&order("A1", 1)), order("A2", 1));
    ledger.insert(&done).await.unwrap();
    ledger.insert(&pending).await.unwrap();
    drop(ledger);
    let ledger = FileLedger::open(&path, RETENTION, Arc::new(Later)).unwrap();
    ledger.insert(&order("A3", 1)).await.unwrap();
    assert_eq!(ledger.get(&done.key).await.unwrap(), None);
    assert_eq!(ledger.get(&pending.key).await.unwrap(), Some(pending));
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
        Err(OpenError::Unusable { .. })
    ));
}

/// A disk: what was written, and what it held at each sync.
#[derive(Debug, Default, Clone)]
struct Disk(Arc<Mutex<Platter>>);

type Platter = (Vec<u8>, Vec<Vec<u8>>);

impl Disk {
    fn with<T>(&self, f: impl FnOnce(&mut Platter) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What a power loss after each sync would leave.
    fn synced(&self) -> Vec<Vec<u8>> {
        self.with(|(_, synced)| synced.clone())
    }

    fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new((bytes, vec![]))))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, std::io::Error> {
        Ok(self.with(|(bytes, _)| bytes.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        let at = usize::try_from(offset).unwrap();
        self.with(|(bytes, _)| out.copy_from_slice(&bytes[at..at + out.len()]));
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.with(|(bytes, _)| bytes.resize(usize::try_from(len).unwrap(), 0));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.with(|(bytes, synced)| synced.push(bytes.clone()));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        let at = usize::try_from(offset).unwrap();
        self.with(|(bytes, _)| bytes[at..at + data.len()].copy_from_slice(data));
        Ok(())
    }
}

/// Every acknowledged claim is there after a power loss at any later sync, and the ledger can go on from it.
#[tokio::test(flavor = "multi_thread")]
async fn a_power_loss_forgets_nothing_that_was_acknowledged() {
    let disk = Disk::default();
    let database = redb::Builder::new().create_with_backend(disk.clone()).unwrap();
    tables::create(&database).unwrap();
    let ledger = FileLedger::over(database, RETENTION, Arc::new(SystemClock), Syncs::default());
    let mut acknowledged = Vec::new();
    for n in 0..20 {
        let claim = order(&format!("P{n}"), 1);
        ledger.insert(&claim).await.unwrap();
        acknowledged.push((disk.synced().len(), claim.clone()));
        let done = settled(&claim);
        ledger.replace(&claim, &done).await.unwrap();
        acknowledged.push((disk.synced().len(), done));
    }
    let synced = disk.synced();
    assert!(
        synced.len() >= 40,
        "{} syncs for 40 changes, one after the other",
        synced.len()
    );
    let mut looked_at = 0;
    for (syncs, bytes) in synced.iter().enumerate().map(|(at, bytes)| (at + 1, bytes)) {
        let Some((_, newest)) = acknowledged.iter().rev().find(|(at, _)| *at <= syncs) else {
            continue;
        };
        let survivor = Disk::holding(bytes.clone());
        let database = redb::Builder::new().create_with_backend(survivor).unwrap();
        tables::check(&database).unwrap();
        let ledger = FileLedger::over(database, RETENTION, Arc::new(SystemClock), Syncs::default());
        let found = ledger.get(&newest.key).await.unwrap().unwrap();
        assert!(
            found.version.number >= newest.version.number,
            "after sync {syncs}"
        );
        assert!(matches!(
            ledger.insert(&order("NEW", 1)).await,
            Ok(Inserted::Done)
        ));
        looked_at += 1;
    }
    assert!(looked_at >= 40, "only {looked_at} power losses were tried");
}

/// A file as kill -9 leaves it, damaged in one bit: it is refused, or it still holds every order.
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
