//! XML messages: a root element with one level of text children, to and from [`Fields`] (`docs/api.md`). It accepts
//! no DTD and no entity but XML's own five, so external entities cannot read files or call servers
//! (CVE-2018-13439).

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "what a message may hold is listed; everything else is refused"
)]

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::fields::{Fields, Value};

/// What to do with an element inside a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nested {
    /// The contract has no nested elements: refuse the message.
    Refuse,
    /// WeChat's responses have some (`hblist`): leave the whole field out.
    Skip,
}

/// Reads a root element's children as fields.
///
/// # Errors
/// What is wrong, in words for the caller: the text is not well-formed XML, declares an encoding other than UTF-8,
/// or has a DOCTYPE, a processing instruction, an attribute, an unknown entity, a character that XML 1.0 forbids, a
/// field twice, too many fields, or (with [`Nested::Refuse`]) an element inside a field.
pub fn decode(text: &str, nested: Nested) -> Result<Fields<'_>, String> {
    if let Some(bad) = forbidden(text) {
        return Err(format!(
            "the XML holds the character U+{:04X}, which XML 1.0 forbids",
            u32::from(bad)
        ));
    }
    let mut reader = Reader::from_str(text);
    let root = open_root(&mut reader)?;
    let mut fields = Fields::with_capacity(16);
    if root == Root::Filled {
        read_children(&mut reader, &mut fields, nested)?;
    }
    expect_end(&mut reader)?;
    Ok(fields)
}

#[derive(PartialEq, Eq)]
enum Root {
    Filled,
    Empty,
}

fn open_root(reader: &mut Reader<&[u8]>) -> Result<Root, String> {
    loop {
        match next(reader)? {
            Event::Decl(decl) => match decl.encoding() {
                None => {}
                Some(Ok(name)) if name.eq_ignore_ascii_case("utf-8") => {}
                Some(_) => return Err("the XML declares an encoding other than UTF-8".to_owned()),
            },
            Event::Comment(_) => {}
            Event::Text(text) if is_blank(&text) => {}
            Event::Start(tag) => return no_attributes(&tag).map(|()| Root::Filled),
            Event::Empty(tag) => return no_attributes(&tag).map(|()| Root::Empty),
            other => return Err(unexpected(&other, "before the root element")),
        }
    }
}

fn read_children<'a>(
    reader: &mut Reader<&'a [u8]>,
    fields: &mut Fields<'a>,
    nested: Nested,
) -> Result<(), String> {
    loop {
        match next(reader)? {
            Event::Start(tag) => {
                no_attributes(&tag)?;
                let name = name_of(&tag)?;
                if let Some(text) = read_text(reader, &name, nested)? {
                    fields
                        .push(Cow::Owned(name), Value::Text(text))
                        .map_err(|e| e.to_string())?;
                }
            }
            Event::Empty(tag) => {
                no_attributes(&tag)?;
                let name = name_of(&tag)?;
                fields
                    .push(Cow::Owned(name), Value::Text(Cow::Borrowed("")))
                    .map_err(|e| e.to_string())?;
            }
            Event::Comment(_) => {}
            Event::Text(text) if is_blank(&text) => {}
            Event::End(_) => return Ok(()),
            other => return Err(unexpected(&other, "between the fields")),
        }
    }
}

/// Reads the text of one field up to its end tag; `None` if the field held elements and `nested` skips them.
fn read_text<'a>(
    reader: &mut Reader<&'a [u8]>,
    name: &str,
    nested: Nested,
) -> Result<Option<Cow<'a, str>>, String> {
    let mut text: Cow<'a, str> = Cow::Borrowed("");
    let mut depth: usize = 0;
    let mut flat = true;
    loop {
        match next(reader)? {
            Event::Text(piece) => append(&mut text, piece.xml10_content()),
            Event::CData(piece) => append(&mut text, piece.xml10_content()),
            Event::GeneralRef(reference) => append(&mut text, resolve(&reference, name)?),
            Event::End(_) if depth == 0 => return Ok(flat.then_some(text)),
            Event::End(_) => depth = depth.saturating_sub(1),
            Event::Start(_) if nested == Nested::Skip => {
                flat = false;
                depth = depth.saturating_add(1);
            }
            Event::Empty(_) if nested == Nested::Skip => flat = false,
            Event::Start(_) | Event::Empty(_) => return Err(format!("{name} must hold text, not elements")),
            other => return Err(unexpected(&other, &format!("inside {name}"))),
        }
    }
}

