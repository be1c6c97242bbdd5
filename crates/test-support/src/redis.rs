//! Real Redis servers on free loopback ports, in temporary folders. Dropping one kills it. The crate redis-test
//! does not suffice: its servers cannot restart with their data, freeze or require a password, and its
//! sentinels decide with one vote.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::free_port;

const MISSING: &str = "redis-server is not installed: run scripts/test, which installs it (apt-get install redis-server redis-sentinel redis-tools)";

/// A Redis or Sentinel process.
pub struct Redis {
    pub port: u16,
    arguments: Vec<String>,
    program: &'static str,
    child: Option<Child>,
    dir: TempDir,
    password: Option<String>,
}

impl Redis {
    /// Starts a server that syncs every write to disk.
    pub fn start() -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"], None)
    }

    pub fn start_with(more: &[&str], password: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let tls = more.contains(&"--tls-port");
        let mut arguments: Vec<String> = ["--bind", "127.0.0.1", "--save", "", "--dir"]
            .map(str::to_owned)
            .to_vec();
        arguments.push(dir.path().display().to_string());
        if tls {
            arguments.extend(["--port", "0"].map(str::to_owned));
        } else {
            arguments.extend(["--port".to_owned(), port.to_string()]);
        }
        arguments.extend(
            more.iter()
                .map(|argument| argument.replace("{port}", &port.to_string())),
        );
        Self::launch("redis-server", port, arguments, dir, password)
    }

    fn launch(
        program: &'static str,
        port: u16,
        arguments: Vec<String>,
        dir: TempDir,
        password: Option<&str>,
    ) -> Self {
        let mut server = Self {
            port,
            arguments,
            program,
            child: None,
            dir,
            password: password.map(str::to_owned),
        };
        server.restart();
        server
    }

    /// Starts the server on the same port and data, and waits until it responds.
    pub fn restart(&mut self) {
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let child = Command::new(self.program)
            .args(&self.arguments)
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .expect(MISSING);
        self.child = Some(child);
        let begun = Instant::now();
        while !self.answers() {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none() && begun.elapsed() < Duration::from_secs(20),
                "{}: {log}",
                self.program
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn answers(&self) -> bool {
        if self.arguments.iter().any(|argument| argument == "--tls-port") {
            return TcpStream::connect(("127.0.0.1", self.port)).is_ok();
        }
        let asked = TcpStream::connect(("127.0.0.1", self.port)).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.write_all(b"PING\r\n")?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer)?;
            Ok(answer)
        });
        asked.is_ok_and(|answer| &answer == b"+PONG" || &answer == b"-NOAU")
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends a signal by name, e.g. `STOP`: the server keeps its connections but does not respond until `CONT`.
    pub fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(
            Command::new("kill")
                .args([format!("-{name}"), id])
                .status()
                .unwrap()
                .success()
        );
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Runs a command with `redis-cli` and returns its output.
    pub fn cli(&self, command: &[&str]) -> String {
        let port = self.port.to_string();
        let mut cli = Command::new("redis-cli");
        cli.args(["-p", &port, "--no-auth-warning"]);
        if let Some(password) = &self.password {
            cli.args(["-a", password]);
        }
        let done = cli.args(command).output().expect(MISSING);
        String::from_utf8(done.stdout).unwrap().trim_end().to_owned()
    }

    /// Runs `done` and returns what `MONITOR` shows of this server meanwhile.
    pub async fn seen_while(&self, done: impl AsyncFnOnce()) -> String {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port))
            .await
            .unwrap();
        let mut seen = vec![0; 5];
        stream.write_all(b"MONITOR\r\n").await.unwrap();
        stream.read_exact(&mut seen).await.unwrap();
        assert_eq!(seen, b"+OK\r\n");
        done().await;
        // A marker after everything that `done` sent.
        self.cli(&["ECHO", "seen to its end"]);
        while !String::from_utf8_lossy(&seen).contains("seen to its end") {
            assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// The number of calls of a command since the last `CONFIG RESETSTAT`.
    pub fn calls(&self, command: &str) -> u64 {
        let stats = self.cli(&["INFO", "commandstats"]);
        let line = stats
            .lines()
            .find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.and_then(|rest| rest.split(',').next())
            .map_or(0, |calls| calls.parse().unwrap())
    }

    pub fn info(&self, section: &str, name: &str) -> String {
        let info = self.cli(&["INFO", section]);
        info.lines()
            .find_map(|line| line.trim().strip_prefix(&format!("{name}:")))
            .unwrap_or_default()
            .to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A cluster of three masters without replicas.
pub struct Cluster {
    pub nodes: Vec<Redis>,
}

impl Cluster {
    pub fn start() -> Self {
        let node = |_| {
            let bus = free_port().to_string();
            Redis::start_with(
                &[
                    "--cluster-enabled",
                    "yes",
                    "--cluster-port",
                    &bus,
                    "--cluster-node-timeout",
                    "2000",
                    "--appendonly",
                    "yes",
                ],
                None,
            )
        };
        let nodes: Vec<Redis> = (0..3).map(node).collect();
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]);
        create.args(nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)));
        let done = create
            .args(["--cluster-replicas", "0", "--cluster-yes"])
            .output()
            .expect(MISSING);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
        let begun = Instant::now();
        while !nodes
            .iter()
            .all(|node| node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok"))
        {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "the cluster did not come up"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { nodes }
    }

    pub fn url(&self) -> String {
        let hosts: Vec<String> = self
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    pub fn set(&self, key: &str, value: &str) {
        let port = self.nodes[0].port.to_string();
        let done = Command::new("redis-cli")
            .args(["-c", "-p", &port, "SET", key, value])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), "OK");
    }
}

