//! The base URL of a service to which the sidecar sends requests: scheme, host, port, and possibly a path prefix. The
//! configuration parses it once.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;
use http::uri::Scheme;
use serde::{Serialize, Serializer};

/// An HTTP or HTTPS URL with a host, but no user, query or fragment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BaseUrl(Uri);

/// Why a text is not a [`BaseUrl`]. The error that shows it adds an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BaseUrlError(&'static str);

impl FromStr for BaseUrl {
    type Err = BaseUrlError;

    fn from_str(text: &str) -> Result<Self, BaseUrlError> {
        let uri: Uri = text.parse().map_err(|_| BaseUrlError("is not a URL"))?;
        if uri.scheme() != Some(&Scheme::HTTP) && uri.scheme() != Some(&Scheme::HTTPS) {
            return Err(BaseUrlError("must start with http:// or https://"));
        }
        if text.contains('#') || uri.query().is_some() {
            return Err(BaseUrlError("must have no query and no fragment"));
        }
        let authority = uri.authority().ok_or(BaseUrlError("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(BaseUrlError("must hold no user or password"));
        }
        let has_port = authority.as_str() != authority.host();
        if authority.host().is_empty() || (has_port && authority.port_u16().is_none()) {
            return Err(BaseUrlError("has no host, or a port that does not exist"));
        }
        Ok(Self(uri))
    }
}

impl BaseUrl {
    /// The URL for the HTTP library.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.0
    }

    /// The prefix of each request's path: empty, or with a leading and no trailing slash.
    #[must_use]
    pub fn path(&self) -> &str {
        self.0.path().trim_end_matches('/')
    }

    /// Host and port as written in the URL.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.0.authority().map_or("", |authority| authority.as_str())
    }

    /// The host, without an IPv6 address's brackets, and the port.
    #[must_use]
    pub fn host_and_port(&self) -> (&str, u16) {
        let default = if self.is_tls() { 443 } else { 80 };
        let host = self.0.host().unwrap_or_default().trim_matches(['[', ']']);
        (host, self.0.port_u16().unwrap_or(default))
    }

    /// Whether the service uses TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }

    /// Whether the host is this machine: `localhost`, or a loopback address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let (host, _) = self.host_and_port();
        host.eq_ignore_ascii_case("localhost")
            || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// Writes the URL without a trailing slash.
impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.scheme_str().unwrap_or_default();
        write!(f, "{scheme}://{}{}", self.authority(), self.path())
    }
}

impl Serialize for BaseUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, BaseUrlError> {
        text.parse::<BaseUrl>().map(|url| url.to_string())
    }

    #[test]
    fn a_base_url_is_scheme_host_and_perhaps_a_path() {
        assert_eq!(read("http://h:80/").as_deref(), Ok("http://h:80"));
        assert_eq!(read("https://h/a/b/").as_deref(), Ok("https://h/a/b"));
        assert_eq!(read("http://[::1]:80").as_deref(), Ok("http://[::1]:80"));
        let (no_url, scheme) = ("is not a URL", "must start with http:// or https://");
        for (wrong, why) in [
            ("", no_url),
            ("h:80", scheme),
            ("ftp://h", scheme),
            ("unix://h", scheme),
            ("http://", no_url),
            ("http://a b", no_url),
            ("http://h/?a=1", "must have no query and no fragment"),
            ("http://h/#a", "must have no query and no fragment"),
            ("http://u:p@h", "must hold no user or password"),
            ("http://h:99999", "has no host, or a port that does not exist"),
            ("/a", scheme),
        ] {
            assert_eq!(read(wrong), Err(BaseUrlError(why)), "{wrong}");
        }
    }

    #[test]
    fn a_port_that_is_not_written_is_the_schemes() {
        for (text, expected) in [
            ("http://h", ("h", 80)),
            ("https://h", ("h", 443)),
            ("https://h:80", ("h", 80)),
            ("http://[::1]:8000/a", ("::1", 8000)),
        ] {
            let url: BaseUrl = text.parse().unwrap();
            assert_eq!(url.host_and_port(), expected);
        }
    }

    #[test]
    fn loopback_is_this_machine_only() {
        for url in [
            "http://127.0.0.1:1",
            "http://127.9.9.9",
            "http://[::1]:1",
            "http://localhost:1",
            "http://LOCALHOST",
        ] {
            assert!(url.parse::<BaseUrl>().unwrap().is_loopback(), "{url}");
        }
        for url in [
            "http://10.0.0.1",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "http://[::2]",
        ] {
            assert!(!url.parse::<BaseUrl>().unwrap().is_loopback(), "{url}");
        }
    }
}
