//! XML messages: a root element with one level of text children, to and from [`Fields`] (`docs/api.md`). It accepts
//! no DTD and no entity but XML's own five, so external entities cannot read files or call servers
//! (CVE-2018-13439).

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "what a message may hold is listed; everything else is refused"
)]

mod encode;

mod error;

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

pub use self::encode::{NotXml, can_carry, encode, encode_lossy};
pub use self::error::{Markup, Position, XmlError};
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
/// [`XmlError`] if the text is not well-formed XML, declares an encoding other than UTF-8, or has a DOCTYPE, a
/// processing instruction, an attribute, an unknown entity, a character that XML 1.0 forbids, a field twice, too many
/// fields, or (with [`Nested::Refuse`]) an element inside a field.
pub fn decode(text: &str, nested: Nested) -> Result<Fields<'_>, XmlError> {
    if let Some(bad) = forbidden(text) {
        return Err(XmlError::Forbidden(bad));
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

fn open_root(reader: &mut Reader<&[u8]>) -> Result<Root, XmlError> {
    loop {
        match next(reader)? {
            Event::Decl(decl) => match decl.encoding() {
                None => {}
                Some(Ok(name)) if name.eq_ignore_ascii_case("utf-8") => {}
                Some(_) => return Err(XmlError::Charset),
            },
            Event::Comment(_) => {}
            Event::Text(text) if is_blank(&text) => {}
            Event::Start(tag) => return no_attributes(&tag).map(|()| Root::Filled),
            Event::Empty(tag) => return no_attributes(&tag).map(|()| Root::Empty),
            other => return Err(unexpected(&other, Position::Before)),
        }
    }
}

fn read_children<'a>(
    reader: &mut Reader<&'a [u8]>,
    fields: &mut Fields<'a>,
    nested: Nested,
) -> Result<(), XmlError> {
    loop {
        match next(reader)? {
            Event::Start(tag) => {
                no_attributes(&tag)?;
                let name = name_of(&tag)?;
                if let Some(text) = read_text(reader, &name, nested)? {
                    fields.push(Cow::Owned(name), Value::Text(text))?;
                }
            }
            Event::Empty(tag) => {
                no_attributes(&tag)?;
                let name = name_of(&tag)?;
                fields.push(Cow::Owned(name), Value::Text(Cow::Borrowed("")))?;
            }
            Event::Comment(_) => {}
            Event::Text(text) if is_blank(&text) => {}
            Event::End(_) => return Ok(()),
            other => return Err(unexpected(&other, Position::Between)),
        }
    }
}

/// Reads the text of one field up to its end tag; `None` if the field held elements and `nested` skips them.
fn read_text<'a>(
    reader: &mut Reader<&'a [u8]>,
    name: &str,
    nested: Nested,
) -> Result<Option<Cow<'a, str>>, XmlError> {
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
            Event::Start(_) | Event::Empty(_) => return Err(XmlError::Elements(name.to_owned())),
            other => return Err(unexpected(&other, Position::Inside(name.to_owned()))),
        }
    }
}

fn resolve(reference: &quick_xml::events::BytesRef<'_>, field: &str) -> Result<Cow<'static, str>, XmlError> {
    let field = || field.to_owned();
    match reference.resolve_char_ref() {
        Ok(Some(c)) if is_xml_char(c) => Ok(Cow::Owned(c.to_string())),
        Ok(Some(character)) => Err(XmlError::ForbiddenIn {
            field: field(),
            character,
        }),
        Ok(None) => match &*reference.borrow().into_inner() {
            "lt" => Ok(Cow::Borrowed("<")),
            "gt" => Ok(Cow::Borrowed(">")),
            "amp" => Ok(Cow::Borrowed("&")),
            "apos" => Ok(Cow::Borrowed("'")),
            "quot" => Ok(Cow::Borrowed("\"")),
            _ => Err(XmlError::Entity(field())),
        },
        Err(_) => Err(XmlError::Reference(field())),
    }
}

fn expect_end(reader: &mut Reader<&[u8]>) -> Result<(), XmlError> {
    loop {
        match next(reader)? {
            Event::Eof => return Ok(()),
            Event::Comment(_) => {}
            Event::Text(text) if is_blank(&text) => {}
            other => return Err(unexpected(&other, Position::After)),
        }
    }
}

fn next<'a>(reader: &mut Reader<&'a [u8]>) -> Result<Event<'a>, XmlError> {
    reader.read_event().map_err(|error| XmlError::IllFormed {
        error,
        at: reader.error_position(),
    })
}

