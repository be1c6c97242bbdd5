//! Subscribes to changes of keys: opens a separate connection to every master, on which Redis broadcasts every change
//! under the key's prefix (`CLIENT TRACKING ON BCAST`). While any of these connections is missing, the cache stores
//! nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{PushKind, Value};
use tokio::sync::mpsc;

use super::cache::OpenIdCache;
use crate::redis::RedisLink;
use crate::redis::dial::{self, Node};
use crate::redis::masters::masters;
use crate::redis::url::Topology;

/// The pause before subscribing again.
const AGAIN: Duration = Duration::from_millis(500);
/// How often to check that the masters answer and are still the same. This is the longest time that a change may go
/// unnoticed after a cluster moved slots to a new master, or after a peer vanished silently.
const LOOK: Duration = Duration::from_secs(2);
/// Ask the sentinels only at every fifth check, because asking takes two connections. A master that they demote closes
/// its connections by itself.
const SENTINEL_LOOKS: u32 = 5;

/// Subscribes again and again, and never returns.
pub(super) async fn listen(link: RedisLink, prefix: String, cache: Arc<OpenIdCache>) {
    let mut told = None;
    loop {
        let why = subscribe(&link, &prefix, &cache, &mut told).await;
        cache.unsubscribed();
        // Log each reason once, not on every try: a Redis that forbids `CLIENT TRACKING` does so forever.
        if told.as_ref() != Some(&why) {
            tracing::warn!(
                redis = %link.url(), why,
                "changes of the mapping are not heard of; every lookup asks Redis until they are"
            );
            told = Some(why);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Subscribes to all masters and applies their invalidations, until a connection is lost or the masters change. Returns
/// the reason.
async fn subscribe(link: &RedisLink, prefix: &str, cache: &OpenIdCache, told: &mut Option<String>) -> String {
    let (sender, mut pushes) = mpsc::unbounded_channel();
    let masters = match masters(link).await {
        Ok(masters) => masters,
        Err(why) => return why,
    };
    let mut connections = Vec::new();
    for master in &masters {
        match follow(link, master, prefix, sender.clone()).await {
            Ok(connection) => connections.push(connection),
            Err(why) => return format!("{}:{}: {why}", master.0, master.1),
        }
    }
    cache.subscribed();
    if told.take().is_some() {
        tracing::info!(redis = %link.url(), "changes of the mapping are heard of again");
    }
    // Check concurrently: a slow check must not delay invalidations.
    let changed = watch(link, &masters, connections);
    tokio::pin!(changed);
    loop {
        tokio::select! {
            biased;
            push = pushes.recv() => match push {
                Some(push) if push.kind == PushKind::Invalidate => hand_on(&push.data, cache),
                Some(push) if push.kind == PushKind::Disconnection => return "a connection was lost".to_owned(),
                Some(_) => {}
                None => return "all connections were lost".to_owned(),
            },
            why = &mut changed => return why,
        }
    }
}

/// Keeps the connections until one of them is lost or the masters change. Returns the reason.
async fn watch(
    link: &RedisLink,
    known: &BTreeSet<Node>,
    mut connections: Vec<MultiplexedConnection>,
) -> String {
    let looks = match link.url().topology {
        Topology::Standalone | Topology::Cluster => 1,
        Topology::Sentinel { .. } => SENTINEL_LOOKS,
    };
    let mut left = looks;
    loop {
        tokio::time::sleep(LOOK).await;
        for connection in &mut connections {
            // Only a request detects a peer that vanished silently.
            if let Err(error) = redis::cmd("PING").query_async::<Value>(connection).await {
                return error.to_string();
            }
        }
        left = left.saturating_sub(1);
        if left > 0 {
            continue;
        }
        left = looks;
        match masters(link).await {
            Ok(now) if now == *known => {}
            Ok(_) => return "the masters are others now".to_owned(),
            Err(why) => return why,
        }
    }
}

/// An invalidation lists keys. Without a list it means all keys (`FLUSHALL`), which a new subscription number covers.
fn hand_on(data: &[Value], cache: &OpenIdCache) {
    match data.first() {
        Some(Value::Array(keys)) => {
            for key in keys {
                if let Value::BulkString(key) = key {
                    cache.invalidate(&String::from_utf8_lossy(key));
                }
            }
        }
        _ => cache.subscribed(),
    }
}

async fn follow(
    link: &RedisLink,
    master: &Node,
    prefix: &str,
    sender: mpsc::UnboundedSender<redis::PushInfo>,
) -> Result<MultiplexedConnection, String> {
    let mut connection =
        dial::node_connection(link.url(), link.options(), master, Some(Arc::new(sender))).await?;
    let mut tracking = redis::cmd("CLIENT");
    tracking.arg("TRACKING").arg("ON").arg("BCAST");
    if !prefix.is_empty() {
        tracking.arg("PREFIX").arg(prefix);
    }
    tracking
        .query_async::<Value>(&mut connection)
        .await
        .map_err(|error| error.to_string())?;
    Ok(connection)
}
