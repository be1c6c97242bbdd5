//! The one way to Redis: standalone, Sentinel, Cluster and TLS behind one handle, for the ledger and the identity store.
//!
//! [`url`] is what a configuration names, [`dial`] opens a connection to whoever is the master now. Every library option
//! is written out here, since a default that changes could change what happens to money.
//!
//! # What may be sent twice
//! Towards one node nothing: a command whose connection breaks is an error, and the caller decides. A cluster's client
//! repeats a command after `MOVED`, `ASK` and a lost connection, at most [`dial::CLUSTER_RETRIES`] times; the same budget
//! serves all three, so that it cannot be zero. The ledger's scripts are made for that: writing the very same again
//! changes nothing.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's enum is not ours to list"
)]

pub mod dial;

pub mod url;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, Script, ServerErrorKind, ToRedisArgs, Value};
use tokio::time::Instant;

use self::dial::Connection;
pub use self::url::RedisUrl;

/// How long callers fail at once after a connection could not be opened, so that a dead Redis costs little.
const AFTER_FAILURE: Duration = Duration::from_millis(200);

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

/// Why a command was not done, or perhaps was.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkError {
    /// No connection: the command was certainly not sent.
    #[error("Redis cannot be reached: {0}")]
    NotSent(String),
    /// The connection broke or the time was over: the command may have taken effect.
    #[error("Redis did not answer: {0}")]
    Unanswered(String),
    /// Redis answered with an error: the command took no effect.
    #[error("Redis refused: {code} {text}")]
    Refused {
        /// `READONLY`, `OOM`, `LOADING`, `NOPERM`, …
        code: String,
        /// The rest of its words.
        text: String,
    },
}

impl LinkError {
    /// Whether the command may have taken effect.
    #[must_use]
    pub fn is_unsure(&self) -> bool {
        matches!(self, Self::Unanswered(_))
    }

    /// Whether this is a demoted master's word: the present one must be looked for.
    fn is_read_only(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "READONLY")
    }
}

/// A link to one Redis, however it is made up. Cheap to clone; connects when it is first used, and again when needed.
#[derive(Clone)]
pub struct RedisLink {
    inner: Arc<Inner>,
}

struct Inner {
    url: RedisUrl,
    options: Options,
    state: Mutex<State>,
    dialing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    current: Option<(u64, Connection)>,
    generation: u64,
    failed: Option<(Instant, String)>,
}

impl RedisLink {
    /// A link that is not connected yet.
    #[must_use]
    pub fn new(url: RedisUrl, options: Options) -> Self {
        let inner = Inner {
            url,
            options,
            state: Mutex::default(),
            dialing: tokio::sync::Mutex::default(),
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
        let mut invocation = script.prepare_invoke();
        for key in keys {
            invocation.key(key);
        }
        for argument in arguments {
            invocation.arg(argument);
        }
        let done = match self.invoke(&invocation, replicas).await {
            // A demoted master took no effect: the present one is asked.
            Err(error) if error.is_read_only() => self.invoke(&invocation, replicas).await,
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
        invocation: &redis::ScriptInvocation<'_>,
        replicas: Option<Replicas>,
    ) -> Result<(Value, Option<(Option<usize>, usize)>), LinkError> {
        let (generation, mut connection) = self.connection().await?;
        let value = invocation.invoke_async::<Value>(&mut connection).await;
        let value = self.judge(generation, value)?;
        let Some(Replicas { count, patience, .. }) =
            replicas.filter(|replicas| (replicas.has_written)(&value))
        else {
            return Ok((value, None));
        };
        let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let mut wait = redis::cmd("WAIT");
        wait.arg(count).arg(patience);
        let acknowledged = wait.query_async::<usize>(&mut connection).await.ok();
        Ok((value, Some((acknowledged, count))))
    }

    /// Whether Redis answers.
    ///
    /// # Errors
    /// When it does not, then [`LinkError`].
    pub async fn ready(&self) -> Result<(), LinkError> {
        self.read::<Value>(&redis::cmd("PING")).await.map(|_| ())
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
        answered.map_err(|error| {
            let error = classify(&error);
            if error.is_unsure() || error.is_read_only() {
                self.forget(generation);
            }
            error
        })
    }

    async fn connection(&self) -> Result<(u64, Connection), LinkError> {
        if let Some(connected) = self.connected()? {
            return Ok(connected);
        }
        // One dials, the others wait for it, and none dials again at once after a failure.
        let _one = self.inner.dialing.lock().await;
        if let Some(connected) = self.connected()? {
            return Ok(connected);
        }
        let dialed = dial::dial(&self.inner.url, &self.inner.options).await;
        let mut state = self.state();
        match dialed {
            Ok(connection) => {
                state.generation = state.generation.wrapping_add(1);
                state.failed = None;
                let connected = (state.generation, connection);
                state.current = Some(connected.clone());
                Ok(connected)
            }
            Err(error) => {
                let text = format!("{}: {error}", self.inner.url);
                state.failed = Some((Instant::now(), text.clone()));
                Err(LinkError::NotSent(text))
            }
        }
    }

    fn connected(&self) -> Result<Option<(u64, Connection)>, LinkError> {
        let state = self.state();
        match (&state.current, &state.failed) {
            (Some(connected), _) => Ok(Some(connected.clone())),
            (None, Some((at, text))) if at.elapsed() < AFTER_FAILURE => Err(LinkError::NotSent(text.clone())),
            (None, _) => Ok(None),
        }
    }

    fn forget(&self, generation: u64) {
        let mut state = self.state();
        if state
            .current
            .as_ref()
            .is_some_and(|(current, _)| *current == generation)
        {
            state.current = None;
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn typed<T: FromRedisValue>(value: Value) -> Result<T, LinkError> {
    T::from_redis_value(value).map_err(|error| LinkError::Refused {
        code: "TYPE".into(),
        text: format!("an answer of another type: {error}"),
    })
}

/// What an error of a command that was handed to a connection means. In doubt, that it may have taken effect.
fn classify(error: &RedisError) -> LinkError {
    let is_refusal = match error.kind() {
        // The cluster's client gives up with the last node's word after it has repeated the command.
        ErrorKind::Server(ServerErrorKind::TryAgain | ServerErrorKind::MasterDown) => false,
        ErrorKind::Server(_) | ErrorKind::Extension => true,
        _ => false,
    };
    if is_refusal {
        let code = error.code().unwrap_or("ERR").to_owned();
        let text = error.detail().map_or_else(|| error.to_string(), str::to_owned);
        LinkError::Refused { code, text }
    } else {
        LinkError::Unanswered(error.to_string())
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> redis::RedisFuture<'a, Value> {
        match self {
            Self::Node(node) => node.req_packed_command(cmd),
            Self::Cluster(cluster) => cluster.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a redis::Pipeline,
        offset: usize,
        count: usize,
    ) -> redis::RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Node(node) => node.req_packed_commands(cmd, offset, count),
            Self::Cluster(cluster) => cluster.req_packed_commands(cmd, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Node(node) => node.get_db(),
            Self::Cluster(cluster) => cluster.get_db(),
        }
    }
}