fn append<'a>(text: &mut Cow<'a, str>, piece: Cow<'a, str>) {
    if text.is_empty() {
        *text = piece;
    } else {
        text.to_mut().push_str(&piece);
    }
}

fn name_of(tag: &BytesStart<'_>) -> Result<String, XmlError> {
    let name = tag.name().into_inner();
    if is_xml_name(name) {
        Ok(name.to_owned())
    } else {
        Err(XmlError::Name)
    }
}

fn no_attributes(tag: &BytesStart<'_>) -> Result<(), XmlError> {
    if is_blank(tag.attributes_raw()) {
        Ok(())
    } else {
        Err(XmlError::Attributes)
    }
}

fn unexpected(event: &Event<'_>, place: Position) -> XmlError {
    let markup = match event {
        Event::DocType(_) => Markup::DocType,
        Event::PI(_) => Markup::Instruction,
        Event::Decl(_) => Markup::Declaration,
        Event::Text(_) | Event::CData(_) | Event::GeneralRef(_) => Markup::Text,
        Event::Comment(_) => Markup::Comment,
        Event::Start(_) | Event::Empty(_) => Markup::Element,
        Event::End(_) => Markup::EndTag,
        Event::Eof => return XmlError::Early,
    };
    XmlError::Unexpected(markup, place)
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

    /// Operators read English, callers Chinese with the field's name.
    #[test]
    fn what_is_not_flat_xml_is_refused_in_words() {
        let early = "请求体不完整: XML 提前结束";
        let reference = "a 含有不正确的字符引用: 须形如 &#20013;";
        for (xml, says, chinese) in [
            ("", "too early", early),
            ("<xml><amount>1</amount>", "too early", early),
            (
                "<xml><amount>1</amoun",
                "not well-formed",
                "请求体不是正确的 XML: 第 14 字节附近有语法错误",
            ),
            (
                "<xml><amount>1</a></xml>",
                "not well-formed",
                "请求体不是正确的 XML: 第 14 字节附近有语法错误",
            ),
            (
                "<xml><amount>1</amount></xml><xml/>",
                "an element after the root",
                "请求体的 XML 根元素之后不能有元素: 请删除",
            ),
            (
                "<xml>1</xml>",
                "text between the fields",
                "请求体的 XML 字段之间不能有文本: 请删除",
            ),
            (
                "<xml><a><b>1</b></a></xml>",
                "a must hold text",
                "a 须为文本: 不能包含子元素",
            ),
            (
                "<xml><a>1</a><a>1</a></xml>",
                "a is given twice",
                "a 重复: 同一字段只能出现一次",
            ),
            (
                "<!DOCTYPE x [<!ENTITY a \"b\">]><xml><a>&a;</a></xml>",
                "a DOCTYPE before the root",
                "请求体的 XML 根元素之前不能有 DOCTYPE: 请删除",
            ),
            (
                "<xml><a>&a;</a></xml>",
                "entity that is not one of XML's five",
                "a 含有未定义的实体: 只能使用 &lt; &gt; &amp; &apos; &quot;",
            ),
            ("<xml><a>&#0;</a></xml>", "reference", reference),
            (
                "<xml><a>&#1;</a></xml>",
                "U+0001",
                "a 含有 XML 1.0 不允许的字符 U+0001: 请删除该字符",
            ),
            (
                "<xml><a>\u{1}</a></xml>",
                "U+0001",
                "请求体含有 XML 1.0 不允许的字符 U+0001: 请删除该字符",
            ),
            ("<xml><a>&#xD800;</a></xml>", "reference", reference),
            (
                "<xml><a b=\"1\">1</a></xml>",
                "attributes",
                "请求体的 XML 元素不能有属性: 请删除属性",
            ),
            (
                "<?php 1?><xml/>",
                "processing instruction",
                "请求体的 XML 根元素之前不能有处理指令: 请删除",
            ),
            (
                "<?xml version=\"1.0\" encoding=\"GBK\"?><xml/>",
                "other than UTF-8",
                "请求体的 XML 声明了其他编码: 须为 UTF-8",
            ),
            (
                "<xml><a>1<!-- -->0</a></xml>",
                "a comment inside a",
                "a 内不能有注释: 请删除",
            ),
            (
                "<xml><a>1 & 2</a></xml>",
                "not well-formed",
                "请求体不是正确的 XML: 第 10 字节附近有语法错误",
            ),
        ] {
            let error = decode(xml, Nested::Refuse).unwrap_err();
            assert!(error.to_string().contains(says), "{xml}: {error}");
            assert_eq!(error.chinese(), chinese, "{xml}");
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
