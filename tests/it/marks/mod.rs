//! Marks every secret, collects everything that the program can be made to output, and checks that no mark is in it:
//! the log at its most verbose level, answers, metrics, exported spans, the API, commands, and error messages about
//! configurations. `world.rs` sets everything up.

mod world;

use std::collections::BTreeSet;
use std::process::Command;

use payout_domain::fields::Fields;
use payout_domain::secret::Secret;
use payout_domain::wechat::sign::sign_md5;

use crate::support::sidecar::{APP, BOTH, Encoding, MERCHANT, Payout, Sidecar};
use test_support::http::{Answer, call, exchange};
use test_support::tls::ask_http2;
use test_support::until;

use self::world::{
    ADMIN, API_KEY_SENT, BILLED, CALLER, COLLECTOR, HANDLED, HAS_P12, OPENID, SENDS_KEYS, SIGN_KEY, USER,
    WRONG, World, wrong_configurations,
};

/// All output so far, each with its source.
#[derive(Default)]
struct Said(Vec<(String, String)>);

impl Said {
    fn answer(&mut self, what: &str, answer: &Answer) {
        let text = format!("{} {:?}\n{}", answer.status, answer.headers, answer.body);
        self.0.push((what.to_owned(), text));
    }

    /// Records a command's output, and returns its exit code.
    fn command(&mut self, command: &mut Command) -> Option<i32> {
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let what = format!("{:?}", command.get_args().collect::<Vec<_>>());
        self.0.push((what, String::from_utf8(said).unwrap()));
        output.status.code()
    }
}

/// Signs the request's body as the access rules demand.
fn signed(encoding: Encoding, body: &str) -> String {
    let mut fields: Fields<'static> = serde_json::from_str(body).unwrap();
    let sign = sign_md5(&fields, &Secret::new(SIGN_KEY.to_owned()));
    fields.set("sign", sign);
    let all: Vec<(&str, &str)> = fields
        .iter()
        .map(|(name, value)| (name, value.characters()))
        .collect();
    encoding.write(&all)
}

fn payout(mch_id: &str, order_no: &str) -> Payout {
    let mut payout = Payout::new(order_no).with("nonceStr", "n");
    payout.mch_id = mch_id.to_owned();
    payout.user = USER.to_owned();
    payout
}

const BEARER: (&str, &str) = ("Authorization", "Bearer MARKcaller51bd20");

async fn ask(said: &mut Said, sidecar: &Sidecar, path: &str, encoding: Encoding, body: &str) -> String {
    let headers = [BEARER, ("Content-Type", encoding.media())];
    let answer = call(sidecar.main, "POST", path, &headers, body.as_bytes()).await;
    said.answer(body, &answer);
    answer.code()
}

async fn pay(said: &mut Said, sidecar: &Sidecar, encoding: Encoding, payout: &Payout) -> String {
    let body = signed(encoding, &payout.body(Encoding::Json));
    ask(said, sidecar, "/pay/sendApiRedPack", encoding, &body).await
}

