//! Parsers of flat XML and JSON, independent of `payout-domain`'s.

use std::collections::BTreeMap;

use serde_json::Value;

/// Field names and values, sorted by name.
pub(super) type Map = BTreeMap<String, String>;

pub(super) fn read_xml(body: &[u8]) -> Option<Map> {
    quick_xml::de::from_str(std::str::from_utf8(body).ok()?).ok()
}

pub(super) fn read_json(body: &[u8]) -> Option<Map> {
    let object: BTreeMap<String, Value> = serde_json::from_slice(body).ok()?;
    let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Some(
        object
            .into_iter()
            .map(|(name, value)| (name, text(value)))
            .collect(),
    )
}
