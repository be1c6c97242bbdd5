//! Parses the URL of a Redis: `redis://`, `rediss://`, and both with `+sentinel` and `+cluster`. See docs/redis.md.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;
use url::Url;

use payout_domain::secret::Secret;

/// The known schemes.
const SCHEMES: [&str; 6] = [
    "redis",
    "rediss",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
];

/// The forms of a URL, for error messages.
const FORMS: &str = "write redis://[user:password@]host:port[/db], redis+sentinel://host:port,host:port/MASTER[/db] or \
                     redis+cluster://host:port,host:port; rediss for TLS";

/// The topology of a Redis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Topology {
    /// One server.
    Standalone,
    /// Sentinels that know the current master.
    Sentinel {
        /// The master's name at the sentinels.
        master: String,
    },
    /// A Redis Cluster.
    Cluster,
}

/// A Redis, named by a URL. `Debug` and `Display` show the URL without the password.
#[derive(Clone, Hash)]
pub struct RedisUrl {
    shown: String,
    /// The topology.
    pub topology: Topology,
    /// Whether to use TLS, to sentinels too.
    pub tls: bool,
    /// `host:port` of the server, the sentinels, or some of the cluster's nodes.
    pub hosts: Vec<(String, u16)>,
    /// ACL user.
    pub user: Option<String>,
    /// Password of the server. Sentinels get it only if they ask for one.
    pub password: Option<Secret>,
    /// Database number.
    pub database: i64,
}

impl RedisUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// When it has none of the forms above: what is wrong, and the correct form. The message repeats no part of the
    /// URL, because what looks like a host may be a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text
            .split_once("://")
            .filter(|(scheme, _)| SCHEMES.contains(scheme))
            .ok_or_else(|| {
                let schemes = SCHEMES.map(|scheme| format!("{scheme}://")).join(" ");
                format!("is not the URL of a Redis: start it with one of {schemes}")
            })?;
        // Split at the last `@`: a password without percent-encoding may contain `@`, `/` and `?`.
        let (credentials, place) = rest
            .rsplit_once('@')
            .map_or((None, rest), |(credentials, place)| (Some(credentials), place));
        let (user, password) = credentials.map_or(Ok((None, None)), credentials_of)?;
        if place.contains(['?', '#']) {
            return Err("must not have a query or a fragment".to_owned());
        }
        let (hosts, path) = place.split_once('/').unwrap_or((place, ""));
        let hosts = hosts.split(',').map(host).collect::<Result<Vec<_>, _>>()?;
        let mut path = path.split('/').filter(|part| !part.is_empty());
        let topology = if scheme.ends_with("+sentinel") {
            let master = path
                .next()
                .ok_or_else(|| format!("the master's name is missing: {FORMS}"))?;
            Topology::Sentinel {
                master: decode(master)?,
            }
        } else if scheme.ends_with("+cluster") {
            Topology::Cluster
        } else if hosts.len() > 1 {
            return Err(format!("several hosts need +sentinel or +cluster: {FORMS}"));
        } else {
            Topology::Standalone
        };
        let database = path.next().map_or(Ok(0), str::parse::<u16>);
        let database = database.map_err(|_| "the database is no number from 0 to 65535".to_owned())?;
        if path.next().is_some() {
            return Err(format!("the path is too long: {FORMS}"));
        }
        if topology == Topology::Cluster && database != 0 {
            return Err("a cluster has no databases".to_owned());
        }
        Ok(Self {
            shown: match credentials.and_then(|credentials| credentials.split_once(':')) {
                Some((user, _)) => format!("{scheme}://{user}:***@{place}"),
                None => text.to_owned(),
            },
            topology,
            tls: scheme.starts_with("rediss"),
            hosts,
            user,
            password,
            database: database.into(),
        })
    }
}

/// `user:password` or `:password`. Some clients read a single word as a user and others as a password, so reject it.
fn credentials_of(text: &str) -> Result<(Option<String>, Option<Secret>), String> {
    if text.contains('/') {
        return Err("a / in the user or the password must be written %2F".to_owned());
    }
    let (user, password) = text
        .split_once(':')
        .ok_or("before the @, write user:password, or :password without a user")?;
    let (user, password) = (decode(user)?, decode(password)?);
    let user = (!user.is_empty()).then_some(user);
    // A user may have an empty password; without a user an empty password means none.
    let password = (user.is_some() || !password.is_empty()).then(|| Secret::new(password));
    Ok((user, password))
}

