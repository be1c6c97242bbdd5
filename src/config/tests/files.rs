//! Loads `tests/config/valid/*.toml`, and expects for each `invalid/NAME.toml` exactly the message in
//! `NAME.txt`.
//!
//! `UPDATE_EXPECTED=1` in the environment writes the messages anew. Read them before you commit them.

use std::path::{Path, PathBuf};

use crate::config::load::load_at;
use payout_domain::ids::Millis;

/// The files of a folder, sorted. Their paths are relative, as in the messages.
fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new("tests/config").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}

/// 2026-01-01, so the result does not depend on the day of the run.
const NOW: Millis = Millis(1_767_225_600_000);

#[test]
fn valid_files_load() {
    let files = files("valid");
    for file in &files {
        let env = [("SIGN_KEY".to_owned(), "k".to_owned())];
        if let Err(errors) = load_at(file, env.into_iter(), NOW) {
            panic!("{errors}");
        }
    }
    assert_eq!(files.len(), 4);
}

#[test]
fn invalid_files_are_refused_in_exactly_these_words() {
    let files = files("invalid");
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    for file in &files {
        let errors = load_at(file, std::iter::empty(), NOW).expect_err(&file.display().to_string());
        let text = format!("{errors}\n");
        let expected = file.with_extension("txt");
        if update {
            std::fs::write(&expected, &text).unwrap();
        }
        assert_eq!(
            text,
            std::fs::read_to_string(&expected).unwrap(),
            "{}",
            file.display()
        );
    }
    assert_eq!(files.len(), 14);
}
