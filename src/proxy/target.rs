//! What a request is aimed at: its `Host`, its path, the codings of its body. Pure.
//! Documents: RFC 9112, sections 3.2, 3.3 and 6.1; ecosystem.md, section 3.1.

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::Authority;
use http::{Method, StatusCode, Uri, Version};

use crate::rules::path::may_be_a_call;

/// Why a request is not forwarded, before anything is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// `CONNECT` would make the sidecar a tunnel to anywhere.
    #[error("CONNECT is not forwarded")]
    Connect,
    /// The target has no path.
    #[error("the request names no path")]
    NoPath,
    /// None, several, or an unreadable one: the backend might see another host than whoever stands before us.
    #[error("the request must have exactly one valid Host")]
    Host,
    /// The absolute-form target names another host than `Host` does.
    #[error("the request's target and its Host name different hosts")]
    TwoHosts,
    /// A transfer coding besides `chunked`, which would be lost on the way.
    #[error("the body has a transfer coding other than chunked")]
    Coding,
    /// Path or query hold the name of one of the contract's calls. A backend that understands the spelling would pay without
    /// a claim.
    #[error(
        "the path or the query holds the name of a payout call, which is served at its own path only: nothing else that holds it is forwarded"
    )]
    Disguised,
}

impl TargetError {
    /// What the caller is told.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoPath | Self::Host | Self::TwoHosts => StatusCode::BAD_REQUEST,
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            Self::Disguised => StatusCode::NOT_FOUND,
        }
    }
}

/// Checks a request's head, and says which `Host` the backend is told: the request's own, byte for byte; of an HTTP/1.0
/// request without one, the backend's.
///
/// # Errors
/// When the request must not be forwarded, then why.
pub fn check(
    method: &Method,
    uri: &Uri,
    version: Version,
    headers: &HeaderMap,
    backend: &Authority,
) -> Result<HeaderValue, TargetError> {
    if method == Method::CONNECT {
        return Err(TargetError::Connect);
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

/// Checks what must hold of every request, whoever answers it: where its body ends and whom it is for can be read in one
/// way only. Returns the `Host`, which an HTTP/1.0 request may lack.
///
/// # Errors
/// When somebody before us could have read it in another way, then why.
pub fn check_message(
    uri: &Uri,
    version: Version,
    headers: &HeaderMap,
) -> Result<Option<HeaderValue>, TargetError> {
    if !is_plainly_chunked(headers) {
        return Err(TargetError::Coding);
    }
    host(uri, version, headers)
}

fn host(uri: &Uri, version: Version, headers: &HeaderMap) -> Result<Option<HeaderValue>, TargetError> {
    let mut given = headers.get_all(header::HOST).iter();
    let named = uri.authority().map(Authority::as_str);
    if named.is_some_and(|named| !is_host(named.as_bytes())) {
        return Err(TargetError::Host);
    }
    match (given.next(), given.next(), named) {
        (_, Some(_), _) => Err(TargetError::Host),
        (Some(host), None, _) if !is_host(host.as_bytes()) => Err(TargetError::Host),
        (Some(host), None, Some(named)) if !host.as_bytes().eq_ignore_ascii_case(named.as_bytes()) => {
            Err(TargetError::TwoHosts)
        }
        (Some(host), None, _) => Ok(Some(host.clone())),
        (None, None, Some(named)) => HeaderValue::from_str(named)
            .map(Some)
            .map_err(|_| TargetError::Host),
        (None, None, None) if version == Version::HTTP_10 => Ok(None),
        (None, None, None) => Err(TargetError::Host),
    }
}

/// The characters of a host and port, without the user name, the lists and the paths that some readers see in one.
fn is_host(host: &[u8]) -> bool {
    host.iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._~%:[]!$&'()*+;=".contains(byte))
}

/// Whether a message's body has no transfer coding, or `chunked` alone. That one is undone and made anew on the way.
#[must_use]
pub fn is_plainly_chunked(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// Undoes `%XX`; what only looks like it stays.
#[must_use]
pub fn percent_decode(bytes: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, others)) = rest.split_first() {
        rest = others;
        if let (b'%', [high, low, after @ ..]) = (first, others)
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            decoded.push((high << 4) | low);
            rest = after;
        } else {
            decoded.push(first);
        }
    }
    decoded
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
        use TargetError::{Host, TwoHosts};
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Result<&'a str, TargetError>);
        let cases: [Case<'_>; 13] = [
            ("/", &[("host", "Shop.example:80")], Ok("Shop.example:80")),
            ("/", &[("host", "[::1]:80")], Ok("[::1]:80")),
            ("/", &[("host", "")], Ok("")),
            ("/", &[], Err(Host)),
            ("/", &[("host", "a"), ("host", "a")], Err(Host)),
            ("/", &[("host", "a,b")], Err(Host)),
            ("/", &[("host", "me@a")], Err(Host)),
            ("/", &[("host", "a/b")], Err(Host)),
            ("/", &[("host", "a b")], Err(Host)),
            ("http://a/x", &[("host", "A")], Ok("A")),
            ("http://a/x", &[], Ok("a")),
            ("http://a/x", &[("host", "b")], Err(TwoHosts)),
            ("http://me@a/x", &[], Err(Host)),
        ];
        for (target, headers, expected) in cases {
            assert_eq!(
                check_get(target, Version::HTTP_11, headers),
                expected.map(str::to_owned),
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
        let host = ("host", "a");
        let coded = |coding| check_get("/", Version::HTTP_11, &[host, ("transfer-encoding", coding)]);
        assert!(coded("Chunked").is_ok());
        for coding in ["gzip, chunked", "chunked, chunked", "identity", "chunked;x=1", ""] {
            assert_eq!(coded(coding), Err(TargetError::Coding), "{coding}");
        }
        let connect = check(
            &Method::CONNECT,
            &"a:443".parse().unwrap(),
            Version::HTTP_11,
            &HeaderMap::new(),
            &Authority::from_static("b"),
        );
        assert_eq!(connect, Err(TargetError::Connect));
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
        for target in ["/pay/history?of=1", "http://a/pay", "*"] {
            assert!(check_get(target, Version::HTTP_11, &[host]).is_ok(), "{target}");
        }
    }

    #[test]
    fn percent_decoding_leaves_what_is_none() {
        assert_eq!(percent_decode(b"a%2Bb%2b+%zz%4"), b"a+b++%zz%4");
        assert_eq!(percent_decode(b"%E7%BA%A2"), "红".as_bytes());
    }
}
