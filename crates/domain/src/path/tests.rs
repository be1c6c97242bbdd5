//! Spellings of the contract's paths that must not get through, and ordinary targets that must.

use proptest::prelude::*;

use super::*;
use crate::handler::{SEND_PATH, STATUS_PATH};

fn is_guarded(target: &str) -> bool {
    may_be_a_call(target.as_bytes())
}

#[test]
fn the_names_are_those_of_the_contracts_paths() {
    for (name, path) in NAMES.iter().zip([SEND_PATH, STATUS_PATH]) {
        assert!(name.contains(&b'k'), "what has none is passed at once");
        let last = path.rsplit('/').next().unwrap();
        assert_eq!(*name, last.to_ascii_lowercase().as_bytes());
        assert_eq!(name.iter().filter(|letter| **letter == name[0]).count(), 1);
        assert!(is_guarded(path));
    }
}

#[test]
fn each_of_these_may_be_a_call() {
    for target in [
        // Slashes, dot segments, other authorities and prefixes.
        "//x/pay/sendApiRedPack",
        "/pay//../sendApiRedPack",
        "/pay/../sendApiRedPack",
        "/%00/../pay/sendApiRedPack",
        "/x/%2e%2E/pay/sendApiRedPack",
        "/pay%2FsendApiRedPack",
        "/pay\\sendApiRedPack",
        "/internal/v1/pay/sendApiRedPack",
        // Characters that fold to ASCII letters.
        "/PAY/SENDAPIREDPACK",
        "/pay/sendApiRedPac%E2%84%AA",
        "/pay/%C5%BFendApiRedPack",
        "/pay/%EF%BC%B3endApiRedPack",
        "/pay/sendAp\u{131}RedPack",
        "/pay/sendAp\u{130}RedPack",
        "/pay/se\u{301}ndApiRedPack",
        "/pay/s\u{e9}ndApiRedPack",
        "/pay/getApiRedPacketﬅatus",
        "/pay/sendApiRedP%E2%93%90ck",
        // Characters that some readers drop.
        "/pay/send%80ApiRedPack",
        "/pay/send%00ApiRedPack",
        "/pay/send%E2%80%8BApiRedPack",
        "/pay/send%0d%0aApiRedPack",
        "/pay/send%C1%B3ApiRedPack",
        "/pay/sendApiRedPack%20",
        "/pay/sendApiRedPack%00.png",
        "/pay;v=1/sendApiRedPack;jsessionid=1",
        "/pay/send;ApiRedPack",
        "/pay/send;v=1/ApiRedPack",
        "/pay/sen%dApiRedPack",
        // Escapes, also inside each other, and overlong UTF-8.
        "/pay/%73endApiRedPack",
        "/pay/%2573endApiRedPack",
        "/pay/%25252573endApiRedPack",
        "/pay/%%373endApiRedPack",
        "/pay/%25%37%33endApiRedPack",
        "/pay/%u0073endApiRedPack",
        "/pay/%u002573endApiRedPack",
        "/pay/%uFF33endApiRedPack",
        "/pay/%u00%37%33endApiRedPack",
        "/pay/%C1%B3endApiRedPack",
        "/pay/%E0%81%B3endApiRedPack",
        "/pay/%F0%80%81%B3endApiRedPack",
        "/pay/%C0%A573endApiRedPack",
        // Endings, and beginnings that repeat.
        "/pay/sendApiRedPack/",
        "/pay/sendApiRedPack/1",
        "/pay/sendApiRedPacks",
        "/pay/sendApiRedPack.json",
        "/pay/sendApiRedPack%3fx",
        "/pay/sendApiRedPack%23x",
        "/pay/ssendApiRedPack",
        "/pay/sendsendApiRedPack",
        "/pay/getgetApiRedPacketStatus",
        // Other ways to join the words of a name, and other places for it.
        "/pay/send-api-red-pack",
        "/pay/send_api_red_pack",
        "/pay/send/api/red/pack",
        "/index.php?r=pay/send-api-red-pack",
        "/?s=/Pay/sendApiRedPack",
        "/?m=pay&a=get%41piRedPacketStatus",
    ] {
        assert!(is_guarded(target), "{target}");
    }
}

#[test]
fn ordinary_targets_are_not_guarded() {
    for target in [
        "*",
        "/",
        "/pay",
        "/pay/",
        "/pay/history?page=2&of=user-1",
        "/pay/sendApiRedPac",
        "/pay/getApiRedPacket",
        "/pay/RedPackSendApi",
        "/assets/app.3f9c1b.js",
        "/assets/send.svg?v=1;2",
        "/api/v1/packs/red?sort=-sent&filter[status]=get",
        "/red-packets/42/status",
        "/%E7%BA%A2%E5%8C%85/%E9%A2%86%E5%8F%96",
        "/红包/领取?用户=张三",
        "/search?q=100%25+%2B%2F%3D",
        "/a/../b//c%2F?x=%20&y",
        "/%zz%2%u12",
        "/ws;jsessionid=9F3C",
        "/callback?code=001aBcDe&state=STATE",
        "/pay/send%41",
    ] {
        assert!(!is_guarded(target), "{target}");
    }
}

