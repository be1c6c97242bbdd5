//! What becomes of headers on the way through: hop-by-hop ones end here, ours are set last. Pure: ids are arguments.
//! Documents: specification, section 3; RFC 9110, section 7.6.1; W3C Trace Context.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::door::peer::Peer;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Headers that concern one connection only.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// What a caller must not smuggle past us under a name that a backend reads as the same.
const SHADOWED: [&str; 6] = [
    "x_forwarded_for",
    "x_forwarded_proto",
    "x_forwarded_host",
    "x_request_id",
    "transfer_encoding",
    "content_length",
];
/// The longest request id that is kept.
const MAX_REQUEST_ID: usize = 128;

/// Fresh ids for a request that brings none.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    /// For `X-Request-Id`.
    pub request: u128,
    /// For a new trace; not zero.
    pub trace: u128,
    /// Our own span; not zero.
    pub span: u64,
}

/// Removes the hop-by-hop headers, those that `Connection` names, and the underscore twins of what is set by us.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        // The frame of a message is no caller's to strip.
        if name != header::CONTENT_LENGTH && name != header::HOST {
            headers.remove(name);
        }
    }
    for name in HOP_BY_HOP.iter().chain(&SHADOWED) {
        headers.remove(*name);
    }
    // A body is asked for by reading it.
    headers.remove(header::EXPECT);
}

/// Sets what the backend is told about the caller, last, so that nothing the caller sends can undo it.
pub fn announce(headers: &mut HeaderMap, peer: &Peer, ids: Ids) {
    let earlier = join(headers, &X_FORWARDED_FOR).filter(|_| peer.is_trusted);
    let chain = earlier.map_or_else(
        || peer.address.to_string(),
        |earlier| format!("{earlier}, {}", peer.address),
    );
    set(headers, X_FORWARDED_FOR, &chain);
    if !(peer.is_trusted && headers.contains_key(&X_FORWARDED_PROTO)) {
        set(
            headers,
            X_FORWARDED_PROTO,
            if peer.is_tls { "https" } else { "http" },
        );
    }
    if !(peer.is_trusted && headers.contains_key(&X_FORWARDED_HOST)) {
        match headers.get(header::HOST).cloned() {
            Some(host) => headers.insert(X_FORWARDED_HOST, host),
            None => headers.remove(X_FORWARDED_HOST),
        };
    }
    let keeps = headers.get(&X_REQUEST_ID).is_some_and(|id| {
        (1..=MAX_REQUEST_ID).contains(&id.len())
            && id.as_bytes().iter().all(|byte| (0x21..=0x7E).contains(byte))
    });
    if !keeps {
        set(headers, X_REQUEST_ID, &format!("{:032x}", ids.request));
    }
    let parent = headers
        .get(&TRACEPARENT)
        .and_then(|value| value.to_str().ok())
        .and_then(parse_traceparent);
    let (trace, flags) = match &parent {
        Some((trace, flags)) => (trace.clone(), flags.clone()),
        None => {
            headers.remove(TRACESTATE);
            (format!("{:032x}", ids.trace), "00".to_owned())
        }
    };
    set(
        headers,
        TRACEPARENT,
        &format!("00-{trace}-{:016x}-{flags}", ids.span),
    );
}

/// The trace id and flags of a valid `traceparent`. Source: W3C Trace Context, section 3.2.
fn parse_traceparent(text: &str) -> Option<(String, String)> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, digits: usize| {
        part.len() == digits
            && part
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let more = parts.next().is_some();
    let valid = hex(version, 2) && version != "ff" && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
    let not_zero = !trace.bytes().all(|b| b == b'0') && !span.bytes().all(|b| b == b'0');
    (valid && not_zero && !(version == "00" && more)).then(|| (trace.to_owned(), flags.to_owned()))
}

