//! Changes the mapping in Redis for the operator: writes many rows, removes one, and lists all (`listing`).
//!
//! A write first reads the current values and then writes only the differences. So importing the same file again costs
//! Redis no writes, and the sidecars that subscribe to changes drop no cached openids.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's enum is not ours to list"
)]

mod bulk;

pub(crate) mod key_parser;

pub(crate) mod listing;

use std::collections::HashMap;

use redis::{Cmd, Value};

use crate::openids::csv::Row;
use crate::openids::template::Template;
use crate::redis::{LinkError, RedisLink};
use payout_domain::ids::{OpenId, UserId, WxAppId};

/// The mapping of user ids to openids in Redis.
#[derive(Clone)]
pub(crate) struct Mapping {
    pub(super) link: RedisLink,
    pub(super) key: Template,
    pub(super) field: Option<Template>,
}

/// The place of a user's openid: a key, or a hash and its field.
pub(super) type Spot = (String, Option<String>);

/// For each place, the current value and the wanted openid.
pub(super) type Wanted<'a> = HashMap<&'a Spot, (Option<Vec<u8>>, &'a OpenId)>;

/// The result for one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// The user had no openid before.
    New,
    /// The user had another openid before.
    Changed,
    /// The user already had this openid.
    Unchanged,
    /// Nothing was written, because the place holds another type. Contains Redis's error.
    Refused(String),
}

impl Mapping {
    /// The mapping at `key`, or at `field` of the hash at `key`.
    ///
    /// # Errors
    /// The reason, when a template cannot be parsed.
    pub(crate) fn new(link: RedisLink, key: &str, field: Option<&str>) -> Result<Self, String> {
        Ok(Self {
            link,
            key: Template::parse(key)?,
            field: field.map(Template::parse).transpose()?,
        })
    }

    /// Writes rows. A later row overrides an earlier one. Writing the same rows again is harmless.
    ///
    /// # Errors
    /// [`LinkError`] when Redis did not take all rows: it may have written some of them.
    pub(crate) async fn put(&self, rows: &[Row]) -> Result<Vec<Put>, LinkError> {
        let spots: Vec<Spot> = rows.iter().map(|row| self.spot(&row.app, &row.user)).collect();
        if let Some(came) = self.put_by_few(rows, &spots).await? {
            return Ok(came);
        }
        let mut known = Vec::with_capacity(rows.len());
        for answer in self.link.all(spots.iter().map(read).collect()).await? {
            known.push(match answer.and_then(bytes) {
                Ok(value) => Ok(value),
                Err(LinkError::Refused { code, text }) if code == "WRONGTYPE" => {
                    Err(format!("{code} {text}"))
                }
                Err(error) => return Err(error),
            });
        }
        let (came, wanted) = compare(rows, &spots, known);
        let writes = wanted
            .into_iter()
            .filter(|(_, (known, openid))| known.as_deref() != Some(openid.as_str().as_bytes()))
            .map(|(spot, (_, openid))| write(spot, openid));
        for written in self.link.all(writes.collect()).await? {
            written?;
        }
        Ok(came)
    }

    /// Removes a user's openid. Returns whether there was one.
    ///
    /// # Errors
    /// [`LinkError`] when Redis did not do it, or the place holds another type.
    pub(crate) async fn remove(&self, app: &WxAppId, user: &UserId) -> Result<bool, LinkError> {
        let spot = self.spot(app, user);
        // Read first: `DEL` would remove a key of any type.
        let known: Option<Vec<u8>> = self.link.read(&read(&spot)).await?;
        if known.is_none() {
            return Ok(false);
        }
        let (key, field) = &spot;
        let removed: u64 = match field {
            None => self.link.query(&Cmd::del(key)).await?,
            Some(field) => self.link.query(&Cmd::hdel(key, field)).await?,
        };
        Ok(removed > 0)
    }

    /// Names this Redis and the mapping in it, without the password. An import resumes only if this text is the same.
    #[must_use]
    pub(crate) fn described(&self) -> String {
        let url = self.link.url();
        let field = self.field.as_ref().map(ToString::to_string);
        format!(
            "{url} {} {} {}",
            url.database,
            self.key,
            field.unwrap_or_default()
        )
    }

