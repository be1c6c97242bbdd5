//! The rules for headers in both directions: headers of one connection end here, and ours are set last. Pure. They
//! guard against abuse of hop-by-hop headers, names that differ from ours only in an underscore, and forged forwarding
//! headers. Sources: RFC 9110, sections 6.5, 7.6 and 8.6; RFC 9112, section 6.3; RFC 9113, section 8.2.3;
//! `docs/http.md`. Request ids and traces are in `telemetry/propagation.rs`.

use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};

use crate::http::peer::Peer;
use payout_domain::handler::is_token_header;

const FORWARDED: &str = "forwarded";
const X_REAL_IP: &str = "x-real-ip";
const X_FORWARDED_PREFIX: &str = "x-forwarded-";
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Removes from a request what concerns the caller's connection only, and what the caller must not claim: names that a
/// backend reads as one of ours (`X_Forwarded_For`), names that choose another path than the request's, and, unless the
/// peer is trusted, what proxies say about callers.
pub(crate) fn clean_request(headers: &mut HeaderMap, peer: &Peer) {
    remove(headers, |name| {
        ends_here(name)
            || is_of_proxies(name)
            || is_path(name)
            // Reading the body asks for it.
            || name == header::EXPECT
            || is_twin(name)
            // Only the sidecar may send it, and only to a handler.
            || is_token_header(name)
            || (!peer.is_trusted && is_claim(name))
    });
    clean_announcement(headers);
}

/// Removes from a response what concerns the backend's connection only.
pub(crate) fn clean_response(headers: &mut HeaderMap) {
    remove(headers, ends_here);
    clean_announcement(headers);
}

/// Removes from a trailer section what must not be a trailer: what says where a message ends, whom it is for, who sends
/// it or how to read it. Source: RFC 9110, section 6.5.1.
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    remove(trailers, |name| !is_trailer(name));
}

/// Leaves in `Trailer` only names that may be trailers. The HTTP library sends no trailers that are not named there.
fn clean_announcement(headers: &mut HeaderMap) {
    if !headers.contains_key(header::TRAILER) {
        return;
    }
    let names: Vec<String> = elements(headers, header::TRAILER)
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| is_trailer(name.as_str()))
        .map(|name| name.as_str().to_owned())
        .collect();
    match HeaderValue::try_from(names.join(", ")) {
        Ok(names) if !names.is_empty() => headers.insert(header::TRAILER, names),
        Ok(_) | Err(_) => headers.remove(header::TRAILER),
    };
}

/// Whether the sender of a request accepts trailers. Source: RFC 9110, section 10.1.4.
#[must_use]
pub(crate) fn takes_trailers(headers: &HeaderMap) -> bool {
    elements(headers, header::TE).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

/// The elements of a list header, across several lines. Source: RFC 9110, section 5.6.1.
pub(crate) fn elements(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(name).into_iter();
    lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}

/// Asks the backend for trailers, because the caller accepts them. Call it after [`clean_request`].
pub(crate) fn ask_for_trailers(headers: &mut HeaderMap) {
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.append(header::CONNECTION, HeaderValue::from_static("TE"));
}

/// Joins the `Cookie` lines that an HTTP/2 caller may send separately. Source: RFC 9113, section 8.2.3.
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (cookies.next(), cookies.next()) else {
        return;
    };
    let mut joined = first.as_bytes().to_vec();
    for cookie in std::iter::once(second).chain(cookies) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(cookie.as_bytes());
    }
    // Values joined by `; ` are always a valid value.
    if let Ok(mut joined) = HeaderValue::from_bytes(&joined) {
        joined.set_sensitive(true);
        headers.insert(header::COOKIE, joined);
    }
}

/// What `Max-Forwards` decides about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hops {
    /// Forward it; the hop count, if there is one, is one less now.
    Left,
    /// Do not forward it: the sidecar answers.
    Over,
    /// The hop count is not one number.
    Unreadable,
}

