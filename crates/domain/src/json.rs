//! JSON messages: one flat object to and from [`Fields`] (`docs/api.md`). What a field means is not decided here.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::fields::{Fields, FieldsError, Value};
use super::text::named;

/// Why a text is not one JSON object of fields. `Display` says it in English to operators, since upstreams answer JSON
/// too; [`JsonError::chinese`] says it to callers.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The text ends before the object does.
    #[error("the JSON ends too early")]
    Early,
    /// A field occurs twice, or there are too many.
    #[error("not one JSON object: {0}")]
    Fields(FieldsError),
    /// A field's text has a broken escape.
    #[error("not one JSON object: {error}")]
    Escape {
        /// The field.
        field: String,
        /// What the library says.
        error: serde_json::Error,
    },
    /// Something follows the object.
    #[error("not one JSON object: {0}")]
    Trailing(serde_json::Error),
    /// Not JSON, or not an object.
    #[error("not one JSON object: {0}")]
    Other(serde_json::Error),
}

impl JsonError {
    /// What is wrong, in Chinese. It quotes field names and positions, and no values.
    #[must_use]
    pub fn chinese(&self) -> String {
        let at = |error: &serde_json::Error| format!("第 {} 行第 {} 列", error.line(), error.column());
        match self {
            Self::Early => "请求体不完整: JSON 提前结束".to_owned(),
            Self::Fields(error) => error.chinese(),
            Self::Escape { field, .. } => format!("{} 的转义不正确: 请检查 \\u 转义", named(field)),
            Self::Trailing(error) => {
                format!(
                    "请求体须为一个 JSON 对象: 对象之后({}附近)还有其他内容",
                    at(error)
                )
            }
            Self::Other(error) => match error.classify() {
                Category::Data => "请求体须为一个 JSON 对象: 不能是数组、字符串、数字等".to_owned(),
                Category::Syntax | Category::Eof | Category::Io => {
                    format!("请求体不是正确的 JSON: {}附近有语法错误", at(error))
                }
            },
        }
    }
}

/// Reads one JSON object. It does not look into values: a nested one stays as written.
///
/// # Errors
/// [`JsonError`] if the text is not JSON or not one object, a field occurs twice, or there are more than
/// [`MAX_FIELDS`](super::fields::MAX_FIELDS).
pub fn decode(text: &str) -> Result<Fields<'_>, JsonError> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let mut fault = None;
    let object = Object { fault: &mut fault };
    let fields = reader.deserialize_map(object);
    let fields = fields.map_err(|error| match fault {
        Some(fault) => fault,
        None if error.is_eof() => JsonError::Early,
        None => JsonError::Other(error),
    })?;
    reader.end().map_err(JsonError::Trailing)?;
    Ok(fields)
}

/// Writes the fields as one JSON object.
#[must_use]
pub fn encode(fields: &Fields<'_>) -> String {
    // Cannot fail: every text can be written, and tokens are JSON already.
    serde_json::to_string(fields).unwrap_or_default()
}

struct Object<'f> {
    /// What is wrong with a field. serde's own error would keep only its text.
    fault: &'f mut Option<JsonError>,
}

impl Object<'_> {
    /// Notes what is wrong, and returns the error that ends the reading.
    fn fail<E: serde::de::Error>(self, fault: JsonError) -> E {
        let error = E::custom(&fault);
        *self.fault = Some(fault);
        error
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields::with_capacity(16);
        while let Some(name) = map.next_key_seed(Name)? {
            let token: &'de RawValue = map.next_value()?;
            let value = match Value::from_token(token.get()) {
                Ok(value) => value,
                Err(error) => {
                    let field = name.into_owned();
                    return Err(self.fail(JsonError::Escape { field, error }));
                }
            };
            if let Err(error) = fields.push(name, value) {
                return Err(self.fail(JsonError::Fields(error)));
            }
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

    /// Operators read English, callers Chinese with the field's name.
    #[test]
    fn what_is_not_one_object_is_refused_in_words() {
        let early = "请求体不完整: JSON 提前结束";
        let twice = "amount 重复: 同一字段只能出现一次";
        let no_object = "请求体须为一个 JSON 对象: 不能是数组、字符串、数字等";
        for (text, says, chinese) in [
            ("", "ends too early", early),
            (r#"{"amount":1"#, "ends too early", early),
            ("[]", "one JSON object", no_object),
            ("1", "one JSON object", no_object),
            (
                r#"{"amount":1}{"amount":2}"#,
                "trailing characters",
                "请求体须为一个 JSON 对象: 对象之后(第 1 行第 13 列附近)还有其他内容",
            ),
            (r#"{"amount":1,"amount":1}"#, "amount is given twice", twice),
            (r#"{"amount":1,"amou\u006et":2}"#, "amount is given twice", twice),
            (
                r#"{"amount":01}"#,
                "invalid number",
                "请求体不是正确的 JSON: 第 1 行第 12 列附近有语法错误",
            ),
            (
                r#"{"a":"\ud800"}"#,
                "hex escape",
                "a 的转义不正确: 请检查 \\u 转义",
            ),
            (
                r#"{'a':1}"#,
                "key must be a string",
                "请求体不是正确的 JSON: 第 1 行第 2 列附近有语法错误",
            ),
            (
                r#"{"a":NaN}"#,
                "expected value",
                "请求体不是正确的 JSON: 第 1 行第 6 列附近有语法错误",
            ),
        ] {
            let error = decode(text).unwrap_err();
            assert!(error.to_string().contains(says), "{text}: {error}");
            assert_eq!(error.chinese(), chinese, "{text}");
        }
        let secret = decode(r#""a secret""#).unwrap_err().chinese();
        assert_eq!(secret, no_object, "no value is quoted");
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
        let error = decode(&format!("{{{}}}", body.join(","))).unwrap_err();
        assert!(error.to_string().contains("more than 128 fields"), "{error}");
        assert_eq!(error.chinese(), "字段过多: 最多 128 个");
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
