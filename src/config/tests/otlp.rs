//! `[telemetry] otlp` and OpenTelemetry's variables: what wins, what is understood, what is warned about and left out.

use super::{Config, LEAST, load_in, load_text, mistakes};
use crate::telemetry::otlp::sampler::Sampler;
use crate::telemetry::otlp::{Protocol, Settings};

fn load(key: Option<&str>, env: &[(&str, &str)]) -> Config {
    let key = key.map_or_else(String::new, |url| format!("[telemetry]\notlp = \"{url}\"\n"));
    load_text(&format!("{LEAST}{key}"), env).unwrap()
}

/// The settings, where nothing was to be warned about.
fn settings(key: Option<&str>, env: &[(&str, &str)]) -> Settings {
    let config = load(key, env);
    assert_eq!(telling_of(&config, "OTEL"), "", "{env:?}");
    config.telemetry.otlp.unwrap()
}

/// The warning that holds this.
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
            ("OTEL_EXPORTER_OTLP_HEADERS", "broken"),
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
                (settings.url.as_str(), settings.protocol),
                (url, speaks),
                "{key} {protocol}"
            );
        }
    }
    // The endpoint of traces alone is the whole URL, and so is their protocol.
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
        (settings.url.as_str(), settings.protocol),
        ("http://t:4318/in", Protocol::Http)
    );
}

#[test]
fn the_key_wins_and_is_shown() {
    let config = load(Some("http://key:4317"), &[COLLECTOR]);
    let view = super::super::redacted::redacted(&config).unwrap();
    assert_eq!(view["telemetry"]["otlp"], "http://key:4317");
    assert_eq!(config.telemetry.otlp.unwrap().url, "http://key:4317");
    let text = format!("{LEAST}[telemetry]\notlp = \"c:4317\"\n");
    let told = mistakes(&text, &[COLLECTOR]);
    assert!(
        told[0].contains("telemetry.otlp: must start with http://"),
        "{told:?}"
    );
}

#[test]
fn headers_and_resource_are_lists_of_percent_encoded_values() {
    let settings = settings(
        Some("http://c"),
        &[
            ("OTEL_EXPORTER_OTLP_HEADERS", " Api-Key = k%3Dy%2C1 ,x=a=b,"),
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "k8s.pod.name=p-1,service.name=other,town=%E6%9D%AD%E5%B7%9E",
            ),
            ("OTEL_SERVICE_NAME", "payouts"),
        ],
    );
    let headers: Vec<_> = settings
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.expose()))
        .collect();
    assert_eq!(headers, [("api-key", "k=y,1"), ("x", "a=b")]);
    assert!(!format!("{settings:?}").contains("k=y"), "a header is a secret");
    let attributes = settings.resource.attributes;
    let of = |name: &str| {
        let mut values = attributes.iter().filter(|(present, _)| present == name);
        (
            values.next().map(|(_, value)| value.as_str()),
            values.next().is_some(),
        )
    };
    assert_eq!(of("k8s.pod.name"), (Some("p-1"), false));
    assert_eq!(of("town"), (Some("杭州"), false));
    assert_eq!(of("service.name"), (Some("payouts"), false));
    assert_eq!(of("service.version"), (Some(env!("CARGO_PKG_VERSION")), false));
    // Headers of traces alone win.
    let both = [
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "b=2"),
    ];
    let headers = self::settings(Some("http://c"), &both).headers;
    assert_eq!(headers.len(), 1);
    assert_eq!(headers[0].0.as_str(), "b");
}

#[test]
fn the_service_has_a_name_in_any_case() {
    for (env, name) in [
        (&[][..], "payout-sidecar"),
        (&[("OTEL_RESOURCE_ATTRIBUTES", "service.name=other")], "other"),
        (
            &[
                ("OTEL_SERVICE_NAME", "own"),
                ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other"),
            ],
            "own",
        ),
    ] {
        let attributes = settings(Some("http://c"), env).resource.attributes;
        assert!(
            attributes.contains(&("service.name".into(), name.into())),
            "{env:?}: {attributes:?}"
        );
    }
}

#[test]
fn a_sampler_is_read() {
    let read = |env: &[(&str, &str)]| settings(Some("http://c"), env).sampler;
    assert_eq!(read(&[]), Sampler::default());
    let ratio = [
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.1"),
    ];
    assert_eq!(
        read(&ratio),
        Sampler::read("parentbased_traceidratio", Some("0.1")).unwrap()
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
        ("OTEL_EXPORTER_OTLP_HEADERS", "hush", "no header is sent"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a b=hush", "no header is sent"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=hush%0A", "no header is sent"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "gone.pem", "cannot be read"),
        (
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
            "config.toml",
            "no certificate in PEM",
        ),
        ("OTEL_RESOURCE_ATTRIBUTES", "a,hush", "it is left out"),
        ("OTEL_TRACES_SAMPLER", "hush", "it is parentbased_always_on"),
    ] {
        let config = load(Some("http://c:4317"), &[(name, value)]);
        let warning = telling_of(&config, name);
        assert!(
            warning.contains(told) && !warning.contains("hush"),
            "{name}={value}: {warning}"
        );
        let settings = config.telemetry.otlp.unwrap();
        assert_eq!(settings.protocol, Protocol::Grpc);
        assert!(settings.headers.is_empty() && settings.ca_pem.is_none());
        assert_eq!(settings.resource.attributes.len(), 2);
        assert_eq!(settings.sampler, Sampler::default());
    }
    let wrong_ratio = [
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
    ];
    let config = load(Some("http://c"), &wrong_ratio);
    assert!(telling_of(&config, "OTEL_TRACES_SAMPLER_ARG").contains("the ratio is 1"));
    let sampler = config.telemetry.otlp.unwrap().sampler;
    assert_eq!(sampler, Sampler::read("traceidratio", None).unwrap());

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
