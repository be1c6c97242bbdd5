//! Runs the fuzz targets' properties over their corpus, `fuzz/corpus`, and over thousands of mutations of it.
//! The mutations are the same in each run: `PAYOUT_FUZZ_SEED=<n>` selects others, `PAYOUT_FUZZ_RUNS=<count>`
//! their number. `scripts/fuzz` fuzzes the same properties guided by coverage.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    clippy::format_push_string,
    clippy::wildcard_enum_match_arm,
    missing_docs,
    unreachable_pub,
    reason = "a test that meets what it did not expect fails, as it should"
)]

mod properties;

use std::path::Path;
use test_support::rng::Rng;

/// Fragments that mutations insert, at which the parsers change their behaviour.
const WORDS: [&[u8]; 31] = [
    b"]]>",
    b"<![CDATA[",
    b"&#0;",
    b"&#x10FFFF;",
    b"&lt;",
    b"&e;",
    b"<!DOCTYPE x>",
    b"<?x?>",
    b"</xml>",
    b"\\u0000",
    b"\\ud800",
    b"\\ud83d\\ude00",
    b"\r\n",
    b"\0",
    b"\xEF\xBB\xBF",
    b"\xF0\x9F\xA7\xA7",
    b"\xFF",
    b"9223372036854775808",
    b"-0",
    b"1e2",
    b"null",
    b"SUCCESS",
    b"FAIL",
    b"[[merchant]]\n",
    b"\r\n\r\n",
    b"\n",
    b" :",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"0\r\n\r\n",
    b"3;a=b\r\nabc\r\n",
];

fn mutate(corpus: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut data = corpus[rng.index(corpus.len())].clone();
    for _ in 0..=rng.index(4) {
        let at = rng.index(data.len() + 1);
        match rng.index(6) {
            0 if at < data.len() => data[at] ^= 1 << rng.index(8),
            1 if at < data.len() => data[at] = rng.index(256) as u8,
            2 => {
                let end = (at + rng.index(9)).min(data.len());
                data.drain(at..end);
            }
            3 => {
                let end = (at + rng.index(40)).min(data.len());
                let part = data[at..end].to_vec();
                data.splice(at..at, part);
            }
            4 => {
                let other = &corpus[rng.index(corpus.len())];
                let from = rng.index(other.len() + 1);
                let to = (from + rng.index(60)).min(other.len());
                data.splice(at..at, other[from..to].iter().copied());
            }
            _ => {
                data.splice(at..at, WORDS[rng.index(WORDS.len())].iter().copied());
            }
        }
    }
    data
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 3, "{target} has hardly a corpus");
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn try_out(target: &str, property: fn(&[u8]), data: &[u8]) {
    let outcome = std::panic::catch_unwind(|| property(data));
    if outcome.is_err() {
        panic!(
            "{target} does not hold for {:?}, in bytes {data:?}: put it into fuzz/corpus/{target}",
            String::from_utf8_lossy(data)
        );
    }
}

fn hold(name: &str, runs: u64) {
    let (target, property) = properties::ALL
        .into_iter()
        .find(|(target, _)| *target == name)
        .unwrap();
    let corpus = corpus(target);
    for data in &corpus {
        try_out(target, property, data);
    }
    let mut rng = Rng::new(number("PAYOUT_FUZZ_SEED").unwrap_or(1));
    for _ in 0..number("PAYOUT_FUZZ_RUNS").unwrap_or(runs) {
        try_out(target, property, &mutate(&corpus, &mut rng));
    }
}

#[test]
fn json_is_read_and_written_alike_and_sent_as_it_is_signed() {
    hold("json", 50_000);
}

#[test]
fn xml_is_read_and_written_alike_and_sent_as_it_is_signed() {
    hold("xml", 50_000);
}

#[test]
fn nothing_certain_follows_from_an_answer_of_wechat_that_cannot_be_read() {
    hold("wechat", 50_000);
}

#[test]
fn nothing_certain_follows_from_an_answer_of_a_handler_that_cannot_be_read() {
    hold("handler", 50_000);
}

#[test]
fn a_configuration_is_read_or_refused_with_a_reason() {
    hold("config", 1_500);
}

#[test]
fn a_request_ends_at_one_place_however_it_comes() {
    hold("framing", 30_000);
}
