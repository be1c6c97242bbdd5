//! What the tests of all rules share: a refusal in plain words, and a service that tells what reached it.

use std::convert::Infallible;

use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tower::{Layer, Service, ServiceExt as _};

use crate::proxy::body::Body;

/// Refuses with the status and the reason as text.
pub(super) fn plainly(status: StatusCode, _headers: &HeaderMap, why: &str) -> Response<Body> {
    let mut response = Response::new(Body::full(format!("{} {why}", status.as_u16())));
    *response.status_mut() = status;
    response
}

/// The text of an answer.
pub(super) async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What became of a request at a rule.
pub(super) enum Passage {
    /// It reached the inner service, so.
    Reached(http::request::Parts),
    /// It was answered by the rule.
    Refused(Response<Body>),
}

/// Sends a request through a rule.
pub(super) async fn pass<L>(layer: &L, request: Request<()>) -> Passage
where
    L: Layer<Inner>,
    L::Service: Service<Request<()>, Response = Response<Body>, Error = Infallible>,
{
    let (reached, mut inside) = tokio::sync::mpsc::unbounded_channel();
    let response = layer.layer(Inner(reached)).oneshot(request).await.unwrap();
    match inside.try_recv() {
        Ok(parts) => Passage::Reached(parts),
        Err(_) => Passage::Refused(response),
    }
}

/// Answers everything, and tells what it was asked.
#[derive(Clone)]
pub(super) struct Inner(tokio::sync::mpsc::UnboundedSender<http::request::Parts>);

impl Service<Request<()>> for Inner {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        self.0.send(request.into_parts().0).unwrap();
        std::future::ready(Ok(Response::new(Body::empty())))
    }
}
