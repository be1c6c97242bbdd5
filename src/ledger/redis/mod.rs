//! The ledger in Redis, for any number of replicas: standalone, Sentinel or Cluster.
//!
//! Each change is one script, so that a record and its charges change atomically. All keys of a merchant have the same
//! hash tag (`{mchId}`) and so share one slot of a Cluster. The ledger's identity is stored in that slot too: it is
//! lost together with the records, and each claim checks it. Redis does not roll back, so a script does everything that
//! Redis may refuse before it writes anything that must not be partial.
//!
//! The braces around `mchId` are literal; `ms` are those of the ledger's time.
//!
//! | key | type | content |
//! |---|---|---|
//! | `<prefix>{mchId}:order:<no>` | hash | `p` pinned by the claim, `c` changing, with the version |
//! | `…:due` | sorted set | unsettled or followed order numbers by the ms at which to examine them |
//! | `…:log` | sorted set | all order numbers by the ms of their first claim, and `#` with the ledger's identity |
//! | `…:sum:<name>` | number | a sum of the limits; expires after three days |
//! | `…:again` | sorted set | orders of earlier days that were charged again, by the ms of that charge |
//! | `…:handed` | number | how many orders were handed out in this second |
//! | `<prefix>ledger` | hash | `id` identity, `t` ms, `m:<mchId>` `making` or `made`; `lost` a lost ledger's identity |

mod argument;
mod due;
mod keeper;
mod list;
mod registry;
mod settings;
mod store;
mod sums;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::{Script, Value};

use self::argument::Argument;
use self::registry::{Registry, forgotten, member};
use self::store::{Store, Stored, order_of, refused, unexpected};
use self::sums::Sums;
use super::charges::Difference;
use super::record;
use crate::clock::Clock;
use crate::payouts::ports::{Inserted, Ledger, ListFilter, Page, QueryRate, Replaced, StoreError};
use crate::redis::url::Topology;
use crate::redis::{LinkError, RedisLink, Replicas};
use payout_domain::ids::{LedgerTime, MchId, OrderKey, OrderNo};
use payout_domain::limits::Charge;
use payout_domain::order::{Order, State};

pub use self::keeper::RedisKeeper;

/// How long a sum is kept: its Beijing day, and enough time to return charges.
const SUM_EXPIRY: Duration = Duration::from_secs(3 * 86_400);
/// How many entries of `due` are read at a time when unsettled orders are listed.
const UNSETTLED_PAGE: usize = 256;
/// How long a claim waits for its replicas.
const REPLICAS_TIMEOUT: Duration = Duration::from_secs(1);

/// The part of `[ledger]` that concerns Redis.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// The prefix of every key; no braces.
    pub prefix: String,
    /// How long settled records are kept.
    pub retention: Duration,
    /// How many replicas must acknowledge each claim.
    pub wait_replicas: usize,
    /// Whether to create a ledger if there is none.
    pub create: bool,
}

/// The ledger in Redis.
pub struct RedisLedger {
    store: Store,
    settings: RedisSettings,
    scripts: Scripts,
    registry: Registry,
    sums: Arc<Sums>,
}

struct Scripts {
    insert: Script,
    replace: Script,
    remove: Script,
    absent: Script,
    due: Script,
    trim: Script,
}

impl RedisLedger {
    /// A ledger over a link. Does not connect yet.
    #[must_use]
    pub fn new(link: RedisLink, settings: RedisSettings, clock: Arc<dyn Clock>) -> Self {
        let scripts = Scripts {
            insert: Script::new(include_str!("insert.lua")),
            replace: Script::new(include_str!("replace.lua")),
            remove: Script::new(include_str!("remove.lua")),
            absent: Script::new(include_str!("absent.lua")),
            due: Script::new(include_str!("due.lua")),
            trim: Script::new(include_str!("trim.lua")),
        };
        let store = Store {
            link,
            prefix: settings.prefix.clone(),
        };
        Self {
            registry: Registry::new(store.clone(), settings.create, clock),
            sums: Arc::new(Sums::new(store.clone())),
            store,
            settings,
            scripts,
        }
    }

