//! Spans within a request's: an exchange with an upstream, a call of a store. They belong to the request that the
//! task works for, also if a payout's task has outlived its caller. Work for no request has none.

use http::{HeaderMap, Method, StatusCode};
use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer as _};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::Span;

use crate::telemetry::context::RequestContext;
use crate::telemetry::propagation::{self, TRACEPARENT};

/// A span that has begun. It ends with its result, or as cancelled if it is dropped first.
pub(crate) struct OpenSpan(Span);

impl OpenSpan {
    fn begin<const N: usize>(make: impl FnOnce() -> (String, SpanKind, [KeyValue; N])) -> Option<Self> {
        let recording = RequestContext::recording()?;
        let (name, kind, attributes) = make();
        let tracer = &recording.tracer.inner;
        let builder = tracer
            .span_builder(name)
            .with_kind(kind)
            .with_attributes(attributes);
        Some(Self(tracer.build_with_context(builder, &recording.context)))
    }

    /// A call of a store. `system` names the store: `redis`, or the name of an embedded one, whose calls stay in this
    /// process.
    #[must_use]
    pub(crate) fn store(system: &'static str, store: &'static str, call: &'static str) -> Option<Self> {
        Self::begin(|| {
            let kind = if system == "redis" {
                SpanKind::Client
            } else {
                SpanKind::Internal
            };
            let attributes = [
                KeyValue::new("db.system.name", system),
                KeyValue::new("db.operation.name", call),
            ];
            (format!("{store} {call}"), kind, attributes)
        })
    }

    /// An exchange with an upstream, at this path below its URL.
    #[must_use]
    pub(crate) fn exchange(method: &Method, path: &str, host: &str, port: u16, tls: bool) -> Option<Self> {
        Self::begin(|| {
            let template = template(path);
            let name = format!("{method} {template}");
            let attributes = [
                KeyValue::new("http.request.method", method.as_str().to_owned()),
                KeyValue::new("url.template", template),
                KeyValue::new("url.scheme", if tls { "https" } else { "http" }),
                KeyValue::new("server.address", host.to_owned()),
                KeyValue::new("server.port", i64::from(port)),
            ];
            (name, SpanKind::Client, attributes)
        })
    }

    /// Makes this span the parent of what the other side does, if the request carries a trace at all.
    pub(crate) fn pass_on(&self, headers: &mut HeaderMap) {
        if let Some(parent) = headers.get_mut(TRACEPARENT) {
            *parent = propagation::parent_header(self.0.span_context());
        }
    }

    /// The store's call has ended.
    pub(crate) fn called(mut self, ok: bool) {
        if !ok {
            self.fail("unavailable");
        }
        self.0.end();
    }

    /// The exchange has ended. `result` says how, in the metrics' words; `status` is the answer's.
    pub(crate) fn exchanged(mut self, result: &'static str, status: Option<StatusCode>) {
        self.0.set_attribute(KeyValue::new("payout.exchange", result));
        match status {
            Some(status) => {
                let code = KeyValue::new("http.response.status_code", i64::from(status.as_u16()));
                self.0.set_attribute(code);
                if status.is_client_error() || status.is_server_error() {
                    self.fail(status.as_str().to_owned());
                }
            }
            None => self.fail(result),
        }
        self.0.end();
    }

    fn fail(&mut self, how: impl Into<Value>) {
        self.0.set_attribute(KeyValue::new("error.type", how.into()));
        self.0.set_status(Status::error(""));
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        if self.0.is_recording() {
            self.fail("cancelled");
        }
    }
}

/// A path as one of a few templates: without its query, and with a placeholder for an order number.
fn template(path: &str) -> String {
    const BEFORE_NUMBER: &str = "/out-bill-no/";
    let path = path.split('?').next().unwrap_or_default();
    match path.split_once(BEFORE_NUMBER) {
        None => path.to_owned(),
        Some((before, after)) => {
            let rest = after.split_once('/').map_or("", |(_, rest)| rest);
            let slash = if rest.is_empty() { "" } else { "/" };
            format!("{before}{BEFORE_NUMBER}{{out_bill_no}}{slash}{rest}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use payout_domain::ids::OrderNo;
    use payout_domain::wechat::v3;

    #[test]
    fn a_path_tells_no_order_and_no_query() {
        let order_no = OrderNo::parse("A1").unwrap();
        let bill = format!("{}/out-bill-no/{{out_bill_no}}", v3::BILLS_PATH);
        assert_eq!(template(&v3::query_path(&order_no)), bill);
        assert_eq!(template(&v3::cancel_path(&order_no)), format!("{bill}/cancel"));
        assert_eq!(template(v3::BILLS_PATH), v3::BILLS_PATH);
        assert_eq!(template("/pay/send?token=a"), "/pay/send");
    }

    #[tokio::test]
    async fn work_for_nobody_has_no_span() {
        assert!(OpenSpan::store("redis", "ledger", "get").is_none());
        assert!(OpenSpan::exchange(&Method::GET, "/", "h", 80, false).is_none());
    }
}
