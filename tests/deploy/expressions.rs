//! Parses enough of PromQL to check that an expression uses existing metrics and labels. It does not use
//! promql-parser 0.11, which depends on bincode, an unmaintained crate (RUSTSEC-2025-0141).

use std::collections::BTreeSet;

use crate::metrics::Series;

/// Labels that Prometheus adds to everything that it scrapes.
const OF_THE_TARGET: [&str; 3] = ["namespace", "job", "pod"];
/// Labels whose values depend on the deployment, so this test does not check them.
const OPEN: [&str; 5] = ["mch_id", "upstream", "circuit", "owner", "version"];

/// A metric in an expression, with its label matchers: label, operator, value.
#[derive(Debug, PartialEq)]
struct Use<'a> {
    name: &'a str,
    matchers: Vec<(&'a str, &'a str, &'a str)>,
}

/// The metrics of an expression. All metrics of the sidecar begin with `payout_`, and nothing else in an
/// expression does.
fn uses(expression: &str) -> Vec<Use<'_>> {
    let mut uses = Vec::new();
    let mut rest = expression;
    while let Some(at) = rest.find("payout_") {
        rest = &rest[at..];
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        rest = after;
        let mut matchers = Vec::new();
        if let Some(inside) = after.strip_prefix('{') {
            let (inside, after) = inside.split_once('}').unwrap();
            rest = after;
            for matcher in inside.split(',').map(str::trim).filter(|text| !text.is_empty()) {
                let (label, value) = matcher.split_once('"').unwrap();
                let operator = label.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
                let label = label.strip_suffix(operator).unwrap();
                matchers.push((label, operator, value.strip_suffix('"').unwrap()));
            }
        }
        uses.push(Use { name, matchers });
    }
    uses
}

/// The labels of every `by (…)`.
fn groupings(expression: &str) -> Vec<BTreeSet<&str>> {
    expression
        .split("by (")
        .skip(1)
        .map(|rest| {
            rest.split_once(')')
                .unwrap()
                .0
                .split(',')
                .map(str::trim)
                .collect()
        })
        .collect()
}

/// The faults of an expression, and the number of metrics in it.
pub fn faults(expression: &str, series: &Series) -> (Vec<String>, usize) {
    let mut faults = Vec::new();
    let uses = uses(expression);
    let mut labels: BTreeSet<&str> = OF_THE_TARGET.into();
    for Use { name, matchers } in &uses {
        let Some(known) = series.get(*name) else {
            faults.push(format!("there is no metric {name}"));
            continue;
        };
        labels.extend(known.keys().map(String::as_str));
        for (label, operator, value) in matchers {
            if OF_THE_TARGET.contains(label) {
                continue;
            }
            let Some(values) = known.get(*label) else {
                faults.push(format!("{name} has no label {label}"));
                continue;
            };
            if OPEN.contains(label) {
                continue;
            }
            let wanted: Vec<&str> = match *operator {
                "=" | "!=" => vec![value],
                _ => value.split('|').collect(),
            };
            for value in wanted.iter().filter(|value| !values.contains(**value)) {
                faults.push(format!("{name} never has {label}=\"{value}\", only {values:?}"));
            }
        }
    }
    for label in groupings(expression).into_iter().flatten() {
        if !labels.contains(label) {
            faults.push(format!("no metric here has the label {label}"));
        }
    }
    (faults, uses.len())
}

/// The labels that a text inserts (`{{ $labels.x }}` or `{{x}}`) but the expression's result does not have. The
/// result has the labels of the expression's first `by (…)`.
pub fn unknown_in_text(text: &str, expression: &str) -> Vec<String> {
    let groupings = groupings(expression);
    let has = |label: &str| groupings.first().is_some_and(|labels| labels.contains(label));
    text.split("{{")
        .skip(1)
        .map(|rest| rest.split_once("}}").unwrap().0.trim())
        .filter(|inside| !inside.starts_with("$value"))
        .map(|inside| inside.strip_prefix("$labels.").unwrap_or(inside))
        .filter(|label| !has(label))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn a_wrong_expression_is_noticed() {
    let series = crate::metrics::series().await;
    let faults = |expression| faults(expression, &series).0;
    assert_eq!(
        faults(
            "sum by (namespace, le) (rate(payout_http_request_duration_seconds_bucket{endpoint=\"send\"}[5m]))"
        ),
        Vec::<String>::new()
    );
    for (expression, fault) in [
        ("payout_order_total > 0", "there is no metric payout_order_total"),
        (
            "payout_orders_total{merchant=\"1\"}",
            "payout_orders_total has no label merchant",
        ),
        (
            "sum by (owner) (payout_orders_total)",
            "no metric here has the label owner",
        ),
    ] {
        assert_eq!(faults(expression), [fault]);
    }
    let [fault] = &faults("rate(payout_orders_total{job=\"a\", outcome=~\"refused|failed\"}[5m])")[..] else {
        panic!("one fault")
    };
    assert!(
        fault.starts_with("payout_orders_total never has outcome=\"failed\""),
        "{fault}"
    );
    let by = "max by (job, age) (payout_unknown_orders)";
    assert_eq!(
        unknown_in_text("{{ $value | humanize }} of {{ $labels.job }}", by),
        Vec::<String>::new()
    );
    assert_eq!(unknown_in_text("{{ $labels.pod }} {{age}}", by), ["pod"]);
}
