//! Traces as a collector receives them: which spans there are, their parents, the trace context that the handler and
//! the backend receive, and that payouts do not depend on the collector.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::bills::PUBLIC_KEY;
use crate::support::otlp::{Collector, Does, Span};
use crate::support::sidecar::{Encoding, MERCHANT, Payout, Sidecar, To, Upstream, embedded};
use test_support::http::{Answer, call, request};
use test_support::tls::Authority;
use test_support::{free_port, until};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "00f067aa0ba902b7";

/// Starts a sidecar that exports to `url` and stops without a lame-duck delay.
async fn start(to: To, url: &str, environment: &[(&str, &str)]) -> (Upstream, Sidecar) {
    let upstream = Upstream::start(to).await;
    let dir = tempfile::tempdir().unwrap();
    let key = match url {
        "" => String::new(),
        url => format!("[telemetry]\notlp = \"{url}\"\n"),
    };
    let configuration = format!(
        "[server]\nlame_duck = \"0s\"\n{key}{}{}",
        embedded(&dir),
        upstream.configuration()
    );
    let sidecar = Sidecar::start_in(dir, &configuration, environment).await;
    until("ready", async || sidecar.is_ready().await).await;
    (upstream, sidecar)
}

fn url(collector: &Collector) -> String {
    format!("http://{}", collector.address)
}

const TO_HANDLER: To = To::Handler { idempotent: true };

async fn pay_under(sidecar: &Sidecar, order_no: &str, flags: Option<&str>) -> Answer {
    let parent = flags.map(|flags| format!("00-{TRACE}-{CALLER}-{flags}"));
    let mut headers = vec![("Content-Type", "application/json")];
    headers.extend(parent.as_deref().map(|parent| ("traceparent", parent)));
    let body = Payout::new(order_no).body(Encoding::Json);
    let path = "/pay/sendApiRedPack?token=hush";
    call(sidecar.main, "POST", path, &headers, body.as_bytes()).await
}

/// Stops the sidecar with SIGTERM, and returns how long that took.
async fn stop(sidecar: &mut Sidecar) -> Duration {
    let begun = Instant::now();
    sidecar.signal("TERM");
    assert_eq!(sidecar.ended().await, Some(0));
    begun.elapsed()
}

/// The number of spans by their outcome.
async fn counted(sidecar: &Sidecar) -> BTreeMap<String, u64> {
    let text = call(sidecar.admin, "GET", "/metrics", &[], b"").await.body;
    let lines = text.lines().filter_map(|line| {
        let (result, count) = line
            .strip_prefix("payout_trace_spans_total{result=\"")?
            .split_once("\"} ")?;
        Some((result.to_owned(), count.parse().unwrap()))
    });
    lines.collect()
}

/// The `traceparent` that the fake's handler or WeChat received with an order; empty if there was none.
fn seen_by(upstream: &Upstream, order_no: &str) -> String {
    let books = upstream.fake.books();
    let asked = books.requests().iter().find(|asked| asked.order_no == order_no);
    let headers = &asked.unwrap().headers;
    let found = headers.iter().find(|(name, _)| name == "traceparent");
    found.map(|(_, value)| value.clone()).unwrap_or_default()
}

