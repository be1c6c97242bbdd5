//! The span of a request to the main port, from its head to its answer's, and what it is learned to be about meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};

use super::Tracer;
use super::span::{Attributes, Kind, Span, Value};
use crate::peer::Peer;
use crate::rules::fields::Fields;
use crate::rules::term::OrderKey;
use crate::telemetry::context::{RequestContext, random_ids};
use crate::telemetry::trace::{self, Parent};

/// The trace that a request belongs to from now on, among the request's extensions.
#[derive(Clone)]
pub struct Begun {
    /// Names the request's own span.
    traceparent: HeaderValue,
    /// Whether the caller's `tracestate` belongs to it.
    has_parent: bool,
    /// Its span, where it is exported.
    pub(in crate::telemetry) recording: Option<Arc<Recording>>,
}

impl Begun {
    /// Puts a request that is sent on under its span, and returns what names it.
    pub fn go_on(&self, headers: &mut HeaderMap) -> HeaderValue {
        trace::go_on_as(headers, &self.traceparent, self.has_parent);
        self.traceparent.clone()
    }
}

/// What is known of a request's span while the request, or a payout that it began, is under way.
pub struct Recording {
    tracer: Tracer,
    trace: u128,
    id: u64,
    flags: u8,
    /// When it began, by both clocks.
    anchor: (Instant, u64),
    children: AtomicU64,
    learned: Mutex<Attributes>,
}

/// A request's span. Ends with the answer, or when the caller is gone and it is dropped.
pub struct ServerSpan {
    recording: Arc<Recording>,
    parent: Option<u64>,
    method: &'static str,
    route: Option<&'static str>,
    scheme: &'static str,
    status: Option<StatusCode>,
}

impl Tracer {
    /// Puts a request into its trace, the caller's or a new one, and begins its span if it is to be exported. `route` is the
    /// request's path where it is one of the contract's.
    pub fn begin<B>(&self, request: &mut Request<B>, route: Option<&'static str>) -> Option<ServerSpan> {
        let ids = random_ids();
        let parent = Parent::of(request.headers());
        let trace = parent.as_ref().map_or(ids.trace(), |parent| parent.trace);
        let sampler = self.inner.sampler;
        let is_taken = sampler.takes(parent.as_ref().map(Parent::is_sampled), trace);
        let flags = trace::flags(parent.as_ref(), is_taken);
        let recording = is_taken.then(|| {
            Arc::new(Recording {
                tracer: self.clone(),
                trace,
                id: ids.span(),
                flags,
                anchor: (Instant::now(), nanoseconds()),
                children: AtomicU64::new(0),
                learned: Mutex::default(),
            })
        });
        let is_tls = request.extensions().get::<Peer>().is_some_and(|peer| peer.is_tls);
        let span = recording.as_ref().map(|recording| ServerSpan {
            recording: Arc::clone(recording),
            parent: parent.as_ref().map(|parent| parent.span),
            method: known(request.method()),
            route,
            scheme: if is_tls { "https" } else { "http" },
            status: None,
        });
        request.extensions_mut().insert(Begun {
            traceparent: trace::parent_header(trace, ids.span(), flags),
            has_parent: parent.is_some(),
            recording,
        });
        span
    }
}

impl ServerSpan {
    /// The request was answered.
    pub fn answered(mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for ServerSpan {
    fn drop(&mut self) {
        let mut attributes: Attributes = vec![
            ("http.request.method", self.method.into()),
            ("url.scheme", self.scheme.into()),
        ];
        if let Some(route) = self.route {
            attributes.push(("http.route", route.into()));
            attributes.push(("url.path", route.into()));
        }
        let mut failed = false;
        if let Some(status) = self.status {
            attributes.push(("http.response.status_code", status.as_u16().into()));
            if status.is_server_error() {
                failed = true;
                attributes.push(("error.type", status.as_str().to_owned().into()));
            }
        }
        let learned = std::mem::take(&mut *self.recording.learned());
        let in_doubt = ("payout.err_code", Value::from("SYSTEMERROR"));
        if !failed && learned.contains(&in_doubt) {
            failed = true;
            attributes.push(("error.type", in_doubt.1));
        }
        attributes.extend(learned);
        let method = if self.method == OTHER { "HTTP" } else { self.method };
        let name = match self.route {
            Some(route) => format!("{method} {route}").into(),
            None => method.into(),
        };
        let recording = &self.recording;
        let flags = if self.parent.is_some() {
            REMOTE_PARENT
        } else {
            LOCAL_PARENT
        };
        recording.tracer.take(Span {
            trace: recording.trace,
            id: recording.id,
            parent: self.parent,
            flags: flags | u32::from(recording.flags),
            name,
            kind: Kind::Server,
            begun: recording.anchor.1,
            ended: recording.at(Instant::now()),
            attributes,
            failed,
        });
    }
}

/// The flags of a span whose parent, if it has one, is known to be in this process, or to be elsewhere.
const LOCAL_PARENT: u32 = 0x100;
const REMOTE_PARENT: u32 = 0x300;

impl Recording {
    /// A fresh id for a span within this one. Ids are numbers that look random; the request's own one is.
    pub(super) fn child_id(&self) -> u64 {
        let count = self.children.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        // The generator `splitmix64`, which comes to no number twice.
        let mut mixed = self.id.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        std::cmp::max(mixed ^ (mixed >> 31), 1)
    }

    /// What names a span of this trace on a call.
    pub(super) fn traceparent(&self, span: u64) -> HeaderValue {
        trace::parent_header(self.trace, span, self.flags)
    }

    /// Tells of a span within this one.
    pub(super) fn tell(&self, child: super::child::Child, begun: Instant, ended: Instant) {
        self.tracer.take(Span {
            trace: self.trace,
            id: child.id,
            parent: Some(self.id),
            flags: LOCAL_PARENT | u32::from(self.flags),
            name: child.name,
            kind: child.kind,
            begun: self.at(begun),
            ended: self.at(ended),
            attributes: child.attributes,
            failed: child.failed,
        });
    }

    /// A moment in nanoseconds since 1970. All moments of a request are reckoned from one look at the clock, so that a
    /// clock that is set meanwhile cannot put them out of order.
    fn at(&self, moment: Instant) -> u64 {
        let (anchor, nanoseconds) = self.anchor;
        let since = moment.saturating_duration_since(anchor).as_nanos();
        nanoseconds.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }

    fn learn(&self, name: &'static str, value: Value) {
        self.learned().push((name, value));
    }

    fn learned(&self) -> MutexGuard<'_, Attributes> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The request that work is done for now is about this order.
pub fn learn_order(key: &OrderKey) {
    if let Some(recording) = RequestContext::recording() {
        let merchant = recording.tracer.inner.payouts.label(&key.mch_id);
        recording.learn("payout.mch_id", merchant.into());
        recording.learn("payout.order", key.order_no.as_str().to_owned().into());
    }
}

/// It is answered by these fields, of which the codes are told.
pub fn learn_answer(answer: &Fields<'_>) {
    if let Some(recording) = RequestContext::recording() {
        for (field, name) in [
            ("resultCode", "payout.result_code"),
            ("errCode", "payout.err_code"),
        ] {
            // A handler may write anything; what is no code is not told.
            if let Some(code) = answer.characters(field).filter(|code| is_code(code)) {
                recording.learn(name, code.to_owned().into());
            }
        }
    }
}

fn is_code(text: &str) -> bool {
    let is_of_code = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=32).contains(&text.len()) && text.bytes().all(is_of_code)
}

/// What stands for a method that nobody has heard of.
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

fn nanoseconds() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or_default()
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
