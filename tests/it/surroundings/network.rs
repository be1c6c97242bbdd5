//! A handler on a separate host behind a link that a test can cut: a network namespace, which needs root.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use test_support::free_port;
use test_support::http::call;
use test_support::until;

const PORT: u16 = 8000;

/// Another host, with a handler that pays on each call.
pub struct Host {
    pub address: SocketAddr,
    handler: Child,
    namespace: Namespace,
}

/// A network namespace. Deleting it deletes its links too.
struct Namespace(String);

impl Namespace {
    fn make(name: String) -> Self {
        ip(&format!("netns add {name}"));
        Self(name)
    }

    /// Runs `ip` in the namespace.
    fn ip(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.0));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(why) = try_ip(&format!("netns del {}", self.0)) {
            eprintln!("{why}");
        }
    }
}

impl Host {
    pub async fn start() -> Self {
        let port = free_port();
        // From the range for tests between networks (RFC 2544): the link's two ends, and the host behind it. No other
        // test of this process uses the same addresses.
        let (range, nth) = (u32::from(Ipv4Addr::new(198, 18, 0, 0)), u32::from(port - 12_000));
        let (near_end, far_end) = (
            Ipv4Addr::from(range + 4 * nth + 1),
            Ipv4Addr::from(range + 4 * nth + 2),
        );
        let address = SocketAddr::from((Ipv4Addr::from(range + 100_000 + nth), PORT));
        let (near, far) = (format!("pn{port}"), format!("pf{port}"));
        let namespace = Namespace::make(format!("payout-{port}"));
        let name = &namespace.0;
        ip(&format!("link add {near} type veth peer name {far} netns {name}"));
        ip(&format!("addr add {near_end}/30 dev {near}"));
        ip(&format!("link set {near} up"));
        namespace.ip("link set lo up");
        namespace.ip(&format!("addr add {far_end}/30 dev {far}"));
        namespace.ip(&format!("link set {far} up"));
        namespace.ip(&format!("route add default via {near_end}"));
        ip(&format!("route add {} via {far_end}", address.ip()));
        namespace.ip(&format!("addr add {}/32 dev lo", address.ip()));
        let handler = Command::new("ip")
            .args([
                "netns",
                "exec",
                name,
                env!("CARGO_BIN_EXE_payout-sidecar"),
                "stub",
                "--pays-each-call",
            ])
            .args(["--listen", &address.to_string()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let host = Self {
            address,
            handler,
            namespace,
        };
        until("the handler answers", async || {
            tokio::net::TcpStream::connect(address).await.is_ok()
        })
        .await;
        host
    }

    /// From now on, packets to the host are dropped without an error: its address is removed, while the link and its
    /// ends stay up.
    pub fn cut(&self) {
        self.behind_the_link("del");
    }

    pub fn restore(&self) {
        self.behind_the_link("add");
    }

    fn behind_the_link(&self, change: &str) {
        self.namespace
            .ip(&format!("addr {change} {}/32 dev lo", self.address.ip()));
    }

    pub async fn set_faults(&self, faults: &str) {
        let answer = call(self.address, "POST", "/_stub/faults", &[], faults.as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    /// How often the handler was asked to pay an order, and how often it paid it.
    pub async fn books(&self, order_no: &str) -> (usize, usize) {
        let count = async |of: &str| {
            let body = call(self.address, "GET", &format!("/_stub/{of}"), &[], b"")
                .await
                .body;
            let all: Vec<serde_json::Value> = serde_json::from_str(&body).unwrap();
            let is_meant = |one: &&serde_json::Value| one["orderNo"] == order_no && one["endpoint"] == "send";
            all.iter().filter(is_meant).count()
        };
        (count("requests").await, count("payments").await)
    }

    /// How many bytes the kernel still holds for the host and keeps retransmitting.
    pub fn still_to_be_delivered(&self) -> usize {
        let (host, port) = (self.address.ip(), self.address.port());
        let to = format!("dst {host} dport = {port}");
        let shown = Command::new("ss").args(["-Htn", &to]).output().unwrap();
        assert!(shown.status.success(), "ss (iproute2) is needed");
        let sockets = String::from_utf8(shown.stdout).unwrap();
        let waiting = sockets
            .lines()
            .map(|line| line.split_whitespace().nth(2).unwrap().parse::<usize>().unwrap());
        waiting.sum()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ended = self.handler.kill().and_then(|()| self.handler.wait());
    }
}

fn ip(arguments: &str) {
    if let Err(why) = try_ip(arguments) {
        panic!("this test makes a network of its own, and needs root: {why}");
    }
}

fn try_ip(arguments: &str) -> Result<(), String> {
    let done = Command::new("ip").args(arguments.split(' ')).output();
    let done = done.map_err(|error| format!("ip (apt-get install iproute2): {error}"))?;
    if done.status.success() {
        Ok(())
    } else {
        Err(format!(
            "ip {arguments}: {}",
            String::from_utf8_lossy(&done.stderr)
        ))
    }
}
