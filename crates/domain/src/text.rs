//! Cuts texts at a character boundary: our own texts to the length of a field, an upstream's texts to the length
//! that the sidecar keeps.

/// The most characters that the sidecar keeps of an upstream's text: a code, a reason, a status. WeChat's longest
/// such text is `err_code_des`, String(128). A handler's text may be as long as its response, and a record keeps
/// the text of each of its changes.
pub const UPSTREAM_CHARS: usize = 256;

/// The most characters that a text to the caller quotes of a field's name that the caller made up.
const NAME_CHARS: usize = 64;

/// A field's name as a text to the caller quotes it: a request may give a name of any length.
#[must_use]
pub fn named(name: &str) -> &str {
    cut(name, NAME_CHARS)
}

/// The first `max` characters. Equal texts give equal cuts: WeChat compares a repeat parameter for parameter.
#[must_use]
pub fn cut(text: &str, max: usize) -> &str {
    match text.char_indices().nth(max) {
        Some((end, _)) => text.get(..end).unwrap_or(text),
        None => text,
    }
}

/// The part of an upstream's text that the sidecar keeps: its first [`UPSTREAM_CHARS`] characters.
#[must_use]
pub fn kept(text: &str) -> String {
    cut(text, UPSTREAM_CHARS).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

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
