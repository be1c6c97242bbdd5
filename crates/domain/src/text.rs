//! Texts: cut at a character boundary, ours to what a field holds, an upstream's to what is kept of them.

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
