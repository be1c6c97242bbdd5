//! Which request targets may be proxied: those that are plainly not the contract's. Document: specification, section 3.
//!
//! The backend and the handler are often one server. A spelling that its router takes for one of the contract's paths, and
//! that is no contract path here, would pay without a claim in the ledger. No list of what routers do is ever whole, so that
//! nothing is known of them here: a target is read in every way that somebody might read it, all is dropped that is no
//! letter or digit, and what then holds the name of one of the contract's calls, anywhere, is not proxied.
//!
//! The query is read like the path: front controllers take the route from it (`?r=`, `?s=`, `?_url=`, `?m=pay&a=…`).
//!
//! Not looked at: bodies and header fields from which a backend takes a route (the secret of `handler_token` is for those);
//! charsets other than UTF-8, and look-alikes that no Unicode folding joins (Cyrillic `а`).

use icu_normalizer::DecomposingNormalizerBorrowed;
use memchr::memchr2;

/// The names of the calls as letters, in lower case. The first letter of neither comes in it again, so that whoever has read a
/// part of a name, and then another letter, need not look back.
const NAMES: [&[u8]; 2] = [b"sendapiredpack", b"getapiredpacketstatus"];

/// Whether a backend could read a path with its query as one of the contract's calls. A false alarm costs a page, a miss
/// costs money. The contract's own two paths are such targets too: whoever asks has taken them out before.
///
/// Linear in the target's length.
#[must_use]
pub fn may_be_a_call(target: &[u8]) -> bool {
    if memchr2(b'%', b';', target).is_none() && target.is_ascii() {
        // Each name has one: what has none is done with soonest, which is nearly everything.
        return memchr2(b'k', b'K', target).is_some() && holds_a_name(target.iter().copied());
    }
    // As it came: for readers that drop a `%` they cannot use.
    let mut readings = vec![target.to_vec(), decoded(target, false), decoded(target, true)];
    readings.dedup();
    readings.iter().any(|read| {
        holds_a_name(folded(read).into_iter())
            || (read.contains(&b';') && holds_a_name(folded(&without_parameters(read)).into_iter()))
    })
}

/// Whether the letters and digits hold a name, whatever stands between them.
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

/// NFKD, and the one character with ASCII in its case folding that this leaves whole and that a name could be written with: `ı`,
/// for readers that compare in upper case. (`ß` is the other one, and no name holds `ss`.) To letters of ASCII this does all that
/// NFKC and full case folding do; accents come off them, too. Whatever is left of other characters, or is no UTF-8, is dropped.
fn folded(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    let decomposed = DecomposingNormalizerBorrowed::new_nfkd().normalize(&text);
    let ascii = |c| match c {
        'ı' => Some(b'i'),
        c => u8::try_from(c).ok().filter(u8::is_ascii),
    };
    decomposed.chars().filter_map(ascii).collect()
}

/// Without `;…` up to the end of the segment, and without what ends it.
fn without_parameters(bytes: &[u8]) -> Vec<u8> {
    let segments = bytes.split(|byte| b"/\\?#".contains(byte));
    let kept = segments.filter_map(|segment| segment.split(|byte| *byte == b';').next());
    kept.flatten().copied().collect()
}

/// Undoes `%HH` and `%uHHHH` until nothing changes; with `is_lax` also the encodings of ASCII in more bytes than one, which
/// UTF-8 forbids and lax decoders take. No escape begins within another one, so that it does not matter which is undone first.
fn decoded(bytes: &[u8], is_lax: bool) -> Vec<u8> {
    let mut read: Vec<u8> = Vec::with_capacity(bytes.len());
    for byte in bytes {
        read.push(*byte);
        // What an escape stands for may be the end of another one. Each turn shortens what is read.
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

/// Half a pair of surrogates is no character: NUL stands for it, which is dropped as it is.
fn escaped_character(bytes: &[u8]) -> Option<char> {
    match bytes {
        [.., b'%', b'u' | b'U', a, b, c, d] => {
            number(&[*a, *b, *c, *d]).map(|code| char::from_u32(code).unwrap_or('\0'))
        }
        _ => None,
    }
}

/// An ASCII character in two to four bytes, and in how many.
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
