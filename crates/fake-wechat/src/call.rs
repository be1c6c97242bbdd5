//! A call to the fake, parsed, and how it is answered in the encoding that it came in.

use std::collections::BTreeMap;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;

use super::wechat_v3::Asker;
use super::wire::Map;

/// The client of a connection.
#[derive(Clone)]
pub(super) enum Peer {
    /// A client of the plain port.
    Plain,
    /// A client of the TLS port, with its certificate's common name if it sent one.
    Tls(Option<String>),
}

/// A parsed call.
pub(super) struct Call {
    pub(super) name: &'static str,
    pub(super) fields: Map,
    pub(super) order_no: String,
    pub(super) is_json: bool,
    pub(super) peer: Peer,
    /// The caller of a v3 call.
    pub(super) asker: Option<Asker>,
}

impl Call {
    pub(super) fn is_wechat(&self) -> bool {
        !matches!(self.name, "send" | "status")
    }

    pub(super) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    pub(super) fn respond(&self, fields: &[(&str, &str)]) -> Response {
        let fields: BTreeMap<_, _> = fields.iter().copied().collect();
        if self.is_json {
            Json(fields).into_response()
        } else {
            let text = quick_xml::se::to_string_with_root("xml", &fields).unwrap_or_default();
            ([(CONTENT_TYPE, "application/xml")], text).into_response()
        }
    }
}
