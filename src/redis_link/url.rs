//! What a configuration names as a Redis: `redis://`, `rediss://`, and both with `+sentinel` and `+cluster`.
//! Document: specification, section 4.

use std::fmt;

use crate::secret::Secret;

/// How a Redis is made up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Standalone,
    /// Sentinels that know who is the master of this name.
    Sentinel {
        /// The name that the sentinels know the master by.
        master: String,
    },
    /// A Redis Cluster.
    Cluster,
}

/// A Redis, as it is named by a URL. Neither `Debug` nor `Display` shows the password.
#[derive(Clone)]
pub struct RedisUrl {
    /// How it is made up.
    pub topology: Topology,
    /// Whether TLS is spoken, to sentinels too.
    pub tls: bool,
    /// `host:port` of the server, the sentinels, or some of the cluster's nodes.
    pub hosts: Vec<(String, u16)>,
    /// ACL user.
    pub user: Option<String>,
    /// Password of the server; told to sentinels too if they ask for one.
    pub password: Option<Secret>,
    /// Database number.
    pub database: i64,
}

impl RedisUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// When it is none of the forms above, then what is wrong and what would be right; never with the password.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORMS: &str = "write redis://[user:password@]host:port[/db], redis+sentinel://host:port,host:port/MASTER[/db] \
                             or redis+cluster://host:port,host:port; rediss for TLS";
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| format!("it is no URL: {FORMS}"))?;
        let (tls, kind) = match scheme {
            "redis" => (false, ""),
            "rediss" => (true, ""),
            "redis+sentinel" => (false, "sentinel"),
            "rediss+sentinel" => (true, "sentinel"),
            "redis+cluster" => (false, "cluster"),
            "rediss+cluster" => (true, "cluster"),
            _ => return Err(format!("the scheme {scheme} is unknown: {FORMS}")),
        };
        // Nothing that is given is repeated in a refusal: what was meant as a host may be a password.
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if path.contains('@') {
            return Err("a / in the user or the password must be written %2F".to_owned());
        }
        if path.contains(['?', '#']) {
            return Err("it must not have a query or a fragment".to_owned());
        }
        let (credentials, hosts) = authority
            .rsplit_once('@')
            .map_or((None, authority), |(c, h)| (Some(c), h));
        let (user, password) = credentials.map_or(Ok((None, None)), credentials_of)?;
        let hosts = hosts.split(',').map(host).collect::<Result<Vec<_>, _>>()?;
        let mut path = path.split('/').filter(|part| !part.is_empty());
        let topology = match kind {
            "sentinel" => {
                let master = path
                    .next()
                    .ok_or_else(|| format!("the master's name is missing: {FORMS}"))?;
                Topology::Sentinel {
                    master: decode(master)?,
                }
            }
            "cluster" => Topology::Cluster,
            _ if hosts.len() > 1 => return Err(format!("several hosts need +sentinel or +cluster: {FORMS}")),
            _ => Topology::Standalone,
        };
        let database = match path.next() {
            None => 0,
            Some(number) => number
                .parse::<u16>()
                .map_err(|_| "the database is no number from 0 to 65535".to_owned())?
                .into(),
        };
        if path.next().is_some() {
            return Err(format!("the path is too long: {FORMS}"));
        }
        if topology == Topology::Cluster && database != 0 {
            return Err("a cluster has no databases".to_owned());
        }
        Ok(Self {
            topology,
            tls,
            hosts,
            user,
            password,
            database,
        })
    }
}

/// `user:password` or `:password`. One word alone is a user to some clients and a password to others, so it is neither.
fn credentials_of(text: &str) -> Result<(Option<String>, Option<Secret>), String> {
    let (user, password) = text
        .split_once(':')
        .ok_or("before the @, write user:password, or :password without a user")?;
    let (user, password) = (decode(user)?, decode(password)?);
    let user = (!user.is_empty()).then_some(user);
    // A user may be one that needs no password; without a user an empty password is none.
    let password = (user.is_some() || !password.is_empty()).then(|| Secret::new(password));
    Ok((user, password))
}

fn host(text: &str) -> Result<(String, u16), String> {
    let (host, port) = match text.rsplit_once(':') {
        // An IPv6 address without brackets has colons of its own.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port_of(port)?),
        _ => (text, 6379),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err("a host is missing".to_owned());
    }
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte) || !byte.is_ascii();
    if !host.bytes().all(is_host) {
        return Err(
            "a host has a character that no host has; % and : in a password are written %25 and %3A"
                .to_owned(),
        );
    }
    Ok((host.to_owned(), port))
}

fn port_of(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if port != 0 => Ok(port),
        Ok(_) | Err(_) => Err("the port of a host is no number from 1 to 65535".to_owned()),
    }
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| {
            byte.and_then(|byte| char::from(byte).to_digit(16))
                .and_then(|d| u8::try_from(d).ok())
        };
        match (digit(rest.next()), digit(rest.next())) {
            (Some(high), Some(low)) => bytes.push(high.wrapping_shl(4) | low),
            _ => return Err("a % in it is not followed by two hexadecimal digits".to_owned()),
        }
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 once its %-escapes are undone".to_owned())
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.topology {
            Topology::Standalone => "",
            Topology::Sentinel { .. } => "+sentinel",
            Topology::Cluster => "+cluster",
        };
        write!(f, "{}{kind}://", if self.tls { "rediss" } else { "redis" })?;
        for (at, (host, port)) in self.hosts.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { "," })?;
            if host.contains(':') {
                write!(f, "[{host}]:{port}")?;
            } else {
                write!(f, "{host}:{port}")?;
            }
        }
        match &self.topology {
            Topology::Sentinel { master } => write!(f, "/{master}"),
            Topology::Standalone | Topology::Cluster => Ok(()),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_no_password_is_shown() {
        for (text, shown) in [
            ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379"),
            (
                "rediss://user:p%40ss@redis.example.com",
                "rediss://redis.example.com:6379",
            ),
            ("redis://:secret@[::1]:7000/3", "redis://[::1]:7000"),
            (
                "redis+sentinel://a:1,b:2/mymaster",
                "redis+sentinel://a:1,b:2/mymaster",
            ),
            (
                "redis+sentinel://u:secret@a:1/mymaster/2",
                "redis+sentinel://a:1/mymaster",
            ),
            ("rediss+cluster://a,b:2", "rediss+cluster://a:6379,b:2"),
        ] {
            let url = RedisUrl::parse(text).unwrap();
            assert_eq!(format!("{url}"), shown);
            assert!(!format!("{url:?}").contains("secret"));
        }
        let url = RedisUrl::parse("redis://user:p%40ss@h/4").unwrap();
        assert_eq!((url.user.as_deref(), url.database), (Some("user"), 4));
        assert!(url.password.unwrap().matches("p@ss"));
    }

    #[test]
    fn what_is_none_of_them_is_refused_in_words() {
        for (text, says) in [
            ("127.0.0.1:6379", "it is no URL"),
            ("http://a", "scheme http is unknown"),
            ("redis://", "a host is missing"),
            ("redis://a:x", "the port"),
            ("redis://a:0", "the port"),
            ("redis://a,b", "several hosts"),
            ("redis://a?db=1", "a character that no host has"),
            ("redis://a b", "a character that no host has"),
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
