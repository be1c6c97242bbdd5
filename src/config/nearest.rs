//! The known key that is nearest to an unknown one. Which keys are known comes from the schema, see `shape`.

/// The candidate that is most alike, by the number of letters to change; the first of several.
pub(super) fn nearest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .min_by_key(|candidate| strsim::damerau_levenshtein(wanted, candidate))
}

/// Whether two names are near enough for one to be a slip of the other: at most every third letter differs.
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
