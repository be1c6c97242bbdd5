//! Tests of `[telemetry] otlp` and OpenTelemetry's variables: which one wins, which values are valid, and which
//! cause a warning.

use super::{Config, LEAST, load_in, load_text, mistakes};
use crate::telemetry::traces::{Protocol, Settings};

fn load(key: Option<&str>, env: &[(&str, &str)]) -> Config {
    let key = key.map_or_else(String::new, |url| format!("[telemetry]\notlp = \"{url}\"\n"));
    load_text(&format!("{LEAST}{key}"), env).unwrap()
}

/// The settings; the test fails on a warning about a variable.
fn settings(key: Option<&str>, env: &[(&str, &str)]) -> Settings {
    let config = load(key, env);
    assert_eq!(telling_of(&config, "OTEL"), "", "{env:?}");
    config.telemetry.otlp.unwrap()
}

/// The first warning that contains `part`, or an empty text.
fn telling_of(config: &Config, part: &str) -> String {
    let mut told = config.warnings.iter().filter(|warning| warning.contains(part));
    told.next().cloned().unwrap_or_default()
}

const COLLECTOR: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317");

#[test]
fn without_an_endpoint_nothing_is_exported() {
    for env in [
        &[][..],
        &[
            ("OTEL_SERVICE_NAME", "n"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "gone.pem"),
        ],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")],
        &[COLLECTOR, ("OTEL_SDK_DISABLED", "true")],
        &[COLLECTOR, ("OTEL_TRACES_EXPORTER", "none")],
    ] {
        let config = load(None, env);
        assert!(config.telemetry.otlp.is_none(), "{env:?}");
        assert_eq!(telling_of(&config, "telemetry"), "");
    }
}

#[test]
fn the_url_decides_which_protocol_is_spoken_unless_the_environment_does() {
    let (grpc, http) = ("grpc", "http/protobuf");
    for (key, protocol, url, speaks) in [
        ("http://c:4317", "", "http://c:4317", Protocol::Grpc),
        ("https://c", "", "https://c", Protocol::Grpc),
        ("http://c:4318", "", "http://c:4318/v1/traces", Protocol::Http),
        ("http://c:4318/", "", "http://c:4318/v1/traces", Protocol::Http),
        (
            "https://c/otlp/v1/traces",
            "",
            "https://c/otlp/v1/traces",
            Protocol::Http,
        ),
        ("http://c:4318", grpc, "http://c:4318", Protocol::Grpc),
        ("http://c:4317", http, "http://c:4317/v1/traces", Protocol::Http),
        ("https://c/otlp", http, "https://c/otlp/v1/traces", Protocol::Http),
    ] {
        let env = [("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)];
        for settings in [
            settings(Some(key), &env),
            settings(None, &[env[0], ("OTEL_EXPORTER_OTLP_ENDPOINT", key)]),
        ] {
            assert_eq!(
                (settings.url.to_string().as_str(), settings.protocol),
                (url, speaks),
                "{key} {protocol}"
            );
        }
    }
    // The endpoint and the protocol of traces override the general ones, and that endpoint is the complete URL.
    let settings = settings(
        None,
        &[
            COLLECTOR,
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:4318/in"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", http),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", grpc),
        ],
    );
    assert_eq!(
        (settings.url.to_string().as_str(), settings.protocol),
        ("http://t:4318/in", Protocol::Http)
    );
}

#[test]
fn the_key_wins_and_is_shown() {
    let config = load(Some("http://key:4317"), &[COLLECTOR]);
    let view = super::super::redacted::redacted(&config).unwrap();
    assert_eq!(view["telemetry"]["otlp"], "http://key:4317");
    assert_eq!(config.telemetry.otlp.unwrap().url.to_string(), "http://key:4317");
    let text = format!("{LEAST}[telemetry]\notlp = \"c:4317\"\n");
    let told = mistakes(&text, &[COLLECTOR]);
    assert!(
        told[0].contains("telemetry.otlp: must start with http://"),
        "{told:?}"
    );
}

#[test]
fn a_variable_that_is_wrong_is_warned_about_by_name_and_left_out() {
    for (name, value, told) in [
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "http/hush",
            "must be grpc or http/protobuf",
        ),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "gone.pem", "cannot be read"),
        (
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
            "config.toml",
            "no certificate in PEM",
        ),
    ] {
        let config = load(Some("http://c:4317"), &[(name, value)]);
        let warning = telling_of(&config, name);
        assert!(
            warning.contains(told) && !warning.contains("hush"),
            "{name}={value}: {warning}"
        );
        let settings = config.telemetry.otlp.unwrap();
        assert_eq!(settings.protocol, Protocol::Grpc);
        assert!(settings.ca_pem.is_none());
    }
    let wrong = load(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "user:hush@c:4317")]);
    assert!(wrong.telemetry.otlp.is_none());
    let warning = telling_of(&wrong, "OTEL_EXPORTER_OTLP_ENDPOINT");
    assert!(
        warning.contains("traces are not exported") && !warning.contains("hush"),
        "{warning}"
    );
}

#[test]
fn a_ca_of_ones_own_is_read_and_watched() {
    let dir = tempfile::tempdir().unwrap();
    let pem = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----";
    std::fs::write(dir.path().join("ca.pem"), pem).unwrap();
    let text = format!("{LEAST}[telemetry]\notlp = \"https://c\"\n");
    let config = load_in(dir.path(), &text, &[("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca.pem")]).unwrap();
    assert_eq!(config.telemetry.otlp.unwrap().ca_pem.as_deref(), Some(pem));
    assert!(config.files.contains(&dir.path().join("ca.pem")));
}
