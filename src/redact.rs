//! The one rule by which user ids and openids are shortened in logs (specification, section 10).

/// Shortens an id to its first four and last two characters: `oX12…9f`. One of eight characters or fewer keeps its
/// first character only, since the rule would print most of it.
#[must_use]
pub fn shorten(id: &str) -> String {
    let count = id.chars().count();
    let (head, tail) = if count > 8 { (4, 2) } else { (1, 0) };
    let mut short: String = id.chars().take(head).collect();
    short.push('…');
    short.extend(id.chars().skip(count.saturating_sub(tail)));
    short
}

#[cfg(test)]
mod tests {
    use super::shorten;

    #[test]
    fn shows_too_little_to_be_used() {
        assert_eq!(shorten("oX12abcdefghijk9f"), "oX12…9f");
        assert_eq!(shorten("user8888"), "u…");
        assert_eq!(shorten("用户"), "用…");
        assert_eq!(shorten(""), "…");
    }
}
