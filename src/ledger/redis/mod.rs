//! The ledger in Redis, for any number of replicas: standalone, Sentinel or Cluster.
//!
//! Every change is one script, so that it is atomic, with its charges. All keys of one merchant carry the same hash tag
//! (`{mchId}`) and so live in one slot of a Cluster; which merchants there are is a set of its own.
//!
//! | key | type | what |
//! |---|---|---|
//! | `{prefix}{mchId}:order:<no>` (braces literal around the number) | hash | `v` version, `r` record |
//! | `…:due` | sorted set | unsettled order numbers by when somebody must look at them (ms) |
//! | `…:log` | sorted set | all order numbers by their first claim (ms) |
//! | `…:sum:<name>` | number | a sum of the limits; goes after three days |
//! | `<prefix>merchants` | set | the merchants |
//! | `<prefix>ledger` | string | the mark: made once, and gone if Redis has forgotten |

mod list;
mod mark;
mod settings;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use redis::{Script, Value};

use super::charges::Difference;
use super::record;
use crate::payout::ports::{Inserted, Ledger, ListFilter, Page, Replaced, StoreError};
use crate::redis_link::{LinkError, RedisLink, Replicas};
use crate::rules::limits::Charge;
use crate::rules::order::{Order, State};
use crate::rules::term::{MchId, Millis, OrderKey, OrderNo};

/// How long a sum is kept: its Beijing day, and time to give back.
const SUM_EXPIRY: Duration = Duration::from_secs(3 * 86_400);
/// How long a claim waits for the replicas that it is to reach.
const REPLICAS_PATIENCE: Duration = Duration::from_secs(1);

/// `[ledger]`, as far as it is about Redis.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// What every key begins with; no braces.
    pub prefix: String,
    /// How long settled records are kept.
    pub retention: Duration,
    /// How many replicas each claim waits for.
    pub wait_replicas: usize,
}

/// The ledger in Redis.
pub struct RedisLedger {
    link: RedisLink,
    settings: RedisSettings,
    scripts: Scripts,
    known_merchants: Mutex<HashSet<MchId>>,
    mark: mark::Mark,
}

struct Scripts {
    insert: Script,
    replace: Script,
    remove: Script,
    due: Script,
}

impl RedisLedger {
    /// A ledger over a link; does not connect yet.
    #[must_use]
    pub fn new(link: RedisLink, settings: RedisSettings) -> Self {
        let scripts = Scripts {
            insert: Script::new(include_str!("insert.lua")),
            replace: Script::new(include_str!("replace.lua")),
            remove: Script::new(include_str!("remove.lua")),
            due: Script::new(include_str!("due.lua")),
        };
        Self {
            link,
            mark: mark::Mark::new(&settings.prefix),
            settings,
            scripts,
            known_merchants: Mutex::default(),
        }
    }

    fn key(&self, mch_id: &MchId, what: &str) -> String {
        self.key_of(mch_id, what, "")
    }

    fn key_of(&self, mch_id: &MchId, what: &str, which: &str) -> String {
        [
            self.settings.prefix.as_str(),
            "{",
            mch_id.as_str(),
            "}:",
            what,
            which,
        ]
        .concat()
    }

    fn order_key(&self, key: &OrderKey) -> String {
        self.key_of(&key.mch_id, "order:", key.order_no.as_str())
    }

    fn merchants_key(&self) -> String {
        format!("{}merchants", self.settings.prefix)
    }

