//! Keeps `docs/api.md`, its Chinese version `docs/zh/api.md` and `docs/openapi.json` true. The tests send every `curl`
//! command of both documents to a real sidecar before the fake, and compare the answer shown beneath it. They compare
//! the lists of fields and codes with the code's own, and every example with the schemas. They do not compare the prose
//! of the two languages.
//!
//! An example is a comment `<!-- example: SIDECAR OPTION… -->`, a block `sh` with one `curl` command and a block `http`
//! with the answer: the status line, the header lines that matter, an empty line, the body. [`Scene::start`] lists the
//! sidecars, [`Options`] the options. In a body a line break with the blanks after it is layout, and a time stands for
//! any time. `PAYOUT_UPDATE_DOCS=1 cargo test --test it -- api_document` writes the real answers into both documents.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use payout_domain::contract::err_code::ErrCode;
use payout_domain::contract::send::{FIELDS, SendRequest};
use payout_domain::contract::status::StatusRequest;
use payout_domain::encoding::Encoding;
use payout_domain::handler;
use payout_domain::ids::OpenId;
use payout_domain::outcome::Class;
use payout_domain::wechat::{Product, codes, v3};
use serde_json::{Value, json};
use test_support::http::{Answer, call};
use test_support::{free_port, until};

use crate::support::schema::Schemas;
use crate::support::sidecar::{MERCHANT, OPENID, Sidecar, To, Upstream, embedded};

const SEND: &str = "/pay/sendApiRedPack";
const STATUS: &str = "/pay/getApiRedPacketStatus";
/// Where the document says that the sidecar listens, and the handler of the document.
const SIDECAR: &str = "http://127.0.0.1:8080";
const HANDLER: &str = "http://127.0.0.1:8000";
/// The handler's token in the document.
const TOKEN: &str = "s3cret-0123456789abcdef";
/// How a time is shown.
const A_TIME: &str = "2026-01-15 09:30:00";
/// The longest line of an answer that is written into the document.
const WIDTH: usize = 100;
/// The API's page, and its Chinese version.
const ENGLISH: Document = Document {
    name: "api.md",
    least: 46,
    has_every_code: true,
};
const CHINESE: Document = Document {
    name: "zh/api.md",
    least: 19,
    has_every_code: false,
};

/// A document with examples.
#[derive(Debug)]
struct Document {
    /// Its path below `docs`.
    name: &'static str,
    /// The fewest examples that it may have, so that none is lost unnoticed.
    least: usize,
    /// Whether its examples show every own error code.
    has_every_code: bool,
}

impl Document {
    fn text(&self) -> String {
        std::fs::read_to_string(path_of(self.name)).unwrap()
    }
}

fn path_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

/// A `curl` command: what it sends, and to whom.
#[derive(Debug)]
struct Request {
    method: String,
    is_for_handler: bool,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Request {
    /// Reads a command with the options `-i`, `-X`, `-H` and `-d`. A command with a body must give its `Content-Type`,
    /// or an empty one, by which curl sends none: curl's own would be a form's.
    fn parse(command: &str) -> Self {
        let mut words = words(command).into_iter();
        assert_eq!(words.next().as_deref(), Some("curl"), "{command}");
        let mut request = Self {
            method: String::new(),
            is_for_handler: false,
            path: String::new(),
            headers: Vec::new(),
            body: String::new(),
        };
        let mut has_type = false;
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .unwrap_or_else(|| panic!("{word} has no value: {command}"))
            };
            match word.as_str() {
                "-i" => {}
                "-X" => request.method = value(),
                "-d" => request.body = value(),
                "-H" => {
                    let header = value();
                    let (name, text) = header.split_once(':').unwrap();
                    has_type |= name.eq_ignore_ascii_case("content-type");
                    if !text.is_empty() {
                        request.headers.push((name.to_owned(), text.trim().to_owned()));
                    }
                }
                url => {
                    request.is_for_handler = url.starts_with(HANDLER);
                    let path = url.strip_prefix(SIDECAR).or_else(|| url.strip_prefix(HANDLER));
                    request.path = path.unwrap_or_else(|| panic!("{url}: {command}")).to_owned();
                }
            }
        }
        assert!(request.path.starts_with('/'), "{command}");
        assert!(
            request.body.is_empty() || has_type,
            "curl would send a form: {command}"
        );
        if request.method.is_empty() {
            request.method = if request.body.is_empty() { "GET" } else { "POST" }.to_owned();
        }
        request
    }

    async fn send(&self, address: SocketAddr) -> Answer {
        let headers: Vec<_> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        call(address, &self.method, &self.path, &headers, self.body.as_bytes()).await
    }

    /// The body as JSON, in whichever encoding it is; XML has texts only.
    fn fields(&self) -> Value {
        fields(&self.body)
    }
}

