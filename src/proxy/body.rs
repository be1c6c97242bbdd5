//! The one body type of the main port: a response of our own, or the backend's as it streams.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Frame, SizeHint};

use super::exchange::Download;
use crate::http::in_flight::InFlightPermit;

/// A body on the main port. Dropping it before its end cuts the exchange with the backend.
pub(crate) struct Body(Either<Full<Bytes>, Download>);

impl Body {
    /// A whole body.
    #[must_use]
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Self(Either::Left(Full::new(bytes.into())))
    }

    /// No body.
    #[must_use]
    pub(crate) fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// The backend's body.
    #[must_use]
    pub(crate) fn stream(download: Download) -> Self {
        Self(Either::Right(download))
    }

    /// Holds a request's permit until the backend's body ends. A whole body releases it at once: its bytes belong to
    /// the connection, and a caller that does not read its responses must not keep others out.
    #[must_use]
    pub(crate) fn holding(mut self, permit: InFlightPermit) -> Self {
        if let Either::Right(download) = &mut self.0 {
            download.hold(permit);
        }
        self
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::full(bytes)
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = tower::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tower::BoxError>>> {
        Pin::new(&mut self.get_mut().0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