    /// The three keys of an order, and those of the sums that it touches.
    fn keys<'a>(&self, key: &OrderKey, charges: impl Iterator<Item = &'a Charge>) -> Vec<String> {
        let mut keys = vec![
            self.order_key(key),
            self.key(&key.mch_id, "due"),
            self.key(&key.mch_id, "log"),
        ];
        keys.extend(charges.map(|charge| self.key_of(&key.mch_id, "sum:", &charge.name)));
        keys
    }

    /// Makes the merchant known before its first order, so that no order can be overlooked. Once per process: whoever
    /// forgets the set has forgotten the orders too, and every process says it again at its start.
    async fn introduce(&self, mch_id: &MchId) -> Result<(), StoreError> {
        if self.known().contains(mch_id) {
            return Ok(());
        }
        let command = redis::Cmd::sadd(self.merchants_key(), mch_id.as_str());
        // Saying it twice changes nothing, so that it may be said again where it was not answered.
        self.link
            .read::<Value>(&command)
            .await
            .map_err(|error| StoreError {
                unsure: false,
                ..failed(&error)
            })?;
        self.known().insert(mch_id.clone());
        Ok(())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashSet<MchId>> {
        self.known_merchants
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims wait for replicas, where they are to; what follows them can be found out again.
    fn replicas(&self, order: &Order) -> Option<Replicas> {
        let claim = matches!(order.state, State::Pending(_));
        let replicas = Replicas {
            count: self.settings.wait_replicas,
            patience: REPLICAS_PATIENCE,
            has_written: is_done,
        };
        (claim && replicas.count > 0).then_some(replicas)
    }

    /// When the record may go, from now: a settled one after its retention.
    fn expiry(&self, order: &Order) -> String {
        order
            .settled_at()
            .map_or_else(String::new, |_| self.settings.retention.as_millis().to_string())
    }

    async fn run(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[String],
        replicas: Option<Replicas>,
    ) -> Result<(String, Option<Vec<u8>>), StoreError> {
        let answer: Vec<Vec<u8>> = self
            .link
            .script(script, keys, arguments, replicas)
            .await
            .map_err(|error| failed(&error))?;
        let mut parts = answer.into_iter();
        let word = parts
            .next()
            .map(|word| String::from_utf8_lossy(&word).into_owned())
            .unwrap_or_default();
        Ok((word, parts.next()))
    }

    /// All merchants that are known here or in Redis. Their set is in a slot of its own, so that a fail-over may lose what
    /// was added to it and keep the orders: whatever this process has ever known is added again.
    async fn merchants(&self) -> Result<Vec<MchId>, StoreError> {
        let stored: HashSet<String> = self
            .link
            .read(&redis::Cmd::smembers(self.merchants_key()))
            .await
            .map_err(|error| failed(&error))?;
        let (all, lost) = {
            let mut known = self.known();
            known.extend(stored.iter().filter_map(|name| MchId::parse(name).ok()));
            let all: Vec<MchId> = known.iter().cloned().collect();
            let lost: Vec<String> = all
                .iter()
                .map(|id| id.as_str().to_owned())
                .filter(|id| !stored.contains(id))
                .collect();
            (all, lost)
        };
        if !lost.is_empty() {
            tracing::warn!(
                count = lost.len(),
                "merchants were missing in the ledger and were added again"
            );
            self.link
                .read::<Value>(&redis::Cmd::sadd(self.merchants_key(), lost))
                .await
                .map_err(|error| failed(&error))?;
        }
        Ok(all)
    }

    /// How many of each merchant's orders are among the `limit` oldest that are due, so that none waits for another's.
    async fn shares(&self, now: Millis, limit: usize) -> Result<BTreeMap<MchId, usize>, StoreError> {
        let merchants = self.merchants().await?;
        let looks = merchants.iter().map(async |mch_id| {
            let mut look = redis::cmd("ZRANGEBYSCORE");
            look.arg(self.key(mch_id, "due")).arg("-inf").arg(now.0);
            look.arg("WITHSCORES").arg("LIMIT").arg(0).arg(limit);
            self.link.read::<Vec<(String, String)>>(&look).await
        });
        let mut waiting = Vec::new();
        for (mch_id, found) in merchants.iter().zip(join_all(looks).await) {
            for (_, at) in found.map_err(|error| failed(&error))? {
                waiting.push((at.parse().unwrap_or(i64::MAX), mch_id));
            }
        }
        waiting.sort();
        let mut shares = BTreeMap::<MchId, usize>::new();
        for (_, mch_id) in waiting.into_iter().take(limit) {
            let share = shares.entry(mch_id.clone()).or_default();
            *share = share.saturating_add(1);
        }
        Ok(shares)
    }
}

/// Whether a script says that the record is there as it was to be written.
fn is_done(answer: &Value) -> bool {
    let Value::Array(parts) = answer else { return false };
    matches!(parts.first(), Some(Value::BulkString(word)) if word == b"done")
}

fn failed(error: &LinkError) -> StoreError {
    StoreError {
        unsure: error.is_unsure(),
        text: error.to_string(),
    }
}

/// An answer that no script of ours gives. The write may have taken effect.
fn unexpected(word: &str) -> StoreError {
    StoreError {
        unsure: true,
        text: format!("a script of the ledger answered {word:?}: is another program using its keys?"),
    }
}

fn due_text(order: &Order) -> String {
    order.due_at().map_or_else(String::new, |at| at.0.to_string())
}

fn charge_arguments(charged: &[(usize, &Charge)]) -> impl Iterator<Item = String> {
    charged.iter().flat_map(|(at, charge)| {
        [
            charge.amount.to_string(),
            charge.limit.to_string(),
            at.to_string(),
            SUM_EXPIRY.as_millis().to_string(),
        ]
    })
}

fn place(text: Option<Vec<u8>>) -> Result<usize, StoreError> {
    let text = text.and_then(|text| String::from_utf8(text).ok());
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| unexpected("over"))
}

#[async_trait]
impl Ledger for RedisLedger {
    async fn insert(&self, order: &Order) -> Result<Inserted, StoreError> {
        self.mark.refuse_if_reset()?;
        self.introduce(&order.key.mch_id).await?;
        let difference = Difference::between(None, Some(order));
        let keys = self.keys(&order.key, difference.charged.iter().map(|(_, charge)| *charge));
        let mut arguments = vec![
            record::encode(order),
            due_text(order),
            order.key.order_no.as_str().to_owned(),
            order.created_at.0.to_string(),
            self.expiry(order),
            order.version.text(),
        ];
        arguments.extend(charge_arguments(&difference.charged));
        let (word, rest) = self
            .run(&self.scripts.insert, &keys, &arguments, self.replicas(order))
            .await?;
        match (word.as_str(), rest) {
            ("done", _) => Ok(Inserted::Done),
            ("exists", Some(text)) => Ok(Inserted::Exists(Box::new(record::decode(&text, &order.key)?))),
            ("over", rest) => Ok(Inserted::OverLimit(place(rest)?)),
            (word, _) => Err(unexpected(word)),
        }
    }

