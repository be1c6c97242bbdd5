//! JSON messages: one flat object to and from [`Fields`]. Document: specification, section 2.1.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::{Fields, Value};

/// Reads one JSON object. Values are not looked into: a nested one stays as it was written.
///
/// # Errors
/// When the text is no JSON, not one object, has a field twice or more than
/// [`MAX_FIELDS`](super::fields::MAX_FIELDS), then what was wrong, in words for the caller.
pub fn decode(text: &str) -> Result<Fields<'_>, String> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let fields = reader.deserialize_map(Object).map_err(|error| describe(&error))?;
    reader.end().map_err(|error| describe(&error))?;
    Ok(fields)
}

/// Writes the fields as one JSON object.
#[must_use]
pub fn encode(fields: &Fields<'_>) -> String {
    let plain: usize = fields
        .iter()
        .map(|(name, value)| name.len().saturating_add(value.characters().len()))
        .fold(0, usize::saturating_add);
    let mut text = String::with_capacity(plain.saturating_add(fields.len().saturating_mul(8)));
    let mut before = '{';
    for (name, value) in fields.iter() {
        text.push(before);
        before = ',';
        push_quoted(&mut text, name);
        text.push(':');
        match value {
            Value::Text(characters) => push_quoted(&mut text, characters),
            // Read from JSON, or made from an integer.
            Value::Raw(token) => text.push_str(token),
        }
    }
    text.push_str(if before == '{' { "{}" } else { "}" });
    text
}

/// Writes a JSON string. Nearly every text is free of what must be escaped, and is then copied as a whole. Source: RFC 8259,
/// section 7.
pub fn push_quoted(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        let quoted = serde_json::to_string(text);
        // A text can always be written.
        out.push_str(quoted.as_deref().unwrap_or("\"\""));
    }
}

/// Whether nothing in a text must be escaped: no control character, no quotation mark, no backslash. Eight bytes at a time.
fn is_plain(text: &str) -> bool {
    let (words, rest) = text.as_bytes().as_chunks::<8>();
    let mut last = [b' '; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    let mut all = words.iter().chain(std::iter::once(&last));
    all.all(|word| !has_special(u64::from_le_bytes(*word)))
}

/// Whether one of eight bytes must be escaped. Of the lowest such byte the highest bit is set exactly; a borrow can only mark
/// bytes above it.
fn has_special(word: u64) -> bool {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let below = |word: u64, least: u64| word.wrapping_sub(EACH.wrapping_mul(least)) & !word & HIGH;
    let is = |byte: u8| below(word ^ EACH.wrapping_mul(u64::from(byte)), 1);
    (below(word, 0x20) | is(b'"') | is(b'\\')) != 0
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

/// Reads a name without copying it, unless it has escapes.
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
            proptest::prop_assert_eq!(&text, &serde_json::to_string(&fields).unwrap(), "as a record has it");
            proptest::prop_assert_eq!(decode(&text).unwrap(), fields);
        }

        #[test]
        fn a_string_is_quoted_as_the_library_quotes_it(text in r#"[\x00-\x7f€红😀]*"#) {
            let mut quoted = String::new();
            push_quoted(&mut quoted, &text);
            proptest::prop_assert_eq!(quoted, serde_json::to_string(&text).unwrap());
        }

        #[test]
        fn nothing_panics(text in ".*") {
            let _ = decode(&text).is_ok();
        }
    }
}
