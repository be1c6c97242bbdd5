//! The URL of a store, which may hold a password. Its parts are read by `redis_link`.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::secret::Secret;

/// The URL of a store. `Display` and `Debug` show neither password nor query.
#[derive(Clone)]
pub struct StoreUrl(Secret);

impl StoreUrl {
    /// The schemes that are known.
    pub const SCHEMES: [&'static str; 6] = [
        "redis",
        "rediss",
        "redis+sentinel",
        "rediss+sentinel",
        "redis+cluster",
        "rediss+cluster",
    ];

    /// Takes a URL over, if its scheme is known and something follows it.
    #[must_use]
    pub fn parse(url: Secret) -> Option<Self> {
        let (scheme, rest) = url.expose().split_once("://")?;
        (Self::SCHEMES.contains(&scheme) && !rest.is_empty()).then_some(Self(url))
    }

    /// The whole URL, for the one place that connects with it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl PartialEq for StoreUrl {
    fn eq(&self, other: &Self) -> bool {
        self.0.matches(other.expose())
    }
}

impl Eq for StoreUrl {}

impl Hash for StoreUrl {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.expose().hash(state);
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.expose().split_once("://").unwrap_or(("", ""));
        write!(f, "{scheme}://")?;
        // Up to the last `@`: a password that was not encoded may hold `/`, `?` and `@` itself.
        let rest = match rest.rsplit_once('@') {
            None => rest,
            Some((credentials, host)) => {
                match credentials.split_once(':') {
                    Some((user, _)) => write!(f, "{user}:***@")?,
                    None => f.write_str("***@")?,
                }
                host
            }
        };
        match rest.split_once('?') {
            None => f.write_str(rest),
            Some((before, _)) => write!(f, "{before}?…"),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_no_password() {
        for (url, shown) in [
            ("redis://h:6379/0", "redis://h:6379/0"),
            ("redis://:p4ss@h/0", "redis://:***@h/0"),
            ("rediss://user:p4ss@h/0", "rediss://user:***@h/0"),
            ("redis://p4ss@h", "redis://***@h"),
            ("redis://:p4/p4@p4?p4@h/0", "redis://:***@h/0"),
            ("redis://h/0?password=p4ss", "redis://h/0?…"),
            (
                "redis+sentinel://u:p4ss@a:1,b:2/M",
                "redis+sentinel://u:***@a:1,b:2/M",
            ),
        ] {
            let url = StoreUrl::parse(Secret::new(url.into())).unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
        }
    }

    #[test]
    fn other_schemes_are_not_taken() {
        for url in ["", "h:6379", "http://h", "redis://", "redis:h", "REDIS://h"] {
            assert!(StoreUrl::parse(Secret::new(url.into())).is_none(), "{url}");
        }
    }
}
