//! Who a request is, across the services that it passes: `X-Request-Id`, `traceparent`, `tracestate`. Pure: fresh ids are an
//! argument. Document: W3C Trace Context, sections 3.2 and 4.3; ecosystem.md, section 1.4.

use data_encoding::HEXLOWER;
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// The header of a request's id.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The header of a trace, and of the span in it that a request comes from.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The header of what vendors add to a trace.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The longest request id that is kept, in bytes.
const MAX_REQUEST_ID: usize = 128;
/// The flags that the standard defines: sampled, and random trace id. Others must not be passed on.
const KNOWN_FLAGS: u8 = 0b11;
/// The flag of a trace that begins here. A backend that follows its parent's decision, as OpenTelemetry's default does,
/// would stop tracing altogether under any other one.
const SAMPLED: u8 = 0b01;

/// Fresh ids for a request that brings none.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    request: u128,
    trace: u128,
    span: u64,
}

impl Ids {
    /// Ids of random bytes: two parts of eight are the request's, two the trace's, one the span's. The standard forbids
    /// zeros: they become ones.
    #[must_use]
    pub fn new(random: [[u8; 8]; 5]) -> Self {
        let [request_high, request_low, trace_high, trace_low, span] = random.map(u64::from_be_bytes);
        let wide = |high, low| (u128::from(high) << 64) | u128::from(low);
        Self {
            request: wide(request_high, request_low),
            trace: std::cmp::max(wide(trace_high, trace_low), 1),
            span: std::cmp::max(span, 1),
        }
    }

    /// For a trace that begins here.
    #[must_use]
    pub fn trace(self) -> u128 {
        self.trace
    }

    /// For a span of ours.
    #[must_use]
    pub fn span(self) -> u64 {
        self.span
    }
}

/// A request's id: its own, where it is a sane one (1 to 128 visible ASCII characters), and a fresh one otherwise.
#[must_use]
pub fn identify(headers: &HeaderMap, ids: Ids) -> HeaderValue {
    if let Some(given) = only(headers, &X_REQUEST_ID)
        && (1..=MAX_REQUEST_ID).contains(&given.len())
        && given.as_bytes().iter().all(u8::is_ascii_graphic)
    {
        return own(given);
    }
    text(HEXLOWER.encode(&ids.request.to_be_bytes()))
}

/// A copy that is no part of the buffer which the request was read into, and which is in use as long as a part of it is kept.
#[must_use]
pub fn own(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone())
}

/// Continues a valid trace with a span of ours, and begins one otherwise; returns `traceparent` as it is now. `tracestate`
/// belongs to a valid parent.
pub fn continue_trace(headers: &mut HeaderMap, ids: Ids) -> HeaderValue {
    let parent = Parent::of(headers);
    let is_sampled = parent.as_ref().is_none_or(Parent::is_sampled);
    let trace = parent.as_ref().map_or(ids.trace, |parent| parent.trace);
    let continued = parent_header(trace, ids.span, flags(parent.as_ref(), is_sampled));
    go_on_as(headers, &continued, parent.is_some());
    continued
}

/// Puts a request under a span, and drops what belongs to a trace that it was not in.
pub fn go_on_as(headers: &mut HeaderMap, traceparent: &HeaderValue, has_parent: bool) {
    if !has_parent {
        headers.remove(TRACESTATE);
    }
    headers.insert(TRACEPARENT, traceparent.clone());
}

/// The flags that are passed on, under a decision whether the trace is sampled.
#[must_use]
pub fn flags(parent: Option<&Parent>, is_sampled: bool) -> u8 {
    let others = parent.map_or(0, |parent| parent.flags & KNOWN_FLAGS & !SAMPLED);
    others | if is_sampled { SAMPLED } else { 0 }
}

/// `traceparent`, naming a span.
#[must_use]
pub fn parent_header(trace: u128, span: u64, flags: u8) -> HeaderValue {
    let mut header = String::with_capacity(55);
    header.push_str("00-");
    HEXLOWER.encode_append(&trace.to_be_bytes(), &mut header);
    header.push('-');
    HEXLOWER.encode_append(&span.to_be_bytes(), &mut header);
    header.push('-');
    HEXLOWER.encode_append(&[flags], &mut header);
    text(header)
}

/// The span that a request comes from.
pub struct Parent {
    /// Its trace.
    pub trace: u128,
    /// Itself.
    pub span: u64,
    flags: u8,
}

impl Parent {
    /// The parent that a request brings, if it is valid.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        Self::parse(only(headers, &TRACEPARENT)?.to_str().ok()?)
    }

    /// Whether it is exported, as far as its service knows.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Version 00 exactly; of a later version, the part that it shares with 00.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace) = (hex(parts.next()?, 2)?, hex(parts.next()?, 32)?);
        let (span, flags) = (hex(parts.next()?, 16)?, hex(parts.next()?, 2)?);
        let has_more = parts.next().is_some();
        if version == 0xFF || trace == 0 || span == 0 || (version == 0 && has_more) {
            return None;
        }
        Some(Self {
            trace,
            span: u64::try_from(span).ok()?,
            flags: u8::try_from(flags).ok()?,
        })
    }
}

