//! The embedded ledger in a real process: its file is missing, deleted or replaced, two processes create it at once, or
//! the disk is full for a while. The sidecar pays nothing twice in any of these cases.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use payout_sidecar::ledger::file::FileKeeper;
use payout_sidecar::ledger::keeper::Keeper;

use crate::support::sidecar::{Encoding, Payout, Sidecar, To, Upstream, binary, embedded};
use test_support::http::{call, exchange, request};
use test_support::{free_port, until};

/// Starts a sidecar with a handler that pays on each call, so that only the ledger prevents a second payment.
async fn start(create: bool) -> (Upstream, Sidecar) {
    let upstream = Upstream::start(To::Handler { idempotent: false }).await;
    let dir = tempfile::tempdir().unwrap();
    let stores = embedded(&dir).replace("create = true", &format!("create = {create}"));
    let sidecar = Sidecar::start_in(dir, &format!("{stores}{}", upstream.configuration()), &[]).await;
    (upstream, sidecar)
}

async fn code(sidecar: &Sidecar, order_no: &str) -> String {
    sidecar.pay(Encoding::Json, &Payout::new(order_no)).await.code()
}

async fn paid_again(sidecar: &Sidecar, order_no: &str) {
    until("payouts are taken again", async || {
        code(sidecar, order_no).await == "SUCCESS"
    })
    .await;
}

