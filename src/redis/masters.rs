//! Lists the masters, and every key on them.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's enum is not ours to list"
)]

use std::collections::BTreeSet;

use redis::Value;

use super::RedisLink;
use super::dial::{self, Node};
use super::error::LinkError;
use super::url::Topology;

/// `COUNT` of `SCAN`: about how many keys it examines per call.
const PAGE: usize = 1000;

/// The masters: one server, or several in a cluster.
///
/// # Errors
/// The reason, when no sentinel or node names them.
pub async fn masters(link: &RedisLink) -> Result<BTreeSet<Node>, String> {
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
                if host.is_empty() {
                    return None;
                }
                let Value::Int(port) = node.get(1)? else {
                    return None;
                };
                Some((host, u16::try_from(*port).ok()?))
            };
            // Fail on an unreadable entry: the caller would otherwise miss that master's changes without noticing.
            let masters: Option<BTreeSet<Node>> = slots.iter().map(master_of).collect();
            let masters = masters.ok_or("the cluster names a master without an address")?;
            if masters.is_empty() {
                Err("the cluster has no masters".to_owned())
            } else {
                Ok(masters)
            }
        }
    }
}

impl RedisLink {
    /// Calls `each` with every key on every master that begins with `prefix`. `SCAN` may or may not report keys that
    /// change meanwhile, and may report a key twice.
    ///
    /// # Errors
    /// [`LinkError`] when one of the masters does not answer.
    pub async fn keys(&self, prefix: &str, mut each: impl FnMut(Vec<u8>)) -> Result<(), LinkError> {
        let pattern = pattern(prefix);
        for master in masters(self).await.map_err(|why| self.not_sent(&why))? {
            let connected = dial::node_connection(self.url(), self.options(), &master, None).await;
            let mut connection = connected.map_err(|why| self.not_sent(&why))?;
            let mut cursor = 0_u64;
            loop {
                let mut scan = redis::cmd("SCAN");
                scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(PAGE);
                let page: Result<(u64, Vec<Vec<u8>>), _> = scan.query_async(&mut connection).await;
                let (next, keys) = page.map_err(|error| LinkError::Unanswered(error.to_string()))?;
                keys.into_iter().for_each(&mut each);
                if next == 0 {
                    break;
                }
                cursor = next;
            }
        }
        Ok(())
    }
}

/// A `MATCH` pattern of `SCAN` for keys that begin with `prefix`.
fn pattern(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len().saturating_add(1));
    for letter in prefix.chars() {
        if matches!(letter, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern.push('*');
    pattern
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_prefix_is_taken_letter_by_letter() {
        assert_eq!(super::pattern("a[1]*?\\:"), r"a\[1\]\*\?\\:*");
    }
}
