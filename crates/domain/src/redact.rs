//! The one rule that shortens user ids and openids in logs (`docs/operate.md`).

/// Shortens an id to its first four and last two characters: `oX12…9f`. An id of eight characters or fewer keeps
/// only its first character, since the rule would print most of it.
#[must_use]
pub fn shorten(id: &str) -> String {
    let mut chars = id.char_indices();
    let mut begins_at = |nth| chars.nth(nth).map(|(at, _)| at);
    // Each call continues after the character of the previous one.
    let (second, fifth, ninth) = (begins_at(1), begins_at(2), begins_at(3));
    let (head, tail) = match (second, fifth, ninth) {
        (_, Some(fifth), Some(_)) => {
            let last_but_one = id.char_indices().nth_back(1);
            (id.get(..fifth), last_but_one.and_then(|(at, _)| id.get(at..)))
        }
        (Some(second), ..) => (id.get(..second), None),
        (None, ..) => (Some(id), None),
    };
    [head.unwrap_or_default(), "…", tail.unwrap_or_default()].concat()
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