    async fn replace(&self, previous: &Order, next: &Order) -> Result<Replaced, StoreError> {
        let difference = Difference::between(Some(previous), Some(next));
        let touched = difference
            .charged
            .iter()
            .map(|(_, charge)| *charge)
            .chain(difference.returned.iter().copied());
        let keys = self.keys(&next.key, touched);
        let mut arguments = vec![
            record::encode(next),
            due_text(next),
            next.key.order_no.as_str().to_owned(),
            previous.version.text(),
            next.version.text(),
            self.expiry(next),
            difference.charged.len().to_string(),
        ];
        arguments.extend(charge_arguments(&difference.charged));
        arguments.extend(difference.returned.iter().map(|charge| charge.amount.to_string()));
        let (word, rest) = self
            .run(&self.scripts.replace, &keys, &arguments, self.replicas(next))
            .await?;
        replaced(&word, rest, &next.key)
    }

    async fn remove(&self, order: &Order) -> Result<Replaced, StoreError> {
        let difference = Difference::between(Some(order), None);
        let keys = self.keys(&order.key, difference.returned.iter().copied());
        let mut arguments = vec![order.version.text(), order.key.order_no.as_str().to_owned()];
        arguments.extend(difference.returned.iter().map(|charge| charge.amount.to_string()));
        let (word, rest) = self.run(&self.scripts.remove, &keys, &arguments, None).await?;
        replaced(&word, rest, &order.key)
    }

    async fn get(&self, key: &OrderKey) -> Result<Option<Order>, StoreError> {
        let command = redis::Cmd::hget(self.order_key(key), "r");
        let text: Option<Vec<u8>> = self.link.read(&command).await.map_err(|error| failed(&error))?;
        text.map(|text| record::decode(&text, key)).transpose()
    }

    async fn due(
        &self,
        now: Millis,
        hidden_until: Millis,
        limit: usize,
    ) -> Result<Vec<OrderKey>, StoreError> {
        let mut due: Vec<(i64, OrderKey)> = Vec::new();
        for (mch_id, share) in self.shares(now, limit).await? {
            let keys = [self.key(&mch_id, "due")];
            let arguments = [now.0.to_string(), hidden_until.0.to_string(), share.to_string()];
            let members: Vec<String> = self
                .link
                .script(&self.scripts.due, &keys, &arguments, None)
                .await
                .map_err(|error| failed(&error))?;
            for pair in members.chunks(2) {
                let [number, score] = pair else { continue };
                let Ok(order_no) = OrderNo::parse(number) else {
                    continue;
                };
                let at = score.parse().unwrap_or(i64::MAX);
                due.push((
                    at,
                    OrderKey {
                        mch_id: mch_id.clone(),
                        order_no,
                    },
                ));
            }
        }
        due.sort_by_key(|(at, _)| *at);
        Ok(due.into_iter().map(|(_, key)| key).collect())
    }

    async fn list(&self, filter: &ListFilter) -> Result<Page, StoreError> {
        list::list(self, filter).await
    }

    async fn unknown(&self, limit: usize) -> Result<Vec<Order>, StoreError> {
        let mut found = Vec::new();
        // Everything that is not settled is due some day: a short list, however long the log is.
        for mch_id in self.merchants().await? {
            let mut look = redis::cmd("ZRANGE");
            look.arg(self.key(&mch_id, "due")).arg(0).arg(limit);
            let numbers: Vec<String> = self.link.read(&look).await.map_err(|error| failed(&error))?;
            for order_no in numbers.iter().filter_map(|number| OrderNo::parse(number).ok()) {
                let mch_id = mch_id.clone();
                let order = self.get(&OrderKey { mch_id, order_no }).await?;
                found.extend(order.filter(|order| matches!(order.state, State::Unknown(_))));
                if found.len() >= limit {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    async fn used(&self, mch_id: &MchId, sum: &str) -> Result<i64, StoreError> {
        let look = redis::Cmd::get(self.key(mch_id, &format!("sum:{sum}")));
        let used: Option<i64> = self.link.read(&look).await.map_err(|error| failed(&error))?;
        Ok(used.unwrap_or_default())
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.link.ready().await.map_err(|error| failed(&error))?;
        self.mark.check(&self.link).await
    }

    async fn warnings(&self) -> Result<Vec<String>, StoreError> {
        settings::warnings(&self.link).await
    }
}

fn replaced(word: &str, rest: Option<Vec<u8>>, key: &OrderKey) -> Result<Replaced, StoreError> {
    match (word, rest) {
        ("done", _) => Ok(Replaced::Done),
        ("gone", _) => Ok(Replaced::Moved(None)),
        ("moved", Some(text)) => Ok(Replaced::Moved(Some(Box::new(record::decode(&text, key)?)))),
        ("over", rest) => Ok(Replaced::OverLimit(place(rest)?)),
        (word, _) => Err(unexpected(word)),
    }
}
