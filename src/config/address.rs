//! Parses addresses from the configuration: sockets, CIDR ranges, upstream URLs, handler ids.
//!
//! Each function returns the parsed value, or a message that says what is wrong and what to write instead.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use crate::http::base_url::{BaseUrl, BaseUrlError};
use payout_domain::ids::HandlerId;

/// Parses the address and port of a listener.
pub(super) fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("\"{text}\" is not an address and port: write e.g. \"0.0.0.0:8080\" or \"127.0.0.1:8080\"")
    })
}

/// Parses a CIDR range; a single address becomes a range of one.
pub(super) fn range(text: &str) -> Result<IpNet, String> {
    let net = text.parse::<IpNet>().ok();
    net.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
        .map(|net| net.trunc())
        .ok_or_else(|| {
            format!("\"{text}\" is not a range of addresses: write e.g. \"10.0.0.0/8\" or \"192.0.2.7\"")
        })
}

/// Whether a URL may have a path besides scheme and authority.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// No path: each request brings its own.
    Refused,
    /// A base path, which the caller of the URL extends.
    Allowed,
}

/// Parses the URL of an HTTP upstream. `example` is a valid URL for the message.
pub(super) fn http_url(text: &str, path: Path, example: &str) -> Result<BaseUrl, String> {
    let refuse = |why: &str| format!("{why}: write e.g. \"{example}\"");
    let url: BaseUrl = text
        .parse()
        .map_err(|error: BaseUrlError| refuse(&error.to_string()))?;
    if path == Path::Refused && !url.path().is_empty() {
        return Err(refuse("must have no path"));
    }
    Ok(url)
}

/// Parses a handler's id. A URL becomes `scheme://host:port/path` in lower case (except the path), which is
/// also the default id of a handler that has only a URL. Any other text is the id as it stands.
pub(super) fn handler_id(text: &str, example: &str) -> Result<HandlerId, String> {
    let id = if text.contains("://") {
        let url = http_url(text, Path::Allowed, example)?;
        let (host, port) = url.host_and_port();
        let host = match host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => host.to_lowercase(),
        };
        let (scheme, path) = (if url.is_tls() { "https" } else { "http" }, url.path());
        HandlerId::parse(&format!("{scheme}://{host}:{port}{path}"))
    } else {
        HandlerId::parse(text)
    };
    id.map_err(|rule| format!("{rule}: write a name, or a URL like \"{example}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_refused_where_each_request_brings_its_own() {
        let read = |text, path| http_url(text, path, "http://h").map(|url| url.to_string());
        assert_eq!(read("http://h:80/", Path::Refused).as_deref(), Ok("http://h:80"));
        assert_eq!(read("http://h/a/", Path::Allowed).as_deref(), Ok("http://h/a"));
        let refused = read("http://h/a", Path::Refused).unwrap_err();
        assert_eq!(refused, "must have no path: write e.g. \"http://h\"");
        let refused = read("h", Path::Allowed).unwrap_err();
        assert_eq!(
            refused,
            "must start with http:// or https://: write e.g. \"http://h\""
        );
    }

    #[test]
    fn one_address_is_one_handler_however_it_is_written() {
        let named = |url: &str| handler_id(url, "http://h");
        for (url, id) in [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("http://127.0.0.1:8000///", "http://127.0.0.1:8000"),
            ("http://h", "http://h:80"),
            ("HTTP://H:80/", "http://h:80"),
            (
                "https://Pay.Example.com/base/",
                "https://pay.example.com:443/base",
            ),
            ("https://h:80/Base/x", "https://h:80/Base/x"),
            ("http://[0:0:0:0:0:0:0:1]", "http://[::1]:80"),
            ("http://[FE80::A]:8000/b", "http://[fe80::a]:8000/b"),
        ] {
            let made = named(url).unwrap();
            assert_eq!(made.as_str(), id, "{url}");
            assert_eq!(named(id), Ok(made), "{url}");
        }
        assert!(named(&format!("http://h/{}", "a".repeat(256))).is_err());
    }

    #[test]
    fn a_range_may_be_one_address() {
        assert_eq!(range("10.1.2.3/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(range("192.0.2.7").unwrap().to_string(), "192.0.2.7/32");
        assert_eq!(range("::1").unwrap().to_string(), "::1/128");
        for wrong in ["", "10.0.0.0/33", "host", "10.0.0"] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
    }
}
