//! A customer's handler (`to = "handler"`, `docs/handler.md`): the rules, not the connection.
//!
//! [`request`] composes what the sidecar sends to it, [`answer`] reads what its responses prove.

mod answer;
mod request;

pub use answer::{evidence, finding};
pub use request::{body, parameters, question};

/// Whether a decoder that is lax about names may take one name for the other. Decoders in Go and C# ignore case;
/// Go's also takes `ſ` for an `s` and the Kelvin sign for a `k`. Java's `equalsIgnoreCase`, whose rule this is,
/// does so too, and takes `ı` and `İ` for an `i`. Some decoders also ignore separators; the best known is fastjson,
/// which does so by default.
fn is_alike(name: &str, other: &str) -> bool {
    if name.is_ascii() && other.is_ascii() {
        // The same rule for ASCII, without a look into Unicode's tables for each letter of each field.
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
        // U+0307 remains of the dot of `İ`.
        .filter(|c| !matches!(c, '_' | '-' | ' ' | '\u{307}'))
}

/// The header with `handler_token`, which tells a handler that a call is the sidecar's own. The proxy removes it
/// from every request that it passes on.
pub const TOKEN_HEADER: &str = "x-handler-token";

/// Whether a reader may take a header's name for [`TOKEN_HEADER`]: CGI and similar interfaces turn every character
/// that is not a letter or digit into `_`.
#[must_use]
pub fn is_token_header(name: &str) -> bool {
    let letters = |name: &'static str| name.bytes().filter(u8::is_ascii_alphanumeric);
    name.bytes()
        .filter(u8::is_ascii_alphanumeric)
        .map(|letter| letter.to_ascii_lowercase())
        .eq(letters(TOKEN_HEADER))
}

/// The path of the call that pays, at the sidecar and at the handler (`docs/api.md`).
pub const SEND_PATH: &str = "/pay/sendApiRedPack";
/// The path of the call that asks for the status, at the sidecar and at the handler (`docs/api.md`).
pub const STATUS_PATH: &str = "/pay/getApiRedPacketStatus";
