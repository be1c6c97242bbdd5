//! Found openids in process memory: bounded, for a time, and dropped at once when their key changes.
//!
//! A value that was read before its key changed, and comes in after the news of the change, must not stay. So every key
//! has a counter (many keys share one), an entry carries the counter's value from *before* it was asked for, and it counts
//! only as long as the counter is still the same: an invalidation merely counts up. "Not found" is never cached.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::time::Instant;

use payout_domain::ids::OpenId;

/// How many counters the keys share. An import that changes many keys drops some others with them, which costs a read.
const COUNTERS: usize = 1024;

/// `cache_ttl` and `cache_entries`; with either zero nothing is kept.
#[derive(Clone, Copy, Debug)]
pub struct CacheSettings {
    /// How long a value is kept.
    pub ttl: Duration,
    /// How many values are kept.
    pub entries: usize,
}

/// The cache.
pub struct OpenIdCache {
    entries: Option<Cache<Box<str>, Entry>>,
    ttl: Duration,
    begun: Instant,
    counters: Vec<AtomicU32>,
    hasher: RandomState,
    // 0: the news of changes do not come in, and nothing may be kept. Else a number that each new subscription raises.
    epoch: AtomicU32,
    last_epoch: AtomicU32,
}

/// There may be a hundred thousand of them, so that each byte counts.
#[derive(Clone)]
struct Entry {
    openid: OpenId,
    stamp: Stamp,
    /// In milliseconds since the cache began.
    at: u64,
}

/// What the world looked like before a value was asked for. Four thousand million changes while one value is kept are not to
/// be feared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    epoch: u32,
    counter: u32,
}

impl OpenIdCache {
    /// An empty cache, which keeps nothing until [`OpenIdCache::subscribed`].
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

    /// Whether it keeps anything at all, so that news of changes are worth having.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.entries.is_some()
    }

    /// The value of an entry (a key, or key and field), if it still counts. `key` is the Redis key.
    #[must_use]
    pub fn get(&self, key: &str, entry: &str) -> Option<OpenId> {
        let found = self.entries.as_ref()?.get(entry)?;
        let age = Duration::from_millis(self.now().saturating_sub(found.at));
        (found.stamp == self.stamp(key)? && age < self.ttl).then_some(found.openid)
    }

    /// To be taken before Redis is asked for the key; `None` where nothing may be kept now.
    #[must_use]
    pub fn stamp(&self, key: &str) -> Option<Stamp> {
        let epoch = self.epoch.load(Ordering::Acquire);
        (epoch != 0).then(|| Stamp {
            epoch,
            counter: self.counter(key).map_or(0, |c| c.load(Ordering::Acquire)),
        })
    }

    /// Keeps a value that was asked for after `stamp` was taken.
    pub fn put(&self, entry: String, openid: OpenId, stamp: Option<Stamp>) {
        if let (Some(entries), Some(stamp)) = (&self.entries, stamp) {
            let at = self.now();
            entries.insert(entry.into_boxed_str(), Entry { openid, stamp, at });
        }
    }

    /// The key has changed.
    pub fn invalidate(&self, key: &str) {
        if let Some(counter) = self.counter(key) {
            counter.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// News of changes come in from now on: values may be kept.
    pub fn subscribed(&self) {
        let epoch = self.last_epoch.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        self.epoch.store(std::cmp::max(epoch, 1), Ordering::Release);
    }

    /// News of changes may have been missed: nothing that is kept counts any more.
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
