//! The fake's listeners, plain and TLS, the routes of its calls, and their faults.

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{RawPathParams, Request, State};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{iter, once};
use http::header::{CONTENT_LENGTH, LOCATION};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use socket2::Socket;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;
use tower::Layer as _;

use super::call::{Call, Peer};
use super::faults::{Action, Injected};
use super::wechat_v3::{self, Asker, Spoilt};
use super::wire;
use super::{StartError, World, control, handler, pki, wechat_v2};

pub(super) async fn listen(
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    world: Arc<World>,
) -> Result<(SocketAddr, AbortOnDropHandle<()>), StartError> {
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let router = router(Arc::clone(&world));
    let task = tokio::spawn(async move {
        // Ends with this task, and ends the connections with it.
        let mut connections = JoinSet::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            world.connections.fetch_add(1, Ordering::Relaxed);
            while connections.try_join_next().is_some() {}
            connections.spawn(connection(stream, tls.clone(), router.clone()));
        }
    });
    Ok((bound, AbortOnDropHandle::new(task)))
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, router: Router) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    // A second handle of the socket: it can reset the connection, however deep the stream is wrapped.
    let Ok(socket) = stream.as_fd().try_clone_to_owned().map(Socket::from) else {
        return;
    };
    let served = match tls {
        None => http(stream, Peer::Plain, router).await,
        Some(acceptor) => {
            let Ok(tls) = acceptor.accept(stream).await else {
                return;
            };
            let certificates = tls.get_ref().1.peer_certificates();
            let peer = certificates
                .and_then(|chain| chain.first())
                .and_then(|cert| pki::common_name(cert));
            http(tls, Peer::Tls(peer), router).await
        }
    };
    if served.is_err() {
        // With a linger of zero, closing sends RST instead of FIN.
        let _reset = socket.set_linger(Some(Duration::ZERO)).is_ok();
    }
}

async fn http<S>(stream: S, peer: Peer, router: Router) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Without this, hyper would cancel a call when its client closes.
    hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(
            TokioIo::new(stream),
            TowerToHyperService::new(Extension(peer).layer(router)),
        )
        .await
}

/// The routes of all calls. Any other path goes to the echo.
fn router(world: Arc<World>) -> Router {
    let call = |name: &'static str| {
        move |State(world): State<Arc<World>>,
              peer: Extension<Peer>,
              path: RawPathParams,
              request: Request| async move {
            let (head, body) = request.into_parts();
            let Ok(body) = to_bytes(body, usize::MAX).await else {
                return cut_after(Bytes::new()).into_response();
            };
            let call = read(name, &head, &path, &body, peer.0, &world);
            act(call, world).await
        }
    };
    let bills = "/v3/fund-app/mch-transfer/transfer-bills";
    Router::new()
        .route("/mmpaymkttransfers/sendredpack", post(call("sendredpack")))
        .route(
            "/mmpaymkttransfers/sendminiprogramhb",
            post(call("sendminiprogramhb")),
        )
        .route("/mmpaymkttransfers/promotion/transfers", post(call("transfers")))
        .route("/mmpaymkttransfers/gethbinfo", post(call("gethbinfo")))
        .route(
            "/mmpaymkttransfers/gettransferinfo",
            post(call("gettransferinfo")),
        )
        .route("/pay/sendApiRedPack", post(call("send")))
        .route("/pay/getApiRedPacketStatus", post(call("status")))
        .route("/v3/certificates", get(call("certificates")))
        .route(bills, post(call("transfer-bills")))
        .route(
            &format!("{bills}/out-bill-no/{{number}}"),
            get(call("query-bill")),
        )
        .route(
            &format!("{bills}/out-bill-no/{{number}}/cancel"),
            post(call("cancel-bill")),
        )
        .nest("/_stub", control::router())
        .fallback(control::echo)
        .with_state(world)
}

