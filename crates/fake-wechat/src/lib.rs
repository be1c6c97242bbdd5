//! A fake of WeChat Pay (v2 and v3) and of a customer's handler, for tests, the demo and staging.
//!
//! It records its payments (one per order number and parameters, like WeChat), verifies signatures and client
//! certificates, and injects faults on demand. It shares no code with `payout-domain`: a bug that both sides shared
//! would be invisible.
//!
//! | path | what it does |
//! |---|---|
//! | `/mmpaymkttransfers/{sendredpack, sendminiprogramhb, promotion/transfers, gethbinfo, gettransferinfo}` | WeChat Pay v2; over TLS it requires a client certificate whose CN is the merchant's number |
//! | `/v3/fund-app/mch-transfer/transfer-bills…`, `/v3/certificates` | WeChat Pay v3: a bill waits for its user until `/_stub/status` sets `SUCCESS` (confirmed), `FAIL` (expired), … |
//! | `/pay/sendApiRedPack`, `/pay/getApiRedPacketStatus` | a customer's handler, JSON or XML |
//! | `GET /_stub/payments` | lists every payment; a double payment is listed twice |
//! | `GET /_stub/requests` | lists every request for a payment or a query |
//! | `POST /_stub/faults` | replaces the faults by the body, in the grammar of [`faults`] |
//! | `POST /_stub/status?order=NO&status=WORD` | sets the status that queries return for an order from now on |
//! | `POST /_stub/notify?order=NO&how=WORD` | posts a bill's notification to its `notify_url`, and responds the status that came back; see `wechat_v3::notify` |
//! | `POST /_stub/rotate` | replaces the platform certificate |
//! | anything else | echoes method, path, headers and the body's length as JSON, for tests of the proxy |

pub mod books;

mod call;

mod control;

pub mod faults;

mod handler;

mod pki;

mod serve;

mod signature;

mod wechat_v2;

mod wechat_v3;

mod wire;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::task::AbortOnDropHandle;

use self::books::Books;
pub use self::faults::Faults;
use self::pki::Pki;
use self::wechat_v3::V3Keys;
pub use self::wechat_v3::{APIV3_KEY, BillKeys, PUBLIC_KEY_ID};

/// The API key of merchants without a key of their own.
pub const API_KEY: &str = "stub-api-key-0123456789abcdefghi";

/// A file for a directory of keys and certificates: its relative path and its text.
pub type PemFile = (PathBuf, String);

/// How the customer's handler treats a repeated order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandlerKind {
    /// Pays an order number once, and gives the same response to a repeat.
    Idempotent,
    /// Pays on every call.
    PaysEachCall,
}

/// How to start the fake.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address of the HTTP listener.
    pub listen: SocketAddr,
    /// The address of the TLS listener, which serves the same. `None`: no TLS.
    pub tls_listen: Option<SocketAddr>,
    /// The faults to inject.
    pub faults: Faults,
    /// The v2 API key of merchants without a key of their own.
    pub api_key: String,
    /// Merchants with their own API key.
    pub merchants: Vec<(String, String)>,
    /// How the customer's handler treats a repeated order.
    pub handler: HandlerKind,
}

impl Options {
    /// Free ports on loopback, with TLS, without faults.
    #[must_use]
    pub fn loopback() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            listen: any,
            tls_listen: Some(any),
            faults: Faults::default(),
            api_key: API_KEY.to_owned(),
            merchants: Vec::new(),
            handler: HandlerKind::Idempotent,
        }
    }
}

/// Why the fake could not make or send something.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Why the fake did not start.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant says it in its text")]
pub enum StartError {
    #[error("the stub cannot listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("the stub's certificates cannot be made: {0}")]
    Certificates(Failure),
}

/// The state that all connections share.
pub(crate) struct World {
    pub(crate) books: Mutex<Books>,
    pub(crate) faults: Mutex<Faults>,
    pub(crate) api_key: String,
    pub(crate) merchants: Vec<(String, String)>,
    pub(crate) handler: HandlerKind,
    pub(crate) connections: AtomicU64,
    pub(crate) v3: V3Keys,
}

impl World {
    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn key_of(&self, mch_id: &str) -> &str {
        let own = self.merchants.iter().find(|(name, _)| name == mch_id);
        own.map_or(&self.api_key, |(_, key)| key)
    }
}

/// A running fake. Dropping it stops it.
pub struct FakeWechat {
    world: Arc<World>,
    pki: Pki,
    addr: SocketAddr,
    tls_addr: Option<SocketAddr>,
    tasks: Vec<AbortOnDropHandle<()>>,
}

