//! The connection to Redis for the ledger and the openid store: standalone, Sentinel, Cluster and TLS behind one
//! handle.
//!
//! [`url`] parses the configured URL, [`dial`] opens a connection to the current master. This code sets every library
//! option explicitly, because a changed default could change what happens to money.
//!
//! # What the link sends twice
//! Never a command whose effect is unsure: if its connection breaks or its timeout passes, the caller gets an error and
//! decides. The link repeats only commands that a server refused (`READONLY`, `NOSCRIPT`; in a cluster see
//! [`redirect`]) and the reads of [`RedisLink::read`].

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

/// Pauses between attempts when Redis cannot be connected, or leaves this many commands in a row unanswered, so that
/// callers fail fast instead of waiting for each timeout.
pub const BREAKER: BreakerSettings = BreakerSettings {
    failures: 3,
    first_pause: Duration::from_millis(200),
    longest_pause: Duration::from_secs(2),
};

/// Initial buffer size: enough for a script call of a usual order without reallocation.
const USUAL_CALL_BYTES: usize = 2560;

/// How many scripts may wait for replicas at once, each on its own connection.
const WAITING_SCRIPTS: usize = 8;

/// The shortest time between two replacements of a cluster connection that failed a command.
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// How the link opens connections.
#[derive(Clone, Debug)]
pub struct Options {
    /// Limit for name lookup, TCP, TLS and the greeting of one connection.
    pub connect_timeout: Duration,
    /// Limit for the answer to one command.
    pub response_timeout: Duration,
    /// Replaces the public root certificates, for `rediss`.
    pub ca_pem: Option<String>,
}

/// How many replicas must acknowledge a write.
#[derive(Clone, Copy)]
pub struct Replicas {
    /// The number of replicas.
    pub count: usize,
    /// How long to wait for them.
    pub timeout: Duration,
    /// Whether a script's answer says that it wrote. If it did not, the link does not wait.
    pub has_written: fn(&Value) -> bool,
}

/// A link to one Redis of any topology. Cheap to clone. It connects on first use and reconnects when needed.
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
    /// When the link last began to open a cluster connection in the background.
    renewed_at: Option<Instant>,
}

impl State {
    /// Makes this the current connection and returns its generation.
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

/// A connection, used until it fails a command or is lost while idle.
struct Current {
    generation: u64,
    connection: Connection,
    is_lost: Arc<AtomicBool>,
}

impl RedisLink {
    /// A link that is not connected yet, with its own circuit breaker.
    #[must_use]
    pub fn new(url: RedisUrl, options: Options) -> Self {
        let breaker = Breaker::new(url.to_string(), BREAKER);
        Self::behind(url, options, breaker)
    }

    /// A link that is not connected yet, with the caller's circuit breaker.
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

    /// The URL of this Redis. Its `Display` hides the password.
    #[must_use]
    pub fn url(&self) -> &RedisUrl {
        &self.inner.url
    }

    /// How the link opens connections.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Sends a command once.
    ///
    /// # Errors
    /// [`LinkError`] when the command was not executed, or perhaps was.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, LinkError> {
        let part = self.part_of(command)?;
        let (generation, mut connection) = self.connection().await?;
        let answered = command.query_async::<Value>(&mut connection).await;
        typed(self.judge_part(part, generation, answered)?)
    }

    /// Sends a command that only reads. Repeats it once if it got no answer.
    ///
    /// # Errors
    /// [`LinkError`] when it got no answer.
    pub async fn read<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, LinkError> {
        match self.query(command).await {
            Err(LinkError::Unanswered(_)) => self.query(command).await,
            answered => answered,
        }
    }

    /// Runs a script by its digest and loads it first if Redis does not know it. With `replicas`, the same connection
    /// then waits until that many replicas have the write.
    ///
    /// # Errors
    /// [`LinkError`] when the script did not run, or perhaps did. Too few replicas count as "perhaps".
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
            // The demoted master changed nothing, so ask the current one.
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

    /// Uses a connection that no other task shares, because `WAIT` blocks every later command on it. If the caller
    /// drops this future half way, the connection is dropped too.
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

    /// A separate connection to the same server as the shared one. If the link has given up the shared one, this first
    /// finds the current master.
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

    /// Checks that Redis answers.
    ///
    /// # Errors
    /// [`LinkError`] when it does not.
    pub async fn ready(&self) -> Result<(), LinkError> {
        // In a cluster any master's answer is enough: a master that is down stops only the orders in its slots.
        let (generation, mut connection) = self.connection().await?;
        let answered = connection.ping().await;
        self.judge(generation, answered)
    }

    /// Sends the command to every master and returns the answers.
    ///
    /// # Errors
    /// [`LinkError`] when one of them does not answer.
    pub async fn each_master(&self, command: &Cmd) -> Result<Vec<Value>, LinkError> {
        let (generation, mut connection) = self.connection().await?;
        let answered = connection.ask_every_master(command).await;
        self.judge(generation, answered)
    }

    /// Classifies the result of a command, tells the breaker, and gives up a connection that failed the command.
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

    /// The part of a cluster that the command goes to.
    ///
    /// # Errors
    /// [`LinkError::NotSent`] when that part is marked as not answering.
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

    /// Like [`RedisLink::judge`], but also marks a part of a cluster that gave no answer.
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

    /// Checks on separate connections whether the marked parts answer again, until all of them do.
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

    /// A lost node says nothing about the others. So its failure neither opens the circuit breaker nor takes the
    /// connection from other commands: the link opens a second connection, which finds the new master after a
    /// fail-over.
    fn judge_cluster<T>(&self, generation: u64, answered: Result<T, LinkError>) -> Result<T, LinkError> {
        match &answered {
            Err(error) if error.is_unsure() || error.is_read_only() => self.renew(generation),
            Err(_) | Ok(_) => self.inner.breaker.answered(),
        }
        answered
    }

    /// Opens a connection in the background and replaces this one, at most once per [`RENEW_EVERY`]. If that fails, no
    /// node of the cluster answers, and the breaker opens.
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
            // Boxed: otherwise the future of every command would be as large as dialling needs.
            None => Box::pin(self.connect()).await,
        }
    }

    async fn connect(&self) -> Result<(u64, Connection), LinkError> {
        // One task dials, the others wait for it.
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

    /// The error for a missing connection.
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

/// A script call by digest, encoded once.
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

    /// Runs the script. A server that does not know it has changed nothing: this loads the script there and calls it
    /// again.
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

/// Converts the answer. A command whose answer has an unexpected type may have taken effect.
fn typed<T: FromRedisValue>(value: Value) -> Result<T, LinkError> {
    T::from_redis_value(value).map_err(|error| {
        LinkError::Unanswered(format!("its answer is of another type than expected: {error}"))
    })
}

/// Sets `is_lost` when the connection ends, so that the link sends no command on it: `NotSent` is certain, `Unanswered`
/// is not.
fn notice(is_lost: &Arc<AtomicBool>) -> dial::Pushes {
    let is_lost = Arc::clone(is_lost);
    Arc::new(move |push: PushInfo| {
        if push.kind == PushKind::Disconnection {
            is_lost.store(true, Ordering::Release);
        }
        Ok::<(), ()>(())
    })
}
