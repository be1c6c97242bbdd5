//! Chooses the encoding of a request and of its response (`docs/api.md`). The codecs themselves are [`json`] and
//! [`xml`].

use super::fields::{Fields, Value};
use super::json::JsonError;
use super::xml::{Nested, NotXml, XmlError};
use super::{json, xml};

/// One of the contract's two encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// One flat JSON object.
    Json,
    /// One root element with text children.
    Xml,
}

/// Why the encoding of a request is not one of the contract's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    /// HTTP 415: a media type or charset that the contract does not know.
    #[error("the Content-Type {0:?} is not supported: send application/json or application/xml in UTF-8")]
    Unsupported(String),
    /// The type leaves the encoding open, and the body begins like neither.
    #[error("the body is neither a JSON object nor XML")]
    Undecided,
}

impl EncodingError {
    /// What is wrong, in Chinese.
    #[must_use]
    pub fn chinese(&self) -> String {
        match self {
            Self::Unsupported(content_type) => format!(
                "不支持的 Content-Type {content_type:?}: 须为 application/json 或 application/xml, 字符集须为 UTF-8"
            ),
            Self::Undecided => "请求体既不是 JSON 对象, 也不是 XML: 请检查请求体和 Content-Type".to_owned(),
        }
    }
}

/// Why a body cannot be read in its encoding.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not UTF-8; so many bytes before the fault are.
    #[error("the body is not UTF-8 (byte {0})")]
    NotUtf8(usize),
    /// Not one JSON object.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Not flat XML.
    #[error(transparent)]
    Xml(#[from] XmlError),
}

impl DecodeError {
    /// What is wrong, in Chinese.
    #[must_use]
    pub fn chinese(&self) -> String {
        match self {
            Self::NotUtf8(at) => format!("请求体不是 UTF-8 编码: 第 {at} 字节之后有误"),
            Self::Json(error) => error.chinese(),
            Self::Xml(error) => error.chinese(),
        }
    }
}

impl Encoding {
    /// The encoding of a request body: from its `Content-Type`, or if that leaves it open, from the body's first
    /// byte that is not white space.
    ///
    /// # Errors
    /// [`EncodingError::Unsupported`] if the contract does not know the type or charset;
    /// [`EncodingError::Undecided`] if the type leaves the encoding open and the body begins with neither `{` nor
    /// `<`.
    pub fn of_request(content_type: Option<&str>, body: &[u8]) -> Result<Self, EncodingError> {
        let unsupported =
            || EncodingError::Unsupported(content_type.unwrap_or_default().chars().take(100).collect());
        let mut parts = content_type.unwrap_or_default().split(';');
        let media = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
        for parameter in parts {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let charset = value.trim().trim_matches('"');
            if name.trim().eq_ignore_ascii_case("charset")
                && !charset.eq_ignore_ascii_case("utf-8")
                && !charset.eq_ignore_ascii_case("utf8")
            {
                return Err(unsupported());
            }
        }
        match media.as_str() {
            "application/json" | "text/json" => Ok(Self::Json),
            "application/xml" | "text/xml" => Ok(Self::Xml),
            "" | "application/jsonxml" | "text/plain" | "application/octet-stream" => Self::of_body(body),
            other if is_suffixed(other, "+json") => Ok(Self::Json),
            other if is_suffixed(other, "+xml") => Ok(Self::Xml),
            _ => Err(unsupported()),
        }
    }

    fn of_body(body: &[u8]) -> Result<Self, EncodingError> {
        let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
        match body.iter().find(|b| !b.is_ascii_whitespace()) {
            Some(b'{') => Ok(Self::Json),
            Some(b'<') => Ok(Self::Xml),
            _ => Err(EncodingError::Undecided),
        }
    }

    /// The encoding of the response: the request's, unless `Accept` names only the other one.
    #[must_use]
    pub fn of_answer(self, accept: Option<&str>) -> Self {
        let Some(accept) = accept else { return self };
        let (mut json, mut xml) = (false, false);
        for range in accept.split(',') {
            let media = range
                .split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .to_ascii_lowercase();
            match media.as_str() {
                "application/json" | "text/json" => json = true,
                "application/xml" | "text/xml" => xml = true,
                other if is_suffixed(other, "+json") => json = true,
                other if is_suffixed(other, "+xml") => xml = true,
                // A wildcard accepts both, so the request's encoding stays.
                "*/*" | "application/*" | "text/*" => return self,
                _ => {}
            }
        }
        match (json, xml) {
            (true, false) => Self::Json,
            (false, true) => Self::Xml,
            (true, true) | (false, false) => self,
        }
    }

    /// The `Content-Type` of a response.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json; charset=utf-8",
            Self::Xml => "application/xml; charset=utf-8",
        }
    }

    /// Reads a body and skips a UTF-8 byte-order mark.
    ///
    /// # Errors
    /// [`DecodeError`] if the body is not UTF-8, or [`json::decode`] or [`xml::decode`] refuses it.
    pub fn decode(self, body: &[u8]) -> Result<Fields<'_>, DecodeError> {
        let text = std::str::from_utf8(body).map_err(|error| DecodeError::NotUtf8(error.valid_up_to()))?;
        let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
        Ok(match self {
            Self::Json => json::decode(text)?,
            Self::Xml => xml::decode(text, Nested::Refuse)?,
        })
    }

    /// Writes a body.
    ///
    /// # Errors
    /// [`NotXml`] if the encoding is XML and XML cannot carry a field.
    pub fn encode(self, fields: &Fields<'_>) -> Result<String, NotXml> {
        match self {
            Self::Json => Ok(json::encode(fields)),
            Self::Xml => xml::encode(fields),
        }
    }

    /// Checks whether [`Encoding::encode`] can write the fields.
    ///
    /// # Errors
    /// As [`Encoding::encode`].
    pub fn can_carry(self, fields: &Fields<'_>) -> Result<(), NotXml> {
        match self {
            Self::Json => Ok(()),
            Self::Xml => xml::can_carry(fields),
        }
    }
}

