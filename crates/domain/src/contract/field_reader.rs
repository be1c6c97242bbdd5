//! Takes typed values out of a request's fields. An error names the field that is missing or of another type.

use crate::contract::error::ApiError;
use crate::contract::reason::FieldRule;
use crate::fields::{Fields, Value};
use crate::ids::Malformed;
use crate::xml::is_xml_char;

/// A request's fields while it is read. The fields that are left at the end are unknown to the contract.
#[derive(Debug)]
pub struct FieldReader<'a>(pub Fields<'a>);

impl<'a> FieldReader<'a> {
    /// Takes a text; `None` if it is absent or blank.
    ///
    /// # Errors
    /// `PARAM_ERROR` with the field's name if the value is not a text (a JSON number, an object).
    pub fn text(&mut self, name: &'static str) -> Result<Option<String>, ApiError> {
        match self.0.take(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text.into_owned())),
            Some(Value::Raw(_)) => Err(ApiError::field(name, FieldRule::Text)),
        }
    }

    /// Takes a text that must be there.
    ///
    /// # Errors
    /// As [`FieldReader::text`], and if it is absent or blank.
    pub fn required(&mut self, name: &'static str) -> Result<String, ApiError> {
        self.text(name)?.ok_or_else(|| ApiError::missing(name))
    }

    /// Takes a text that must be there and that parses as one of the contract's values.
    ///
    /// # Errors
    /// As [`FieldReader::required`], and if the value breaks its type's rule.
    pub fn parsed<T>(
        &mut self,
        name: &'static str,
        parse: fn(&str) -> Result<T, Malformed>,
    ) -> Result<T, ApiError> {
        let text = self.required(name)?;
        parse(&text).map_err(|rule| ApiError::field(name, FieldRule::Type(rule)))
    }

    /// Takes a text of at most `max` characters that XML can carry.
    ///
    /// # Errors
    /// As [`FieldReader::text`], and if the text is too long or holds a character that XML cannot carry.
    pub fn words(&mut self, name: &'static str, max: usize) -> Result<Option<String>, ApiError> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        if text.chars().count() > max {
            return Err(ApiError::field(name, FieldRule::MaxChars(max)));
        }
        if !text.chars().all(is_xml_char) {
            return Err(ApiError::field(name, FieldRule::NoControls));
        }
        Ok(Some(text))
    }

    /// Takes an integer: a JSON number without fraction and exponent, or a text of digits. `None` if it is absent
    /// or blank.
    ///
    /// # Errors
    /// `PARAM_ERROR` with `rule` if the value is anything else or does not fit 64 bits.
    pub fn integer(&mut self, name: &'static str, rule: FieldRule) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.0.take(name) else {
            return Ok(None);
        };
        let digits = match &value {
            Value::Text(text) => text.as_ref(),
            // Only a JSON number may carry a sign. The caller checks the range.
            Value::Raw(token) => token.strip_prefix('-').unwrap_or(token),
        };
        let all_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        match value.characters().parse::<i64>() {
            Ok(number) if all_digits => Ok(Some(number)),
            _ => Err(ApiError::field(name, rule)),
        }
    }
}
