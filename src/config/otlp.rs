//! Reads where traces go: `[telemetry] otlp`, and OpenTelemetry's environment variables as far as its library
//! does not read them itself, or the key overrides them. Sources: OpenTelemetry's "Environment Variable
//! Specification" and "OTLP Exporter Configuration".
//!
//! A wrong key is a mistake. A wrong variable causes a warning and is ignored, as OpenTelemetry demands: a
//! platform team often sets it for all pods of a cluster, and payouts do not depend on it. No warning shows a
//! value.

use super::address::{Path, http_url};
use super::certificate::holds_certificates;
use super::check::Check;
use crate::http::base_url::BaseUrl;
use crate::telemetry::traces::{Protocol, Settings};

const KEY: &str = "telemetry.otlp";
const EXAMPLE: &str = "http://otel-collector:4317";

const DISABLED: &str = "OTEL_SDK_DISABLED";
const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const PROTOCOL: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
];
const CERTIFICATE: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
];
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";

/// The path of traces below an HTTP endpoint.
const TRACES_PATH: &str = "/v1/traces";
/// The registered port of OTLP over HTTP.
const HTTP_PORT: u16 = 4318;

/// Reads where and how to export traces. Returns `None` for no export.
pub(super) fn otlp(given: Option<&str>, check: &mut Check<'_>) -> Option<Settings> {
    let (url, is_whole) = match given {
        Some(url) => (check.url(url, KEY, Path::Allowed, EXAMPLE)?, false),
        None => endpoint(check)?,
    };
    let protocol = protocol(&url, check);
    Some(Settings {
        url: match protocol {
            Protocol::Http if !is_whole && !url.path().ends_with(TRACES_PATH) => {
                format!("{url}{TRACES_PATH}").parse().ok()?
            }
            Protocol::Http | Protocol::Grpc => url,
        },
        protocol,
        ca_pem: ca(check),
        service_name: variable(check, SERVICE_NAME),
    })
}

/// Returns the endpoint that the environment names, and whether it is the complete URL.
fn endpoint(check: &mut Check<'_>) -> Option<(BaseUrl, bool)> {
    let is = |name, value: &str| variable(check, name).is_some_and(|set| set.eq_ignore_ascii_case(value));
    if is(DISABLED, "true") || is(EXPORTER, "none") {
        return None;
    }
    let (name, is_whole) = match variable(check, TRACES_ENDPOINT) {
        Some(_) => (TRACES_ENDPOINT, true),
        None => (ENDPOINT, false),
    };
    let url = http_url(&variable(check, name)?, Path::Allowed, EXAMPLE);
    let url = url.map_err(|text| warn(check, name, &format!("{text}; traces are not exported")));
    Some((url.ok()?, is_whole))
}

/// The protocol that the environment names. Without one: HTTP if the URL has HTTP's port or path, else gRPC.
fn protocol(url: &BaseUrl, check: &mut Check<'_>) -> Protocol {
    let by_url = if url.uri().port_u16() == Some(HTTP_PORT) || url.path().ends_with(TRACES_PATH) {
        Protocol::Http
    } else {
        Protocol::Grpc
    };
    match first(check, PROTOCOL) {
        None => by_url,
        Some((_, word)) if word == "grpc" => Protocol::Grpc,
        Some((_, word)) if word == "http/protobuf" => Protocol::Http,
        Some((name, _)) => {
            warn(check, name, "must be grpc or http/protobuf; the URL decides");
            by_url
        }
    }
}

fn ca(check: &mut Check<'_>) -> Option<String> {
    let (name, file) = first(check, CERTIFICATE)?;
    let text = match check.sources.read_text(&file) {
        Ok(text) => text.expose().to_owned(),
        Err(why) => {
            warn(check, name, &why);
            return None;
        }
    };
    if !holds_certificates(&text) {
        warn(
            check,
            name,
            "the file holds no certificate in PEM; the public CAs are believed",
        );
        return None;
    }
    Some(text)
}

/// Returns a variable. An empty one counts as absent.
fn variable(check: &Check<'_>, name: &str) -> Option<String> {
    let text = check.sources.variable(name)?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Returns the first of these variables that is set, with its name.
fn first(check: &Check<'_>, names: [&'static str; 2]) -> Option<(&'static str, String)> {
    names
        .into_iter()
        .find_map(|name| Some((name, variable(check, name)?)))
}

fn warn(check: &mut Check<'_>, name: &str, text: &str) {
    check.problems.warn(KEY, format!("{name}: {text}"));
}
