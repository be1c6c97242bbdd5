//! The one way to Redis: standalone, Sentinel, Cluster and TLS behind one handle, for the ledger and the identity store.
//!
//! [`url`] is what a configuration names, [`dial`] opens a connection to whoever is the master now. Every library option
//! is written out here, since a default that changes could change what happens to money.
//!
//! # What may be sent twice
//! Nothing whose effect is unsure: a command whose connection breaks or whose time is over is an error, and the caller
//! decides. Sent again is only what a server has turned away (`READONLY`, `NOSCRIPT`; in a cluster see [`redirect`]), and
//! what [`RedisLink::read`] asks.

mod batch;

pub mod dial;

mod error;

mod redirect;

pub mod url;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{
    Cmd, ErrorKind, FromRedisValue, PushInfo, PushKind, RedisError, Script, ServerErrorKind, ToRedisArgs,
    Value,
};

use self::dial::Connection;
pub use self::error::LinkError;
use self::error::classify;
pub use self::url::RedisUrl;
use crate::circuit::Breaker;
use crate::rules::circuit::Patience;

/// A Redis that cannot be connected, or leaves this many commands in a row without an answer, is not tried for a moment,
/// so that a dead one costs its callers little.
pub const PATIENCE: Patience = Patience {
    failures: 3,
    first_pause: Duration::from_millis(200),
    longest_pause: Duration::from_secs(2),
};

/// Room for what an order's scripts are told, so that it is written without being moved.
const USUAL_CALL_BYTES: usize = 2560;

/// How many scripts may wait for replicas at once, each on a connection of its own.
const WAITING_SCRIPTS: usize = 8;

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
    pub patience: Duration,
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
}

#[derive(Default)]
struct State {
    current: Option<Current>,
    own: Vec<Current>,
    generation: u64,
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
        let breaker = Breaker::new(url.to_string(), PATIENCE);
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
        let (generation, mut connection) = self.connection().await?;
        let answered = command.query_async::<Value>(&mut connection).await;
        typed(self.judge(generation, answered)?)
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
        let (value, acknowledged) = done?;
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
        let (generation, mut connection) = self.connection().await?;
        let value = call.run(&mut connection).await;
        Ok((self.judge(generation, value)?, None))
    }

    /// On a connection that nobody shares, since `WAIT` holds up whatever comes behind it. One that was dropped half way
    /// is not used again.
    async fn invoke_and_wait(
        &self,
        call: &Call<'_>,
        replicas: Replicas,
    ) -> Result<(Value, Option<(Option<usize>, usize)>), LinkError> {
        let _turn = self.inner.turns.acquire().await;
        let mut own = self.own_connection().await?;
        let value = call.run(&mut own.connection).await;
        let value = self.judge(own.generation, value)?;
        if !(replicas.has_written)(&value) {
            self.state().own.push(own);
            return Ok((value, None));
        }
        let patience = u64::try_from(replicas.patience.as_millis()).unwrap_or(u64::MAX);
        let mut wait = redis::cmd("WAIT");
        wait.arg(replicas.count).arg(patience);
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
            Ok(connection) => {
                state.generation = state.generation.wrapping_add(1);
                let generation = state.generation;
                state.current = Some(Current {
                    generation,
                    connection: connection.clone(),
                    is_lost,
                });
                Ok((generation, connection))
            }
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
