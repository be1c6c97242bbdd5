//! Tests of the Kustomize components with `kubectl`: they render the example with the sidecar and compare it
//! with the example without.
//!
//! They check that the components add what they promise and nothing else, and that manifests, example
//! configuration and README agree.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::tools::{kubectl, named, names, objects, read, the};

const SIDECAR: &str = "payout-sidecar";
/// The name of the example's Deployment and Service.
const APPLICATION: &str = "shop";
const CONFIG: &str = "payout-sidecar-config";

/// The defaults of `[server] lame_duck` and `drain_timeout`, in seconds.
const LAME_DUCK_S: i64 = 3;
const DRAIN_TIMEOUT_S: i64 = 25;
/// The time that `deploy/README.md` grants the application to stop, in seconds.
const APPLICATION_STOP_S: i64 = 15;

/// Renders a folder below `deploy/kustomize/example` with `kubectl kustomize`.
fn render(folder: &str) -> Vec<Value> {
    objects(&kubectl(
        &["kustomize", &format!("deploy/kustomize/example/{folder}")],
        b"",
    ))
}

/// The application without the sidecar.
pub fn base() -> Vec<Value> {
    static RENDERED: LazyLock<Vec<Value>> = LazyLock::new(|| render("base"));
    RENDERED.clone()
}

/// The application with the sidecar.
pub fn overlay() -> Vec<Value> {
    static RENDERED: LazyLock<Vec<Value>> = LazyLock::new(|| render("overlay"));
    RENDERED.clone()
}

fn sidecar(overlay: &[Value]) -> &Value {
    named(
        SIDECAR,
        &the("Deployment", APPLICATION, overlay)["spec"]["template"]["spec"]["initContainers"],
    )
}

fn example_config(overlay: &[Value]) -> (String, toml::Table) {
    let text = the("ConfigMap", CONFIG, overlay)["data"]["config.toml"]
        .as_str()
        .unwrap()
        .to_owned();
    let table = text
        .parse()
        .unwrap_or_else(|error| panic!("the example's config.toml: {error}"));
    (text, table)
}

/// Removes `key` from `object`, which must have it.
fn take(object: &mut Value, key: &str) -> Value {
    let map = object
        .as_object_mut()
        .unwrap_or_else(|| panic!("an object that holds {key:?}"));
    map.remove(key).unwrap_or_else(|| panic!("{key:?} in {map:#?}"))
}

#[test]
fn without_the_additions_the_overlay_is_the_base() {
    let base = base();
    let mut overlay = overlay();
    assert_eq!(names(&base), ["Deployment/shop", "Service/shop"]);
    assert_eq!(
        names(&overlay),
        [
            "ConfigMap/payout-sidecar-config",
            "ConfigMap/payout-sidecar-dashboard",
            "Deployment/shop",
            "NetworkPolicy/payout-sidecar",
            "PodDisruptionBudget/payout-sidecar",
            "PrometheusRule/payout-sidecar",
            "Service/payout-sidecar-metrics",
            "Service/shop",
            "ServiceMonitor/payout-sidecar",
        ]
    );

    overlay.retain(|object| object["metadata"]["name"] == APPLICATION);
    for object in &mut overlay {
        assert_eq!(take(&mut object["metadata"]["labels"], SIDECAR), "enabled");
        if object["kind"] == "Service" {
            let before = &the("Service", APPLICATION, &base)["spec"]["ports"][0]["targetPort"];
            assert_ne!(
                &object["spec"]["ports"][0]["targetPort"], before,
                "the Service was not switched"
            );
            object["spec"]["ports"][0]["targetPort"] = before.clone();
            continue;
        }
        let template = &mut object["spec"]["template"];
        assert_eq!(take(&mut template["metadata"]["labels"], SIDECAR), "enabled");
        let pod = &mut template["spec"];
        assert_eq!(take(pod, "initContainers").as_array().unwrap().len(), 1);
        assert_eq!(take(pod, "volumes").as_array().unwrap().len(), 2);
        take(pod, "terminationGracePeriodSeconds");
        // The user's own patch of the application, which comes from the overlay and not from the component.
        let lifecycle = take(&mut pod["containers"][0], "lifecycle");
        assert_eq!(lifecycle, json!({ "preStop": { "sleep": { "seconds": 10 } } }));
    }
    for kind in ["Deployment", "Service"] {
        assert_eq!(the(kind, APPLICATION, &overlay), the(kind, APPLICATION, &base));
    }
}