    /// Prepares a claim and returns the ledger's identity as the merchant's log contains it. An error means that
    /// nothing was claimed.
    async fn admit(&self, order: &Order) -> Result<String, StoreError> {
        let sure = |error: StoreError| StoreError {
            unsure: false,
            ..error
        };
        let id = self.registry.open().await.map_err(sure)?;
        if order.changed_at == LedgerTime::default() {
            return Err(refused(
                "the claim was made before the ledger's time was known".to_owned(),
            ));
        }
        self.registry.introduce(id, &order.key.mch_id).await?;
        Ok(member(id))
    }

    /// Compares today's sums of a merchant with its records, and corrects those that differ by the same amount as at
    /// the previous comparison. Returns how many were corrected.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer.
    pub async fn compare_sums(&self, mch_id: &MchId) -> Result<usize, StoreError> {
        self.registry.known().await?;
        self.sums.compare(mch_id, self.registry.moment()).await
    }

    /// The time from which on every order in a log must have a record. Older ones may be past their retention.
    fn oldest_record(&self) -> i64 {
        self.registry.time().0.saturating_sub(self.retention_ms())
    }

    fn retention_ms(&self) -> i64 {
        i64::try_from(self.settings.retention.as_millis()).unwrap_or(i64::MAX)
    }

    /// Reads the record without checking the ledger.
    async fn stored(&self, key: &OrderKey) -> Result<Option<Order>, StoreError> {
        let stored = self.store.link.read(&self.store.look(key)).await;
        order_of(stored.map_err(|error| failed(&error))?, key)
    }

    /// Explains a missing record. `None`: there never was one, or it is past its retention.
    async fn absent(&self, key: &OrderKey) -> Result<Option<Order>, StoreError> {
        let id = self.registry.open().await?;
        let keys = [self.store.order(key), self.store.key(&key.mch_id, "log")];
        let member = member(id);
        let arguments = [
            Argument::Text(&member),
            Argument::Text(key.order_no.as_str()),
            Argument::Number(self.oldest_record()),
        ];
        // If another process began the merchant's log meanwhile, ask once more.
        for _ in 0..2 {
            let (word, rest) = self
                .store
                .run(&self.scripts.absent, &keys, &arguments, None)
                .await?;
            match (word.as_str(), rest) {
                ("none", _) => return Ok(None),
                ("exists", stored) => return order_of(stored, key),
                ("lost", [what, ..]) => return Err(lost(key, what)),
                ("strange", _) => {
                    if !self.registry.has_made(id, &key.mch_id).await? {
                        return Ok(None);
                    }
                }
                (word, _) => return Err(unexpected(word)),
            }
        }
        Err(forgotten(&[&key.mch_id]))
    }

    /// Only claims wait for replicas: later changes can be determined again.
    fn replicas(&self, order: &Order) -> Option<Replicas> {
        let claim = matches!(order.state, State::Pending(_));
        let replicas = Replicas {
            count: self.settings.wait_replicas,
            timeout: REPLICAS_TIMEOUT,
            has_written: is_done,
        };
        (claim && replicas.count > 0).then_some(replicas)
    }

    /// Milliseconds until Redis may delete the record: its retention if it is settled.
    fn expiry(&self, order: &Order) -> Argument<'static> {
        Argument::maybe(order.settled_at().map(|_| self.retention_ms()))
    }
}

/// Whether the script's answer says that the record is stored as requested.
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

/// The error for lost data: all records of the merchant, or this one.
fn lost(key: &OrderKey, what: Option<Vec<u8>>) -> StoreError {
    if what.as_deref() == Some(b"merchant") {
        return forgotten(&[&key.mch_id]);
    }
    refused(format!(
        "the ledger in Redis has forgotten the record of order {key}: restore it, or run payout-sidecar ledger accept-loss"
    ))
}

fn due_ms(order: &Order) -> Argument<'static> {
    Argument::maybe(order.due_at().map(|at| at.0))
}

