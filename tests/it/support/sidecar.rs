//! A real sidecar process with its own configuration, fake-wechat as its upstream, and the platform's requests to it.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use fake_wechat::{API_KEY, FakeWechat, HandlerKind, Options, PUBLIC_KEY_ID};
use payout_sidecar::private::replace_all;
use tempfile::TempDir;

use test_support::cgroup::Cgroup;
use test_support::http::{Answer, call};
use test_support::{free_port, until};

pub const APP: &str = "wx8888888888888888";
pub const MERCHANT: &str = "1900000109";
pub const OPENID: &str = "oTEST0000000000000000000001";

/// `[admin]` with a token that permits changes, and the headers of an operator's request.
pub const ADMIN: &str = "[admin]\ntoken = \"admin-token-of-the-tests\"\n";
pub const OPERATOR: [(&str, &str); 2] = [
    ("Authorization", "Bearer admin-token-of-the-tests"),
    ("Content-Type", "application/json"),
];

/// The program under test: the binary of this build, or the one that `PAYOUT_SIDECAR_BIN` names, to run a test against
/// another build.
pub fn binary() -> std::path::PathBuf {
    std::env::var_os("PAYOUT_SIDECAR_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_payout-sidecar").into(), Into::into)
}

/// A running sidecar. Killed when dropped.
pub struct Sidecar {
    pub main: SocketAddr,
    pub admin: SocketAddr,
    pub dir: TempDir,
    child: Option<Child>,
    // Dropped after the child: a cgroup can be removed only when it is empty.
    confined: Option<Confined>,
}

/// Limits for a process.
pub struct Confined {
    /// The memory limit; `None` means none, since this machine cannot create a cgroup.
    pub cgroup: Option<Cgroup>,
    /// The soft limit of open files.
    pub descriptors: u32,
}

impl Confined {
    /// A shell that applies the limits to itself and then executes the binary.
    fn shell(&self) -> Command {
        let enter = self.cgroup.as_ref().map_or_else(String::new, |cgroup| {
            format!("echo $$ > {} && ", cgroup.procs().display())
        });
        let script = format!("{enter}ulimit -S -n {} && exec \"$0\" \"$@\"", self.descriptors);
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).arg(binary());
        shell
    }
}

