//! Rules of this repository that the compiler does not check.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot read the tree has nothing to say"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn manifest(path: &str) -> toml::Table {
    std::fs::read_to_string(root().join(path))
        .unwrap()
        .parse()
        .unwrap()
}

/// All files below a folder with this ending.
fn files(under: &str, ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(under)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

/// The part of a file before its module `tests`.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

#[test]
fn every_file_says_first_what_is_at_home_in_it() {
    let all = [
        files("src", "rs"),
        files("crates", "rs"),
        files("tests", "rs"),
        files("bench", "rs"),
    ]
    .concat();
    assert!(all.len() > 300, "only {} files were found", all.len());
    let silent: Vec<_> = all
        .iter()
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path)
        .collect();
    assert!(silent.is_empty(), "{silent:?}");
}

#[test]
fn every_manifest_says_first_what_is_at_home_in_it() {
    let all: Vec<_> = ["yaml", "tpl", "toml"]
        .iter()
        .flat_map(|ending| files("deploy", ending))
        .collect();
    assert!(all.len() > 30, "only {} files were found", all.len());
    let silent: Vec<_> = all
        .iter()
        .filter(|(_, text)| !text.starts_with("# ") && !text.starts_with("{{- /*"))
        .map(|(path, _)| path)
        .collect();
    assert!(silent.is_empty(), "{silent:?}");
}

/// The folders and files of `src`, from the lowest layer to the highest. Each may use only those before it.
const LAYERS: [&str; 19] = [
    "clock",
    "private",
    "rng",
    "file_watch",
    "breaker",
    "redis",
    "http",
    "telemetry",
    "payouts",
    "openids",
    "ledger",
    "upstream",
    "config",
    "proxy",
    "server",
    "admin",
    "app",
    "cli",
    "main",
];

#[test]
fn each_folder_uses_only_those_that_know_less() {
    let all = files("src", "rs");
    let mut seen = BTreeSet::new();
    for (path, text) in &all {
        let relative = path.strip_prefix(root().join("src")).unwrap();
        let first = relative.iter().next().unwrap().to_str().unwrap();
        let own = first.trim_end_matches(".rs");
        // Tests may use any layer.
        if own == "lib" || relative.iter().any(|part| part == "tests" || part == "tests.rs") {
            continue;
        }
        let at = |name: &str| {
            LAYERS
                .iter()
                .position(|layer| *layer == name)
                .unwrap_or_else(|| panic!("{name} has no place in LAYERS"))
        };
        seen.insert(at(own));
        for line in product(text).lines() {
            let code = line.split("//").next().unwrap_or_default();
            for used in code.split("crate::").skip(1) {
                assert!(
                    !used.starts_with('{'),
                    "{}: one path to a line: {line}",
                    path.display()
                );
                let used: String = used
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                assert!(
                    used == own || at(&used) < at(own),
                    "{} uses {used}, which may use {own}: {line}",
                    path.display()
                );
            }
        }
    }
    assert_eq!(seen.len(), LAYERS.len(), "LAYERS names what is not there");
}

/// `crates/domain/clippy.toml` names most of what the standard library would offer; this names the rest.
#[test]
fn the_domain_neither_waits_nor_does_io_nor_reads_a_clock() {
    let domain = files("crates/domain/src", "rs");
    assert!(domain.len() > 15, "only {} files were found", domain.len());
    let banned = [
        "async ",
        "std::fs",
        "std::net::Tcp",
        "std::env",
        "SystemTime",
        "Instant",
    ];
    for (path, text) in &domain {
        for (number, line) in product(text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in banned {
                assert!(
                    !code.contains(word),
                    "{}:{} uses {word}",
                    path.display(),
                    number + 1
                );
            }
        }
    }
}

#[test]
fn the_flow_knows_its_ports_and_neither_a_store_nor_http() {
    let flow = files("src/payouts", "rs");
    assert!(flow.len() > 15, "only {} files were found", flow.len());
    for (path, text) in flow {
        for line in text.lines() {
            let code = line.split("//").next().unwrap_or_default();
            for word in [
                "crate::ledger",
                "crate::openids",
                "crate::upstream",
                "crate::http",
                "crate::config",
                "redis::",
            ] {
                assert!(!code.contains(word), "{} uses {word}", path.display());
            }
        }
    }
}

