//! The v2 signature, written a second time from WeChat's document and independent of the sidecar's.

use std::collections::BTreeMap;

use data_encoding::HEXUPPER;
use md5::{Digest as _, Md5};

/// Signs the fields (a sorted map already, whose order is that of its names' bytes).
pub(super) fn sign(fields: &BTreeMap<String, String>, key: &str) -> String {
    let pairs: Vec<String> = fields
        .iter()
        .filter(|(name, value)| name.as_str() != "sign" && !value.is_empty())
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let text = format!("{}&key={key}", pairs.join("&"));
    HEXUPPER.encode(&Md5::digest(text.as_bytes()))
}
