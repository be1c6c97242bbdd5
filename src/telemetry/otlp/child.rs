//! Spans within a request's: an exchange with an upstream, a call of a store. They belong to the request that work is done
//! for now, also when it is done by a payout's task that has outlived its caller; work for nobody has none.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, Method, StatusCode};

use super::server::Recording;
use super::span::{Attributes, Kind};
use crate::telemetry::context::RequestContext;
use crate::telemetry::trace::TRACEPARENT;

/// A span that has begun. Ends where it is told how, or as cancelled where it is dropped.
pub struct OpenSpan {
    recording: Arc<Recording>,
    begun: Instant,
    child: Child,
    has_ended: bool,
}

/// What is told of it.
pub(super) struct Child {
    pub(super) id: u64,
    pub(super) name: Cow<'static, str>,
    pub(super) kind: Kind,
    pub(super) attributes: Attributes,
    pub(super) failed: bool,
}

impl OpenSpan {
    fn begin(make: impl FnOnce() -> (Cow<'static, str>, Kind, Attributes)) -> Option<Self> {
        let recording = RequestContext::recording()?;
        let (name, kind, attributes) = make();
        let child = Child {
            id: recording.child_id(),
            name,
            kind,
            attributes,
            failed: false,
        };
        Some(Self {
            recording,
            begun: Instant::now(),
            child,
            has_ended: false,
        })
    }

    /// A call of a store. `system` is what keeps it: `redis`, or the name of an embedded one, which is no call to elsewhere.
    #[must_use]
    pub fn store(system: &'static str, store: &'static str, call: &'static str) -> Option<Self> {
        Self::begin(|| {
            let kind = if system == "redis" {
                Kind::Client
            } else {
                Kind::Internal
            };
            let attributes = vec![
                ("db.system.name", system.into()),
                ("db.operation.name", call.into()),
            ];
            (format!("{store} {call}").into(), kind, attributes)
        })
    }

    /// An exchange with an upstream, at this path below its URL.
    #[must_use]
    pub fn exchange(method: &Method, path: &str, host: &str, port: u16, tls: bool) -> Option<Self> {
        Self::begin(|| {
            let template = template(path);
            let attributes = vec![
                ("http.request.method", method.as_str().to_owned().into()),
                ("url.template", template.clone().into()),
                ("url.scheme", if tls { "https" } else { "http" }.into()),
                ("server.address", host.to_owned().into()),
                ("server.port", port.into()),
            ];
            (format!("{method} {template}").into(), Kind::Client, attributes)
        })
    }

    /// Names this span as the parent of what the other side does, where the other side is told of the trace at all.
    pub fn pass_on(&self, headers: &mut HeaderMap) {
        if let Some(parent) = headers.get_mut(TRACEPARENT) {
            *parent = self.recording.traceparent(self.child.id);
        }
    }

    /// The store's call has ended.
    pub fn called(mut self, ok: bool) {
        if !ok {
            self.fail("unavailable".into());
        }
        self.has_ended = true;
    }

    /// The exchange has ended, in one of the ways that the metrics count, with this answer's status.
    pub fn exchanged(mut self, result: &'static str, status: Option<StatusCode>) {
        self.child.attributes.push(("payout.exchange", result.into()));
        match status {
            Some(status) => {
                let code = status.as_u16().into();
                self.child.attributes.push(("http.response.status_code", code));
                if status.is_client_error() || status.is_server_error() {
                    self.fail(status.as_str().to_owned().into());
                }
            }
            None => self.fail(result.into()),
        }
        self.has_ended = true;
    }

    fn fail(&mut self, how: Cow<'static, str>) {
        self.child.failed = true;
        let how = super::span::Value::Text(how);
        self.child.attributes.push(("error.type", how));
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        if !self.has_ended {
            self.fail("cancelled".into());
        }
        let child = Child {
            id: self.child.id,
            name: std::mem::take(&mut self.child.name),
            kind: self.child.kind,
            attributes: std::mem::take(&mut self.child.attributes),
            failed: self.child.failed,
        };
        self.recording.tell(child, self.begun, Instant::now());
    }
}

/// A path as one of few: without a query, and with a name in the place of an order number.
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
    use crate::rules::term::OrderNo;
    use crate::rules::wechat::v3;

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
