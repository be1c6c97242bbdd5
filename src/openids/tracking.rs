//! News of changed keys: a connection of its own to every master, on which Redis broadcasts what changes under the key's
//! prefix (`CLIENT TRACKING ON BCAST`). While any of them is missing, the cache keeps nothing.

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
/// How often it is looked at whether the masters are still there, and who they are: the longest that a change can stay
/// unheard where a cluster has just given slots to a new master, or a peer has vanished without a word.
const LOOK: Duration = Duration::from_secs(2);
/// Every so many looks the sentinels are asked, which takes two connections; a master they demote says so by closing.
const SENTINEL_LOOKS: u32 = 5;

/// Listens for ever.
pub(super) async fn listen(link: RedisLink, prefix: String, cache: Arc<OpenIdCache>) {
    let mut told = None;
    loop {
        let why = subscribe(&link, &prefix, &cache, &mut told).await;
        cache.unsubscribed();
        // Each reason once, not with every try: a Redis that forbids CLIENT TRACKING does so for ever.
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

/// Subscribes to all masters and hands on what they say, until one of them is lost or they are others; returns why.
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
    // Beside the news, not between them: a look that takes long must not hold up what has changed.
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

/// Holds the connections until one of them is lost or the masters are others; returns why.
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
            // A peer that vanished without a word is noticed by asking.
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

/// An invalidation names keys, or nothing: then all keys are meant (`FLUSHALL`).
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
