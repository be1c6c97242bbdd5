//! Where traces go: `[telemetry] otlp`, and what OpenTelemetry's environment variables say besides. Documents: OpenTelemetry's
//! specification, "Environment Variable Specification" and "OTLP Exporter Configuration".
//!
//! The key wins over the variables. A key that is wrong is a mistake; a variable that is wrong is warned about and left out,
//! as OpenTelemetry asks for: it is often set by others, for all pods of a cluster, and payouts do not depend on it. No
//! warning shows a value, which may be a secret.

use http::uri::Uri;
use http::{HeaderName, HeaderValue};

use super::address::{Path, http_url};
use super::certificate::holds_certificates;
use super::check::Check;
use crate::secret::Secret;
use crate::telemetry::otlp::proto::Resource;
use crate::telemetry::otlp::sampler::Sampler;
use crate::telemetry::otlp::{Protocol, Settings};

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
const HEADERS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
const CERTIFICATE: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
];
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const RESOURCE: &str = "OTEL_RESOURCE_ATTRIBUTES";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";

/// The path of traces below an HTTP endpoint.
const TRACES_PATH: &str = "/v1/traces";
/// The port that is agreed on for OTLP over HTTP.
const HTTP_PORT: u16 = 4318;

/// Reads where and how traces are exported; `None` where they are not.
pub(super) fn otlp(given: Option<&str>, check: &mut Check<'_>) -> Option<Settings> {
    let given = given.map(|url| check.url(url, KEY, Path::Allowed, EXAMPLE));
    let (url, is_whole) = match given {
        Some(url) => (url, false),
        None => endpoint(check)?,
    };
    let protocol = protocol(&url, check);
    Some(Settings {
        url: match protocol {
            Protocol::Http if !is_whole && !url.ends_with(TRACES_PATH) => url + TRACES_PATH,
            Protocol::Http | Protocol::Grpc => url,
        },
        protocol,
        headers: headers(check),
        ca_pem: ca(check),
        resource: resource(check),
        sampler: sampler(check),
    })
}

/// The endpoint that the environment names, and whether it is the whole URL.
fn endpoint(check: &mut Check<'_>) -> Option<(String, bool)> {
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

/// The environment's word, else gRPC, unless port or path are those of HTTP.
fn protocol(url: &str, check: &mut Check<'_>) -> Protocol {
    let uri = url.parse::<Uri>().unwrap_or_default();
    let by_url = if uri.port_u16() == Some(HTTP_PORT) || uri.path().ends_with(TRACES_PATH) {
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

fn headers(check: &mut Check<'_>) -> Vec<(HeaderName, Secret)> {
    let Some((name, text)) = first(check, HEADERS) else {
        return Vec::new();
    };
    let read = pairs(&text).and_then(|pairs| {
        let sendable = pairs.into_iter().map(|(name, value)| {
            HeaderValue::from_str(&value).ok()?;
            Some((name.parse().ok()?, Secret::new(value)))
        });
        sendable.collect()
    });
    read.unwrap_or_else(|| {
        warn(
            check,
            name,
            "must be name=value,name=value with values percent-encoded; no header is sent",
        );
        Vec::new()
    })
}

fn ca(check: &mut Check<'_>) -> Option<String> {
    let (name, file) = first(check, CERTIFICATE)?;
    let text = match check.places.read_text(&file) {
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

/// `service.name` is the variable of its own, else what the attributes say, else the program's.
fn resource(check: &mut Check<'_>) -> Resource {
    let given = variable(check, RESOURCE).unwrap_or_default();
    let mut attributes = pairs(&given).unwrap_or_else(|| {
        warn(
            check,
            RESOURCE,
            "must be name=value,name=value with values percent-encoded; it is left out",
        );
        Vec::new()
    });
    let mut complete = |name: &str, value: Option<String>, default: &str| {
        if value.is_some() {
            attributes.retain(|(present, _)| present != name);
        }
        if !attributes.iter().any(|(present, _)| present == name) {
            attributes.push((name.to_owned(), value.unwrap_or_else(|| default.to_owned())));
        }
    };
    complete(
        "service.name",
        variable(check, SERVICE_NAME),
        env!("CARGO_PKG_NAME"),
    );
    complete("service.version", None, env!("CARGO_PKG_VERSION"));
    Resource { attributes }
}

fn sampler(check: &mut Check<'_>) -> Sampler {
    let Some(name) = variable(check, SAMPLER) else {
        return Sampler::default();
    };
    let ratio = variable(check, SAMPLER_ARG);
    match (Sampler::read(&name, ratio.as_deref()), Sampler::read(&name, None)) {
        (Ok(sampler), _) => sampler,
        (Err(why), Ok(whole)) => {
            warn(check, SAMPLER_ARG, &format!("{why}; the ratio is 1"));
            whole
        }
        (Err(_), Err(why)) => {
            warn(check, SAMPLER, &format!("{why}; it is parentbased_always_on"));
            Sampler::default()
        }
    }
}

/// `name=value,name=value`, values percent-encoded; `None` if it is anything else.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let parts = text.split(',').filter(|part| !part.trim().is_empty());
    let pairs = parts.map(|part| {
        let (name, value) = part.split_once('=')?;
        let value =
            String::from_utf8(percent_encoding::percent_decode(value.trim().as_bytes()).collect()).ok()?;
        let name = name.trim();
        (!name.is_empty()).then(|| (name.to_owned(), value))
    });
    pairs.collect()
}

/// A variable; an empty one is none.
fn variable(check: &Check<'_>, name: &str) -> Option<String> {
    let text = check.places.variable(name)?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The first of these variables that is set, and its name.
fn first(check: &Check<'_>, names: [&'static str; 2]) -> Option<(&'static str, String)> {
    names
        .into_iter()
        .find_map(|name| Some((name, variable(check, name)?)))
}

fn warn(check: &mut Check<'_>, name: &str, text: &str) {
    check.problems.warn(KEY, format!("{name}: {text}"));
}
