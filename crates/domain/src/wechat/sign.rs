//! The v2 signature: MD5, the digest that WeChat documents for red packets, transfers and their queries
//! (`docs/wechat-pay.md`, signatures).
//!
//! HMAC-SHA256 is not implemented: red packets have no field to announce it, and refuse it.

use data_encoding::HEXUPPER;
use md5::{Digest as _, Md5};

use crate::fields::Fields;
use crate::secret::Secret;

/// The name of the field that carries the signature. The signature does not cover this field.
pub const SIGN: &str = "sign";

/// Signs every field with a value, except `sign`; an empty text and JSON's `null` are not values. The signed text
/// is the fields sorted by name in ASCII byte order, as `name=value` joined by `&`, then `&key=` and the API key.
/// Returns 32 upper-case hexadecimal digits.
#[must_use]
pub fn sign_md5(fields: &Fields<'_>, api_key: &Secret) -> String {
    let mut signed: Vec<(&str, &str)> = fields
        .iter()
        .filter(|(name, value)| *name != SIGN && !value.is_blank())
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
    HEXUPPER.encode(&digest.finalize())
}

/// Whether a signature is right, in upper-case or lower-case letters. Compares in constant time.
#[must_use]
pub fn verify_md5(fields: &Fields<'_>, api_key: &Secret, given: &str) -> bool {
    Secret::new(sign_md5(fields, api_key)).matches(&given.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::Value;
    use crate::json;

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

    /// The vectors that no test of v2 uses, by name. The first has the digest that red packets refuse (see the
    /// module's documentation). The others are of v3; the tests of [`v3`](crate::wechat::v3) use them.
    const OF_OTHER_ALGORITHMS: [&str; 12] = [
        "v2-hmac-sha256-official-example",
        "v3-rsa-sha256-sign-source",
        "v3-rsa-sha256-verify-source",
        "v3-rsa-sha256-verify-wrong-message",
        "v3-request-message-get",
        "v3-request-message-post",
        "v3-response-message",
        "v3-response-message-empty-body",
        "v3-authorization-header",
        "v3-aes-256-gcm-message",
        "v3-aes-128-gcm-hello",
        "v3-notification-whole",
    ];

    #[test]
    fn known_answers() {
        let vectors: Vec<serde_json::Value> =
            serde_json::from_str(include_str!("../../tests/data/wechat-sign-vectors.json")).unwrap();
        let (ours, others): (Vec<_>, Vec<_>) = vectors.iter().partition(|v| v["algorithm"] == "V2-MD5");
        let names: Vec<_> = others.iter().map(|v| v["name"].as_str().unwrap()).collect();
        assert_eq!(names, OF_OTHER_ALGORITHMS);
        assert_eq!(ours.len(), 18);
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

    /// A field without a value is not a field: the sender's library may write it as an empty text, as `null`, or
    /// not at all.
    #[test]
    fn what_json_says_as_null_is_not_signed() {
        let key = Secret::new("k".into());
        let with_null = json::decode(r#"{"a":"1","remark":null,"b":2}"#).unwrap();
        let without = json::decode(r#"{"a":"1","b":2}"#).unwrap();
        let the_word = json::decode(r#"{"a":"1","remark":"null","b":2}"#).unwrap();
        assert_eq!(sign_md5(&with_null, &key), sign_md5(&without, &key));
        assert_ne!(sign_md5(&with_null, &key), sign_md5(&the_word, &key));
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