#[test]
fn the_domain_has_no_runtime_and_the_fake_shares_nothing_with_it() {
    let named = |folder: &str| -> BTreeSet<String> {
        let manifest = manifest(&format!("crates/{folder}/Cargo.toml"));
        let tables = ["dependencies", "dev-dependencies", "build-dependencies"];
        assert!(
            !manifest.contains_key("target"),
            "{folder}: read its tables here, too"
        );
        let tables = tables.iter().filter_map(|table| manifest.get(*table)?.as_table());
        tables.flat_map(toml::Table::keys).cloned().collect()
    };
    let domain = named("domain");
    for banned in [
        "tokio",
        "tokio-util",
        "hyper",
        "hyper-util",
        "reqwest",
        "redis",
        "redb",
        "axum",
        "tower",
        "rand",
        "tracing",
        "futures-util",
        "async-trait",
        "payout-sidecar",
    ] {
        assert!(!domain.contains(banned), "{banned}");
    }
    assert!(domain.contains("serde"), "the list was read");
    let fake = named("fake-wechat");
    assert!(
        fake.contains("axum") && !fake.contains("payout-domain") && !fake.contains("test-support"),
        "{fake:?}"
    );
}

#[test]
fn nothing_is_left_to_do_in_the_code() {
    let words = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["XX", "X"].concat(),
    ];
    for (path, text) in [
        files("src", "rs"),
        files("crates", "rs"),
        files("tests", "rs"),
        files("deploy", "yaml"),
        files("deploy", "tpl"),
    ]
    .concat()
    {
        for word in &words {
            assert!(!text.contains(word.as_str()), "{} says {word}", path.display());
        }
    }
}

#[test]
fn files_stay_readable_in_one_sitting() {
    for (path, text) in [files("src", "rs"), files("crates", "rs")].concat() {
        let lines = text.lines().count();
        assert!(
            lines <= 700,
            "{} has {lines} lines: split it by subject",
            path.display()
        );
    }
}

#[test]
fn unsafe_code_is_forbidden_in_every_package_and_cannot_be_allowed_again() {
    let root = manifest("Cargo.toml");
    let forbidden = |lints: Option<&toml::Value>| {
        let unsafe_code = lints.and_then(|lints| lints.get("rust")?.get("unsafe_code"));
        unsafe_code.and_then(toml::Value::as_str) == Some("forbid")
    };
    assert!(forbidden(root["workspace"].get("lints")), "the workspace's lints");
    // The fuzz target is not in the workspace: libFuzzer's entry point needs unsafe code.
    let packages = [
        "Cargo.toml",
        "crates/domain/Cargo.toml",
        "crates/fake-wechat/Cargo.toml",
        "crates/test-support/Cargo.toml",
        "bench/Cargo.toml",
    ];
    assert_eq!(
        root["workspace"]["members"].as_array().unwrap().len(),
        2,
        "crates/* and bench"
    );
    assert_eq!(std::fs::read_dir(self::root().join("crates")).unwrap().count(), 3);
    for package in packages {
        let lints = manifest(package);
        let lints = lints.get("lints");
        let inherits = lints.and_then(|lints| lints.get("workspace")?.as_bool()) == Some(true);
        assert!(inherits || forbidden(lints), "{package}");
    }
}

#[test]
fn every_rule_of_http_names_a_test_that_there_is() {
    let document = std::fs::read_to_string("docs/http.md").unwrap();
    let at_home = |module: &str| match module {
        "1" => vec!["tests/it/http1_rules.rs"],
        "2" => vec!["tests/it/http2_rules.rs"],
        "smuggling" => vec!["tests/it/smuggling.rs"],
        "bills_notified" => vec!["tests/it/bills_notified.rs"],
        "framing" => vec!["src/server/framing/tests.rs"],
        "strict" => vec!["src/server/strict/tests.rs"],
        "proxy" => vec!["src/proxy"],
        other => panic!("docs/http.md names tests in {other}, which is nowhere"),
    };
    let all = [files("src", "rs"), files("tests", "rs")].concat();
    let mut named = 0;
    for word in document.split('`').filter(|word| word.contains("::")) {
        let (module, test) = word.split_once("::").unwrap();
        if test.is_empty() {
            continue;
        }
        named += 1;
        let function = format!("fn {test}()");
        let is_there = all.iter().any(|(path, text)| {
            at_home(module)
                .iter()
                .any(|home| path.to_str().is_some_and(|path| path.contains(home)))
                && text.contains(&function)
        });
        assert!(is_there, "docs/http.md names {word}, which is no test");
    }
    assert!(named > 60, "only {named} tests were found in docs/http.md");
}
