//! An OTLP collector: takes traces over gRPC and HTTP, with and without TLS, and reads them by message types of its own,
//! written down from the public `.proto` files.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use prost::Message as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

use super::tls::Pair;

#[derive(Clone, PartialEq, prost::Message)]
struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<RawSpan>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RawSpan {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnyValue {
    #[prost(string, optional, tag = "1")]
    string_value: Option<String>,
    #[prost(int64, optional, tag = "3")]
    int_value: Option<i64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
}

/// A span, in words.
#[derive(Clone, Debug)]
pub struct Span {
    /// Of what it is a span: `service.name` and the like.
    pub resource: BTreeMap<String, String>,
    pub trace: String,
    pub id: String,
    /// Empty where it is the first of its trace.
    pub parent: String,
    pub name: String,
    pub kind: &'static str,
    pub begun: u64,
    pub ended: u64,
    pub attributes: BTreeMap<String, String>,
    pub failed: bool,
    pub flags: u32,
}

impl Span {
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// The `traceparent` that names it.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace, self.id, self.flags & 0xFF)
    }
}

/// One export.
#[derive(Clone, Debug)]
pub struct Export {
    pub path: String,
    pub version: Version,
    pub headers: HeaderMap,
    pub spans: Vec<Span>,
}

/// What the collector does with exports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Does {
    Takes,
    /// Takes all but so many.
    Rejects(i64),
    /// Answers another HTTP status.
    Says(u16),
    /// Answers another gRPC status, so often; takes the next ones.
    SaysGrpc(u16, usize),
    Hangs,
}

pub struct Collector {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    does: Does,
    asked: usize,
    exports: Vec<Export>,
    connections: Vec<AbortHandle>,
}

impl Collector {
    pub async fn start(does: Does) -> Self {
        Self::listen(does, None).await
    }

    /// Under TLS, offering both versions of HTTP.
    pub async fn start_tls(pair: &Pair) -> Self {
        let certificate = CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self::listen(Does::Takes, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn listen(does: Does, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            does,
            asked: 0,
            exports: Vec::new(),
            connections: Vec::new(),
        }));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                let serving = tokio::spawn(async move {
                    match tls {
                        None => serve(stream, state).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                let offered = stream.get_ref().1.alpn_protocol();
                                assert!(offered.is_some(), "a version of HTTP is agreed on");
                                serve(stream, state).await;
                            }
                        }
                    }
                });
                shared.lock().unwrap().connections.push(serving.abort_handle());
            }
        });
        Self { address, state }
    }

    pub fn does(&self, does: Does) {
        self.state.lock().unwrap().does = does;
    }

    /// Closes every connection; new ones are taken.
    pub fn hang_up(&self) {
        for connection in self.state.lock().unwrap().connections.drain(..) {
            connection.abort();
        }
    }

    /// How often it was asked to take something, whatever came of it.
    pub fn times_asked(&self) -> usize {
        self.state.lock().unwrap().asked
    }

    /// What it has taken.
    pub fn exports(&self) -> Vec<Export> {
        self.state.lock().unwrap().exports.clone()
    }

    pub fn spans(&self) -> Vec<Span> {
        self.exports()
            .into_iter()
            .flat_map(|export| export.spans)
            .collect()
    }
}

async fn serve<T>(stream: T, state: Arc<Mutex<State>>)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(|request| answer(request, Arc::clone(&state)));
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

async fn answer(request: Request<Incoming>, state: Arc<Mutex<State>>) -> Result<Answer, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let is_grpc = head.headers["content-type"] == "application/grpc";
    let message = if is_grpc {
        assert_eq!(body[0], 0, "not compressed");
        let length = u32::from_be_bytes(body[1..5].try_into().unwrap());
        assert_eq!(length as usize, body.len() - 5, "one message");
        body.slice(5..)
    } else {
        assert_eq!(head.headers["content-type"], "application/x-protobuf");
        body
    };
    let export = Export {
        path: head.uri.path().to_owned(),
        version: head.version,
        headers: head.headers,
        spans: read(&message),
    };
    let does = {
        let mut state = state.lock().unwrap();
        state.asked += 1;
        let does = match state.does {
            Does::SaysGrpc(_, 0) => Does::Takes,
            Does::SaysGrpc(code, times) => {
                state.does = Does::SaysGrpc(code, times - 1);
                Does::SaysGrpc(code, times)
            }
            does => does,
        };
        if matches!(does, Does::Takes | Does::Rejects(_)) {
            state.exports.push(export);
        }
        does
    };
    let mut response = ExportResponse::default();
    let code = match does {
        Does::Hangs => std::future::pending().await,
        Does::Says(status) => {
            let mut refusal = Response::new(Full::new(Bytes::from("no")).boxed_unsync());
            *refusal.status_mut() = status.try_into().unwrap();
            return Ok(refusal);
        }
        Does::SaysGrpc(code, _) => code,
        Does::Takes => 0,
        Does::Rejects(rejected_spans) => {
            response.partial_success = Some(PartialSuccess { rejected_spans });
            0
        }
    };
    let message = response.encode_to_vec();
    let media = HeaderValue::from_static(if is_grpc {
        "application/grpc"
    } else {
        "application/x-protobuf"
    });
    let body = if is_grpc {
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(message.len() as u32);
        framed.extend_from_slice(&message);
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from(code))]);
        let frame = if code == 0 { framed.freeze() } else { Bytes::new() };
        let trailers = std::future::ready(Some(Ok(trailers)));
        Full::new(frame).with_trailers(trailers).boxed_unsync()
    } else {
        Full::new(Bytes::from(message)).boxed_unsync()
    };
    let mut taken = Response::new(body);
    taken.headers_mut().insert("content-type", media);
    Ok(taken)
}

fn read(message: &[u8]) -> Vec<Span> {
    let request = ExportRequest::decode(message).unwrap();
    assert_eq!(
        request.encode_to_vec(),
        message,
        "nothing but what is known is said"
    );
    let mut all = Vec::new();
    for resource_spans in request.resource_spans {
        let resource = words(resource_spans.resource.unwrap().attributes);
        for span in resource_spans
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans)
        {
            all.push(Span {
                resource: resource.clone(),
                trace: hex(&span.trace_id, 16),
                id: hex(&span.span_id, 8),
                parent: match span.parent_span_id.as_slice() {
                    [] => String::new(),
                    parent => hex(parent, 8),
                },
                name: span.name,
                kind: ["", "internal", "server", "client"][usize::try_from(span.kind).unwrap()],
                begun: span.start_time_unix_nano,
                ended: span.end_time_unix_nano,
                attributes: words(span.attributes),
                failed: span.status.is_some_and(|status| status.code == 2),
                flags: span.flags,
            });
        }
    }
    all
}

fn words(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    let count = pairs.len();
    let words: BTreeMap<String, String> = pairs
        .into_iter()
        .map(|pair| {
            let value = pair.value.unwrap();
            let text = value
                .string_value
                .or(value.int_value.map(|number| number.to_string()));
            (pair.key, text.unwrap())
        })
        .collect();
    assert_eq!(words.len(), count, "each name is there once: {words:?}");
    words
}

fn hex(bytes: &[u8], length: usize) -> String {
    assert_eq!(bytes.len(), length);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