fn one<'a>(spans: &'a [Span], kind: &str, name: &str) -> &'a Span {
    let found: Vec<_> = spans
        .iter()
        .filter(|span| span.kind == kind && span.name == name)
        .collect();
    assert_eq!(found.len(), 1, "{kind} {name}: {spans:#?}");
    found[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payout_is_told_as_a_request_with_what_was_done_for_it() {
    let collector = Collector::start(Does::Takes).await;
    let (upstream, mut sidecar) = start(TO_HANDLER, &url(&collector), &[]).await;
    assert_eq!(pay_under(&sidecar, "T1", Some("01")).await.code(), "SUCCESS");
    until("the spans come without being asked for", async || {
        collector.spans().len() >= 5
    })
    .await;
    let spans = collector.spans();
    assert_eq!(spans.len(), 5, "{spans:#?}");
    until("they are counted once the collector has said so", async || {
        counted(&sidecar).await["exported"] == 5
    })
    .await;
    let served = one(&spans, "server", "POST /pay/sendApiRedPack");
    assert_eq!((served.parent.as_str(), served.flags), (CALLER, 0x301));
    for (kind, name) in [
        ("internal", "identity openid"),
        ("internal", "ledger insert"),
        ("internal", "ledger replace"),
        ("client", "POST /pay/sendApiRedPack"),
    ] {
        let span = one(&spans, kind, name);
        assert_eq!((&span.parent, span.flags), (&served.id, 0x101), "{name}");
        assert!(served.begun <= span.begun && span.ended <= served.ended, "{name}");
    }
    let ids: BTreeSet<_> = spans.iter().map(|span| &span.id).collect();
    assert_eq!(ids.len(), 5);
    for span in &spans {
        assert_eq!(span.trace, TRACE);
        assert!(span.begun <= span.ended && !span.failed, "{span:?}");
        assert_eq!(span.resource["service.name"], "payout-sidecar");
        assert_eq!(span.resource["service.version"], env!("CARGO_PKG_VERSION"));
    }
    let expected = [
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("http.route", "/pay/sendApiRedPack"),
        ("payout.mch_id", MERCHANT),
        ("payout.order", "T1"),
        ("payout.result_code", "SUCCESS"),
        ("url.path", "/pay/sendApiRedPack"),
        ("url.scheme", "http"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(served.attributes, BTreeMap::from(expected));
    let paid = one(&spans, "client", "POST /pay/sendApiRedPack");
    assert_eq!(seen_by(&upstream, "T1"), paid.traceparent());
    assert_eq!(paid.attribute("payout.exchange"), "answered");
    assert_eq!(paid.attribute("server.address"), "127.0.0.1");
    assert_eq!(
        paid.attribute("server.port"),
        upstream.fake.addr().port().to_string()
    );
    assert_eq!(
        one(&spans, "internal", "ledger insert").attribute("db.system.name"),
        "redb"
    );

    let exports = collector.exports();
    assert_eq!(
        exports[0].path,
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
    );
    assert_eq!(exports[0].version, http::Version::HTTP_2);
    assert_eq!(exports[0].headers["te"], "trailers");
    stop(&mut sidecar).await;
    assert_eq!(collector.spans().len(), 5, "what waits for nothing has no traces");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payout_is_told_under_its_callers_span_over_either_protocol() {
    for (path, version) in [
        ("", http::Version::HTTP_2),
        ("/v1/traces", http::Version::HTTP_11),
    ] {
        let collector = Collector::start(Does::Takes).await;
        let (_upstream, mut sidecar) = start(TO_HANDLER, &(url(&collector) + path), &[]).await;
        assert_eq!(pay_under(&sidecar, "P1", Some("01")).await.code(), "SUCCESS");
        stop(&mut sidecar).await;
        let export = collector.exports().pop().unwrap();
        assert_eq!((export.version, export.spans.len()), (version, 5));
        let served = one(&export.spans, "server", "POST /pay/sendApiRedPack");
        assert_eq!(
            (served.trace.as_str(), served.parent.as_str(), served.flags),
            (TRACE, CALLER, 0x301)
        );
        for span in export.spans.iter().filter(|span| span.id != served.id) {
            assert_eq!(
                (&span.trace, &span.parent),
                (&served.trace, &served.id),
                "{span:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_settled_is_told_with_the_query_of_its_upstream() {
    for (to, asked) in [
        (To::Redpack, "POST /mmpaymkttransfers/gethbinfo"),
        (TO_HANDLER, "POST /pay/getApiRedPacketStatus"),
    ] {
        let collector = Collector::start(Does::Takes).await;
        let (upstream, mut sidecar) = start(to, &url(&collector), &[]).await;
        let sent = if to == To::Redpack { "sendredpack" } else { "send" };
        upstream
            .fake
            .set_faults(format!("{sent}/LOST=reset-after").parse().unwrap());
        assert_eq!(
            pay_under(&sidecar, "LOST", Some("01")).await.code(),
            "SYSTEMERROR"
        );
        sidecar.logged(r#""state":"succeeded""#).await;
        stop(&mut sidecar).await;
        let spans = collector.spans();
        let settled: Vec<_> = spans.iter().filter(|span| span.name == "settle").collect();
        assert!(!settled.is_empty(), "{spans:#?}");
        for span in &settled {
            assert_eq!(
                (span.kind, span.parent.as_str(), span.flags),
                ("internal", "", 0x101)
            );
            assert_eq!(span.attribute("payout.order"), "LOST");
            assert_eq!(span.attribute("payout.mch_id"), MERCHANT);
            assert_ne!(span.trace, TRACE, "a trace of its own");
        }
        let within = |name: &str| {
            let mut found = spans.iter().filter(|span| span.name == name);
            found.any(|span| settled.iter().any(|settled| span.parent == settled.id))
        };
        for name in ["ledger get", asked, "ledger replace"] {
            assert!(within(name), "{name}: {spans:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_is_told_with_its_answer_and_what_was_recorded() {
    let collector = Collector::start(Does::Takes).await;
    let (upstream, mut sidecar) = start(PUBLIC_KEY, &url(&collector), &[]).await;
    upstream.fake.set_faults("query=status:502".parse().unwrap());
    assert_eq!(pay_under(&sidecar, "N1", None).await.code(), "SUCCESS");
    upstream.fake.set_status("N1", "SUCCESS");
    assert_eq!(upstream.fake.notify("N1", "signature").await, Ok(401));
    assert_eq!(upstream.fake.notify("N1", "").await, Ok(204));
    stop(&mut sidecar).await;
    let spans = collector.spans();
    let answered = |status: &str| {
        let mut found = spans.iter().filter(|span| {
            span.name == "POST /notify/bill" && span.attribute("http.response.status_code") == status
        });
        let one = found.next().unwrap();
        assert_eq!(
            (one.kind, one.attribute("http.route"), found.next().is_none()),
            ("server", "/notify/bill", true)
        );
        one
    };
    assert_eq!(
        answered("401").attribute("payout.order"),
        "",
        "it is not believed"
    );
    let taken = answered("204");
    assert_eq!(taken.attribute("payout.order"), "N1");
    for name in ["ledger get", "ledger replace"] {
        let is_within = |span: &Span| span.name == name && span.parent == taken.id;
        assert!(spans.iter().any(is_within), "{name}: {spans:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_request_has_one_span_and_the_end_exports_what_is_left() {
    let collector = Collector::start(Does::Takes).await;
    let (upstream, mut sidecar) = start(TO_HANDLER, &url(&collector), &[]).await;
    upstream.fake.set_faults("send/CUT=reset-after".parse().unwrap());
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let headers = [("traceparent", parent.as_str()), ("tracestate", "v=1")];
    let shop = call(sidecar.main, "GET", "/shop/7?token=hush", &headers, b"").await;
    let fresh = call(sidecar.main, "BREW", "/pot", &[("tracestate", "v=1")], b"").await;
    assert_eq!(
        call(sidecar.main, "GET", "/pay/sendApiRedPack", &[], b"")
            .await
            .status,
        405
    );
    assert_eq!(
        sidecar.status(Encoding::Xml, &Payout::new("NONE")).await.status,
        200
    );
    assert_eq!(pay_under(&sidecar, "CUT", None).await.code(), "SYSTEMERROR");
    let mut stranger = Payout::new("S1");
    stranger.mch_id = "1555".into();
    assert_eq!(sidecar.pay(Encoding::Json, &stranger).await.code(), "NO_AUTH");
    assert!(stop(&mut sidecar).await < Duration::from_secs(3));

    let spans = collector.spans();
    let proxied = one(&spans, "server", "GET");
    let saw = |answer: &Answer, name: &str| {
        let seen: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let headers = seen["headers"].as_array().unwrap().clone();
        let found = headers.iter().find(|pair| pair[0] == name).cloned();
        found.map(|pair| pair[1].as_str().unwrap().to_owned())
    };
    assert_eq!(saw(&shop, "traceparent"), Some(proxied.traceparent()));
    assert_eq!(saw(&shop, "tracestate").as_deref(), Some("v=1"));
    assert_eq!(
        (
            proxied.parent.as_str(),
            proxied.attribute("http.response.status_code")
        ),
        (CALLER, "200")
    );
    assert!(!proxied.attributes.contains_key("url.path") && !proxied.attributes.contains_key("http.route"));
    let brewed = one(&spans, "server", "HTTP");
    assert_eq!(saw(&fresh, "traceparent"), Some(brewed.traceparent()));
    assert_eq!(saw(&fresh, "tracestate"), None, "it belongs to no trace of ours");
    assert_eq!(
        (brewed.parent.as_str(), brewed.attribute("http.request.method")),
        ("", "_OTHER")
    );
    let refused = one(&spans, "server", "GET /pay/sendApiRedPack");
    assert!(refused.attribute("http.response.status_code") == "405" && !refused.failed);
    let asked = one(&spans, "server", "POST /pay/getApiRedPacketStatus");
    assert_eq!(
        (asked.attribute("payout.order"), asked.attribute("payout.mch_id")),
        ("NONE", MERCHANT)
    );

    let of_order = |order: &str| {
        spans
            .iter()
            .find(|span| span.attribute("payout.order") == order)
            .unwrap()
    };
    let cut = of_order("CUT");
    assert!(cut.failed && cut.parent.is_empty());
    assert_eq!(
        (cut.attribute("payout.err_code"), cut.attribute("error.type")),
        ("SYSTEMERROR", "SYSTEMERROR")
    );
    let sent = spans
        .iter()
        .find(|span| span.parent == cut.id && span.kind == "client")
        .unwrap();
    assert_eq!(
        (sent.attribute("payout.exchange"), sent.attribute("error.type")),
        ("silent", "silent")
    );
    assert!(sent.failed);
    assert_eq!(seen_by(&upstream, "CUT"), sent.traceparent());
    let strange = of_order("S1");
    assert_eq!(
        (
            strange.attribute("payout.mch_id"),
            strange.attribute("payout.err_code")
        ),
        ("other", "NO_AUTH")
    );
    assert!(!strange.failed);

    // The document's table lists every attribute.
    let document = include_str!("../../docs/operate.md");
    for name in spans.iter().flat_map(|span| span.attributes.keys()) {
        assert!(
            document.contains(&format!("`{name}`")),
            "{name} is not in docs/operate.md"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_is_told_though_its_caller_is_gone_and_so_is_one_that_was_not_made() {
    let collector = Collector::start(Does::Takes).await;
    let (upstream, mut sidecar) = start(TO_HANDLER, &url(&collector), &[]).await;
    upstream.fake.set_faults("send/GONE=delay:700ms".parse().unwrap());
    let body = Payout::new("GONE").body(Encoding::Json);
    let headers = [("Content-Type", "application/json")];
    let mut caller = TcpStream::connect(sidecar.main).await.unwrap();
    let asked = request("POST", "/pay/sendApiRedPack", &headers, body.as_bytes());
    caller.write_all(&asked).await.unwrap();
    until("the handler is asked", async || upstream.times_sent("GONE") == 1).await;
    drop(caller);
    sidecar.logged(r#""state":"succeeded""#).await;
    stop(&mut sidecar).await;
    let spans = collector.spans();
    let served = one(&spans, "server", "POST /pay/sendApiRedPack");
    assert!(
        !served.attributes.contains_key("http.response.status_code") && !served.failed,
        "{served:?}"
    );
    let sent = one(&spans, "client", "POST /pay/sendApiRedPack");
    assert_eq!(
        (sent.attribute("payout.exchange"), &sent.parent),
        ("answered", &served.id)
    );
    assert!(served.ended < sent.ended, "it outlived its request");
    assert_eq!(one(&spans, "internal", "ledger replace").parent, served.id);

    // The handler is unreachable: the sidecar tries it for the first order, and turns the second one away.
    let nobody = format!("handler_url = \"http://127.0.0.1:{}\"", free_port());
    let config = sidecar.dir.path().join("config.toml");
    let there = format!("handler_url = \"http://{}\"", upstream.fake.addr());
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(text.contains(&there));
    std::fs::write(&config, text.replace(&there, &nobody)).unwrap();
    sidecar.launch(&[]).await;
    for order_no in ["AWAY1", "AWAY2"] {
        assert_eq!(
            sidecar.pay(Encoding::Json, &Payout::new(order_no)).await.code(),
            "SYSTEMERROR"
        );
    }
    stop(&mut sidecar).await;
    let ends: Vec<_> = collector
        .spans()
        .into_iter()
        .filter(|span| span.kind == "client" && span.failed)
        .map(|span| span.attributes["payout.exchange"].clone())
        .collect();
    assert_eq!(ends, ["unreachable", "turned_away"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sampled_is_not_exported_and_those_behind_are_told_so() {
    for (sampler, ratio, parent, passed_on) in [
        ("", "", Some("00"), "00"),
        ("", "", Some("02"), "00"),
        ("", "", None, "01"),
        ("always_on", "", Some("00"), "01"),
        ("always_off", "", Some("01"), "00"),
        ("traceidratio", "0", None, "00"),
        ("parentbased_traceidratio", "0", None, "00"),
        ("parentbased_traceidratio", "0", Some("03"), "01"),
        ("parentbased_always_off", "", None, "00"),
    ] {
        let collector = Collector::start(Does::Takes).await;
        let environment = [
            ("OTEL_TRACES_SAMPLER", sampler),
            ("OTEL_TRACES_SAMPLER_ARG", ratio),
        ];
        let (upstream, mut sidecar) = start(TO_HANDLER, &url(&collector), &environment).await;
        assert_eq!(pay_under(&sidecar, "F1", parent).await.code(), "SUCCESS");
        let shop = call(sidecar.main, "GET", "/shop", &[], b"").await;
        stop(&mut sidecar).await;
        let case = format!("{sampler} {ratio} {parent:?}");
        let seen = seen_by(&upstream, "F1");
        assert_eq!(&seen[53..], passed_on, "{case}");
        assert_eq!(parent.is_some(), seen[3..35] == *TRACE, "{case}");
        let sampled = u8::from_str_radix(passed_on, 16).unwrap() & 1 == 1;
        let told = collector
            .spans()
            .iter()
            .any(|span| span.attribute("payout.order") == "F1");
        assert_eq!(told, sampled, "{case}");
        let follows = !sampler.contains("ratio") && !sampler.contains("off");
        assert_eq!(
            collector.spans().iter().any(|span| span.name == "GET"),
            follows,
            "{case}"
        );
        let flags = format!("-{:02x}\"", u8::from(follows));
        assert!(shop.body.contains(&flags), "{case}: {}", shop.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_names_service_headers_and_collector_over_both_protocols_and_tls() {
    let authority = Authority::new();
    let collector = Collector::start_tls(&authority.issue("collector")).await;
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem").display().to_string();
    std::fs::write(&ca, &authority.pem).unwrap();
    let endpoint = format!("https://localhost:{}", collector.address.port());
    for (protocol, version) in [
        ("grpc", http::Version::HTTP_2),
        ("http/protobuf", http::Version::HTTP_11),
    ] {
        let environment = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", ca.as_str()),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=k%3Dy"),
            ("OTEL_SERVICE_NAME", "campaign-payouts"),
            ("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=p-1,service.name=other"),
        ];
        let (upstream, mut sidecar) = start(To::Redpack, "", &environment).await;
        assert_eq!(pay_under(&sidecar, "W1", Some("01")).await.code(), "SUCCESS");
        let shown = call(sidecar.admin, "GET", "/api/config", &[], b"").await;
        assert!(
            shown.body.contains(&endpoint) && !shown.body.contains("k=y"),
            "{}",
            shown.body
        );
        stop(&mut sidecar).await;
        let export = collector.exports().pop().unwrap();
        assert_eq!(export.version, version);
        assert_eq!(export.path == "/v1/traces", protocol != "grpc", "{}", export.path);
        assert_eq!(export.headers["api-key"], "k=y");
        assert_eq!(export.spans[0].resource["service.name"], "campaign-payouts");
        assert_eq!(export.spans[0].resource["k8s.pod.name"], "p-1");
        let sent = one(&export.spans, "client", "POST /mmpaymkttransfers/sendredpack");
        assert_eq!(
            (sent.attribute("server.address"), sent.attribute("url.scheme")),
            ("localhost", "https")
        );
        assert_eq!(seen_by(&upstream, "W1"), "", "WeChat Pay is told no trace");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn payouts_do_not_depend_on_the_collector() {
    let nobody = format!("http://127.0.0.1:{}", free_port());
    for does in [
        None,
        Some(Does::Says(500)),
        Some(Does::SaysGrpc(3, 1000)),
        Some(Does::Hangs),
    ] {
        let collector = Collector::start(does.unwrap_or(Does::Takes)).await;
        let url = does.map_or_else(|| nobody.clone(), |_| url(&collector));
        let (_upstream, mut sidecar) = start(TO_HANDLER, &url, &[]).await;
        let begun = Instant::now();
        for n in 0..20 {
            assert_eq!(
                pay_under(&sidecar, &format!("D{n}"), None).await.code(),
                "SUCCESS"
            );
        }
        assert!(
            begun.elapsed() < Duration::from_secs(4),
            "{does:?}: {:?}",
            begun.elapsed()
        );
        if does == Some(Does::Hangs) {
            // The sidecar drops spans that do not fit the queue, and blocks no request for them.
            let calls = (0..16).map(|_| async {
                for _ in 0..220 {
                    call(sidecar.main, "GET", "/pay/sendApiRedPack", &[], b"").await;
                }
            });
            futures_util::future::join_all(calls).await;
            until("spans are dropped", async || {
                counted(&sidecar).await["dropped"] > 0
            })
            .await;
            let dropped = counted(&sidecar).await["dropped"];
            assert!(dropped <= 100 + 3520 - 2048, "{dropped}");
        } else {
            until("they are counted", async || {
                counted(&sidecar).await["failed"] == 100
            })
            .await;
        }
        sidecar.logged("spans were not exported").await;
        assert_eq!(counted(&sidecar).await["exported"], 0, "{does:?}");
        assert_eq!(pay_under(&sidecar, "LAST", None).await.code(), "SUCCESS");
        let took = stop(&mut sidecar).await;
        assert!(took < Duration::from_secs(4), "{does:?}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_a_moment_comes_again_and_what_is_rejected_is_logged() {
    let collector = Collector::start(Does::SaysGrpc(14, 2)).await;
    let (_upstream, mut sidecar) = start(TO_HANDLER, &url(&collector), &[]).await;
    pay_under(&sidecar, "A1", None).await;
    until("they are taken", async || {
        counted(&sidecar).await["exported"] == 5
    })
    .await;
    assert_eq!(collector.times_asked(), 3);
    // A connection that the collector closed counts as no refusal.
    collector.hang_up();
    collector.does(Does::Rejects(2));
    pay_under(&sidecar, "A2", None).await;
    sidecar.logged(r#""rejected_spans":2"#).await;
    assert_eq!(collector.spans().len(), 10);
    // The exporter recovers when the collector is back, and logs that.
    collector.does(Does::Says(400));
    pay_under(&sidecar, "A3", None).await;
    until("they fail", async || counted(&sidecar).await["failed"] == 5).await;
    collector.does(Does::Takes);
    pay_under(&sidecar, "A4", None).await;
    stop(&mut sidecar).await;
    assert!(
        collector
            .spans()
            .iter()
            .any(|span| span.attribute("payout.order") == "A4")
    );
    assert!(sidecar.log().contains("traces are exported again"));
}
