//! The v2 signature: MD5, the digest that WeChat documents for red packets, transfers and their queries.
//! Document: wechat-pay.md, section 3, "Signature".
//!
//! HMAC-SHA256 exists beside it, but red packets have no field to announce it and refuse it (same section), so it is not
//! written here.

use md5::{Digest as _, Md5};

use crate::rules::fields::Fields;
use crate::secret::Secret;

/// The name of the field that carries the signature, and is not signed itself.
pub const SIGN: &str = "sign";

/// Signs every field with a value, except `sign`: sorted by name in ASCII byte order, `name=value` joined by `&`, then
/// `&key=` and the API key; 32 upper-case hexadecimal digits.
#[must_use]
pub fn sign_md5(fields: &Fields<'_>, api_key: &Secret) -> String {
    let mut signed: Vec<(&str, &str)> = fields
        .iter()
        .filter(|(name, value)| *name != SIGN && !value.characters().is_empty())
        .map(|(name, value)| (name, value.characters()))
        .collect();
    signed.sort_unstable_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
    let mut digest = Md5::new();
    for (at, (name, value)) in signed.into_iter().enumerate() {
        if at > 0 {
            digest.update("&");
        }
        digest.update(name);
        digest.update("=");
        digest.update(value);
    }
    digest.update("&key=");
    digest.update(api_key.expose());
    digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect()
}

/// Whether a signature is the right one, in either case of letters, in constant time.
#[must_use]
pub fn verify_md5(fields: &Fields<'_>, api_key: &Secret, given: &str) -> bool {
    Secret::new(sign_md5(fields, api_key)).matches(&given.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::fields::Value;

    fn fields(params: &serde_json::Map<String, serde_json::Value>) -> Fields<'static> {
        let mut fields = Fields::new();
        for (name, value) in params {
            let text = value.as_str().unwrap().to_owned();
            fields
                .push(name.clone().into(), Value::Text(text.into()))
                .unwrap();
        }
        fields
    }

    /// All vectors of this algorithm; those of the others are counted, so that none goes missing unseen.
    #[test]
    fn known_answers() {
        let vectors: Vec<serde_json::Value> =
            serde_json::from_str(include_str!("../../../tests/data/wechat-sign-vectors.json")).unwrap();
        let (ours, others): (Vec<_>, Vec<_>) = vectors.iter().partition(|v| v["algorithm"] == "V2-MD5");
        assert_eq!((ours.len(), others.len()), (18, 12));
        for vector in ours {
            let fields = fields(vector["params"].as_object().unwrap());
            let key = Secret::new(vector["key"].as_str().unwrap().to_owned());
            let expected = vector["expected"].as_str().unwrap();
            assert_eq!(sign_md5(&fields, &key), expected, "{}", vector["name"]);
            assert!(
                verify_md5(&fields, &key, &expected.to_lowercase()),
                "{}",
                vector["name"]
            );
            assert!(!verify_md5(&fields, &key, ""), "{}", vector["name"]);
        }
    }

    #[test]
    fn empty_values_and_the_signature_itself_are_not_signed() {
        let key = Secret::new("k".into());
        let mut signed = Fields::new();
        signed.set("b", "2");
        signed.set("a", "1");
        let before = sign_md5(&signed, &key);
        signed.set("empty", "");
        signed.set("sign", "anything");
        assert_eq!(sign_md5(&signed, &key), before);
        signed.set("A", "0");
        assert_ne!(sign_md5(&signed, &key), before);
    }
}
