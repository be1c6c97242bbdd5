//! Finds the known key that is most similar to an unknown one. `shape` supplies the known keys, from the
//! schema.

/// The candidate with the smallest edit distance; the first of several equal ones.
pub(super) fn nearest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .min_by_key(|candidate| strsim::damerau_levenshtein(wanted, candidate))
}

/// Whether one name is probably a typo of the other: the edit distance is at most a third of the longer name's
/// length, and may always be 1.
pub(super) fn is_slip(wanted: &str, candidate: &str) -> bool {
    let letters = std::cmp::max(wanted.chars().count(), candidate.chars().count());
    strsim::damerau_levenshtein(wanted, candidate).saturating_mul(3) <= std::cmp::max(letters, 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_needs_the_fewest_changes() {
        let keys = ["listen", "max_body", "lame_duck"];
        assert_eq!(nearest("lisen", keys), Some("listen"));
        assert_eq!(nearest("maxbody", keys), Some("max_body"));
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn a_slip_differs_in_a_third_at_most() {
        for (wanted, candidate) in [
            ("lisen", "listen"),
            ("api_kye", "api_key"),
            ("tsl", "tls"),
            ("timeouts", "timeout"),
        ] {
            assert!(is_slip(wanted, candidate), "{wanted} {candidate}");
        }
        for (wanted, candidate) in [("password", "path"), ("host", "listen"), ("port", "to")] {
            assert!(!is_slip(wanted, candidate), "{wanted} {candidate}");
        }
    }
}
