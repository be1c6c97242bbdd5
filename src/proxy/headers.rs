//! What becomes of headers on the way through: those of one connection end here, ours are set last. Pure.
//! Documents: specification, section 3; RFC 9110, section 7.6.1; ecosystem.md, section 3.2 (hop-by-hop abuse, underscore
//! twins, trust in forwarded headers). Ids and traces are `trace.rs`.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::peer::Peer;
use crate::rules::handler::is_token_header;

const FORWARDED: &str = "forwarded";
const X_REAL_IP: &str = "x-real-ip";
const X_FORWARDED_PREFIX: &str = "x-forwarded-";
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Removes from a request what concerns the caller's connection only, and what the caller may not claim: names that a
/// backend reads as one of ours (`X_Forwarded_For`), and, unless the peer is trusted, what proxies say about callers.
pub fn clean_request(headers: &mut HeaderMap, peer: &Peer) {
    remove_named_by_connection(headers);
    remove(headers, |name| {
        ends_here(name)
            || is_of_proxies(name)
            // A body is asked for by reading it.
            || name == header::EXPECT
            || is_twin(name)
            // What only a handler is told, and only by us.
            || is_token_header(name)
            || (!peer.is_trusted && is_claim(name))
    });
}

/// Removes from an answer what concerns the backend's connection only.
pub fn clean_response(headers: &mut HeaderMap) {
    remove_named_by_connection(headers);
    remove(headers, ends_here);
}

/// Tells the backend about the caller. Called after [`clean_request`], so that nothing the caller sends can undo it.
pub fn announce(headers: &mut HeaderMap, peer: &Peer) {
    // Where the peer is not trusted, nothing earlier is left.
    let mut chain = Vec::new();
    for earlier in headers.get_all(&X_FORWARDED_FOR) {
        chain.extend_from_slice(earlier.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(peer.address.to_string().as_bytes());
    match HeaderValue::from_bytes(&chain) {
        Ok(chain) => headers.insert(X_FORWARDED_FOR, chain),
        // Values joined by commas are a value; should that ever be wrong, no chain is better than another's.
        Err(_) => headers.remove(X_FORWARDED_FOR),
    };
    if !headers.contains_key(&X_FORWARDED_PROTO) {
        let scheme = if peer.is_tls { "https" } else { "http" };
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    if !headers.contains_key(&X_FORWARDED_HOST)
        && let Some(host) = headers.get(header::HOST).cloned()
    {
        headers.insert(X_FORWARDED_HOST, host);
    }
}

fn remove_named_by_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        // Where a message ends and whom it is for is no caller's to strip.
        .filter(|name| name != header::CONTENT_LENGTH && name != header::HOST)
        .collect();
    for name in named {
        headers.remove(name);
    }
}

fn remove(headers: &mut HeaderMap, goes: impl Fn(&str) -> bool) {
    let going: Vec<HeaderName> = headers
        .keys()
        .filter(|name| goes(name.as_str()))
        .cloned()
        .collect();
    for name in going {
        headers.remove(name);
    }
}

/// Headers of one connection. Trailers end here too, since their announcement does.
fn ends_here(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Requests to proxies; a bare `Proxy` becomes `HTTP_PROXY` to a CGI program.
fn is_of_proxies(name: &str) -> bool {
    name == "proxy" || name.starts_with("proxy-")
}

/// What a proxy says about the caller that it stands for.
fn is_claim(name: &str) -> bool {
    name == FORWARDED || name == X_REAL_IP || name.starts_with(X_FORWARDED_PREFIX)
}

/// A name with `_` that a backend reads as a header that is ours to set or to remove: CGI, WSGI and many frameworks make
/// one of both.
fn is_twin(name: &str) -> bool {
    if !name.contains('_') {
        return false;
    }
    let twin = name.replace('_', "-");
    ends_here(&twin)
        || is_of_proxies(&twin)
        || is_claim(&twin)
        || matches!(
            twin.as_str(),
            "x-request-id" | "traceparent" | "tracestate" | "content-length" | "host" | "expect"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(given: &[(&str, &str)], is_trusted: bool) -> HeaderMap {
        let peer = Peer {
            address: [192, 0, 2, 1].into(),
            is_tls: false,
            is_trusted,
        };
        let mut headers = map(given);
        clean_request(&mut headers, &peer);
        announce(&mut headers, &peer);
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

    const HOP_BY_HOP: [(&str, &str); 9] = [
        ("keep-alive", "5"),
        ("te", "trailers"),
        ("trailer", "x"),
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
