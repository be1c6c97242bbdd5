//! Looks up openids in Redis: `GET key`, or `HGET key field`. See docs/openids.md.

use std::sync::Arc;

use async_trait::async_trait;

use super::cache::{CacheSettings, OpenIdCache};
use super::template::Template;
use super::tracking;
use crate::payouts::ports::{Identity, LookupError};
use crate::redis::RedisLink;
use payout_domain::ids::{OpenId, UserId, WxAppId};

/// The openid store in Redis.
pub struct RedisIdentity {
    link: RedisLink,
    key: Template,
    field: Option<Template>,
    cache: Arc<OpenIdCache>,
    tracking: Option<tokio::task::JoinHandle<()>>,
}

impl RedisIdentity {
    /// Looks up by `key`, or by `field` of the hash at `key`. Call this inside a tokio runtime: it starts a task that
    /// listens for changes.
    ///
    /// # Errors
    /// The reason, when a template cannot be parsed.
    pub fn new(
        link: RedisLink,
        key: &str,
        field: Option<&str>,
        cache: CacheSettings,
    ) -> Result<Self, String> {
        let key = Template::parse(key)?;
        let field = field.map(Template::parse).transpose()?;
        let cache = Arc::new(OpenIdCache::new(cache));
        let tracking = cache.is_used().then(|| {
            tokio::spawn(tracking::listen(
                link.clone(),
                key.prefix().to_owned(),
                Arc::clone(&cache),
            ))
        });
        Ok(Self {
            link,
            key,
            field,
            cache,
            tracking,
        })
    }
}

impl Drop for RedisIdentity {
    fn drop(&mut self) {
        if let Some(tracking) = &self.tracking {
            tracking.abort();
        }
    }
}

#[async_trait]
impl Identity for RedisIdentity {
    async fn openid(&self, app: &WxAppId, user: &UserId) -> Result<Option<OpenId>, LookupError> {
        let key = self.key.fill(app, user);
        let field = self.field.as_ref().map(|field| field.fill(app, user));
        // Neither id can contain NUL, so it separates key and field unambiguously.
        let entry = field
            .as_ref()
            .map_or_else(|| key.clone(), |field| format!("{key}\0{field}"));
        if let Some(openid) = self.cache.get(&key, &entry) {
            return Ok(Some(openid));
        }
        let stamp = self.cache.stamp(&key);
        let command = match &field {
            None => redis::Cmd::get(&key),
            Some(field) => redis::Cmd::hget(&key, field),
        };
        let found: Option<Vec<u8>> = self
            .link
            .read(&command)
            .await
            .map_err(|error| LookupError::Unreachable(error.to_string()))?;
        let Some(found) = found else { return Ok(None) };
        // Bytes that are not UTF-8 are not an openid either.
        let found = String::from_utf8_lossy(&found);
        let openid = OpenId::parse(&found).map_err(|rule| LookupError::NotAnOpenId {
            key: format!("{} of user {user}", self.key.prefix()),
            rule,
        })?;
        self.cache.put(entry, openid.clone(), stamp);
        Ok(Some(openid))
    }

    async fn ready(&self) -> Result<(), LookupError> {
        self.link
            .ready()
            .await
            .map_err(|error| LookupError::Unreachable(error.to_string()))
    }
}
