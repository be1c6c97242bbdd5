//! Tests of the dashboard: every panel shows existing metrics, no panels overlap, and every metric is on a
//! panel.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::expressions::{faults, unknown_in_text};
use crate::metrics::series;
use crate::tools::{output, read};

fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/grafana/dashboard.json")).unwrap()
}

fn panels(dashboard: &Value) -> &[Value] {
    dashboard["panels"].as_array().unwrap()
}

#[tokio::test]
async fn every_panel_asks_for_metrics_and_labels_that_there_are() {
    let series = series().await;
    let dashboard = dashboard();
    let mut asked = String::new();
    let mut targets = 0;
    for panel in panels(&dashboard).iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let (faults, found) = faults(expression, &series);
            assert!(faults.is_empty(), "{title}: {faults:?}");
            assert!(found > 0, "{title} asks for nothing of ours");
            assert_eq!(
                expression
                    .matches("namespace=~\"$namespace\", job=~\"$job\"")
                    .count(),
                found,
                "{title}: each metric is of the chosen applications"
            );
            let legend = target["legendFormat"].as_str().unwrap();
            let unknown = unknown_in_text(legend, expression.trim_start_matches("histogram_quantile"));
            assert!(unknown.is_empty(), "{title}: the legend has {unknown:?}");
            asked.push_str(expression);
            targets += 1;
        }
    }
    assert!(targets >= 20, "{targets}");
    // One series of a histogram suffices to show it; its sum and count belong to the same family.
    for name in series.keys() {
        let family = name.trim_end_matches("_count").trim_end_matches("_sum");
        assert!(asked.contains(family), "{name} is on no panel");
    }
}

#[test]
fn prometheus_can_read_every_expression() {
    let dashboard = dashboard();
    let mut rules = "groups:\n  - name: panels\n    rules:\n".to_owned();
    let mut expressions = 0;
    for panel in panels(&dashboard).iter().filter(|panel| panel["type"] != "row") {
        for target in panel["targets"].as_array().unwrap() {
            let mut expression = target["expr"].as_str().unwrap().to_owned();
            // The variables that Grafana replaces.
            for (variable, value) in [
                ("$__rate_interval", "2m"),
                ("$__range", "6h"),
                ("$namespace", ".*"),
                ("$job", ".*"),
            ] {
                expression = expression.replace(variable, value);
            }
            assert!(!expression.contains('$'), "{expression}");
            let expression = Value::String(expression);
            rules.push_str(&format!(
                "      - record: panel:{expressions}\n        expr: {expression}\n"
            ));
            expressions += 1;
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("panels.yaml");
    std::fs::write(&path, rules).unwrap();
    let output = output("promtool", &["check", "rules", path.to_str().unwrap()], b"");
    let output = String::from_utf8(output).unwrap();
    assert!(
        output.contains(&format!("SUCCESS: {expressions} rules found")),
        "{output}"
    );
}

#[test]
fn panels_are_told_apart_and_do_not_overlap() {
    let dashboard = dashboard();
    let panels = panels(&dashboard);
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    let mut taken = BTreeSet::new();
    for panel in panels {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(x < 24, "{}: 24 columns", panel["title"]);
                assert!(taken.insert((x, y)), "{} overlaps at {x},{y}", panel["title"]);
            }
        }
    }
    assert!(panels.len() > 20, "{}", panels.len());
}

#[test]
fn it_finds_its_data_source_and_applications_by_variables() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "payout-sidecar");
    let variables: Vec<_> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    assert_eq!(variables, ["datasource", "namespace", "job"]);
    for panel in panels(&dashboard).iter().filter(|panel| panel["type"] != "row") {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        assert_eq!(panel["fieldConfig"]["overrides"], Value::Array(vec![]));
    }
}
