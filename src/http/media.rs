//! The contract's encodings as header values, checked at compile time instead of for each message.

use http::HeaderValue;

use payout_domain::encoding::Encoding;

/// The `Content-Type` of an encoding.
#[must_use]
pub(crate) fn content_type(encoding: Encoding) -> HeaderValue {
    const JSON: HeaderValue = HeaderValue::from_static(Encoding::Json.content_type());
    const XML: HeaderValue = HeaderValue::from_static(Encoding::Xml.content_type());
    match encoding {
        Encoding::Json => JSON,
        Encoding::Xml => XML,
    }
}
