//! Opens a connection to whoever is the master now, with every option of the library written out.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's enum is not ours to list"
)]

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    ProtocolVersion, RedisConnectionInfo, RedisError, TlsCertificates, Value,
};

use super::Options;
use super::url::{RedisUrl, Topology};

/// How often a cluster's client may follow `MOVED` and `ASK` or repeat after a lost connection.
pub const CLUSTER_RETRIES: u32 = 3;
/// The pauses between these, in milliseconds.
const CLUSTER_PAUSE_MS: (u64, u64) = (10, 100);

/// A connection that many tasks share.
#[derive(Clone)]
pub enum Connection {
    /// To one server.
    Node(MultiplexedConnection),
    /// To a cluster.
    Cluster(ClusterConnection),
}

impl Connection {
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

/// Opens a connection.
///
/// # Errors
/// When nobody answers who is the master, then why.
pub async fn dial(url: &RedisUrl, options: &Options) -> Result<Connection, String> {
    match &url.topology {
        Topology::Standalone | Topology::Sentinel { .. } => {
            let node = master(url, options).await?;
            Ok(Connection::Node(
                node_connection(url, options, &node, None).await?,
            ))
        }
        Topology::Cluster => cluster(url, options).await.map(Connection::Cluster),
    }
}

/// `host` and `port` of one server.
pub type Node = (String, u16);

/// Opens a connection to one server. `pushes` gets what it sends unasked.
///
/// # Errors
/// When it cannot be opened, then why.
pub async fn node_connection(
    url: &RedisUrl,
    options: &Options,
    node: &Node,
    pushes: Option<tokio::sync::mpsc::UnboundedSender<redis::PushInfo>>,
) -> Result<MultiplexedConnection, String> {
    let client = client(url, options, node, true).map_err(|error| error.to_string())?;
    let mut config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(options.connect_timeout))
        .set_response_timeout(Some(options.response_timeout));
    if let Some(pushes) = pushes {
        config = config.set_push_sender(pushes);
    }
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .map_err(|error| error.to_string())
}

/// The server itself, or whom the sentinels call the master and who says so too.
///
/// # Errors
/// When no sentinel knows, or the one they name is no master, then why.
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
    let client = client(url, options, sentinel, false).map_err(|error| error.to_string())?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(options.connect_timeout))
        .set_response_timeout(Some(options.response_timeout));
    let connected = client.get_multiplexed_async_connection_with_config(&config).await;
    let mut connection = connected.map_err(|error| error.to_string())?;
    let mut question = redis::cmd("SENTINEL");
    question.arg("get-master-addr-by-name").arg(master);
    let named: Option<(String, u16)> = question
        .query_async(&mut connection)
        .await
        .map_err(|error| error.to_string())?;
    let node = named.ok_or_else(|| format!("it knows no master called {master}"))?;
    // Sentinels name a demoted master for a while: it is asked itself.
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
        .map(|node| info(url, node, true))
        .collect::<Result<Vec<_>, _>>();
    let (least, most) = CLUSTER_PAUSE_MS;
    let mut builder = ClusterClientBuilder::new(nodes.map_err(|error| error.to_string())?)
        .retries(CLUSTER_RETRIES)
        .min_retry_wait(least)
        .max_retry_wait(most)
        .connection_timeout(options.connect_timeout)
        .response_timeout(options.response_timeout)
        .overall_response_timeout(Some(options.response_timeout.saturating_mul(2)))
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

fn client(
    url: &RedisUrl,
    options: &Options,
    node: &Node,
    with_credentials: bool,
) -> Result<Client, RedisError> {
    let info = info(url, node, with_credentials)?;
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

fn info(url: &RedisUrl, node: &Node, with_credentials: bool) -> Result<ConnectionInfo, RedisError> {
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
    let mut settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
    if with_credentials {
        settings = settings.set_db(url.database);
        if let Some(user) = &url.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &url.password {
            settings = settings.set_password(password.expose());
        }
    }
    Ok(address.into_connection_info()?.set_redis_settings(settings))
}