/// Parses one host. `Url` gets only this part, because no URL parser takes a list of hosts or wipes a password.
fn host(text: &str) -> Result<(String, u16), String> {
    let unreadable = |why: &dyn fmt::Display| {
        format!(
            "a host or the port of one cannot be read ({why}): % and : in a password are written %25 and %3A"
        )
    };
    // `Url` would drop these characters, and would read a trailing colon as "no port".
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(unreadable(&"a blank is invalid there"));
    }
    if text.ends_with(':') {
        return Err(unreadable(&"nothing follows the colon"));
    }
    let url = Url::parse(&format!("redis://{text}")).map_err(|error| unreadable(&error))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    match url.port() {
        _ if host.is_empty() => Err(format!("a host is missing: {FORMS}")),
        Some(0) => Err("the port of a host must be from 1 to 65535".to_owned()),
        port => Ok((host.to_owned(), port.unwrap_or(6379))),
    }
}

/// Decodes percent-encoding. Every `%` must be followed by two digits: an unencoded password would otherwise be read as
/// another one.
fn decode(text: &str) -> Result<String, String> {
    let is_whole = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if !text.split('%').skip(1).all(is_whole) {
        return Err("a % in it is not followed by two hexadecimal digits: write %25 for a %".to_owned());
    }
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(Cow::into_owned)
        .map_err(|_| "it is not UTF-8 once its %-escapes are undone".to_owned())
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_no_password_is_shown() {
        for (text, shown) in [
            ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
            (
                "rediss://user:p%40ss@redis.example.com",
                "rediss://user:***@redis.example.com",
            ),
            ("redis://:secret@[::1]:7000/3", "redis://:***@[::1]:7000/3"),
            (
                "redis+sentinel://a:1,b:2/mymaster",
                "redis+sentinel://a:1,b:2/mymaster",
            ),
            (
                "redis+sentinel://u:secret@a:1/mymaster/2",
                "redis+sentinel://u:***@a:1/mymaster/2",
            ),
            ("rediss+cluster://a,b:2", "rediss+cluster://a,b:2"),
        ] {
            let url = RedisUrl::parse(text).unwrap();
            assert_eq!(format!("{url}"), shown);
            assert!(!format!("{url:?}").contains("secret"));
        }
        let hosts = RedisUrl::parse("redis+cluster://[::1]:7000,b_1,10.0.0.1:80")
            .unwrap()
            .hosts;
        let hosts: Vec<_> = hosts.iter().map(|(host, port)| (host.as_str(), *port)).collect();
        assert_eq!(hosts, [("::1", 7000), ("b_1", 6379), ("10.0.0.1", 80)]);
        let url = RedisUrl::parse("redis://user:p%40ss@h/4").unwrap();
        assert_eq!((url.user.as_deref(), url.database), (Some("user"), 4));
        assert!(url.password.unwrap().matches("p@ss"));
    }

    #[test]
    fn what_is_none_of_them_is_refused_in_words() {
        for (text, says) in [
            ("127.0.0.1:6379", "not the URL of a Redis"),
            ("http://a", "start it with one of redis://"),
            ("REDIS://h", "start it with one of redis://"),
            ("redis://", "a host is missing"),
            ("redis://a:x", "the port"),
            ("redis://a:0", "the port"),
            ("redis://a,b", "several hosts"),
            ("redis://a?db=1", "a query or a fragment"),
            ("redis://a b", "invalid"),
            ("redis://a\tb", "invalid"),
            ("redis+cluster://a ,b\n", "invalid"),
            ("redis://a:", "the port"),
            ("redis://a/x", "is no number"),
            ("redis://a/-1", "is no number"),
            ("redis://a/1/2", "the path is too long"),
            ("redis://word@a", "write user:password"),
            ("redis+sentinel://a:1", "master's name is missing"),
            ("redis+cluster://a:1/2", "no databases"),
            ("redis://:%zz@a", "two hexadecimal digits"),
        ] {
            match RedisUrl::parse(text) {
                Err(error) => assert!(error.contains(says), "{text}: {error}"),
                Ok(url) => panic!("{text} was read as {url}"),
            }
        }
    }

    #[test]
    fn a_refusal_repeats_nothing_that_may_be_a_password() {
        for text in [
            "redis://:s3cret/part@h:6379/0",
            "redis://:s3cret/s3cret",
            "redis://h:s3cret",
            "redis://s3cret@h",
            "redis://user:s3cret?@h:x",
            "redis://h/s3cret",
            "redis://:%s3cret@h",
            "s3cret",
        ] {
            match RedisUrl::parse(text) {
                Err(error) => assert!(!error.contains("s3cret"), "{text}: {error}"),
                Ok(url) => panic!("{text} was read as {url}"),
            }
        }
    }
}
