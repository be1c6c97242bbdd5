//! Tests of the Helm chart: what it renders by itself and as a dependency, and which values it accepts.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::tools::{names, objects, output, repository, run, the};

const CHART: &str = "deploy/helm/payout-sidecar";
const CONFIG: &str = "deploy/kustomize/example/overlay/config.toml";

/// Renders the chart by itself, in front of an application's image.
pub fn standalone() -> Vec<Value> {
    static RENDERED: LazyLock<Vec<Value>> = LazyLock::new(|| standalone_with(&[]));
    RENDERED.clone()
}

fn standalone_with(more: &[&str]) -> Vec<Value> {
    let config = format!("config={CONFIG}");
    let values = ["-f", "deploy/helm/example/standalone.yaml", "--set-file", &config];
    let arguments = [&["template", "shop", CHART], &values[..], more].concat();
    objects(&output("helm", &arguments, b""))
}

/// Renders the chart as a dependency of an application's own chart.
pub fn dependency() -> Vec<Value> {
    static RENDERED: LazyLock<Vec<Value>> = LazyLock::new(in_another_chart);
    RENDERED.clone()
}

fn in_another_chart() -> Vec<Value> {
    // In a copy: helm writes the packed dependency into the chart's folder.
    let dir = tempfile::tempdir().unwrap();
    copy(&repository("deploy/helm"), dir.path());
    let shop = dir.path().join("example/shop");
    let shop = shop.to_str().unwrap();
    output("helm", &["dependency", "update", shop], b"");
    let config = format!("payout-sidecar.config={CONFIG}");
    objects(&output(
        "helm",
        &["template", "shop", shop, "--set-file", &config],
        b"",
    ))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

/// Helm's message about values that the chart must refuse.
fn refusal(values: &[&str]) -> String {
    let refused = run("helm", &[&["template", "shop", CHART], values].concat(), b"");
    assert!(!refused.status.success(), "{values:?} were taken");
    String::from_utf8_lossy(&refused.stderr).into_owned()
}

#[test]
fn lint_has_nothing_to_say() {
    for values in [&[][..], &["-f", "deploy/helm/example/standalone.yaml"]] {
        let output = output("helm", &[&["lint", "--strict", CHART], values].concat(), b"");
        let output = String::from_utf8(output).unwrap();
        assert!(
            output.contains("1 chart(s) linted, 0 chart(s) failed"),
            "{output}"
        );
        assert!(
            !output.contains("[WARNING]") && !output.contains("[ERROR]"),
            "{output}"
        );
    }
}

#[test]
fn each_way_makes_the_objects_that_belong_to_it() {
    let around = [
        "ConfigMap/shop-payout-sidecar-config",
        "Deployment/shop",
        "NetworkPolicy/shop-payout-sidecar",
        "PodDisruptionBudget/shop-payout-sidecar",
        "Service/shop",
        "Service/shop-payout-sidecar-metrics",
        "ServiceMonitor/shop-payout-sidecar",
    ];
    assert_eq!(names(&dependency()), around);
    let mut all = [
        &around[..],
        &[
            "ConfigMap/shop-payout-sidecar-dashboard",
            "PrometheusRule/shop-payout-sidecar",
        ],
    ]
    .concat();
    all.sort_unstable();
    assert_eq!(names(&standalone()), all);
    let off = [
        "networkPolicy",
        "podDisruptionBudget",
        "serviceMonitor",
        "prometheusRule",
        "dashboard",
        "application",
    ]
    .map(|name| format!("--set={name}.enabled=false"));
    let off: Vec<&str> = off.iter().map(String::as_str).collect();
    assert_eq!(
        names(&standalone_with(&off)),
        ["ConfigMap/shop-payout-sidecar-config"]
    );
}

#[test]
fn the_schema_refuses_values_that_would_do_nothing_or_harm() {
    let at = |values: &[&str], place: &str| {
        let output = refusal(values);
        assert!(output.contains(place), "{values:?}: {output}");
    };
    at(&["--set=resource.limits.memory=1Gi"], "resource");
    at(&["--set=image.tagg=0.2.0"], "/image");
    at(&["--set=image.digest=0123"], "/image/digest");
    at(&["--set=ports.payout=http"], "/ports/payout");
    at(&["--set=ports.admin=70000"], "/ports/admin");
    at(
        &["--set=terminationGracePeriodSeconds=soon"],
        "/terminationGracePeriodSeconds",
    );
    at(&["--set=application.enabled=true"], "/application/image");
    at(&["--set=application.replica=3"], "/application");
    at(&["--set=networkPolicy.enabled=perhaps"], "/networkPolicy/enabled");
    at(
        &["--set=podDisruptionBudget.maxUnavailable=half"],
        "/podDisruptionBudget",
    );
    at(&["--set=serviceMonitor.interval=30"], "/serviceMonitor/interval");
    // A template reports this, not the schema: the user may give a ConfigMap instead.
    at(&[], "config is empty");
}

#[test]
fn every_value_has_a_default_and_a_place_in_the_schema() {
    let defaults = crate::tools::yaml("deploy/helm/payout-sidecar/values.yaml");
    let schema: Value = serde_json::from_str(&crate::tools::read(
        "deploy/helm/payout-sidecar/values.schema.json",
    ))
    .unwrap();
    let compared = compare("", &defaults, &schema);
    assert!(compared > 40, "only {compared} values were compared");
}

/// Compares the keys of defaults and schema, recursively, in all objects whose keys the schema lists. Returns
/// the number of compared keys.
fn compare(at: &str, defaults: &Value, schema: &Value) -> usize {
    let Some(properties) = schema["properties"].as_object() else {
        return 0;
    };
    let Some(defaults) = defaults.as_object() else {
        panic!("{at} is an object in the schema, and {defaults} by default")
    };
    // Of `resources`, the defaults leave out `claims`, which few deployments set.
    let known: BTreeSet<_> = properties.keys().filter(|key| *key != "claims").collect();
    let given: BTreeSet<_> = defaults.keys().collect();
    assert_eq!(given, known, "below {at:?}");
    let below = defaults
        .iter()
        .map(|(key, value)| compare(&format!("{at}/{key}"), value, &properties[key]));
    given.len() + below.sum::<usize>()
}

#[test]
fn other_ports_go_everywhere() {
    let objects = standalone_with(&["--set=ports.payout=8081,ports.admin=9091"]);
    let pod = &the("Deployment", "shop", &objects)["spec"]["template"]["spec"];
    let sidecar = &pod["initContainers"][0];
    assert_eq!(
        sidecar["env"],
        json!([
            { "name": "PAYOUT_SIDECAR__ADMIN__LISTEN", "value": "0.0.0.0:9091" },
            { "name": "PAYOUT_SIDECAR__SERVER__LISTEN", "value": "0.0.0.0:8081" },
        ])
    );
    assert_eq!(
        sidecar["ports"],
        json!([
            { "name": "payout", "containerPort": 8081 },
            { "name": "payout-admin", "containerPort": 9091 },
        ])
    );
    let target = |name: &str| the("Service", name, &objects)["spec"]["ports"][0]["targetPort"].clone();
    assert_eq!(target("shop"), 8081);
    assert_eq!(target("shop-payout-sidecar-metrics"), 9091);
    let ingress = &the("NetworkPolicy", "shop-payout-sidecar", &objects)["spec"]["ingress"];
    assert_eq!(ingress[0]["ports"][0]["port"], 8081);
    assert_eq!(ingress[1]["ports"][0]["port"], 9091);
}

#[test]
fn a_digest_and_a_configuration_of_ones_own_are_taken() {
    let digest = "sha256:".to_owned() + &"0123456789abcdef".repeat(4);
    let objects = standalone_with(&[
        &format!("--set=image.digest={digest}"),
        "--set=existingConfigMap=mine",
        "--set=secretName=hush",
    ]);
    assert!(
        !names(&objects).contains(&"ConfigMap/shop-payout-sidecar-config".to_owned()),
        "{:?}",
        names(&objects)
    );
    let pod = &the("Deployment", "shop", &objects)["spec"]["template"]["spec"];
    assert_eq!(
        pod["initContainers"][0]["image"],
        format!("registry.example.com/payout-sidecar@{digest}")
    );
    assert_eq!(pod["volumes"][0]["configMap"]["name"], "mine");
    assert_eq!(pod["volumes"][1]["secret"]["secretName"], "hush");
}

#[test]
fn no_token_of_the_cluster_is_mounted_unless_it_is_asked_for() {
    for (more, expected) in [
        (&[][..], false),
        (&["--set=application.automountServiceAccountToken=true"], true),
    ] {
        let objects = standalone_with(more);
        let pod = &the("Deployment", "shop", &objects)["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], expected);
    }
}

#[test]
fn the_notes_ask_for_an_admin_token_where_there_is_none() {
    let notes = |config: &str| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, config).unwrap();
        let config = format!("config={}", path.display());
        let values = ["-f", "deploy/helm/example/standalone.yaml", "--set-file", &config];
        // Helm renders the notes without a cluster in a dry run of `install`.
        let arguments = [
            &[
                "install",
                "shop",
                CHART,
                "--dry-run=client",
                "--disable-openapi-validation",
            ],
            &values[..],
        ]
        .concat();
        String::from_utf8(output("helm", &arguments, b"")).unwrap()
    };
    let asked = "config.toml has no [admin] token";
    assert!(notes("[access]\n").contains(asked));
    assert!(!notes("[admin]\ntoken = { file = \"/secrets/admin-token\" }\n").contains(asked));
}