#[test]
fn everything_beside_the_application_finds_its_pods_and_ports() {
    let overlay = overlay();
    let pod = &the("Deployment", APPLICATION, &overlay)["spec"]["template"];
    let label = &pod["metadata"]["labels"][SIDECAR];
    for (kind, name, selector) in [
        ("NetworkPolicy", SIDECAR, "/spec/podSelector/matchLabels"),
        ("PodDisruptionBudget", SIDECAR, "/spec/selector/matchLabels"),
        ("Service", "payout-sidecar-metrics", "/spec/selector"),
    ] {
        let object = the(kind, name, &overlay);
        assert_eq!(
            object.pointer(selector),
            Some(&json!({ SIDECAR: label })),
            "{kind}"
        );
    }
    let service = the("Service", "payout-sidecar-metrics", &overlay);
    let monitor = the("ServiceMonitor", SIDECAR, &overlay);
    assert_eq!(
        monitor["spec"]["selector"]["matchLabels"],
        service["metadata"]["labels"]
    );
    assert_eq!(
        monitor["spec"]["endpoints"][0]["port"],
        service["spec"]["ports"][0]["name"]
    );
    assert_eq!(monitor["spec"]["endpoints"][0]["path"], "/metrics");

    let sidecar = sidecar(&overlay);
    let port_of = |name: &str| named(name, &sidecar["ports"])["containerPort"].clone();
    assert_eq!(service["spec"]["ports"][0]["targetPort"], port_of("payout-admin"));
    let ingress = the("NetworkPolicy", SIDECAR, &overlay)["spec"]["ingress"]
        .as_array()
        .unwrap()
        .clone();
    let admitted: Vec<_> = ingress
        .iter()
        .map(|rule| rule["ports"][0]["port"].clone())
        .collect();
    assert_eq!(admitted, [port_of("payout"), port_of("payout-admin")]);
}

#[test]
fn the_sidecar_has_no_hook_of_its_own() {
    // Kubernetes runs a native sidecar's preStop hook when it deletes the pod, not when it is the sidecar's
    // turn to stop: a `drain` there would stop it before the application.
    assert_eq!(sidecar(&overlay())["lifecycle"], Value::Null);
}

#[test]
fn the_sidecar_is_native_and_may_do_nothing_but_serve() {
    let overlay = overlay();
    let sidecar = sidecar(&overlay);
    assert_eq!(
        sidecar["restartPolicy"], "Always",
        "without it this is an init container that never ends"
    );
    assert_eq!(
        sidecar["image"], "registry.example.com/payout-sidecar:0.1.0",
        "`images:` of the overlay applies"
    );
    assert_eq!(
        sidecar["securityContext"],
        json!({
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        })
    );
    assert_eq!(
        sidecar["resources"],
        json!({ "requests": { "cpu": "20m", "memory": "24Mi" }, "limits": { "memory": "64Mi" } })
    );
    assert_eq!(
        sidecar["command"],
        Value::Null,
        "the image's entry point and arguments hold"
    );
    assert_eq!(
        sidecar["args"],
        Value::Null,
        "the image's entry point and arguments hold"
    );
}

#[test]
fn configuration_and_secrets_are_mounted_readable_whole_and_read_only() {
    let overlay = overlay();
    let pod = &the("Deployment", APPLICATION, &overlay)["spec"]["template"]["spec"];
    let mounts = sidecar(&overlay)["volumeMounts"].as_array().unwrap();
    let mount = |path: &str| -> &Value {
        let mount = mounts.iter().find(|mount| mount["mountPath"] == path);
        mount.unwrap_or_else(|| panic!("a mount at {path}: {mounts:#?}"))
    };
    assert_eq!(mounts.len(), 2);
    for path in ["/etc/payout-sidecar", "/secrets"] {
        assert_eq!(mount(path)["readOnly"], true, "{path}");
        assert_eq!(
            mount(path)["subPath"],
            Value::Null,
            "{path}: a subPath mount never sees a change"
        );
    }
    let volume = |path: &str| named(mount(path)["name"].as_str().unwrap(), &pod["volumes"]);

    let config_map = &volume("/etc/payout-sidecar")["configMap"]["name"];
    assert_eq!(
        config_map,
        &the("ConfigMap", CONFIG, &overlay)["metadata"]["name"],
        "the volume is the rendered ConfigMap"
    );
    let secret = &volume("/secrets")["secret"];
    assert_eq!(secret["secretName"], "payout-sidecar-secrets");
    assert_eq!(
        secret["defaultMode"], 0o444,
        "the files are root's, and the sidecar is not root"
    );
}

