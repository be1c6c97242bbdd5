//! Decides who may call what on the admin port, from the head of the request alone, before routing and before the body
//! is read. No I/O. See docs/operate.md.
//!
//! Probes and metrics show no secret and are open to everybody, because a kubelet calls them at the pod's address.
//! Everything else is closed by default:
//!
//! * With a configured token, a caller needs it, and may then call from any address and with any `Host`.
//! * Without a configured token, callers on loopback may read. Their `Host` must be loopback too: after DNS rebinding a
//!   foreign page reaches 127.0.0.1, but its `Host` is still its own name.
//! * A request that changes something always needs the token, and must not come from a foreign page in a browser.
//!   `Origin` and `Sec-Fetch-Site` name the page, and an HTML form cannot send `application/json`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};

use super::refusal::Refusal;
use payout_domain::secret::Secret;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The token that callers need, if one is configured.
pub(super) struct Guard {
    token: Option<Secret>,
}

/// What an accepted request may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Read probes and metrics. The caller is unknown.
    Open,
    /// Read. No token is configured, and the caller is on this machine.
    ReadOnly,
    /// Read and change. The caller has the token.
    Full,
}

const NO_TOKEN: Refusal = Refusal::of(
    StatusCode::FORBIDDEN,
    "nothing is changed over the admin port without a token: set [admin] token in the configuration, and send it as \
           Authorization: Bearer …",
);
const WRONG_TOKEN: Refusal = Refusal::of(
    StatusCode::UNAUTHORIZED,
    "the admin token is missing or wrong: send [admin] token as Authorization: Bearer …",
);
const NOT_HERE: Refusal = Refusal::of(
    StatusCode::FORBIDDEN,
    "without [admin] token in the configuration this is for callers on loopback: set one to ask from elsewhere",
);
const OTHER_HOST: Refusal = Refusal::of(
    StatusCode::FORBIDDEN,
    "without [admin] token in the configuration Host must be localhost, 127.… or [::1]: set one to ask by another name",
);
const OTHER_ORIGIN: Refusal = Refusal::of(
    StatusCode::FORBIDDEN,
    "a page of elsewhere must not change anything here: Origin and Sec-Fetch-Site say that this comes from one",
);
const NOT_JSON: Refusal = Refusal::of(
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    "send Content-Type: application/json",
);

impl Guard {
    pub(super) const fn new(token: Option<Secret>) -> Self {
        Self { token }
    }

    /// Decides about a request from `peer`.
    ///
    /// # Errors
    /// The refusal, when the caller may not do this.
    pub(super) fn decide(&self, peer: IpAddr, head: &Parts) -> Result<Access, Refusal> {
        let changes = !matches!(head.method, Method::GET | Method::HEAD);
        if is_open(head.uri.path()) {
            return Ok(Access::Open);
        }
        let Some(token) = &self.token else {
            return match (changes, peer.is_loopback(), is_to_loopback(head)) {
                (true, _, _) => Err(NO_TOKEN),
                (false, false, _) => Err(NOT_HERE),
                (false, true, false) => Err(OTHER_HOST),
                (false, true, true) => Ok(Access::ReadOnly),
            };
        };
        if !bearer(&head.headers).is_some_and(|given| token.matches(given)) {
            return Err(WRONG_TOKEN);
        }
        if changes && !(is_of_this_origin(head) && is_of_this_site(&head.headers)) {
            return Err(OTHER_ORIGIN);
        }
        if changes && !is_json(&head.headers) {
            return Err(NOT_JSON);
        }
        Ok(Access::Full)
    }
}

/// Paths that are open to everybody because they show no secret.
fn is_open(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/metrics")
}

/// The only value of a header. `Err` if the header occurs twice or is not text.
fn only(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

/// The token of `Authorization: Bearer …`. The scheme is case-insensitive (RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = only(headers, AUTHORIZATION).ok().flatten()?;
    let (scheme, given) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(given.trim())
}

/// Host and port that the request addresses. `None` if an absolute target and `Host` differ.
fn addressed(head: &Parts) -> Option<&str> {
    let host = only(&head.headers, HOST).ok()?;
    match (head.uri.authority(), host) {
        (None, host) => host,
        (Some(target), Some(host)) => target.as_str().eq_ignore_ascii_case(host).then_some(host),
        (Some(target), None) => Some(target.as_str()),
    }
}

fn is_to_loopback(head: &Parts) -> bool {
    let host = addressed(head).and_then(|authority| split(authority, None));
    host.is_some_and(|(host, _)| {
        let is_v4 = host.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback());
        let v6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_v6 = v6.is_some_and(|text| text.parse().is_ok_and(|address: Ipv6Addr| address.is_loopback()));
        host.eq_ignore_ascii_case("localhost") || is_v4 || is_v6
    })
}

