//! Tests the path guard with routers of real frameworks (`routers/node`, `routers/python`, `routers/java`, installed by
//! `scripts/test`). Each router pays on every request that it takes for one of the contract's calls.
//!
//! The backend forwards what it receives from the sidecar, byte for byte, to all routers at once, so the test sends
//! each spelling only once.

mod spellings;

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use http_body_util::Full;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::support::sidecar::{Sidecar, embedded};
use test_support::http::call;
use test_support::tls::ask_http2;

use self::spellings::{SEEN, spellings};

/// The directory into which `scripts/test` has installed the packages of `routers/`. Fails if they are not those of
/// `list`.
fn installed(list: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"),
        PathBuf::from,
    );
    let folder = cache.join("payout-sidecar/routers");
    let ours = std::fs::read(sources().join(list)).unwrap();
    let theirs = std::fs::read(folder.join(list)).ok();
    assert!(
        theirs == Some(ours),
        "{} is not what {list} asks for: run `scripts/test`, which installs it",
        folder.display()
    );
    folder
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/routers")
}

/// A process with several routers, each on its own port. It exits when its standard input closes.
struct Program {
    child: Child,
    control: SocketAddr,
    routers: BTreeMap<String, SocketAddr>,
}

/// What a router received.
#[derive(Default)]
struct Book {
    paid: Vec<String>,
    seen: u64,
}

impl Program {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{command:?}: {error}; run `scripts/test`, which installs what is missing")
            });
        let mut line = String::new();
        let mut said = std::io::BufReader::new(child.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        let ports: Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{command:?}: {error}: {line}"));
        let address =
            |port: &Value| SocketAddr::from(([127, 0, 0, 1], u16::try_from(port.as_u64().unwrap()).unwrap()));
        let routers = ports["routers"].as_object().unwrap();
        Self {
            child,
            control: address(&ports["control"]),
            routers: routers
                .iter()
                .map(|(name, port)| (name.clone(), address(port)))
                .collect(),
        }
    }

    async fn books(&self) -> BTreeMap<String, Book> {
        let answer = call(self.control, "GET", "/", &[], b"").await;
        // Node.js may send the one line in chunks.
        let (from, to) = (answer.body.find('{').unwrap(), answer.body.rfind('}').unwrap());
        let books: BTreeMap<String, Value> = serde_json::from_str(&answer.body[from..=to]).unwrap();
        let paid = |book: &Value| {
            let urls = book["paid"].as_array().unwrap().iter();
            urls.map(|url| url.as_str().unwrap().to_owned()).collect()
        };
        books
            .iter()
            .map(|(name, book)| {
                let book = Book {
                    paid: paid(book),
                    seen: book["seen"].as_u64().unwrap(),
                };
                (name.clone(), book)
            })
            .collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

struct Routers {
    programs: [Program; 3],
    _node: tempfile::TempDir,
}

impl Routers {
    fn start() -> Self {
        // Node.js resolves packages relative to the program's file.
        let node = tempfile::tempdir().unwrap();
        let modules = installed("node/package-lock.json").join("node/node_modules");
        std::os::unix::fs::symlink(modules, node.path().join("node_modules")).unwrap();
        let program = node.path().join("routers.mjs");
        std::fs::copy(sources().join("node/routers.mjs"), &program).unwrap();
        let packages = installed("python/requirements.txt").join("python/packages");
        let programs = [
            Program::start(Command::new("node").arg(program)),
            Program::start(
                Command::new("python3")
                    .arg(sources().join("python/routers.py"))
                    .env("PYTHONPATH", packages)
                    .env("PYTHONDONTWRITEBYTECODE", "1"),
            ),
            Program::start(
                Command::new("java")
                    .arg("-Xmx128m")
                    .arg(sources().join("java/Routers.java")),
            ),
        ];
        Self {
            programs,
            _node: node,
        }
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        let programs = self.programs.iter();
        programs
            .flat_map(|program| program.routers.values().copied())
            .collect()
    }

    async fn books(&self) -> BTreeMap<String, Book> {
        let all = join_all(self.programs.iter().map(Program::books)).await;
        all.into_iter().flatten().collect()
    }
}

/// Sends a request to a router and waits for the first byte of the answer: by then it has paid, or it never will.
async fn hand_to(router: SocketAddr, request: &[u8]) {
    let exchange = async {
        let mut stream = TcpStream::connect(router).await?;
        stream.write_all(request).await?;
        // The router may also close the connection on a request that it cannot parse.
        stream.read_u8().await.map(drop)
    };
    let _answer = tokio::time::timeout(Duration::from_secs(20), exchange)
        .await
        .expect("the router answers or hangs up");
}

/// Starts a backend that forwards each request, byte for byte, to all routers. Returns its address and the targets it
/// receives.
async fn before_all(routers: Vec<SocketAddr>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let forwarded = Arc::<Mutex<Vec<String>>>::default();
    let all = forwarded.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (routers, forwarded) = (routers.clone(), all.clone());
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                while let Some(request) = whole_request(&mut stream).await {
                    let line = request.split(|byte| *byte == b'\r').next().unwrap();
                    let target = line.split(|byte| *byte == b' ').nth(1).unwrap();
                    forwarded
                        .lock()
                        .unwrap()
                        .push(String::from_utf8_lossy(target).into_owned());
                    join_all(routers.iter().map(|router| hand_to(*router, &request))).await;
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, forwarded)
}

/// Reads a head and the two bytes of its body.
async fn whole_request(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.ok()?);
    }
    let mut body = [0; 2];
    stream.read_exact(&mut body).await.ok()?;
    Some([request.as_slice(), &body].concat())
}

