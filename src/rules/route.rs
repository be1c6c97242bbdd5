//! Which merchant entry a request belongs to. Document: specification, section 6.

use super::term::{MchId, WxAppId};

/// What an entry matches; `None` matches any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MerchantPattern {
    /// `mch_id`.
    pub mch_id: Option<MchId>,
    /// `wx_app_id`.
    pub wx_app_id: Option<WxAppId>,
}

/// The most specific entry that matches: by merchant first, then by app.
#[must_use]
pub fn most_specific<'a, T>(entries: &'a [(MerchantPattern, T)], mch_id: &MchId, app: &WxAppId) -> Option<&'a T> {
    let matches = |pattern: &MerchantPattern| {
        pattern.mch_id.as_ref().is_none_or(|m| m == mch_id) && pattern.wx_app_id.as_ref().is_none_or(|a| a == app)
    };
    let rank = |pattern: &MerchantPattern| (pattern.mch_id.is_some(), pattern.wx_app_id.is_some());
    entries.iter().filter(|(pattern, _)| matches(pattern)).max_by_key(|(pattern, _)| rank(pattern)).map(|(_, entry)| entry)
}