/// Splits `host`, `host:port`, `[v6]` or `[v6]:port`; `None` for anything else.
fn split(authority: &str, default: Option<u16>) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        Some(_) | None => (authority, ""),
    };
    let port = match port {
        "" => default,
        // `parse` would also accept a sign.
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
        _ => return None,
    };
    let is_v6 = host.starts_with('[') && host.ends_with(']');
    let is_plain = !host.is_empty() && !host.contains(['@', '/', '[', ']', ':']);
    (is_v6 || is_plain).then_some((host, port))
}

/// Whether the request has no `Origin` or this server's own. Ignores the scheme, because a TLS proxy may be in front.
fn is_of_this_origin(head: &Parts) -> bool {
    let origin = match only(&head.headers, ORIGIN) {
        Ok(None) => return true,
        Ok(Some(origin)) => origin,
        Err(()) => return false,
    };
    let (rest, port) = match (origin.strip_prefix("http://"), origin.strip_prefix("https://")) {
        (Some(rest), _) => (rest, 80),
        (None, Some(rest)) => (rest, 443),
        (None, None) => return false,
    };
    let here = addressed(head).and_then(|authority| split(authority, Some(port)));
    match (split(rest, Some(port)), here) {
        (Some((host, port)), Some(here)) => host.eq_ignore_ascii_case(here.0) && port == here.1,
        (None, _) | (_, None) => false,
    }
}

/// Whether `Sec-Fetch-Site`, if a browser sent it, names a page of this server or the user alone (`none`).
fn is_of_this_site(headers: &HeaderMap) -> bool {
    matches!(
        only(headers, SEC_FETCH_SITE),
        Ok(None | Some("same-origin" | "none"))
    )
}

