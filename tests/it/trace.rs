//! A request's id and trace: in the call to the handler, in the answer, and in every log line of the request.

use crate::support::sidecar::{Encoding, Payout, Sidecar, To, Upstream, embedded};
use test_support::http::call;

#[tokio::test(flavor = "multi_thread")]
async fn an_id_and_a_trace_go_along_with_a_payout() {
    let upstream = Upstream::start(To::Handler { idempotent: true }).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = embedded(&dir) + &upstream.configuration();
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
    let body = Payout::new("T1").body(Encoding::Json);
    let headers = [
        ("Content-Type", "application/json"),
        ("X-Request-Id", "from-the-platform-1"),
        ("traceparent", trace),
        ("tracestate", "vendor=1"),
    ];
    let answer = call(
        sidecar.main,
        "POST",
        "/pay/sendApiRedPack",
        &headers,
        body.as_bytes(),
    )
    .await;
    assert_eq!(answer.code(), "SUCCESS");
    assert_eq!(answer.headers["x-request-id"], "from-the-platform-1");

    let books = upstream.fake.books();
    let sent = |name: &str| {
        let headers = &books.requests().first().unwrap().headers;
        let found = headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    assert_eq!(sent("x-request-id"), "from-the-platform-1");
    assert_eq!(sent("tracestate"), "vendor=1");
    let parent = sent("traceparent");
    assert_eq!(parent[..36], trace[..36]);
    assert_ne!(parent, trace);
    drop(books);

    let log = sidecar.logged(r#""state":"succeeded""#).await;
    let audited: Vec<serde_json::Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &serde_json::Value| line["target"] == "audit")
        .collect();
    assert_eq!(audited.len(), 2, "{log}");
    for line in audited {
        assert_eq!(line["request_id"], "from-the-platform-1", "{line}");
        assert_eq!(line["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    }

    // A request with neither gets both. The sidecar replaces values that a header must not contain.
    let long = "x".repeat(300);
    let answer = call(
        sidecar.main,
        "POST",
        "/pay/sendApiRedPack",
        &[
            ("Content-Type", "application/json"),
            ("X-Request-Id", long.as_str()),
        ],
        Payout::new("T2").body(Encoding::Json).as_bytes(),
    )
    .await;
    assert_eq!(answer.headers["x-request-id"].len(), 32);
}
