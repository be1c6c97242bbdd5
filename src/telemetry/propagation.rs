//! Identifies a request across services: `X-Request-Id`, `traceparent`, `tracestate`. OpenTelemetry's propagator
//! reads `traceparent`. Source: W3C Trace Context, sections 3.2 and 4.3.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{SpanContext, TraceContextExt as _, TraceFlags, TraceState};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator};

/// The header of a request's id.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The header of a trace, and of the span in it that sent the request.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The header of what vendors add to a trace.
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The longest request id that is kept, in bytes.
const MAX_REQUEST_ID: usize = 128;

/// A request's id: its own if it is valid (1 to 128 visible ASCII characters), otherwise a new one.
#[must_use]
pub(crate) fn identify(headers: &HeaderMap) -> HeaderValue {
    if let Some(given) = only(headers, &X_REQUEST_ID)
        && (1..=MAX_REQUEST_ID).contains(&given.len())
        && given.as_bytes().iter().all(u8::is_ascii_graphic)
    {
        return own(given);
    }
    // As long and as random as a trace's id.
    text(RandomIdGenerator::default().new_trace_id().to_string())
}

/// A copy with its own memory: a part of the buffer that the request was read into would keep the whole buffer in
/// use.
#[must_use]
pub(crate) fn own(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone())
}

/// Continues a valid trace with a span of ours that is exported nowhere, or begins a trace; returns the new
/// `traceparent`. `tracestate` stays only with a valid parent.
pub(crate) fn continue_trace(headers: &mut HeaderMap) -> HeaderValue {
    let parent = parent(headers);
    let ids = RandomIdGenerator::default();
    let (trace_id, flags) = match &parent {
        Some(parent) => (parent.trace_id(), parent.trace_flags()),
        // Under any other flag, a backend that follows its parent's decision, as OpenTelemetry's default does, would
        // not trace at all.
        None => (ids.new_trace_id(), TraceFlags::SAMPLED),
    };
    let span = SpanContext::new(trace_id, ids.new_span_id(), flags, false, TraceState::NONE);
    let continued = parent_header(&span);
    go_on_as(headers, &continued, parent.is_some());
    continued
}

/// Puts a request under a span. Without a valid parent, `tracestate` belongs to another trace, and is removed.
pub(crate) fn go_on_as(headers: &mut HeaderMap, traceparent: &HeaderValue, has_parent: bool) {
    if !has_parent {
        headers.remove(TRACESTATE);
    }
    headers.insert(TRACEPARENT, traceparent.clone());
}

/// The `traceparent` that names a span.
#[must_use]
pub(crate) fn parent_header(span: &SpanContext) -> HeaderValue {
    let (trace_id, span_id, flags) = (span.trace_id(), span.span_id(), span.trace_flags());
    text(format!("00-{trace_id}-{span_id}-{flags:02x}"))
}

/// The span that sent a request, if the request names a valid one.
#[must_use]
pub(crate) fn parent(headers: &HeaderMap) -> Option<SpanContext> {
    only(headers, &TRACEPARENT)?;
    let read = TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers));
    let parent = read.span().span_context().clone();
    parent.is_valid().then_some(parent)
}

/// The header's value if it is given once: of two, nobody knows which one is meant.
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

    /// Whether the id has this many hexadecimal digits, not all of them zeros.
    fn is_fresh(id: &str, digits: usize) -> bool {
        id.len() == digits
            && id.bytes().all(|byte| byte.is_ascii_hexdigit())
            && id.bytes().any(|byte| byte != b'0')
    }

    /// Version, trace, span and flags.
    fn parts(headers: &HeaderMap) -> [String; 4] {
        let parts = headers["traceparent"].to_str().unwrap().split('-');
        let parts: Vec<_> = parts.map(str::to_owned).collect();
        assert_eq!(parts[0], "00");
        parts.try_into().unwrap()
    }

    fn pass(given: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let id = identify(&headers);
        headers.insert(X_REQUEST_ID, id);
        continue_trace(&mut headers);
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
        let is_replaced =
            |given: &[(&str, &str)]| is_fresh(pass(given)["x-request-id"].to_str().unwrap(), 32);
        let long = "a".repeat(129);
        for bad in ["", "a b", "a\tb", "caf\u{e9}", long.as_str()] {
            assert!(is_replaced(&[("x-request-id", bad)]), "{bad:?}");
        }
        assert!(is_replaced(&[]));
        let two = [("x-request-id", "a"), ("x-request-id", "b")];
        assert!(is_replaced(&two), "two ids are none");
    }

    #[test]
    fn a_valid_trace_is_continued_by_a_span_of_ours() {
        let span = "b7ad6b7169203331";
        for (given, flags) in [
            (format!("00-{TRACE}-{span}-01"), "01"),
            (format!("00-{TRACE}-{span}-00"), "00"),
            (format!("00-{TRACE}-{span}-ff"), "01"),
            (format!("cc-{TRACE}-{span}-01"), "01"),
            (format!("cc-{TRACE}-{span}-09-what-comes-later"), "01"),
        ] {
            let headers = pass(&[
                ("traceparent", &given),
                ("tracestate", "a=b"),
                ("tracestate", "c=d"),
            ]);
            let [_, trace, own, told] = parts(&headers);
            assert_eq!((trace.as_str(), told.as_str()), (TRACE, flags), "{given}");
            assert!(is_fresh(&own, 16) && own != span, "{given}");
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
            format!("00-{TRACE}-b7ad6b7169203331"),
            format!("00-{TRACE}-b7ad6b7169203331-01-x"),
            format!("cc-{TRACE}-b7ad6b7169203331-01x"),
            format!("00-{zero}-b7ad6b7169203331-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{upper}-b7ad6b7169203331-01"),
            format!(" 00-{TRACE}-b7ad6b7169203331-01,"),
        ];
        let is_begun = |headers: &HeaderMap| {
            let [_, trace, own, flags] = parts(headers);
            is_fresh(&trace, 32) && trace != TRACE && is_fresh(&own, 16) && flags == "01"
        };
        for bad in &bad {
            let headers = pass(&[("traceparent", bad), ("tracestate", "a=b")]);
            assert!(is_begun(&headers), "{bad:?}");
            assert!(!headers.contains_key("tracestate"), "{bad:?}");
        }
        let two = pass(&[("traceparent", &good), ("traceparent", &good)]);
        assert!(is_begun(&two), "two parents are none");
    }
}
