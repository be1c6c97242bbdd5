//! The stub's listeners: plain and TLS, and the fork to what it stands in for.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::faults::{Action, Moment};
use super::wechat_v3::{self, Asker, Spoilt};
use super::wire::{Body, Map, full, half};
use super::{StartError, World, control, handler, pki, wechat_v2};

/// The connection is cut without an answer.
#[derive(Debug, thiserror::Error)]
#[error("cut on purpose")]
struct Cut;

/// A call, read and taken apart.
pub(super) struct Call {
    pub(super) name: &'static str,
    pub(super) fields: Map,
    pub(super) order_no: String,
    pub(super) is_json: bool,
    /// `None` on the plain port; on the TLS port the client certificate's name, if there is one.
    pub(super) peer: Option<Option<String>>,
    /// Who asks, in v3.
    pub(super) asker: Option<Asker>,
}

pub(super) async fn listen(
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    world: Arc<World>,
) -> Result<(SocketAddr, JoinHandle<()>), StartError> {
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let task = tokio::spawn(async move {
        // Dropped with this task, and the connections with it.
        let mut connections = JoinSet::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            world
                .connections
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            while connections.try_join_next().is_some() {}
            connections.spawn(connection(stream, tls.clone(), Arc::clone(&world)));
        }
    });
    Ok((bound, task))
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, world: Arc<World>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    // A second handle on the socket, by which it can be reset however deep the stream is wrapped.
    let Ok(socket) = std::os::fd::AsFd::as_fd(&stream).try_clone_to_owned() else {
        return;
    };
    let socket = std::net::TcpStream::from(socket);
    let served = match tls {
        None => http(TokioIo::new(stream), None, world).await,
        Some(acceptor) => {
            let Ok(tls) = acceptor.accept(stream).await else {
                return;
            };
            let certificates = tls.get_ref().1.peer_certificates();
            let peer = certificates
                .and_then(|chain| chain.first())
                .and_then(|cert| pki::common_name(cert));
            http(TokioIo::new(tls), Some(peer), world).await
        }
    };
    if served.is_err()
        && let Ok(socket) = TcpStream::from_std(socket)
    {
        // Closing then sends RST instead of FIN.
        let _reset = socket.set_zero_linger().is_ok();
    }
}

async fn http<S>(
    stream: TokioIo<S>,
    peer: Option<Option<String>>,
    world: Arc<World>,
) -> Result<(), hyper::Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| answer(request, peer.clone(), Arc::clone(&world)));
    hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(stream, service)
        .await
}

async fn answer(
    request: Request<Incoming>,
    peer: Option<Option<String>>,
    world: Arc<World>,
) -> Result<Response<Body>, Cut> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let Ok(body) = body.collect().await else {
        return Err(Cut);
    };
    let body = body.to_bytes();
    if path == "/_stub/notify" && head.method == Method::POST {
        let query = head.uri.query().unwrap_or_default();
        let (order_no, how) = (control::given(query, "order"), control::given(query, "how"));
        let sent = wechat_v3::notify(&world, order_no.unwrap_or_default(), how.unwrap_or_default());
        return Ok(match sent.await {
            Ok(status) => full(StatusCode::OK, "text/plain", format!("{status}\n")),
            Err(why) => full(StatusCode::BAD_REQUEST, "text/plain", format!("{why}\n")),
        });
    }
    if let Some(control) = path.strip_prefix("/_stub/") {
        return Ok(control::answer(
            &head.method,
            control,
            head.uri.query().unwrap_or_default(),
            &body,
            &world,
        ));
    }
    if path.starts_with("/v3/")
        && let Some((name, order_no)) = wechat_v3::call_of(&head.method, &path)
    {
        let mut call = read(name, &body, peer);
        call.is_json = true;
        if let Some(number) = call.fields.get("out_bill_no") {
            call.order_no.clone_from(number);
        } else {
            call.order_no = order_no;
        }
        call.asker = Some(Asker::of(&head, &body, &world));
        note(&call, &head.headers, &world);
        return act(call, world).await;
    }
    let name = match path.as_str() {
        "/mmpaymkttransfers/sendredpack" => "sendredpack",
        "/mmpaymkttransfers/sendminiprogramhb" => "sendminiprogramhb",
        "/mmpaymkttransfers/promotion/transfers" => "transfers",
        "/mmpaymkttransfers/gethbinfo" => "gethbinfo",
        "/mmpaymkttransfers/gettransferinfo" => "gettransferinfo",
        "/pay/sendApiRedPack" => "send",
        "/pay/getApiRedPacketStatus" => "status",
        _ => return Ok(control::echo(&head, &body)),
    };
    if head.method != Method::POST {
        return Ok(full(
            StatusCode::METHOD_NOT_ALLOWED,
            "text/plain",
            "POST only".into(),
        ));
    }
    let call = read(name, &body, peer);
    note(&call, &head.headers, &world);
    act(call, world).await
}

