//! A ledger is created once, and a process that knows one accepts no other in its place.

use super::*;
use crate::ledger::keeper::{Keeper, Standing as Kept};

fn closed(path: &Path) -> Result<FileLedger, OpenError> {
    FileLedger::open(path, RETENTION, false, Arc::new(SystemClock))
}

/// Checks that the ledger claims nothing, reports nothing as missing, and is not ready, and that each error contains
/// `says`.
async fn takes_nothing(ledger: &FileLedger, says: &str) {
    let results = [
        ledger.ready().await.map(|()| "ready".to_owned()),
        ledger
            .insert(&order("Z1", 1))
            .await
            .map(|done| format!("{done:?}")),
        ledger
            .get(&order("Z2", 1).key)
            .await
            .map(|done| format!("{done:?}")),
    ];
    for result in results {
        let error = result.unwrap_err();
        assert!(error.text.contains(says), "{error}");
        assert!(!error.unsure, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_is_made_by_a_person_and_found_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("payouts.redb");
    let ledger = closed(&path).unwrap();
    let keeper = FileKeeper::new(&path);
    assert_eq!(keeper.status().await.unwrap(), Kept::None);
    let says = format!(
        "{} holds no ledger: run payout-sidecar ledger create",
        path.display()
    );
    takes_nothing(&ledger, &says).await;
    assert!(!path.exists());
    let id = keeper.create().await.unwrap();
    ledger.ready().await.unwrap();
    ledger.insert(&order("A1", 1)).await.unwrap();
    assert!(ledger.time() > order("A1", 1).created_at.ledger || ledger.time().0 > 0);
    assert_eq!(keeper.status().await.unwrap(), Kept::InUse);
    let error = keeper.create().await.unwrap_err();
    assert!(error.text.contains("is there already"), "{error}");
    drop(ledger);
    let merchants = Some(1);
    assert_eq!(
        keeper.status().await.unwrap(),
        Kept::Whole {
            id: id.clone(),
            merchants
        }
    );
    let error = keeper.accept_loss().await.unwrap_err();
    assert!(error.text.contains("nothing is lost"), "{error}");
    let ledger = closed(&path).unwrap();
    assert!(ledger.get(&order("A1", 1).key).await.unwrap().is_some());
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_empty_file_is_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("payouts.redb");
    let keeper = FileKeeper::new(&path);
    assert!(
        keeper
            .accept_loss()
            .await
            .unwrap_err()
            .text
            .contains("ledger create")
    );
    for bytes in [&b""[..], b"no database"] {
        std::fs::write(&path, bytes).unwrap();
        for error in [
            keeper.status().await.unwrap_err(),
            keeper.accept_loss().await.unwrap_err(),
        ] {
            assert!(
                error
                    .text
                    .contains("move it away and run payout-sidecar ledger create"),
                "{error}"
            );
        }
        assert!(keeper.create().await.is_err());
        assert!(closed(&path).is_err(), "a start error, as ever");
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_deleted_or_replaced_takes_nothing_until_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let (path, aside) = (dir.path().join("payouts.redb"), dir.path().join("aside"));
    let ledger = open(&path).unwrap();
    ledger.insert(&order("A1", 1)).await.unwrap();
    std::fs::rename(&path, &aside).unwrap();
    let error = ledger.insert(&order("A2", 1)).await.unwrap_err();
    assert!(
        error.text.contains("was deleted under this process") && !error.unsure,
        "{error}"
    );
    takes_nothing(&ledger, "was deleted under this process").await;
    assert!(
        ledger.get(&order("A1", 1).key).await.is_err(),
        "what it knows is not told either"
    );
    FileKeeper::new(&path).create().await.unwrap();
    takes_nothing(&ledger, "is another file than the one").await;
    std::fs::copy(&aside, &path).unwrap();
    takes_nothing(&ledger, "is another file than the one").await;
    std::fs::rename(&aside, &path).unwrap();
    ledger.ready().await.unwrap();
    ledger.insert(&order("A2", 1)).await.unwrap();
    drop(ledger);
    std::fs::remove_file(&path).unwrap();
    let ledger = closed(&path).unwrap();
    takes_nothing(&ledger, "holds no ledger").await;
}

/// Three separate ledgers: the first to notice may be a claim, a read that finds nothing, or a probe.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_looks_first_notices_that_the_file_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    for looker in 0..3 {
        let path = dir.path().join(format!("{looker}.redb"));
        let ledger = open(&path).unwrap();
        ledger.ready().await.unwrap();
        std::fs::remove_file(&path).unwrap();
        let failed = match looker {
            0 => ledger.insert(&order("A1", 1)).await.is_err(),
            1 => ledger.get(&order("A1", 1).key).await.is_err(),
            _ => ledger.ready().await.is_err(),
        };
        assert!(failed, "{looker}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_written_over_the_open_file_is_noticed_and_left_alone() {
    for is_noticed in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("payouts.redb"), dir.path().join("copy"));
        let ledger = open(&path).unwrap();
        ledger.insert(&order("A1", 1)).await.unwrap();
        drop(ledger);
        std::fs::copy(&path, &copy).unwrap();
        let ledger = open(&path).unwrap();
        for n in 2..9 {
            ledger.insert(&order(&format!("A{n}"), 1)).await.unwrap();
        }
        // Into the same inode, ignoring any lock.
        std::fs::write(&path, std::fs::read(&copy).unwrap()).unwrap();
        if is_noticed {
            takes_nothing(&ledger, "was written over by somebody else").await;
        }
        drop(ledger);
        assert!(
            std::fs::read(&path).unwrap() == std::fs::read(&copy).unwrap(),
            "what was restored stays"
        );
        let ledger = closed(&path).unwrap();
        assert!(ledger.get(&order("A1", 1).key).await.unwrap().is_some());
    }
}

#[test]
fn of_many_that_make_a_ledger_at_once_one_does() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let path = dir.path().join(format!("{round}.redb"));
        let start = std::sync::Barrier::new(6);
        let opened: Vec<_> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..6)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        open(&path)
                    })
                })
                .collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        let served = opened.iter().filter(|opened| opened.is_ok()).count();
        let in_use = |opened: &&Result<FileLedger, OpenError>| matches!(opened, Err(OpenError::InUse { .. }));
        assert_eq!(
            (served, opened.iter().filter(in_use).count()),
            (1, 5),
            "round {round}"
        );
    }
    let left = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 20, "nothing else is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_no_ledger_may_make_room_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("payouts.redb");
    let ledger = closed(&path).unwrap();
    std::fs::write(&path, [7; 9000]).unwrap();
    takes_nothing(&ledger, "is damaged or no ledger").await;
    std::fs::remove_file(&path).unwrap();
    takes_nothing(&ledger, "holds no ledger").await;
    FileKeeper::new(&path).create().await.unwrap();
    ledger.ready().await.unwrap();
    ledger.insert(&order("A1", 1)).await.unwrap();
}