fn is_json(headers: &HeaderMap) -> bool {
    let given = only(headers, CONTENT_TYPE).ok().flatten().unwrap_or_default();
    let media = given.split_once(';').map_or(given, |(media, _)| media);
    media.trim().eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn guard(token: Option<&str>) -> Guard {
        Guard::new(token.map(|token| Secret::new(token.to_owned())))
    }

    fn status(decided: Result<Access, Refusal>) -> u16 {
        decided.map_or_else(|refusal| refusal.status.as_u16(), |_| 200)
    }

    #[test]
    fn probes_and_metrics_are_open_whoever_asks_by_whatever_name() {
        let elsewhere = IpAddr::from([10, 1, 2, 3]);
        for path in ["/livez", "/readyz", "/readyz?stores", "/metrics"] {
            for guard in [guard(None), guard(Some("t"))] {
                let asked = head("GET", path, &[("host", "10.9.9.9:9090")]);
                assert_eq!(guard.decide(elsewhere, &asked), Ok(Access::Open), "{path}");
            }
        }
    }

    #[test]
    fn without_a_token_loopback_reads_by_a_loopback_name_only() {
        let guard = guard(None);
        for (host, is_let_in) in [
            ("localhost", true),
            ("LocalHost:9090", true),
            ("127.0.0.1:9090", true),
            ("127.8.9.1", true),
            ("[::1]", true),
            ("[::1]:9090", true),
            ("localhost:", true),
            ("rebound.example:9090", false),
            ("localhost.rebound.example", false),
            ("127.0.0.1.rebound.example", false),
            ("user@localhost", false),
            ("localhost:x", false),
            ("localhost:+80", false),
            ("10.0.0.1", false),
            ("::1", false),
            ("127.1", false),
            ("2130706433", false),
            ("[::1].example", false),
            ("", false),
        ] {
            let decided = guard.decide(LOOPBACK, &head("GET", "/api/payouts", &[("host", host)]));
            let expected = if is_let_in {
                Ok(Access::ReadOnly)
            } else {
                Err(OTHER_HOST)
            };
            assert_eq!(decided, expected, "{host:?}");
        }
        let here = ("host", "localhost");
        for (name, decided) in [
            ("no Host", guard.decide(LOOPBACK, &head("GET", "/api", &[]))),
            (
                "two of them",
                guard.decide(LOOPBACK, &head("GET", "/", &[here, here])),
            ),
            (
                "an absolute target of elsewhere",
                guard.decide(LOOPBACK, &head("GET", "http://rebound.example/api", &[here])),
            ),
        ] {
            assert_eq!(decided, Err(OTHER_HOST), "{name}");
        }
        let absolute = head("HEAD", "http://localhost/api", &[here]);
        assert_eq!(guard.decide(LOOPBACK, &absolute), Ok(Access::ReadOnly));
        let elsewhere = IpAddr::from([10, 1, 2, 3]);
        assert_eq!(
            guard.decide(elsewhere, &head("GET", "/api", &[here])),
            Err(NOT_HERE)
        );
        assert_eq!(
            guard.decide(LOOPBACK, &head("GET", "/nothing", &[here])),
            Ok(Access::ReadOnly)
        );
    }

    #[test]
    fn without_a_token_nothing_changes_anything() {
        let given = [
            ("host", "localhost"),
            ("authorization", "Bearer t"),
            ("content-type", "application/json"),
        ];
        for method in [
            "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "DRAIN",
        ] {
            for path in ["/api/drain", "/api/payouts/19/A1/settle", "/", "/nothing"] {
                let decided = guard(None).decide(LOOPBACK, &head(method, path, &given));
                assert_eq!(decided, Err(NO_TOKEN), "{method} {path}");
            }
        }
    }

    #[test]
    fn a_token_is_asked_for_everywhere_but_at_the_probes() {
        let guard = guard(Some("t0ken"));
        let elsewhere = IpAddr::from([10, 1, 2, 3]);
        for path in [
            "/",
            "/api",
            "/api/payouts",
            "/nothing",
            "/livez/",
            "//livez",
            "/%6civez",
        ] {
            for (authorization, expected) in [
                ("Bearer t0ken", Ok(Access::Full)),
                ("bearer  t0ken", Ok(Access::Full)),
                ("Bearer t0ke", Err(WRONG_TOKEN)),
                ("Bearer t0kenn", Err(WRONG_TOKEN)),
                ("Bearer", Err(WRONG_TOKEN)),
                ("Basic t0ken", Err(WRONG_TOKEN)),
                ("t0ken", Err(WRONG_TOKEN)),
            ] {
                let given = [("host", "admin.example"), ("authorization", authorization)];
                for peer in [LOOPBACK, elsewhere] {
                    assert_eq!(
                        guard.decide(peer, &head("GET", path, &given)),
                        expected,
                        "{authorization}"
                    );
                }
            }
        }
        let twice = [
            ("authorization", "Bearer t0ken"),
            ("authorization", "Bearer t0ken"),
        ];
        assert_eq!(
            guard.decide(LOOPBACK, &head("GET", "/api", &twice)),
            Err(WRONG_TOKEN)
        );
    }

    #[test]
    fn no_page_of_elsewhere_changes_anything_even_with_the_token() {
        let guard = guard(Some("t"));
        let asked = |host: &str, more: &[(&str, &str)]| {
            let known = [("authorization", "Bearer t"), ("host", host)];
            let all = [&known[..], more].concat();
            status(guard.decide(LOOPBACK, &head("POST", "/api/drain", &all)))
        };
        let json = ("content-type", "application/json");
        for (host, origin, expected) in [
            ("localhost:9090", "http://localhost:9090", 200),
            ("LOCALHOST:9090", "http://localhost:9090", 200),
            ("admin.example", "https://admin.example", 200),
            ("admin.example", "http://admin.example:80", 200),
            ("admin.example:443", "https://admin.example", 200),
            ("[::1]:9090", "http://[::1]:9090", 200),
            ("localhost:9090", "http://localhost:9091", 403),
            ("localhost:9090", "http://localhost", 403),
            ("localhost:9090", "https://elsewhere", 403),
            ("localhost", "http://localhost.elsewhere", 403),
            ("localhost", "http://localhost/", 403),
            ("localhost", "http://user@localhost", 403),
            ("localhost", "null", 403),
            ("localhost", "", 403),
            ("localhost", "file://", 403),
        ] {
            assert_eq!(
                asked(host, &[json, ("origin", origin)]),
                expected,
                "{host} {origin:?}"
            );
        }
        let here = ("origin", "http://localhost");
        assert_eq!(asked("localhost", &[json, here, here]), 403);
        for (site, expected) in [
            ("same-origin", 200),
            ("none", 200),
            ("same-site", 403),
            ("cross-site", 403),
            ("", 403),
        ] {
            assert_eq!(
                asked("localhost", &[json, ("sec-fetch-site", site)]),
                expected,
                "{site:?}"
            );
        }
        for (media, expected) in [
            ("application/json", 200),
            ("Application/JSON; charset=utf-8", 200),
            ("text/plain", 415),
            ("application/x-www-form-urlencoded", 415),
            ("multipart/form-data; boundary=application/json", 415),
            ("application/jsonp", 415),
            ("", 415),
        ] {
            assert_eq!(
                asked("localhost", &[("content-type", media)]),
                expected,
                "{media:?}"
            );
        }
        assert_eq!(asked("localhost", &[]), 415);
        assert_eq!(asked("localhost", &[json, json]), 415);
        assert_eq!(asked("localhost", &[json]), 200);
    }
}
