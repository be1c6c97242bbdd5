//! The parameters that an order's first claim pins, with their JSON text. The record and a JSON handler get that
//! text byte for byte.

use std::ops::Deref;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::fields::Fields;

/// Fields that no longer change. They deref to [`Fields`].
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Parameters {
    #[serde(skip)]
    fields: Fields<'static>,
    json: Box<RawValue>,
}

impl Parameters {
    /// The fields as one JSON object.
    #[must_use]
    pub fn json(&self) -> &str {
        self.json.get()
    }
}

impl From<Fields<'static>> for Parameters {
    fn from(fields: Fields<'static>) -> Self {
        // Cannot fail: every text can be written, and tokens are JSON already.
        let json = to_raw_value(&fields).unwrap_or_else(|_| RawValue::NULL.to_owned());
        Self { fields, json }
    }
}

impl Deref for Parameters {
    type Target = Fields<'static>;
    fn deref(&self) -> &Self::Target {
        &self.fields
    }
}

/// Compares the fields only: the text was made from them, or they were read from it.
impl PartialEq for Parameters {
    fn eq(&self, other: &Self) -> bool {
        self.fields == other.fields
    }
}

impl Eq for Parameters {}

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        let fields = serde_json::from_str(json.get()).map_err(D::Error::custom)?;
        Ok(Self { fields, json })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_was_made_or_read() {
        let mut fields = Fields::new();
        fields.set("a", "\"\u{1}红包");
        fields.set_number("b", -7);
        let made = Parameters::from(fields);
        assert_eq!(made.json(), "{\"a\":\"\\\"\\u0001红包\",\"b\":-7}");
        assert_eq!(serde_json::to_string(&made).unwrap(), made.json());
        let read: Parameters = serde_json::from_str(made.json()).unwrap();
        assert_eq!((read.json(), &read), (made.json(), &made));
        assert!(serde_json::from_str::<Parameters>(r#"{"a":1,"a":1}"#).is_err());
    }
}
