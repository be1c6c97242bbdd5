//! Caches openids in memory: a bounded number, for a limited time, and only until their key changes.
//!
//! A value that Redis read before its key changed, but that arrives after the invalidation, must not stay. So each key
//! has a counter, which it shares with other keys. An entry stores the counter's value from *before* the read, and is
//! valid only while the counter has that value: an invalidation only increments the counter. The cache never stores
//! "not found".

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::time::Instant;

use payout_domain::ids::OpenId;

/// How many counters the keys share. A change of one key also invalidates the other keys of its counter, which costs a
/// read each.
const COUNTERS: usize = 1024;

/// `cache_ttl` and `cache_entries`. If either is zero, the cache is off.
#[derive(Clone, Copy, Debug)]
pub struct CacheSettings {
    /// How long an entry is valid.
    pub ttl: Duration,
    /// How many entries the cache holds.
    pub entries: usize,
}

/// The cache of openids.
pub struct OpenIdCache {
    entries: Option<Cache<Box<str>, Entry>>,
    ttl: Duration,
    begun: Instant,
    counters: Vec<AtomicU32>,
    hasher: RandomState,
    // 0: the sidecar receives no invalidations, so the cache must not store anything. Otherwise the number of the
    // subscription.
    epoch: AtomicU32,
    last_epoch: AtomicU32,
}

/// A cache may hold a hundred thousand entries, so each byte counts.
#[derive(Clone)]
struct Entry {
    openid: OpenId,
    stamp: Stamp,
    /// Milliseconds since the cache was made.
    at: u64,
}

/// The state of the invalidations before a read. A counter wraps after four thousand million changes, which cannot
/// happen within one `cache_ttl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    epoch: u32,
    counter: u32,
}

impl OpenIdCache {
    /// An empty cache. It stores nothing until [`OpenIdCache::subscribed`].
    #[must_use]
    pub fn new(settings: CacheSettings) -> Self {
        let keeps = settings.entries > 0 && !settings.ttl.is_zero();
        Self {
            entries: keeps.then(|| Cache::new(settings.entries)),
            ttl: settings.ttl,
            begun: Instant::now(),
            counters: (0..COUNTERS).map(|_| AtomicU32::new(0)).collect(),
            hasher: RandomState::new(),
            epoch: AtomicU32::new(0),
            last_epoch: AtomicU32::new(0),
        }
    }

    /// Whether the cache is on, so that a subscription to changes is worthwhile.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.entries.is_some()
    }

    /// The openid of an entry (a key, or a key with its field) if it is still valid. `key` is the Redis key.
    #[must_use]
    pub fn get(&self, key: &str, entry: &str) -> Option<OpenId> {
        let found = self.entries.as_ref()?.get(entry)?;
        let age = Duration::from_millis(self.now().saturating_sub(found.at));
        (found.stamp == self.stamp(key)? && age < self.ttl).then_some(found.openid)
    }

    /// Take this before reading the key from Redis. `None` if the cache must not store anything now.
    #[must_use]
    pub fn stamp(&self, key: &str) -> Option<Stamp> {
        let epoch = self.epoch.load(Ordering::Acquire);
        (epoch != 0).then(|| Stamp {
            epoch,
            counter: self.counter(key).map_or(0, |c| c.load(Ordering::Acquire)),
        })
    }

    /// Stores a value that was read after `stamp` was taken.
    pub fn put(&self, entry: String, openid: OpenId, stamp: Option<Stamp>) {
        if let (Some(entries), Some(stamp)) = (&self.entries, stamp) {
            let at = self.now();
            entries.insert(entry.into_boxed_str(), Entry { openid, stamp, at });
        }
    }

    /// Invalidates the entries of a key that has changed.
    pub fn invalidate(&self, key: &str) {
        if let Some(counter) = self.counter(key) {
            counter.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// A subscription to changes has begun: the cache may store values, and all older entries are invalid.
    pub fn subscribed(&self) {
        let epoch = self.last_epoch.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        self.epoch.store(std::cmp::max(epoch, 1), Ordering::Release);
    }

    /// The subscription has ended, so changes may be missed: all entries are invalid.
    pub fn unsubscribed(&self) {
        self.epoch.store(0, Ordering::Release);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn counter(&self, key: &str) -> Option<&AtomicU32> {
        let hash = self.hasher.hash_one(key);
        let at = usize::try_from(hash & 0xFFFF_FFFF)
            .unwrap_or(0)
            .checked_rem(COUNTERS)?;
        self.counters.get(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> OpenIdCache {
        OpenIdCache::new(CacheSettings {
            ttl: Duration::from_secs(60),
            entries: 10,
        })
    }

    fn openid() -> OpenId {
        OpenId::parse("oX12abcdefghijk9f").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_for_its_time_and_no_longer() {
        let cache = cache();
        cache.subscribed();
        cache.put("e".into(), openid(), cache.stamp("k"));
        tokio::time::advance(Duration::from_millis(59_999)).await;
        assert_eq!(cache.get("k", "e"), Some(openid()));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(cache.get("k", "e"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_drops_what_was_read_before_it_even_when_it_comes_in_later() {
        let cache = cache();
        cache.subscribed();
        let before = cache.stamp("k");
        cache.invalidate("k");
        cache.put("e".into(), openid(), before);
        assert_eq!(cache.get("k", "e"), None);
        cache.put("e".into(), openid(), cache.stamp("k"));
        assert_eq!(cache.get("k", "e"), Some(openid()));
        cache.invalidate("k");
        assert_eq!(cache.get("k", "e"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn without_news_of_changes_nothing_is_kept() {
        let cache = cache();
        assert_eq!(cache.stamp("k"), None);
        cache.put("e".into(), openid(), cache.stamp("k"));
        cache.subscribed();
        assert_eq!(cache.get("k", "e"), None);
        let before = cache.stamp("k");
        cache.unsubscribed();
        cache.put("e".into(), openid(), before);
        assert_eq!(cache.get("k", "e"), None);
        cache.subscribed();
        assert_eq!(
            cache.get("k", "e"),
            None,
            "it was asked for under an earlier subscription"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn is_bounded_and_can_be_off() {
        let cache = cache();
        cache.subscribed();
        for n in 0..1000 {
            cache.put(format!("e{n}"), openid(), cache.stamp("k"));
        }
        let kept = (0..1000)
            .filter(|n| cache.get("k", &format!("e{n}")).is_some())
            .count();
        assert!((1..=10).contains(&kept), "{kept}");
        for settings in [(60, 0), (0, 10)] {
            let off = OpenIdCache::new(CacheSettings {
                ttl: Duration::from_secs(settings.0),
                entries: settings.1,
            });
            off.subscribed();
            off.put("e".into(), openid(), off.stamp("k"));
            assert!(off.get("k", "e").is_none() && !off.is_used());
        }
    }
}
