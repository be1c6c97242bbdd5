//! Opens connections to the current master, with every option of the `redis` library set explicitly.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's enum is not ours to list"
)]

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{AsyncPushSender, ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo, SingleNodeRoutingInfo};
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    ProtocolVersion, RedisConnectionInfo, RedisError, TlsCertificates, Value,
};

use super::Options;
use super::redirect;
use super::url::{RedisUrl, Topology};

/// How many commands a connection queues for its writer; further ones wait until there is room.
const WAITING_COMMANDS: usize = 256;
/// The keepalive settings detect a peer that vanished silently within about this time, on idle and on busy connections.
const VANISHED: Duration = Duration::from_secs(15);

/// A connection that many tasks share.
#[derive(Clone)]
pub enum Connection {
    /// To one server.
    Node(MultiplexedConnection),
    /// To a cluster.
    Cluster(ClusterConnection),
}

impl Connection {
    /// Succeeds if the server, or any master of the cluster, answers.
    pub(super) async fn ping(&mut self) -> Result<(), RedisError> {
        let ping = redis::cmd("PING");
        match self {
            Self::Node(node) => ping.exec_async(node).await,
            Self::Cluster(cluster) => {
                let any = RoutingInfo::SingleNode(SingleNodeRoutingInfo::RandomPrimary);
                cluster
                    .route_command(ping, any)
                    .await?
                    .extract_error()
                    .map(|_| ())
            }
        }
    }

