//! Which request targets the proxy may pass on: those that no router can take for one of the contract's calls
//! (`docs/http.md`).
//!
//! The backend and the handler are often one server. If the backend's router accepted a spelling of a contract path
//! that the sidecar does not recognise, the proxied request would pay without a claim in the ledger. No list of
//! what routers accept is ever complete, so this module assumes nothing about them: it decodes a target in every
//! way in which a reader might, drops everything but letters and digits, and refuses the target if the rest
//! contains the name of a call.
//!
//! It reads the query like the path: front controllers take the route from it (`?r=`, `?s=`, `?_url=`,
//! `?m=pay&a=…`).
//!
//! It does not look at bodies and header fields from which a backend takes a route (`handler_token` protects
//! against those), at charsets other than UTF-8, or at look-alikes that no Unicode folding joins (Cyrillic `а`).

use icu_normalizer::DecomposingNormalizerBorrowed;
use memchr::memchr2;

/// The names of the calls in lower case. The first letter of each name occurs in it only once, so a search that
/// fails in the middle of a name never has to go back.
const NAMES: [&[u8]; 2] = [b"sendapiredpack", b"getapiredpacketstatus"];

/// Whether a backend could read a path with its query as one of the contract's calls. A false alarm costs a page, a
/// miss costs money. The contract's own two paths match too, so callers must handle them first.
///
/// Linear in the target's length.
#[must_use]
pub fn may_be_a_call(target: &[u8]) -> bool {
    if memchr2(b'%', b';', target).is_none() && target.is_ascii() {
        // Each name has a `k`, and most targets have none: this check is the quickest.
        return memchr2(b'k', b'K', target).is_some() && holds_a_name(target.iter().copied());
    }
    // The target as received is among them, for readers that drop a `%` that they cannot decode.
    let mut readings = vec![target.to_vec(), decoded(target, false), decoded(target, true)];
    readings.dedup();
    readings.iter().any(|read| {
        holds_a_name(folded(read).into_iter())
            || (read.contains(&b';') && holds_a_name(folded(&without_parameters(read)).into_iter()))
    })
}

/// Whether the letters and digits contain a name, whatever other characters lie between them.
fn holds_a_name(bytes: impl Iterator<Item = u8>) -> bool {
    let mut rests = NAMES;
    for byte in bytes.filter(u8::is_ascii_alphanumeric) {
        let letter = byte.to_ascii_lowercase();
        for (rest, name) in rests.iter_mut().zip(NAMES) {
            *rest = match (rest.split_first(), name.split_first()) {
                (Some((next, [])), _) if *next == letter => return true,
                (Some((next, others)), _) if *next == letter => others,
                (_, Some((first, others))) if *first == letter => others,
                _ => name,
            };
        }
    }
    false
}

/// Maps a text to ASCII: NFKD, and `ı` to `i`, since NFKD keeps `ı` and a reader that compares in upper case takes
/// it for an `i`. (Besides `ı` only `ß` survives NFKD and has ASCII in its case folding, and no name holds `ss`.)
/// For ASCII letters this covers NFKC and full case folding; it also removes accents. It drops all other
/// characters, and bytes that are not UTF-8.
fn folded(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    let decomposed = DecomposingNormalizerBorrowed::new_nfkd().normalize(&text);
    let ascii = |c| match c {
        'ı' => Some(b'i'),
        c => u8::try_from(c).ok().filter(u8::is_ascii),
    };
    decomposed.chars().filter_map(ascii).collect()
}

/// Removes `;…` up to the end of each segment, and the characters that separate segments.
fn without_parameters(bytes: &[u8]) -> Vec<u8> {
    let segments = bytes.split(|byte| b"/\\?#".contains(byte));
    let kept = segments.filter_map(|segment| segment.split(|byte| *byte == b';').next());
    kept.flatten().copied().collect()
}

/// Decodes `%HH` and `%uHHHH` until nothing changes; with `is_lax` also ASCII in overlong UTF-8, which UTF-8
/// forbids and lax decoders accept. No escape begins inside another one, so the order of decoding does not matter.
fn decoded(bytes: &[u8], is_lax: bool) -> Vec<u8> {
    let mut read: Vec<u8> = Vec::with_capacity(bytes.len());
    for byte in bytes {
        read.push(*byte);
        // A decoded byte may complete another escape. Each pass makes `read` shorter, so the loop ends.
        while read
            .last()
            .is_some_and(|last| last.is_ascii_hexdigit() || !last.is_ascii())
        {
            let mut utf8 = [0; 4];
            let (length, meant): (usize, &[u8]) = if let Some(byte) = escaped_byte(&read) {
                utf8[0] = byte;
                (3, &utf8[..1])
            } else if let Some(c) = escaped_character(&read) {
                (6, c.encode_utf8(&mut utf8).as_bytes())
            } else if let Some((length, byte)) = overlong(&read).filter(|_| is_lax) {
                utf8[0] = byte;
                (length, &utf8[..1])
            } else {
                break;
            };
            read.truncate(read.len().saturating_sub(length));
            read.extend(meant);
        }
    }
    read
}

fn escaped_byte(bytes: &[u8]) -> Option<u8> {
    match bytes {
        [.., b'%', high, low] => u8::try_from(number(&[*high, *low])?).ok(),
        _ => None,
    }
}

/// Half of a surrogate pair is not a character: it becomes NUL, which the search skips.
fn escaped_character(bytes: &[u8]) -> Option<char> {
    match bytes {
        [.., b'%', b'u' | b'U', a, b, c, d] => {
            number(&[*a, *b, *c, *d]).map(|code| char::from_u32(code).unwrap_or('\0'))
        }
        _ => None,
    }
}

/// The ASCII character that the last two to four bytes encode in overlong form, and the number of these bytes.
fn overlong(bytes: &[u8]) -> Option<(usize, u8)> {
    let (length, high, low) = match bytes {
        [.., 0xF0, 0x80, high @ 0x80..=0x81, low @ 0x80..=0xBF] => (4, high, low),
        [.., 0xE0, high @ 0x80..=0x81, low @ 0x80..=0xBF] => (3, high, low),
        [.., high @ 0xC0..=0xC1, low @ 0x80..=0xBF] => (2, high, low),
        _ => return None,
    };
    Some((length, ((high & 1) << 6) | (low & 0x3F)))
}

fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number: u32, digit| {
        Some((number << 4) | char::from(*digit).to_digit(16)?)
    })
}

#[cfg(test)]
mod tests;