    /// The run ids of the current masters. A restarted process may have lost writes that it acknowledged, and so may
    /// one that took over from another.
    ///
    /// # Errors
    /// [`LinkError`] when a master does not report its run id; `Refused` if this Redis user may not ask.
    pub(crate) async fn processes(&self) -> Result<Vec<String>, LinkError> {
        let mut info = redis::cmd("INFO");
        info.arg("server");
        let mut ids = Vec::new();
        for answer in self.link.each_master(&info).await? {
            let text = match answer {
                Value::BulkString(text) => String::from_utf8_lossy(&text).into_owned(),
                Value::VerbatimString { text, .. } => text,
                _ => String::new(),
            };
            let id = text.lines().find_map(|line| line.strip_prefix("run_id:"));
            let id = id.ok_or_else(|| LinkError::Unanswered("INFO server has no run_id".to_owned()))?;
            ids.push(id.trim().to_owned());
        }
        ids.sort();
        Ok(ids)
    }

    fn spot(&self, app: &WxAppId, user: &UserId) -> Spot {
        let field = self.field.as_ref().map(|field| field.fill(app, user));
        (self.key.fill(app, user), field)
    }
}

/// Computes each row's result from the current values, and the openid wanted at each place; a later row overrides an
/// earlier one. An `Err` among the current values says why nothing can be written there.
pub(super) fn compare<'a>(
    rows: &'a [Row],
    spots: &'a [Spot],
    known: impl IntoIterator<Item = Result<Option<Vec<u8>>, String>>,
) -> (Vec<Put>, Wanted<'a>) {
    let mut came = Vec::with_capacity(rows.len());
    let mut wanted = Wanted::with_capacity(rows.len());
    for ((row, spot), known) in rows.iter().zip(spots).zip(known) {
        let known = match known {
            Ok(known) => known,
            Err(why) => {
                came.push(Put::Refused(why));
                continue;
            }
        };
        let entry = wanted.get_mut(spot);
        let before = match &entry {
            Some((_, openid)) => Some(openid.as_str().as_bytes()),
            None => known.as_deref(),
        };
        came.push(match before {
            None => Put::New,
            Some(before) if before == row.openid.as_str().as_bytes() => Put::Unchanged,
            Some(_) => Put::Changed,
        });
        match entry {
            Some((_, openid)) => *openid = &row.openid,
            None => {
                wanted.insert(spot, (known, &row.openid));
            }
        }
    }
    (came, wanted)
}

fn read((key, field): &Spot) -> Cmd {
    match field {
        None => Cmd::get(key),
        Some(field) => Cmd::hget(key, field),
    }
}

fn write((key, field): &Spot, openid: &OpenId) -> Cmd {
    match field {
        None => Cmd::set(key, openid.as_str()),
        Some(field) => Cmd::hset(key, field, openid.as_str()),
    }
}

/// Converts an answer that is a string or nil.
pub(super) fn bytes(value: Value) -> Result<Option<Vec<u8>>, LinkError> {
    match value {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes)),
        _ => Err(LinkError::Unanswered("its answer is no string".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_row_wins_over_an_earlier_one_and_over_what_is_there() {
        let row = |user: &str, openid: &str| Row {
            app: WxAppId::parse("wx1").unwrap(),
            user: UserId::parse(user).unwrap(),
            openid: OpenId::parse(openid).unwrap(),
        };
        let rows = [
            row("a", "o1"),
            row("b", "o1"),
            row("a", "o2"),
            row("c", "o1"),
            row("a", "o2"),
        ];
        let spots: Vec<Spot> = rows
            .iter()
            .map(|row| (row.user.as_str().to_owned(), None))
            .collect();
        let there = Some(b"o2".to_vec());
        let known = [
            Ok(there.clone()),
            Ok(None),
            Ok(there.clone()),
            Err("why".to_owned()),
            Ok(there.clone()),
        ];
        let (came, wanted) = compare(&rows, &spots, known);
        let refused = Put::Refused("why".to_owned());
        assert_eq!(
            came,
            [Put::Changed, Put::New, Put::Changed, refused, Put::Unchanged]
        );
        let expected = [
            (&spots[0], (there, &rows[2].openid)),
            (&spots[1], (None, &rows[1].openid)),
        ];
        assert_eq!(wanted, expected.into_iter().collect());
    }
}
