//! House rules that a compiler does not check.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot read the tree has nothing to say"
)]

use std::path::{Path, PathBuf};

fn files(under: &str, ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(under)];
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

/// The part of a file that is not its tests.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

#[test]
fn every_file_says_first_what_is_at_home_in_it() {
    let all = [files("src", "rs"), files("tests", "rs")].concat();
    assert!(all.len() > 60, "only {} files were found", all.len());
    let silent: Vec<_> = all
        .iter()
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path)
        .collect();
    assert!(silent.is_empty(), "{silent:?}");
}

#[test]
fn the_rules_are_pure() {
    let rules = files("src/rules", "rs");
    assert!(rules.len() > 15, "only {} files were found", rules.len());
    let banned = [
        "async ",
        "tokio",
        "std::fs",
        "std::net::Tcp",
        "std::env",
        "SystemTime",
        "Instant",
        "getrandom",
        "redis::",
        "hyper",
        "crate::payout",
        "crate::upstream",
        "crate::ledger",
        "crate::http",
        "crate::config",
        "crate::clock",
    ];
    for (path, text) in &rules {
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
fn the_flow_knows_its_ports_and_no_store() {
    for (path, text) in files("src/payout", "rs") {
        for line in text.lines() {
            let code = line.split("//").next().unwrap_or_default();
            for word in [
                "crate::ledger",
                "crate::identity",
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
fn the_stub_shares_no_rules() {
    for (path, text) in files("src/stub", "rs") {
        assert!(
            !text.contains("crate::rules::"),
            "{}: a shared bug would be invisible",
            path.display()
        );
    }
}

#[test]
fn nothing_is_left_to_do_in_the_code() {
    let words = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["XX", "X"].concat(),
    ];
    for (path, text) in [files("src", "rs"), files("tests", "rs"), files("deploy", "yaml")].concat() {
        for word in &words {
            assert!(!text.contains(word.as_str()), "{} says {word}", path.display());
        }
    }
}

#[test]
fn files_stay_readable_in_one_sitting() {
    for (path, text) in files("src", "rs") {
        let lines = text.lines().count();
        assert!(
            lines <= 700,
            "{} has {lines} lines: split it by subject",
            path.display()
        );
    }
}
