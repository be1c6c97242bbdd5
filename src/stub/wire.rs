//! The stub's own reading and writing of flat XML and JSON, and its answers' bodies.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use quick_xml::events::Event;

/// The body of an answer; an error in it cuts the connection.
pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Names and values, sorted by name.
pub(super) type Map = BTreeMap<String, String>;

pub(super) fn full(status: StatusCode, media: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(
        Full::new(Bytes::from(text))
            .map_err(|never| match never {})
            .boxed_unsync(),
    );
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(media));
    response
}

/// The first half of a text, and then a broken connection.
pub(super) fn half(media: &'static str, text: &str) -> Response<Body> {
    let half = Bytes::copy_from_slice(text.as_bytes().get(..text.len() / 2).unwrap_or_default());
    let frames = [
        Ok(Frame::data(half)),
        Err(std::io::Error::other("cut on purpose")),
    ];
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync());
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(media));
    response
        .headers_mut()
        .insert(http::header::CONTENT_LENGTH, http::HeaderValue::from(text.len()));
    response
}

pub(super) fn read_xml(body: &[u8]) -> Option<Map> {
    let text = std::str::from_utf8(body).ok()?;
    let mut reader = quick_xml::Reader::from_str(text);
    let mut path: Vec<String> = Vec::new();
    let mut map = Map::new();
    loop {
        let piece = match reader.read_event().ok()? {
            Event::Start(tag) => {
                path.push(tag.name().into_inner().to_owned());
                if path.len() == 2 {
                    map.insert(path.get(1)?.clone(), String::new());
                }
                continue;
            }
            Event::End(_) => {
                path.pop()?;
                continue;
            }
            Event::Text(text) => text.xml10_content().into_owned(),
            Event::CData(text) => text.xml10_content().into_owned(),
            Event::GeneralRef(name) => match name.resolve_char_ref().ok()? {
                Some(c) => c.to_string(),
                None => quick_xml::escape::resolve_xml_entity(&name.into_inner())?.to_owned(),
            },
            Event::Eof => return path.is_empty().then_some(map),
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) => continue,
            Event::PI(_) | Event::DocType(_) => return None,
        };
        if path.len() == 2 {
            map.get_mut(path.get(1)?)?.push_str(&piece);
        }
    }
}

pub(super) fn write_xml(fields: &[(&str, &str)]) -> String {
    let mut text = String::from("<xml>");
    for (name, value) in fields {
        let value = value
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        text.push_str(&format!("<{name}>{value}</{name}>"));
    }
    text.push_str("</xml>");
    text
}

pub(super) fn read_json(body: &[u8]) -> Option<Map> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).ok()?;
    let text = |value: serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Some(
        object
            .into_iter()
            .map(|(name, value)| (name, text(value)))
            .collect(),
    )
}

pub(super) fn write_json(fields: &[(&str, &str)]) -> String {
    let object: serde_json::Map<String, serde_json::Value> = fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).into()))
        .collect();
    serde_json::Value::Object(object).to_string()
}
