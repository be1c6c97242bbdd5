//! The one way to Redis: standalone, Sentinel, Cluster and TLS behind one handle, for the ledger and the identity store.
//!
//! [`url`] is what a configuration names, [`dial`] opens a connection to whoever is the master now. Every library option
//! is written out here, since a default that changes could change what happens to money.
//!
//! # What may be sent twice
//! Nothing whose effect is unsure: a command whose connection breaks or whose time is over is an error, and the caller
//! decides. Sent again is only what a server has turned away (`READONLY`, `NOSCRIPT`; in a cluster see [`redirect`]), and
//! what [`RedisLink::read`] asks.

mod away;

mod batch;

pub mod dial;

mod error;

pub mod masters;

mod redirect;

pub mod url;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use redis::{
    Cmd, ErrorKind, FromRedisValue, PushInfo, PushKind, RedisError, Script, ServerErrorKind, ToRedisArgs,
    Value,
};

use self::away::{Away, Part};
use self::dial::Connection;
pub use self::error::LinkError;
use self::error::classify;
pub use self::url::RedisUrl;
use self::url::Topology;
use crate::breaker::Breaker;
use payout_domain::breaker::BreakerSettings;

/// A Redis that cannot be connected, or leaves this many commands in a row without an answer, is not tried for a moment,
/// so that a dead one costs its callers little.
pub const BREAKER: BreakerSettings = BreakerSettings {
    failures: 3,
    first_pause: Duration::from_millis(200),
    longest_pause: Duration::from_secs(2),
};

/// Room for what an order's scripts are told, so that it is written without being moved.
const USUAL_CALL_BYTES: usize = 2560;

/// How many scripts may wait for replicas at once, each on a connection of its own.
const WAITING_SCRIPTS: usize = 8;

/// How often at most a connection to a cluster is opened beside the one that failed a command.
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// How connections are made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name, TCP, TLS and greeting of one connection.
    pub connect_timeout: Duration,
    /// One command's answer.
    pub response_timeout: Duration,
    /// Replaces the public roots, for `rediss`.
    pub ca_pem: Option<String>,
}

/// How many replicas must have a write.
#[derive(Clone, Copy)]
pub struct Replicas {
    /// So many.
    pub count: usize,
    /// For at most this long.
    pub timeout: Duration,
    /// Whether a script's answer says that it wrote; where it did not, there is nothing to wait for.
    pub has_written: fn(&Value) -> bool,
}

/// A link to one Redis, however it is made up. Cheap to clone; connects when it is first used, and again when needed.
#[derive(Clone)]
pub struct RedisLink {
    inner: Arc<Inner>,
}

struct Inner {
    url: RedisUrl,
    options: Options,
    breaker: Breaker,
    state: Mutex<State>,
    dialing: tokio::sync::Mutex<()>,
    turns: tokio::sync::Semaphore,
    away: Away,
}

#[derive(Default)]
struct State {
    current: Option<Current>,
    own: Vec<Current>,
    generation: u64,
    /// When a connection to a cluster was last begun in the background.
    renewed_at: Option<Instant>,
}

impl State {
    /// This connection is the one from now on. Returns its generation.
    fn renewed(&mut self, connection: Connection, is_lost: Arc<AtomicBool>) -> u64 {
        self.generation = self.generation.wrapping_add(1);
        self.current = Some(Current {
            generation: self.generation,
            connection,
            is_lost,
        });
        self.generation
    }
}

/// A connection that is used until it fails a command, or is lost while nobody uses it.
struct Current {
    generation: u64,
    connection: Connection,
    is_lost: Arc<AtomicBool>,
}

impl RedisLink {
    /// A link that is not connected yet.
    #[must_use]
    pub fn new(url: RedisUrl, options: Options) -> Self {
        let breaker = Breaker::new(url.to_string(), BREAKER);
        Self::behind(url, options, breaker)
    }

