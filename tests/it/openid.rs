//! `payout-sidecar openid`: the real program imports into, looks up in and exports from a real Redis.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::ledger::link;
use crate::support::sidecar::binary;
use test_support::redis::{Cluster, Redis, Sentinels};

const HEADER: &str = "wx_app_id,user_id,openid\n";
const KEY: &str = "openid:{wxAppId}:{userId}";
const APP: &str = "wx8888888888888888";

/// A configuration for a Redis, and the files beside it.
struct Desk {
    dir: TempDir,
}

impl Desk {
    fn new(identity: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "[identity]\n{identity}\n[ledger]\nstore = \"file\"\npath = \"payouts.redb\"\n\
             [[merchant]]\nmch_id = \"*\"\nto = \"handler\"\nhandler_url = \"http://127.0.0.1:8000\"\n"
        );
        std::fs::write(dir.path().join("config.toml"), text).unwrap();
        Self { dir }
    }

    fn over(url: &str, key: &str, field: Option<&str>) -> Self {
        let field = field.map_or(String::new(), |field| format!("field = \"{field}\"\n"));
        Self::new(&format!(
            "source = \"redis\"\nurl = \"{url}\"\nkey = \"{key}\"\n{field}"
        ))
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, rows: &str) -> String {
        std::fs::write(self.dir.path().join(name), format!("{HEADER}{rows}")).unwrap();
        self.path(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(["--config", &self.path("config.toml"), "openid"])
            .args(arguments);
        command
    }

    /// Returns the exit code, standard output and standard error.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let done = self.command(arguments).output().unwrap();
        (
            done.status.code().unwrap(),
            String::from_utf8(done.stdout).unwrap(),
            String::from_utf8(done.stderr).unwrap(),
        )
    }

    /// Starts an import and returns it once it has written its resume file.
    fn under_way(&self, csv: &str) -> Child {
        let is_written = || {
            std::fs::metadata(format!("{csv}.resume"))
                .ok()
                .map(|found| found.ino())
        };
        let before = is_written();
        let mut child = self
            .command(&["import", csv])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while is_written() == before {
            assert!(child.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(1));
        }
        child
    }

    /// The lines that `export` prints, in its order.
    fn exported(&self, arguments: &[&str]) -> Vec<String> {
        let (code, out, err) = self.run(&[&["export"], arguments].concat());
        assert_eq!(code, 0, "{err}");
        let mut lines: Vec<String> = out
            .strip_prefix(HEADER)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    }
}

fn rows(count: usize) -> BTreeMap<String, String> {
    (0..count)
        .map(|n| (format!("user:{n:05}"), format!("oABCDEFGHIJKLMNOPQRSTU{n:06}")))
        .collect()
}

fn csv(app: &str, rows: &BTreeMap<String, String>) -> String {
    rows.iter()
        .map(|(user, openid)| format!("{app},{user},{openid}\n"))
        .collect()
}