/// Sends every kind of payout and failure, and asks for the status of each.
async fn payouts(world: &World, sidecar: &Sidecar, said: &mut Said) {
    let faults = "pay/REF=error:NOTENOUGH;pay/SYS=error-after:SYSTEMERROR;pay/CUT=reset-after;pay/BAD=garbage-after;pay/HALF=truncate-after;pay/HANG=hang-after;query=status:502";
    world.fake.set_faults(faults.parse().unwrap());
    for encoding in BOTH {
        let name = |order_no: &str| format!("{order_no}{encoding:?}");
        let with_keys = |mch_id: &str, order_no: &str| {
            payout(mch_id, &name(order_no))
                .with("privateKey", &world.sent_key)
                .with("certKey", &world.sent_cert)
                .with("apiSecretKey", API_KEY_SENT)
        };
        let mut dear = payout(MERCHANT, &name("DEAR"));
        dear.amount = "20001".into();
        let mut stranger = payout(MERCHANT, &name("WHO"));
        stranger.user = format!("{USER}-unmapped");
        for (payout, told) in [
            (payout(MERCHANT, &name("OK")), "SUCCESS"),
            (payout(HAS_P12, &name("OKP")), "SUCCESS"),
            (payout(BILLED, &name("OKB")), "SUCCESS"),
            (with_keys(SENDS_KEYS, "OKS"), "SUCCESS"),
            (with_keys(HANDLED, "OKH"), "SUCCESS"),
            (payout(MERCHANT, &name("REF")), "NOTENOUGH"),
            (payout(MERCHANT, &name("SYS")), "SYSTEMERROR"),
            (payout(MERCHANT, &name("CUT")), "SYSTEMERROR"),
            (payout(MERCHANT, &name("BAD")), "SYSTEMERROR"),
            (payout(MERCHANT, &name("HALF")), "SYSTEMERROR"),
            (payout(MERCHANT, &name("HANG")), "SYSTEMERROR"),
            (payout("1900000001", &name("NONE")), "NO_AUTH"),
            (dear, "AMOUNT_LIMIT"),
            (stranger, "OPENID_ERROR"),
        ] {
            assert_eq!(pay(said, sidecar, encoding, &payout).await, told, "{payout:?}");
            let body = format!(
                "{{\"wxAppId\":\"{APP}\",\"mchId\":\"{}\",\"mchBillno\":\"{}\",\"tradeRecordId\":\"1\",\"nonceStr\":\"n\"}}",
                payout.mch_id, payout.order_no
            );
            let body = signed(encoding, &body);
            ask(said, sidecar, "/pay/getApiRedPacketStatus", encoding, &body).await;
        }
        // Every kind of malformed credentials.
        for (order_no, key, cert, api_key) in [
            ("N1", WRONG, world.sent_cert.as_str(), API_KEY_SENT),
            ("N2", world.sent_key.as_str(), WRONG, API_KEY_SENT),
            ("N3", world.sent_key.as_str(), world.sent_cert.as_str(), WRONG),
            (
                "N4",
                &world.sent_key[..world.sent_key.len() / 2],
                world.sent_cert.as_str(),
                API_KEY_SENT,
            ),
        ] {
            let sent = payout(SENDS_KEYS, &name(order_no))
                .with("privateKey", key)
                .with("certKey", cert)
                .with("apiSecretKey", api_key);
            let code = pay(said, sidecar, encoding, &sent).await;
            assert_ne!(code, "SUCCESS", "{order_no}");
        }
    }
}

/// Requests that no correct client sends.
async fn malformed(world: &World, sidecar: &Sidecar, said: &mut Said) {
    let good = signed(Encoding::Json, &payout(MERCHANT, "MAL1").body(Encoding::Json));
    let secret = format!("\"apiSecretKey\":\"{API_KEY_SENT}\"");
    let begins = |with: &str| good.replacen('{', &format!("{{{with},"), 1);
    for body in [
        good.replace("\"sign\":\"", "\"sign\":\"00"),
        begins(&secret),
        begins(&format!("{secret},{secret}")),
        begins(&format!("\"apiSecretKey\":{{\"a\":\"{API_KEY_SENT}\"}}")),
        begins(&format!("\"privateKey\":[\"{WRONG}\"]")),
        format!("{{{secret}"),
        format!("{{{secret},\"privateKey\":\"{WRONG}"),
        format!("{{\"apiSecretKey\":\"{WRONG}\\q\"}}"),
        format!("{{\"apiSecretKey\":{WRONG}}}"),
        WRONG.to_owned(),
    ] {
        ask(said, sidecar, "/pay/sendApiRedPack", Encoding::Json, &body).await;
        ask(said, sidecar, "/pay/getApiRedPacketStatus", Encoding::Json, &body).await;
    }
    for body in [
        format!("<xml><apiSecretKey>{WRONG}</apiSecretKey>"),
        format!("<xml><apiSecretKey>{WRONG}</privateKey></xml>"),
        format!("<xml><apiSecretKey>&{WRONG};</apiSecretKey></xml>"),
        format!("<xml><apiSecretKey>{WRONG}<a/></apiSecretKey></xml>"),
        format!("<xml><apiSecretKey a=\"{WRONG}\">1</apiSecretKey></xml>"),
    ] {
        ask(said, sidecar, "/pay/sendApiRedPack", Encoding::Xml, &body).await;
    }
    let wrong = format!("Bearer {WRONG}");
    let json = ("Content-Type", "application/json");
    for (path, headers) in [
        ("/pay/sendApiRedPack".to_owned(), vec![json]),
        (
            "/pay/sendApiRedPack".to_owned(),
            vec![json, ("Authorization", wrong.as_str())],
        ),
        (format!("/pay/sendApiRedPack?token={WRONG}"), vec![json]),
        (
            format!("/pay/sendApiRedPack?token={CALLER}&token={WRONG}"),
            vec![json],
        ),
        (
            format!("/pay/sendApiRedPack?token={CALLER}"),
            vec![("Content-Type", "text/html")],
        ),
        (format!("/pay/sendApiRedPack/?token={CALLER}"), vec![json]),
        (format!("/shop?a=b&token={CALLER}"), vec![]),
        ("/shop".to_owned(), vec![BEARER]),
        (
            "/shop".to_owned(),
            vec![BEARER, ("Authorization", wrong.as_str())],
        ),
        (
            format!("/notify/bill?token={WRONG}"),
            vec![json, ("Wechatpay-Signature", WRONG), ("Wechatpay-Serial", WRONG)],
        ),
    ] {
        let answer = call(sidecar.main, "POST", &path, &headers, good.as_bytes()).await;
        said.answer(&path, &answer);
    }
    for bytes in [
        format!("GET /?token={CALLER} HTTP/9\r\nHost: a\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {CALLER}\r\nBad Name: {WRONG}\r\n\r\n"),
        format!("GET /?token={CALLER} HTTP/1.1\r\nHost: a\r\nHost: b\r\nAuthorization: {WRONG}\r\n\r\n"),
    ] {
        if let Some(answer) = exchange(sidecar.main, bytes.as_bytes()).await {
            said.answer(&bytes, &answer);
        }
    }
    // The HTTP/2 library logs a lot at this level.
    let stream = tokio::net::TcpStream::connect(sidecar.main).await.unwrap();
    let two = [CALLER, WRONG].map(|token| {
        let body = signed(Encoding::Json, &payout(MERCHANT, "H2MARK").body(Encoding::Json));
        http::Request::post(format!("http://a/pay/sendApiRedPack?token={token}"))
            .version(http::Version::HTTP_2)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(http_body_util::Full::from(body))
            .unwrap()
    });
    let answers = ask_http2(stream, two.into()).await.unwrap();
    assert_eq!(
        answers
            .iter()
            .map(|answer| answer.status().as_u16())
            .collect::<Vec<_>>(),
        [200, 401]
    );
    for answer in answers {
        said.0.push(("HTTP/2".into(), format!("{answer:?}")));
    }
    // A valid notification, and several that are not.
    assert_eq!(world.fake.notify("OKBJson", "").await, Ok(204));
    for how in ["signature", "serial", "body", "key", "number", "amount"] {
        let answered = world.fake.notify("OKBJson", how).await;
        said.0.push((format!("notify {how}"), format!("{answered:?}")));
    }
}

