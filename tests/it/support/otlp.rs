//! An OTLP collector: takes traces over gRPC and HTTP, with and without TLS. Its service and messages are those that
//! OpenTelemetry generates from its `.proto` files.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tower::Service as _;

use test_support::tls::Pair;

/// A span with its values as text.
#[derive(Clone, Debug)]
pub struct Span {
    /// The resource of the span: `service.name` and others.
    pub resource: BTreeMap<String, String>,
    pub trace: String,
    pub id: String,
    /// Empty for the first span of a trace.
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

    /// The `traceparent` of this span.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace, self.id, self.flags & 0xFF)
    }
}

/// One export request.
#[derive(Clone, Debug)]
pub struct Export {
    pub path: String,
    pub version: Version,
    pub headers: HeaderMap,
    pub spans: Vec<Span>,
}

/// How the collector answers exports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Does {
    Takes,
    /// Takes all but this many spans.
    Rejects(i64),
    /// Answers this HTTP status.
    Says(u16),
    /// Answers this gRPC status this many times, then takes the exports.
    SaysGrpc(i32, usize),
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

    /// Starts with TLS, and offers both versions of HTTP.
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

    /// Closes every connection, and still accepts new ones.
    pub fn hang_up(&self) {
        for connection in self.state.lock().unwrap().connections.drain(..) {
            connection.abort();
        }
    }

    /// How many exports arrived, whatever the answer.
    pub fn times_asked(&self) -> usize {
        self.state.lock().unwrap().asked
    }

    /// The exports it has taken.
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

async fn answer(request: Request<Incoming>, state: Arc<Mutex<State>>) -> Result<Response<Body>, Infallible> {
    let headers = request.headers().clone();
    let receiver = Receiver {
        state: Arc::clone(&state),
        path: request.uri().path().to_owned(),
        version: request.version(),
        headers: headers.clone(),
    };
    let does = state.lock().unwrap().does;
    if let Does::Says(status) = does {
        state.lock().unwrap().asked += 1;
        let mut refusal = Response::new(Body::new(Full::new(Bytes::from("no"))));
        *refusal.status_mut() = status.try_into().unwrap();
        return Ok(refusal);
    }
    if headers["content-type"] == "application/grpc" {
        return TraceServiceServer::new(receiver).call(request).await;
    }
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let message = tonic::Request::new(ExportTraceServiceRequest::decode(body).unwrap());
    let taken = receiver.export(message).await.unwrap().into_inner();
    let mut response = Response::new(Body::new(Full::new(Bytes::from(taken.encode_to_vec()))));
    let media = HeaderValue::from_static("application/x-protobuf");
    response.headers_mut().insert("content-type", media);
    Ok(response)
}

/// The handler of one export request.
struct Receiver {
    state: Arc<Mutex<State>>,
    path: String,
    version: Version,
    headers: HeaderMap,
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let export = Export {
            path: self.path.clone(),
            version: self.version,
            headers: self.headers.clone(),
            spans: read(request.into_inner()),
        };
        let does = {
            let mut state = self.state.lock().unwrap();
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
        let rejected = match does {
            Does::Takes => 0,
            Does::Rejects(rejected) => rejected,
            Does::SaysGrpc(code, _) => return Err(tonic::Status::new(code.into(), "no")),
            Does::Says(_) | Does::Hangs => std::future::pending().await,
        };
        let partial_success = (rejected > 0).then(|| ExportTracePartialSuccess {
            rejected_spans: rejected,
            error_message: String::new(),
        });
        Ok(tonic::Response::new(ExportTraceServiceResponse {
            partial_success,
        }))
    }
}

fn read(request: ExportTraceServiceRequest) -> Vec<Span> {
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
                name: span.name.clone(),
                kind: match span.kind() {
                    SpanKind::Internal => "internal",
                    SpanKind::Server => "server",
                    SpanKind::Client => "client",
                    kind => panic!("{kind:?}"),
                },
                begun: span.start_time_unix_nano,
                ended: span.end_time_unix_nano,
                attributes: words(span.attributes),
                failed: span
                    .status
                    .is_some_and(|status| status.code() == StatusCode::Error),
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
            let text = match pair.value.unwrap().value.unwrap() {
                Value::StringValue(text) => text,
                Value::IntValue(number) => number.to_string(),
                value => panic!("{value:?}"),
            };
            (pair.key, text)
        })
        .collect();
    assert_eq!(words.len(), count, "each name is there once: {words:?}");
    words
}

fn hex(bytes: &[u8], length: usize) -> String {
    assert_eq!(bytes.len(), length);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
