//! Decisions about the whole ledger in Redis: find it by listing all keys, create it, or accept its loss.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use redis::{Cmd, Script};

use super::failed;
use super::registry::{Entry, field, make, member};
use super::store::{Store, order_of, refused, unexpected};
use crate::clock::Clock;
use crate::ledger::keeper::{Keeper, LedgerId, Standing};
use crate::payouts::ports::StoreError;
use crate::redis::{LinkError, RedisLink};
use payout_domain::ids::{LedgerTime, MchId, OrderKey, OrderNo};
use payout_domain::order::Order;

static MEND_LOG: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("mend.lua")));

/// How many orders to examine per step.
const BITE: usize = 1000;

/// Manages the ledger in one Redis.
pub struct RedisKeeper {
    store: Store,
    retention: Duration,
    clock: Arc<dyn Clock>,
}

/// What is in the store.
struct Found {
    entry: Entry,
    /// By merchant, everything found of it.
    merchants: BTreeMap<MchId, Part>,
}

/// What was found of one merchant.
#[derive(Default)]
struct Part {
    /// Orders that have a record.
    recorded: BTreeSet<OrderNo>,
    /// Whether the log contains the ledger's identity.
    is_identified: bool,
    /// The orders in the log, each with the time of its claim.
    logged: BTreeMap<OrderNo, i64>,
}

impl Part {
    /// Orders whose records should still exist and do not.
    fn forgotten(&self, oldest_record: i64) -> impl Iterator<Item = &OrderNo> {
        self.logged
            .iter()
            .filter(move |(number, at)| **at >= oldest_record && !self.recorded.contains(*number))
            .map(|(number, _)| number)
    }
}

impl RedisKeeper {
    /// Manages the ledger whose keys begin with `prefix`. Does not connect yet.
    #[must_use]
    pub fn new(link: RedisLink, prefix: &str, retention: Duration, clock: Arc<dyn Clock>) -> Self {
        Self {
            store: Store {
                link,
                prefix: prefix.to_owned(),
            },
            retention,
            clock,
        }
    }

    fn refusal(&self, why: &str) -> StoreError {
        refused(format!("{} {why}", self.place()))
    }

    async fn find(&self) -> Result<Found, StoreError> {
        let entry = Entry::read(&self.store).await?;
        let mut merchants: BTreeMap<MchId, Part> = BTreeMap::new();
        let named = entry.merchants.iter().filter(|(_, is_made)| **is_made);
        merchants.extend(named.map(|(mch_id, _)| (mch_id.clone(), Part::default())));
        let each = |key: Vec<u8>| {
            let Ok(key) = String::from_utf8(key) else { return };
            let Some((mch_id, what)) = self.store.merchant_of(&key) else {
                return;
            };
            let part = merchants.entry(mch_id).or_default();
            if let Some(number) = what.strip_prefix("order:") {
                part.recorded.extend(OrderNo::parse(number).ok());
            }
        };
        let keys = self.store.link.keys(&self.store.prefix, each).await;
        keys.map_err(|error| failed(&error))?;
        let mut found = Found { entry, merchants };
        let oldest = self.oldest_record(&found.entry);
        for (mch_id, part) in &mut found.merchants {
            self.read_log(mch_id, part, found.entry.id.as_ref()).await?;
            self.look_again(mch_id, part, oldest).await?;
        }
        Ok(found)
    }

    async fn read_log(
        &self,
        mch_id: &MchId,
        part: &mut Part,
        id: Option<&LedgerId>,
    ) -> Result<(), StoreError> {
        let identity = id.map(member);
        let mut begin: usize = 0;
        loop {
            let end = begin.saturating_add(BITE);
            let mut look = redis::cmd("ZRANGE");
            look.arg(self.store.key(mch_id, "log"))
                .arg(begin)
                .arg(end)
                .arg("WITHSCORES");
            let bite: Vec<(String, String)> = self
                .store
                .link
                .read(&look)
                .await
                .map_err(|error| failed(&error))?;
            if bite.is_empty() {
                return Ok(());
            }
            for (name, score) in bite {
                if identity.as_ref() == Some(&name) {
                    part.is_identified = true;
                } else if let (Ok(number), Ok(at)) = (OrderNo::parse(&name), score.parse()) {
                    part.logged.insert(number, at);
                }
            }
            begin = end.saturating_add(1);
        }
    }

    /// Orders may have been claimed and removed while the keys were listed. So this asks for each order that seems to
    /// have lost its record.
    async fn look_again(&self, mch_id: &MchId, part: &mut Part, oldest: i64) -> Result<(), StoreError> {
        let missing: Vec<OrderNo> = part.forgotten(oldest).cloned().collect();
        for bite in missing.chunks(BITE) {
            let looks = bite.iter().map(async |order_no| {
                let key = OrderKey {
                    mch_id: mch_id.clone(),
                    order_no: order_no.clone(),
                };
                let link = &self.store.link;
                let is_there = link.read::<bool>(&Cmd::exists(self.store.order(&key))).await?;
                let log = Cmd::zscore(self.store.key(mch_id, "log"), order_no.as_str());
                let score = link.read::<Option<String>>(&log).await?;
                Ok((order_no, is_there, score.is_some()))
            });
            for looked in join_all(looks).await {
                let (order_no, is_there, is_logged) = looked.map_err(|error: LinkError| failed(&error))?;
                if is_there {
                    part.recorded.insert(order_no.clone());
                } else if !is_logged {
                    part.logged.remove(order_no);
                }
            }
        }
        Ok(())
    }

    /// The time from which on every order in a log must have a record.
    fn oldest_record(&self, entry: &Entry) -> i64 {
        let retention = i64::try_from(self.retention.as_millis()).unwrap_or(i64::MAX);
        let now = entry.time.unwrap_or_default();
        now.0.saturating_sub(retention)
    }