/// Collects what operators see.
async fn operators(sidecar: &Sidecar, said: &mut Said) {
    let own = format!("Bearer {ADMIN}");
    let wrong = format!("Bearer {WRONG}");
    for (method, path, body) in [
        ("GET", "/livez".to_owned(), ""),
        ("GET", "/readyz".to_owned(), ""),
        ("GET", "/metrics".to_owned(), ""),
        ("GET", "/".to_owned(), ""),
        ("GET", "/api/config".to_owned(), ""),
        ("GET", "/api/payouts?limit=1000".to_owned(), ""),
        ("GET", "/api/payouts?cursor=nonsense".to_owned(), ""),
        ("GET", format!("/api/payouts/{MERCHANT}/OKJson"), ""),
        ("GET", format!("/api/payouts/{MERCHANT}/HANGJson"), ""),
        (
            "POST",
            format!("/api/payouts/{MERCHANT}/HANGJson/settle"),
            "{\"as\":\"paid\"}",
        ),
        (
            "POST",
            format!("/api/payouts/{MERCHANT}/HANGJson/settle"),
            "{\"as\":\"succeeded\",\"reason\":\"statement\"}",
        ),
        ("GET", format!("/nowhere?token={ADMIN}"), ""),
    ] {
        for authorization in [own.as_str(), wrong.as_str(), ""] {
            let headers = [
                ("Authorization", authorization),
                ("Content-Type", "application/json"),
            ];
            let answer = call(sidecar.admin, method, &path, &headers, body.as_bytes()).await;
            let is_open = matches!(path.as_str(), "/livez" | "/readyz" | "/metrics");
            assert!(!is_open || answer.status == 200, "{path}: {}", answer.status);
            said.answer(&path, &answer);
        }
    }
}

fn sidecar_command(arguments: &[&str], config: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_payout-sidecar"));
    command
        .args(arguments)
        .args(["--config", config])
        .env("SIGN_KEY", SIGN_KEY);
    command
}

