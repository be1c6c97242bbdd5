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
        "rand::",
        "redis::",
        "hyper",
        "crate::payouts",
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
fn the_stub_shares_no_rules() {
    for (path, text) in files("src/stub", "rs") {
        assert!(
            !text.contains("payout_domain::"),
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
    for (path, text) in [
        files("src", "rs"),
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
    for (path, text) in files("src", "rs") {
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
    let manifest = |path: &str| -> toml::Table { std::fs::read_to_string(path).unwrap().parse().unwrap() };
    let workspace = &manifest("Cargo.toml")["workspace"];
    // The lints of a manifest hold for every target of its package, and for no other package. The fuzz target is none of
    // the workspace: what libFuzzer calls it by cannot be written without.
    let members = workspace["members"].as_array().unwrap().iter();
    let mut packages: Vec<_> = members
        .map(|folder| format!("{}/Cargo.toml", folder.as_str().unwrap()))
        .collect();
    packages.push("Cargo.toml".to_owned());
    assert_eq!(packages.len(), 2, "{packages:?}");
    for package in packages {
        let lints = manifest(&package);
        let unsafe_code = lints
            .get("lints")
            .and_then(|lints| lints.get("rust")?.get("unsafe_code"));
        assert_eq!(
            unsafe_code.and_then(toml::Value::as_str),
            Some("forbid"),
            "{package}"
        );
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
        "framing" => vec!["src/http/framing/tests.rs"],
        "strict" => vec!["src/http/strict/tests.rs"],
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
