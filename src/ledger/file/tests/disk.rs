//! Disks that lose power, are full, or fail.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use redb::StorageBackend;

use super::*;
use crate::ledger::file::place::Mark;

/// A disk with a cache, as the operating system provides it.
#[derive(Debug, Default, Clone)]
struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    /// What a read returns.
    cache: Vec<u8>,
    /// What remains after a power loss.
    disk: Vec<u8>,
    /// Ranges that are written to the cache only.
    dirty: Vec<(usize, usize)>,
    /// The disk's content after each sync.
    synced: Vec<Vec<u8>>,
    keeps: bool,
    failing: Option<DiskFault>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum DiskFault {
    Reads,
    Writes,
    /// This many syncs succeed first. After a failed sync, the cache counts as written, as on Linux.
    SyncsAfter(u8),
}

impl Disk {
    fn get(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fails(&self, fault: Option<DiskFault>) {
        self.get().failing = fault;
    }

    fn holding(bytes: Vec<u8>) -> Self {
        let disk = Self::default();
        disk.get().cache.clone_from(&bytes);
        disk.get().disk = bytes;
        disk
    }

    fn new_ledger() -> Self {
        let disk = Self::default();
        open::fill(Arc::new(disk.clone()), LedgerTime(SystemClock.now().0)).unwrap();
        disk
    }

    fn ledger(&self) -> Result<FileLedger, OpenError> {
        let config = WriterConfig {
            retention: RETENTION,
            tick: TICK,
        };
        let locked = self.take()?;
        FileLedger::over(
            Arc::new(self.clone()),
            Some(locked),
            config,
            Arc::new(SystemClock),
            Syncs::default(),
        )
    }
}

impl Platter {
    fn check(&self, fault: DiskFault) -> io::Result<()> {
        if self.failing == Some(fault) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    }
}

impl Location for Disk {
    fn path(&self) -> &Path {
        Path::new("disk.redb")
    }

    fn take(&self) -> Result<LockedFile, OpenError> {
        Ok(LockedFile {
            bytes: Arc::new(self.clone()),
            mark: self.found().unwrap().unwrap(),
        })
    }