/// The words of a command as a shell takes them apart, which here knows blanks, `'…'` and `\` before a line's end.
fn words(command: &str) -> Vec<String> {
    let command = command.replace("\\\n", " ");
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut is_quoted = false;
    for c in command.chars() {
        match c {
            '\'' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            c if c.is_whitespace() && !is_quoted => words.extend(word.take()),
            c => {
                assert!(is_quoted || !"\"\\$`|;&<>#".contains(c), "{c} in {command}");
                word.get_or_insert_default().push(c);
            }
        }
    }
    assert!(!is_quoted, "{command}");
    words.extend(word);
    words
}

/// The fields of a body, in whichever encoding it is.
fn fields(body: &str) -> Value {
    if body.starts_with('<') {
        let fields = payout_domain::xml::decode(body, payout_domain::xml::Nested::Refuse).unwrap();
        let texts = fields
            .iter()
            .map(|(name, value)| (name.to_owned(), value.characters().into()));
        return Value::Object(texts.collect());
    }
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

/// What an example needs besides its sidecar.
#[derive(Debug, Default)]
struct Options {
    /// `faults=SPEC`: what goes wrong upstream, for this example only.
    faults: String,
    /// `twice`: the same command runs already, and the upstream has been asked.
    is_second: bool,
}

/// An example, and where its answer stands in the document.
#[derive(Debug)]
struct Example {
    sidecar: String,
    options: Options,
    request: Request,
    answer: std::ops::Range<usize>,
}

fn examples(document: &str) -> Vec<Example> {
    let mut found = Vec::new();
    let mut rest = 0;
    while let Some(at) = document[rest..].find("<!-- example: ") {
        let begin = rest + at + "<!-- example: ".len();
        let end = begin + document[begin..].find(" -->").unwrap();
        let mut told = document[begin..end].split(' ');
        let sidecar = told.next().unwrap().to_owned();
        let mut options = Options::default();
        for option in told {
            match option.split_once('=') {
                Some(("faults", spec)) => options.faults = spec.to_owned(),
                None if option == "twice" => options.is_second = true,
                _ => panic!("{option} is no option"),
            }
        }
        let block = |from: usize, kind: &str| {
            let fence = format!("```{kind}\n");
            let begin = from + document[from..].find(&fence).unwrap() + fence.len();
            begin..begin + document[begin..].find("```\n").unwrap()
        };
        let command = block(end, "sh");
        let answer = block(command.end, "http");
        let next = document[end..]
            .find("<!-- example: ")
            .map_or(document.len(), |at| end + at);
        assert!(
            answer.end <= next,
            "an example has no answer: {}",
            &document[begin..end]
        );
        rest = answer.end;
        found.push(Example {
            sidecar,
            options,
            request: Request::parse(&document[command]),
            answer,
        });
    }
    assert_eq!(
        document.matches("```http\n").count(),
        found.len(),
        "an answer is shown that belongs to no example"
    );
    found
}

/// The text with every `yyyy-MM-dd HH:mm:ss` made the same one.
fn with_one_time(text: &str) -> String {
    let is_time = |bytes: &[u8]| {
        bytes.iter().zip(A_TIME.bytes()).all(|(byte, shape)| {
            byte.is_ascii_digit() == shape.is_ascii_digit() && (shape.is_ascii_digit() || *byte == shape)
        })
    };
    let mut text = text.to_owned();
    for at in 0..text.len().saturating_sub(A_TIME.len() - 1) {
        if is_time(&text.as_bytes()[at..at + A_TIME.len()]) {
            text.replace_range(at..at + A_TIME.len(), A_TIME);
        }
    }
    text
}

/// What the document shows of an answer: status line, headers, body in one line.
#[derive(Debug, PartialEq)]
struct Shown {
    status: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Shown {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        let mut lines = head.lines();
        Self {
            status: lines.next().unwrap().to_owned(),
            headers: lines
                .map(|line| line.split_once(": ").unwrap())
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body: with_one_time(&body.lines().map(str::trim_start).collect::<String>()),
        }
    }

    /// The real answer, with those headers that the document shows.
    fn of(answer: &Answer, headers: &[(String, String)]) -> Self {
        let reason = http::StatusCode::from_u16(answer.status)
            .unwrap()
            .canonical_reason()
            .unwrap();
        let value = |name: &str| answer.headers.get(name).map_or("(none)", String::as_str);
        Self {
            status: format!("HTTP/1.1 {} {reason}", answer.status),
            headers: headers
                .iter()
                .map(|(name, _)| (name.clone(), value(name).to_owned()))
                .collect(),
            body: with_one_time(answer.body.trim_end()),
        }
    }

    /// As it is written into the document.
    fn text(&self) -> String {
        let mut text = format!("{}\n", self.status);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\n"));
        }
        if self.body.is_empty() {
            return text;
        }
        text.push('\n');
        let (between, before, after) = if self.body.starts_with('<') {
            ("><", ">", "<")
        } else {
            ("\",\"", "\",", "\"")
        };
        let pieces: Vec<&str> = self.body.split(between).collect();
        let mut line = String::new();
        for (n, piece) in pieces.iter().enumerate() {
            let is_last = n + 1 == pieces.len();
            let whole = format!(
                "{}{piece}{}",
                if n == 0 { "" } else { after },
                if is_last { "" } else { before }
            );
            // A text and an end tag stay with the start tag.
            let is_joined = whole.starts_with("</") || whole.starts_with("<![");
            if !line.is_empty() && !is_joined && line.chars().count() + whole.chars().count() > WIDTH {
                text.push_str(&line);
                text.push('\n');
                line = " ".to_owned();
            }
            line.push_str(&whole);
        }
        text.push_str(&line);
        text.push('\n');
        text
    }
}

