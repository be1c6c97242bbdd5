//! Targets that some router takes for one of the contract's two calls: those seen to pay, and some thousands built from
//! the same tricks, alone and combined. The combinations are the same in every run.

use std::collections::BTreeSet;
use test_support::rng::Rng;

/// Some router paid each of these past the ledger, or one very similar.
pub const SEEN: [&str; 33] = [
    "//x/pay/sendApiRedPack",
    "//x/pay/getApiRedPacketStatus",
    "/pay//../sendApiRedPack",
    "/%00/../pay/sendApiRedPack",
    "/x/../pay/sendApiRedPack",
    "/x/%2e%2e/pay/sendApiRedPack",
    "/x/..%2fpay/sendApiRedPack",
    "/./pay/sendApiRedPack",
    "/pay/sendApiRedPac%E2%84%AA",
    "/pay/getApiRedPac%E2%84%AAetStatus",
    "/pay/%C5%BFendApiRedPack",
    "/pay/sendApiRedPack%80",
    "/pay/send%80ApiRedPack",
    "/pay/sendApiRedPack%00",
    "/pay/sendApiRedPack%3fx",
    "/pay/sendApiRedPack%23x",
    "/pay/sendApiRedPack/",
    "/pay/sendApiRedPack/x",
    "/pay/sendApiRedPack.json",
    "/pay/sendApiRedPack;x=1",
    "/pay/sendApiRedPacks",
    "/PAY/SENDAPIREDPACK",
    "/pay/%73endApiRedPack",
    "/pay/%2573endApiRedPack",
    "/pay/%u0073endApiRedPack",
    "/pay%2FsendApiRedPack",
    "/pay\\sendApiRedPack",
    "\\pay\\sendApiRedPack",
    "/pay/%EF%BC%B3endApiRedPack",
    "/pay/send-api-red-pack",
    "/index.php?s=/pay/sendApiRedPack",
    "/?r=pay/sendApiRedPack",
    "http://shop//x/pay/sendApiRedPack",
];

const CALLS: [&str; 2] = ["/pay/sendApiRedPack", "/pay/getApiRedPacketStatus"];

const BEFORE: [&str; 22] = [
    "",
    "/",
    "//x",
    "///",
    "/.",
    "/x/..",
    "/x/%2e%2e",
    "/x%2f..",
    "/%00/..",
    "/%2e",
    "\\",
    "/;x=1",
    "/x;y/..",
    "/internal",
    "/api/v1",
    "/index.php",
    "/index.php?s=",
    "/?r=",
    "/x%3f",
    "/x%23",
    "/%20",
    "//user@x",
];

const AFTER: [&str; 24] = [
    "", "/", "//", "/.", "/x", "/x/..", "/%2e", "?x", "?x=%2f", "%3f", "%3fx", "%23", "%23x", ".json",
    ";x=1", ";", "%20", "%09", "%00", "%00.png", "%80", "s", "\\", "%5c..",
];

/// What some routers drop between two letters.
const DROPPED: [&str; 14] = [
    "%00",
    "%80",
    "%ff",
    "%c1",
    "%e2%80%8b",
    "%ef%bb%bf",
    "%cc%81",
    "%0d%0a",
    "%20",
    "%c2%ad",
    ";",
    "%2500",
    "-",
    "_",
];

fn percent(text: &str, times: usize) -> String {
    let sign = format!("%{}", "25".repeat(times));
    text.bytes().map(|byte| format!("{sign}{byte:02x}")).collect()
}

/// Other ways to write a character.
fn others(c: char) -> Vec<String> {
    let text = c.to_string();
    let mut all: Vec<String> = (0..3).map(|times| percent(&text, times)).collect();
    all.push(format!("%u{:04x}", u32::from(c)));
    if c.is_ascii_alphabetic() {
        let upper = c.is_ascii_uppercase();
        all.push(
            if upper {
                c.to_ascii_lowercase()
            } else {
                c.to_ascii_uppercase()
            }
            .to_string(),
        );
        let wide = char::from_u32(u32::from(c) + 0xFEE0).unwrap().to_string();
        all.extend([percent(&wide, 0), percent(&wide, 1)]);
        all.push(format!(
            "%{:02x}%{:02x}",
            0xC0 | (u32::from(c) >> 6),
            0x80 | (u32::from(c) & 0x3F)
        ));
        all.push(percent(&format!("{c}\u{301}"), 0));
    }
    for (ascii, folded) in [
        ('s', "\u{17f}"),
        ('k', "\u{212a}"),
        ('i', "\u{131}"),
        ('i', "\u{130}"),
        ('a', "\u{aa}"),
    ] {
        if c.eq_ignore_ascii_case(&ascii) {
            all.extend([percent(folded, 0), percent(folded, 1), folded.to_owned()]);
        }
    }
    if c == '/' {
        all.extend(["//", "/./", "/x/../", "\\", "/;x/", "/%2e/", "%5c"].map(str::to_owned));
    }
    all
}

pub fn spellings() -> Vec<String> {
    let mut all: BTreeSet<String> = SEEN.map(str::to_owned).into();
    let mut rng = Rng::new(0x9E37_79B9_7F4A_7C15);
    for call in CALLS {
        let letters: Vec<char> = call.chars().collect();
        let with = |at: usize, text: &str| {
            let around = |part: &[char]| part.iter().collect::<String>();
            [
                around(&letters[..at]),
                text.to_owned(),
                around(&letters[at + 1..]),
            ]
            .concat()
        };
        for (at, c) in letters.iter().enumerate() {
            all.extend(others(*c).iter().map(|other| with(at, other)));
            if at > 0 {
                all.extend(DROPPED.iter().map(|dropped| with(at, &format!("{dropped}{c}"))));
            }
        }
        for before in BEFORE {
            all.extend(AFTER.iter().map(|after| format!("{before}{call}{after}")));
        }
        for _ in 0..1200 {
            let mut target = BEFORE[rng.index(BEFORE.len())].to_owned();
            for c in &letters {
                if rng.index(12) == 0 {
                    target.push_str(DROPPED[rng.index(DROPPED.len())]);
                }
                let others = others(*c);
                match rng.index(4) {
                    0 => target.push_str(&others[rng.index(others.len())]),
                    _ => target.push(*c),
                }
            }
            target.push_str(AFTER[rng.index(AFTER.len())]);
            if rng.index(6) == 0 && target.starts_with('/') {
                target = format!("http://shop{target}");
            }
            all.insert(target);
        }
    }
    for call in CALLS {
        // These are the calls themselves, and the sidecar answers them.
        all.retain(|target| target.split(['?', '#']).next() != Some(call));
    }
    all.into_iter().collect()
}
