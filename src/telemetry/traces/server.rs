//! The span of a request to the main port, from the request's head to the answer's, and what the program learns about
//! the request meanwhile.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use opentelemetry::trace::{SpanKind, TraceContextExt as _};
use opentelemetry::{Context, KeyValue, Value};

use super::{Recording, Tracer};
use crate::http::peer::Peer;
use crate::telemetry::context::RequestContext;
use crate::telemetry::propagation;
use payout_domain::fields::Fields;
use payout_domain::ids::OrderKey;

/// The trace of a request, among the request's extensions.
#[derive(Clone)]
pub(crate) struct Begun {
    /// Names the request's own span.
    traceparent: HeaderValue,
    /// Whether the caller's `tracestate` belongs to it.
    has_parent: bool,
    /// Its span, if it is exported.
    pub(in crate::telemetry) recording: Option<Arc<Recording>>,
}

impl Begun {
    /// Puts a request that is sent on under this span, and returns the `traceparent` that names it.
    pub(crate) fn go_on(&self, headers: &mut HeaderMap) -> HeaderValue {
        propagation::go_on_as(headers, &self.traceparent, self.has_parent);
        self.traceparent.clone()
    }
}

/// A request's span. It ends with the answer, or when it is dropped because the caller is gone.
pub(crate) struct ServerSpan {
    recording: Arc<Recording>,
}

impl Tracer {
    /// Puts a request into its trace, the caller's or a new one, and begins its span if it is to be exported. `route`
    /// is the request's path if it is one of the contract's.
    pub(crate) fn begin<B>(
        &self,
        request: &mut Request<B>,
        route: Option<&'static str>,
    ) -> Option<ServerSpan> {
        let parent = propagation::parent(request.headers());
        let has_parent = parent.is_some();
        let context = match parent {
            Some(parent) => Context::new().with_remote_span_context(parent),
            None => Context::new(),
        };
        let method = known(request.method());
        let name = if method == OTHER { "HTTP" } else { method };
        let name = match route {
            Some(route) => format!("{name} {route}").into(),
            None => Cow::Borrowed(name),
        };
        let (traceparent, recording) = self.open(name, SpanKind::Server, &context);
        if let Some(recording) = &recording {
            let is_tls = request.extensions().get::<Peer>().is_some_and(|peer| peer.is_tls);
            recording.span().set_attributes([
                KeyValue::new("http.request.method", method),
                KeyValue::new("url.scheme", if is_tls { "https" } else { "http" }),
            ]);
            if let Some(route) = route {
                recording.is_at(route);
            }
        }
        request.extensions_mut().insert(Begun {
            traceparent,
            has_parent,
            recording: recording.clone(),
        });
        recording.map(|recording| ServerSpan { recording })
    }
}

impl Recording {
    fn is_at(&self, route: impl Into<Value>) {
        let route = route.into();
        self.span().set_attributes([
            KeyValue::new("http.route", route.clone()),
            KeyValue::new("url.path", route),
        ]);
    }
}

impl ServerSpan {
    /// The request was answered.
    pub(crate) fn answered(self, status: StatusCode) {
        let code = KeyValue::new("http.response.status_code", i64::from(status.as_u16()));
        self.recording.span().set_attribute(code);
        if status.is_server_error() {
            self.recording.fail(status.as_str().to_owned());
        }
    }
}

impl Drop for ServerSpan {
    fn drop(&mut self) {
        self.recording.span().end();
    }
}

/// Notes that the current request is a notification to this path.
pub(crate) fn learn_notified(method: &Method, path: &str) {
    if let Some(recording) = RequestContext::recording() {
        recording.span().update_name(format!("{} {path}", known(method)));
        recording.is_at(path.to_owned());
    }
}

/// Notes that the current request is about this order.
pub(crate) fn learn_order(key: &OrderKey) {
    if let Some(recording) = RequestContext::recording() {
        recording.about(key);
    }
}

/// Notes the codes in the current request's answer.
pub(crate) fn learn_answer(answer: &Fields<'_>) {
    if let Some(recording) = RequestContext::recording() {
        for (field, name) in [
            ("resultCode", "payout.result_code"),
            ("errCode", "payout.err_code"),
        ] {
            // A handler may write anything: only what looks like a code goes into the span.
            if let Some(code) = answer.characters(field).filter(|code| is_code(code)) {
                recording
                    .span()
                    .set_attribute(KeyValue::new(name, code.to_owned()));
            }
        }
        if answer.characters("errCode") == Some("SYSTEMERROR") {
            recording.fail("SYSTEMERROR");
        }
    }
}

fn is_code(text: &str) -> bool {
    let is_of_code = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=32).contains(&text.len()) && text.bytes().all(is_of_code)
}

/// Stands for a method that is not known.
const OTHER: &str = "_OTHER";

fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "HEAD" => "HEAD",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "CONNECT" => "CONNECT",
        "TRACE" => "TRACE",
        _ => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_codes_are_codes() {
        for code in ["SYSTEMERROR", "V2_ACCOUNT_SIMPLE_BAN", "A1"] {
            assert!(is_code(code), "{code}");
        }
        for text in ["", "oX12", "user-1", "SUCCESS ", "红包", &"A".repeat(33)] {
            assert!(!is_code(text), "{text}");
        }
    }
}
