//! The measured programs: processes with one worker thread, all in front of the same upstream.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::load::PAYOUT;
use crate::meter::{Process, free_port, listens, pause, until};
use crate::store::{Redis, openid};
use crate::upstream::Upstream;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    Redis,
    File,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    Handler,
    Wechat,
    /// No payout: the sidecar proxies the request to the backend.
    Backend,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The load goes straight to the upstream, which shows the cost of the load itself.
    Direct,
    Floor,
    Nginx {
        ledger: bool,
    },
    Sidecar {
        to: To,
        store: Store,
    },
}

/// A running subject.
pub struct Subject {
    pub address: SocketAddr,
    /// The path to request.
    pub path: &'static str,
    pub admin: Option<SocketAddr>,
    pub process: Option<Process>,
    pub redis: Option<Redis>,
    /// From exec until the subject was ready, or listened.
    pub ready_after: Duration,
    pub dir: TempDir,
}

impl Subject {
    pub fn start(
        kind: Kind,
        sidecar: &Path,
        upstream: &Upstream,
        pki: &Path,
        users: u64,
    ) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let port = free_port()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut admin = None;
        let mut redis = None;
        let uses_redis = matches!(
            kind,
            Kind::Nginx { .. }
                | Kind::Sidecar {
                    store: Store::Redis,
                    ..
                }
        );
        if uses_redis {
            let started = Redis::start(dir.path())?;
            started.know(0, users)?;
            redis = Some(started);
        }
        let log = std::fs::File::create(dir.path().join("log"))?;
        let mut begun = Instant::now();
        let process = match kind {
            Kind::Direct => None,
            Kind::Floor => Some(Process::start(
                Command::new(std::env::current_exe()?)
                    .args(["floor", &address.to_string(), &upstream.plain.to_string()])
                    .stdout(log),
            )?),
            Kind::Nginx { ledger } => {
                let redis_port = redis.as_ref().map_or(0, |redis| redis.port);
                nginx(dir.path(), port, upstream, redis_port, ledger)?;
                Some(Process::start(
                    Command::new("nginx")
                        .args(["-p", &dir.path().display().to_string(), "-c", "nginx.conf"])
                        .stderr(Stdio::null())
                        .stdout(log),
                )?)
            }
            Kind::Sidecar { to, store } => {
                let admin_port = free_port()?;
                admin = Some(SocketAddr::from(([127, 0, 0, 1], admin_port)));
                let text = configuration(to, store, upstream, pki, redis.as_ref());
                std::fs::write(dir.path().join("config.toml"), text)?;
                if store == Store::File {
                    let mut csv = String::from("wx_app_id,user_id,openid\n");
                    for user in 0..users {
                        csv.push_str(&format!("wx8888888888888888,u{user},{}\n", openid(user)));
                    }
                    std::fs::write(dir.path().join("openids.csv"), csv)?;
                    // The sidecar reads a file twice if it was written just before, which is not part of a
                    // normal start.
                    pause(Duration::from_millis(200));
                }
                begun = Instant::now();
                Some(Process::start(
                    Command::new(sidecar)
                        .args(["run", "--config"])
                        .arg(dir.path().join("config.toml"))
                        .env("TOKIO_WORKER_THREADS", "1")
                        .env("PAYOUT_SIDECAR__SERVER__LISTEN", address.to_string())
                        .env("PAYOUT_SIDECAR__ADMIN__LISTEN", format!("127.0.0.1:{admin_port}"))
                        .stderr(log.try_clone()?)
                        .stdout(log),
                )?)
            }
        };
        match admin {
            Some(admin) => until("the sidecar is ready", || ready(admin))?,
            None if kind != Kind::Direct => until("the subject listens", || listens(port))?,
            None => {}
        }
        Ok(Self {
            address: if kind == Kind::Direct {
                upstream.plain
            } else {
                address
            },
            path: match kind {
                Kind::Sidecar { to: To::Backend, .. } => "/orders/new",
                _ => PAYOUT,
            },
            admin,
            process,
            redis,
            ready_after: begun.elapsed(),
            dir,
        })
    }
}

fn ready(admin: SocketAddr) -> bool {
    get(admin, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// Gets a whole response of the admin port, head included.
pub fn get(admin: SocketAddr, path: &str) -> Option<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(admin).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn configuration(to: To, store: Store, upstream: &Upstream, pki: &Path, redis: Option<&Redis>) -> String {
    let stores = match (store, redis) {
        (Store::Redis, Some(redis)) => {
            let url = redis.url();
            format!("[identity]\nurl = \"{url}\"\n[ledger]\nurl = \"{url}\"\ncreate = true\n")
        }
        _ => "[identity]\nsource = \"file\"\npath = \"openids.csv\"\n[ledger]\nstore = \"file\"\npath = \"payouts.redb\"\ncreate = true\n".to_owned(),
    };
    let pki = pki.display();
    let merchant = match to {
        To::Handler | To::Backend => {
            format!("to = \"handler\"\nhandler_url = \"http://{}\"\n", upstream.plain)
        }
        To::Wechat => format!(
            "to = \"wechat\"\nproduct = \"redpack\"\nsend_name = \"商户名称\"\nwishing = \"恭喜发财\"\n\
             api_key = \"0123456789abcdef0123456789abcdef\"\n\
             cert = {{ file = \"{pki}/cert.pem\" }}\nkey = {{ file = \"{pki}/key.pem\" }}\n"
        ),
    };
    format!(
        "[server]\nmax_connections = 8192\nmax_in_flight = 8192\n[backend]\nurl = \"http://{}\"\n[client_ip]\nvalue = \"203.0.113.7\"\n{stores}\
         [wechat]\nbase_url = \"https://localhost:{}\"\nca = \"{pki}/ca.pem\"\n\
         [[merchant]]\nmch_id = \"1900000109\"\n{merchant}",
        upstream.plain,
        upstream.tls.port()
    )
}

/// Writes the configuration of nginx with Lua, which does the same work: see `nginx/pay.lua`.
fn nginx(dir: &Path, port: u16, upstream: &Upstream, redis_port: u16, ledger: bool) -> anyhow::Result<()> {
    let fill = |text: &str| {
        text.replace("@PORT@", &port.to_string())
            .replace("@UPSTREAM@", &upstream.plain.to_string())
            .replace("@REDIS_PORT@", &redis_port.to_string())
            .replace("@LEDGER@", if ledger { "true" } else { "false" })
    };
    std::fs::write(dir.join("nginx.conf"), fill(include_str!("../nginx/nginx.conf")))?;
    std::fs::write(dir.join("pay.lua"), fill(include_str!("../nginx/pay.lua")))?;
    Ok(())
}