impl FakeWechat {
    /// Starts the listeners.
    ///
    /// # Errors
    /// Returns [`StartError`] if a listener does not start or the certificates cannot be made.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let pki = Pki::make().map_err(StartError::Certificates)?;
        let world = Arc::new(World {
            books: Mutex::new(Books::default()),
            faults: Mutex::new(options.faults),
            api_key: options.api_key,
            merchants: options.merchants,
            handler: options.handler,
            connections: AtomicU64::new(0),
            v3: V3Keys::default(),
        });
        let mut tasks = Vec::new();
        let (addr, task) = serve::listen(options.listen, None, Arc::clone(&world)).await?;
        tasks.push(task);
        let mut tls_addr = None;
        if let Some(address) = options.tls_listen {
            let acceptor = pki.acceptor().map_err(StartError::Certificates)?;
            let (addr, task) = serve::listen(address, Some(acceptor), Arc::clone(&world)).await?;
            tls_addr = Some(addr);
            tasks.push(task);
        }
        Ok(Self {
            world,
            pki,
            addr,
            tls_addr,
            tasks,
        })
    }

    /// The address of the HTTP listener.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address of the TLS listener.
    #[must_use]
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_addr
    }

    /// The CA of the server's certificate, PEM. It belongs into `[wechat] ca`.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        self.pki.ca_pem()
    }

    /// Makes a client certificate and its key for a merchant. Returns both as PEM.
    ///
    /// # Errors
    /// Returns why the fake could not make it.
    pub fn client_certificate(&self, mch_id: &str) -> Result<(String, String), Failure> {
        self.pki.client(mch_id)
    }

    /// Makes a merchant's certificate and RSA key for v3. From now on the fake accepts them.
    ///
    /// # Errors
    /// Returns why the fake could not make them.
    pub fn bill_keys(&self, mch_id: &str) -> Result<BillKeys, Failure> {
        self.world.v3.merchant(&self.pki, mch_id)
    }

    /// Sends the notification of a bill to its `notify_url`, and returns the HTTP status of the response. `how`
    /// is empty, or one of the words of `POST /_stub/notify`.
    ///
    /// # Errors
    /// Returns why the fake could not send it, e.g. because it has no such bill or cannot reach the
    /// `notify_url`.
    pub async fn notify(&self, order_no: &str, how: &str) -> Result<u16, String> {
        let sent = wechat_v3::notify(&self.world, order_no, how).await;
        sent.map_err(|error| error.to_string())
    }

    /// Replaces the platform certificate that signs v3 responses.
    ///
    /// # Errors
    /// Returns why the fake could not make it.
    pub fn rotate_platform_certificate(&self) -> Result<(), Failure> {
        self.world.v3.rotate()
    }

    /// A copy of the records so far.
    #[must_use]
    pub fn books(&self) -> Books {
        self.world.books().clone()
    }

    /// Reads the records without copying them. The fake makes no payment meanwhile.
    pub fn look<T>(&self, at: impl FnOnce(&Books) -> T) -> T {
        at(&self.world.books())
    }

    /// The number of connections that the fake has accepted so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.world.connections.load(Ordering::Relaxed)
    }

    /// Replaces the faults.
    pub fn set_faults(&self, faults: Faults) {
        *self.world.faults() = faults;
    }

    /// Sets the status that queries return for an order from now on (`RECEIVED`, `FAILED`, …).
    pub fn set_status(&self, order_no: &str, status: &str) {
        self.world.books().set_status(order_no, status);
    }

    /// Makes `stub-ca.crt`, and for each merchant `<mch_id>/apiclient_cert.pem` and
    /// `<mch_id>/apiclient_key.pem`. The caller writes them to a directory.
    ///
    /// # Errors
    /// Returns why the fake could not make a key.
    pub fn pki(&self, mch_ids: &[impl AsRef<str>]) -> Result<Vec<PemFile>, Failure> {
        let mut files = vec![("stub-ca.crt".into(), self.ca_pem().to_owned())];
        for mch_id in mch_ids {
            let (cert, key) = self.client_certificate(mch_id.as_ref())?;
            let folder = Path::new(mch_id.as_ref());
            files.push((folder.join("apiclient_cert.pem"), cert));
            files.push((folder.join("apiclient_key.pem"), key));
        }
        Ok(files)
    }

    /// Makes for each merchant the files of its v3 configuration, in `<mch_id>/v3`: `apiclient_cert.pem`,
    /// `apiclient_key.pem`, `apiv3-key`, `wechatpay_pub_key.pem`.
    ///
    /// # Errors
    /// Returns why the fake could not make a key.
    pub fn v3_pki(&self, mch_ids: &[impl AsRef<str>]) -> Result<Vec<PemFile>, Failure> {
        let mut files = Vec::new();
        for mch_id in mch_ids {
            let keys = self.bill_keys(mch_id.as_ref())?;
            let folder = Path::new(mch_id.as_ref()).join("v3");
            files.push((folder.join("apiclient_cert.pem"), keys.cert_pem));
            files.push((folder.join("apiclient_key.pem"), keys.key_pem));
            files.push((folder.join("apiv3-key"), APIV3_KEY.to_owned()));
            files.push((folder.join("wechatpay_pub_key.pem"), keys.public_key_pem));
        }
        Ok(files)
    }

    /// Stops listening, and cuts open connections.
    pub async fn shutdown(self) {
        for task in self.tasks {
            task.abort();
            let _ended = task.await.is_ok();
        }
    }
}