fn resolve(reference: &quick_xml::events::BytesRef<'_>, field: &str) -> Result<Cow<'static, str>, String> {
    match reference.resolve_char_ref() {
        Ok(Some(c)) if is_xml_char(c) => Ok(Cow::Owned(c.to_string())),
        Ok(Some(c)) => Err(format!(
            "{field} holds the character U+{:04X}, which XML 1.0 forbids",
            u32::from(c)
        )),
        Ok(None) => match &*reference.borrow().into_inner() {
            "lt" => Ok(Cow::Borrowed("<")),
            "gt" => Ok(Cow::Borrowed(">")),
            "amp" => Ok(Cow::Borrowed("&")),
            "apos" => Ok(Cow::Borrowed("'")),
            "quot" => Ok(Cow::Borrowed("\"")),
            _ => Err(format!("{field} uses an entity that is not one of XML's five")),
        },
        Err(_) => Err(format!("{field} holds a broken character reference")),
    }
}

fn expect_end(reader: &mut Reader<&[u8]>) -> Result<(), String> {
    loop {
        match next(reader)? {
            Event::Eof => return Ok(()),
            Event::Comment(_) => {}
            Event::Text(text) if is_blank(&text) => {}
            other => return Err(unexpected(&other, "after the root element")),
        }
    }
}

fn next<'a>(reader: &mut Reader<&'a [u8]>) -> Result<Event<'a>, String> {
    reader
        .read_event()
        .map_err(|error| format!("not well-formed XML: {error}"))
}

fn append<'a>(text: &mut Cow<'a, str>, piece: Cow<'a, str>) {
    if text.is_empty() {
        *text = piece;
    } else {
        text.to_mut().push_str(&piece);
    }
}

fn name_of(tag: &BytesStart<'_>) -> Result<String, String> {
    let name = tag.name().into_inner();
    if is_xml_name(name) {
        Ok(name.to_owned())
    } else {
        Err("an element has a name that is not one".to_owned())
    }
}

fn no_attributes(tag: &BytesStart<'_>) -> Result<(), String> {
    if is_blank(tag.attributes_raw()) {
        Ok(())
    } else {
        Err("elements must not have attributes".to_owned())
    }
}

fn unexpected(event: &Event<'_>, place: &str) -> String {
    let what = match event {
        Event::DocType(_) => "a DOCTYPE",
        Event::PI(_) => "a processing instruction",
        Event::Decl(_) => "an XML declaration",
        Event::Text(_) | Event::CData(_) | Event::GeneralRef(_) => "text",
        Event::Comment(_) => "a comment",
        Event::Start(_) | Event::Empty(_) => "an element",
        Event::End(_) => "an end tag",
        Event::Eof => return "the XML ends too early".to_owned(),
    };
    format!("{what} {place} is not allowed")
}

fn is_blank(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n'))
}

/// Whether XML 1.0 allows a character in a document at all (its rule `Char`). Characters that it only discourages
/// pass.
#[must_use]
pub fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{FFFD}' | '\u{10000}'..)
}

