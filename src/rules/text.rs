//! Texts: cut at a character boundary, ours to what a field holds, an upstream's to what is kept of them; and numbers in
//! hexadecimal.

/// The most characters that are kept of a text that an upstream says: a code, a reason, a status. WeChat's longest is
/// `err_code_des`, String(128) (wechat-pay.md, section 4). A handler's may be as long as its answer, and a record keeps the
/// text of each of its changes.
pub const UPSTREAM_CHARS: usize = 256;

/// The first `max` characters: always the same cut, since WeChat compares a repeat parameter for parameter.
#[must_use]
pub fn cut(text: &str, max: usize) -> &str {
    match text.char_indices().nth(max) {
        Some((end, _)) => text.get(..end).unwrap_or(text),
        None => text,
    }
}

/// What is kept of a text that an upstream says.
#[must_use]
pub fn kept(text: &str) -> String {
    cut(text, UPSTREAM_CHARS).to_owned()
}

/// Adds two lower-case digits for each byte. For what is written several times for each request, where the formatting of an
/// integer would be felt.
pub fn push_hex<const N: usize>(out: &mut String, bytes: [u8; N]) {
    let digit = |half: u8| match half {
        0..10 => b'0'.wrapping_add(half),
        _ => b'a'.wrapping_sub(10).wrapping_add(half),
    };
    let digits = bytes.map(|byte| [digit(byte >> 4), digit(byte & 0xF)]);
    // Digits are always a text.
    out.push_str(std::str::from_utf8(digits.as_flattened()).unwrap_or_default());
}

/// Two lower-case digits for each byte.
#[must_use]
pub fn hex_digits<const N: usize>(bytes: [u8; N]) -> String {
    let mut digits = String::with_capacity(N.saturating_mul(2));
    push_hex(&mut digits, bytes);
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_two_digits() {
        let mut digits = String::new();
        let mut as_formatted = String::new();
        for byte in 0..=255_u8 {
            push_hex(&mut digits, [byte]);
            as_formatted.push_str(&format!("{byte:02x}"));
        }
        assert_eq!(digits, as_formatted);
        push_hex(&mut digits, 0x00fe_dcba_u32.to_be_bytes());
        assert!(digits.ends_with("ff00fedcba"));
        assert_eq!(hex_digits([0, 0xAB]), "00ab");
    }

    proptest::proptest! {
        #[test]
        fn a_cut_is_a_prefix_of_at_most_so_many_characters(text in ".*", max in 0usize..9) {
            let short = cut(&text, max);
            proptest::prop_assert!(text.starts_with(short));
            proptest::prop_assert_eq!(short.chars().count(), std::cmp::min(max, text.chars().count()));
            proptest::prop_assert_eq!(cut(short, max), short);
        }
    }

    #[test]
    fn an_upstreams_text_is_kept_whole_as_far_as_256_characters() {
        let text = "长".repeat(256);
        assert_eq!(kept(&text), text);
        assert_eq!(kept(&format!("{text}er")), text);
    }
}