fn join(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<&str> = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    (!values.is_empty()).then(|| values.join(", "))
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    match HeaderValue::try_from(text) {
        Ok(value) => headers.insert(name, value),
        Err(_) => headers.remove(name),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: Ids = Ids {
        request: 0xAB,
        trace: 0xCD,
        span: 0xEF,
    };

    fn peer(is_trusted: bool) -> Peer {
        Peer {
            address: [192, 0, 2, 1].into(),
            is_tls: false,
            is_trusted,
        }
    }

    fn pass(given: &[(&str, &str)], is_trusted: bool) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        strip_hop_by_hop(&mut headers);
        announce(&mut headers, &peer(is_trusted), IDS);
        headers
    }

    fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
        assert!(headers.get_all(name).iter().count() <= 1, "{name} is there twice");
        headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn hop_by_hop_headers_and_what_connection_names_end_here() {
        let headers = pass(
            &[
                (
                    "connection",
                    "keep-alive, X-Secret, x-forwarded-for, content-length",
                ),
                ("x-secret", "1"),
                ("keep-alive", "5"),
                ("te", "trailers"),
                ("trailer", "x"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "h2c"),
                ("proxy-authorization", "x"),
                ("content-length", "3"),
                ("accept", "*/*"),
            ],
            false,
        );
        for gone in [
            "connection",
            "x-secret",
            "keep-alive",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "proxy-authorization",
        ] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert_eq!(one(&headers, "accept"), Some("*/*"));
        assert_eq!(one(&headers, "content-length"), Some("3"));
        assert_eq!(
            one(&headers, "x-forwarded-for"),
            Some("192.0.2.1"),
            "naming ours in Connection cannot strip it"
        );
    }

    #[test]
    fn forwarded_headers_are_believed_from_trusted_peers_only() {
        let given = [
            ("x-forwarded-for", "198.51.100.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "a"),
            ("host", "b"),
        ];
        let stranger = pass(&given, false);
        assert_eq!(one(&stranger, "x-forwarded-for"), Some("192.0.2.1"));
        assert_eq!(one(&stranger, "x-forwarded-proto"), Some("http"));
        assert_eq!(one(&stranger, "x-forwarded-host"), Some("b"));
        let trusted = pass(&given, true);
        assert_eq!(one(&trusted, "x-forwarded-for"), Some("198.51.100.9, 192.0.2.1"));
        assert_eq!(one(&trusted, "x-forwarded-proto"), Some("https"));
        assert_eq!(one(&trusted, "x-forwarded-host"), Some("a"));
    }

    #[test]
    fn underscore_twins_do_not_pass() {
        let headers = pass(
            &[
                ("x_forwarded_for", "1.2.3.4"),
                ("transfer_encoding", "chunked"),
                ("x_mine", "1"),
            ],
            true,
        );
        assert!(!headers.contains_key("x_forwarded_for") && !headers.contains_key("transfer_encoding"));
        assert!(headers.contains_key("x_mine"));
    }

    #[test]
    fn a_sane_request_id_is_kept_and_another_one_replaced() {
        assert_eq!(
            one(&pass(&[("x-request-id", "abc-1")], false), "x-request-id"),
            Some("abc-1")
        );
        let fresh = Some("000000000000000000000000000000ab");
        let long = "a".repeat(129);
        for bad in ["", "a b", long.as_str()] {
            assert_eq!(
                one(&pass(&[("x-request-id", bad)], false), "x-request-id"),
                fresh,
                "{bad:?}"
            );
        }
        assert_eq!(one(&pass(&[], false), "x-request-id"), fresh);
    }

    #[test]
    fn a_valid_trace_is_continued_and_another_one_begun() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let good = format!("00-{trace}-b7ad6b7169203331-01");
        let headers = pass(&[("traceparent", &good), ("tracestate", "a=b")], false);
        assert_eq!(
            one(&headers, "traceparent"),
            Some(format!("00-{trace}-00000000000000ef-01").as_str())
        );
        assert_eq!(one(&headers, "tracestate"), Some("a=b"));
        let begun = "00-000000000000000000000000000000cd-00000000000000ef-00";
        for bad in [
            "",
            "00",
            &format!("ff-{trace}-b7ad6b7169203331-01"),
            &format!("00-{trace}-b7ad6b7169203331-01-x"),
            &format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            &format!("00-{trace}-0000000000000000-01"),
            &format!("00-{}-b7ad6b7169203331-01", trace.to_uppercase()),
        ] {
            let headers = pass(&[("traceparent", bad), ("tracestate", "a=b")], false);
            assert_eq!(one(&headers, "traceparent"), Some(begun), "{bad}");
            assert!(!headers.contains_key("tracestate"));
        }
        let later = format!("cc-{trace}-b7ad6b7169203331-01-what-comes-later");
        assert!(
            one(&pass(&[("traceparent", &later)], false), "traceparent")
                .unwrap()
                .contains(trace)
        );
    }
}