/// The first character that no document may hold. The check of the bytes comes first, since most texts have none.
fn forbidden(text: &str) -> Option<char> {
    // From U+0020 on, XML forbids only U+FFFE and U+FFFF. Their UTF-8 begins with EF.
    let may_be = |byte: u8| byte == 0xEF || (byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r'));
    let is_suspect = text.bytes().any(may_be);
    is_suspect
        .then(|| text.chars().find(|&c| !is_xml_char(c)))
        .flatten()
}

/// Whether a text can be an element's name: a letter or `_`, then letters, digits, `_`, `-` and `.`. XML also
/// allows a colon, but there are no namespaces here.
#[must_use]
pub fn is_xml_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_alphabetic() || c == '_')
        && chars.all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(xml: &str, field: &str) -> Option<String> {
        decode(xml, Nested::Refuse)
            .unwrap()
            .get(field)
            .map(|v| v.characters().to_owned())
    }

    #[test]
    fn every_forbidden_character_is_found_and_no_other() {
        for c in (0..=0x11_FFFF).filter_map(char::from_u32) {
            let text = format!("a{c}b");
            assert_eq!(
                forbidden(&text),
                (!is_xml_char(c)).then_some(c),
                "U+{:04X}",
                u32::from(c)
            );
        }
    }

    #[test]
    fn reads_text_cdata_entities_and_references() {
        let xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<request>\n <amount>100</amount><a><![CDATA[<&]]>x&lt;&#65;&#x4e2d;</a><b/><c></c>\n</request>\n";
        assert_eq!(text_of(xml, "amount").as_deref(), Some("100"));
        assert_eq!(text_of(xml, "a").as_deref(), Some("<&x<A中"));
        assert_eq!(text_of(xml, "b").as_deref(), Some(""));
        assert_eq!(text_of(xml, "c").as_deref(), Some(""));
        assert_eq!(text_of("<xml/>", "amount"), None);
    }

    #[test]
    fn whitespace_inside_a_field_belongs_to_it() {
        assert_eq!(
            text_of("<x><amount> 1 </amount></x>", "amount").as_deref(),
            Some(" 1 ")
        );
    }

    #[test]
    fn what_is_not_flat_xml_is_refused_in_words() {
        for (xml, says) in [
            ("", "too early"),
            ("<xml><amount>1</amount>", "too early"),
            ("<xml><amount>1</amoun", "not well-formed"),
            ("<xml><amount>1</a></xml>", "not well-formed"),
            ("<xml><amount>1</amount></xml><xml/>", "an element after the root"),
            ("<xml>1</xml>", "text between the fields"),
            ("<xml><a><b>1</b></a></xml>", "a must hold text"),
            ("<xml><a>1</a><a>1</a></xml>", "a is given twice"),
            (
                "<!DOCTYPE x [<!ENTITY a \"b\">]><xml><a>&a;</a></xml>",
                "a DOCTYPE before the root",
            ),
            ("<xml><a>&a;</a></xml>", "entity that is not one of XML's five"),
            ("<xml><a>&#0;</a></xml>", "reference"),
            ("<xml><a>&#1;</a></xml>", "U+0001"),
            ("<xml><a>\u{1}</a></xml>", "U+0001"),
            ("<xml><a>&#xD800;</a></xml>", "reference"),
            ("<xml><a b=\"1\">1</a></xml>", "attributes"),
            ("<?php 1?><xml/>", "processing instruction"),
            (
                "<?xml version=\"1.0\" encoding=\"GBK\"?><xml/>",
                "other than UTF-8",
            ),
            ("<xml><a>1<!-- -->0</a></xml>", "a comment inside a"),
            ("<xml><a>1 & 2</a></xml>", "not well-formed"),
        ] {
            let error = decode(xml, Nested::Refuse).unwrap_err();
            assert!(error.contains(says), "{xml}: {error}");
        }
    }

    #[test]
    fn wechats_nested_lists_are_skipped_where_asked() {
        let xml = "<xml><status>SENT</status><hblist><hbinfo><openid>o</openid></hbinfo><x/></hblist><amount>1</amount></xml>";
        let fields = decode(xml, Nested::Skip).unwrap();
        assert_eq!(
            fields.iter().map(|(n, _)| n).collect::<Vec<_>>(),
            ["status", "amount"]
        );
    }

    #[test]
    fn what_xml_cannot_carry_is_named() {
        let mut fields = Fields::new();
        fields.set("remark", "a\u{0}b");
        assert_eq!(
            encode(&fields),
            Err(NotXml {
                field: "remark".into()
            })
        );
    }

    #[test]
    fn what_json_says_as_null_is_a_field_left_out() {
        let fields = crate::json::decode(r#"{"a":null,"b":"","c":"null","d":0}"#).unwrap();
        assert_eq!(
            encode(&fields).unwrap(),
            "<xml><b><![CDATA[]]></b><c><![CDATA[null]]></c><d><![CDATA[0]]></d></xml>"
        );
    }

    proptest::proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(texts in proptest::collection::vec("[\\]\\[<>&\r\n\t !-~中😀]*", 0..9)) {
            let mut fields = Fields::new();
            for (n, text) in texts.iter().enumerate() {
                fields.push(format!("f{n}").into(), Value::Text(text.into())).unwrap();
            }
            let xml = encode(&fields).unwrap();
            proptest::prop_assert_eq!(decode(&xml, Nested::Refuse).unwrap(), fields);
        }

        #[test]
        fn nothing_panics(text in ".*", markup in "[<>/&;!\\[\\]a-c\"= -]*") {
            let _ = decode(&text, Nested::Refuse).is_ok();
            let _ = decode(&markup, Nested::Skip).is_ok();
        }
    }
}