fn charge_arguments<'a>(charged: &[(usize, &Charge)]) -> impl Iterator<Item = Argument<'a>> {
    let expiry_ms = i64::try_from(SUM_EXPIRY.as_millis()).unwrap_or(i64::MAX);
    charged.iter().flat_map(move |(at, charge)| {
        [
            Argument::Number(charge.amount),
            Argument::Number(charge.limit),
            Argument::count(*at),
            Argument::Number(expiry_ms),
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
    fn time(&self) -> LedgerTime {
        self.registry.time()
    }

    async fn insert(&self, order: &Order) -> Result<Inserted, StoreError> {
        let identity = self.admit(order).await?;
        let (pinned, changing) = record::encode(order)?;
        let difference = Difference::between(None, Some(order));
        let keys = self
            .store
            .keys(&order.key, difference.charged.iter().map(|(_, charge)| *charge));
        let mut arguments = vec![
            Argument::Record(pinned),
            Argument::Record(changing),
            due_ms(order),
            Argument::Text(order.key.order_no.as_str()),
            Argument::Number(order.created_at.ledger.0),
            self.expiry(order),
            Argument::Text(&identity),
            Argument::Number(self.oldest_record()),
        ];
        arguments.extend(charge_arguments(&difference.charged));
        let (word, rest) = self
            .store
            .run(&self.scripts.insert, &keys, &arguments, self.replicas(order))
            .await?;
        match (word.as_str(), rest) {
            ("done", _) => Ok(Inserted::Done),
            ("lost", [what, ..]) => Err(lost(&order.key, what)),
            ("exists", stored) => match order_of(stored, &order.key)? {
                Some(stored) => Ok(Inserted::Exists(Box::new(stored))),
                None => Err(unexpected("exists")),
            },
            ("over", [at, ..]) => Ok(Inserted::OverLimit(place(at)?)),
            (word, _) => Err(unexpected(word)),
        }
    }

    async fn replace(&self, previous: &Order, next: &Order) -> Result<Replaced, StoreError> {
        let changing = record::encode_change(previous, next)?;
        // Write an outcome wherever the record still exists, but a new claim only if the ledger has lost nothing.
        let identity = match &next.state {
            State::Pending(_) => self.admit(next).await?,
            State::Unknown(_) | State::Succeeded(_) | State::Refused(_) => String::new(),
        };
        let difference = Difference::between(Some(previous), Some(next));
        let (mch_id, order_no) = (&next.key.mch_id, next.key.order_no.as_str());
        let (claim, version) = record::begins(previous);
        let mut keys = vec![self.store.order(&next.key), self.store.key(mch_id, "due")];
        let mut arguments = vec![
            Argument::Record(changing),
            due_ms(next),
            Argument::Text(order_no),
            Argument::Text(&claim),
            Argument::Text(&version),
            self.expiry(next),
        ];
        let (charged, returned) = (&difference.charged, &difference.returned);
        // For the usual change, to a settled order, omit the keys that it does not touch.
        let is_record_only =
            identity.is_empty() && next.due_at().is_none() && charged.is_empty() && returned.is_empty();
        if !is_record_only {
            keys.extend(["log", "again"].map(|what| self.store.key(mch_id, what)));
            let touched = charged
                .iter()
                .map(|(_, charge)| *charge)
                .chain(returned.iter().copied());
            keys.extend(touched.map(|charge| self.store.sum(mch_id, &charge.name)));
            arguments.extend([
                Argument::Text(&identity),
                Argument::Number(self.time().0),
                Argument::count(charged.len()),
            ]);
            arguments.extend(charge_arguments(charged));
            arguments.extend(returned.iter().map(|charge| Argument::Number(charge.amount)));
        }
        let (word, rest) = self
            .store
            .run(&self.scripts.replace, &keys, &arguments, self.replicas(next))
            .await?;
        replaced(&word, rest, &next.key)
    }

    async fn remove(&self, order: &Order) -> Result<Replaced, StoreError> {
        let difference = Difference::between(Some(order), None);
        let keys = self.store.keys(&order.key, difference.returned.iter().copied());
        let (claim, version) = record::begins(order);
        let mut arguments = vec![
            Argument::Text(&claim),
            Argument::Text(&version),
            Argument::Text(order.key.order_no.as_str()),
        ];
        let returned = difference.returned.iter();
        arguments.extend(returned.map(|charge| Argument::Number(charge.amount)));
        let (word, rest) = self
            .store
            .run(&self.scripts.remove, &keys, &arguments, None)
            .await?;
        replaced(&word, rest, &order.key)
    }

    async fn get(&self, key: &OrderKey) -> Result<Option<Order>, StoreError> {
        self.registry.known().await?;
        match self.stored(key).await? {
            None => self.absent(key).await,
            stored => Ok(stored),
        }
    }

    async fn due(
        &self,
        hidden: Duration,
        limit: usize,
        rate: QueryRate<'_>,
    ) -> Result<Vec<OrderKey>, StoreError> {
        due::due(self, hidden, limit, rate).await
    }

    async fn list(&self, filter: &ListFilter) -> Result<Page, StoreError> {
        list::list(self, filter).await
    }

    async fn unsettled(&self, limit: usize) -> Result<Vec<Order>, StoreError> {
        let mut found = Vec::new();
        // Every unsettled order is in `due`, which stays short however long the log grows. Followed orders are there,
        // too.
        for mch_id in self.registry.merchants().await {
            let mut from: usize = 0;
            loop {
                let to = from.saturating_add(UNSETTLED_PAGE).saturating_sub(1);
                let mut look = redis::cmd("ZRANGE");
                look.arg(self.store.key(&mch_id, "due")).arg(from).arg(to);
                let read = self.store.link.read(&look).await;
                let numbers: Vec<String> = read.map_err(|error| failed(&error))?;
                for order_no in numbers.iter().filter_map(|number| OrderNo::parse(number).ok()) {
                    if found.len() >= limit {
                        return Ok(found);
                    }
                    let mch_id = mch_id.clone();
                    let order = self.stored(&OrderKey { mch_id, order_no }).await?;
                    found.extend(
                        order.filter(|order| matches!(order.state, State::Unknown(_) | State::Pending(_))),
                    );
                }
                if numbers.len() < UNSETTLED_PAGE {
                    break;
                }
                from = from.saturating_add(UNSETTLED_PAGE);
            }
        }
        Ok(found)
    }

    async fn used(&self, mch_id: &MchId, sum: &str) -> Result<i64, StoreError> {
        let look = redis::Cmd::get(self.store.sum(mch_id, sum));
        let used: Option<i64> = self
            .store
            .link
            .read(&look)
            .await
            .map_err(|error| failed(&error))?;
        Ok(used.unwrap_or_default())
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.store.link.ready().await.map_err(|error| failed(&error))?;
        let looked = self.registry.look().await;
        let id = self.registry.open().await?;
        let (lost, answered) = self.registry.forgotten_merchants(id).await;
        if !lost.is_empty() {
            return Err(forgotten(&lost));
        }
        Arc::clone(&self.sums).compare_all(self.registry.introduced_merchants(), self.registry.moment());
        match looked {
            // The registry's node does not answer. Merchants on other nodes can still be served.
            Err(error) if self.store.link.url().topology == Topology::Cluster && answered > 0 => {
                self.registry.is_away(None, &error);
                Ok(())
            }
            looked => looked,
        }
    }

    async fn warnings(&self) -> Result<Vec<String>, StoreError> {
        settings::warnings(&self.store.link).await
    }
}

fn replaced(word: &str, rest: Stored, key: &OrderKey) -> Result<Replaced, StoreError> {
    match (word, rest) {
        ("lost", [what, ..]) => Err(lost(key, what)),
        ("done", _) => Ok(Replaced::Done),
        ("gone", _) => Ok(Replaced::Moved(None)),
        ("moved", stored) => Ok(Replaced::Moved(order_of(stored, key)?.map(Box::new))),
        ("over", [at, ..]) => Ok(Replaced::OverLimit(place(at)?)),
        (word, _) => Err(unexpected(word)),
    }
}
