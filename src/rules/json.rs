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
    let mut writer = Writer::with_capacity(plain.saturating_add(fields.len().saturating_mul(8)));
    writer.fields(fields);
    writer.into_text()
}

/// A JSON text that is being written, straight into its room and without blanks. Of each member of an object first its name
/// is written and then its value.
pub struct Writer {
    /// A comma stands behind each value, until what it is in comes to its end.
    text: String,
}

/// A name as [`Writer::key`] takes it.
macro_rules! key {
    ($name:literal) => {
        concat!("\"", $name, "\":")
    };
}
pub(crate) use key;

impl Writer {
    /// Nothing yet, with room for so many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            text: String::with_capacity(bytes),
        }
    }

    /// The value that has been written.
    #[must_use]
    pub fn into_text(mut self) -> String {
        self.text.pop();
        self.text
    }

    /// A name that is known beforehand, with its quotation marks and its colon: [`key!`].
    pub fn key(&mut self, key: &'static str) -> &mut Self {
        self.text.push_str(key);
        self
    }

    /// Any name.
    pub fn name(&mut self, name: &str) -> &mut Self {
        push_quoted(&mut self.text, name, "\":");
        self
    }

    /// A string.
    pub fn text(&mut self, text: &str) {
        push_quoted(&mut self.text, text, "\",");
    }

    /// A string, as something is displayed.
    pub fn displayed(&mut self, what: fmt::Arguments<'_>) {
        use fmt::Write as _;
        self.text.push('"');
        if Inside(&mut self.text).write_fmt(what).is_err() {
            self.text.push_str("(cannot be shown)");
        }
        self.text.push_str("\",");
    }

    /// A number.
    pub fn number(&mut self, number: impl itoa::Integer) {
        self.token(itoa::Buffer::new().format(number));
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, is: bool) {
        self.token(if is { "true" } else { "false" });
    }

    /// What is JSON already.
    pub fn token(&mut self, token: &str) {
        self.text.push_str(token);
        self.text.push(',');
    }

    /// An object.
    pub fn object(&mut self, members: impl FnOnce(&mut Self)) {
        self.text.push('{');
        members(self);
        self.end("},");
    }

    /// An array.
    pub fn array(&mut self, elements: impl FnOnce(&mut Self)) {
        self.text.push('[');
        elements(self);
        self.end("],");
    }

    /// The fields as an object: texts as strings, tokens as they were written.
    pub fn fields(&mut self, fields: &Fields<'_>) {
        self.object(|object| {
            for (name, value) in fields.iter() {
                object.name(name);
                match value {
                    Value::Text(characters) => object.text(characters),
                    // Read from JSON, or made from an integer.
                    Value::Raw(token) => object.token(token),
                }
            }
        });
    }

    fn end(&mut self, with: &str) {
        if self.text.ends_with(',') {
            self.text.pop();
        }
        self.text.push_str(with);
    }
}

/// The inside of a JSON string that is written piece by piece.
struct Inside<'a>(&'a mut String);

impl fmt::Write for Inside<'_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        push_inside(self.0, piece);
        Ok(())
    }
}

/// Writes a JSON string, `end` in place of its last quotation mark. Nearly every text is free of what must be escaped, and is
/// then copied as a whole. Source: RFC 8259, section 7.
fn push_quoted(out: &mut String, text: &str, end: &'static str) {
    out.push('"');
    push_inside(out, text);
    out.push_str(end);
}

fn push_inside(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push_str(text);
    } else {
        out.push_str(&escaped(text));
    }
}

/// A text with what must be escaped in it, as the library writes it.
fn escaped(text: &str) -> String {
    let quoted = serde_json::to_string(text);
    let inside = quoted.as_deref().ok().and_then(|quoted| {
        let rest = quoted.strip_prefix('"')?;
        rest.strip_suffix('"')
    });
    // A text can always be written.
    inside.unwrap_or_default().to_owned()
}

