//! An address that payouts are sent to: taken from the configuration, never from a request.

use std::net::Ipv6Addr;

use http::uri::{Scheme, Uri};

use crate::rules::term::{HandlerId, Malformed};

/// Scheme, host, port and base path of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// `Host` header: the authority as it was written.
    pub authority: String,
    /// What stands before every path; empty, or `/…` without a slash at the end.
    pub base_path: String,
}

/// Why a URL is no upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} {why}")]
pub struct TargetError {
    /// The URL as it was written.
    pub url: String,
    /// What is wrong, and what would be right.
    pub why: &'static str,
}

impl Target {
    /// Reads `http://host[:port][/base]` or `https://…`.
    ///
    /// # Errors
    /// When it is no such URL, or has a user, a query or a fragment, then [`TargetError`].
    pub fn parse(url: &str) -> Result<Self, TargetError> {
        let error = |why| TargetError {
            url: url.to_owned(),
            why,
        };
        let uri: Uri = url
            .parse()
            .map_err(|_| error("is not a URL: write http://host:port or https://host"))?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(error("must begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| error("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(error("must not carry a user or password"));
        }
        if uri.query().is_some() || url.contains('#') {
            return Err(error("must not have a query or a fragment"));
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        if host.is_empty() {
            return Err(error("has no host"));
        }
        // The parser takes `h:99999`, and says then that there is no port.
        let names_port = authority.as_str() != authority.host();
        let port = match (authority.port_u16(), tls) {
            (Some(port), _) => port,
            (None, _) if names_port => return Err(error("has a port that is not one")),
            (None, true) => 443,
            (None, false) => 80,
        };
        let base_path = uri.path().trim_end_matches('/').to_owned();
        Ok(Self {
            tls,
            host,
            port,
            authority: authority.as_str().to_owned(),
            base_path,
        })
    }

    /// What a handler at this address is called where the configuration gives it no name: scheme, host in lower case, port
    /// and base path, so that the same address is the same name however it is written.
    ///
    /// # Errors
    /// When that is no [`HandlerId`], being too long, then its rule.
    pub fn handler_id(&self) -> Result<HandlerId, Malformed> {
        let scheme = if self.tls { "https" } else { "http" };
        let host = match self.host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => self.host.to_lowercase(),
        };
        HandlerId::parse(&format!("{scheme}://{host}:{}{}", self.port, self.base_path))
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}://{}{}",
            if self.tls { "https" } else { "http" },
            self.authority,
            self.base_path
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_an_upstreams_url() {
        let target = Target::parse("https://api.mch.weixin.qq.com").unwrap();
        assert_eq!(
            (target.tls, target.host.as_str(), target.port),
            (true, "api.mch.weixin.qq.com", 443)
        );
        assert_eq!(target.base_path, "");
        let target = Target::parse("http://[::1]:8000/base/").unwrap();
        assert_eq!(
            (target.host.as_str(), target.port, target.base_path.as_str()),
            ("::1", 8000, "/base")
        );
        assert_eq!(target.to_string(), "http://[::1]:8000/base");
    }

    #[test]
    fn one_address_is_one_handler_however_it_is_written() {
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
            let made = Target::parse(url).unwrap().handler_id().unwrap();
            assert_eq!(made.as_str(), id, "{url}");
            assert_eq!(Target::parse(id).unwrap().handler_id(), Ok(made), "{url}");
        }
        let long = Target::parse(&format!("http://h/{}", "a".repeat(256))).unwrap();
        assert!(long.handler_id().is_err());
    }

    #[test]
    fn refuses_everything_else() {
        for url in [
            "",
            "host",
            "ftp://host",
            "http://",
            "http://u:p@host",
            "http://h/?q=1",
            "http://h/#f",
            "http://h:99999",
            "/path",
        ] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }
}
