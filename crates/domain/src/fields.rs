//! Flat lists of names and values without duplicates: the form that the codecs, the signer and the contract share.
//!
//! A value remembers whether it was a text or a bare JSON token: the contract must tell `"amount": 1.0` from
//! `"amount": "1"`, and a handler gets the fields that the contract does not know unchanged.

use std::borrow::Cow;

use serde::de::{MapAccess, Visitor};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::text::named;

/// The most fields that one message may have. The contract knows 17; nobody exceeds this by mistake.
pub const MAX_FIELDS: usize = 128;

/// One field's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A JSON string (unescaped), or the text of an XML element.
    Text(Cow<'a, str>),
    /// Any other JSON token exactly as written: a number, `true`, `null`, an array or an object. Serialising writes
    /// it unchanged, so it must be valid JSON.
    Raw(Cow<'a, str>),
}

impl<'a> Value<'a> {
    /// The text; `None` for a bare token.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            Value::Raw(_) => None,
        }
    }

    /// Whether the value is empty: an empty text or a JSON `null`.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.is_null() || self.characters().is_empty()
    }

    /// Whether the value is a JSON `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Raw(token) if token == "null")
    }

    /// The value's characters for an encoding without types (XML): a text as it is, a token as written.
    #[must_use]
    pub fn characters(&self) -> &str {
        match self {
            Value::Text(text) | Value::Raw(text) => text,
        }
    }

    /// The same value, without a borrow of the message.
    #[must_use]
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Value::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Value::Raw(token) => Value::Raw(Cow::Owned(token.into_owned())),
        }
    }
}

/// Names and values in the order given; no name occurs twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields<'a> {
    entries: Vec<(Cow<'a, str>, Value<'a>)>,
}

/// Why a field could not be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    /// The name is there already, and nothing says which value counts.
    #[error("{0} is given twice")]
    Twice(String),
    /// The message has more than [`MAX_FIELDS`].
    #[error("the message has more than {MAX_FIELDS} fields")]
    TooMany,
}

impl FieldsError {
    /// What is wrong, in Chinese.
    #[must_use]
    pub fn chinese(&self) -> String {
        match self {
            Self::Twice(name) => format!("{} 重复: 同一字段只能出现一次", named(name)),
            Self::TooMany => format!("字段过多: 最多 {MAX_FIELDS} 个"),
        }
    }
}

impl<'a> Fields<'a> {
    /// No fields yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No fields yet, with room for `count`.
    #[must_use]
    pub fn with_capacity(count: usize) -> Self {
        Self {
            entries: Vec::with_capacity(count),
        }
    }

    /// Adds a field from outside.
    ///
    /// # Errors
    /// [`FieldsError`] if the name is there already, or there are [`MAX_FIELDS`] fields.
    pub fn push(&mut self, name: Cow<'a, str>, value: Value<'a>) -> Result<(), FieldsError> {
        if self.get(&name).is_some() {
            return Err(FieldsError::Twice(name.into_owned()));
        }
        if self.entries.len() >= MAX_FIELDS {
            return Err(FieldsError::TooMany);
        }
        self.entries.push((name, value));
        Ok(())
    }

    /// Sets a text field under one of our own names; replaces an earlier value of that name.
    pub fn set(&mut self, name: &'static str, text: impl Into<Cow<'a, str>>) {
        self.put(name, Value::Text(text.into()));
    }

    /// Sets a number under one of our own names; replaces an earlier value of that name.
    pub fn set_number(&mut self, name: &'static str, number: i64) {
        self.put(name, Value::Raw(Cow::Owned(number.to_string())));
    }

    fn put(&mut self, name: &'static str, value: Value<'a>) {
        match self.entries.iter_mut().find(|(n, _)| n == name) {
            Some(entry) => entry.1 = value,
            None => self.entries.push((Cow::Borrowed(name), value)),
        }
    }