/// Whether nothing in a text must be escaped: no control character, no quotation mark, no backslash. Eight bytes at a time,
/// the last eight of a longer text whether they were looked at or not.
fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let Some(last) = bytes.last_chunk::<8>() else {
        return bytes.iter().all(|byte| !matches!(byte, 0..0x20 | b'"' | b'\\'));
    };
    let special = |word: &[u8; 8]| special(u64::from_le_bytes(*word));
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().fold(special(last), |all, word| all | special(word)) == 0
}

/// Marks among eight bytes those that must be escaped, in their highest bits; zero where there is none. Of the lowest such
/// byte the mark is exact; a borrow can only mark bytes above it. A control character stays one when its second bit is
/// turned, and a quotation mark becomes a blank by that, so that both are found as what is below 0x21.
fn special(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let all = |byte: u8| EACH.wrapping_mul(u64::from(byte));
    let below_or_quote = (word ^ all(0x02)).wrapping_sub(all(0x21));
    let backslash = (word ^ all(b'\\')).wrapping_sub(EACH);
    (below_or_quote | backslash) & !word & HIGH
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
    fn members_and_elements_are_separated_at_every_depth() {
        let mut writer = Writer::with_capacity(0);
        writer.object(|object| {
            object.key(key!("a")).array(|array| {
                array.number(i64::MIN);
                array.object(|_| {});
                array.array(|inner| {
                    inner.text("x");
                    inner.token("null");
                    inner.boolean(false);
                    inner.displayed(format_args!("\""));
                });
            });
            object
                .name("\"\n")
                .object(|inner| inner.name("b").number(u64::MAX));
            object.name("c").text("");
        });
        assert_eq!(
            writer.into_text(),
            r#"{"a":[-9223372036854775808,{},["x",null,false,"\""]],"\"\n":{"b":18446744073709551615},"c":""}"#
        );
    }

    #[test]
    fn what_cannot_be_displayed_to_its_end_says_so() {
        struct Breaks;
        impl fmt::Display for Breaks {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("half ")?;
                Err(fmt::Error)
            }
        }
        let mut writer = Writer::with_capacity(0);
        writer.displayed(format_args!("{Breaks}"));
        assert_eq!(writer.into_text(), r#""half (cannot be shown)""#);
    }

    #[test]
    fn every_byte_is_told_at_every_place() {
        for length in [1, 7, 8, 9, 16, 23] {
            for at in 0..length {
                for byte in 0..0x80_u8 {
                    let mut bytes = vec![b'~'; length];
                    bytes[at] = byte;
                    let text = String::from_utf8(bytes).unwrap();
                    let must_be_escaped = byte < 0x20 || byte == b'"' || byte == b'\\';
                    assert_eq!(is_plain(&text), !must_be_escaped, "{byte:#x} at {at} of {length}");
                }
            }
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
            // Read by the library, too, which has no part in the writing of a plain text.
            let read: std::collections::BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
            proptest::prop_assert_eq!(read, entries);
        }

        #[test]
        fn a_string_is_quoted_as_the_library_quotes_it(text in r#"([ -~€红😀]*|[\x00-\x7f€红😀]*)"#) {
            let mut quoted = String::new();
            push_quoted(&mut quoted, &text, "\"");
            proptest::prop_assert_eq!(quoted, serde_json::to_string(&text).unwrap());
        }

        #[test]
        fn what_is_displayed_in_pieces_is_quoted_as_a_whole(pieces in proptest::collection::vec(r#"[\x00-\x7f€红😀]*"#, 0..5)) {
            struct Pieces(Vec<String>);
            impl fmt::Display for Pieces {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    self.0.iter().try_for_each(|piece| f.write_str(piece))
                }
            }
            let whole = serde_json::to_string(&pieces.concat()).unwrap();
            let mut writer = Writer::with_capacity(0);
            writer.displayed(format_args!("{}", Pieces(pieces)));
            proptest::prop_assert_eq!(writer.into_text(), whole);
        }

        #[test]
        fn nothing_panics(text in ".*") {
            let _ = decode(&text).is_ok();
        }
    }
}