    fn found(&self) -> io::Result<Option<Mark>> {
        DiskLocation(std::env::temp_dir()).found()
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.get().cache.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let disk = self.get();
        disk.check(DiskFault::Reads)?;
        let found = disk.cache.get(at..at + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.get();
        disk.check(DiskFault::Writes)?;
        disk.cache.resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.get();
        let dirty = std::mem::take(&mut disk.dirty);
        let length = disk.cache.len();
        disk.disk.resize(length, 0);
        match &mut disk.failing {
            Some(DiskFault::SyncsAfter(0)) => return Err(io::Error::other("I/O error")),
            Some(DiskFault::SyncsAfter(left)) => *left -= 1,
            _ => {}
        }
        let Platter {
            cache,
            disk: platter,
            synced,
            keeps,
            ..
        } = &mut *disk;
        for (at, length) in dirty {
            platter[at..at + length].copy_from_slice(&cache[at..at + length]);
        }
        if *keeps {
            synced.push(platter.clone());
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let mut disk = self.get();
        disk.check(DiskFault::Writes)?;
        disk.cache[at..at + data.len()].copy_from_slice(data);
        disk.dirty.push((at, data.len()));
        Ok(())
    }
}

/// Every acknowledged claim survives a power loss at any later sync, and the ledger can continue from there.
#[tokio::test(flavor = "multi_thread")]
async fn a_power_loss_forgets_nothing_that_was_acknowledged() {
    let disk = Disk::new_ledger();
    disk.get().keeps = true;
    let ledger = disk.ledger().unwrap();
    let synced = || disk.get().synced.len();
    let mut acknowledged = Vec::new();
    for n in 0..20 {
        let claim = order(&format!("P{n}"), 1);
        ledger.insert(&claim).await.unwrap();
        acknowledged.push((synced(), claim.clone()));
        let done = settled(&claim);
        ledger.replace(&claim, &done).await.unwrap();
        acknowledged.push((synced(), done));
    }
    let synced = std::mem::take(&mut disk.get().synced);
    disk.get().keeps = false;
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
        let ledger = Disk::holding(bytes.clone()).ledger().unwrap();
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

async fn works_again(ledger: &FileLedger) {
    let begun = Instant::now();
    while let Err(error) = ledger.ready().await {
        assert!(begun.elapsed() < Duration::from_secs(10), "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_error_does_not_outlast_the_disks_trouble() {
    for fault in [
        DiskFault::Writes,
        DiskFault::SyncsAfter(0),
        DiskFault::SyncsAfter(1),
    ] {
        let disk = Disk::new_ledger();
        let ledger = disk.ledger().unwrap();
        ledger.insert(&order("A0", 1)).await.unwrap();
        let mut acknowledged = vec![order("A0", 1)];
        for round in 0..3 {
            disk.fails(Some(fault));
            let claim = order(&format!("U{round}"), 1);
            let error = ledger.insert(&claim).await.unwrap_err();
            assert!(error.unsure, "a commit that failed: {error}");
            assert!(ledger.ready().await.is_err());
            let begun = Instant::now();
            for n in 0..200 {
                let error = ledger.insert(&order(&format!("N{n}"), 1)).await.unwrap_err();
                assert!(!error.unsure, "{error}");
                assert!(error.text.contains("disk.redb"), "{error}");
            }
            assert!(begun.elapsed() < Duration::from_secs(1), "nobody waits");
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(ledger.get(&order("A0", 1).key).await.is_err());
            disk.fails(None);
            works_again(&ledger).await;
            for claim in [claim, order(&format!("A{}", round + 1), 1)] {
                let done = ledger.insert(&claim).await.unwrap();
                assert!(matches!(done, Inserted::Done), "{fault:?} {done:?}");
                acknowledged.push(claim);
            }
            for order in &acknowledged {
                assert_eq!(ledger.get(&order.key).await.unwrap().as_ref(), Some(order));
            }
            // The power fails now: everything that a read returns is on the disk.
            let after = Disk::holding(disk.get().disk.clone()).ledger().unwrap();
            for order in &acknowledged {
                assert_eq!(
                    after.get(&order.key).await.unwrap().as_ref(),
                    Some(order),
                    "{fault:?}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_fails_has_the_file_opened_again() {
    let disk = Disk::new_ledger();
    let ledger = disk.ledger().unwrap();
    // More than fits into the cache.
    let orders: Vec<Order> = (0..4000).map(|n| order(&format!("A{n}"), 1)).collect();
    futures_util::future::join_all(orders.iter().map(|order| ledger.insert(order))).await;
    disk.fails(Some(DiskFault::Reads));
    let mut failed = 0;
    for order in &orders {
        failed += usize::from(ledger.get(&order.key).await.is_err());
    }
    assert!(failed > 0, "everything was in memory");
    assert!(ledger.ready().await.is_err());
    disk.fails(None);
    works_again(&ledger).await;
    for order in &orders {
        assert_eq!(ledger.get(&order.key).await.unwrap().as_ref(), Some(order));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_comes_back_damaged_stays_shut() {
    let disk = Disk::new_ledger();
    let ledger = disk.ledger().unwrap();
    ledger.insert(&order("A1", 1)).await.unwrap();
    disk.fails(Some(DiskFault::Writes));
    ledger.insert(&order("A2", 1)).await.unwrap_err();
    let whole = disk.get().cache[..64].to_vec();
    disk.get().cache[..64].fill(0x55);
    disk.fails(None);
    let begun = Instant::now();
    loop {
        let error = ledger.ready().await.unwrap_err();
        if error.text.contains("is damaged or no ledger") {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let bytes = {
        let mut disk = disk.get();
        disk.cache[..64].copy_from_slice(&whole);
        disk.cache.clone()
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(
        ledger.insert(&order("A3", 1)).await.is_err(),
        "what it comes back as is a person's to say"
    );
    drop(ledger);
    assert!(disk.get().cache == bytes, "it is left as it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_ledger_is_not_taken_for_the_one_that_failed() {
    let disk = Disk::new_ledger();
    let ledger = disk.ledger().unwrap();
    ledger.insert(&order("A1", 1)).await.unwrap();
    disk.fails(Some(DiskFault::Writes));
    ledger.insert(&order("A2", 1)).await.unwrap_err();
    let other = Disk::new_ledger().get().cache.clone();
    disk.get().cache = other;
    disk.fails(None);
    let begun = Instant::now();
    loop {
        let error = ledger.ready().await.unwrap_err();
        if error.text.contains("holds another ledger") {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(ledger.get(&order("A1", 1).key).await.is_err());
}
