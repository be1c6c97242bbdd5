//! The one rule by which user ids and openids are shortened in logs (specification, section 10).

/// Shortens an id to its first four and last two characters: `oX12…9f`. One of eight characters or fewer keeps its
/// first character only, since the rule would print most of it.
#[must_use]
pub fn shorten(id: &str) -> String {
    let count = id.chars().count();
    let (head, tail) = if count > 8 { (4, 2) } else { (1, 0) };
    let end = id.chars().skip(count.saturating_sub(tail));
    id.chars().take(head).chain(['…']).chain(end).collect()
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
