//! Checks what a request is aimed at: its method, its target and its `Host`. Pure. Sources: RFC 9110, sections 7.2, 7.4
//! and 8.6; RFC 9112, section 3.2; RFC 9113, sections 8.2.1 and 8.3.1; `docs/http.md`.

use std::borrow::Cow;

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, StatusCode, Uri, Version};

use super::headers::digits;
use crate::http::peer::Peer;
use crate::http::responses::Refused;
use payout_domain::contract::error::Chinese;
use payout_domain::path::may_be_a_call;

/// Why a request is not forwarded. Nothing has been sent yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    /// `CONNECT` would make the sidecar a tunnel to anywhere. The response to `TRACE` shows the request's credentials.
    #[error("CONNECT and TRACE are not forwarded")]
    Method,
    /// The target has no path.
    #[error("the request names no path")]
    NoPath,
    /// RFC 9112, section 3.2.4.
    #[error("the target * is for OPTIONS only")]
    Asterisk,
    /// RFC 9113, section 8.3.1: characters that a target must not have.
    #[error("the request's target has characters that must be percent-encoded")]
    Target,
    /// None, several, or an invalid one: the backend might see another host than a proxy in front of us.
    #[error("the request must have exactly one valid Host")]
    Host,
    /// RFC 9113, section 8.3.1.
    #[error("the request's target and its Host name different hosts")]
    TwoHosts,
    /// RFC 9110, section 7.4: the target asks for an https resource without TLS, and the peer is no proxy that may say
    /// that there was TLS.
    #[error("the target's scheme is not the one of this connection")]
    Scheme,
    /// RFC 9110, section 8.6.
    #[error("the Content-Length must be one number of digits")]
    Length,
    /// RFC 9113, section 8.2.1.
    #[error("a field's value begins or ends with white space")]
    Field,
    /// RFC 9110, section 10.1.1.
    #[error("an Expect other than 100-continue cannot be met")]
    Expectation,
    /// RFC 9110, section 7.6.2.
    #[error("the Max-Forwards must be one number of digits")]
    MaxForwards,
    /// Path or query contain the name of one of the contract's calls. A backend that understands the spelling would pay
    /// without a claim.
    #[error(
        "the path or the query holds the name of a payout call, which is served at its own path only: nothing else that holds it is forwarded"
    )]
    Disguised,
    /// All tunnels are taken.
    #[error("too many upgraded connections at the same time")]
    Upgrades,
}

impl Refused for TargetError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Method => StatusCode::NOT_IMPLEMENTED,
            Self::NoPath
            | Self::Asterisk
            | Self::Target
            | Self::Host
            | Self::TwoHosts
            | Self::Length
            | Self::Field
            | Self::MaxForwards => StatusCode::BAD_REQUEST,
            Self::Scheme => StatusCode::MISDIRECTED_REQUEST,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::Disguised => StatusCode::NOT_FOUND,
            Self::Upgrades => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// For the contract's paths; other paths get the English text.
impl Chinese for TargetError {
    fn chinese(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Method => "不转发 CONNECT 和 TRACE",
            Self::NoPath => "请求没有路径",
            Self::Asterisk => "目标 * 只能用于 OPTIONS",
            Self::Target => "请求的目标含有须百分号编码的字符",
            Self::Host => "请求须有且只有一个正确的 Host",
            Self::TwoHosts => "请求的目标与 Host 不是同一主机",
            Self::Scheme => "目标的协议与此连接的协议不同",
            Self::Length => "请求头 Content-Length 不正确: 须为一个十进制数",
            Self::Field => "请求头的值不能以空白开头或结尾",
            Self::Expectation => "不支持的 Expect: 只能为 100-continue",
            Self::MaxForwards => "请求头 Max-Forwards 不正确: 须为一个十进制数",
            Self::Disguised => "路径或查询中含有付款接口的名称: 付款接口只在其自身的路径上提供",
            Self::Upgrades => "同时升级的连接过多, 请稍后重试",
        })
    }
}

