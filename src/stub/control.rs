//! The stub's own paths, and the echo that stands in for a customer's backend.

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use serde_json::json;

use super::World;
use super::serve::pairs;
use super::wire::{Body, full};

pub(super) fn answer(
    method: &Method,
    path: &str,
    query: &str,
    body: &Bytes,
    world: &World,
) -> Response<Body> {
    let json = |value: serde_json::Value| full(StatusCode::OK, "application/json", value.to_string());
    let said = |status, text: &str| full(status, "text/plain", format!("{text}\n"));
    match (method.as_str(), path) {
        ("GET", "payments") => json(json!(world.books().payments())),
        ("GET", "requests") => json(json!(world.books().requests())),
        ("POST", "faults") => match String::from_utf8_lossy(body).parse() {
            Ok(faults) => {
                *world.faults() = faults;
                said(StatusCode::OK, "ok")
            }
            Err(error) => said(StatusCode::BAD_REQUEST, &error),
        },
        ("POST", "status") => match (given(query, "order"), given(query, "status")) {
            (Some(order), Some(status)) => {
                world.books().set_status(order, status);
                said(StatusCode::OK, "ok")
            }
            _ => said(StatusCode::BAD_REQUEST, "write ?order=NO&status=WORD"),
        },
        ("POST", "rotate") => match world.v3.rotate() {
            Ok(()) => said(StatusCode::OK, "ok"),
            Err(why) => said(StatusCode::INTERNAL_SERVER_ERROR, &why),
        },
        _ => said(
            StatusCode::NOT_FOUND,
            "GET payments, GET requests, POST faults, POST status, POST notify, POST rotate",
        ),
    }
}

/// A parameter of a query, where no value needs escaping.
pub(super) fn given<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(n, _)| *n == name)
        .map(|(_, value)| value)
}

/// What was asked for, as the backend saw it.
pub(super) fn echo(head: &Parts, body: &Bytes) -> Response<Body> {
    let seen = json!({
        "method": head.method.as_str(),
        "path": head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str),
        "headers": pairs(&head.headers),
        "bodyBytes": body.len(),
    });
    full(StatusCode::OK, "application/json", seen.to_string())
}