impl Encoding {
    /// Writes a response. The caller must get one in the contract's terms, so it always holds every field that this
    /// encoding can carry: XML gets U+FFFD for a character that it forbids (a control character in a handler's error
    /// text) and leaves out a field whose name it cannot write; JSON gets a token that is not JSON as a text.
    #[must_use]
    pub fn encode_answer(self, fields: &Fields<'_>) -> String {
        match self {
            Self::Xml => xml::encode(fields).unwrap_or_else(|NotXml { .. }| xml::encode_lossy(fields)),
            Self::Json => {
                let written = json::encode(fields);
                if written.is_empty() {
                    return json::encode(&as_texts(fields));
                }
                written
            }
        }
    }
}

/// The same fields, each value as a text: JSON can write any text.
fn as_texts<'a>(fields: &'a Fields<'_>) -> Fields<'a> {
    let mut texts = Fields::with_capacity(fields.len());
    for (name, value) in fields.iter() {
        // Cannot fail: each name occurs once in `fields`.
        let _added = texts
            .push(name.into(), Value::Text(value.characters().into()))
            .is_ok();
    }
    texts
}

fn is_suffixed(media: &str, suffix: &str) -> bool {
    media
        .strip_suffix(suffix)
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(a, b)| !a.is_empty() && !b.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_of_content_types() {
        use Encoding::{Json, Xml};
        for (media, body, read_as) in [
            (Some("application/json"), "<", Json),
            (Some("Application/JSON; charset=UTF-8"), "", Json),
            (Some("text/json; charset=\"utf-8\""), "", Json),
            (Some("application/vnd.tuzhan+json"), "", Json),
            (Some("application/xml;charset=utf8"), "{", Xml),
            (Some("text/xml"), "", Xml),
            (Some("application/soap+xml; action=x"), "", Xml),
            (None, "\u{FEFF} \r\n{}", Json),
            (None, "\t<xml/>", Xml),
            (Some("application/jsonxml"), "{}", Json),
            (Some("application/jsonxml"), "<xml/>", Xml),
            (Some("text/plain"), "{}", Json),
            (Some("application/octet-stream"), "<a/>", Xml),
        ] {
            assert_eq!(
                Encoding::of_request(media, body.as_bytes()),
                Ok(read_as),
                "{media:?} {body:?}"
            );
        }
        for media in [
            "application/x-www-form-urlencoded",
            "text/html",
            "+json",
            "application/json; charset=GBK",
            "a/b",
        ] {
            assert!(
                matches!(
                    Encoding::of_request(Some(media), b"{}"),
                    Err(EncodingError::Unsupported(_))
                ),
                "{media}"
            );
        }
        assert_eq!(
            Encoding::of_request(None, b"hello"),
            Err(EncodingError::Undecided)
        );
        assert_eq!(Encoding::of_request(None, b""), Err(EncodingError::Undecided));
    }

    #[test]
    fn accept_wins_where_it_names_only_the_other_one() {
        use Encoding::{Json, Xml};
        for (asked, accept, answered) in [
            (Json, None, Json),
            (Json, Some("application/xml"), Xml),
            (Json, Some("text/xml;q=0.9, application/xml"), Xml),
            (Json, Some("application/xml, */*;q=0.1"), Json),
            (Json, Some("application/xml, application/json"), Json),
            (Xml, Some("application/json"), Json),
            (Xml, Some("text/html"), Xml),
            (Xml, Some("*/*"), Xml),
        ] {
            assert_eq!(asked.of_answer(accept), answered, "{asked:?} {accept:?}");
        }
    }

    #[test]
    fn an_answer_is_always_written() {
        let mut fields = Fields::new();
        fields.set("errCodeDes", "a\u{1}b");
        assert_eq!(
            Encoding::Xml.encode_answer(&fields),
            "<xml><errCodeDes><![CDATA[a\u{FFFD}b]]></errCodeDes></xml>"
        );
        assert_eq!(
            Encoding::Json.encode_answer(&fields),
            "{\"errCodeDes\":\"a\\u0001b\"}"
        );
    }

    /// Not even a field that the encoding cannot carry costs the caller the code and the order number.
    #[test]
    fn a_field_that_cannot_be_written_costs_no_answer() {
        let answer = |name: &'static str, value: Value<'static>| {
            let mut fields = Fields::new();
            fields.set("errCode", "PARAM_ERROR");
            fields.push(name.into(), value).unwrap();
            fields.set("mchBillno", "A1");
            fields
        };
        let written = Encoding::Xml.encode_answer(&answer("not a name", Value::Text("x".into())));
        let read = Encoding::Xml.decode(written.as_bytes()).unwrap();
        assert_eq!(read.characters("errCode"), Some("PARAM_ERROR"), "{written}");
        assert_eq!(read.characters("mchBillno"), Some("A1"), "{written}");
        let written = Encoding::Json.encode_answer(&answer("amount", Value::Raw("1.".into())));
        assert_eq!(
            written,
            r#"{"errCode":"PARAM_ERROR","amount":"1.","mchBillno":"A1"}"#
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        let error = Encoding::Json.decode(b"{\"a\":\"\xff\"}").unwrap_err();
        assert!(error.to_string().contains("not UTF-8 (byte 6)"), "{error}");
        assert_eq!(error.chinese(), "请求体不是 UTF-8 编码: 第 6 字节之后有误");
        assert!(Encoding::Json.decode(b"\xEF\xBB\xBF{}").unwrap().is_empty());
    }
}