/// A master, a replica, and three sentinels with a quorum of two.
pub struct Sentinels {
    pub servers: Vec<Redis>,
    sentinels: Vec<Redis>,
}

impl Sentinels {
    pub fn start() -> Self {
        let master = Redis::start();
        let replica = Redis::start_with(
            &[
                "--appendonly",
                "yes",
                "--replicaof",
                "127.0.0.1",
                &master.port.to_string(),
            ],
            None,
        );
        let begun = Instant::now();
        while replica.info("replication", "master_link_status") != "up" {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "the replica did not connect"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        let sentinels: Vec<Redis> = (0..3).map(|_| sentinel(master.port, 2, None)).collect();
        let begun = Instant::now();
        let knows_all = |sentinel: &Redis| {
            let known = sentinel.cli(&["SENTINEL", "MASTER", "shop"]);
            let after = |name: &str| {
                known
                    .lines()
                    .skip_while(|line| *line != name)
                    .nth(1)
                    .unwrap_or("0")
                    .to_owned()
            };
            after("num-slaves") == "1" && after("num-other-sentinels") == "2"
        };
        while !sentinels.iter().all(knows_all) {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "the sentinels did not meet"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Self {
            servers: vec![master, replica],
            sentinels,
        }
    }

    pub fn url(&self) -> String {
        let hosts: Vec<String> = self
            .sentinels
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect();
        format!("redis+sentinel://{}/shop", hosts.join(","))
    }

    /// Kills the master and waits until all sentinels name the replica and it is the master.
    pub fn fail_over(&mut self) {
        self.servers[0].kill();
        let new = self.servers[1].port.to_string();
        let begun = Instant::now();
        let agrees = |sentinel: &Redis| {
            sentinel
                .cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "shop"])
                .contains(&new)
        };
        while !self.sentinels.iter().all(agrees) || self.servers[1].info("replication", "role") != "master" {
            assert!(begun.elapsed() < Duration::from_secs(60), "no fail-over");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Starts a sentinel for the master `shop` on this port. With a password, it requires the password and
/// authenticates to its servers with it.
pub fn sentinel(master_port: u16, quorum: usize, password: Option<&str>) -> Redis {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let guarded = password.map_or(String::new(), |password| {
        format!("requirepass {password}\nsentinel auth-pass shop {password}\n")
    });
    let text = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor shop 127.0.0.1 {master_port} {quorum}\n\
         sentinel down-after-milliseconds shop 500\nsentinel failover-timeout shop 3000\n{guarded}",
        dir.path().display(),
    );
    let config = dir.path().join("sentinel.conf");
    std::fs::write(&config, text).unwrap();
    Redis::launch(
        "redis-sentinel",
        port,
        vec![config.display().to_string()],
        dir,
        password,
    )
}
