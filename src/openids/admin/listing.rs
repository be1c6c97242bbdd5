//! Lists the whole mapping in Redis page by page: `SCAN` on every master, `HSCAN` of every hash.

use std::io;

use redis::Cmd;

use super::key_parser::{KeyParser, ParsedKey};
use super::{Mapping, bytes};
use crate::openids::csv::Row;
use crate::redis::masters::masters;
use crate::redis::{LinkError, dial};
use payout_domain::ids::{OpenId, WxAppId};

/// `COUNT` of `SCAN` and `HSCAN`: about how many keys or fields they examine per call.
const PAGE: usize = 1000;

/// What the listing found at a place for a user's openid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A user's openid.
    Row(Row),
    /// Something outside the mapping: no app and user fill the template like this, or the key has another type.
    Other,
    /// Several pairs of app and user fill the template like this. Holds the key, and the field.
    Ambiguous(String),
    /// A user's place without a valid openid. Holds the key, and the field.
    NoOpenId(String),
}

/// Why the listing stopped early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListError {
    /// Neither the template nor the caller names the app.
    #[error("the template has no {{wxAppId}}")]
    NoApp,
    /// Redis did not answer.
    #[error("{0}")]
    Redis(String),
    /// The callback failed.
    #[error(transparent)]
    Stopped(io::Error),
}

impl From<LinkError> for ListError {
    fn from(error: LinkError) -> Self {
        Self::Redis(error.to_string())
    }
}

impl Mapping {
    /// Calls `each` for everything at places for openids, and stops at its first error. With `app`, lists only that
    /// app's users. The listing may or may not contain what changes meanwhile, and may contain a user twice.
    ///
    /// # Errors
    /// [`ListError`] when the listing stopped early.
    pub(crate) async fn each(
        &self,
        app: Option<WxAppId>,
        mut each: impl FnMut(Found) -> io::Result<()>,
    ) -> Result<(), ListError> {
        let parser = KeyParser::new(&self.key, self.field.as_ref(), app).ok_or(ListError::NoApp)?;
        if let (Some(key), Some(_)) = (parser.only_key(), &self.field) {
            return self.each_field(key, &parser, &mut each).await;
        }
        for master in masters(&self.link).await.map_err(ListError::Redis)? {
            let connected = dial::node_connection(self.link.url(), self.link.options(), &master, None).await;
            let mut connection = connected.map_err(ListError::Redis)?;
            let mut cursor = 0;
            loop {
                let mut scan = redis::cmd("SCAN");
                scan.arg(cursor)
                    .arg("MATCH")
                    .arg(parser.pattern())
                    .arg("COUNT")
                    .arg(PAGE);
                let page: Result<(u64, Vec<Vec<u8>>), _> = scan.query_async(&mut connection).await;
                let (next, keys) = page.map_err(|error| ListError::Redis(error.to_string()))?;
                let mut texts = Vec::with_capacity(keys.len());
                for key in keys {
                    match String::from_utf8(key) {
                        Ok(key) => texts.push(key),
                        Err(_) => {
                            each(Found::Other).map_err(ListError::Stopped)?;
                        }
                    }
                }
                if self.field.is_some() {
                    for key in texts {
                        self.each_field(&key, &parser, &mut each).await?;
                    }
                } else {
                    self.each_key(texts, &parser, &mut each).await?;
                }
                if next == 0 {
                    break;
                }
                cursor = next;
            }
        }
        Ok(())
    }

    async fn each_key(
        &self,
        keys: Vec<String>,
        parser: &KeyParser,
        each: &mut impl FnMut(Found) -> io::Result<()>,
    ) -> Result<(), ListError> {
        let values = self.link.all(keys.iter().map(Cmd::get).collect()).await?;
        for (key, value) in keys.into_iter().zip(values) {
            match value.and_then(bytes) {
                Ok(Some(value)) => {
                    each(found(parser.read(&key, None), &value, key)).map_err(ListError::Stopped)?
                }
                // Deleted since it was listed.
                Ok(None) => {}
                Err(LinkError::Refused { code, .. }) if code == "WRONGTYPE" => {
                    each(Found::Other).map_err(ListError::Stopped)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn each_field(
        &self,
        key: &str,
        parser: &KeyParser,
        each: &mut impl FnMut(Found) -> io::Result<()>,
    ) -> Result<(), ListError> {
        let mut cursor = 0;
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(key).arg(cursor).arg("COUNT").arg(PAGE);
            let page = self.link.read::<(u64, Vec<(Vec<u8>, Vec<u8>)>)>(&scan).await;
            let (next, fields) = match page {
                Err(LinkError::Refused { code, .. }) if code == "WRONGTYPE" => {
                    return each(Found::Other).map_err(ListError::Stopped);
                }
                page => page?,
            };
            for (field, value) in fields {
                let at = format!("{key} {}", String::from_utf8_lossy(&field));
                let found = match String::from_utf8(field) {
                    Ok(field) => found(parser.read(key, Some(&field)), &value, at),
                    Err(_) => Found::Other,
                };
                each(found).map_err(ListError::Stopped)?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }
}

fn found(reading: ParsedKey, value: &[u8], at: String) -> Found {
    let openid = std::str::from_utf8(value)
        .ok()
        .and_then(|text| OpenId::parse(text).ok());
    match (reading, openid) {
        (ParsedKey::User(app, user), Some(openid)) => Found::Row(Row { app, user, openid }),
        (ParsedKey::User(..), None) => Found::NoOpenId(at),
        (ParsedKey::Ambiguous, _) => Found::Ambiguous(at),
        (ParsedKey::Nobody, _) => Found::Other,
    }
}
