//! Tests of the alert rules: promtool accepts them and runs their tests; each alert fires in one test and stays
//! silent in another, uses existing metrics, and links to a section of docs/operate.md.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::expressions::{faults, unknown_in_text};
use crate::metrics::series;
use crate::tools::{output, read, yaml};

/// The rules, in the order of the file.
fn rules() -> Vec<Value> {
    let file = yaml("deploy/prometheus/rules.yaml");
    let groups = file["groups"].as_array().unwrap();
    let rules: Vec<Value> = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect();
    assert_eq!(rules.len(), 12);
    rules
}

fn text<'a>(rule: &'a Value, pointer: &str) -> &'a str {
    rule.pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("{pointer} in {rule:#}"))
}

#[test]
fn promtool_takes_the_rules_and_their_tests() {
    let checked = output(
        "promtool",
        &["check", "rules", "deploy/prometheus/rules.yaml"],
        b"",
    );
    let checked = String::from_utf8(checked).unwrap();
    assert!(checked.contains("SUCCESS: 12 rules found"), "{checked}");
    let tested = output(
        "promtool",
        &["test", "rules", "deploy/prometheus/rules_test.yaml"],
        b"",
    );
    let tested = String::from_utf8(tested).unwrap();
    assert!(tested.contains("SUCCESS"), "{tested}");
}

#[test]
fn each_alert_fires_in_one_test_and_not_in_another() {
    let file = yaml("deploy/prometheus/rules_test.yaml");
    let mut seen: BTreeMap<&str, BTreeSet<bool>> = BTreeMap::new();
    let mut cases = 0;
    for test in file["tests"].as_array().unwrap() {
        for case in test["alert_rule_test"].as_array().unwrap() {
            let fires = !case["exp_alerts"].as_array().unwrap().is_empty();
            seen.entry(text(case, "/alertname")).or_default().insert(fires);
            cases += 1;
        }
    }
    assert!(cases >= 22, "{cases}");
    for rule in rules() {
        let name = text(&rule, "/alert");
        assert_eq!(
            seen.get(name),
            Some(&BTreeSet::from([false, true])),
            "{name}: that it fires, and that it does not"
        );
    }
    assert_eq!(seen.len(), 12);
}

#[tokio::test]
async fn the_alerts_speak_of_metrics_and_labels_that_there_are() {
    let series = series().await;
    let mut metrics = 0;
    for rule in rules() {
        let (alert, expression) = (text(&rule, "/alert"), text(&rule, "/expr"));
        let (faults, found) = faults(expression, &series);
        assert!(faults.is_empty(), "{alert}: {faults:?}");
        assert!(found > 0, "{alert} watches nothing of ours");
        metrics += found;
        for key in ["summary", "description"] {
            let unknown = unknown_in_text(text(&rule, &format!("/annotations/{key}")), expression);
            assert!(unknown.is_empty(), "{alert}: {key} puts in {unknown:?}");
        }
    }
    assert!(metrics >= 16, "{metrics}");
}

#[test]
fn each_alert_says_what_it_means_and_where_to_read_on() {
    let operate = read("docs/operate.md");
    let (_, chapter) = operate.split_once("\n## When an alert fires\n").unwrap();
    let chapter = chapter.split("\n## ").next().unwrap();
    let sections: BTreeSet<String> = chapter
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .map(|title| {
            title
                .to_lowercase()
                .replace(' ', "-")
                .replace([',', '\'', '`'], "")
        })
        .collect();
    let mut used = BTreeSet::new();
    for rule in rules() {
        let severity = text(&rule, "/labels/severity");
        assert!(["warning", "critical"].contains(&severity), "{severity}");
        assert!(text(&rule, "/annotations/description").ends_with('.'));
        assert!(!text(&rule, "/annotations/summary").is_empty());
        let runbook = text(&rule, "/annotations/runbook");
        let section = runbook.strip_prefix("docs/operate.md#").unwrap();
        assert!(sections.contains(section), "{runbook}: {sections:?}");
        used.insert(section.to_owned());
    }
    assert_eq!(used.len(), 9);
    // And every section belongs to an alert.
    assert_eq!(used, sections);
}