/// The reference: compatibility decomposition and every case mapping, until nothing changes. It covers everything
/// that full and simple case folding join.
#[test]
fn whatever_folds_to_a_letter_is_read_as_that_letter() {
    let nfkd = DecomposingNormalizerBorrowed::new_nfkd();
    let once = |text: &str| -> String {
        let lower = nfkd.normalize(text).to_lowercase();
        let upper: String = lower.chars().flat_map(char::to_uppercase).collect();
        nfkd.normalize(&upper).to_lowercase()
    };
    let letters = |text: &str| text.chars().filter(char::is_ascii_alphabetic).collect::<String>();
    let mut beyond_ascii = 0;
    for c in '\0'..=char::MAX {
        let text = c.to_string();
        if c.to_lowercase().chain(c.to_uppercase()).all(|other| other == c) && nfkd.is_normalized(&text) {
            continue;
        }
        let decomposed = nfkd.normalize(&text).replace(['ß', 'ẞ'], "");
        let all = once(&decomposed);
        assert_eq!(once(&all), all, "{c:?}");
        let read = String::from_utf8(folded(text.as_bytes()))
            .unwrap()
            .to_ascii_lowercase();
        let expected = letters(&all);
        assert_eq!(letters(&read), expected, "{c:?}");
        beyond_ascii += usize::from(!c.is_ascii() && !expected.is_empty());
    }
    assert!(beyond_ascii > 1000, "{beyond_ascii}");
    assert!(
        NAMES
            .iter()
            .all(|name| !name.windows(2).any(|pair| pair == b"ss"))
    );
}

/// Escapes inside escapes, as deep as the length of a request head allows.
#[test]
fn the_deepest_escape_is_undone() {
    let deep = format!("/pay/%{}73endApiRedPack", "25".repeat(30_000));
    assert!(is_guarded(&deep));
    assert_eq!(decoded(b"%25%32%35%%34%31", false), b"%A");
    assert_eq!(decoded(b"%u12%41", false), b"%u12A");
}

fn percent(bytes: &[u8], times: usize) -> String {
    let sign = format!("%{}", "25".repeat(times));
    bytes.iter().map(|byte| format!("{sign}{byte:02X}")).collect()
}

/// One letter, written in one of many ways.
fn written(letter: char) -> impl Strategy<Value = Vec<u8>> {
    let wide = char::from_u32(u32::from(letter) + 0xFEE0).unwrap();
    let other = match letter.to_ascii_lowercase() {
        's' => '\u{17f}',
        'k' => '\u{212a}',
        'i' => '\u{131}',
        'a' => '\u{e5}',
        'e' => '\u{24d4}',
        _ => wide,
    };
    let byte = u8::try_from(letter).unwrap();
    let bytes = move |text: String| Just(text.into_bytes());
    prop_oneof![
        6 => bytes(letter.to_string()),
        2 => bytes(letter.to_ascii_uppercase().to_string()),
        2 => (0_usize..4).prop_map(move |times| percent(&[byte], times).into_bytes()),
        1 => bytes(format!("%u{:04x}", u32::from(letter))),
        1 => bytes(format!("%u{:04x}", u32::from(wide))),
        1 => bytes(other.to_string()),
        1 => (0_usize..3).prop_map(move |times| percent(other.to_string().as_bytes(), times).into_bytes()),
        1 => bytes(percent(&[0xC0 | (byte >> 6), 0x80 | (byte & 0x3F)], 0)),
        1 => Just(vec![0xE0, 0x80 | (byte >> 6), 0x80 | (byte & 0x3F)]),
    ]
}

/// Something between two letters that some reader drops. One spelling has only one `parameter`, because no reader
/// drops both a lone `;` and a `;` with what follows it.
fn dropped(parameter: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let one = prop::sample::select(vec![
        parameter,
        "%00",
        "%80",
        "%ff",
        "%e2",
        "%0a",
        "%20",
        "%09",
        "%2500",
        "%E2%80%8B",
        "%EF%BB%BF",
        "%CC%81",
        "/",
        "//",
        "\\",
        "%2f",
        "%5C",
        "/./",
        "-",
        "_",
        ".",
        "%ud800",
        "+",
    ]);
    prop_oneof![
        8 => Just(Vec::new()),
        1 => one.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::sample::select(vec![vec![0], vec![0x80], vec![0xFF], "\u{200d}".as_bytes().to_vec()]),
    ]
}

fn spelling() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec!["sendApiRedPack", "getApiRedPacketStatus"]);
    let parameter = prop::sample::select(vec![";", "%3b", ";v=1/", "%3bv=1%2f"]);
    let name = (name, parameter).prop_flat_map(|(name, parameter)| {
        let letters: Vec<_> = name
            .chars()
            .map(|letter| (dropped(parameter), written(letter)))
            .collect();
        letters.prop_map(|parts| {
            let parts = parts.into_iter();
            parts
                .flat_map(|(dropped, written)| [dropped, written].concat())
                .collect::<Vec<u8>>()
        })
    });
    let before = prop::sample::select(vec![
        "/pay/",
        "//x/pay/",
        "/",
        "/pay//../",
        "/a/b/../pay/",
        "/%00/../pay/",
        "/?s=/pay/",
        "/x%3f/pay/",
        "/pay;a=b/",
    ]);
    let after = prop::sample::select(vec![
        "", "/", "?x", "%3fx", "%23x", ".json", ";v=1", "%20", "/1", "s", "%00.png", "?x=%zz", "%",
    ]);
    (before, name, after)
        .prop_map(|(before, name, after)| [before.as_bytes(), &name, after.as_bytes()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn no_spelling_gets_through(target in spelling()) {
        prop_assert!(may_be_a_call(&target), "{}", String::from_utf8_lossy(&target));
    }

    #[test]
    fn what_has_no_name_in_it_passes(target in "/[a-f0-9%/;.?=&红包é-]{0,60}") {
        prop_assert!(!is_guarded(&target));
    }
}
