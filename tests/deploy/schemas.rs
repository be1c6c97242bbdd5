//! Checks what Kustomize and Helm render against Kubernetes' own schemas. For the kinds of the Prometheus
//! operator the tests have no schemas, so they check the keys.

use serde_json::Value;

use crate::chart::{dependency, standalone};
use crate::kustomize::{base, overlay};
use crate::tools::{run, the};

/// The oldest supported version, and the newest with schemas.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];
const OPERATOR: [&str; 2] = ["ServiceMonitor", "PrometheusRule"];

/// Validates all objects of Kubernetes' own kinds strictly. Returns whether all passed, and the tool's output.
fn judged(version: &str, objects: &[Value]) -> (bool, String) {
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<String> = objects
        .iter()
        .filter(|object| !OPERATOR.contains(&object["kind"].as_str().unwrap()))
        .enumerate()
        .map(|(n, object)| {
            let path = dir.path().join(format!("{n}.yaml"));
            // JSON is YAML.
            std::fs::write(&path, object.to_string()).unwrap();
            path.to_str().unwrap().to_owned()
        })
        .collect();
    let mut arguments = vec!["--strict", "-k", version];
    arguments.extend(files.iter().map(String::as_str));
    let output = run("kubernetes-validate", &arguments, b"");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let passed = text.matches(" passed for resource ").count() == files.len();
    (output.status.success() && passed && !text.contains("WARN"), text)
}

#[test]
fn kubernetes_takes_what_kustomize_and_helm_make() {
    let all: Vec<Value> = [base(), overlay(), standalone(), dependency()].concat();
    assert_eq!(all.len(), 2 + 9 + 9 + 7);
    for version in VERSIONS {
        let (taken, output) = judged(version, &all);
        assert!(taken, "Kubernetes {version}: {output}");
    }
}

#[test]
fn the_check_notices_what_is_misspelt() {
    let mut objects = overlay();
    let at = objects
        .iter()
        .position(|object| object["kind"] == "Deployment")
        .unwrap();
    let sidecar = &mut objects[at]["spec"]["template"]["spec"]["initContainers"][0];
    let policy = sidecar["restartPolicy"].take();
    let sidecar = sidecar.as_object_mut().unwrap();
    sidecar.remove("restartPolicy");
    sidecar.insert("restartPolcy".to_owned(), policy);
    let (taken, output) = judged("1.37", &objects);
    assert!(!taken && output.contains("restartPolcy"), "{output}");
}

fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn the_operators_kinds_have_its_shape() {
    for (objects, name) in [
        (overlay(), "payout-sidecar"),
        (standalone(), "shop-payout-sidecar"),
    ] {
        for kind in OPERATOR {
            let object = the(kind, name, &objects);
            assert_eq!(object["apiVersion"], "monitoring.coreos.com/v1");
            assert_eq!(keys(object), ["apiVersion", "kind", "metadata", "spec"]);
        }
        let monitor = &the("ServiceMonitor", name, &objects)["spec"];
        assert_eq!(keys(monitor), ["endpoints", "selector"]);
        assert_eq!(monitor["endpoints"].as_array().unwrap().len(), 1);
        assert_eq!(keys(&monitor["endpoints"][0]), ["interval", "path", "port"]);
        assert_eq!(keys(&monitor["selector"]), ["matchLabels"]);

        let rules = &the("PrometheusRule", name, &objects)["spec"];
        assert_eq!(keys(rules), ["groups"]);
        let mut found = 0;
        for group in rules["groups"].as_array().unwrap() {
            assert_eq!(keys(group), ["name", "rules"]);
            for rule in group["rules"].as_array().unwrap() {
                let mut keys = keys(rule);
                keys.retain(|key| *key != "for");
                assert_eq!(keys, ["alert", "annotations", "expr", "labels"], "{rule}");
                for key in ["alert", "expr"] {
                    assert!(rule[key].is_string(), "{rule}");
                }
                found += 1;
            }
        }
        assert_eq!(found, 12);
    }
}
