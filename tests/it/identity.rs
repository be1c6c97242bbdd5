//! Lookup of openids by user id in Redis: string and hash keys, single servers, Sentinel and Cluster, TLS, ACLs, and
//! cache invalidation.

use std::time::Duration;

use payout_domain::ids::{UserId, WxAppId};
use payout_sidecar::openids::cache::CacheSettings;
use payout_sidecar::openids::redis::RedisIdentity;
use payout_sidecar::payouts::ports::{Identity, LookupError};
use payout_sidecar::redis::{Options, RedisLink, RedisUrl};

use crate::ledger::link;
use test_support::redis::{Cluster, Redis, Sentinels};
use test_support::until;

const CACHE: CacheSettings = CacheSettings {
    ttl: Duration::from_secs(60),
    entries: 100,
};
const KEY: &str = "openid:{wxAppId}:{userId}";

async fn ask(identity: &RedisIdentity, user: &str) -> Option<String> {
    let (app, user) = (WxAppId::parse("wx1").unwrap(), UserId::parse(user).unwrap());
    identity
        .openid(&app, &user)
        .await
        .unwrap()
        .map(|openid| openid.as_str().to_owned())
}

/// Waits until a lookup no longer reaches Redis: invalidation messages arrive and the cache keeps the value.
async fn is_cached(redis: &Redis, identity: &RedisIdentity, command: &str) {
    until("the value is cached", async || {
        redis.cli(&["CONFIG", "RESETSTAT"]);
        for _ in 0..5 {
            ask(identity, "u").await;
        }
        redis.calls(command) == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_string_key_is_cached_until_redis_says_that_it_changed() {
    let redis = Redis::start();
    redis.cli(&["SET", "openid:wx1:u", "o1"]);
    let identity = RedisIdentity::new(link(&redis.url()), KEY, None, CACHE).unwrap();
    assert_eq!(ask(&identity, "u").await.as_deref(), Some("o1"));
    is_cached(&redis, &identity, "get").await;
    redis.cli(&["SET", "openid:wx1:u", "o2"]);
    until("the change is seen", async || {
        ask(&identity, "u").await.as_deref() == Some("o2")
    })
    .await;
    is_cached(&redis, &identity, "get").await;
    redis.cli(&["DEL", "openid:wx1:u"]);
    until("the deletion is seen", async || {
        ask(&identity, "u").await.is_none()
    })
    .await;
    redis.cli(&["SET", "openid:wx1:u", "o3"]);
    assert_eq!(
        ask(&identity, "u").await.as_deref(),
        Some("o3"),
        "\"not found\" is never kept"
    );
    is_cached(&redis, &identity, "get").await;
    redis.cli(&["FLUSHALL"]);
    until("a flush is seen", async || ask(&identity, "u").await.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_field_is_cached_until_its_key_changes() {
    let redis = Redis::start();
    redis.cli(&["HSET", "openids:wx1", "u", "o1", "v", "o2"]);
    let identity =
        RedisIdentity::new(link(&redis.url()), "openids:{wxAppId}", Some("{userId}"), CACHE).unwrap();
    assert_eq!(
        (
            ask(&identity, "u").await.as_deref(),
            ask(&identity, "v").await.as_deref()
        ),
        (Some("o1"), Some("o2"))
    );
    is_cached(&redis, &identity, "hget").await;
    redis.cli(&["HSET", "openids:wx1", "u", "o9"]);
    until("the change is seen", async || {
        ask(&identity, "u").await.as_deref() == Some("o9")
    })
    .await;
    assert_eq!(ask(&identity, "v").await.as_deref(), Some("o2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_openid_is_an_error_and_not_an_openid() {
    let redis = Redis::start();
    let identity = RedisIdentity::new(link(&redis.url()), KEY, None, CACHE).unwrap();
    let (app, user) = (
        WxAppId::parse("wx1").unwrap(),
        UserId::parse("user-123456789").unwrap(),
    );
    for bad in ["", "o 1", "用户", &"o".repeat(65)] {
        redis.cli(&["SET", "openid:wx1:user-123456789", bad]);
        let error = identity.openid(&app, &user).await.unwrap_err();
        assert!(
            matches!(error, LookupError::NotAnOpenId { .. }),
            "{bad:?}: {error}"
        );
        assert!(!error.to_string().contains("user-123456789"), "{error}");
    }
    redis.cli(&["DEL", "openid:wx1:user-123456789"]);
    redis.cli(&["LPUSH", "openid:wx1:user-123456789", "o1"]);
    let error = identity.openid(&app, &user).await.unwrap_err();
    assert!(error.to_string().contains("WRONGTYPE"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_is_asked_and_heard_again() {
    let mut redis = Redis::start();
    redis.cli(&["SET", "openid:wx1:u", "o1"]);
    let identity = RedisIdentity::new(link(&redis.url()), KEY, None, CACHE).unwrap();
    is_cached(&redis, &identity, "get").await;
    redis.kill();
    let (app, user) = (WxAppId::parse("wx1").unwrap(), UserId::parse("u").unwrap());
    until("nothing is believed any more", async || {
        identity.openid(&app, &user).await.is_err()
    })
    .await;
    redis.restart();
    until("asked again", async || identity.openid(&app, &user).await.is_ok()).await;
    is_cached(&redis, &identity, "get").await;
    redis.cli(&["SET", "openid:wx1:u", "o2"]);
    until("the change is heard", async || {
        ask(&identity, "u").await.as_deref() == Some("o2")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_every_master_is_heard() {
    let cluster = Cluster::start();
    let identity = RedisIdentity::new(link(&cluster.url()), KEY, None, CACHE).unwrap();
    for n in 0..20 {
        cluster.set(&format!("openid:wx1:u{n}"), "o1");
    }
    // On all three masters, lookups see every change, whether or not the value was cached.
    for round in 2..4 {
        for n in 0..20 {
            assert!(ask(&identity, &format!("u{n}")).await.is_some());
        }
        for n in 0..20 {
            cluster.set(&format!("openid:wx1:u{n}"), &format!("o{round}"));
        }
        let new = format!("o{round}");
        for n in 0..20 {
            until("the change is seen", async || {
                ask(&identity, &format!("u{n}")).await.as_deref() == Some(&new)
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_fail_over_the_new_master_is_asked() {
    let mut sentinels = Sentinels::start();
    sentinels.servers[0].cli(&["SET", "openid:wx1:u", "o1"]);
    let identity = RedisIdentity::new(link(&sentinels.url()), KEY, None, CACHE).unwrap();
    assert_eq!(ask(&identity, "u").await.as_deref(), Some("o1"));
    sentinels.fail_over();
    let (app, user) = (WxAppId::parse("wx1").unwrap(), UserId::parse("u").unwrap());
    until("the new master answers", async || {
        identity.openid(&app, &user).await.is_ok()
    })
    .await;
    sentinels.servers[1].cli(&["SET", "openid:wx1:u", "o2"]);
    until("and is heard", async || {
        ask(&identity, "u").await.as_deref() == Some("o2")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_an_acl_user() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(path("cert"), certificate.pem()).unwrap();
    std::fs::write(path("key"), key.serialize_pem()).unwrap();
    let acl = "user payout on >pass~word +@all ~* &*";
    std::fs::write(path("acl"), format!("{acl}\nuser default off\n")).unwrap();
    let redis = Redis::start_with(
        &[
            "--tls-port",
            "{port}",
            "--tls-cert-file",
            &path("cert"),
            "--tls-key-file",
            &path("key"),
            "--tls-ca-cert-file",
            &path("cert"),
            "--tls-auth-clients",
            "no",
            "--aclfile",
            &path("acl"),
        ],
        None,
    );
    let link = |user: &str, ca_pem: Option<String>| {
        let url = RedisUrl::parse(&format!("rediss://{user}@localhost:{}", redis.port)).unwrap();
        let second = Duration::from_secs(2);
        RedisLink::new(
            url,
            Options {
                connect_timeout: second,
                response_timeout: second,
                ca_pem,
            },
        )
    };
    let good = link("payout:pass~word", Some(certificate.pem()));
    good.query::<()>(redis::cmd("SET").arg("openid:wx1:u").arg("o1"))
        .await
        .unwrap();
    let identity = RedisIdentity::new(good, KEY, None, CACHE).unwrap();
    assert_eq!(ask(&identity, "u").await.as_deref(), Some("o1"));
    let wrong = link("payout:wrong", Some(certificate.pem()))
        .ready()
        .await
        .unwrap_err()
        .to_string();
    assert!(!wrong.contains("wrong"), "no password in an error: {wrong}");
    assert!(
        link("payout:pass~word", None).ready().await.is_err(),
        "the public roots do not know this server"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_are_no_openid() {
    let redis = Redis::start();
    let link = link(&redis.url());
    link.query::<()>(redis::cmd("SET").arg("openid:wx1:u").arg(&b"o\xFF1"[..]))
        .await
        .unwrap();
    let identity = RedisIdentity::new(link, KEY, None, CACHE).unwrap();
    let (app, user) = (WxAppId::parse("wx1").unwrap(), UserId::parse("u").unwrap());
    let error = identity.openid(&app, &user).await.unwrap_err();
    assert!(matches!(error, LookupError::NotAnOpenId { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_news_of_changes_every_lookup_asks_redis() {
    let redis = Redis::start();
    redis.cli(&["SET", "openid:wx1:u", "o1"]);
    redis.cli(&["ACL", "SETUSER", "default", "-client|tracking"]);
    let identity = RedisIdentity::new(link(&redis.url()), KEY, None, CACHE).unwrap();
    let refused = || redis.cli(&["INFO", "errorstats"]).contains("errorstat_NOPERM");
    until("the subscription is refused", async || refused()).await;
    redis.cli(&["CONFIG", "RESETSTAT"]);
    for _ in 0..5 {
        assert_eq!(ask(&identity, "u").await.as_deref(), Some("o1"));
    }
    assert_eq!(redis.calls("get"), 5);
    redis.cli(&["ACL", "SETUSER", "default", "+client|tracking"]);
    is_cached(&redis, &identity, "get").await;
}
