//! Tests that Kustomize and Helm render the same: an identical sidecar, and around it the same except names and
//! selectors.

use serde_json::{Value, json};

use crate::chart::{dependency, standalone};
use crate::kustomize::overlay;
use crate::tools::{output, read, repository, the};

/// The objects of Kustomize, and of Helm's two ways.
fn all() -> [(&'static str, Vec<Value>); 3] {
    [
        ("kustomize", overlay()),
        ("chart by itself", standalone()),
        ("chart as a dependency", dependency()),
    ]
}

fn pod(objects: &[Value]) -> &Value {
    &the("Deployment", "shop", objects)["spec"]["template"]["spec"]
}

#[test]
fn the_sidecar_is_the_same_container() {
    let [(_, kustomize), helm @ ..] = all();
    let expected = &pod(&kustomize)["initContainers"];
    assert_eq!(expected.as_array().unwrap().len(), 1);
    for (way, objects) in &helm {
        assert_eq!(&pod(objects)["initContainers"], expected, "{way}");
    }
}

#[test]
fn the_pod_around_it_is_the_same() {
    let [(_, kustomize), helm @ ..] = all();
    for (way, objects) in &helm {
        for key in ["terminationGracePeriodSeconds", "volumes"] {
            let mut expected = pod(&kustomize)[key].clone();
            if key == "volumes" {
                expected[0]["configMap"]["name"] = json!("shop-payout-sidecar-config");
            }
            assert_eq!(pod(objects)[key], expected, "{way}: {key}");
        }
        for key in ["lifecycle", "readinessProbe", "resources", "ports"] {
            let application = |objects| &pod(objects)["containers"][0][key];
            assert_eq!(application(objects), application(&kustomize), "{way}: {key}");
        }
        let port = |objects| &the("Service", "shop", objects)["spec"]["ports"];
        assert_eq!(port(objects), port(&kustomize), "{way}");
        let config = |name, objects| &the("ConfigMap", name, objects)["data"];
        assert_eq!(
            config("shop-payout-sidecar-config", objects),
            config("payout-sidecar-config", &kustomize),
            "{way}"
        );
    }
}

#[test]
fn what_stands_around_the_pod_is_the_same() {
    let [(_, kustomize), helm @ ..] = all();
    for (way, objects) in &helm {
        for (kind, name, selector) in [
            ("NetworkPolicy", "payout-sidecar", "podSelector"),
            ("PodDisruptionBudget", "payout-sidecar", "selector"),
            ("Service", "payout-sidecar-metrics", "selector"),
            ("ServiceMonitor", "payout-sidecar", "selector"),
        ] {
            let without = |name: &str, objects: &[Value]| {
                let mut spec = the(kind, name, objects)["spec"].clone();
                assert!(spec.as_object_mut().unwrap().remove(selector).is_some(), "{kind}");
                spec
            };
            assert_eq!(
                without(&format!("shop-{name}"), objects),
                without(name, &kustomize),
                "{way}: {kind}"
            );
        }
        let label =
            &the("Deployment", "shop", objects)["spec"]["template"]["metadata"]["labels"]["payout-sidecar"];
        assert_eq!(label, "shop", "{way}: one label value for each release");
        for (kind, name, selector) in [
            (
                "NetworkPolicy",
                "shop-payout-sidecar",
                "/spec/podSelector/matchLabels",
            ),
            (
                "PodDisruptionBudget",
                "shop-payout-sidecar",
                "/spec/selector/matchLabels",
            ),
            ("Service", "shop-payout-sidecar-metrics", "/spec/selector"),
        ] {
            let selected = the(kind, name, objects).pointer(selector).unwrap();
            assert_eq!(selected, &json!({ "payout-sidecar": label }), "{way}: {kind}");
        }
        let monitor = the("ServiceMonitor", "shop-payout-sidecar", objects);
        let service = &the("Service", "shop-payout-sidecar-metrics", objects)["metadata"]["labels"];
        let wanted = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
        assert_eq!(wanted.len(), 3);
        assert!(wanted.iter().all(|(key, value)| service[key] == *value), "{way}");
    }
}

#[test]
fn rules_and_dashboard_are_the_same() {
    let (kustomize, helm) = (overlay(), standalone());
    let rules = |name, objects| the("PrometheusRule", name, objects)["spec"].clone();
    assert_eq!(
        rules("shop-payout-sidecar", &helm),
        rules("payout-sidecar", &kustomize)
    );
    assert_eq!(
        rules("payout-sidecar", &kustomize),
        crate::tools::yaml("deploy/prometheus/rules.yaml")
    );
    let dashboard = |name, objects| {
        let map = the("ConfigMap", name, objects);
        assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
        map["data"]["payout-sidecar.json"]
            .as_str()
            .unwrap()
            .trim_end()
            .to_owned()
    };
    let expected = read("deploy/grafana/dashboard.json");
    assert_eq!(
        dashboard("shop-payout-sidecar-dashboard", &helm),
        expected.trim_end()
    );
    assert_eq!(
        dashboard("payout-sidecar-dashboard", &kustomize),
        expected.trim_end()
    );
}

#[test]
fn the_copies_are_those_that_spread_makes() {
    let dir = tempfile::tempdir().unwrap();
    output(
        repository("deploy/spread").to_str().unwrap(),
        &[dir.path().to_str().unwrap()],
        b"",
    );
    let mut found = 0;
    let mut folders = vec![dir.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let place = path.strip_prefix(dir.path()).unwrap().to_str().unwrap();
            assert!(
                std::fs::read_to_string(&path).unwrap() == read(&format!("deploy/{place}")),
                "deploy/{place} is not as deploy/spread makes it: run that"
            );
            found += 1;
        }
    }
    assert_eq!(found, 4);
}