    fn standing(&self, found: &Found) -> Standing {
        let Found { entry, merchants } = found;
        if !entry.is_there && merchants.is_empty() {
            return Standing::None;
        }
        let oldest = self.oldest_record(entry);
        let lost: Vec<MchId> = merchants
            .iter()
            .filter(|(_, part)| !part.is_identified || part.forgotten(oldest).next().is_some())
            .map(|(mch_id, _)| mch_id.clone())
            .collect();
        match &entry.id {
            Some(id) if lost.is_empty() && entry.time.is_some() => Standing::Whole {
                id: id.clone(),
                merchants: Some(merchants.len()),
            },
            id => Standing::Lost {
                id: id.clone(),
                merchants: lost,
            },
        }
    }

    /// Adds orders that have a record to the log and, if they are not settled, to those that are due.
    async fn log_again(&self, mch_id: &MchId, part: &Part) -> Result<(), StoreError> {
        let numbers: Vec<&OrderNo> = part
            .recorded
            .iter()
            .filter(|number| !part.logged.contains_key(*number))
            .collect();
        for bite in numbers.chunks(BITE) {
            let looks = bite.iter().map(async |number| self.order(mch_id, number).await);
            let mut commands = Vec::new();
            for order in join_all(looks).await {
                // Leave an unreadable record as it is: every request for it fails.
                let Some(order) = order? else { continue };
                let number = order.key.order_no.as_str();
                let mut log = |what: &str, at: LedgerTime| {
                    let mut add = redis::cmd("ZADD");
                    add.arg(self.store.key(mch_id, what))
                        .arg("NX")
                        .arg(at.0)
                        .arg(number);
                    commands.push(add);
                };
                log("log", order.created_at.ledger);
                if let Some(at) = order.due_at() {
                    log("due", at);
                }
            }
            let answers = self
                .store
                .link
                .all(commands)
                .await
                .map_err(|error| failed(&error))?;
            for answer in answers {
                answer.map_err(|error| failed(&error))?;
            }
        }
        Ok(())
    }

    async fn order(&self, mch_id: &MchId, order_no: &OrderNo) -> Result<Option<Order>, StoreError> {
        let key = OrderKey {
            mch_id: mch_id.clone(),
            order_no: order_no.clone(),
        };
        let stored = self.store.link.read(&self.store.look(&key)).await;
        Ok(order_of(stored.map_err(|error| failed(&error))?, &key).unwrap_or_default())
    }

    async fn mend(&self, id: &LedgerId, found: &Found) -> Result<(), StoreError> {
        let oldest = self.oldest_record(&found.entry);
        for (mch_id, part) in &found.merchants {
            self.log_again(mch_id, part).await?;
            let given_up: Vec<&str> = part.forgotten(oldest).map(OrderNo::as_str).collect();
            // At least once, to write the identity.
            let (first, rest) = given_up.split_at(given_up.len().min(BITE));
            for bite in std::iter::once(first).chain(rest.chunks(BITE)) {
                let keys = [self.store.key(mch_id, "due"), self.store.key(mch_id, "log")];
                let arguments: Vec<String> = std::iter::once(member(id))
                    .chain(bite.iter().map(|number| (*number).to_owned()))
                    .collect();
                match self.store.run(&MEND_LOG, &keys, &arguments, None).await? {
                    (word, _) if word == "done" => {}
                    (word, _) => return Err(unexpected(&word)),
                }
            }
        }
        // Last, so that a process that finds the ledger finds its merchants complete.
        let mut set = redis::cmd("HSET");
        set.arg(self.store.registry()).arg("id").arg(id.as_str());
        set.arg("t").arg(self.time_of(found).0);
        for mch_id in found.merchants.keys() {
            set.arg(field(mch_id)).arg("made");
        }
        let unbury = Cmd::hdel(self.store.registry(), "lost");
        for command in [set, unbury] {
            let written = self.store.link.query::<i64>(&command).await;
            written.map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    /// The ledger's time: the saved one, otherwise the claim time of the newest order left, otherwise the wall clock.
    fn time_of(&self, found: &Found) -> LedgerTime {
        let newest = found
            .merchants
            .values()
            .flat_map(|part| part.logged.values())
            .max();
        let left = found.entry.time.or(newest.map(|at| LedgerTime(*at)));
        left.unwrap_or(LedgerTime(self.clock.now().0))
    }
}

#[async_trait]
impl Keeper for RedisKeeper {
    fn place(&self) -> String {
        format!("{} under {:?}", self.store.link.url(), self.store.prefix)
    }

    async fn create(&self) -> Result<LedgerId, StoreError> {
        let now = LedgerTime(self.clock.now().0);
        let made = make(&self.store, now).await?;
        made.map_err(|why| self.refusal(&why))
    }

    async fn status(&self) -> Result<Standing, StoreError> {
        Ok(self.standing(&self.find().await?))
    }

    async fn accept_loss(&self) -> Result<(LedgerId, Standing), StoreError> {
        let found = self.find().await?;
        match self.standing(&found) {
            Standing::None => Err(self.refusal(
                "holds no ledger, and nothing that may be left of one: make one by payout-sidecar ledger create",
            )),
            Standing::Whole { id, .. } => Err(self.refusal(&format!("has lost nothing of ledger {id}"))),
            standing @ (Standing::Lost { .. } | Standing::InUse) => {
                let id = match &found.entry.id {
                    Some(id) => id.clone(),
                    None => LedgerId::random(),
                };
                self.mend(&id, &found).await?;
                Ok((id, standing))
            }
        }
    }
}