    /// The same, with a circuit of the caller's.
    #[must_use]
    pub fn behind(url: RedisUrl, options: Options, breaker: Breaker) -> Self {
        let inner = Inner {
            url,
            options,
            breaker,
            state: Mutex::default(),
            dialing: tokio::sync::Mutex::default(),
            turns: tokio::sync::Semaphore::new(WAITING_SCRIPTS),
            away: Away::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Where it leads to; shows no password.
    #[must_use]
    pub fn url(&self) -> &RedisUrl {
        &self.inner.url
    }

    /// How its connections are made.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Sends a command, once.
    ///
    /// # Errors
    /// When it was not done, or perhaps was, then [`LinkError`].
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, LinkError> {
        let part = self.part_of(command)?;
        let (generation, mut connection) = self.connection().await?;
        let answered = command.query_async::<Value>(&mut connection).await;
        typed(self.judge_part(part, generation, answered)?)
    }

    /// Sends a command that only reads; once more on a new connection where the first one broke.
    ///
    /// # Errors
    /// When it was not answered, then [`LinkError`].
    pub async fn read<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, LinkError> {
        match self.query(command).await {
            Err(LinkError::Unanswered(_)) => self.query(command).await,
            answered => answered,
        }
    }

    /// Runs a script by its digest, and loads it first where Redis does not know it. With `replicas`, the same connection
    /// then waits until so many replicas have what it wrote.
    ///
    /// # Errors
    /// When it was not done, or perhaps was (too few replicas included), then [`LinkError`].
    pub async fn script<T, K, A>(
        &self,
        script: &Script,
        keys: &[K],
        arguments: &[A],
        replicas: Option<Replicas>,
    ) -> Result<T, LinkError>
    where
        T: FromRedisValue,
        K: ToRedisArgs + Sync,
        A: ToRedisArgs + Sync,
    {
        let call = Call::of(script, keys, arguments);
        let done = match self.invoke(&call, replicas).await {
            // A demoted master took no effect: the present one is asked.
            Err(error) if error.is_read_only() => self.invoke(&call, replicas).await,
            done => done,
        };
        let (value, acknowledged) = done.map_err(LinkError::of_a_script)?;
        match acknowledged {
            Some((Some(acknowledged), count)) if acknowledged < count => Err(LinkError::Unanswered(format!(
                "the write is on the master, but only {acknowledged} of {count} replicas have acknowledged it"
            ))),
            Some((None, _)) => Err(LinkError::Unanswered(
                "the master did not say how many replicas have the write".into(),
            )),
            Some((Some(_), _)) | None => typed(value),
        }
    }

    async fn invoke(
        &self,
        call: &Call<'_>,
        replicas: Option<Replicas>,
    ) -> Result<(Value, Option<(Option<usize>, usize)>), LinkError> {
        if let Some(replicas) = replicas {
            return Box::pin(self.invoke_and_wait(call, replicas)).await;
        }
        let part = self.part_of(&call.command)?;
        let (generation, mut connection) = self.connection().await?;
        let value = call.run(&mut connection).await;
        Ok((self.judge_part(part, generation, value)?, None))
    }

    /// On a connection that nobody shares, since `WAIT` holds up whatever comes behind it. One that was dropped half way
    /// is not used again.
    async fn invoke_and_wait(
        &self,
        call: &Call<'_>,
        replicas: Replicas,
    ) -> Result<(Value, Option<(Option<usize>, usize)>), LinkError> {
        let part = self.part_of(&call.command)?;
        let _turn = self.inner.turns.acquire().await;
        let mut own = self.own_connection().await?;
        let value = call.run(&mut own.connection).await;
        let value = self.judge_part(part, own.generation, value)?;
        if !(replicas.has_written)(&value) {
            self.state().own.push(own);
            return Ok((value, None));
        }
        let timeout = u64::try_from(replicas.timeout.as_millis()).unwrap_or(u64::MAX);
        let mut wait = redis::cmd("WAIT");
        wait.arg(replicas.count).arg(timeout);
        let acknowledged = wait.query_async::<usize>(&mut own.connection).await.ok();
        if acknowledged.is_some() {
            self.state().own.push(own);
        }
        Ok((value, Some((acknowledged, replicas.count))))
    }

    /// One to whom the shared connection leads too: where that was given up, the present master is looked for.
    async fn own_connection(&self) -> Result<Current, LinkError> {
        let (generation, _) = self.connection().await?;
        {
            let mut state = self.state();
            state
                .own
                .retain(|own| own.generation == generation && !own.is_lost.load(Ordering::Acquire));
            if let Some(own) = state.own.pop() {
                return Ok(own);
            }
        }
        let is_lost = Arc::new(AtomicBool::new(false));
        let dialed = dial::dial(&self.inner.url, &self.inner.options, notice(&is_lost)).await;
        let connection = dialed.map_err(|error| self.not_sent(&error))?;
        Ok(Current {
            generation,
            connection,
            is_lost,
        })
    }

    /// Whether Redis answers.
    ///
    /// # Errors
    /// When it does not, then [`LinkError`].
    pub async fn ready(&self) -> Result<(), LinkError> {
        // In a cluster the answer of any master will do: one that is down stops the orders of its slots only.
        let (generation, mut connection) = self.connection().await?;
        let answered = connection.ping().await;
        self.judge(generation, answered)
    }

    /// Asks every master the same, and returns the answers.
    ///
    /// # Errors
    /// When one of them does not answer, then [`LinkError`].
    pub async fn each_master(&self, command: &Cmd) -> Result<Vec<Value>, LinkError> {
        let (generation, mut connection) = self.connection().await?;
        let answered = connection.ask_every_master(command).await;
        self.judge(generation, answered)
    }

    /// What came of a command; a connection that failed it is not used again.
    fn judge<T>(&self, generation: u64, answered: Result<T, RedisError>) -> Result<T, LinkError> {
        let answered = answered.map_err(|error| classify(&error, &self.inner.url.topology));
        if self.inner.url.topology == Topology::Cluster {
            return self.judge_cluster(generation, answered);
        }
        match &answered {
            Err(error) if error.is_unsure() => {
                self.inner.breaker.failed(&error.to_string());
                self.forget(generation);
            }
            Err(error) => {
                self.inner.breaker.answered();
                if error.is_read_only() {
                    self.forget(generation);
                }
            }
            Ok(_) => self.inner.breaker.answered(),
        }
        answered
    }

    /// The part of a cluster that a command goes to.
    ///
    /// # Errors
    /// When that part is away, then [`LinkError::NotSent`].
    fn part_of(&self, command: &Cmd) -> Result<Option<Part>, LinkError> {
        if self.inner.url.topology != Topology::Cluster {
            return Ok(None);
        }
        let part = Part::of(command);
        match &part {
            Some(part) if self.inner.away.has(part) => {
                Err(self.not_sent("the node that has these keys does not answer"))
            }
            Some(_) | None => Ok(part),
        }
    }

    /// The same as [`RedisLink::judge`]; a part of a cluster that gave no answer is away from then on.
    fn judge_part<T>(
        &self,
        part: Option<Part>,
        generation: u64,
        answered: Result<T, RedisError>,
    ) -> Result<T, LinkError> {
        let judged = self.judge(generation, answered);
        if let (Err(LinkError::Unanswered(_)), Some(part)) = (&judged, part)
            && self.inner.away.mark(part)
        {
            tokio::spawn(self.clone().follow_away());
        }
        judged
    }

    /// Looks whether the parts that are away answer again, on connections of its own, until all do.
    async fn follow_away(self) {
        loop {
            let is_lost = Arc::new(AtomicBool::new(false));
            let dialed = dial::dial(&self.inner.url, &self.inner.options, notice(&is_lost)).await;
            if let Ok(connection) = dialed {
                let looks = self.inner.away.keys().into_iter().map(|key| {
                    let mut connection = connection.clone();
                    async move {
                        let answer = Cmd::exists(&key).query_async::<Value>(&mut connection).await;
                        answer.is_ok().then_some(key)
                    }
                });
                let back: Vec<_> = join_all(looks).await.into_iter().flatten().collect();
                if !back.is_empty() {
                    self.state().renewed(connection, is_lost);
                    if back.iter().any(|key| self.inner.away.is_back(key)) {
                        return;
                    }
                }
            }
            tokio::time::sleep(RENEW_EVERY).await;
        }
    }

    /// One node that is away says nothing about the others, so it neither opens the circuit nor takes the connection from
    /// them: beside it another one is opened, which finds a fail-over.
    fn judge_cluster<T>(&self, generation: u64, answered: Result<T, LinkError>) -> Result<T, LinkError> {
        match &answered {
            Err(error) if error.is_unsure() || error.is_read_only() => self.renew(generation),
            Err(_) | Ok(_) => self.inner.breaker.answered(),
        }
        answered
    }

    /// Opens a connection in the background and puts it in the place of this one, once in [`RENEW_EVERY`]. If none can be had,
    /// nobody of the cluster answers.
    fn renew(&self, generation: u64) {
        {
            let mut state = self.state();
            let is_current = state
                .current
                .as_ref()
                .is_some_and(|current| current.generation == generation);
            let is_early = state.renewed_at.is_some_and(|at| at.elapsed() < RENEW_EVERY);
            if !is_current || is_early {
                return;
            }
            state.renewed_at = Some(Instant::now());
        }
        let link = self.clone();
        tokio::spawn(async move {
            let is_lost = Arc::new(AtomicBool::new(false));
            let dialed = dial::dial(&link.inner.url, &link.inner.options, notice(&is_lost)).await;
            match dialed {
                Ok(connection) => {
                    link.state().renewed(connection, is_lost);
                }
                Err(error) => {
                    link.inner.breaker.unreachable(&error);
                    link.forget(generation);
                }
            }
        });
    }

    async fn connection(&self) -> Result<(u64, Connection), LinkError> {
        let may_try = self.inner.breaker.may_try();
        may_try.map_err(|why| self.not_sent(&why))?;
        match self.connected() {
            Some(connected) => Ok(connected),
            // In a box: every command would otherwise have the room that dialling needs.
            None => Box::pin(self.connect()).await,
        }
    }

    async fn connect(&self) -> Result<(u64, Connection), LinkError> {
        // One dials, the others wait for it.
        let _one = self.inner.dialing.lock().await;
        if let Some(connected) = self.connected() {
            return Ok(connected);
        }
        if let Some(why) = self.inner.breaker.has_opened() {
            return Err(self.not_sent(&why));
        }
        let is_lost = Arc::new(AtomicBool::new(false));
        let dialed = dial::dial(&self.inner.url, &self.inner.options, notice(&is_lost)).await;
        let mut state = self.state();
        match dialed {
            Ok(connection) => Ok((state.renewed(connection.clone(), is_lost), connection)),
            Err(error) => {
                drop(state);
                self.inner.breaker.unreachable(&error);
                Err(self.not_sent(&error))
            }
        }
    }

    /// No connection could be had.
    fn not_sent(&self, why: &str) -> LinkError {
        LinkError::NotSent(format!("{}: {why}", self.inner.url))
    }

    fn connected(&self) -> Option<(u64, Connection)> {
        let state = self.state();
        let current = state.current.as_ref();
        current
            .filter(|current| !current.is_lost.load(Ordering::Acquire))
            .map(|current| (current.generation, current.connection.clone()))
    }

    fn forget(&self, generation: u64) {
        let mut state = self.state();
        if state
            .current
            .as_ref()
            .is_some_and(|current| current.generation == generation)
        {
            state.current = None;
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call of a script by its digest, written once.
struct Call<'a> {
    script: &'a Script,
    command: Cmd,
}

impl<'a> Call<'a> {
    fn of<K: ToRedisArgs, A: ToRedisArgs>(script: &'a Script, keys: &[K], arguments: &[A]) -> Self {
        let words = keys.len().saturating_add(arguments.len()).saturating_add(3);
        let mut command = Cmd::with_capacity(words, USUAL_CALL_BYTES);
        command.arg("EVALSHA").arg(script.get_hash()).arg(keys.len());
        for key in keys {
            command.arg(key);
        }
        for argument in arguments {
            command.arg(argument);
        }
        Self { script, command }
    }

    /// Runs it; a server that does not know the script has done nothing, is told it, and asked once more.
    async fn run(&self, connection: &mut Connection) -> Result<Value, RedisError> {
        match self.command.query_async(connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                Box::pin(self.script.load_async(connection)).await?;
                self.command.query_async(connection).await
            }
            answered => answered,
        }
    }
}

/// A command that was answered with something else than it has as an answer may have taken effect.
fn typed<T: FromRedisValue>(value: Value) -> Result<T, LinkError> {
    T::from_redis_value(value).map_err(|error| {
        LinkError::Unanswered(format!("its answer is of another type than expected: {error}"))
    })
}

/// Notes that a connection was lost, so that no command is tried on it: a command that was not sent is surer than one
/// that was not answered.
fn notice(is_lost: &Arc<AtomicBool>) -> dial::Pushes {
    let is_lost = Arc::clone(is_lost);
    Arc::new(move |push: PushInfo| {
        if push.kind == PushKind::Disconnection {
            is_lost.store(true, Ordering::Release);
        }
        Ok::<(), ()>(())
    })
}