fn ledger(sidecar: &Sidecar) -> PathBuf {
    sidecar.dir.path().join("payouts.redb")
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_ledger_nothing_is_paid_until_one_is_made() {
    let (upstream, mut sidecar) = start(false).await;
    assert_eq!(code(&sidecar, "A1").await, "SYSTEMERROR");
    let status = sidecar.status(Encoding::Json, &Payout::new("A1")).await;
    assert_eq!(status.code(), "SYSTEMERROR", "not NOT_FOUND");
    let proxied = call(sidecar.main, "GET", "/anything", &[], b"").await;
    assert_ne!(proxied.status, 503, "everything else goes on");
    sidecar
        .logged("holds no ledger: run payout-sidecar ledger create")
        .await;
    assert_eq!(upstream.times_sent("A1"), 0);
    FileKeeper::new(&ledger(&sidecar)).create().await.unwrap();
    paid_again(&sidecar, "A1").await;
    // A restart opens the existing ledger. A restart without the file does not create one.
    sidecar.kill();
    sidecar.launch(&[]).await;
    assert_eq!(code(&sidecar, "A1").await, "SUCCESS");
    sidecar.kill();
    std::fs::remove_file(ledger(&sidecar)).unwrap();
    sidecar.launch(&[]).await;
    assert_eq!(code(&sidecar, "A1").await, "SYSTEMERROR");
    assert!(!ledger(&sidecar).exists());
    assert_eq!(upstream.times_sent("A1"), 1);
}

/// Runs the ledger commands through a ledger's whole life and checks their output, with a sidecar that stops and starts
/// in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_ledgers_life_in_a_file() {
    let (upstream, mut sidecar) = start(false).await;
    let config = sidecar.dir.path().join("config.toml");
    let command = |arguments: &[&str]| {
        let mut ledger = Command::new(binary());
        ledger.arg("ledger").args(arguments).arg("--config").arg(&config);
        let done = ledger.output().unwrap();
        let said = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
        (done.status.code().unwrap(), said.trim_end().to_owned())
    };
    let place = ledger(&sidecar).display().to_string();
    let accept = ["accept-loss", "--reason", "a test"];
    let none = format!("payout-sidecar: {place} holds no ledger: make one by payout-sidecar ledger create");
    let nothing = format!(
        "payout-sidecar: {place} holds nothing that could be kept: restore it from a copy, or make a new ledger by payout-sidecar ledger create"
    );
    assert_eq!(command(&["status"]), (1, none.clone()));
    assert_eq!(command(&accept), (1, nothing.clone()));
    assert_eq!(code(&sidecar, "A1").await, "SYSTEMERROR");
    let (done, said) = command(&["create"]);
    let made = said
        .strip_prefix("made ledger ")
        .and_then(|rest| rest.strip_suffix(&format!(" in {place}")));
    let id = made.unwrap_or_else(|| panic!("{said}")).to_owned();
    assert_eq!((done, id.len()), (0, 32));
    let again = format!("payout-sidecar: {place} is there already: a ledger is made where there is none");
    assert_eq!(command(&["create"]), (1, again));

    paid_again(&sidecar, "A1").await;
    let in_use = format!("{place} is in use by a running sidecar: ask its admin port, /readyz");
    assert_eq!(command(&["status"]), (0, in_use));
    sidecar.kill();
    let (done, said) = command(&["status"]);
    assert_eq!(done, 0);
    assert!(
        said.starts_with(&format!("{place} holds ledger {id}, whole")),
        "{said}"
    );
    let whole = format!("payout-sidecar: {place} is whole: nothing is lost");
    assert_eq!(command(&accept), (1, whole));
    sidecar.launch(&[]).await;
    assert_eq!(code(&sidecar, "A1").await, "SUCCESS");

    // A restart on an emptied store creates no ledger; only an operator's command does.
    sidecar.kill();
    std::fs::remove_file(ledger(&sidecar)).unwrap();
    sidecar.launch(&[]).await;
    assert_eq!(code(&sidecar, "A1").await, "SYSTEMERROR");
    assert_eq!(command(&["status"]), (1, none));
    assert_eq!(command(&accept), (1, nothing));
    let (done, said) = command(&["create"]);
    assert!(done == 0 && !said.contains(&id), "{said}");
    paid_again(&sidecar, "B1").await;
    assert_eq!((upstream.times_sent("A1"), upstream.times_sent("B1")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_deleted_or_replaced_under_the_process_takes_nothing() {
    let (upstream, mut sidecar) = start(true).await;
    assert_eq!(code(&sidecar, "A1").await, "SUCCESS");
    let (path, aside) = (ledger(&sidecar), sidecar.dir.path().join("aside"));
    std::fs::rename(&path, &aside).unwrap();
    for order_no in ["A1", "A2"] {
        assert_eq!(code(&sidecar, order_no).await, "SYSTEMERROR");
    }
    let status = sidecar.status(Encoding::Json, &Payout::new("A3")).await;
    assert_eq!(status.code(), "SYSTEMERROR");
    sidecar.logged("was deleted under this process").await;
    FileKeeper::new(&path).create().await.unwrap();
    for order_no in ["A1", "A2"] {
        assert_eq!(code(&sidecar, order_no).await, "SYSTEMERROR");
    }
    std::fs::rename(&aside, &path).unwrap();
    paid_again(&sidecar, "A2").await;
    assert_eq!(code(&sidecar, "A1").await, "SUCCESS");
    sidecar.kill();
    for order_no in ["A1", "A2"] {
        assert_eq!(upstream.times_sent(order_no), 1, "{order_no}");
    }
}

struct Process {
    child: Child,
    admin: std::net::SocketAddr,
}

impl Process {
    fn spawn(configuration: &Path) -> Self {
        let admin = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
        let child = Command::new(binary())
            .args(["run", "--config"])
            .arg(configuration)
            .env(
                "PAYOUT_SIDECAR__SERVER__LISTEN",
                format!("127.0.0.1:{}", free_port()),
            )
            .env("PAYOUT_SIDECAR__ADMIN__LISTEN", admin.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, admin }
    }

    /// Returns whether the process serves; `false` means that it has exited.
    async fn serves(&mut self) -> bool {
        let begun = Instant::now();
        loop {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if exchange(self.admin, &request("GET", "/livez", &[], b""))
                .await
                .is_some()
            {
                return true;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "neither serves nor ends"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_first_starts_at_once_one_serves() {
    let upstream = Upstream::start(To::Handler { idempotent: false }).await;
    for round in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let configuration = dir.path().join("config.toml");
        std::fs::write(
            &configuration,
            format!("{}{}", embedded(&dir), upstream.configuration()),
        )
        .unwrap();
        let mut both = [Process::spawn(&configuration), Process::spawn(&configuration)];
        let serving = [both[0].serves().await, both[1].serves().await];
        let mut said = String::new();
        for process in &mut both {
            process.child.kill().unwrap();
            process.child.wait().unwrap();
            let stderr = process.child.stderr.take().unwrap();
            said += &std::io::read_to_string(stderr).unwrap();
        }
        assert!(serving[0] != serving[1], "round {round}: {serving:?}\n{said}");
        assert!(said.contains("is in use by another process"), "{said}");
    }
}

/// A small file system, unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    /// `None` if this process may not mount file systems.
    fn small(at: &Path) -> Option<Self> {
        std::fs::create_dir(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"])
            .arg(at)
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then(|| Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.unwrap().success() || std::thread::panicking());
    }
}

fn fill_up(path: &Path) {
    use std::io::Write as _;
    let mut filler = std::fs::File::create(path).unwrap();
    while filler.write_all(&[1; 4096]).is_ok() {}
    while filler.write_all(&[1]).is_ok() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_was_full_is_no_reason_for_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::small(&dir.path().join("small")) else {
        eprintln!("not tried: mounting needs root");
        return;
    };
    let upstream = Upstream::start(To::Handler { idempotent: false }).await;
    let stores = embedded(&dir).replace("payouts.redb", "small/payouts.redb");
    let mut sidecar = Sidecar::start_in(dir, &format!("{stores}{}", upstream.configuration()), &[]).await;
    assert_eq!(code(&sidecar, "A0").await, "SUCCESS");
    for round in 1..=2 {
        let filler = mount.0.join("filler");
        fill_up(&filler);
        let mut said = 0;
        let begun = Instant::now();
        let mut next = 0;
        // The file first uses up the free space inside itself.
        while begun.elapsed() < Duration::from_secs(6) {
            let orders: Vec<String> = (0..20).map(|n| format!("F{round}N{}", next + n)).collect();
            next += 20;
            let codes =
                futures_util::future::join_all(orders.iter().map(|order_no| code(&sidecar, order_no))).await;
            said += codes.iter().filter(|code| *code == "SYSTEMERROR").count();
        }
        assert!(said > 100, "the disk was never full: {said} of {next}");
        let ready = call(sidecar.admin, "GET", "/readyz?stores", &[], b"").await;
        assert_eq!(ready.status, 503, "{}", ready.body);
        assert_eq!(call(sidecar.admin, "GET", "/livez", &[], b"").await.status, 200);
        std::fs::remove_file(&filler).unwrap();
        paid_again(&sidecar, &format!("B{round}")).await;
        assert!(ready.body.contains("payouts.redb"), "{}", ready.body);
        assert_eq!(code(&sidecar, "A0").await, "SUCCESS");
        for n in 0..next {
            let order_no = format!("F{round}N{n}");
            assert!(upstream.times_sent(&order_no) <= 1, "{order_no}");
        }
    }
    let log = sidecar.log();
    let lines = log.matches("the ledger file has failed").count();
    assert!((2..=12).contains(&lines), "{lines} lines");
    assert!(log.contains("the ledger file is open: payouts are taken"));
    assert_eq!(upstream.times_sent("A0"), 1);
    // The directory can be removed with the sidecar only after the unmount.
    sidecar.kill();
    drop(mount);
}
