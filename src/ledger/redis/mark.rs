//! Whether Redis still has what it was given: a mark that it must not lose.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::{Cmd, Value};

use super::failed;
use crate::payout::ports::StoreError;
use crate::redis_link::RedisLink;

/// A key that is made once and never changes. If it was seen and is gone, Redis has forgotten (a restart without its
/// data, a flush, an empty server under the same name), and with it, perhaps, which orders are paid.
pub(super) struct Mark {
    key: String,
    seen: OnceLock<String>,
    reset: AtomicBool,
}

impl Mark {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            key: format!("{prefix}ledger"),
            seen: OnceLock::new(),
            reset: AtomicBool::new(false),
        }
    }

    /// Makes the mark where this process sees none for the first time; compares it from then on.
    pub(super) async fn check(&self, link: &RedisLink) -> Result<(), StoreError> {
        self.refuse_if_reset()?;
        let mut found = self.get(link).await?;
        if found.is_none() && self.seen.get().is_none() {
            let mut cmd = redis::cmd("SET");
            cmd.arg(&self.key).arg(new_mark()?).arg("NX");
            // Made twice it stays the first one.
            link.read::<Value>(&cmd).await.map_err(|error| failed(&error))?;
            found = self.get(link).await?;
        }
        let is_same = match (&found, self.seen.get()) {
            (Some(found), None) => self.seen.get_or_init(|| found.clone()) == found,
            (Some(found), Some(seen)) => found == seen,
            (None, _) => false,
        };
        if !is_same {
            self.reset.store(true, Ordering::Relaxed);
            tracing::error!(key = %self.key, "the ledger was reset: its mark is gone");
        }
        self.refuse_if_reset()
    }

    /// Once a reset was noticed, no new order is taken: it may be one that was paid and forgotten.
    pub(super) fn refuse_if_reset(&self) -> Result<(), StoreError> {
        if !self.reset.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(refused(format!(
            "the ledger in Redis was reset: {:?} is not what it was, so orders that are paid may be forgotten. Restore the data (or make sure that none is missing), then restart this process",
            self.key
        )))
    }

    async fn get(&self, link: &RedisLink) -> Result<Option<String>, StoreError> {
        let answer = link.read(&Cmd::get(&self.key)).await;
        answer.map_err(|error| failed(&error))
    }
}

fn new_mark() -> Result<String, StoreError> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| refused(format!("no random bytes: {error}")))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

fn refused(text: String) -> StoreError {
    StoreError { unsure: false, text }
}
