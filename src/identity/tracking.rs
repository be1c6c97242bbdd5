//! News of changed keys: a connection of its own to every master, on which Redis broadcasts what changes under the key's
//! prefix (`CLIENT TRACKING ON BCAST`). While any of them is missing, the cache keeps nothing.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's enum is not ours to list"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{PushKind, Value};
use tokio::sync::mpsc;

use super::cache::OpenIdCache;
use crate::redis_link::RedisLink;
use crate::redis_link::dial::{self, Node};
use crate::redis_link::url::Topology;

/// The pause before subscribing again.
const AGAIN: Duration = Duration::from_millis(500);
/// How often it is looked at who the masters are, and whether they are still there.
const LOOK: Duration = Duration::from_secs(5);

/// Listens for ever.
pub(super) async fn listen(link: RedisLink, prefix: String, cache: Arc<OpenIdCache>) {
    loop {
        let why = subscribe(&link, &prefix, &cache).await;
        cache.unsubscribed();
        tracing::debug!(redis = %link.url(), why, "changes of the mapping are not heard of; openids are not cached");
        tokio::time::sleep(AGAIN).await;
    }
}

/// Subscribes to all masters and hands on what they say, until one of them is lost or they are others; returns why.
async fn subscribe(link: &RedisLink, prefix: &str, cache: &OpenIdCache) -> String {
    let (sender, mut pushes) = mpsc::unbounded_channel();
    let masters = match masters(link).await {
        Ok(masters) => masters,
        Err(why) => return why,
    };
    let mut connections = Vec::new();
    for master in &masters {
        match follow(link, master, prefix, sender.clone()).await {
            Ok(connection) => connections.push(connection),
            Err(why) => return why,
        }
    }
    cache.subscribed();
    let mut look = tokio::time::interval(LOOK);
    look.reset();
    loop {
        tokio::select! {
            push = pushes.recv() => match push {
                Some(push) if push.kind == PushKind::Invalidate => hand_on(&push.data, cache),
                Some(push) if push.kind == PushKind::Disconnection => return "a connection was lost".to_owned(),
                Some(_) => {}
                None => return "all connections were lost".to_owned(),
            },
            _ = look.tick() => {
                for connection in &mut connections {
                    // A peer that vanished without a word is noticed by asking.
                    if let Err(error) = redis::cmd("PING").query_async::<Value>(connection).await {
                        return error.to_string();
                    }
                }
                match self::masters(link).await {
                    Ok(now) if now == masters => {}
                    Ok(_) => return "the masters are others now".to_owned(),
                    Err(why) => return why,
                }
            }
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
    let mut connection = dial::node_connection(link.url(), link.options(), master, Some(sender)).await?;
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

async fn masters(link: &RedisLink) -> Result<BTreeSet<Node>, String> {
    match &link.url().topology {
        Topology::Standalone | Topology::Sentinel { .. } => {
            Ok([dial::master(link.url(), link.options()).await?]
                .into_iter()
                .collect())
        }
        Topology::Cluster => {
            let mut slots = redis::cmd("CLUSTER");
            slots.arg("SLOTS");
            let slots: Vec<Vec<Value>> = link.read(&slots).await.map_err(|error| error.to_string())?;
            let master_of = |range: &Vec<Value>| -> Option<Node> {
                let Some(Value::Array(node)) = range.get(2) else {
                    return None;
                };
                let host = match node.first()? {
                    Value::BulkString(host) => String::from_utf8_lossy(host).into_owned(),
                    Value::SimpleString(host) => host.clone(),
                    _ => return None,
                };
                let Value::Int(port) = node.get(1)? else {
                    return None;
                };
                Some((host, u16::try_from(*port).ok()?))
            };
            let masters: BTreeSet<Node> = slots.iter().filter_map(master_of).collect();
            if masters.is_empty() {
                Err("the cluster has no masters".to_owned())
            } else {
                Ok(masters)
            }
        }
    }
}