/// Exactly so many lower-case hexadecimal digits.
fn hex(part: &str, digits: usize) -> Option<u128> {
    let is_hex = part.len() == digits && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    is_hex.then(|| u128::from_str_radix(part, 16).ok()).flatten()
}

/// The header's value where it is given once: of two, nobody knows which one is meant.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn text(hex: String) -> HeaderValue {
    // Digits and dashes are a valid value: the other arm cannot be reached.
    HeaderValue::try_from(hex).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    fn ids() -> Ids {
        Ids::new([[0xAB; 8], [0xAB; 8], [0xCD; 8], [0xCD; 8], [0xEF; 8]])
    }

    fn pass(given: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let id = identify(&headers, ids());
        headers.insert(X_REQUEST_ID, id);
        continue_trace(&mut headers, ids());
        for name in ["x-request-id", "traceparent"] {
            assert_eq!(headers.get_all(name).iter().count(), 1, "{name}");
        }
        headers
    }

    #[test]
    fn a_sane_request_id_is_kept_and_another_one_replaced() {
        let longest = "~".repeat(128);
        for good in ["a", "!-1:{}\"", longest.as_str()] {
            assert_eq!(pass(&[("x-request-id", good)])["x-request-id"], good);
        }
        let fresh = "ab".repeat(16);
        let long = "a".repeat(129);
        for bad in ["", "a b", "a\tb", "caf\u{e9}", long.as_str()] {
            assert_eq!(pass(&[("x-request-id", bad)])["x-request-id"], fresh, "{bad:?}");
        }
        assert_eq!(pass(&[])["x-request-id"], fresh);
        let two = [("x-request-id", "a"), ("x-request-id", "b")];
        assert_eq!(pass(&two)["x-request-id"], fresh, "two ids are none");
    }

    #[test]
    fn a_valid_trace_is_continued_by_a_span_of_ours() {
        let span = "b7ad6b7169203331";
        for (given, flags) in [
            (format!("00-{TRACE}-{span}-01"), "01"),
            (format!("00-{TRACE}-{span}-00"), "00"),
            (format!("00-{TRACE}-{span}-ff"), "03"),
            (format!("cc-{TRACE}-{span}-01"), "01"),
            (format!("cc-{TRACE}-{span}-09-what-comes-later"), "01"),
        ] {
            let headers = pass(&[
                ("traceparent", &given),
                ("tracestate", "a=b"),
                ("tracestate", "c=d"),
            ]);
            let expected = format!("00-{TRACE}-efefefefefefefef-{flags}");
            assert_eq!(headers["traceparent"], expected, "{given}");
            assert_eq!(headers.get_all("tracestate").iter().count(), 2);
        }
    }

    #[test]
    fn an_invalid_trace_is_replaced_together_with_its_state() {
        let (zero, upper) = ("0".repeat(32), TRACE.to_uppercase());
        let good = format!("00-{TRACE}-b7ad6b7169203331-01");
        let bad = [
            String::new(),
            "00".to_owned(),
            format!("ff-{TRACE}-b7ad6b7169203331-01"),
            format!("0-{TRACE}-b7ad6b7169203331-01"),
            format!("00-{TRACE}-b7ad6b7169203331"),
            format!("00-{TRACE}-b7ad6b7169203331-1"),
            format!("00-{TRACE}-b7ad6b7169203331-+1"),
            format!("00-{TRACE}-b7ad6b7169203331-01-x"),
            format!("00-{TRACE}-b7ad6b7169203331-01-"),
            format!("cc-{TRACE}-b7ad6b7169203331-01x"),
            format!("00-{zero}-b7ad6b7169203331-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{upper}-b7ad6b7169203331-01"),
            format!(" 00-{TRACE}-b7ad6b7169203331-01,"),
        ];
        let begun = format!("00-{}-efefefefefefefef-01", "cd".repeat(16));
        for bad in &bad {
            let headers = pass(&[("traceparent", bad), ("tracestate", "a=b")]);
            assert_eq!(headers["traceparent"], begun, "{bad:?}");
            assert!(!headers.contains_key("tracestate"), "{bad:?}");
        }
        let two = pass(&[("traceparent", &good), ("traceparent", &good)]);
        assert_eq!(two["traceparent"], begun, "two parents are none");
    }

    #[test]
    fn ids_are_never_zero() {
        let ids = Ids::new([[0; 8]; 5]);
        let mut headers = HeaderMap::new();
        continue_trace(&mut headers, ids);
        assert!(Parent::parse(headers["traceparent"].to_str().unwrap()).is_some());
    }
}