impl Sidecar {
    /// Starts with a configuration (without `[server]` and `[admin]` listeners) and waits until it is live.
    pub async fn start(configuration: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), configuration, &[]).await
    }

    pub async fn start_in(dir: TempDir, configuration: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_confined(dir, configuration, environment, None).await
    }

    /// Like `start_in`, with the limits of `confined` if given.
    pub async fn start_confined(
        dir: TempDir,
        configuration: &str,
        environment: &[(&str, &str)],
        confined: Option<Confined>,
    ) -> Self {
        let (main, admin) = (free_port(), free_port());
        // A bill's `notify_url` leads back to this sidecar.
        let configuration = configuration.replace("MAIN_PORT", &main.to_string());
        std::fs::write(dir.path().join("config.toml"), configuration).unwrap();
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut sidecar = Self {
            main: address(main),
            admin: address(admin),
            dir,
            child: None,
            confined,
        };
        sidecar.launch(environment).await;
        sidecar
    }

    pub async fn launch(&mut self, environment: &[(&str, &str)]) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        let child = self
            .confined
            .as_ref()
            .map_or_else(|| Command::new(binary()), Confined::shell)
            .args(["run", "--config"])
            .arg(self.dir.path().join("config.toml"))
            .env("PAYOUT_SIDECAR__SERVER__LISTEN", self.main.to_string())
            .env("PAYOUT_SIDECAR__ADMIN__LISTEN", self.admin.to_string())
            .envs(environment.iter().copied())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let log = self.dir.path().join("log");
        until("the sidecar lives", async || {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none(),
                "{}",
                std::fs::read_to_string(&log).unwrap_or_default()
            );
            test_support::http::exchange(
                self.admin,
                &test_support::http::request("GET", "/livez", &[], b""),
            )
            .await
            .is_some()
        })
        .await;
    }

    pub async fn is_ready(&self) -> bool {
        call(self.admin, "GET", "/readyz", &[], b"").await.status == 200
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Waits for a text in the log. The sidecar may write a line of level INFO a moment after the answer it belongs to.
    pub async fn logged(&self, what: &str) -> String {
        until(what, async || self.log().contains(what)).await;
        self.log()
    }

    /// A value of the process's status in KiB: `VmRSS` now, `VmHWM` at most so far.
    pub fn memory_kib(&self, name: &str) -> u64 {
        let id = self.child.as_ref().unwrap().id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap().trim_end_matches("kB").trim().parse().unwrap()
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Whether the process still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// The process's cgroup, if it has its own.
    pub fn cgroup(&self) -> Option<&Cgroup> {
        self.confined.as_ref()?.cgroup.as_ref()
    }

    /// The number of files the process has open.
    pub fn descriptors(&self) -> usize {
        let id = self.child.as_ref().unwrap().id();
        std::fs::read_dir(format!("/proc/{id}/fd")).map_or(0, Iterator::count)
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

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

    /// Waits until the process exits by itself, and returns its exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        let mut code = None;
        until("the sidecar ends", async || {
            code = child.try_wait().unwrap();
            code.is_some()
        })
        .await;
        code.unwrap().code()
    }

    pub async fn post(&self, path: &str, encoding: Encoding, body: &str) -> Answer {
        call(
            self.main,
            "POST",
            path,
            &[("Content-Type", encoding.media())],
            body.as_bytes(),
        )
        .await
    }

    pub async fn pay(&self, encoding: Encoding, payout: &Payout) -> Answer {
        self.post("/pay/sendApiRedPack", encoding, &payout.body(encoding))
            .await
    }

    pub async fn status(&self, encoding: Encoding, payout: &Payout) -> Answer {
        let fields = [
            ("wxAppId", payout.app.as_str()),
            ("mchId", &payout.mch_id),
            ("mchBillno", &payout.order_no),
            ("tradeRecordId", "1"),
        ];
        self.post("/pay/getApiRedPacketStatus", encoding, &encoding.write(&fields))
            .await
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the sidecar's log:\n{}", self.log());
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Encoding {
    Json,
    Xml,
}

pub const BOTH: [Encoding; 2] = [Encoding::Json, Encoding::Xml];

impl Encoding {
    pub fn media(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Xml => "application/xml",
        }
    }

    pub fn write(self, fields: &[(&str, &str)]) -> String {
        match self {
            Self::Json => {
                let parts: Vec<String> = fields
                    .iter()
                    .map(|(name, value)| format!("\"{name}\":{}", serde_json::Value::from(*value)))
                    .collect();
                format!("{{{}}}", parts.join(","))
            }
            Self::Xml => {
                let parts: Vec<String> = fields
                    .iter()
                    .map(|(name, value)| format!("<{name}><![CDATA[{value}]]></{name}>"))
                    .collect();
                format!("<xml>{}</xml>", parts.concat())
            }
        }
    }
}

/// One order, as the platform sends it.
#[derive(Clone, Debug)]
pub struct Payout {
    pub app: String,
    pub mch_id: String,
    pub order_no: String,
    pub user: String,
    pub amount: String,
    pub more: Vec<(&'static str, String)>,
}

impl Payout {
    pub fn new(order_no: &str) -> Self {
        Self {
            app: APP.into(),
            mch_id: MERCHANT.into(),
            order_no: order_no.into(),
            user: "user-1".into(),
            amount: "100".into(),
            more: vec![],
        }
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.more.push((name, value.to_owned()));
        self
    }

    pub fn body(&self, encoding: Encoding) -> String {
        let mut fields = vec![
            ("wxAppId", self.app.as_str()),
            ("mchId", &self.mch_id),
            ("mchBillno", &self.order_no),
            ("openid", &self.user),
            ("amount", &self.amount),
            ("clientIp", "10.0.0.1"),
            ("actName", "新年抽奖"),
            ("remark", "恭喜中奖 <&>"),
            ("tradeRecordId", "1"),
        ];
        fields.extend(self.more.iter().map(|(name, value)| (*name, value.as_str())));
        encoding.write(&fields)
    }
}

/// Where a test sends payouts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum To {
    Redpack,
    Transfer,
    /// v3. `certificates`: the sidecar downloads platform certificates instead of using a configured public key.
    Bill {
        certificates: bool,
    },
    Handler {
        idempotent: bool,
    },
}

/// A fake, and the configuration that sends payouts to it.
pub struct Upstream {
    pub fake: FakeWechat,
    pub dir: TempDir,
    pub to: To,
}

impl Upstream {
    pub async fn start(to: To) -> Self {
        let handler = match to {
            To::Handler { idempotent: false } => HandlerKind::PaysEachCall,
            _ => HandlerKind::Idempotent,
        };
        let fake = FakeWechat::start(Options {
            handler,
            ..Options::loopback()
        })
        .await
        .unwrap();
        let dir = tempfile::tempdir().unwrap();
        replace_all(dir.path(), &fake.pki(&[MERCHANT]).unwrap()).unwrap();
        if matches!(to, To::Bill { .. }) {
            replace_all(dir.path(), &fake.v3_pki(&[MERCHANT]).unwrap()).unwrap();
        }
        Self { fake, dir, to }
    }

    /// `[client_ip]`, `[wechat]`, `[backend]` and the merchant.
    pub fn configuration(&self) -> String {
        let pki = self.dir.path().display();
        let merchant = match self.to {
            To::Handler { idempotent } => format!(
                "[[merchant]]\nmch_id = \"{MERCHANT}\"\nto = \"handler\"\nhandler_url = \"http://{}\"\nidempotent = {idempotent}\n\
                 timeout = \"3s\"\n",
                self.fake.addr()
            ),
            To::Bill { certificates } => {
                let v3 = format!("{pki}/{MERCHANT}/v3");
                let public_key = if certificates {
                    String::new()
                } else {
                    format!(
                        "public_key_id = \"{PUBLIC_KEY_ID}\"\npublic_key = {{ file = \"{v3}/wechatpay_pub_key.pem\" }}\n"
                    )
                };
                format!(
                    "[[merchant]]\nmch_id = \"{MERCHANT}\"\nto = \"wechat\"\nproduct = \"transfer-bill\"\n\
                     cert = {{ file = \"{v3}/apiclient_cert.pem\" }}\nkey = {{ file = \"{v3}/apiclient_key.pem\" }}\n\
                     apiv3_key = {{ file = \"{v3}/apiv3-key\" }}\n{public_key}transfer_scene_id = \"1000\"\n\
                     user_recv_perception = \"现金奖励\"\nscene_report_infos = [\
                     {{ info_type = \"活动名称\", info_content = \"{{actName}}\" }}, \
                     {{ info_type = \"奖励说明\", info_content = \"{{remark}}\" }}]\n\
                     notify_url = \"http://127.0.0.1:MAIN_PORT/notify/bill\"\n"
                )
            }
            To::Redpack | To::Transfer => {
                let product = if self.to == To::Transfer {
                    "product = \"transfer\""
                } else {
                    "product = \"redpack\"\nsend_name = \"商户\"\nwishing = \"恭喜发财\""
                };
                format!(
                    "[[merchant]]\nmch_id = \"{MERCHANT}\"\nto = \"wechat\"\n{product}\napi_key = \"{API_KEY}\"\n\
                     cert = {{ file = \"{pki}/{MERCHANT}/apiclient_cert.pem\" }}\n\
                     key = {{ file = \"{pki}/{MERCHANT}/apiclient_key.pem\" }}\n"
                )
            }
        };
        format!(
            "[client_ip]\nvalue = \"203.0.113.7\"\n[backend]\nurl = \"http://{}\"\n\
             [wechat]\nbase_url = \"https://localhost:{}\"\nca = \"{pki}/stub-ca.crt\"\nconnect_timeout = \"3s\"\ntimeout = \"3s\"\n{merchant}",
            self.fake.addr(),
            self.fake.tls_addr().unwrap().port(),
        )
    }

    /// The fake's name for the call that pays.
    pub fn paying_call(&self) -> &'static str {
        match self.to {
            To::Redpack => "sendredpack",
            To::Transfer => "transfers",
            To::Bill { .. } => "transfer-bills",
            To::Handler { .. } => "send",
        }
    }

    /// How often the fake received the paying call for an order.
    pub fn times_sent(&self, order_no: &str) -> usize {
        self.fake
            .look(|books| books.times_asked(self.paying_call(), order_no))
    }
}

/// `[identity]` and `[ledger]` in files in `dir`.
pub fn embedded(dir: &TempDir) -> String {
    std::fs::write(
        dir.path().join("openids.csv"),
        format!("wx_app_id,user_id,openid\n{APP},user-1,{OPENID}\n"),
    )
    .unwrap();
    "[identity]\nsource = \"file\"\npath = \"openids.csv\"\n[ledger]\nstore = \"file\"\npath = \"payouts.redb\"\ncreate = true\n".to_owned()
}

/// `[identity]` and `[ledger]` in Redis.
pub fn in_redis(url: &str) -> String {
    format!(
        "[identity]\nsource = \"redis\"\nurl = \"{url}\"\n[ledger]\nstore = \"redis\"\nurl = \"{url}\"\ncreate = true\n"
    )
}