/// The code of the handler that a document shows.
fn handler_code(document: &str) -> &str {
    let code = document.split("```python\n").nth(1).unwrap();
    code.split("```").next().unwrap()
}

/// The documents' handler. Killed when dropped.
struct Handler {
    child: Child,
    address: SocketAddr,
    _books: tempfile::TempDir,
}

impl Handler {
    async fn start() -> Self {
        let document = ENGLISH.text();
        let code = handler_code(&document);
        let lines = code.lines().filter(|line| !line.is_empty());
        assert!(lines.count() <= 30, "the handler is meant to be short");
        let port = free_port();
        let books = tempfile::tempdir().unwrap();
        let child = Command::new("python3")
            .args(["-c", code])
            .env("HANDLER_TOKEN", TOKEN)
            .env("PORT", port.to_string())
            .env("BOOKS", books.path().join("books.sqlite3"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let handler = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            _books: books,
        };
        until("the handler listens", async || {
            tokio::net::TcpStream::connect(handler.address).await.is_ok()
        })
        .await;
        handler
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A sidecar with what stands behind it.
struct Scene {
    sidecar: Sidecar,
    upstream: Upstream,
    handler: Option<Handler>,
}

impl Scene {
    /// The sidecars of the examples, by their names.
    async fn start(name: &str) -> Self {
        let to = match name {
            "transfer" => To::Transfer,
            "bill" => To::Bill { certificates: false },
            _ => To::Redpack,
        };
        let upstream = Upstream::start(to).await;
        let handler = match name {
            "handler" => Some(Handler::start().await),
            _ => None,
        };
        let before = match name {
            "redpack" | "transfer" | "bill" | "handler" | "down" => "",
            "limited" => "[limits]\nmax_amount = 20000\npayouts_per_user_per_day = 1\n",
            "signed" => "[access]\nsign_key = \"k3y\"\n",
            "token" => "[access]\ntoken = \"t0ken\"\n",
            "elsewhere" => "[access]\nallow_from = [\"192.0.2.0/24\"]\n",
            "small" => "[server]\nmax_body = \"100B\"\n",
            "slow" => "[server]\nrequest_timeout = \"1s\"\n",
            "busy" => "[server]\nmax_in_flight = 1\n",
            other => panic!("no sidecar is called {other}"),
        };
        let configuration = upstream.configuration();
        let configuration = match (name, &handler) {
            ("down", _) => configuration.replace(
                &format!(":{}\"\nca", upstream.fake.tls_addr().unwrap().port()),
                &format!(":{}\"\nca", free_port()),
            ),
            (_, Some(handler)) => {
                let (head, _) = configuration.split_once("[[merchant]]").unwrap();
                format!(
                    "{head}[[merchant]]\nmch_id = \"{MERCHANT}\"\nto = \"handler\"\nhandler_url = \"http://{}\"\n\
                     handler_format = \"json\"\nidempotent = true\nhandler_token = \"{TOKEN}\"\n",
                    handler.address
                )
            }
            _ => configuration,
        };
        let dir = tempfile::tempdir().unwrap();
        let configuration = format!("{before}{}{configuration}", embedded(&dir));
        Self {
            sidecar: Sidecar::start_in(dir, &configuration, &[]).await,
            upstream,
            handler,
        }
    }

    async fn run(&self, example: &Example) -> Answer {
        let Example { request, options, .. } = example;
        let address = match (&self.handler, request.is_for_handler) {
            (Some(handler), true) => handler.address,
            (None, true) => panic!("{} has no handler", example.sidecar),
            (_, false) => self.sidecar.main,
        };
        self.upstream.fake.set_faults(options.faults.parse().unwrap());
        if !options.is_second {
            return request.send(address).await;
        }
        let order_no = request.fields()["mchBillno"].as_str().unwrap().to_owned();
        let first = request.send(address);
        let second = async {
            until("the upstream is asked", async || {
                self.upstream.times_sent(&order_no) == 1
            })
            .await;
            request.send(address).await
        };
        futures_util::join!(first, second).1
    }
}

/// Every example of the documents, against a sidecar: the answer that is shown is the real one.
#[tokio::test(flavor = "multi_thread")]
async fn api_document_shows_real_answers() {
    run_examples(&ENGLISH).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn api_document_in_chinese_shows_real_answers() {
    run_examples(&CHINESE).await;
}

async fn run_examples(document: &Document) {
    let mut text = document.text();
    let examples = examples(&text);
    let count = examples.len();
    assert!(count >= document.least, "only {count} examples: {document:?}");
    let schemas = Schemas::read(&path_of("openapi.json"));
    let mut scenes: HashMap<String, Scene> = HashMap::new();
    let mut replaced = Vec::new();
    let (mut wrong, mut unfit) = (Vec::new(), Vec::new());
    let mut codes = BTreeSet::new();
    for example in examples {
        if !scenes.contains_key(&example.sidecar) {
            let scene = Scene::start(&example.sidecar).await;
            scenes.insert(example.sidecar.clone(), scene);
        }
        let answer = scenes[&example.sidecar].run(&example).await;
        let shown = Shown::parse(&text[example.answer.clone()]);
        let real = Shown::of(&answer, &shown.headers);
        if shown != real {
            wrong.push(format!("{:?}\nis answered\n\n{}", example.request, real.text()));
        }
        unfit.extend(misfit(&schemas, &example, &answer));
        if request_is_contracts(&example.request) && !answer.body.is_empty() {
            codes.extend(
                fields(answer.body.trim_end())["errCode"]
                    .as_str()
                    .map(str::to_owned),
            );
        }
        replaced.push((example.answer, real.text()));
    }
    if std::env::var_os("PAYOUT_UPDATE_DOCS").is_some() {
        for (at, real) in replaced.into_iter().rev() {
            text.replace_range(at, &real);
        }
        std::fs::write(path_of(document.name), text).unwrap();
        wrong.clear();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(unfit.is_empty(), "{}", unfit.join("\n"));
    if document.has_every_code {
        for code in ErrCode::ALL.map(ErrCode::as_str) {
            assert!(codes.contains(code), "no example answers {code}");
        }
    }
}

fn request_is_contracts(request: &Request) -> bool {
    matches!(request.path.split('?').next(), Some(SEND | STATUS))
}

/// What of an example's request and answer is not as `docs/openapi.json` says. A request that the sidecar calls
/// malformed must not fit.
fn misfit(schemas: &Schemas, example: &Example, answer: &Answer) -> Option<String> {
    let request = &example.request;
    if !request_is_contracts(request) {
        return None;
    }
    let operation = match (request.path.as_str(), request.is_for_handler) {
        (SEND, false) => "/paths/~1pay~1sendApiRedPack/post",
        (_, false) => "/paths/~1pay~1getApiRedPacketStatus/post",
        (SEND, true) => "/webhooks/sendApiRedPack/post",
        (_, true) => "/webhooks/getApiRedPacketStatus/post",
    };
    let said = answer.body.trim_end();
    let encoding = |body: &str| if body.starts_with('<') { "xml" } else { "json" };
    let schema = |part: &str, body: &str| {
        format!(
            "{operation}/{part}/content/application~1{}/schema",
            encoding(body)
        )
    };
    let mut faults = Vec::new();
    if !request.body.is_empty() {
        let told = fields(said_or_empty(said));
        let is_malformed =
            answer.status == 200 && told["returnCode"] == "FAIL" && told["errCode"] == "PARAM_ERROR";
        match schemas.check(&schema("requestBody", &request.body), &request.fields()) {
            Ok(()) if is_malformed => faults.push("the schema takes what the sidecar refuses".to_owned()),
            Err(why) if !is_malformed => faults.push(format!("the request: {why}")),
            Ok(()) | Err(_) => {}
        }
    }
    let response = format!("responses/{}", answer.status);
    if !schemas.has(&format!("{operation}/{response}")) {
        faults.push(format!("the answer's status {} is not listed", answer.status));
    } else if !said.is_empty() {
        let checked = schemas.check(&schema(&response, said), &fields(said));
        faults.extend(checked.err().map(|why| format!("the answer: {why}")));
    }
    (!faults.is_empty()).then(|| format!("{request:?}\n{said}\n{faults:?}"))
}

fn said_or_empty(said: &str) -> &str {
    if said.is_empty() { "{}" } else { said }
}

/// The first columns of the table after a heading: the names in backticks.
fn named(document: &str, heading: &str) -> Vec<String> {
    let rows = rows(document, heading);
    rows.iter().flat_map(|row| ticked(&row[0])).collect()
}

fn ticked(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The rows of the first table after a heading.
fn rows(document: &str, heading: &str) -> Vec<Vec<String>> {
    let section = document
        .split(&format!("\n{heading}\n"))
        .nth(1)
        .unwrap_or_else(|| panic!("no heading {heading}"));
    let rows: Vec<Vec<String>> = section
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            line.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect();
    assert!(!rows.is_empty(), "no table after {heading}");
    rows
}

fn set<T: Into<String>>(names: impl IntoIterator<Item = T>) -> BTreeSet<String> {
    names.into_iter().map(Into::into).collect()
}

/// What a request's reader says of a field that has a value of a type which no field takes, and of one that is absent.
fn probe(read: fn(Value) -> Result<(), String>, name: &str) -> (bool, bool) {
    let good = json!({
        "wxAppId": "wx1", "mchId": "19", "mchBillno": "A1", "openid": "u", "amount": 1, "clientIp": "10.0.0.1",
        "actName": "a", "remark": "r", "tradeRecordId": 1
    });
    read(good.clone()).unwrap();
    let mut wrong = good.clone();
    wrong[name] = json!({});
    let mut absent = good;
    absent.as_object_mut().unwrap().remove(name);
    let names = |read: Result<(), String>| read.is_err_and(|why| why.contains(name));
    (names(read(wrong)), names(read(absent)))
}

fn read_send(body: Value) -> Result<(), String> {
    let text = body.to_string();
    let fields = payout_domain::json::decode(&text).map_err(|error| error.to_string())?;
    SendRequest::read(fields)
        .map(|_| ())
        .map_err(|fault| fault.text.into_owned())
}

fn read_status(body: Value) -> Result<(), String> {
    let text = body.to_string();
    let fields = payout_domain::json::decode(&text).map_err(|error| error.to_string())?;
    StatusRequest::read(fields)
        .map(|_| ())
        .map_err(|fault| fault.text.into_owned())
}

/// Both documents list the fields that the code reads, and say of the same ones that they are required.
#[test]
fn api_document_lists_the_fields_that_the_code_reads() {
    let (document, schemas) = (ENGLISH.text(), Schemas::read(&path_of("openapi.json")));
    type Read = fn(Value) -> Result<(), String>;
    for (heading, schema, reader) in [
        ("### Fields to pay", "SendRequest", read_send as Read),
        ("### Fields to ask", "StatusRequest", read_status as Read),
    ] {
        let probed = FIELDS.map(|name| (name, probe(reader, name)));
        let read = set(probed
            .iter()
            .filter(|(_, (read, _))| *read)
            .map(|(name, _)| *name));
        let mut required = set(probed
            .iter()
            .filter(|(_, (_, required))| *required)
            .map(|(name, _)| *name));
        assert!(read.len() > 6 && required.len() > 3, "{read:?} {required:?}");
        assert_eq!(set(named(&document, heading)), read, "{heading}");
        let says_yes = rows(&document, heading)
            .into_iter()
            .filter(|row| row[2].starts_with("yes"));
        let mut said: BTreeSet<String> = says_yes.flat_map(|row| ticked(&row[0])).collect();
        // `[client_ip]` may give the one, and `totalAmount` is the other's older name.
        said.remove("clientIp");
        assert_eq!(said, required, "{heading}");
        let whole = schemas.at(&format!("/components/schemas/{schema}"));
        let listed = whole["properties"].as_object().unwrap().keys();
        // `[access] sign_key` asks for these two of either request.
        let mut expected = read;
        expected.extend(set(["sign", "nonceStr"]));
        assert_eq!(set(listed), expected, "{schema}");
        let names = whole["required"].as_array().unwrap().iter();
        required.remove("amount");
        assert_eq!(
            set(names.map(|name| name.as_str().unwrap())),
            required,
            "{schema}"
        );
    }
    assert_eq!(set(FIELDS).len(), FIELDS.len());
}

/// Both documents list the same fields of answers.
#[test]
fn api_document_and_schemas_list_the_same_fields_of_answers() {
    let (document, schemas) = (ENGLISH.text(), Schemas::read(&path_of("openapi.json")));
    for (heading, schema) in [
        ("### Fields of an answer to pay", "SendAnswer"),
        ("### Fields of an answer to ask", "StatusAnswer"),
    ] {
        let whole = schemas.at(&format!("/components/schemas/{schema}"));
        let listed = whole["properties"].as_object().unwrap().keys();
        assert_eq!(set(named(&document, heading)), set(listed), "{schema}");
    }
}

/// Both documents list the contract's own codes, and those of WeChat's that reach the caller: what is certainly not
/// paid.
#[test]
fn api_document_lists_every_code() {
    let (document, schemas) = (ENGLISH.text(), Schemas::read(&path_of("openapi.json")));
    let strings = |at: &str| {
        let listed = schemas.at(at).as_array().unwrap().clone();
        set(listed.iter().map(|code| code.as_str().unwrap().to_owned()))
    };
    let own = set(ErrCode::ALL.map(ErrCode::as_str));
    assert_eq!(set(named(&document, "### Own codes")), own);
    assert_eq!(strings("/components/schemas/ErrCode/enum"), own);

    let mut passed: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let mut pass = |code: &str, class: Class| {
        let word = match class {
            Class::Refused | Class::RejectedUnprocessed => "the same",
            Class::NumberSpent => "a new one",
            Class::Unknown | Class::Conflict => return,
        };
        passed.entry(code.to_owned()).or_default().insert(word);
    };
    for product in [Product::Redpack, Product::Transfer] {
        for code in codes::listed(product) {
            pass(code, codes::class(product, code));
        }
    }
    let table = rows(&document, "### WeChat's codes");
    for code in table.iter().flat_map(|row| ticked(&row[0])) {
        pass(&code, v3::answer::class(&code));
    }
    // A v3 answer's codes are no table in the code; this is their number.
    let of_v3 = table
        .iter()
        .flat_map(|row| ticked(&row[0]))
        .filter(|code| v3::answer::class(code) != Class::Unknown);
    assert_eq!(of_v3.count(), 7);
    let said: BTreeMap<String, BTreeSet<&str>> = table
        .iter()
        .flat_map(|row| {
            let word = if row[2].starts_with("a new one") {
                "a new one"
            } else {
                "the same"
            };
            ticked(&row[0])
                .into_iter()
                .map(move |code| (code, BTreeSet::from([word])))
        })
        .collect();
    assert_eq!(said, passed);
    assert_eq!(
        strings("/components/schemas/WechatErrCode/enum"),
        set(passed.into_keys())
    );
}

/// The Chinese page lists the contract's own codes, and the same fields, words, codes and statuses as the English one.
#[test]
fn api_document_in_chinese_lists_the_same_names() {
    let (english, chinese) = (ENGLISH.text(), CHINESE.text());
    let own = named(&chinese, "### sidecar 的错误码");
    assert_eq!(own.len(), ErrCode::ALL.len());
    assert_eq!(set(own), set(ErrCode::ALL.map(ErrCode::as_str)));
    for (heading, of_chinese) in [
        ("### Fields to pay", "### 付款请求的字段"),
        ("### Fields of an answer to pay", "### 付款应答的字段"),
        ("### Fields to ask", "### 查询请求的字段"),
        ("### Fields of an answer to ask", "### 查询应答的字段"),
        ("### Status", "### 状态"),
        ("### WeChat's codes", "### 微信支付的错误码"),
        ("## Access", "## 访问控制"),
    ] {
        assert_eq!(named(&chinese, of_chinese), named(&english, heading), "{heading}");
    }
    // Whether a field is required, and which number the next attempt needs.
    for (heading, of_chinese, words) in [
        ("### Fields to pay", "### 付款请求的字段", ("yes", "是")),
        ("### Fields to ask", "### 查询请求的字段", ("yes", "是")),
        (
            "### WeChat's codes",
            "### 微信支付的错误码",
            ("a new one", "新单号"),
        ),
        ("### Own codes", "### sidecar 的错误码", ("**yes**", "**是**")),
    ] {
        let says = |document: &str, heading: &str, word: &str| -> Vec<bool> {
            let rows = rows(document, heading);
            rows.iter().map(|row| row[2].starts_with(word)).collect()
        };
        let expected = says(&english, heading, words.0);
        assert!(expected.contains(&true), "{heading}");
        assert_eq!(says(&chinese, of_chinese, words.1), expected, "{heading}");
    }
    let statuses = |document: &str, heading: &str| -> Vec<Vec<String>> {
        let rows = rows(document, heading);
        rows.into_iter().map(|row| row[..2].to_vec()).collect()
    };
    assert_eq!(
        statuses(&chinese, "## HTTP 状态码"),
        statuses(&english, "## HTTP statuses")
    );
    assert_eq!(handler_code(&chinese), handler_code(&english));
}

/// What the documents show of the handler's requests is what the sidecar sends for the same request of the platform.
#[test]
fn api_document_shows_what_a_handler_receives() {
    for document in [ENGLISH, CHINESE] {
        compare_with_what_a_handler_receives(&document);
    }
}

fn compare_with_what_a_handler_receives(document: &Document) {
    let mut compared = 0;
    for Example { request, .. } in examples(&document.text()) {
        let has_token = request.headers.iter().any(|(_, value)| value == TOKEN);
        if !request.is_for_handler || !has_token {
            continue;
        }
        let shown = request.fields();
        let sent = if request.path == SEND {
            assert_eq!(shown["openid"], OPENID);
            let mut asked = shown.clone();
            asked["openid"] = "user-1".into();
            let text = asked.to_string();
            let asked = SendRequest::read(payout_domain::json::decode(&text).unwrap()).unwrap();
            let key = asked.key();
            let named = |name: &str| request.headers.iter().find(|(given, _)| given == name);
            assert_eq!(named("Idempotency-Key").unwrap().1, key.to_string());
            let (openid, address) = (OpenId::parse(OPENID).unwrap(), [203, 0, 113, 7].into());
            handler::parameters(&asked, &openid, Some(address), Encoding::Json).unwrap()
        } else {
            let asked = StatusRequest::read(payout_domain::json::decode(&request.body).unwrap()).unwrap();
            handler::question(&asked.key, &asked.wx_app_id, asked.trade_record_id)
        };
        assert_eq!(fields(&payout_domain::json::encode(&sent)), shown);
        compared += 1;
    }
    assert_eq!(compared, 3, "{document:?}");
}

/// Every reference of the schemas leads somewhere, every keyword is one that the check knows, and every example fits.
#[test]
fn api_document_schemas_are_whole() {
    let schemas = Schemas::read(&path_of("openapi.json"));
    assert_eq!(schemas.at("/openapi"), &json!("3.1.0"));
    let checked = schemas.check_examples().unwrap();
    assert!(checked > 40, "only {checked} examples were found");
}