/// Checks a request's head. Returns the `Host` for the backend: the request's own, byte for byte; for an HTTP/1.0
/// request without one, the backend's.
///
/// # Errors
/// The reason why the request must not be forwarded.
pub(crate) fn check(
    method: &Method,
    uri: &Uri,
    version: Version,
    headers: &HeaderMap,
    backend: &Authority,
) -> Result<HeaderValue, TargetError> {
    if method == Method::CONNECT || method == Method::TRACE {
        return Err(TargetError::Method);
    }
    if uri.path() == "*" && method != Method::OPTIONS {
        return Err(TargetError::Asterisk);
    }
    // `Expect` may be a list, but we accept one element only: nobody sends another, and readers of lists have differed.
    if headers
        .get_all(header::EXPECT)
        .iter()
        .any(|expectation| !expectation.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(TargetError::Expectation);
    }
    let path = uri.path_and_query().ok_or(TargetError::NoPath)?;
    let host = check_message(uri, version, headers)?;
    if may_be_a_call(path.as_str().as_bytes()) {
        return Err(TargetError::Disguised);
    }
    host.map_or_else(
        || HeaderValue::from_str(backend.as_str()).map_err(|_| TargetError::Host),
        Ok,
    )
}

/// Checks what every request must meet, those to the contract's paths included: that the length of its body and its
/// host have one reading only. Returns the `Host`, which an HTTP/1.0 request may lack.
/// [`framing`](crate::server::framing) has already checked what only the bytes of HTTP/1 show.
///
/// # Errors
/// The reason why a proxy in front of us could have read the request in another way.
pub(crate) fn check_message(
    uri: &Uri,
    version: Version,
    headers: &HeaderMap,
) -> Result<Option<HeaderValue>, TargetError> {
    if version == Version::HTTP_2 {
        let is_bare = |value: &HeaderValue| {
            let ends = [value.as_bytes().first(), value.as_bytes().last()];
            !ends.iter().flatten().any(|byte| matches!(byte, b' ' | b'\t'))
        };
        if !headers.values().all(is_bare) {
            return Err(TargetError::Field);
        }
        let is_ascii = |target: &PathAndQuery| target.as_str().is_ascii();
        if !uri.path_and_query().is_none_or(is_ascii) {
            return Err(TargetError::Target);
        }
        let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
        let is_length = |length: &HeaderValue| digits(length.as_bytes()).is_some();
        if !lengths.next().is_none_or(is_length) || lengths.next().is_some() {
            return Err(TargetError::Length);
        }
        if !names_one_host(uri, headers) {
            return Err(TargetError::TwoHosts);
        }
    }
    host(uri, version, headers)
}

/// Whether the target and `Host` name the same host, or only one of them names a host.
#[must_use]
pub(crate) fn names_one_host(uri: &Uri, headers: &HeaderMap) -> bool {
    let (Some(named), Some(host)) = (uri.authority(), headers.get(header::HOST)) else {
        return true;
    };
    host.as_bytes().eq_ignore_ascii_case(named.as_str().as_bytes())
}

/// The host that a request is for. In HTTP/1 a host in the target overrides `Host`, which must be present and valid all
/// the same. Sources: RFC 9112, sections 3.2 and 3.2.2; RFC 9113, section 8.3.1.
fn host(uri: &Uri, version: Version, headers: &HeaderMap) -> Result<Option<HeaderValue>, TargetError> {
    let mut given = headers.get_all(header::HOST).iter();
    let host = match (given.next(), given.next()) {
        (_, Some(_)) => return Err(TargetError::Host),
        (None, None) if version == Version::HTTP_11 => return Err(TargetError::Host),
        (host, None) => host,
    };
    if !host.is_none_or(|host| is_host(host.as_bytes())) {
        return Err(TargetError::Host);
    }
    match (uri.authority().map(Authority::as_str), host) {
        (Some(named), _) if !is_host(named.as_bytes()) => Err(TargetError::Host),
        (Some(named), _) => HeaderValue::from_str(named)
            .map(Some)
            .map_err(|_| TargetError::Host),
        (None, Some(host)) => Ok(Some(host.clone())),
        (None, None) if version == Version::HTTP_2 => Err(TargetError::Host),
        (None, None) => Ok(None),
    }
}