/// The body is an empty object: the contract's own paths refuse it, and nothing else reads it.
fn raw(target: &str) -> Vec<u8> {
    format!(
        "POST {target} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: 2\r\n\r\n{{}}"
    )
    .into_bytes()
}

async fn ask(sidecar: SocketAddr, target: &str) -> u16 {
    let answer = test_support::http::exchange(sidecar, &raw(target)).await;
    answer
        .unwrap_or_else(|| panic!("{target:?} was not answered"))
        .status
}

#[tokio::test(flavor = "multi_thread")]
async fn no_router_is_paid_past_the_ledger() {
    let routers = Routers::start();
    let (backend, forwarded) = before_all(routers.addresses()).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!(
        "[server]\nhttp2 = true\n{}[backend]\nurl = \"http://{backend}\"\n[[merchant]]\nmch_id = \"*\"\nto = \"handler\"\n\
         handler_url = \"http://{backend}\"\n",
        embedded(&dir)
    );
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;

    // Paths that clearly differ from the contract's reach every router.
    let ordinary = [
        "/pay/history?page=2",
        "/assets/app.js",
        "/pay/",
        "/%E7%BA%A2%E5%8C%85/x%2fy",
        "/a;b=c/d",
    ];
    for target in ordinary {
        assert_eq!(ask(sidecar.main, target).await, 200, "{target}");
    }
    for (name, book) in routers.books().await {
        assert_eq!(book.seen, u64::try_from(ordinary.len()).unwrap(), "{name}");
        assert!(book.paid.is_empty(), "{name}: {:?}", book.paid);
    }
    assert_eq!(*forwarded.lock().unwrap(), ordinary);
    forwarded.lock().unwrap().clear();

    let all = spellings();
    assert!(all.len() > 4000, "{}", all.len());
    let main = sidecar.main;
    let statuses: Vec<(String, u16)> = futures_util::stream::iter(all.clone())
        .map(|target| async move {
            let status = ask(main, &target).await;
            (target, status)
        })
        .buffer_unordered(32)
        .collect()
        .await;
    let as_uris = all.iter().filter_map(|target| {
        let uri = format!(
            "http://shop{}",
            target.strip_prefix("http://shop").unwrap_or(target)
        );
        let request = http::Request::post(uri).header("content-length", "2");
        request.body(Full::new(Bytes::from_static(b"{}"))).ok()
    });
    let as_uris: Vec<_> = as_uris.collect();
    assert!(as_uris.len() > 3000, "{}", as_uris.len());
    for some in as_uris.chunks(100) {
        let stream = TcpStream::connect(main).await.unwrap();
        let answers = ask_http2(stream, some.to_vec()).await.unwrap();
        assert_eq!(answers.len(), some.len());
    }

    let paid = routers.books().await;
    let paid = paid.iter().filter(|(_, book)| !book.paid.is_empty());
    let told: Vec<String> = paid
        .map(|(name, book)| {
            format!(
                "{name}: {} e.g. {:?}",
                book.paid.len(),
                &book.paid[..book.paid.len().min(4)]
            )
        })
        .collect();
    let forwarded = forwarded.lock().unwrap();
    assert!(
        told.is_empty(),
        "of {} requests {} were forwarded, and these were paid past the ledger:\n{}",
        all.len() + as_uris.len(),
        forwarded.len(),
        told.join("\n")
    );
    assert!(forwarded.is_empty(), "{forwarded:?}");
    // 400: HTTP does not allow such a target.
    let others = statuses.iter().filter(|(_, status)| ![404, 400].contains(status));
    assert_eq!(others.collect::<Vec<_>>(), Vec::<&(String, u16)>::new());
    assert!(statuses.iter().filter(|(_, status)| *status == 404).count() > 4000);
}

/// Sent directly, without the sidecar: each router pays, and at least one router pays each spelling of `SEEN`.
#[tokio::test(flavor = "multi_thread")]
async fn the_routers_pay_where_nobody_stands_before_them() {
    let routers = Routers::start();
    let mut paid = 0;
    let count = |books: BTreeMap<String, Book>| books.values().map(|book| book.paid.len()).sum::<usize>();
    for target in SEEN
        .iter()
        .chain(["/pay/sendApiRedPack", "/?s=/pay/sendApiRedPack"].iter())
    {
        let request = raw(target);
        join_all(
            routers
                .addresses()
                .into_iter()
                .map(|router| hand_to(router, &request)),
        )
        .await;
        let now = count(routers.books().await);
        assert!(now > paid, "{target} is paid by none of them");
        paid = now;
    }
    for (name, book) in routers.books().await {
        assert!(!book.paid.is_empty(), "{name} pays nothing");
    }
}
