//! Writes fields as an XML message: a root with one element of CDATA for each field.

use super::{forbidden, is_xml_char, is_xml_name};
use crate::fields::Fields;

/// Why fields cannot be written as XML.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} holds what XML cannot carry")]
pub struct NotXml {
    /// The field whose name or value XML cannot carry.
    pub field: String,
}

/// Writes `<xml>` with one CDATA child per field. It leaves out a field with JSON's `null`, which XML cannot
/// express.
///
/// # Errors
/// [`NotXml`] with the field's name if that name is not an XML name, or the value holds a character that XML 1.0
/// forbids.
pub fn encode(fields: &Fields<'_>) -> Result<String, NotXml> {
    let mut out = begun(fields);
    for (name, text) in carried(fields) {
        if !is_carried(name, text) {
            return Err(NotXml {
                field: name.to_owned(),
            });
        }
        push_element(&mut out, name, text);
    }
    out.push_str("</xml>");
    Ok(out)
}

/// Writes as [`encode`] what XML can carry: U+FFFD replaces a character that XML 1.0 forbids, and a field whose name
/// is not an XML name is left out.
#[must_use]
pub fn encode_lossy(fields: &Fields<'_>) -> String {
    let mut out = begun(fields);
    for (name, text) in carried(fields).filter(|(name, _)| is_xml_name(name)) {
        let text = text.replace(|c| !is_xml_char(c), "\u{FFFD}");
        push_element(&mut out, name, &text);
    }
    out.push_str("</xml>");
    out
}

/// The root's start tag, with room for the fields.
fn begun(fields: &Fields<'_>) -> String {
    let room = fields.iter().map(|(n, v)| {
        n.len()
            .saturating_mul(2)
            .saturating_add(v.characters().len())
            .saturating_add(17)
    });
    let mut out = String::with_capacity(room.fold(11, usize::saturating_add));
    out.push_str("<xml>");
    out
}

fn push_element(out: &mut String, name: &str, text: &str) {
    out.push('<');
    out.push_str(name);
    out.push_str("><![CDATA[");
    push_cdata(out, text);
    out.push_str("]]></");
    out.push_str(name);
    out.push('>');
}

/// Checks whether [`encode`] can write the fields.
///
/// # Errors
/// As [`encode`].
pub fn can_carry(fields: &Fields<'_>) -> Result<(), NotXml> {
    match carried(fields).find(|(name, text)| !is_carried(name, text)) {
        None => Ok(()),
        Some((name, _)) => Err(NotXml {
            field: name.to_owned(),
        }),
    }
}

fn carried<'a>(fields: &'a Fields<'_>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let given = fields.iter().filter(|(_, value)| !value.is_null());
    given.map(|(name, value)| (name, value.characters()))
}

fn is_carried(name: &str, text: &str) -> bool {
    is_xml_name(name) && forbidden(text).is_none()
}

/// Ends and reopens the CDATA section for what it cannot hold: `]]>` would end it, and a reader turns a carriage
/// return into a line feed.
fn push_cdata(out: &mut String, text: &str) {
    if !text.contains(['\r', ']']) {
        return out.push_str(text);
    }
    let mut rest = text;
    while let Some(at) = rest.find("]]>").into_iter().chain(rest.find('\r')).min() {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        if let Some(after) = after.strip_prefix('\r') {
            out.push_str("]]>&#13;<![CDATA[");
            rest = after;
        } else {
            out.push_str("]]]]><![CDATA[>");
            rest = after.strip_prefix("]]>").unwrap_or_default();
        }
    }
    out.push_str(rest);
}
