//! The registry of the ledger: its identity, its time, and the merchants that it has records of.
//!
//! A process accepts one ledger for its lifetime. If Redis then holds another ledger or none, data was lost, and only a
//! person may decide to continue.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};

use futures_util::future::join_all;
use redis::Script;

use super::failed;
use super::store::{Store, refused, unexpected};
use crate::clock::Clock;
use crate::ledger::keeper::LedgerId;
use crate::ledger::time::Timekeeper;
use crate::payouts::ports::StoreError;
use payout_domain::ids::{LedgerTime, MchId, Moment};

/// The prefix of a merchant's field in the registry.
const FIELD: &str = "m:";
/// What a person can do about lost data.
pub(super) const MEND: &str = "restore it, or run payout-sidecar ledger accept-loss";

static CREATE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("create.lua")));
static ADVANCE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("advance.lua")));
static BURY: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("bury.lua")));
static REGISTER: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("register.lua")));
static WELCOME: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("welcome.lua")));

/// The content of the registry.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// Whether the registry exists.
    pub(super) is_there: bool,
    /// The ledger.
    pub(super) id: Option<LedgerId>,
    /// The ledger's time, if it is readable.
    pub(super) time: Option<LedgerTime>,
    /// A ledger was here and was lost.
    pub(super) was_lost: bool,
    /// The merchants, and whether their logs are known to exist.
    pub(super) merchants: BTreeMap<MchId, bool>,
}

impl Entry {
    pub(super) async fn read(store: &Store) -> Result<Self, StoreError> {
        let mut look = redis::cmd("HGETALL");
        look.arg(store.registry());
        let fields: HashMap<String, String> = store.link.read(&look).await.map_err(|error| failed(&error))?;
        let merchants = fields.iter().filter_map(|(field, state)| {
            let mch_id = MchId::parse(field.strip_prefix(FIELD)?).ok()?;
            Some((mch_id, state == "made"))
        });
        Ok(Self {
            is_there: !fields.is_empty(),
            id: fields.get("id").and_then(|id| LedgerId::parse(id)),
            time: fields.get("t").and_then(|t| t.parse().ok()).map(LedgerTime),
            was_lost: fields.contains_key("lost"),
            merchants: merchants.collect(),
        })
    }
}

/// The member of a merchant's log that names the ledger.
pub(super) fn member(id: &LedgerId) -> String {
    format!("#{id}")
}

/// A merchant's field in the registry.
pub(super) fn field(mch_id: &MchId) -> String {
    format!("{FIELD}{mch_id}")
}

/// Creates a ledger if the store holds neither one nor remains of one. Otherwise returns what it holds.
pub(super) async fn make(store: &Store, now: LedgerTime) -> Result<Result<LedgerId, String>, StoreError> {
    let registry = store.registry();
    let trial = store.trial(None);
    let mut left = None;
    let found = |key: Vec<u8>| {
        let key = String::from_utf8_lossy(&key).into_owned();
        if key != registry && !trial.contains(&key) {
            left.get_or_insert(key);
        }
    };
    store
        .link
        .keys(&store.prefix, found)
        .await
        .map_err(|error| failed(&error))?;
    if let Some(key) = left {
        return Ok(Err(format!(
            "holds no ledger, but what may be the rest of one ({key}): {MEND}"
        )));
    }
    let id = LedgerId::random();
    let arguments = [id.as_str().to_owned(), now.0.to_string()];
    match store.run(&CREATE, &[registry], &arguments, None).await? {
        (word, _) if word == "done" => Ok(Ok(id)),
        _ => {
            let entry = Entry::read(store).await?;
            Ok(Err(entry.id.map_or_else(
                || format!("held a ledger that was lost: {MEND}"),
                |id| format!("holds ledger {id} already"),
            )))
        }
    }
}

/// The state of the ledger, as this process last saw it.
enum Standing {
    /// Not read yet.
    NotAsked,
    /// It takes no orders, for this reason.
    Closed(String),
    /// It is the ledger that this process knows.
    Open,
}

