//! Commands to a cluster: redirects are followed here, because the library's own following cannot be had without its
//! repeating.
//!
//! The library has one budget (`retries`) for `MOVED`, for `ASK` and for sending again after a time-out or a lost
//! connection, when the first sending may have taken effect. So its budget is zero, and what a node has turned away
//! (and only that) is sent again here: the library looks at the cluster's slots anew whenever a node says `MOVED`.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's enum is not ours to list"
)]

use std::time::Duration;

use redis::aio::ConnectionLike as _;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::SingleNodeRoutingInfo;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};

/// The pauses before a command that was turned away is sent again: the first redirect is followed at once, then a slot
/// that is being moved, or a fail-over, gets a moment.
const PAUSES_MS: [u64; 5] = [0, 20, 50, 100, 200];

/// Sends a command to the node that has its key, wherever that is by now.
///
/// # Errors
/// When it was not answered, or was turned away once more after the last pause, then the library's error.
pub(super) async fn send(cluster: &mut ClusterConnection, command: &Cmd) -> RedisResult<Value> {
    let mut answered = cluster.req_packed_command(command).await;
    for pause in PAUSES_MS {
        let Err(error) = &answered else { return answered };
        if !was_turned_away(error) {
            return answered;
        }
        let asked = asked_node(error);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        answered = match asked {
            Some(node) => ask(cluster, command, node).await,
            None => cluster.req_packed_command(command).await,
        };
    }
    answered
}

/// Whether the node that got the command said that it did nothing, and another one or a later moment may do it. None of
/// these is ever the answer to the library's own look at the slots, which it may hand to a command that is under way.
pub(super) fn was_turned_away(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(kind) => matches!(
            kind,
            ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::ClusterDown
        ),
        _ => false,
    }
}

/// The node that a slot is being moved to, by an `ASK`.
fn asked_node(error: &RedisError) -> Option<SingleNodeRoutingInfo> {
    if error.kind() != ErrorKind::Server(ServerErrorKind::Ask) {
        return None;
    }
    let (address, _slot) = error.redirect_node()?;
    let (host, port) = address.rsplit_once(':')?;
    Some(SingleNodeRoutingInfo::ByAddress {
        host: host.to_owned(),
        port: port.parse().ok()?,
    })
}

/// `ASKING` counts for the very next command of its connection, so the two go in one piece.
async fn ask(
    cluster: &mut ClusterConnection,
    command: &Cmd,
    node: SingleNodeRoutingInfo,
) -> RedisResult<Value> {
    let mut pair = redis::pipe();
    pair.cmd("ASKING");
    pair.add_command(command.clone());
    let answers = cluster.route_pipeline(pair, 0, 2, node).await?;
    let answer = answers.into_iter().nth(1).unwrap_or(Value::Nil);
    answer.extract_error()
}