/// Counts a hop of an `OPTIONS` request. In other requests `Max-Forwards` has no meaning here. Source: RFC 9110,
/// section 7.6.2.
pub(crate) fn count_hop(method: &Method, headers: &mut HeaderMap) -> Hops {
    if method != Method::OPTIONS {
        return Hops::Left;
    }
    let mut given = headers.get_all(header::MAX_FORWARDS).iter();
    let hops = match (given.next(), given.next()) {
        (None, _) => return Hops::Left,
        (Some(only), None) => digits(only.as_bytes()),
        (Some(_), Some(_)) => None,
    };
    match hops.map(|hops| hops.checked_sub(1)) {
        None => Hops::Unreadable,
        Some(None) => Hops::Over,
        Some(Some(left)) => {
            headers.insert(header::MAX_FORWARDS, HeaderValue::from(left));
            Hops::Left
        }
    }
}

/// Parses a number of digits only. `None` if there are other characters or no digits, or if it exceeds 64 bits.
#[must_use]
pub(crate) fn digits(text: &[u8]) -> Option<u64> {
    // The standard library's parser also accepts a sign.
    let text = std::str::from_utf8(text).ok()?;
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// Makes the length of a response's body unambiguous: a transfer coding overrides a length, and several equal lengths
/// become one. Sources: RFC 9112, section 6.3; RFC 9110, section 8.6.
///
/// # Errors
/// The reason if nobody can tell where the body ends, or if a part of it would be lost.
pub(crate) fn settle_length(status: StatusCode, headers: &mut HeaderMap) -> Result<(), &'static str> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if codings.next().is_some() || !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
            return Err("its body has a transfer coding other than chunked");
        }
        headers.remove(header::CONTENT_LENGTH);
    }
    let mut lengths = elements(headers, header::CONTENT_LENGTH);
    let Some(first) = lengths.next() else {
        return Ok(());
    };
    let mut is_plain = first == b"0" || !first.starts_with(b"0");
    let is_same = |first: &u64| {
        lengths.all(|other| {
            is_plain = false;
            digits(other) == Some(*first)
        })
    };
    let Some(length) = digits(first).filter(is_same) else {
        return Err("its Content-Length is none, or several");
    };
    drop(lengths);
    if status == StatusCode::NO_CONTENT {
        headers.remove(header::CONTENT_LENGTH);
    } else if !is_plain {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(())
}

/// Tells the backend about the caller, whose request came in `version`. Call it after [`clean_request`], so that
/// nothing from the caller can undo it.
pub(crate) fn announce(headers: &mut HeaderMap, peer: &Peer, version: Version) {
    // Source: RFC 9110, section 7.6.3.
    headers.append(
        header::VIA,
        HeaderValue::from_static(match version {
            Version::HTTP_2 => "2 payout-sidecar",
            Version::HTTP_10 => "1.0 payout-sidecar",
            _ => "1.1 payout-sidecar",
        }),
    );
    match headers.entry(X_FORWARDED_FOR) {
        // If the peer is not trusted, `clean_request` has removed every earlier value.
        Entry::Vacant(vacant) => {
            vacant.insert(peer.written().clone());
        }
        Entry::Occupied(mut occupied) => {
            let hops: Vec<&[u8]> = occupied.iter().map(HeaderValue::as_bytes).collect();
            let hops = [hops.join(&b", "[..]), peer.written().as_bytes().to_vec()].join(&b", "[..]);
            match HeaderValue::try_from(hops) {
                Ok(hops) => drop(occupied.insert_mult(hops)),
                // Values joined by commas are always a valid value. If that were ever wrong, no chain is better than
                // another caller's.
                Err(_) => drop(occupied.remove_entry_mult()),
            }
        }
    }
    let scheme = HeaderValue::from_static(if peer.is_tls { "https" } else { "http" });
    headers.entry(X_FORWARDED_PROTO).or_insert(scheme);
    if let Some(host) = headers.get(header::HOST).cloned() {
        headers.entry(X_FORWARDED_HOST).or_insert(host);
    }
}

/// Removes the headers that `goes` selects. If `Connection` is one of them, also removes those that it names.
fn remove(headers: &mut HeaderMap, goes: impl Fn(&str) -> bool) {
    let names = headers.keys().filter(|name| goes(name.as_str()));
    let mut going: Vec<HeaderName> = names.cloned().collect();
    if going.contains(&header::CONNECTION) {
        let named = elements(headers, header::CONNECTION)
            .filter_map(|name| HeaderName::from_bytes(name).ok())
            // No caller may strip what says where a message ends and whom it is for.
            .filter(|name| name != header::CONTENT_LENGTH && name != header::HOST);
        going.extend(named);
    }
    for name in going {
        headers.remove(name);
    }
}