    pub(super) async fn ask_every_master(&mut self, command: &Cmd) -> Result<Vec<Value>, RedisError> {
        match self {
            Self::Node(node) => Ok(vec![command.query_async(node).await?]),
            Self::Cluster(cluster) => {
                let masters = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                match cluster.route_command(command.clone(), masters).await? {
                    Value::Map(answers) => Ok(answers.into_iter().map(|(_, answer)| answer).collect()),
                    Value::Array(answers) => Ok(answers),
                    answer => Ok(vec![answer]),
                }
            }
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> redis::RedisFuture<'a, Value> {
        match self {
            Self::Node(node) => node.req_packed_command(cmd),
            Self::Cluster(cluster) => Box::pin(redirect::send(cluster, cmd)),
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

/// Opens a connection. A connection to a single server reports its loss to `pushes`; a cluster connection reconnects by
/// itself.
///
/// # Errors
/// The reason, when no master can be found or connected.
pub async fn dial(url: &RedisUrl, options: &Options, pushes: Pushes) -> Result<Connection, String> {
    match &url.topology {
        Topology::Standalone | Topology::Sentinel { .. } => {
            let node = master(url, options).await?;
            Ok(Connection::Node(
                node_connection(url, options, &node, Some(pushes)).await?,
            ))
        }
        Topology::Cluster => cluster(url, options).await.map(Connection::Cluster),
    }
}

/// Host and port of one server.
pub type Node = (String, u16);

/// Receives the messages that a server sends unasked, and the end of the connection. Must not block.
pub type Pushes = Arc<dyn AsyncPushSender>;

/// Opens a connection to one server. `pushes` receives what the server sends unasked.
///
/// # Errors
/// The reason, when the connection cannot be opened.
pub async fn node_connection(
    url: &RedisUrl,
    options: &Options,
    node: &Node,
    pushes: Option<Pushes>,
) -> Result<MultiplexedConnection, String> {
    connect(url, options, node, Peer::Server, pushes)
        .await
        .map_err(|error| error.to_string())
}

/// What a connection sends in its greeting.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    /// To a server: user, password and database.
    Server,
    /// To a sentinel: nothing.
    Sentinel,
    /// To a sentinel that asks for a password: user and password.
    GuardedSentinel,
}

async fn connect(
    url: &RedisUrl,
    options: &Options,
    node: &Node,
    peer: Peer,
    pushes: Option<Pushes>,
) -> Result<MultiplexedConnection, RedisError> {
    // These stay at the library's defaults: the number of unanswered commands (no limit), the resolver, the write
    // buffer.
    let mut config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(options.connect_timeout))
        .set_response_timeout(Some(options.response_timeout))
        .set_pipeline_buffer_size(WAITING_COMMANDS);
    if let Some(pushes) = pushes {
        config = config.set_push_sender(pushes);
    }
    client(url, options, node, peer)?
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

/// The configured server, or the server that a sentinel names as master and that confirms it.
///
/// # Errors
/// The reason, when no sentinel knows the master, or the named server says that it is not one.
pub async fn master(url: &RedisUrl, options: &Options) -> Result<Node, String> {
    let Topology::Sentinel { master } = &url.topology else {
        return url
            .hosts
            .first()
            .cloned()
            .ok_or_else(|| "no host is given".to_owned());
    };
    let mut last = "no sentinel is given".to_owned();
    for sentinel in &url.hosts {
        match ask_sentinel(url, options, sentinel, master).await {
            Ok(node) => return Ok(node),
            Err(error) => last = format!("sentinel {}:{}: {error}", sentinel.0, sentinel.1),
        }
    }
    Err(last)
}

async fn ask_sentinel(
    url: &RedisUrl,
    options: &Options,
    sentinel: &Node,
    master: &str,
) -> Result<Node, String> {
    let connected = match connect(url, options, sentinel, Peer::Sentinel, None).await {
        // Sentinels with a password usually share the servers' password. Send it only to a sentinel that asks for one.
        Err(error) if error.code() == Some("NOAUTH") && url.password.is_some() => {
            connect(url, options, sentinel, Peer::GuardedSentinel, None).await
        }
        connected => connected,
    };
    let mut connection = connected.map_err(|error| error.to_string())?;
    let mut question = redis::cmd("SENTINEL");
    question.arg("get-master-addr-by-name").arg(master);
    let named: Option<(String, u16)> = question
        .query_async(&mut connection)
        .await
        .map_err(|error| error.to_string())?;
    let node = named.ok_or_else(|| format!("it knows no master called {master}"))?;
    // For a while after a fail-over, sentinels still name the demoted master, so ask the server itself.
    let mut connection = node_connection(url, options, &node, None).await?;
    let role: Vec<Value> = redis::cmd("ROLE")
        .query_async(&mut connection)
        .await
        .map_err(|error| error.to_string())?;
    match role.first() {
        Some(Value::BulkString(role)) if role == b"master" => Ok(node),
        Some(Value::SimpleString(role)) if role == "master" => Ok(node),
        _ => Err(format!(
            "{}:{} is named as the master, and says that it is none",
            node.0, node.1
        )),
    }
}

async fn cluster(url: &RedisUrl, options: &Options) -> Result<ClusterConnection, String> {
    let nodes = url
        .hosts
        .iter()
        .map(|node| info(url, node, Peer::Server))
        .collect::<Result<Vec<_>, _>>();
    // `retries(0)`: `redirect` repeats the commands that may be repeated. The library reconnects lost nodes without a
    // limit.
    let mut builder = ClusterClientBuilder::new(nodes.map_err(|error| error.to_string())?)
        .retries(0)
        .connection_timeout(options.connect_timeout)
        .response_timeout(options.response_timeout)
        .overall_response_timeout(Some(options.response_timeout))
        .tcp_settings(tcp_settings())
        .use_protocol(ProtocolVersion::RESP3);
    if url.tls {
        builder = builder.certs(certificates(options));
    }
    let client = builder.build().map_err(|error| error.to_string())?;
    client
        .get_async_connection()
        .await
        .map_err(|error| error.to_string())
}

fn client(url: &RedisUrl, options: &Options, node: &Node, peer: Peer) -> Result<Client, RedisError> {
    let info = info(url, node, peer)?;
    if url.tls {
        Client::build_with_tls(info, certificates(options))
    } else {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the place that spells every option out"
        )]
        Client::open(info)
    }
}

fn certificates(options: &Options) -> TlsCertificates {
    TlsCertificates {
        client_tls: None,
        root_cert: options.ca_pem.as_ref().map(|pem| pem.as_bytes().to_vec()),
    }
}

/// The library leaves Nagle's algorithm on by default, which delays small commands on a shared connection.
fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new()
        .with_time(VANISHED.checked_div(3).unwrap_or(VANISHED))
        .with_interval(VANISHED.checked_div(3).unwrap_or(VANISHED))
        .with_retries(2);
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(VANISHED);
    settings
}

fn info(url: &RedisUrl, node: &Node, peer: Peer) -> Result<ConnectionInfo, RedisError> {
    let (host, port) = (node.0.clone(), node.1);
    let address = if url.tls {
        ConnectionAddr::TcpTls {
            host,
            port,
            insecure: false,
            tls_params: None,
        }
    } else {
        ConnectionAddr::Tcp(host, port)
    };
    let mut settings = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_skip_set_lib_name();
    if peer == Peer::Server {
        settings = settings.set_db(url.database);
    }
    if peer != Peer::Sentinel {
        if let Some(user) = &url.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &url.password {
            settings = settings.set_password(password.expose());
        }
    }
    let info = address.into_connection_info()?;
    Ok(info.set_redis_settings(settings).set_tcp_settings(tcp_settings()))
}