fn note(call: &Call, headers: &HeaderMap, world: &World) {
    world.books().note(super::books::Asked {
        endpoint: call.name.to_owned(),
        order_no: call.order_no.clone(),
        headers: pairs(headers),
        fields: call.fields.clone(),
    });
}

fn read(name: &'static str, body: &Bytes, peer: Option<Option<String>>) -> Call {
    let is_json = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let fields = if is_json {
        super::wire::read_json(body)
    } else {
        super::wire::read_xml(body)
    };
    let fields = fields.unwrap_or_default();
    let order_no = ["mch_billno", "partner_trade_no", "mchBillno"]
        .iter()
        .find_map(|name| fields.get(*name));
    Call {
        name,
        order_no: order_no.cloned().unwrap_or_default(),
        fields,
        is_json,
        peer,
        asker: None,
    }
}

pub(super) fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect()
}

/// Does what the call asks for, or what a fault makes of it.
async fn act(call: Call, world: Arc<World>) -> Result<Response<Body>, Cut> {
    let (delay, action) = world.faults().take(call.name, &call.order_no);
    tokio::time::sleep(delay).await;
    let Some(action) = action else {
        return Ok(normal(&call, &world, false));
    };
    let pays = |moment: Moment| {
        if moment == Moment::After {
            drop(normal(&call, &world, false));
        }
    };
    let html = |status: u16, text: &str| {
        full(
            StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY),
            "text/html",
            format!("<html>{text}</html>"),
        )
    };
    match action {
        Action::Delay(_) => Ok(normal(&call, &world, false)),
        Action::Reset(moment) => {
            pays(moment);
            Err(Cut)
        }
        Action::Hang(moment) => {
            pays(moment);
            std::future::pending().await
        }
        Action::Status(moment, status) => {
            pays(moment);
            Ok(html(status, "gateway"))
        }
        Action::Error(moment, code) => {
            pays(moment);
            Ok(failure(&call, &code, &world))
        }
        Action::Spoilt(how) => Ok(signed(&call, &world, how)),
        Action::Forged(code) => Ok(match &call.asker {
            Some(asker) => wechat_v3::failure(asker, &world, &code, Some(Spoilt::Signature)),
            None => failure(&call, &code, &world),
        }),
        Action::FailOuter(text) if call.is_wechat() => {
            Ok(call.respond(&[("return_code", "FAIL"), ("return_msg", &text)]))
        }
        Action::FailOuter(text) => Ok(call.respond(&[("returnCode", "FAIL"), ("returnMsg", &text)])),
        Action::Garbage(moment) => {
            pays(moment);
            Ok(html(200, "<p>this & that"))
        }
        Action::Empty(moment) => {
            pays(moment);
            Ok(full(StatusCode::OK, "text/plain", String::new()))
        }
        Action::Truncate => {
            let answer = normal(&call, &world, false);
            let (head, body) = answer.into_parts();
            let text = body
                .collect()
                .await
                .map(|body| body.to_bytes())
                .unwrap_or_default();
            let media = if call.is_json {
                "application/json"
            } else {
                "application/xml"
            };
            drop(head);
            Ok(half(media, &String::from_utf8_lossy(&text)))
        }
        Action::Late(pause) => {
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                drop(normal(&call, &world, false));
            });
            Err(Cut)
        }
        Action::Redirect => {
            let mut response = html(307, "elsewhere");
            let place = http::HeaderValue::from_static("/elsewhere");
            response.headers_mut().insert(http::header::LOCATION, place);
            Ok(response)
        }
        Action::WrongAmount => Ok(normal(&call, &world, true)),
    }
}

fn normal(call: &Call, world: &World, wrong_amount: bool) -> Response<Body> {
    if let Some(asker) = &call.asker {
        wechat_v3::answer(call, asker, world, wrong_amount, None)
    } else if call.is_wechat() {
        wechat_v2::answer(call, world, wrong_amount)
    } else {
        handler::answer(call, world, wrong_amount)
    }
}

/// The answer with a spoilt signature, where there are signatures.
fn signed(call: &Call, world: &World, how: Spoilt) -> Response<Body> {
    match &call.asker {
        Some(asker) => wechat_v3::answer(call, asker, world, false, Some(how)),
        None => normal(call, world, false),
    }
}

fn failure(call: &Call, code: &str, world: &World) -> Response<Body> {
    let text = "injected";
    if let Some(asker) = &call.asker {
        wechat_v3::failure(asker, world, code, None)
    } else if call.is_wechat() {
        wechat_v2::failure(call, code, text)
    } else {
        handler::failure(call, code, text)
    }
}

impl Call {
    fn is_wechat(&self) -> bool {
        !matches!(self.name, "send" | "status")
    }

    pub(super) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    pub(super) fn respond(&self, fields: &[(&str, &str)]) -> Response<Body> {
        if self.is_json {
            full(
                StatusCode::OK,
                "application/json",
                super::wire::write_json(fields),
            )
        } else {
            full(StatusCode::OK, "application/xml", super::wire::write_xml(fields))
        }
    }
}
