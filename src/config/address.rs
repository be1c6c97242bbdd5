//! Parses addresses from the configuration: sockets, CIDR ranges, upstream URLs, handler ids.
//!
//! Each function returns the parsed value, or a message that says what is wrong and what to write instead.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::Uri;
use http::uri::Scheme;
use ipnet::IpNet;

use crate::upstream::dial::host_and_port;
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

/// Parses the URL of an HTTP upstream and strips slashes at its end. `example` is a valid URL for the message.
pub(super) fn http_url(text: &str, path: Path, example: &str) -> Result<String, String> {
    let refuse = |why: &str| Err(format!("{why}: write e.g. \"{example}\""));
    let Ok(uri) = text.parse::<Uri>() else {
        return refuse("is not a URL");
    };
    if uri.scheme() != Some(&Scheme::HTTP) && uri.scheme() != Some(&Scheme::HTTPS) {
        return refuse("must start with http:// or https://");
    }
    if text.contains('#') || uri.query().is_some() {
        return refuse("must have no query and no fragment");
    }
    let Some(authority) = uri.authority() else {
        return refuse("has no host");
    };
    if authority.as_str().contains('@') {
        return refuse("must hold no user or password");
    }
    let has_port = authority.as_str() != authority.host();
    if authority.host().is_empty() || (has_port && authority.port_u16().is_none()) {
        return refuse("has no host, or a port that does not exist");
    }
    let trimmed = text.trim_end_matches('/');
    if path == Path::Refused && !uri.path().trim_matches('/').is_empty() {
        return refuse("must have no path");
    }
    Ok(trimmed.to_owned())
}

/// Parses a handler's id. A URL becomes `scheme://host:port/path` in lower case (except the path), which is
/// also the default id of a handler that has only a URL. Any other text is the id as it stands.
pub(super) fn handler_id(text: &str, example: &str) -> Result<HandlerId, String> {
    let id = if text.contains("://") {
        let url = http_url(text, Path::Allowed, example)?;
        let url: Uri = url.parse().map_err(|_| "is not a URL")?;
        let (host, port) = host_and_port(&url);
        let host = match host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => host.to_lowercase(),
        };
        let (scheme, path) = (
            url.scheme_str().unwrap_or_default(),
            url.path().trim_end_matches('/'),
        );
        HandlerId::parse(&format!("{scheme}://{host}:{port}{path}"))
    } else {
        HandlerId::parse(text)
    };
    id.map_err(|rule| format!("{rule}: write a name, or a URL like \"{example}\""))
}

/// Whether a URL that [`http_url`] accepted uses plain `http`.
pub(super) fn is_plain(url: &str) -> bool {
    url.parse::<Uri>()
        .is_ok_and(|uri| uri.scheme() == Some(&Scheme::HTTP))
}

/// Whether a URL that [`http_url`] accepted names this machine (`localhost` or a loopback address).
pub(super) fn is_loopback(url: &str) -> bool {
    let Ok(url) = url.parse::<Uri>() else { return false };
    let (host, _) = host_and_port(&url);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_scheme_host_and_perhaps_a_path() {
        let read = |text, path| http_url(text, path, "http://h");
        assert_eq!(read("http://h:80/", Path::Refused).as_deref(), Ok("http://h:80"));
        assert_eq!(
            read("https://h/a/b/", Path::Allowed).as_deref(),
            Ok("https://h/a/b")
        );
        assert_eq!(
            read("http://[::1]:80", Path::Refused).as_deref(),
            Ok("http://[::1]:80")
        );
        for wrong in [
            "",
            "h:80",
            "ftp://h",
            "http://",
            "http://h/?a=1",
            "http://h/#a",
            "http://u:p@h",
            "http://h:99999",
            "/a",
        ] {
            assert!(read(wrong, Path::Allowed).is_err(), "{wrong}");
        }
        assert!(read("http://h/a", Path::Refused).is_err());
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
    fn loopback_is_this_machine_only() {
        for url in [
            "http://127.0.0.1:1",
            "http://127.9.9.9",
            "http://[::1]:1",
            "http://localhost:1",
            "http://LOCALHOST",
        ] {
            assert!(is_loopback(url), "{url}");
        }
        for url in [
            "http://10.0.0.1",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "http://[::2]",
        ] {
            assert!(!is_loopback(url), "{url}");
        }
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
