//! The series that `/metrics` really shows: the product's registry after each kind of event.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use payout_domain::contract::send::SendRequest;
use payout_domain::encoding::Encoding;
use payout_domain::fields::Fields;
use payout_domain::ids::{HandlerId, MchId, Millis, Moment, OpenId, UserId, WxAppId};
use payout_domain::json;
use payout_domain::limits::{Charge, Counter};
use payout_domain::order::step::{Event, Policy, Step, step};
use payout_domain::order::{Destination, Lease, NewOrder, Order};
use payout_domain::outcome::{Class, Evidence};
use payout_sidecar::clock::SystemClock;
use payout_sidecar::ledger::file::{FileLedger, OpenError};
use payout_sidecar::openids::file::FileIdentity;
use payout_sidecar::payouts::ports::{Identity as _, Ledger};
use payout_sidecar::redis;
use payout_sidecar::telemetry::metrics::http::Endpoint;
use payout_sidecar::telemetry::metrics::upstreams::ExchangeOutcome;
use payout_sidecar::telemetry::metrics::{Expiring, Metrics};
use payout_sidecar::{ledger, openids};

/// The names of the series, with the values of each of their labels.
pub type Series = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// All series by name. A histogram has three.
pub async fn series() -> Series {
    let mut series = Series::new();
    let text = shown().await;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = match line.split_once('{') {
            Some((name, rest)) => (name, rest.rsplit_once('}').unwrap().0),
            None => (line.split_once(' ').unwrap().0, ""),
        };
        let of_name = series.entry(name.to_owned()).or_default();
        for label in labels.split("\",").filter(|label| !label.is_empty()) {
            let (label, value) = label.split_once("=\"").unwrap();
            let value = value.trim_end_matches('"').to_owned();
            of_name.entry(label.to_owned()).or_default().insert(value);
        }
    }
    series
}

/// The text of `/metrics` after one event of each kind.
async fn shown() -> String {
    let metrics = Metrics::default();
    let short = Duration::from_millis(1);
    for endpoint in [Endpoint::Send, Endpoint::Status, Endpoint::Proxy] {
        drop(metrics.http.begun(endpoint));
        metrics.http.answered(endpoint, StatusCode::OK, short);
    }
    let meter = metrics.upstreams.of("merchant[0] 1900000109");
    for how in [
        ExchangeOutcome::Answered,
        ExchangeOutcome::Silent,
        ExchangeOutcome::Unreachable,
        ExchangeOutcome::CircuitOpen,
    ] {
        meter.ended(how, short);
    }
    let _circuit = metrics.breakers().named("ledger", redis::BREAKER);
    metrics.certificates(&[Expiring {
        owner: "server".to_owned(),
        not_after: Millis(0),
    }]);
    metrics.payouts.day(vec![(MchId::parse("19").unwrap(), 1)], 2);
    stores(&metrics).await;
    metrics.text().unwrap()
}

/// Calls the stores, and gives orders an outcome, as the payout flow tells it to the metrics.
async fn stores(metrics: &Metrics) {
    let dir = tempfile::tempdir().unwrap();
    let mapping = dir.path().join("openids.csv");
    std::fs::write(&mapping, "wx_app_id,user_id,openid\n").unwrap();
    let identity = Arc::new(FileIdentity::open(&mapping).await.unwrap());
    let identity = openids::instrumented::Instrumented::new(identity, metrics, "csv");
    identity.ready().await.unwrap();
    let (app, user) = (WxAppId::parse("wx1").unwrap(), UserId::parse("u").unwrap());
    assert!(identity.openid(&app, &user).await.unwrap().is_none());

    let file = file_ledger(&dir.path().join("payouts.redb"), Duration::from_secs(1)).await;
    let ledger = ledger::instrumented::Instrumented::new(Arc::new(file), metrics, "redb");
    ledger.ready().await.unwrap();
    for (no, evidence) in [
        (
            "1",
            Evidence::Accepted {
                fields: Fields::new(),
            },
        ),
        (
            "2",
            Evidence::Declined {
                class: Class::Refused,
                code: "NOTENOUGH".into(),
                text: "余额不足".into(),
            },
        ),
        (
            "3",
            Evidence::NoAnswer {
                why: "time-out".into(),
            },
        ),
    ] {
        let claimed = order(no);
        ledger.insert(&claimed).await.unwrap();
        let next = next(&claimed, evidence);
        ledger.replace(&claimed, &next).await.unwrap();
        metrics.payouts.recorded(Some(claimed.state.name()), &next);
    }
    let mut much = order("4");
    much.charges = vec![Charge {
        counter: Counter::MerchantFen,
        name: "merchant-fen:1".to_owned(),
        amount: 2,
        limit: 1,
    }];
    ledger.insert(&much).await.unwrap();
    metrics.payouts.refused_for_a_limit(&much);
}

/// Opens an embedded ledger in this process. Opening reads the file twice and may find it locked the second
/// time: a program that another test starts inherits every open file, with its lock, until it executes its own
/// code.
async fn file_ledger(path: &Path, retention: Duration) -> FileLedger {
    for _ in 0..500 {
        match FileLedger::open(path, retention, true, Arc::new(SystemClock)) {
            Err(OpenError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
            opened => return opened.unwrap(),
        }
    }
    panic!("{} stayed locked", path.display());
}

fn order(no: &str) -> Order {
    let text = format!(
        r#"{{"wxAppId":"wx1","mchId":"19","mchBillno":"{no}","openid":"user-1","amount":100,"actName":"a","remark":"r","tradeRecordId":7}}"#
    );
    let new = NewOrder {
        upstream: Destination::Handler(HandlerId::parse("http://127.0.0.1:8000").unwrap()),
        encoding: Encoding::Json,
        openid: OpenId::parse("oX12abcdefghijk9f").unwrap(),
        parameters: Fields::new(),
        charges: vec![],
    };
    let lease = Lease {
        nonce: 1,
        length: Duration::from_secs(30),
    };
    let request = SendRequest::read(json::decode(&text).unwrap()).unwrap();
    Order::claimed(&request, new, lease, Moment::from((1_795_449_599_999, 0)))
}

fn next(order: &Order, evidence: Evidence) -> Order {
    let policy = Policy {
        refuses_doubles: true,
        not_found_after: Duration::from_secs(86_400),
    };
    let event = Event::Attempted {
        version: order.version,
        evidence,
    };
    match step(order, event, policy, order.created_at, 0) {
        Step::Become(next) => *next,
        other @ (Step::Stay | Step::Remove) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_documented_metric_is_among_them() {
    let series = series().await;
    let mut found = 0;
    for line in crate::tools::read("docs/operate.md").lines() {
        let Some((name, _)) = line
            .strip_prefix("| `payout_")
            .and_then(|line| line.split_once('`'))
        else {
            continue;
        };
        let name = format!("payout_{name}");
        assert!(
            series.contains_key(&name) || series.contains_key(&format!("{name}_bucket")),
            "{name} is not counted by this test: {:?}",
            series.keys()
        );
        found += 1;
    }
    assert!(found >= 18, "{found}");
}
