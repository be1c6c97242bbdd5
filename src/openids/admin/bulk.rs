//! Writes many rows with few commands: the fields of a hash with `HMGET` and `HSET`, and, where one server has all
//! keys, keys with `MGET`, `MSETNX` and `MSET`. Redis needs a fraction of the time that one command per row would take.
//!
//! `MGET` answers nil both for a missing key and for a key of another type, and `MSET` would overwrite the latter. So
//! rows that seem new are written with `MSETNX`, which writes nothing if any of the keys exists.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's enum is not ours to list"
)]

use std::collections::HashMap;

use redis::{Cmd, Value};

use super::{Mapping, Put, Spot, Wanted, bytes, compare};
use crate::openids::csv::Row;
use crate::redis::LinkError;
use crate::redis::url::Topology;

impl Mapping {
    /// Writes rows with few commands. `None` if that is impossible, or if Redis refused a command: the caller then
    /// writes each row on its own, which also shows which row is wrong and why.
    pub(super) async fn put_by_few(
        &self,
        rows: &[Row],
        spots: &[Spot],
    ) -> Result<Option<Vec<Put>>, LinkError> {
        let is_hash = self.field.is_some();
        if !is_hash && self.link.url().topology == Topology::Cluster {
            return Ok(None);
        }
        let known = if is_hash {
            self.read_fields(spots).await?
        } else {
            self.read_keys(spots).await?
        };
        let Some(known) = known else { return Ok(None) };
        let (came, wanted) = compare(rows, spots, known.into_iter().map(Ok));
        let is_written = if is_hash {
            self.write_fields(wanted).await?
        } else {
            self.write_keys(wanted).await?
        };
        Ok(is_written.then_some(came))
    }

    async fn read_keys(&self, spots: &[Spot]) -> Result<Option<Vec<Option<Vec<u8>>>>, LinkError> {
        let mut get = redis::cmd("MGET");
        for (key, _) in spots {
            get.arg(key);
        }
        let Some(answers) = self.unless_refused(vec![get]).await? else {
            return Ok(None);
        };
        let values = answers.into_iter().next().map_or(Ok(Vec::new()), list)?;
        complete(values, spots.len()).map(Some)
    }

    async fn write_keys(&self, wanted: Wanted<'_>) -> Result<bool, LinkError> {
        let (mut new, mut changed) = (redis::cmd("MSETNX"), redis::cmd("MSET"));
        let (mut has_new, mut has_changed) = (false, false);
        for ((key, _), (known, openid)) in wanted {
            match known {
                None => {
                    new.arg(key).arg(openid.as_str());
                    has_new = true;
                }
                Some(known) if known != openid.as_str().as_bytes() => {
                    changed.arg(key).arg(openid.as_str());
                    has_changed = true;
                }
                Some(_) => {}
            }
        }
        if has_new {
            match self.unless_refused(vec![new]).await?.as_deref() {
                Some([Value::Int(1)]) => {}
                _ => return Ok(false),
            }
        }
        Ok(!has_changed || self.unless_refused(vec![changed]).await?.is_some())
    }

    async fn read_fields(&self, spots: &[Spot]) -> Result<Option<Vec<Option<Vec<u8>>>>, LinkError> {
        let mut hashes: HashMap<&str, (Cmd, Vec<usize>)> = HashMap::new();
        for (at, (key, field)) in spots.iter().enumerate() {
            let (get, places) = hashes
                .entry(key)
                .or_insert_with(|| (command("HMGET", key), Vec::new()));
            get.arg(field);
            places.push(at);
        }
        let (commands, places): (Vec<_>, Vec<_>) = hashes.into_values().unzip();
        let Some(answers) = self.unless_refused(commands).await? else {
            return Ok(None);
        };
        let mut known: Vec<Option<Vec<u8>>> = vec![None; spots.len()];
        for (answer, places) in answers.into_iter().zip(places) {
            let values = complete(list(answer)?, places.len())?;
            for (value, at) in values.into_iter().zip(places) {
                if let Some(slot) = known.get_mut(at) {
                    *slot = value;
                }
            }
        }
        Ok(Some(known))
    }

    async fn write_fields(&self, wanted: Wanted<'_>) -> Result<bool, LinkError> {
        let mut hashes: HashMap<&str, Cmd> = HashMap::new();
        for ((key, field), (known, openid)) in wanted {
            if known.as_deref() != Some(openid.as_str().as_bytes()) {
                let set = hashes.entry(key).or_insert_with(|| command("HSET", key));
                set.arg(field).arg(openid.as_str());
            }
        }
        let answers = self.unless_refused(hashes.into_values().collect()).await?;
        Ok(answers.is_some())
    }

    /// The answers, or `None` if Redis refused any of the commands.
    async fn unless_refused(&self, commands: Vec<Cmd>) -> Result<Option<Vec<Value>>, LinkError> {
        let answers = self.link.all(commands).await?;
        let answers: Result<Vec<Value>, LinkError> = answers.into_iter().collect();
        Ok(answers.ok())
    }
}

fn command(name: &str, key: &str) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(key);
    command
}

fn list(value: Value) -> Result<Vec<Value>, LinkError> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(LinkError::Unanswered("its answer is no list".to_owned())),
    }
}

/// Converts exactly `count` strings, each of which may be missing.
fn complete(values: Vec<Value>, count: usize) -> Result<Vec<Option<Vec<u8>>>, LinkError> {
    if values.len() != count {
        let why = format!("{} values came for {count}", values.len());
        return Err(LinkError::Unanswered(why));
    }
    values.into_iter().map(bytes).collect()
}
