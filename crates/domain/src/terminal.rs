//! Texts from outside, made safe to be shown on a terminal: what would move its cursor, colour or title it, answer in the
//! user's name, or show one thing as another, is shown as its number instead.
//!
//! That is every control character (C0, DEL, and C1, which terminals obey in UTF-8, too), and every character that is not
//! seen itself and changes what is: the bidirectional controls (CVE-2021-42574), invisible spaces and joiners, tags.

use std::borrow::Cow;

/// One line: also a line break is shown by its number, so that a text cannot end its line and begin another.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |c| {
        is_obeyed(c).then(|| format!("\\u{{{:x}}}", u32::from(c)))
    })
}

/// Several lines of ours, with texts from outside in them.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| {
        (is_obeyed(c) && c != '\n').then(|| format!("\\u{{{:x}}}", u32::from(c)))
    })
}

/// JSON as a serialiser writes it, which escapes C0 only: the rest is escaped by JSON's own means, so that it is read back
/// as the same.
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

/// A line that its writer has coloured, and freed of control characters before: what is left is what changes how it reads.
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

/// Where the bytes are that such a character may begin with; most of Chinese has none.
fn beginnings(text: &str) -> impl Iterator<Item = usize> {
    let may_begin = |byte: &u8| matches!(byte, 0..=0x1f | 0x7f | 0xc2 | 0xd8 | 0xe1 | 0xe2 | 0xef | 0xf3);
    not_plain(text)
        .flatten()
        .filter(move |byte| may_begin(byte))
        .filter_map(|byte| text.as_bytes().element_offset(byte))
}

/// The parts of a text that are not all printable ASCII, which the compiler tells of a part of this size at once; the rest that
/// makes no whole part is among them. Every line of the log comes through here, and nearly all of it is plain; all of it never
/// is in an audit line, which has a `…` in its shortened ids.
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
