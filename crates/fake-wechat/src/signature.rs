//! The v2 signature, implemented from WeChat's document and independent of `payout-domain`'s.

use std::collections::BTreeMap;

use data_encoding::HEXUPPER;
use md5::{Digest as _, Md5};

/// Signs the fields. The map sorts them by the bytes of their names, as WeChat requires.
pub(super) fn sign(fields: &BTreeMap<String, String>, key: &str) -> String {
    let pairs: Vec<String> = fields
        .iter()
        .filter(|(name, value)| name.as_str() != "sign" && !value.is_empty())
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let text = format!("{}&key={key}", pairs.join("&"));
    HEXUPPER.encode(&Md5::digest(text.as_bytes()))
}