/// Parses a call and records it.
fn read(
    name: &'static str,
    head: &Parts,
    path: &RawPathParams,
    body: &Bytes,
    peer: Peer,
    world: &World,
) -> Call {
    let asker = head
        .uri
        .path()
        .starts_with("/v3/")
        .then(|| Asker::of(head, body, world));
    let is_json = asker.is_some() || body.trim_ascii_start().first() == Some(&b'{');
    let fields = if is_json {
        wire::read_json(body)
    } else {
        wire::read_xml(body)
    };
    let fields = fields.unwrap_or_default();
    let order_no = ["mch_billno", "partner_trade_no", "mchBillno", "out_bill_no"]
        .iter()
        .find_map(|name| fields.get(*name).map(String::as_str))
        .or_else(|| path.iter().next().map(|(_, number)| number));
    let call = Call {
        name,
        order_no: order_no.unwrap_or_default().to_owned(),
        fields,
        is_json,
        peer,
        asker,
    };
    world.books().note(super::books::Asked {
        endpoint: name.to_owned(),
        order_no: call.order_no.clone(),
        headers: pairs(&head.headers),
        fields: call.fields.clone(),
    });
    call
}

pub(super) fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect()
}

/// Carries out a call, or its fault.
async fn act(call: Call, world: Arc<World>) -> Response {
    let (delay, fault) = world.faults().take(call.name, &call.order_no);
    tokio::time::sleep(delay).await;
    let Some(Injected { action, pays_first }) = fault else {
        return normal(&call, &world, false);
    };
    let paid = pays_first.then(|| normal(&call, &world, false));
    let html = |status: StatusCode, text: &str| (status, Html(format!("<html>{text}</html>")));
    match action {
        Action::Delay(_) => normal(&call, &world, false),
        Action::Reset => cut_after(Bytes::new()).into_response(),
        Action::Hang => std::future::pending().await,
        Action::Status(status) => html(status, "gateway").into_response(),
        Action::Error(code) => failure(&call, &code, &world),
        Action::Spoilt(how) => match &call.asker {
            Some(asker) => wechat_v3::answer(&call, asker, &world, false, Some(how)),
            None => normal(&call, &world, false),
        },
        Action::Forged(code) => match &call.asker {
            Some(asker) => wechat_v3::failure(asker, &world, &code, Some(Spoilt::Signature)),
            None => failure(&call, &code, &world),
        },
        Action::FailOuter(text) if call.is_wechat() => {
            call.respond(&[("return_code", "FAIL"), ("return_msg", &text)])
        }
        Action::FailOuter(text) => call.respond(&[("returnCode", "FAIL"), ("returnMsg", &text)]),
        Action::Garbage => html(StatusCode::OK, "<p>this & that").into_response(),
        Action::Empty => String::new().into_response(),
        Action::Truncate => {
            let answer = paid.unwrap_or_else(|| normal(&call, &world, false));
            let (mut head, body) = answer.into_parts();
            let mut whole = to_bytes(body, usize::MAX).await.unwrap_or_default();
            head.headers.insert(CONTENT_LENGTH, whole.len().into());
            whole.truncate(whole.len() / 2);
            Response::from_parts(head, cut_after(whole))
        }
        Action::Late(pause) => {
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                drop(normal(&call, &world, false));
            });
            cut_after(Bytes::new()).into_response()
        }
        Action::Redirect => {
            let place = [(LOCATION, "/elsewhere")];
            (place, html(StatusCode::TEMPORARY_REDIRECT, "elsewhere")).into_response()
        }
        Action::WrongAmount => normal(&call, &world, true),
    }
}

/// A body of these bytes that then breaks the connection. If there are none, the client gets no part of a
/// response.
fn cut_after(bytes: Bytes) -> Body {
    let is_empty = bytes.is_empty();
    let cut = once(async move {
        if !is_empty {
            // Let hyper send the bytes before the error.
            tokio::task::yield_now().await;
        }
        Err(std::io::Error::other("cut on purpose"))
    });
    Body::from_stream(iter([Ok(bytes)]).chain(cut))
}

fn normal(call: &Call, world: &World, wrong_amount: bool) -> Response {
    if let Some(asker) = &call.asker {
        wechat_v3::answer(call, asker, world, wrong_amount, None)
    } else if call.is_wechat() {
        wechat_v2::answer(call, world, wrong_amount)
    } else {
        handler::answer(call, world, wrong_amount)
    }
}

fn failure(call: &Call, code: &str, world: &World) -> Response {
    let text = "injected";
    if let Some(asker) = &call.asker {
        wechat_v3::failure(asker, world, code, None)
    } else if call.is_wechat() {
        wechat_v2::failure(call, code, text)
    } else {
        handler::failure(call, code, text)
    }
}
