//! The ledger's keys in Redis, and running scripts on them.

use redis::{Cmd, Script, ToRedisArgs};

use super::failed;
use crate::ledger::record;
use crate::payouts::ports::StoreError;
use crate::redis::{RedisLink, Replicas};
use payout_domain::ids::{MchId, OrderKey};
use payout_domain::limits::Charge;
use payout_domain::order::Order;

/// The hash tag for trials outside any merchant's slot. It is not a valid merchant number.
const TRIAL: &str = "try";

/// One Redis, and the prefix of the ledger's keys in it.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) link: RedisLink,
    pub(super) prefix: String,
}

/// A record as read: the fields `p` and `c` of its hash, if they exist.
pub(super) type Stored = [Option<Vec<u8>>; 2];

/// A script's answer: a word, and up to two values, which may be a record.
pub(super) type Told = (String, Stored);

impl Store {
    /// The hash that identifies the ledger.
    pub(super) fn registry(&self) -> String {
        format!("{}ledger", self.prefix)
    }

    pub(super) fn key(&self, mch_id: &MchId, what: &str) -> String {
        self.tagged(mch_id.as_str(), what, "")
    }

    fn tagged(&self, tag: &str, what: &str, which: &str) -> String {
        [self.prefix.as_str(), "{", tag, "}:", what, which].concat()
    }

    pub(super) fn order(&self, key: &OrderKey) -> String {
        self.tagged(key.mch_id.as_str(), "order:", key.order_no.as_str())
    }

    pub(super) fn sum(&self, mch_id: &MchId, name: &str) -> String {
        self.tagged(mch_id.as_str(), "sum:", name)
    }

    /// The command that reads a record as [`Stored`].
    pub(super) fn look(&self, key: &OrderKey) -> Cmd {
        let mut look = redis::cmd("HMGET");
        look.arg(self.order(key)).arg(&["p", "c"]);
        look
    }

    /// The three keys of an order, and the keys of the sums that it changes.
    pub(super) fn keys<'a>(&self, key: &OrderKey, charges: impl Iterator<Item = &'a Charge>) -> Vec<String> {
        let mut keys = vec![
            self.order(key),
            self.key(&key.mch_id, "due"),
            self.key(&key.mch_id, "log"),
        ];
        keys.extend(charges.map(|charge| self.sum(&key.mch_id, &charge.name)));
        keys
    }

    /// Three keys for trials: in a merchant's slot, or in a separate one.
    pub(super) fn trial(&self, mch_id: Option<&MchId>) -> [String; 3] {
        let tag = mch_id.map_or(TRIAL, MchId::as_str);
        ["hash", "set", "number"].map(|kind| self.tagged(tag, "try:", kind))
    }

    /// The merchant of a key, and the rest of the key; `None` if the key belongs to no merchant.
    pub(super) fn merchant_of<'a>(&self, key: &'a str) -> Option<(MchId, &'a str)> {
        let (tag, what) = key
            .strip_prefix(self.prefix.as_str())?
            .strip_prefix('{')?
            .split_once("}:")?;
        Some((MchId::parse(tag).ok()?, what)).filter(|(_, what)| !what.starts_with("try:"))
    }

    pub(super) async fn run(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[impl ToRedisArgs + Sync],
        replicas: Option<Replicas>,
    ) -> Result<Told, StoreError> {
        let answer: Vec<Option<Vec<u8>>> = self
            .link
            .script(script, keys, arguments, replicas)
            .await
            .map_err(|error| failed(&error))?;
        let mut parts = answer.into_iter();
        let mut next = || parts.next().flatten();
        let word = String::from_utf8_lossy(&next().unwrap_or_default()).into_owned();
        Ok((word, [next(), next()]))
    }

    /// Tries every command of the scripts, in a merchant's slot or in a separate one. Returns the reason if Redis
    /// refuses one.
    pub(super) async fn try_commands(&self, mch_id: Option<&MchId>) -> Result<Option<String>, StoreError> {
        let answer: Vec<String> = self
            .link
            .script::<_, _, &str>(&TRY, &self.trial(mch_id), &[], None)
            .await
            .map_err(|error| failed(&error))?;
        match answer.as_slice() {
            [word] if word == "done" => Ok(None),
            [_, command, why] => Ok(Some(format!(
                "{} forbids {command} ({why}): no order is taken until it is allowed",
                self.link.url()
            ))),
            other => Err(unexpected(&other.join(" "))),
        }
    }
}

/// Decodes a record into an order; `None` if there is no record.
///
/// # Errors
/// [`StoreError`] when the record is incomplete or damaged. The record stays unchanged.
pub(super) fn order_of(stored: Stored, key: &OrderKey) -> Result<Option<Order>, StoreError> {
    match stored {
        [None, None] => Ok(None),
        [Some(pinned), Some(changing)] => record::decode((&pinned, &changing), key).map(Some),
        [None, Some(_)] => Err(record::damaged(key, "lacks its field p")),
        [Some(_), None] => Err(record::damaged(key, "lacks its field c")),
    }
}

static TRY: std::sync::LazyLock<Script> = std::sync::LazyLock::new(|| Script::new(include_str!("try.lua")));

/// An error after which nothing was done.
pub(super) fn refused(text: String) -> StoreError {
    StoreError { unsure: false, text }
}

/// An answer that none of these scripts gives. The write may have taken effect.
pub(super) fn unexpected(word: &str) -> StoreError {
    StoreError {
        unsure: true,
        text: format!("a script of the ledger answered {word:?}: is another program using its keys?"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::{Options, RedisUrl};

    #[test]
    fn keys_are_told_apart_by_merchant() {
        let options = Options {
            connect_timeout: std::time::Duration::ZERO,
            response_timeout: std::time::Duration::ZERO,
            ca_pem: None,
        };
        let store = Store {
            link: RedisLink::new(RedisUrl::parse("redis://127.0.0.1").unwrap(), options),
            prefix: "payout:".to_owned(),
        };
        let nineteen = MchId::parse("19").unwrap();
        let of = |key: &str| {
            store
                .merchant_of(key)
                .map(|(mch_id, what)| (mch_id, what.to_owned()))
        };
        assert_eq!(
            of("payout:{19}:order:A1"),
            Some((nineteen.clone(), "order:A1".to_owned()))
        );
        assert_eq!(
            of(&store.key(&nineteen, "log")),
            Some((nineteen.clone(), "log".to_owned()))
        );
        for other in ["payout:ledger", "payout:{x}:log", "other:{19}:log"] {
            assert_eq!(of(other), None, "{other}");
        }
        for trial in [store.trial(None), store.trial(Some(&nineteen))].concat() {
            assert_eq!(of(&trial), None, "{trial}");
        }
    }
}
