//! What other users of the machine can read or have written: files and directories of every command, and the process
//! itself.

use payout_sidecar::private::replace_all;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::sidecar::{MERCHANT, Sidecar, To, Upstream, binary, embedded};
use test_support::redis::Redis;
use test_support::until;

/// Runs the program under a umask of 0.
fn without_umask(arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", "umask 000; exec \"$0\" \"$@\""])
        .arg(binary())
        .args(arguments);
    command
}

/// Everything below a directory that other users may read, write or enter.
fn shared(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            if metadata.permissions().mode() & 0o077 != 0 {
                found.push(path.clone());
            }
            if metadata.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

/// A child process, killed when dropped.
struct Running(Child);

impl Running {
    /// Sends the signal, and returns the exit code.
    fn ends(mut self, signal: &str) -> Option<i32> {
        let sent = Command::new("kill")
            .args([signal, &self.0.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_is_for_its_user_only_and_one_that_is_not_is_warned_about() {
    let upstream = Upstream::start(To::Redpack).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = embedded(&dir) + &upstream.configuration();
    let config = dir.path().join("config.toml");
    std::fs::write(
        &config,
        format!("[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n{configuration}"),
    )
    .unwrap();
    let ledger = dir.path().join("payouts.redb");
    let mut run = without_umask(&["run", "--config", &config.display().to_string()]);
    let first = Running(run.stdout(Stdio::null()).spawn().unwrap());
    until("the ledger is made", async || ledger.exists()).await;
    drop(first);
    assert_eq!(
        std::fs::metadata(&ledger).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let mut sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    assert!(!sidecar.log().contains("chmod 600"));
    sidecar.kill();
    std::fs::set_permissions(&ledger, std::fs::Permissions::from_mode(0o644)).unwrap();
    sidecar.launch(&[]).await;
    sidecar.logged("chmod 600").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stubs_keys_are_for_its_user_only() {
    let dir = tempfile::tempdir().unwrap();
    let pki = dir.path().join("pki");
    let victim = dir.path().join("victim");
    std::fs::write(&victim, "whole").unwrap();
    std::fs::set_permissions(&victim, std::fs::Permissions::from_mode(0o600)).unwrap();
    for round in 0..2 {
        let mut fake = without_umask(&["stub", "--listen", "127.0.0.1:0", "--merchant"]);
        let mut fake = fake
            .args([&format!("{MERCHANT}:0123456789abcdef0123456789abcdef"), "--pki"])
            .arg(&pki)
            .stdout(Stdio::piped())
            .spawn()
            .map(Running)
            .unwrap();
        let mut line = String::new();
        // The fake prints its address after it has written the keys.
        std::io::BufRead::read_line(
            &mut std::io::BufReader::new(fake.0.stdout.as_mut().unwrap()),
            &mut line,
        )
        .unwrap();
        fake.ends("-INT");
        let key = pki.join(MERCHANT).join("v3/apiv3-key");
        assert!(key.is_file(), "{line}");
        assert_eq!(shared(&pki), Vec::<PathBuf>::new());
        assert_eq!(
            std::fs::metadata(&pki).unwrap().permissions().mode() & 0o777,
            0o700
        );
        assert!(
            !key.is_symlink() && std::fs::read(&victim).unwrap() == b"whole",
            "round {round}"
        );
        // In the second round, a symbolic link to another file is in the key's place.
        std::fs::remove_file(&key).unwrap();
        symlink(&victim, &key).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demos_directory_is_for_its_user_only_and_goes_with_it() {
    for (signal, begun) in [("-TERM", true), ("-INT", true), ("-HUP", true), ("-TERM", false)] {
        let temporary = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(temporary.path().join("log")).unwrap();
        let demo = Running(
            without_umask(&["demo"])
                .env("TMPDIR", temporary.path())
                .stdout(log)
                .spawn()
                .unwrap(),
        );
        let text = || std::fs::read_to_string(temporary.path().join("log")).unwrap();
        let theirs = || {
            let entries = std::fs::read_dir(temporary.path()).unwrap();
            let mut found = entries
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.is_dir());
            found.next()
        };
        until("the demo has begun", async || {
            if begun {
                text().contains("Ctrl-C")
            } else {
                theirs().is_some()
            }
        })
        .await;
        let dir = theirs().unwrap();
        if begun {
            assert_eq!(
                std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777,
                0o700
            );
            assert_eq!(shared(&dir), Vec::<PathBuf>::new());
        }
        let code = demo.ends(signal);
        assert!(!dir.exists(), "{signal}: {} was left behind", dir.display());
        assert_eq!(code, Some(if begun { 0 } else { 1 }), "{signal}: {}", text());
    }
}

#[test]
fn a_demo_makes_a_token_and_shows_how_it_is_used() {
    let run = || {
        let done = Command::new(binary()).args(["demo", "--once"]).output().unwrap();
        let shown = String::from_utf8(done.stdout).unwrap();
        let token = shown
            .split("(token ")
            .nth(1)
            .and_then(|rest| rest.split(')').next());
        token.unwrap_or_else(|| panic!("no token in {shown}")).to_owned()
    };
    let (one, other) = (run(), run());
    assert!(one.len() == 32 && one != other, "{one} {other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_writes_through_no_link() {
    let redis = Redis::start();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let config = format!(
        "[identity]\nsource = \"redis\"\nurl = \"{}\"\n[ledger]\nstore = \"file\"\npath = \"payouts.redb\"\n\
         [[merchant]]\nmch_id = \"*\"\nto = \"handler\"\nhandler_url = \"http://127.0.0.1:8000\"\n",
        redis.url()
    );
    std::fs::write(at("config.toml"), config).unwrap();
    std::fs::write(
        at("openids.csv"),
        "wx_app_id,user_id,openid\nwx1,u,o1\nwx1,v,o 2\n",
    )
    .unwrap();
    std::fs::write(at("victim"), "whole").unwrap();
    symlink(at("victim"), at("openids.csv.resume.new")).unwrap();
    symlink(at("victim"), at("rejects.link")).unwrap();
    let import = |rejects: &str| {
        let (config, csv, rejects) = (at("config.toml"), at("openids.csv"), at(rejects));
        let mut command = without_umask(&["openid", "import", "--config"]);
        let done = command
            .args([&config, &csv])
            .arg("--rejects")
            .arg(rejects)
            .output()
            .unwrap();
        (
            done.status.code(),
            String::from_utf8_lossy(&done.stderr).into_owned(),
        )
    };
    let (code, said) = import("rejects.link");
    assert!(code == Some(1) && said.contains("symbolic link"), "{said}");
    let (code, said) = import("rejects");
    assert!(
        code == Some(1) && said.contains("1 lines were rejected"),
        "{said}"
    );
    assert_eq!(std::fs::read(at("victim")).unwrap(), b"whole");
    let rejects = std::fs::metadata(at("rejects")).unwrap();
    assert_eq!(rejects.permissions().mode() & 0o777, 0o600);
    assert!(rejects.len() > 0 && !at("openids.csv.resume.new").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_is_neither_dumped_nor_read_by_its_own_user() {
    let upstream = Upstream::start(To::Redpack).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = embedded(&dir) + &upstream.configuration();
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", sidecar.id())).unwrap();
    let core: Vec<&str> = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max core file size"))
        .unwrap()
        .split_ascii_whitespace()
        .collect();
    assert_eq!(core, ["0", "0", "bytes"]);
    drop(sidecar);

    // Runs as another user if this process is root, since root bypasses the kernel's protection.
    let user = 65534;
    let dir = tempfile::tempdir().unwrap();
    let pki = tempfile::tempdir().unwrap();
    replace_all(pki.path(), &upstream.fake.pki(&[MERCHANT]).unwrap()).unwrap();
    let admin = test_support::free_port();
    let text = configuration_of(&dir, &upstream, pki.path(), admin);
    std::fs::write(dir.path().join("config.toml"), text).unwrap();
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut command = Command::new(binary());
    command
        .args(["run", "--config"])
        .arg(dir.path().join("config.toml"))
        .stdout(Stdio::null());
    if is_root {
        for path in below(dir.path()).into_iter().chain(below(pki.path())) {
            chown(path, Some(user), Some(user)).unwrap();
        }
        command.uid(user).gid(user);
    }
    let mut child = Running(command.spawn().unwrap());
    let address = ([127, 0, 0, 1], admin).into();
    until("it is ready", async || {
        assert_eq!(child.0.try_wait().unwrap(), None);
        let asked = test_support::http::request("GET", "/readyz", &[], b"");
        test_support::http::exchange(address, &asked)
            .await
            .is_some_and(|answer| answer.status == 200)
    })
    .await;
    // The kernel makes root the owner of a non-dumpable process's files in /proc, whichever user runs it.
    let own = std::fs::metadata(format!("/proc/{}/environ", child.0.id())).unwrap();
    drop(child);
    assert_eq!(own.uid(), 0, "the process can be traced by its user");
}

fn configuration_of(dir: &tempfile::TempDir, upstream: &Upstream, pki: &Path, admin: u16) -> String {
    let old = upstream.dir.path().display().to_string();
    let rest = upstream.configuration().replace(&old, &pki.display().to_string());
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n{}{rest}",
        embedded(dir)
    )
}

/// A directory and everything below it.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut all = vec![dir.to_owned()];
    let mut next = 0;
    while let Some(path) = all.get(next).cloned() {
        next += 1;
        if path.is_dir() {
            all.extend(
                std::fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
    all
}
