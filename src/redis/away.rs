//! Tracks which parts of a cluster do not answer, so that their commands do not delay others. The `redis` library has
//! one connection to a cluster, and while that connection looks for a lost node it answers nobody.
//!
//! A part is all keys with one hash tag, which share one slot. The first command that gets no answer marks its part.
//! The link then refuses commands to that part without sending them, and a separate connection checks once a second
//! whether some node answers for the part again, perhaps after a fail-over. Then that connection replaces the shared
//! one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redis::{Arg, Cmd};

/// The parts that do not answer, each with one of its keys.
#[derive(Default)]
pub(super) struct Away {
    parts: Mutex<Parts>,
}

#[derive(Default)]
struct Parts {
    keys: HashMap<Vec<u8>, Vec<u8>>,
    is_followed: bool,
}

/// The part of a cluster that holds a command's key.
pub(super) struct Part {
    tag: Vec<u8>,
    key: Vec<u8>,
}

impl Part {
    /// The part of the command's first key; `None` if the command has no key.
    pub(super) fn of(command: &Cmd) -> Option<Self> {
        let word = |at: usize| match command.args_iter().nth(at) {
            Some(Arg::Simple(word)) => Some(word),
            Some(_) | None => None,
        };
        let key = match word(0)? {
            b"EVALSHA" | b"EVAL" => word(3)?,
            b"PING" | b"CONFIG" | b"SCRIPT" | b"SCAN" | b"INFO" | b"ROLE" | b"WAIT" | b"CLUSTER" => {
                return None;
            }
            _ => word(1)?,
        };
        Some(Self {
            tag: tag_of(key).to_vec(),
            key: key.to_vec(),
        })
    }
}

/// The text between the first `{` and the next `}` if it is not empty, otherwise the whole key. Source: Redis Cluster
/// specification, "Hash tags".
fn tag_of(key: &[u8]) -> &[u8] {
    let inner = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = key.get(open.saturating_add(1)..)?;
        let close = rest.iter().position(|byte| *byte == b'}')?;
        rest.get(..close).filter(|tag| !tag.is_empty())
    });
    inner.unwrap_or(key)
}

impl Away {
    pub(super) fn has(&self, part: &Part) -> bool {
        self.parts().keys.contains_key(&part.tag)
    }

    /// Marks a part. `true` means that no task checks the marked parts yet: the caller must start one.
    pub(super) fn mark(&self, part: Part) -> bool {
        let mut parts = self.parts();
        parts.keys.insert(part.tag, part.key);
        !std::mem::replace(&mut parts.is_followed, true)
    }

    /// One key of each marked part.
    pub(super) fn keys(&self) -> Vec<Vec<u8>> {
        self.parts().keys.values().cloned().collect()
    }

    /// Unmarks the part of this key. `true` means that no marked part is left: the task that checks them must end.
    pub(super) fn is_back(&self, key: &[u8]) -> bool {
        let mut parts = self.parts();
        parts.keys.remove(tag_of(key));
        if parts.keys.is_empty() {
            parts.is_followed = false;
        }
        parts.keys.is_empty()
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_what_shares_a_hash_tag() {
        for (key, tag) in [
            ("payout:{19}:log", "19"),
            ("payout:{19}:order:{20}", "19"),
            ("payout:ledger", "payout:ledger"),
            ("{}x", "{}x"),
            ("{x", "{x"),
        ] {
            assert_eq!(tag_of(key.as_bytes()), tag.as_bytes(), "{key}");
        }
        let mut script = redis::cmd("EVALSHA");
        script.arg("sha").arg(1).arg("payout:{19}:log").arg("x");
        assert_eq!(Part::of(&script).unwrap().tag, b"19");
        assert_eq!(
            Part::of(redis::cmd("HGET").arg("{20}").arg("r")).unwrap().tag,
            b"20"
        );
        assert!(Part::of(&redis::cmd("PING")).is_none());
    }

    #[test]
    fn one_looks_after_all_parts_that_are_away() {
        let away = Away::default();
        let part = |key: &str| Part::of(redis::cmd("GET").arg(key)).unwrap();
        assert!(away.mark(part("{19}a")));
        assert!(!away.mark(part("{20}a")) && !away.mark(part("{19}b")));
        assert!(away.has(&part("{19}c")) && !away.has(&part("{21}a")));
        assert_eq!(away.keys().len(), 2);
        assert!(!away.is_back(b"{19}b"));
        assert!(away.is_back(b"{20}a"));
        assert!(away.mark(part("{19}a")), "the next one is looked after anew");
    }
}
