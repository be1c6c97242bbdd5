//! Sends commands to a cluster and follows redirects here, because the library cannot follow them without also
//! repeating commands.
//!
//! The library has one budget (`retries`) for `MOVED`, for `ASK` and for a repetition after a timeout or a lost
//! connection, when the first command may have taken effect. So this code sets that budget to zero and repeats only
//! what a node refused. The library refreshes the cluster's slots by itself whenever a node answers `MOVED`.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's enum is not ours to list"
)]

use std::time::Duration;

use redis::aio::ConnectionLike as _;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::SingleNodeRoutingInfo;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};

/// The pauses before repeating a refused command. The first redirect is followed at once; later pauses give time to a
/// slot migration or a fail-over.
const PAUSES_MS: [u64; 5] = [0, 20, 50, 100, 200];

/// Sends a command to the node that holds its key.
///
/// # Errors
/// The library's error, when the command got no answer, or a node refused it again after the last pause.
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

/// Whether the node said that it did nothing, and that another node or a later moment may do it. `CLUSTER SLOTS` never
/// returns any of these, so they cannot be another command's error (see `error.rs`).
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

/// The node that an `ASK` names: the slot is moving there.
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

/// `ASKING` affects only the next command on its connection, so send both in one pipeline.
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