#[test]
fn probes_and_service_lead_to_ports_that_the_sidecar_listens_on() {
    let overlay = overlay();
    let sidecar = sidecar(&overlay);
    let port_of = |name: &str| named(name, &sidecar["ports"])["containerPort"].as_i64().unwrap();
    assert_eq!((port_of("payout"), port_of("payout-admin")), (8080, 9090));

    let admin = format!("0.0.0.0:{}", port_of("payout-admin"));
    let listen = named("PAYOUT_SIDECAR__ADMIN__LISTEN", &sidecar["env"]);
    assert_eq!(
        listen["value"],
        admin.as_str(),
        "probes come from outside the pod"
    );
    let (_, config) = example_config(&overlay);
    assert!(
        config
            .get("server")
            .and_then(|server| server.get("listen"))
            .is_none(),
        "0.0.0.0:8080 is the default"
    );

    for (probe, path) in [
        ("startupProbe", "/livez"),
        ("livenessProbe", "/livez"),
        ("readinessProbe", "/readyz"),
    ] {
        assert_eq!(
            sidecar[probe]["httpGet"],
            json!({ "path": path, "port": "payout-admin" }),
            "{probe}"
        );
    }

    // A number, not the name: before 1.32 Kubernetes does not resolve a named port of a native sidecar.
    let target = &the("Service", APPLICATION, &overlay)["spec"]["ports"][0]["targetPort"];
    assert_eq!(target, &json!(port_of("payout")));
}

#[test]
fn the_grace_period_is_long_enough_for_an_orderly_end() {
    let overlay = overlay();
    let (_, config) = example_config(&overlay);
    let server = config.get("server").and_then(toml::Value::as_table);
    let set = |key: &str| server.is_some_and(|server| server.contains_key(key));
    assert!(
        !set("lame_duck") && !set("drain_timeout"),
        "the example runs with the defaults counted here"
    );

    let pod = &the("Deployment", APPLICATION, &overlay)["spec"]["template"]["spec"];
    let sleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        .as_i64()
        .unwrap();
    assert!(
        (5..=15).contains(&sleep),
        "endpoints lag behind by 5 to 15 s, the application stays for {sleep} s"
    );
    let needed = [sleep, APPLICATION_STOP_S, LAME_DUCK_S, DRAIN_TIMEOUT_S, 5]
        .iter()
        .sum::<i64>();
    let granted = pod["terminationGracePeriodSeconds"].as_i64().unwrap();
    assert!(
        granted >= needed,
        "{granted} s are granted, {needed} s may be needed"
    );
}

/// Loads a configuration like the sidecar, with generated files instead of the Secret's.
fn loads(text: &str) {
    let secrets = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(Vec::new())
        .unwrap()
        .self_signed(&key)
        .unwrap();
    for (name, content) in [
        ("admin-token", "a".to_owned()),
        ("token", "t".to_owned()),
        ("1900000109-api-key", "k".repeat(32)),
        ("1900000109-apiclient_cert.pem", certificate.pem()),
        ("1900000109-apiclient_key.pem", key.serialize_pem()),
    ] {
        std::fs::write(secrets.path().join(name), content).unwrap();
    }
    let path = secrets.path().join("config.toml");
    std::fs::write(
        &path,
        text.replace("/secrets/", &format!("{}/", secrets.path().display())),
    )
    .unwrap();
    if let Err(errors) = payout_sidecar::config::load(&path, std::iter::empty()) {
        panic!("{errors}");
    }
}

#[test]
fn the_example_configuration_fits_the_pod_it_runs_in() {
    let overlay = overlay();
    let (text, config) = example_config(&overlay);
    assert_eq!(text, read("deploy/kustomize/example/overlay/config.toml"));
    loads(&text);

    let application = &the("Deployment", APPLICATION, &overlay)["spec"]["template"]["spec"]["containers"][0];
    let backend = format!("http://127.0.0.1:{}", application["ports"][0]["containerPort"]);
    assert_eq!(config["backend"]["url"].as_str(), Some(backend.as_str()));
    assert_eq!(
        config["ledger"]["store"].as_str(),
        Some("redis"),
        "there are several replicas"
    );

    let mut files = BTreeSet::new();
    secret_files(&toml::Value::Table(config), &mut files);
    assert_eq!(files.len(), 5, "{files:?}");
    assert!(files.contains("/secrets/admin-token"), "{files:?}");
    let readme = read("deploy/README.md");
    for file in files {
        let name = file
            .strip_prefix("/secrets/")
            .unwrap_or_else(|| panic!("{file} is in no mounted Secret"));
        assert!(!name.contains('/'), "{name}: a Secret's keys have no folders");
        assert!(
            readme.contains(&format!("--from-file={name}")),
            "deploy/README.md creates the Secret without {name}"
        );
    }
}

/// Collects every `{ file = "…" }` below `value`.
fn secret_files(value: &toml::Value, found: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => match table.get("file").and_then(toml::Value::as_str) {
            Some(file) if table.len() == 1 => {
                found.insert(file.to_owned());
            }
            _ => table.values().for_each(|value| secret_files(value, found)),
        },
        toml::Value::Array(values) => values.iter().for_each(|value| secret_files(value, found)),
        toml::Value::String(_)
        | toml::Value::Integer(_)
        | toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_) => {}
    }
}
