//! The one rule by which user ids and openids are shortened in logs (specification, section 10).

/// Shortens an id to its first four and last two characters: `oX12…9f`. One of eight characters or fewer keeps its
/// first character only, since the rule would print most of it.
#[must_use]
pub fn shorten(id: &str) -> String {
    // A ninth character, and it is a long one.
    let is_long = id.chars().nth(8).is_some();
    let (head, tail) = if is_long { (4, 2) } else { (1, 0) };
    let start = |nth: usize| id.char_indices().nth(nth).map_or(id.len(), |(at, _)| at);
    let end = |from_last: usize| match from_last.checked_sub(1) {
        Some(nth) => id.char_indices().nth_back(nth).map_or(0, |(at, _)| at),
        None => id.len(),
    };
    let mut short = String::with_capacity(16);
    short.push_str(id.get(..start(head)).unwrap_or_default());
    short.push('…');
    short.push_str(id.get(end(tail)..).unwrap_or_default());
    short
}

#[cfg(test)]
mod tests {
    use super::shorten;

    #[test]
    fn shows_too_little_to_be_used() {
        assert_eq!(shorten("oX12abcdefghijk9f"), "oX12…9f");
        assert_eq!(shorten("user8888"), "u…");
        assert_eq!(shorten("user88889"), "user…89");
        assert_eq!(shorten("用户"), "用…");
        assert_eq!(shorten("一二三四五六七八九"), "一二三四…八九");
        assert_eq!(shorten(""), "…");
    }
}