/// Checks every key.
async fn has_all(redis: &Redis, rows: &BTreeMap<String, String>) {
    let link = link(&redis.url());
    let all: Vec<_> = rows.iter().collect();
    for some in all.chunks(1000) {
        let mut get = redis::cmd("MGET");
        for (user, _) in some {
            get.arg(format!("openid:{APP}:{user}"));
        }
        let found: Vec<Option<String>> = link.query(&get).await.unwrap();
        for ((user, openid), found) in some.iter().zip(found) {
            assert_eq!(found.as_ref(), Some(*openid), "{user}");
        }
    }
    assert_eq!(redis.cli(&["DBSIZE"]), rows.len().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_killed_or_interrupted_is_gone_on_with_and_loses_nothing() {
    let redis = Redis::start();
    let desk = Desk::over(&redis.url(), KEY, None);
    let count = std::env::var("PAYOUT_IMPORT_ROWS").map_or(50_000, |text| text.parse().unwrap());
    let rows = rows(count);
    let file = desk.write("openids.csv", &csv(APP, &rows));
    let has = || redis.cli(&["DBSIZE"]).parse::<usize>().unwrap();

    let mut import = desk.under_way(&file);
    import.kill().unwrap();
    import.wait().unwrap();
    assert!((2000..count).contains(&has()), "killed after {} lines", has());

    let import = desk.under_way(&file);
    let id = import.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    let interrupted = import.wait_with_output().unwrap();
    let said = String::from_utf8(interrupted.stderr).unwrap();
    assert_eq!(interrupted.status.code(), Some(1), "{said}");
    assert!(said.contains("going on after line"), "{said}");
    assert!(said.contains("start it again to go on: interrupted"), "{said}");
    assert!(has() < count);

    let (code, out, err) = desk.run(&["import", &file]);
    assert_eq!(code, 0, "{err}");
    let (_, from) = err.split_once("going on after line ").unwrap();
    assert!(
        from.split(' ').next().unwrap().parse::<u64>().unwrap() > 2000,
        "{err}"
    );
    assert!(
        out.starts_with(&format!("{count} lines: ")) && out.contains(" 0 changed, "),
        "{out}"
    );
    assert!(!Path::new(&format!("{file}.resume")).exists());
    has_all(&redis, &rows).await;

    // The import skips equal mappings and writes those that differ.
    redis.cli(&["CONFIG", "RESETSTAT"]);
    redis.cli(&["SET", &format!("openid:{APP}:user:00007"), "oOTHER"]);
    let (code, out, _) = desk.run(&["import", &file]);
    assert!(
        code == 0
            && out.starts_with(&format!(
                "{count} lines: 0 new, 1 changed, {} unchanged",
                count - 1
            )),
        "{out}"
    );
    assert_eq!(
        (redis.calls("set"), redis.calls("msetnx"), redis.calls("mset")),
        (1, 0, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_lost_and_has_forgotten_is_filled_from_the_beginning() {
    let mut redis = Redis::start_with(&["--appendonly", "no"], None);
    let desk = Desk::over(&redis.url(), KEY, None);
    let rows = rows(50_000);
    let file = desk.write("openids.csv", &csv(APP, &rows));
    let import = desk.under_way(&file);
    redis.kill();
    let failed = import.wait_with_output().unwrap();
    let said = String::from_utf8(failed.stderr).unwrap();
    assert_eq!(failed.status.code(), Some(1), "{said}");
    assert!(said.contains("start it again to go on: Redis"), "{said}");
    let (code, _, err) = desk.run(&["import", &file]);
    assert!(code == 1 && err.contains("cannot be reached"), "{err}");
    redis.restart();
    let (code, out, err) = desk.run(&["import", &file]);
    assert_eq!(code, 0, "{err}");
    assert!(
        err.contains("a Redis process that may not be there any more"),
        "{err}"
    );
    assert!(out.starts_with("50000 lines: 50000 new"), "{out}");
    has_all(&redis, &rows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_has_changed_or_is_to_be_restarted_begins_at_the_beginning() {
    let redis = Redis::start();
    let desk = Desk::over(&redis.url(), KEY, None);
    let mut rows = rows(50_000);
    let file = desk.write("openids.csv", &csv(APP, &rows));
    let kill = |mut import: Child| {
        import.kill().unwrap();
        import.wait().unwrap();
    };
    kill(desk.under_way(&file));
    *rows.get_mut("user:00000").unwrap() = "oOTHER".to_owned();
    desk.write("openids.csv", &csv(APP, &rows));
    let (code, out, err) = desk.run(&["import", &file]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("is of another version of the file"), "{err}");
    assert!(out.contains(" 1 changed,"), "{out}");
    has_all(&redis, &rows).await;

    redis.cli(&["FLUSHALL"]);
    kill(desk.under_way(&file));
    redis.cli(&["FLUSHALL"]);
    let (code, out, err) = desk.run(&["import", &file, "--restart"]);
    assert!(
        code == 0 && err.is_empty() && out.starts_with("50000 lines: 50000 new"),
        "{out}{err}"
    );
    has_all(&redis, &rows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_lines_are_reported_by_number_and_the_others_imported() {
    let redis = Redis::start();
    let desk = Desk::over(&redis.url(), KEY, None);
    redis.cli(&["HSET", "openid:wx1:taken", "a", "b"]);
    let file = desk.write(
        "openids.csv",
        "wx1,u,o1\nwx1,v\nwx 1,v,o2\n\nwx1,\"v,o2\nwx1,taken,o3\nwx1,w,o4\r\nwx1,u,o5\nwx1,u,o5\nwx1,cut,o6",
    );
    let reasons = [
        "line 3: it has 2 columns, not 3",
        "line 4: wx_app_id must be",
        "line 6: a quote is not closed",
        "line 7: something else stands where this user's openid should: WRONGTYPE",
        "line 11: the last line does not end with a line break",
    ];
    let (code, out, err) = desk.run(&["import", &file]);
    assert_eq!(code, 1, "{err}");
    assert!(
        out.starts_with("9 lines: 2 new, 1 changed, 1 unchanged, 5 rejected"),
        "{out}"
    );
    let lines: Vec<&str> = err.lines().collect();
    for (line, reason) in lines.iter().zip(reasons) {
        assert!(line.starts_with(&format!("{file}, {reason}")), "{line}");
    }
    assert!(
        lines[5].ends_with("5 lines were rejected; the others are imported"),
        "{err}"
    );
    assert_eq!(desk.exported(&[]), ["wx1,u,o5", "wx1,w,o4"]);

    let list = desk.path("rejects");
    let (code, _, err) = desk.run(&["import", &file, "--rejects", &list]);
    assert!(code == 1 && err.lines().count() == 1, "{err}");
    let listed = std::fs::read_to_string(&list).unwrap();
    assert_eq!(listed.lines().count(), 5, "{listed}");
    for (line, reason) in listed.lines().zip(reasons) {
        assert!(line.starts_with(reason), "{line}");
    }

    let (code, _, err) = desk.run(&["import", &file, "--rejects", &file]);
    assert!(
        code == 1 && err.contains("is the very file that is imported"),
        "{err}"
    );

    let many = desk.write("many.csv", &"wx1,u\n".repeat(5000));
    let (code, out, err) = desk.run(&["import", &many]);
    assert!(
        code == 1 && out.starts_with("5000 lines: 0 new, 0 changed, 0 unchanged, 5000 rejected"),
        "{out}"
    );
    assert!(
        err.lines().count() == 102 && err.contains("--rejects FILE takes them all"),
        "{err}"
    );

    std::fs::write(&file, "wx1,u,o1\n").unwrap();
    let (code, _, err) = desk.run(&["import", &file]);
    assert!(
        code == 1 && err.contains("the first line must be wx_app_id,user_id,openid"),
        "{err}"
    );
    assert_eq!(desk.run(&["import", &desk.path("absent.csv")]).0, 1);
}

/// User ids that a careless reader would cut, or take for a glob, a placeholder or a formula.
const ODD: [&str; 12] = [
    "a:b",
    ":",
    "{wxAppId}",
    "{userId}:x",
    "*",
    "[a]?\\",
    "a,b",
    "\"",
    "\"a\"\",",
    " a ",
    "=1+1",
    "用户🧧",
];

fn odd(app: &str) -> Vec<String> {
    let quoted = |user: &str| {
        if user.contains(['"', ',']) {
            format!("\"{}\"", user.replace('"', "\"\""))
        } else {
            user.to_owned()
        }
    };
    let mut rows: Vec<String> = ODD
        .iter()
        .enumerate()
        .map(|(n, user)| match user.strip_prefix('=') {
            // If a spreadsheet would run one cell as a formula, the export writes the whole row as text.
            Some(_) => format!("'{app},'{user},'o{n}"),
            None => format!("{app},{},o{n}", quoted(user)),
        })
        .collect();
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_is_what_was_imported_through_keys_and_hashes() {
    let redis = Redis::start();
    let templates = [
        ("o:{wxAppId}:{userId}", None),
        ("h:{wxAppId}", Some("{userId}")),
        ("all", Some("{userId}@{wxAppId}")),
        ("[*]{userId}/{wxAppId}", None),
    ];
    let rows = [odd("wx1"), odd("wx-_2")].concat();
    let first = Desk::over(&redis.url(), KEY, None);
    let file = first.write("openids.csv", &(rows.join("\n") + "\n"));
    let mut sorted = rows;
    sorted.sort();
    assert_eq!(first.run(&["import", &file]).0, 0);
    let mut exported = first.exported(&[]);
    for (key, field) in templates {
        assert_eq!(exported, sorted);
        let desk = Desk::over(&redis.url(), key, field);
        let file = desk.write("openids.csv", &(exported.join("\n") + "\n"));
        let (code, out, err) = desk.run(&["import", &file]);
        assert!(
            code == 0 && out.starts_with("24 lines: 24 new"),
            "{key}: {out}{err}"
        );
        exported = desk.exported(&[]);
        assert_eq!(desk.exported(&["--app", "wx-_2"]), odd("wx-_2"), "{key}");
        for (n, user) in ODD.iter().enumerate() {
            let (code, out, err) = desk.run(&["get", "wx1", "--", user]);
            assert_eq!((code, out), (0, format!("o{n}\n")), "{key} {user}: {err}");
        }
    }
    assert_eq!(exported, sorted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_hash_is_imported_and_listed_in_pages() {
    let redis = Redis::start();
    let desk = Desk::over(&redis.url(), "openids:{wxAppId}", Some("{userId}"));
    let rows = rows(20_000);
    let text = csv("wx1", &rows) + &csv("wx2", &rows) + "wx3,u,o1\n";
    redis.cli(&["SET", "openids:wx3", "no hash"]);
    redis.cli(&["SET", "openids:of:others", "x"]);
    let (code, out, err) = desk.run(&["import", &desk.write("openids.csv", &text)]);
    assert_eq!(code, 1);
    assert!(err.contains("line 40002: something else stands"), "{err}");
    assert!(
        out.starts_with("40001 lines: 40000 new, 0 changed, 0 unchanged, 1 rejected"),
        "{out}"
    );
    assert_eq!(redis.cli(&["HLEN", "openids:wx2"]), "20000");
    let all = csv("wx1", &rows) + &csv("wx2", &rows);
    assert!(desk.exported(&[]).iter().eq(all.lines()));
    let said = desk.run(&["export"]).2;
    assert!(
        said.starts_with("2 keys or fields are none of the mapping's"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_cluster_and_through_sentinels_it_is_the_same() {
    let cluster = Cluster::start();
    let rows = rows(20_000);
    for (key, field) in [(KEY, None), ("openids:{wxAppId}", Some("{userId}"))] {
        let desk = Desk::over(&cluster.url(), key, field);
        let file = desk.write("openids.csv", &(csv(APP, &rows) + &csv("wx2", &rows)));
        let mut import = desk.under_way(&file);
        import.kill().unwrap();
        import.wait().unwrap();
        let (code, out, err) = desk.run(&["import", &file]);
        assert_eq!(code, 0, "{err}");
        assert!(err.contains("going on after line"), "{err}");
        assert!(out.starts_with("40000 lines: "), "{out}");
        let all = csv("wx2", &rows) + &csv(APP, &rows);
        assert!(desk.exported(&[]).iter().eq(all.lines()), "{key}");
        assert_eq!(desk.run(&["delete", APP, "user:00007"]).0, 0);
        assert_eq!(desk.run(&["get", APP, "user:00007"]).0, 1);
    }
    drop(cluster);
    let sentinels = Sentinels::start();
    let desk = Desk::over(&sentinels.url(), KEY, None);
    let file = desk.write("openids.csv", "wx1,u,o1\nwx1,v,o2\n");
    assert_eq!(desk.run(&["import", &file]).0, 0);
    assert_eq!(desk.exported(&[]), ["wx1,u,o1", "wx1,v,o2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn single_users_are_set_shown_and_deleted() {
    let redis = Redis::start();
    let desk = Desk::over(&redis.url(), KEY, None);
    redis.cli(&["HSET", "openid:wx1:taken", "a", "b"]);
    for (arguments, code, says) in [
        (&["get", "wx1", "u"][..], 1, "user u has no openid under wx1"),
        (&["set", "wx1", "u", "o1"], 0, "o1 of user u under wx1 is new"),
        (&["set", "wx1", "u", "o1"], 0, "was there already"),
        (&["set", "wx1", "u", "o2"], 0, "has replaced another one"),
        (&["get", "wx1", "u"], 0, "o2"),
        (&["set", "wx1", "taken", "o1"], 1, "something else stands"),
        (&["delete", "wx1", "taken"], 1, "WRONGTYPE"),
        (
            &["delete", "wx1", "u"],
            0,
            "user u has no openid any more under wx1",
        ),
        (&["delete", "wx1", "u"], 0, "user u had no openid under wx1"),
        (&["set", "wx 1", "u", "o1"], 2, "must be 1 to 32 letters"),
        (&["set", "wx1", "", "o1"], 2, "must be 1 to 128 characters"),
        (&["set", "wx1", "u", "o 1"], 2, "must be 1 to 64 letters"),
    ] {
        let (ended, out, err) = desk.run(arguments);
        assert_eq!(ended, code, "{arguments:?}: {out}{err}");
        assert!(format!("{out}{err}").contains(says), "{arguments:?}: {out}{err}");
    }
    assert_eq!(redis.cli(&["TYPE", "openid:wx1:taken"]), "hash");
    assert_eq!(redis.cli(&["DBSIZE"]), "1");

    // This Redis user may not read the server's identity: the import works but cannot be resumed. It may not write many
    // keys in one command either.
    redis.cli(&["ACL", "SETUSER", "default", "-info", "-msetnx"]);
    let file = desk.write("openids.csv", "wx1,u,o1\n");
    let (code, out, err) = desk.run(&["import", &file]);
    assert!(code == 0 && out.starts_with("1 lines: 1 new"), "{out}{err}");
    assert!(err.contains("Redis does not say which process it is"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_export_cannot_tell_is_said() {
    let redis = Redis::start();
    let shared = Desk::over(&redis.url(), "shared:{userId}", None);
    assert_eq!(shared.run(&["set", "wx1", "u", "o1"]).0, 0);
    let (code, _, err) = shared.run(&["export"]);
    assert!(code == 1 && err.contains("name it by --app APP"), "{err}");
    assert_eq!(shared.exported(&["--app", "wx1"]), ["wx1,u,o1"]);

    let joined = Desk::over(&redis.url(), "joined/{userId}-{wxAppId}", None);
    for (app, user) in [("wx1", "u"), ("wx-1", "u")] {
        assert_eq!(joined.run(&["set", app, user, "o1"]).0, 0);
    }
    redis.cli(&["SET", "joined/v-wx1", "no openid"]);
    let (code, out, err) = joined.run(&["export"]);
    assert!(
        code == 1 && out.ends_with("wx1,u,o1\n") && out.lines().count() == 2,
        "{out}{err}"
    );
    assert!(
        err.contains("joined/u-wx-1: app id and user id cannot be told apart"),
        "{err}"
    );
    assert!(err.contains("joined/v-wx1: its value is no openid"), "{err}");
    assert!(err.contains("2 keys or fields were left out"), "{err}");
    assert_eq!(joined.exported(&["--app", "wx-1"]), ["wx-1,u,o1"]);
}

#[test]
fn a_mapping_in_a_file_is_read_and_not_changed() {
    let desk = Desk::new("source = \"file\"\npath = \"openids.csv\"");
    let file = desk.write("openids.csv", "wx1,\"u\",o1\r\nwx2,u,o2\r\n");
    assert_eq!(desk.run(&["get", "wx1", "u"]), (0, "o1\n".into(), String::new()));
    assert_eq!(desk.run(&["get", "wx1", "v"]).0, 1);
    assert_eq!(desk.exported(&[]), ["wx1,u,o1", "wx2,u,o2"]);
    assert_eq!(desk.exported(&["--app", "wx2"]), ["wx2,u,o2"]);
    for arguments in [
        &["set", "wx1", "u", "o9"][..],
        &["delete", "wx1", "u"],
        &["import", &file],
    ] {
        let (code, _, err) = desk.run(arguments);
        assert!(
            code == 2 && err.contains("openids.csv is the mapping itself"),
            "{err}"
        );
    }
    desk.write("openids.csv", "wx1,u,o1\nwx1,v,o");
    let (code, _, err) = desk.run(&["export"]);
    assert!(
        code == 1 && err.contains("line 3: the last line does not end"),
        "{err}"
    );
}

#[test]
fn an_import_of_a_pipe_needs_no_file_beside_it_and_can_be_interrupted() {
    let redis = Redis::start();
    let desk = Desk::over(&redis.url(), KEY, None);
    let begin = || {
        desk.command(&["import", "/dev/stdin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut import = begin();
    import
        .stdin
        .take()
        .unwrap()
        .write_all(format!("{HEADER}wx1,u,o1\n").as_bytes())
        .unwrap();
    let done = import.wait_with_output().unwrap();
    let said = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
    assert!(
        done.status.code() == Some(0) && said.starts_with("1 lines: 1 new"),
        "{said}"
    );

    let mut import = begin();
    let mut rows = HEADER.to_owned();
    (0..5000).for_each(|n| rows.push_str(&format!("wx1,v{n},o1\n")));
    let mut pipe = import.stdin.take().unwrap();
    pipe.write_all(rows.as_bytes()).unwrap();
    let begun = Instant::now();
    while redis.cli(&["DBSIZE"]) != "4001" {
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
    let id = import.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    let done = import.wait_with_output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(
        done.status.code() == Some(1) && said.contains("stopped after line 4001; started again, it begins"),
        "{said}"
    );
    drop(pipe);
}