/// Headers that concern one connection.
fn ends_here(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Headers for proxies. A CGI program sees a bare `Proxy` as `HTTP_PROXY`.
fn is_of_proxies(name: &str) -> bool {
    name == "proxy" || name.starts_with("proxy-")
}

/// What a proxy says about the caller whose request it forwards.
fn is_claim(name: &str) -> bool {
    name == FORWARDED || name == X_REAL_IP || name.starts_with(X_FORWARDED_PREFIX)
}

/// A path that some frameworks (Symfony, Zend and others, IIS) prefer to the request's own. It would bypass every check
/// of the request's own path.
fn is_path(name: &str) -> bool {
    matches!(
        name,
        "x-original-url"
            | "x-original-uri"
            | "x-original-path"
            | "x-rewrite-url"
            | "x-rewrite-uri"
            | "x-override-url"
    )
}

/// Whether a trailer may have this name: not if a receiver must know it before the body, or if only the sidecar may set
/// it.
fn is_trailer(name: &str) -> bool {
    !(ends_here(name)
        || is_of_proxies(name)
        || is_path(name)
        || is_claim(name)
        || is_twin(name)
        || is_token_header(name)
        || name.starts_with("content-")
        || name.starts_with("if-")
        || matches!(
            name,
            "age"
                | "authorization"
                | "cache-control"
                | "cookie"
                | "date"
                | "expect"
                | "expires"
                | "host"
                | "location"
                | "max-forwards"
                | "pragma"
                | "range"
                | "retry-after"
                | "set-cookie"
                | "traceparent"
                | "tracestate"
                | "trailer"
                | "vary"
                | "via"
                | "www-authenticate"
                | "x-request-id"
        ))
}

/// A name with `_` that a backend reads as a header that only the sidecar sets or removes: CGI, WSGI and many
/// frameworks do not tell `_` from `-`.
fn is_twin(name: &str) -> bool {
    if !name.bytes().any(|byte| byte == b'_') {
        return false;
    }
    let twin = name.replace('_', "-");
    ends_here(&twin)
        || is_of_proxies(&twin)
        || is_claim(&twin)
        || is_path(&twin)
        || matches!(
            twin.as_str(),
            "x-request-id" | "traceparent" | "tracestate" | "content-length" | "host" | "expect"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(given: &[(&str, &str)], is_trusted: bool) -> HeaderMap {
        let peer = Peer::new([192, 0, 2, 1].into(), false).trusted(is_trusted);
        let mut headers = map(given);
        clean_request(&mut headers, &peer);
        announce(&mut headers, &peer, Version::HTTP_11);
        headers
    }

    fn map(given: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
        assert!(headers.get_all(name).iter().count() <= 1, "{name} is there twice");
        headers.get(name).map(|value| value.to_str().unwrap())
    }

    const HOP_BY_HOP: [(&str, &str); 8] = [
        ("keep-alive", "5"),
        ("te", "trailers"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("http2-settings", "x"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authenticate", "x"),
        ("proxy-authorization", "x"),
    ];

    #[test]
    fn headers_of_one_connection_end_here_in_both_directions() {
        let mut given = HOP_BY_HOP.to_vec();
        given.extend([
            ("connection", "keep-alive, X-Named"),
            ("connection", " x-other ,,host, Content-Length"),
            ("x-named", "1"),
            ("x-other", "1"),
            ("host", "shop"),
            ("content-length", "3"),
            ("x-kept", "a"),
            ("x-kept", "b"),
        ]);
        let mut answer = map(&given);
        clean_response(&mut answer);
        for headers in [answer, pass(&given, false), pass(&given, true)] {
            for (name, _) in &HOP_BY_HOP {
                assert!(!headers.contains_key(*name), "{name}");
            }
            for name in ["connection", "x-named", "x-other"] {
                assert!(!headers.contains_key(name), "{name}");
            }
            assert_eq!(one(&headers, "host"), Some("shop"));
            assert_eq!(one(&headers, "content-length"), Some("3"));
            let kept: Vec<_> = headers.get_all("x-kept").iter().collect();
            assert_eq!(kept, ["a", "b"], "repeated ones stay apart and in order");
        }
    }

    #[test]
    fn naming_ours_in_connection_cannot_strip_them() {
        let connection = "x-forwarded-for, x-forwarded-proto, x-forwarded-host, x-request-id, traceparent";
        for is_trusted in [false, true] {
            let headers = pass(&[("connection", connection), ("host", "shop")], is_trusted);
            assert_eq!(one(&headers, "x-forwarded-for"), Some("192.0.2.1"));
            assert_eq!(one(&headers, "x-forwarded-proto"), Some("http"));
            assert_eq!(one(&headers, "x-forwarded-host"), Some("shop"));
        }
    }

    #[test]
    fn claims_about_the_caller_are_believed_from_trusted_peers_only() {
        let given = [
            ("x-forwarded-for", "198.51.100.9"),
            ("x-forwarded-for", "198.51.100.8, 198.51.100.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "a"),
            ("x-forwarded-user", "root"),
            ("x-real-ip", "198.51.100.9"),
            ("forwarded", "for=198.51.100.9"),
            ("host", "b"),
        ];
        let stranger = pass(&given, false);
        assert_eq!(one(&stranger, "x-forwarded-for"), Some("192.0.2.1"));
        assert_eq!(one(&stranger, "x-forwarded-proto"), Some("http"));
        assert_eq!(one(&stranger, "x-forwarded-host"), Some("b"));
        for name in ["x-forwarded-user", "x-real-ip", "forwarded"] {
            assert!(!stranger.contains_key(name), "{name}");
        }
        let trusted = pass(&given, true);
        assert_eq!(
            one(&trusted, "x-forwarded-for"),
            Some("198.51.100.9, 198.51.100.8, 198.51.100.7, 192.0.2.1")
        );
        assert_eq!(one(&trusted, "x-forwarded-proto"), Some("https"));
        assert_eq!(one(&trusted, "x-forwarded-host"), Some("a"));
        assert_eq!(one(&trusted, "x-forwarded-user"), Some("root"));
        assert_eq!(one(&trusted, "x-real-ip"), Some("198.51.100.9"));
    }

    #[test]
    fn underscore_twins_do_not_pass_whoever_sends_them() {
        let twins = [
            "x_forwarded_for",
            "x-forwarded_for",
            "x_forwarded_user",
            "x_real_ip",
            "x_request_id",
            "transfer_encoding",
            "content_length",
            "keep_alive",
            "proxy_authorization",
        ];
        let mut given = twins.map(|twin| (twin, "1")).to_vec();
        given.push(("x_mine", "1"));
        for is_trusted in [false, true] {
            let headers = pass(&given, is_trusted);
            for twin in twins {
                assert!(!headers.contains_key(twin), "{twin}");
            }
            assert!(
                headers.contains_key("x_mine"),
                "others are the backend's business"
            );
        }
    }

    #[test]
    fn a_handlers_token_is_nobodys_to_send() {
        let names = [
            "x-handler-token",
            "x_handler_token",
            "x-handler_token",
            "x.handler.token",
            "xhandlertoken",
        ];
        for is_trusted in [false, true] {
            let headers = pass(
                &[names.map(|name| (name, "guessed")), [("x-handler", "1"); 5]].concat(),
                is_trusted,
            );
            for name in names {
                assert!(!headers.contains_key(name), "{name}");
            }
            assert!(headers.contains_key("x-handler"));
        }
    }

    #[test]
    fn what_is_meant_for_proxies_is_not_for_the_backend() {
        let headers = pass(
            &[
                ("proxy", "http://evil"),
                ("proxy-features", "x"),
                ("expect", "100-continue"),
            ],
            true,
        );
        for name in ["proxy", "proxy-features", "expect"] {
            assert!(!headers.contains_key(name), "{name}");
        }
        let mut answer = map(&[("proxy-status", "backend; error=x")]);
        clean_response(&mut answer);
        assert!(answer.contains_key("proxy-status"), "RFC 9209: for everybody");
    }
}