    /// The value under a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.entries
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value)
    }

    /// The characters under a name; `None` if the field is absent or blank.
    #[must_use]
    pub fn characters(&self, name: &str) -> Option<&str> {
        self.get(name)
            .filter(|value| !value.is_blank())
            .map(Value::characters)
    }

    /// Takes a field out; `None` if it is absent or blank, since a field without a value counts as left out.
    pub fn take(&mut self, name: &str) -> Option<Value<'a>> {
        let at = self.entries.iter().position(|(n, _)| n == name)?;
        let (_, value) = self.entries.remove(at);
        (!value.is_blank()).then_some(value)
    }

    /// Removes the fields without a value.
    pub fn drop_blank(&mut self) {
        self.entries.retain(|(_, value)| !value.is_blank());
    }

    /// Changes values in place.
    pub fn each(&mut self, mut change: impl FnMut(&str, &mut Value<'a>)) {
        for (name, value) in &mut self.entries {
            change(name, value);
        }
    }

    /// All fields in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value<'a>)> {
        self.entries.iter().map(|(name, value)| (name.as_ref(), value))
    }

    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The same fields, without a borrow of the message.
    #[must_use]
    pub fn into_owned(self) -> Fields<'static> {
        let own =
            |(name, value): (Cow<'a, str>, Value<'a>)| (Cow::Owned(name.into_owned()), value.into_owned());
        Fields {
            entries: self.entries.into_iter().map(own).collect(),
        }
    }
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Raw(token) => {
                let token: &RawValue = serde_json::from_str(token).map_err(S::Error::custom)?;
                token.serialize(serializer)
            }
        }
    }
}

/// Writes a JSON object: texts as strings, tokens as written.
impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// Reads a JSON object strictly: a name that occurs twice is an error.
impl<'de> Deserialize<'de> for Fields<'static> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'static>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("one JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Fields::new();
                while let Some(name) = map.next_key::<String>()? {
                    let value = map.next_value::<Box<RawValue>>()?;
                    let value = Value::from_token(value.get())
                        .map_err(serde::de::Error::custom)?
                        .into_owned();
                    fields
                        .push(Cow::Owned(name), value)
                        .map_err(serde::de::Error::custom)?;
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl<'a> Value<'a> {
    /// Reads one JSON token: a string becomes its text, any other token stays as written.
    ///
    /// # Errors
    /// serde_json's error if a string's escapes are broken (a lone surrogate).
    pub fn from_token(token: &'a str) -> Result<Self, serde_json::Error> {
        if !token.starts_with('"') {
            return Ok(Value::Raw(Cow::Borrowed(token)));
        }
        match token.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(plain) if !plain.contains('\\') => Ok(Value::Text(Cow::Borrowed(plain))),
            _ => Ok(Value::Text(Cow::Owned(serde_json::from_str::<String>(token)?))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn a_name_given_twice_is_refused_by_name() {
        let mut fields = Fields::new();
        fields.push("amount".into(), Value::Text("1".into())).unwrap();
        assert_eq!(
            fields.push("amount".into(), Value::Text("1".into())),
            Err(FieldsError::Twice("amount".into()))
        );
    }

    #[test]
    fn blank_is_absent() {
        let mut fields = Fields::new();
        fields.push("remark".into(), Value::Text("".into())).unwrap();
        fields.push("wishing".into(), Value::Raw("null".into())).unwrap();
        assert_eq!(fields.characters("remark"), None);
        assert_eq!(fields.take("remark"), None);
        assert_eq!(fields.take("wishing"), None);
        assert!(fields.is_empty());
    }

    #[test]
    fn the_stored_form_keeps_types() {
        let text = r#"{"a":"1","b":1.50,"c":{"d":[1,null]},"e":null,"f":"\"\\\u0000","g":0,"h":18446744073709551616,"i":-7}"#;
        let fields: Fields<'static> = serde_json::from_str(text).unwrap();
        assert_eq!(fields.get("b"), Some(&Value::Raw("1.50".into())));
        assert_eq!(fields.get("f"), Some(&Value::Text("\"\\\u{0}".into())));
        assert_eq!(json::encode(&fields), text);
        assert!(serde_json::from_str::<Fields<'static>>(r#"{"a":1,"\u0061":1}"#).is_err());
    }
}
