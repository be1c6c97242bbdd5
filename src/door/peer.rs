//! Who is at the other end of a connection; every request carries it as an extension.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// Whether it speaks TLS to us.
    pub is_tls: bool,
    /// Whether it is a proxy whose `X-Forwarded-For` is believed.
    pub is_trusted: bool,
}

impl Peer {
    /// Whose request it is: the peer's, or, behind trusted proxies, the rightmost address in `X-Forwarded-For` that is no
    /// trusted proxy. `None` where a trusted proxy names something that is no address.
    #[must_use]
    pub fn caller(&self, headers: &HeaderMap, trusted_proxies: &[IpNet]) -> Option<IpAddr> {
        if !self.is_trusted {
            return Some(self.address);
        }
        let named: Vec<&str> = headers
            .get_all("x-forwarded-for")
            .iter()
            .map(|value| value.to_str().unwrap_or("unreadable"))
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .collect();
        let mut caller = self.address;
        for name in named.iter().rev() {
            caller = name.parse::<IpAddr>().ok()?.to_canonical();
            if !trusted_proxies.iter().any(|range| range.contains(&caller)) {
                return Some(caller);
            }
        }
        Some(caller)
    }
}
