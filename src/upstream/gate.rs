//! A request's body that knows whether a connection has asked for it, and refuses when it is too late.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};

/// What became of a request. Decided once: by the connection that asks for its body, or by the caller that gives the
/// request up first.
#[derive(Clone, Copy)]
pub(super) enum Handed {
    /// A connection asked for it, and writes it.
    Over,
    /// A connection asked for it, but it was too late to send it.
    HeldUp,
    /// No connection has asked for it, and none will get it.
    Never,
}

/// What became of a request, and the check whether it may be sent, which runs at most once.
pub(super) struct Handing<MaySend: ?Sized> {
    pub(super) handed: OnceLock<Handed>,
    pub(super) may_send: MaySend,
}

/// A request's body. hyper asks for it before it writes the first byte of the request, unless the body is empty.
pub(super) struct Gate {
    pub(super) body: Full<Bytes>,
    pub(super) handing: Arc<Handing<dyn Fn() -> bool + Send + Sync>>,
}

impl Body for Gate {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let ask = || {
            if (this.handing.may_send)() {
                Handed::Over
            } else {
                Handed::HeldUp
            }
        };
        match this.handing.handed.get_or_init(ask) {
            Handed::Over => Pin::new(&mut this.body)
                .poll_frame(cx)
                .map_err(|never| match never {}),
            Handed::HeldUp | Handed::Never => Poll::Ready(Some(Err("it is not to be sent any more"))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
