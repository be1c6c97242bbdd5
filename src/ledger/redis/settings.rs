//! Checks Redis settings under which it may lose data, on every master at the start. See docs/redis.md.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's enum is not ours to list"
)]

use redis::{FromRedisValue as _, Value};

use super::failed;
use crate::payouts::ports::StoreError;
use crate::redis::{LinkError, RedisLink};

pub(super) async fn warnings(link: &RedisLink) -> Result<Vec<String>, StoreError> {
    let mut warnings = Vec::new();
    for (setting, judge) in [
        ("maxmemory-policy", policy as fn(&str) -> Option<String>),
        ("appendonly", append_only),
        ("appendfsync", fsync),
    ] {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg(setting);
        match link.each_master(&command).await {
            Ok(answers) => {
                for value in answers.into_iter().filter_map(value_of) {
                    warnings.extend(judge(&value).filter(|warning| !warnings.contains(warning)));
                }
            }
            Err(LinkError::Refused { code, .. }) => {
                warnings.push(format!(
                    "{setting} could not be looked at ({code}): make sure that Redis does not forget"
                ));
            }
            Err(error @ (LinkError::NotSent(_) | LinkError::Unanswered(_) | LinkError::Stopped { .. })) => {
                return Err(failed(&error));
            }
        }
    }
    Ok(warnings)
}

fn policy(value: &str) -> Option<String> {
    (value != "noeviction").then(|| {
        format!("maxmemory-policy is {value}: Redis may evict claims when memory runs low; set noeviction")
    })
}

fn append_only(value: &str) -> Option<String> {
    (value != "yes")
        .then(|| format!("appendonly is {value}: a restart of Redis forgets claims; set appendonly yes"))
}

fn fsync(value: &str) -> Option<String> {
    (value == "no").then(|| {
        "appendfsync is no: a power loss forgets up to half a minute of claims; set everysec or always"
            .to_owned()
    })
}

/// The value in an answer to `CONFIG GET name`, in either protocol version.
fn value_of(answer: Value) -> Option<String> {
    match answer {
        Value::Map(pairs) => String::from_redis_value(pairs.into_iter().next()?.1).ok(),
        Value::Array(parts) => String::from_redis_value(parts.into_iter().nth(1)?).ok(),
        _ => None,
    }
}
