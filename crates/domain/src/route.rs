//! Finds the merchant entry of an order: by merchant number first, then by app id; the most specific entry wins.
//! The entries are the tables `[[merchant]]` of `config.toml`.

use std::fmt;

use crate::ids::{MchId, WxAppId};

/// Whose orders an entry is for; `None` matches any.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MerchantPattern {
    /// The merchant number.
    pub mch_id: Option<MchId>,
    /// The app id.
    pub wx_app_id: Option<WxAppId>,
}

impl MerchantPattern {
    /// Whether the entry is for orders of this merchant and app.
    #[must_use]
    pub fn matches(&self, mch_id: &MchId, wx_app_id: &WxAppId) -> bool {
        self.mch_id.as_ref().is_none_or(|wanted| wanted == mch_id)
            && self.wx_app_id.as_ref().is_none_or(|wanted| wanted == wx_app_id)
    }

    /// Orders patterns: an exact merchant number counts more than any app id, an exact app id more than none.
    const fn weight(&self) -> (bool, bool) {
        (self.mch_id.is_some(), self.wx_app_id.is_some())
    }
}

/// As in the configuration: `1900000109`, `1900000109 wx8888888888888888`, `*`.
impl fmt::Display for MerchantPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.mch_id.as_ref().map_or("*", MchId::as_str))?;
        self.wx_app_id.as_ref().map_or(Ok(()), |app| write!(f, " {app}"))
    }
}

/// The most specific entry that matches; the first of equal ones (a configuration has none). `None` if no entry
/// pays for this merchant and app (`NO_AUTH`).
#[must_use]
pub fn most_specific<'a, T>(
    entries: impl IntoIterator<Item = (&'a MerchantPattern, T)>,
    mch_id: &MchId,
    wx_app_id: &WxAppId,
) -> Option<T> {
    let mut best: Option<((bool, bool), T)> = None;
    for (pattern, entry) in entries {
        if !pattern.matches(mch_id, wx_app_id) {
            continue;
        }
        let weight = pattern.weight();
        if best.as_ref().is_none_or(|(heaviest, _)| weight > *heaviest) {
            best = Some((weight, entry));
        }
    }
    best.map(|(_, entry)| entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mch(text: &str) -> MchId {
        MchId::parse(text).unwrap()
    }

    fn app(text: &str) -> WxAppId {
        WxAppId::parse(text).unwrap()
    }

    fn pattern(mch_id: &str, wx_app_id: &str) -> MerchantPattern {
        MerchantPattern {
            mch_id: MchId::parse(mch_id).ok(),
            wx_app_id: WxAppId::parse(wx_app_id).ok(),
        }
    }

    #[test]
    fn the_merchant_number_decides_before_the_app() {
        let patterns = [("*", "*"), ("*", "wxA"), ("1", "*"), ("1", "wxA")].map(|(m, a)| pattern(m, a));
        let winner = |m: &str, a: &str, skip: usize| {
            let entries = patterns
                .iter()
                .take(patterns.len() - skip)
                .map(|p| (p, p.to_string()));
            most_specific(entries, &mch(m), &app(a))
        };
        assert_eq!(winner("1", "wxA", 0).as_deref(), Some("1 wxA"));
        assert_eq!(
            winner("1", "wxA", 1).as_deref(),
            Some("1"),
            "an exact merchant beats an exact app"
        );
        assert_eq!(winner("1", "wxA", 2).as_deref(), Some("* wxA"));
        assert_eq!(winner("1", "wxB", 0).as_deref(), Some("1"));
        assert_eq!(winner("2", "wxA", 0).as_deref(), Some("* wxA"));
        assert_eq!(winner("2", "wxB", 0).as_deref(), Some("*"));
        assert_eq!(winner("2", "wxB", 4), None);
    }

    #[test]
    fn an_entry_for_another_app_of_the_merchant_does_not_hide_the_wildcard() {
        let patterns = [pattern("1", "wxA"), pattern("*", "*")];
        let winner = most_specific(
            patterns.iter().map(|p| (p, p.to_string())),
            &mch("1"),
            &app("wxB"),
        );
        assert_eq!(winner.as_deref(), Some("*"));
    }

    proptest! {
        /// Compares with the definition: look through the four kinds of pattern from the most to the least
        /// specific.
        #[test]
        fn agrees_with_the_definition_in_any_order(
            entries in prop::collection::hash_set((0_usize..4, 0_usize..4), 0..16),
            shuffle in any::<prop::sample::Index>(),
            m in 1_usize..4,
            a in 1_usize..4,
        ) {
            let name = |n: usize| if n == 0 { "*".to_owned() } else { n.to_string() };
            let mut patterns: Vec<_> = entries.iter().map(|(m, a)| pattern(&name(*m), &name(*a))).collect();
            if !patterns.is_empty() {
                let by = shuffle.index(patterns.len());
                patterns.rotate_left(by);
            }
            let found = most_specific(patterns.iter().map(|p| (p, p)), &mch(&name(m)), &app(&name(a)));
            let wanted = [(m, a), (m, 0), (0, a), (0, 0)]
                .into_iter()
                .find(|kind| entries.contains(kind))
                .map(|(m, a)| pattern(&name(m), &name(a)));
            prop_assert_eq!(found.cloned(), wanted);
        }
    }
}
