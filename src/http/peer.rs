//! The other end of a connection. Every request carries it as an extension.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// The address in the form of `X-Forwarded-For`.
    written: HeaderValue,
    /// Whether it uses TLS to us.
    pub is_tls: bool,
    /// Whether it is a proxy whose `X-Forwarded-For` we trust.
    pub is_trusted: bool,
}

impl Peer {
    /// A peer that is not trusted. Made once per connection, because it formats the address for all its requests.
    #[must_use]
    pub(crate) fn new(address: IpAddr, is_tls: bool) -> Self {
        // Digits, letters, dots and colons are always a valid value, so the fallback is never used.
        let written = HeaderValue::try_from(address.to_string());
        Self {
            address,
            written: written.unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            is_tls,
            is_trusted: false,
        }
    }

    /// The same peer, trusted or not.
    #[must_use]
    pub(crate) fn trusted(mut self, is_trusted: bool) -> Self {
        self.is_trusted = is_trusted;
        self
    }

    /// The address in the form of `X-Forwarded-For`.
    #[must_use]
    pub(crate) fn written(&self) -> &HeaderValue {
        &self.written
    }

    /// The address of the caller: the peer's, or behind trusted proxies the rightmost address in `X-Forwarded-For` that
    /// is not a trusted proxy; if all are, the leftmost. `None` if a trusted proxy names something that is no address:
    /// then nobody can tell who the caller is.
    #[must_use]
    pub(crate) fn caller(&self, headers: &HeaderMap, trusted_proxies: &[IpNet]) -> Option<IpAddr> {
        if !self.is_trusted {
            return Some(self.address);
        }
        let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
        let hops = lines
            .iter()
            .rev()
            .flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            // Empty list elements do not count. Source: RFC 9110, section 5.6.1.
            .filter(|hop| !hop.is_empty());
        let mut caller = self.address;
        for hop in hops {
            caller = hop_address(hop)?;
            if !trusted_proxies.iter().any(|range| range.contains(&caller)) {
                return Some(caller);
            }
        }
        Some(caller)
    }
}

/// An address as proxies write it: alone, or with a port, which some gateways add.
fn hop_address(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = bare
        .unwrap_or(text)
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()))
        .ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(is_trusted: bool, lines: &[&str]) -> Option<String> {
        let peer = Peer::new([10, 0, 0, 1].into(), false).trusted(is_trusted);
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        peer.caller(&headers, &trusted).map(|caller| caller.to_string())
    }

    #[test]
    fn a_stranger_speaks_for_itself() {
        assert_eq!(caller(false, &["198.51.100.1"]).unwrap(), "10.0.0.1");
    }

    #[test]
    fn behind_trusted_proxies_the_rightmost_stranger_counts() {
        let cases: [(&[&str], &str); 11] = [
            (&[], "10.0.0.1"),
            (&[""], "10.0.0.1"),
            (&["198.51.100.1"], "198.51.100.1"),
            (&["192.0.2.66, 198.51.100.1"], "198.51.100.1"),
            (&["192.0.2.66, 198.51.100.1, 10.9.9.9"], "198.51.100.1"),
            (
                &["192.0.2.66", "198.51.100.1", "10.9.9.9,fd00::7"],
                "198.51.100.1",
            ),
            (&["nonsense, 198.51.100.1"], "198.51.100.1"),
            (&["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
            (&["::ffff:198.51.100.1,"], "198.51.100.1"),
            (&["198.51.100.1:4711"], "198.51.100.1"),
            (&["[2001:db8::1]:443, [fd00::7]"], "2001:db8::1"),
        ];
        for (lines, expected) in cases {
            assert_eq!(caller(true, lines).as_deref(), Some(expected), "{lines:?}");
        }
    }

    #[test]
    fn an_unreadable_hop_hides_whose_request_it_is() {
        for lines in [
            ["unknown"],
            ["198.51.100.1, nonsense"],
            ["198.51.100.1, caf\u{e9}, 10.1.1.1"],
            ["198.51.100.0/24"],
        ] {
            assert_eq!(caller(true, &lines), None, "{lines:?}");
        }
    }
}
