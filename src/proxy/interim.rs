//! A backend's interim response (1xx) as bytes for an HTTP/1.1 caller. Source: RFC 9110, section 15.2.
//! `server/strict.rs` writes them.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::headers::clean_response;

/// The interim response's head, without what concerns the backend's connection only.
pub(super) fn written(status: StatusCode, headers: &HeaderMap) -> Bytes {
    let mut headers = headers.clone();
    clean_response(&mut headers);
    // Source: RFC 9110, section 8.6.
    headers.remove(http::header::CONTENT_LENGTH);
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for (name, value) in &headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head.into()
}