fn commands(sidecar: &Sidecar, said: &mut Said) {
    let config = sidecar.dir.path().join("config.toml").display().to_string();
    for (arguments, ends_with) in [
        (&["check"][..], 0),
        (&["check", "--connect"], 0),
        (&["healthcheck"], 0),
        (&["payout", "list"], 0),
        (&["payout", "show", MERCHANT, "OKJson"], 0),
        (&["payout", "show", MERCHANT, "NOSUCH"], 1),
        (
            &[
                "payout",
                "settle",
                MERCHANT,
                "CUTJson",
                "--as",
                "succeeded",
                "--reason",
                "statement",
            ],
            0,
        ),
        (&["payout", "export"], 0),
    ] {
        let mut command = sidecar_command(arguments, &config);
        command.env("PAYOUT_SIDECAR__ADMIN__LISTEN", sidecar.admin.to_string());
        assert_eq!(
            said.command(&mut command),
            Some(ends_with),
            "{arguments:?}: {:?}",
            said.0.last()
        );
        command.env("PAYOUT_SIDECAR__ADMIN__TOKEN", WRONG);
        said.command(&mut command);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_anything_that_is_said() {
    let world = World::start().await;
    let good = world.configuration();
    let dir = tempfile::tempdir().unwrap();
    let header = format!("api-key={COLLECTOR}");
    let environment = [
        ("SIGN_KEY", SIGN_KEY),
        ("OTEL_EXPORTER_OTLP_HEADERS", header.as_str()),
    ];
    let mut sidecar = Sidecar::start_in(dir, &good, &environment).await;
    until("ready", async || sidecar.is_ready().await).await;
    let mut said = Said::default();
    payouts(&world, &sidecar, &mut said).await;
    malformed(&world, &sidecar, &mut said).await;
    operators(&sidecar, &mut said).await;
    commands(&sidecar, &mut said);

    let path = sidecar.dir.path().join("wrong.toml").display().to_string();
    for wrong in wrong_configurations(&world, &good) {
        std::fs::write(&path, wrong.replace("MAIN_PORT", "1")).unwrap();
        let ended = said.command(&mut sidecar_command(&["check", "--connect"], &path));
        assert_ne!(
            ended,
            Some(0),
            "{:?}
{wrong}",
            said.0.last()
        );
    }
    std::fs::write(&path, good.replace("MAIN_PORT", "1")).unwrap();
    for name in ["MERCHANT", "LEDGER__URL", "IDENTITY__URL"] {
        let mut command = sidecar_command(&["check"], &path);
        command.env(format!("PAYOUT_SIDECAR__{name}"), format!("[\"{WRONG}"));
        assert_eq!(said.command(&mut command), Some(2), "{name}");
    }
    // A refused reload logs its reason.
    let config = sidecar.dir.path().join("config.toml");
    let kept = std::fs::read_to_string(&config).unwrap();
    std::fs::write(
        &config,
        kept.replace(&format!("\"{ADMIN}\""), &format!("\"{ADMIN}")),
    )
    .unwrap();
    sidecar.signal("HUP");
    sidecar.logged("config.toml has 1 mistake").await;

    // The shutdown exports the remaining spans.
    sidecar.signal("TERM");
    assert_eq!(sidecar.ended().await, Some(0));
    let exports = world.collector.exports();
    assert!(
        exports
            .iter()
            .all(|export| export.headers["api-key"] == COLLECTOR)
    );
    let spans = world.collector.spans();
    for order_no in ["OKJson", "OKBXml", "N4Xml", "HANGJson", "H2MARK"] {
        let is_told = spans
            .iter()
            .any(|span| span.attribute("payout.order") == order_no);
        assert!(is_told, "{order_no} has no span");
    }
    for span in &spans {
        let text = format!("{span:?}");
        for private in [USER, OPENID, "token="] {
            assert!(!text.contains(private), "{private} is in {text}");
        }
        said.0.push(("a span".to_owned(), text));
    }
    let names: BTreeSet<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    assert!(names.len() < 30, "no name holds what a caller chooses: {names:?}");

    let log = sidecar.log();
    assert!(log.contains("TRACE") && log.contains("OKJson") && log.lines().count() > 200);
    let marks = world.marks();
    assert!(marks.len() > 20);
    for mark in &marks {
        if let Some(line) = log.lines().find(|line| line.contains(mark.as_str())) {
            panic!("{mark} is in the log: {line}");
        }
        for (what, text) in &said.0 {
            assert!(
                !text.contains(mark.as_str()),
                "{mark} is in what {what:?} said: {text}"
            );
        }
    }
    for person in [USER, OPENID] {
        let told = log.lines().find(|line| line.contains(person));
        assert_eq!(told, None, "{person} is in the log in full");
    }
    assert!(
        said.0.iter().all(|(_, text)| !text.contains(OPENID)),
        "the platform is not told the openid"
    );
}