/// What this process knows about the ledger.
pub(super) struct Registry {
    store: Store,
    clock: Arc<dyn Clock>,
    create: bool,
    time: Timekeeper,
    id: OnceLock<LedgerId>,
    standing: Mutex<Standing>,
    looking: tokio::sync::Mutex<()>,
    /// The merchants whose logs this process has verified.
    introduced: Mutex<HashSet<MchId>>,
    /// The merchants in the registry at the last read.
    named: Mutex<BTreeSet<MchId>>,
    /// The merchants whose part of Redis does not answer; `None` means the registry itself.
    away: Mutex<HashSet<Option<MchId>>>,
}

impl Registry {
    pub(super) fn new(store: Store, create: bool, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            time: Timekeeper::new(Arc::clone(&clock)),
            clock,
            create,
            id: OnceLock::new(),
            standing: Mutex::new(Standing::NotAsked),
            looking: tokio::sync::Mutex::default(),
            introduced: Mutex::default(),
            named: Mutex::default(),
            away: Mutex::default(),
        }
    }

    pub(super) fn time(&self) -> LedgerTime {
        self.time.now()
    }

    /// The current time by both clocks.
    pub(super) fn moment(&self) -> Moment {
        Moment {
            wall: self.clock.now(),
            ledger: self.time(),
        }
    }

    /// The ledger's identity once it is known, even if the ledger is closed: enough to read and to settle its orders.
    pub(super) async fn known(&self) -> Result<&LedgerId, StoreError> {
        if let Some(id) = self.id.get() {
            return Ok(id);
        }
        self.open().await
    }

    /// The ledger's identity if the ledger is open: needed to claim, and to say that an order does not exist.
    pub(super) async fn open(&self) -> Result<&LedgerId, StoreError> {
        if let Some(known) = self.seen() {
            return known;
        }
        let _one = self.looking.lock().await;
        if let Some(known) = self.seen() {
            return known;
        }
        self.look().await?;
        self.seen()
            .unwrap_or_else(|| Err(refused("the ledger was not heard of yet".to_owned())))
    }

    fn seen(&self) -> Option<Result<&LedgerId, StoreError>> {
        match (&*self.standing(), self.id.get()) {
            (Standing::Closed(why), _) => Some(Err(refused(why.clone()))),
            (Standing::Open, Some(id)) => Some(Ok(id)),
            (Standing::Open, None) | (Standing::NotAsked, _) => None,
        }
    }

    /// Checks that the ledger is still the same, and saves the ledger's time.
    pub(super) async fn look(&self) -> Result<(), StoreError> {
        let entry = Entry::read(&self.store).await?;
        match self.judge(entry).await {
            Ok(()) => {
                let mut standing = self.standing();
                if let Standing::Closed(_) = &*standing {
                    tracing::info!("the ledger in Redis takes orders again");
                }
                *standing = Standing::Open;
                Ok(())
            }
            Err(Doubt::Unheard(error)) => Err(error),
            Err(Doubt::Closed(why)) => {
                let mut standing = self.standing();
                if !matches!(&*standing, Standing::Closed(before) if *before == why) {
                    tracing::error!(redis = %self.store.link.url(), why, "the ledger takes no orders");
                }
                *standing = Standing::Closed(why.clone());
                Err(refused(why))
            }
        }
    }

    async fn judge(&self, entry: Entry) -> Result<(), Doubt> {
        let Entry {
            is_there,
            id,
            time,
            was_lost,
            merchants,
        } = entry;
        let closed = |why: String| Err(Doubt::Closed(why));
        let (id, time) = match (self.id.get(), id) {
            (Some(known), Some(id)) if *known != id => {
                return closed(format!(
                    "Redis holds the ledger {id}, and no longer {known}, which this process knows: restore that one; if a person has accepted its loss, restart this process"
                ));
            }
            (_, Some(id)) => (id, time),
            (Some(known), None) => {
                let buried = self.registry_run(&BURY, &[known.to_string()]).await;
                buried.map_err(Doubt::Unheard)?;
                return closed(format!(
                    "the ledger {known} in Redis was lost, and with it, perhaps, which orders are paid: {MEND}"
                ));
            }
            (None, None) if was_lost => {
                return closed(format!(
                    "Redis held a ledger that was lost, and with it, perhaps, which orders are paid: {MEND}"
                ));
            }
            (None, None) if self.create && !is_there => {
                let now = LedgerTime(self.clock.now().0);
                match make(&self.store, now).await.map_err(Doubt::Unheard)? {
                    Ok(id) => {
                        tracing::info!(%id, redis = %self.store.link.url(), "made a ledger, since [ledger] create = true");
                        (id, Some(now))
                    }
                    Err(why) => return closed(format!("Redis {why}")),
                }
            }
            (None, None) => {
                return closed("Redis holds no ledger: run payout-sidecar ledger create".to_owned());
            }
        };
        let Some(time) = time else {
            return closed(format!(
                "the ledger {id} in Redis has lost its time: field t of {}",
                self.store.registry()
            ));
        };
        match self.store.try_commands(None).await {
            // If the trial got no answer, each merchant's own trial decides: its node may be another one.
            Ok(None) | Err(_) => {}
            Ok(Some(forbidden)) => return closed(forbidden),
        }
        let now = self.time.heard(time);
        let arguments = [id.to_string(), now.0.to_string()];
        self.registry_run(&ADVANCE, &arguments)
            .await
            .map_err(Doubt::Unheard)?;
        let id = self.id.get_or_init(|| id);
        self.register_again(id, &merchants).await;
        *self.named() = made(merchants).collect();
        Ok(())
    }

    /// A fail-over may lose a merchant's registration with or without the merchant's records. So this registers again
    /// every merchant that this process has verified, so that every process notices lost records.
    async fn register_again(&self, id: &LedgerId, merchants: &BTreeMap<MchId, bool>) {
        let lost: Vec<MchId> = self
            .introduced()
            .iter()
            .filter(|mch_id| merchants.get(mch_id) != Some(&true))
            .cloned()
            .collect();
        for mch_id in lost {
            tracing::warn!(%mch_id, "the ledger had lost that it has records of this merchant: it was said again");
            let arguments = [id.to_string(), field(&mch_id), "made".to_owned()];
            if let Err(error) = self.registry_run(&REGISTER, &arguments).await {
                tracing::warn!(%mch_id, %error, "the merchant could not be registered again");
            }
        }
    }

    async fn registry_run(&self, script: &Script, arguments: &[String]) -> Result<String, StoreError> {
        let keys = [self.store.registry()];
        let (word, _) = self.store.run(script, &keys, arguments, None).await?;
        Ok(word)
    }

    /// Makes sure, once per process, that the merchant's log exists and that all commands are allowed in its slot.
    pub(super) async fn introduce(&self, id: &LedgerId, mch_id: &MchId) -> Result<(), StoreError> {
        if self.introduced().contains(mch_id) {
            return Ok(());
        }
        // Nothing here is a claim, so every failure may be repeated.
        let sure = |error: StoreError| StoreError {
            unsure: false,
            ..error
        };
        if let Some(forbidden) = self.store.try_commands(Some(mch_id)).await.map_err(sure)? {
            return Err(refused(forbidden));
        }
        if self.register(id, mch_id, "making").await.map_err(sure)? == "making" {
            // No claim can exist yet, so no data can be lost.
            let log = [self.store.key(mch_id, "log")];
            let welcomed = self.store.run(&WELCOME, &log, &[member(id)], None).await;
            match welcomed.map_err(sure)? {
                (word, _) if word == "done" => {}
                (word, _) if word == "lost" => return Err(forgotten(&[mch_id])),
                (word, _) => return Err(sure(unexpected(&word))),
            }
            self.register(id, mch_id, "made").await.map_err(sure)?;
        }
        self.introduced().insert(mch_id.clone());
        self.named().insert(mch_id.clone());
        Ok(())
    }

    async fn register(&self, id: &LedgerId, mch_id: &MchId, state: &str) -> Result<String, StoreError> {
        let arguments = [id.to_string(), field(mch_id), state.to_owned()];
        match self.registry_run(&REGISTER, &arguments).await? {
            word if word == "other" => {
                self.look().await?;
                Err(refused("the ledger in Redis has changed".to_owned()))
            }
            word => Ok(word),
        }
    }

    /// Whether the registry says that the merchant's log exists.
    pub(super) async fn has_made(&self, id: &LedgerId, mch_id: &MchId) -> Result<bool, StoreError> {
        let mut look = redis::cmd("HMGET");
        look.arg(self.store.registry()).arg("id").arg(field(mch_id));
        let (found, state): (Option<String>, Option<String>) = self
            .store
            .link
            .read(&look)
            .await
            .map_err(|error| failed(&error))?;
        if found.as_deref() != Some(id.as_str()) {
            self.look().await?;
        }
        Ok(state.as_deref() == Some("made"))
    }

    /// The merchants for which this process has claimed orders, or tried to.
    pub(super) fn introduced_merchants(&self) -> Vec<MchId> {
        self.introduced().iter().cloned().collect()
    }

    /// The merchants that this process knows, without asking Redis.
    pub(super) fn merchants_known(&self) -> BTreeSet<MchId> {
        let mut all = self.named().clone();
        all.extend(self.introduced().iter().cloned());
        all
    }

    /// All merchants known here or in the registry. If the registry does not answer, those known here.
    pub(super) async fn merchants(&self) -> BTreeSet<MchId> {
        match Entry::read(&self.store).await {
            Ok(entry) => {
                self.answered(None);
                self.named().extend(made(entry.merchants));
            }
            Err(error) => self.is_away(None, &error),
        }
        self.merchants_known()
    }

    /// The merchants whose logs are lost, among those whose part of Redis answers, and how many answered.
    pub(super) async fn forgotten_merchants(&self, id: &LedgerId) -> (Vec<MchId>, usize) {
        let merchants = self.merchants_known();
        let member = member(id);
        let looks = merchants.iter().map(async |mch_id| {
            let mut look = redis::cmd("ZSCORE");
            look.arg(self.store.key(mch_id, "log")).arg(&member);
            self.store.link.read::<Option<String>>(&look).await
        });
        let mut lost = Vec::new();
        let mut answered: usize = 0;
        for (mch_id, found) in merchants.iter().zip(join_all(looks).await) {
            match found {
                Ok(score) => {
                    answered = answered.saturating_add(1);
                    if score.is_none() {
                        lost.push(mch_id.clone());
                    }
                }
                Err(error) => {
                    tracing::debug!(%mch_id, %error, "whether the ledger has forgotten this merchant is not known");
                }
            }
        }
        (lost, answered)
    }

    /// Notes that a merchant's part of Redis, or the registry (`None`), does not answer. Logs this once until it
    /// answers again.
    pub(super) fn is_away(&self, who: Option<&MchId>, error: &dyn std::fmt::Display) {
        if self.away().insert(who.cloned()) {
            let who = who.map_or("the list of merchants", MchId::as_str);
            tracing::warn!(who, %error, "a part of the ledger in Redis does not answer: the others are looked after");
        }
    }

    /// Notes that it answers.
    pub(super) fn answered(&self, who: Option<&MchId>) {
        if self.away().remove(&who.cloned()) {
            let who = who.map_or("the list of merchants", MchId::as_str);
            tracing::info!(who, "the part of the ledger in Redis answers again");
        }
    }

    fn away(&self) -> MutexGuard<'_, HashSet<Option<MchId>>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn introduced(&self) -> MutexGuard<'_, HashSet<MchId>> {
        self.introduced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn named(&self) -> MutexGuard<'_, BTreeSet<MchId>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The merchants whose logs are known to exist: only they can have orders.
fn made(merchants: BTreeMap<MchId, bool>) -> impl Iterator<Item = MchId> {
    merchants
        .into_iter()
        .filter_map(|(mch_id, is_made)| is_made.then_some(mch_id))
}

/// Why a check failed.
enum Doubt {
    /// No answer: the previous state stays.
    Unheard(StoreError),
    /// The answer says that the ledger must take no orders.
    Closed(String),
}

/// The error for merchants whose records are lost.
pub(super) fn forgotten(merchants: &[impl std::borrow::Borrow<MchId>]) -> StoreError {
    let names: Vec<&str> = merchants.iter().map(|mch_id| mch_id.borrow().as_str()).collect();
    refused(format!(
        "the ledger in Redis has forgotten the records of merchant {}: {MEND}",
        names.join(", ")
    ))
}
