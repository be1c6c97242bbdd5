//! Makes texts from outside safe to show on a terminal. It shows a character as its number if that character could
//! move the cursor, change colours or the title, answer in the user's name, or show one thing as another.
//!
//! These are all control characters (C0, DEL, and C1, which terminals obey in UTF-8 too), and the invisible
//! characters that change how a text reads: the bidirectional controls (CVE-2021-42574), invisible spaces and
//! joiners, tags.

use std::borrow::Cow;

/// For one line: escapes line breaks too, so that a text cannot end its line and begin another.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |c| {
        is_obeyed(c).then(|| format!("\\u{{{:x}}}", u32::from(c)))
    })
}

/// For several lines of our own that contain texts from outside: keeps line feeds.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| {
        (is_obeyed(c) && c != '\n').then(|| format!("\\u{{{:x}}}", u32::from(c)))
    })
}

/// For JSON from a serialiser, which escapes C0 only: writes the other characters as JSON escapes, so that a reader
/// gets the same value.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    escaped(text, |c| {
        (is_obeyed(c) && c != '\n').then(|| {
            let mut units = [0; 2];
            c.encode_utf16(&mut units)
                .iter()
                .map(|unit| format!("\\u{unit:04x}"))
                .collect()
        })
    })
}

/// For a line that its writer has coloured after removing control characters: keeps the colours, and escapes only
/// the invisible characters that change how the line reads.
#[must_use]
pub fn coloured(text: &str) -> Cow<'_, str> {
    escaped(text, |c| {
        (is_unseen(c) && !c.is_control()).then(|| format!("\\u{{{:x}}}", u32::from(c)))
    })
}

fn is_obeyed(c: char) -> bool {
    c.is_control() || is_unseen(c)
}

fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn escaped(text: &str, escape: impl Fn(char) -> Option<String>) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut copied = 0;
    for at in beginnings(text) {
        let c = text.get(at..).and_then(|rest| rest.chars().next());
        if let Some((c, number)) = c.and_then(|c| Some((c, escape(c)?))) {
            shown.push_str(text.get(copied..at).unwrap_or_default());
            shown.push_str(&number);
            copied = at.saturating_add(c.len_utf8());
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    shown.push_str(text.get(copied..).unwrap_or_default());
    Cow::Owned(shown)
}

/// The positions of the bytes with which such a character may begin; most Chinese text has none.
fn beginnings(text: &str) -> impl Iterator<Item = usize> {
    let may_begin = |byte: &u8| matches!(byte, 0..=0x1f | 0x7f | 0xc2 | 0xd8 | 0xe1 | 0xe2 | 0xef | 0xf3);
    not_plain(text)
        .flatten()
        .filter(move |byte| may_begin(byte))
        .filter_map(|byte| text.as_bytes().element_offset(byte))
}

/// The parts of a text that are not wholly printable ASCII; the remainder that fills no whole part is always
/// included. The compiler turns the check of a part of this size into a few vector instructions. Every log line
/// passes through here. Nearly all of its parts are plain, but an audit line never is as a whole: its shortened ids
/// contain a `…`.
fn not_plain(text: &str) -> impl Iterator<Item = &[u8]> {
    const AT_ONCE: usize = 32;
    let is_plain = |part: &[u8; AT_ONCE]| {
        let others = part.iter().map(|byte| u8::from(byte.wrapping_sub(0x20) >= 0x5f));
        others.fold(0, |one, other| one | other) == 0
    };
    let (parts, rest) = text.as_bytes().as_chunks::<AT_ONCE>();
    let parts = parts.iter().filter(move |part| !is_plain(part));
    parts.map(<[u8; AT_ONCE]>::as_slice).chain([rest])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: [&str; 8] = [
        "\u{1b}[2J\u{1b}]0;title\u{7}",
        "\u{9b}31m\u{9d}0;t\u{9c}",
        "a\r\nsucceeded  100",
        "\u{202e}DIAP\u{2066}",
        "in\u{200b}visible\u{feff}",
        "\u{7f}\u{8}\u{8}\u{8}",
        "\u{e0041}\u{e007f}",
        "\u{2028}\u{85}\u{61c}\u{ad}\u{180e}\u{fffa}",
    ];

    #[test]
    fn one_character_that_is_not_plain_has_only_its_own_part_looked_at() {
        for before in 300..340 {
            let line = format!("{}…{}", "a".repeat(before), "b".repeat(300));
            let looked_at: usize = not_plain(&line).map(<[u8]>::len).sum();
            assert!((3..=2 * 32 + 31).contains(&looked_at), "{before}: {looked_at}");
            assert!(matches!(json(&line), Cow::Borrowed(_)), "nothing is copied");
        }
    }

    fn is_safe(shown: &str) -> bool {
        !shown.chars().any(is_obeyed)
    }

    #[test]
    fn what_a_terminal_obeys_is_shown_by_its_number() {
        for text in HOSTILE {
            assert!(is_safe(&line(text)), "{text:?}");
            assert!(is_safe(&lines(text).replace('\n', "")), "{text:?}");
        }
        assert_eq!(line("\u{1b}[31mNO\u{9b}\n"), "\\u{1b}[31mNO\\u{9b}\\u{a}");
        assert_eq!(lines("a\n\tb"), "a\n\\u{9}b");
        assert_eq!(
            coloured("\u{1b}[31m\u{202e}x\u{1b}[0m"),
            "\u{1b}[31m\\u{202e}x\u{1b}[0m"
        );
    }

    #[test]
    fn every_character_that_is_obeyed_begins_with_a_byte_that_is_looked_for() {
        for c in ('\0'..=char::MAX).filter(|c| is_obeyed(*c)) {
            let text = c.to_string();
            assert!(is_safe(&line(&text)), "{c:?}");
        }
    }

    #[test]
    fn plain_texts_stay_as_they_are() {
        for text in ["", "NOTENOUGH", "余额不足：请充值", "é ü ß", "👍", "a\\u{1b}"] {
            assert!(matches!(line(text), Cow::Borrowed(same) if same == text));
            assert!(matches!(json(text), Cow::Borrowed(same) if same == text));
        }
    }

    proptest::proptest! {
        #[test]
        fn json_is_read_back_as_it_was(text in "\\PC*|[\\p{C}a]{0,20}") {
            let written = serde_json::json!({ "text": text }).to_string();
            let shown = json(&written);
            proptest::prop_assert!(is_safe(&shown));
            let read: serde_json::Value = serde_json::from_str(&shown).unwrap();
            proptest::prop_assert_eq!(read["text"].as_str(), Some(text.as_str()));
        }
    }
}
