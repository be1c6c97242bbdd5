//! JSON messages: one flat object to and from [`Fields`] (`docs/api.md`). What a field means is not decided here.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::{Fields, Value};

/// Reads one JSON object. It does not look into values: a nested one stays as written.
///
/// # Errors
/// What is wrong, in words for the caller: the text is not JSON or not one object, a field occurs twice, or there
/// are more than [`MAX_FIELDS`](super::fields::MAX_FIELDS).
pub fn decode(text: &str) -> Result<Fields<'_>, String> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let fields = reader.deserialize_map(Object).map_err(|error| describe(&error))?;
    reader.end().map_err(|error| describe(&error))?;
    Ok(fields)
}

/// Writes the fields as one JSON object.
#[must_use]
pub fn encode(fields: &Fields<'_>) -> String {
    // Cannot fail: every text can be written, and tokens are JSON already.
    serde_json::to_string(fields).unwrap_or_default()
}

fn describe(error: &serde_json::Error) -> String {
    if error.is_eof() {
        "the JSON ends too early".to_owned()
    } else {
        format!("not one JSON object: {error}")
    }
}

struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields::with_capacity(16);
        while let Some(name) = map.next_key_seed(Name)? {
            let token: &'de RawValue = map.next_value()?;
            let value = Value::from_token(token.get()).map_err(serde::de::Error::custom)?;
            fields.push(name, value).map_err(serde::de::Error::custom)?;
        }
        Ok(fields)
    }
}

/// Reads a name and copies it only if it has escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }
    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }
    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_kept_as_they_were_written() {
        let fields = decode(r#" {"amount": 1e2, "openid":"u\u0041", "x":{"y":[1, 2]}} "#).unwrap();
        assert_eq!(fields.get("amount"), Some(&Value::Raw("1e2".into())));
        assert_eq!(fields.get("openid"), Some(&Value::Text("uA".into())));
        assert_eq!(fields.get("x"), Some(&Value::Raw(r#"{"y":[1, 2]}"#.into())));
    }

    #[test]
    fn what_is_not_one_object_is_refused_in_words() {
        for (text, says) in [
            ("", "ends too early"),
            (r#"{"amount":1"#, "ends too early"),
            ("[]", "one JSON object"),
            ("1", "one JSON object"),
            (r#"{"amount":1}{"amount":2}"#, "trailing characters"),
            (r#"{"amount":1,"amount":1}"#, "amount is given twice"),
            (r#"{"amount":1,"amou\u006et":2}"#, "amount is given twice"),
            (r#"{"amount":01}"#, "invalid number"),
            (r#"{"a":"\ud800"}"#, "hex escape"),
            (r#"{'a':1}"#, "key must be a string"),
            (r#"{"a":NaN}"#, "expected value"),
        ] {
            let error = decode(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn tokens_are_written_as_they_were_read() {
        for text in [r#"{"a":1.50,"b":{"c":[1,null]},"d":null,"e":"\"\\\u0000"}"#, "{}"] {
            assert_eq!(encode(&decode(text).unwrap()), text);
        }
    }

    #[test]
    fn too_many_fields_are_refused() {
        let body: Vec<String> = (0..200).map(|n| format!("\"f{n}\":1")).collect();
        assert!(
            decode(&format!("{{{}}}", body.join(",")))
                .unwrap_err()
                .contains("more than 128 fields")
        );
    }

    proptest::proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(entries in proptest::collection::btree_map(".*", ".*", 0..9)) {
            let mut fields = Fields::new();
            for (name, text) in &entries {
                fields.push(name.into(), Value::Text(text.into())).unwrap();
            }
            let text = encode(&fields);
            proptest::prop_assert_eq!(decode(&text).unwrap(), fields);
            // serde_json's own reader gets the same.
            let read: std::collections::BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
            proptest::prop_assert_eq!(read, entries);
        }

        #[test]
        fn nothing_panics(text in ".*") {
            let _ = decode(&text).is_ok();
        }
    }
}