/// Checks that an HTTP/1 target with a scheme has the connection's scheme. HTTP/2 targets always have one; a gateway
/// that ends TLS in front of us sends its own, and we do not forward it.
///
/// # Errors
/// [`TargetError::Scheme`] if it is another one, and the peer is not trusted to say so.
pub(crate) fn check_scheme(uri: &Uri, version: Version, peer: &Peer) -> Result<(), TargetError> {
    match uri.scheme_str() {
        Some(scheme) if version != Version::HTTP_2 => match scheme {
            "http" => Ok(()),
            "https" if peer.is_tls || peer.is_trusted => Ok(()),
            _ => Err(TargetError::Scheme),
        },
        _ => Ok(()),
    }
}

/// `uri-host [ ":" port ]` with a non-empty host, and without the user names, lists and paths that some readers see in
/// one. Sources: RFC 9110, section 7.2; RFC 3986, section 3.2.2.
fn is_host(host: &[u8]) -> bool {
    let (bare, port, is_literal) = match host {
        [b'[', rest @ ..] => {
            let end = rest.iter().position(|byte| *byte == b']');
            let Some((address, port)) = end.and_then(|end| rest.split_at_checked(end)) else {
                return false;
            };
            (address, port.get(1..).unwrap_or_default(), true)
        }
        _ => {
            let end = host.iter().position(|byte| !is_of_name(*byte));
            let (name, port) = host
                .split_at_checked(end.unwrap_or(host.len()))
                .unwrap_or_default();
            (name, port, false)
        }
    };
    let is_port = match port {
        [] | [b':'] => true,
        [b':', port @ ..] => digits(port).is_some_and(|port| u16::try_from(port).is_ok()),
        _ => false,
    };
    let is_encoded = |after: &[u8]| matches!(after, [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit());
    is_port
        && !bare.is_empty()
        && (!is_literal || bare.iter().all(|byte| is_of_name(*byte) || *byte == b':'))
        && bare.split(|byte| *byte == b'%').skip(1).all(is_encoded)
}

/// Whether a host name may contain this character. It must not contain a comma, which some would read as a list.
fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_get(target: &str, version: Version, given: &[(&str, &str)]) -> Result<String, TargetError> {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
        }
        let backend = Authority::from_static("backend:8000");
        let uri = target.parse().unwrap();
        check(&Method::GET, &uri, version, &headers, &backend).map(|host| host.to_str().unwrap().to_owned())
    }

    #[test]
    fn one_valid_host_passes_unchanged() {
        use TargetError::Host;
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Result<&'a str, TargetError>);
        let cases: &[Case<'_>] = &[
            ("/", &[("host", "Shop.example:80")], Ok("Shop.example:80")),
            ("/", &[("host", "[::1]:80")], Ok("[::1]:80")),
            ("/", &[("host", "[fe80::1%25eth0]")], Ok("[fe80::1%25eth0]")),
            ("/", &[("host", "a_b.c:")], Ok("a_b.c:")),
            ("/", &[("host", "%e7%ba%a2")], Ok("%e7%ba%a2")),
            ("/", &[], Err(Host)),
            ("/", &[("host", "")], Err(Host)),
            ("/", &[("host", ":80")], Err(Host)),
            ("/", &[("host", "[]")], Err(Host)),
            ("/", &[("host", "[::1")], Err(Host)),
            ("/", &[("host", "[::1]x")], Err(Host)),
            ("/", &[("host", "a:80x")], Err(Host)),
            ("/", &[("host", "a:+80")], Err(Host)),
            ("/", &[("host", "a:65536")], Err(Host)),
            ("/", &[("host", "a:80:80")], Err(Host)),
            ("/", &[("host", "a%zz")], Err(Host)),
            ("/", &[("host", "a"), ("host", "a")], Err(Host)),
            ("/", &[("host", "a,b")], Err(Host)),
            ("/", &[("host", "me@a")], Err(Host)),
            ("/", &[("host", "a/b")], Err(Host)),
            ("/", &[("host", "a b")], Err(Host)),
            ("http://a/x", &[("host", "A")], Ok("a")),
            ("http://a/x", &[("host", "b")], Ok("a")),
            ("http://a/x", &[("host", "b@c")], Err(Host)),
            ("http://a/x", &[], Err(Host)),
            ("http://me@a/x", &[("host", "a")], Err(Host)),
        ];
        for (target, headers, expected) in cases {
            assert_eq!(
                check_get(target, Version::HTTP_11, headers),
                (*expected).map(str::to_owned),
                "{target} {headers:?}"
            );
        }
        assert_eq!(
            check_get("/", Version::HTTP_10, &[]).as_deref(),
            Ok("backend:8000")
        );
    }

    #[test]
    fn what_cannot_be_forwarded_faithfully_is_refused() {
        let checked = |method: Method, target: &str, expect: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("a"));
            if let Some(expect) = expect {
                headers.insert(header::EXPECT, expect.parse().unwrap());
            }
            let backend = Authority::from_static("b");
            check(
                &method,
                &target.parse().unwrap(),
                Version::HTTP_11,
                &headers,
                &backend,
            )
            .err()
        };
        assert_eq!(checked(Method::CONNECT, "a:443", None), Some(TargetError::Method));
        assert_eq!(checked(Method::TRACE, "/", None), Some(TargetError::Method));
        assert_eq!(checked(Method::GET, "*", None), Some(TargetError::Asterisk));
        assert_eq!(checked(Method::OPTIONS, "*", None), None);
        assert_eq!(checked(Method::PUT, "/", Some("100-Continue")), None);
        assert_eq!(
            checked(Method::PUT, "/", Some("x")),
            Some(TargetError::Expectation)
        );
    }

    #[test]
    fn an_https_target_needs_tls_or_a_peer_that_may_say_so() {
        let peer = |is_tls, is_trusted| Peer::new([192, 0, 2, 1].into(), is_tls).trusted(is_trusted);
        let checked = |target: &str, version, peer: Peer| {
            check_scheme(&target.parse().unwrap(), version, &peer).is_ok()
        };
        let plain = || peer(false, false);
        assert!(checked("/", Version::HTTP_11, plain()));
        assert!(checked("http://a/", Version::HTTP_11, plain()));
        assert!(!checked("https://a/", Version::HTTP_11, plain()));
        assert!(!checked("ftp://a/", Version::HTTP_11, plain()));
        assert!(checked("https://a/", Version::HTTP_11, peer(true, false)));
        assert!(checked("https://a/", Version::HTTP_11, peer(false, true)));
        assert!(checked("https://a/", Version::HTTP_2, plain()));
    }

    #[test]
    fn http2_has_no_white_space_around_values_one_length_and_one_host() {
        let checked = |target: &str, given: &[(&str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in given {
                headers.append(
                    name.parse::<http::HeaderName>().unwrap(),
                    HeaderValue::from_bytes(value.as_bytes()).unwrap(),
                );
            }
            check_message(&target.parse().unwrap(), Version::HTTP_2, &headers).err()
        };
        assert_eq!(
            checked("http://a/", &[("x", "a b"), ("y", ""), ("content-length", "3")]),
            None
        );
        assert_eq!(checked("http://a/", &[("host", "A")]), None);
        assert_eq!(checked("/", &[]), Some(TargetError::Host));
        assert_eq!(
            checked("http://a/", &[("host", "b")]),
            Some(TargetError::TwoHosts)
        );
        assert_eq!(checked("http://a/\u{7ea2}", &[]), Some(TargetError::Target));
        for blank in [" a", "a ", "\ta", "a\t", " "] {
            assert_eq!(
                checked("http://a/", &[("x", blank)]),
                Some(TargetError::Field),
                "{blank:?}"
            );
        }
        for lengths in [&["3", "3"][..], &["3,3"], &[""], &["+3"]] {
            let given: Vec<_> = lengths.iter().map(|length| ("content-length", *length)).collect();
            assert_eq!(
                checked("http://a/", &given),
                Some(TargetError::Length),
                "{lengths:?}"
            );
        }
    }

    #[test]
    fn what_may_be_a_call_of_the_contract_is_not_forwarded() {
        let host = ("host", "a");
        for target in [
            "//x/pay/sendApiRedPack",
            "/index.php?s=/pay/getApiRedPacketStatus",
            "http://a//pay/sendApiRedPack",
        ] {
            assert_eq!(
                check_get(target, Version::HTTP_11, &[host]),
                Err(TargetError::Disguised),
                "{target}"
            );
        }
        for target in ["/pay/history?of=1", "http://a/pay"] {
            assert!(check_get(target, Version::HTTP_11, &[host]).is_ok(), "{target}");
        }
    }
}
