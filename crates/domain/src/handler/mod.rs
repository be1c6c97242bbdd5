//! A customer's handler. Document: specification, section 6, `to = "handler"`.
//!
//! [`request`] composes what it is sent, [`answer`] reads what its answers prove.

mod answer;
mod request;

pub use answer::{evidence, finding};
pub use request::{body, parameters, question};

/// Whether a decoder that is not strict about names may take the one for the other. Those of Go and C# ignore case, and Go's
/// takes `ſ` for an `s` and the Kelvin sign for a `k`; Java's `equalsIgnoreCase`, whose rule this is, does too, and takes `ı`
/// and `İ` for an `i`. Of those that also ignore separators the best known is fastjson, which does so by default.
fn is_alike(name: &str, other: &str) -> bool {
    if name.is_ascii() && other.is_ascii() {
        // The same rule without Unicode's tables, which would be asked for each letter of each field.
        return letters(name).eq(letters(other));
    }
    folded(name).eq(folded(other))
}

fn letters(name: &str) -> impl Iterator<Item = u8> {
    let bytes = name.bytes().filter(|byte| !matches!(byte, b'_' | b'-' | b' '));
    bytes.map(|byte| byte.to_ascii_lowercase())
}

fn folded(name: &str) -> impl Iterator<Item = char> {
    name.chars()
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        // U+0307 is what is left of the dot of `İ`.
        .filter(|c| !matches!(c, '_' | '-' | ' ' | '\u{307}'))
}

/// The header that tells a handler that a call is the sidecar's own: `handler_token`. It is taken out of every proxied request.
pub const TOKEN_HEADER: &str = "x-handler-token";

/// Whether a reader takes a header's name for [`TOKEN_HEADER`]: CGI and its like make `_` of whatever is no letter or digit.
#[must_use]
pub fn is_token_header(name: &str) -> bool {
    let letters = |name: &'static str| name.bytes().filter(u8::is_ascii_alphanumeric);
    name.bytes()
        .filter(u8::is_ascii_alphanumeric)
        .map(|letter| letter.to_ascii_lowercase())
        .eq(letters(TOKEN_HEADER))
}

/// The path of both sides for paying. Source: specification, section 2.
pub const SEND_PATH: &str = "/pay/sendApiRedPack";
/// The path of both sides for asking. Source: specification, section 2.
pub const STATUS_PATH: &str = "/pay/getApiRedPacketStatus";
