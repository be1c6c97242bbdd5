//! The one body type of the main port: an answer of ours, or the backend's as it comes.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Frame, SizeHint};

use super::exchange::Download;
use crate::http::in_flight::InFlightPermit;

/// A body of the main port. Dropping it half-way cuts the exchange with the backend that it comes from.
pub struct Body(Either<Full<Bytes>, Download>);

impl Body {
    /// A whole body.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self(Either::Left(Full::new(bytes.into())))
    }

    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// The backend's body.
    #[must_use]
    pub fn stream(download: Download) -> Self {
        Self(Either::Right(download))
    }

    /// Keeps a request's place among those in flight until the backend's body is gone. A whole body gives it back at once: it is
    /// the connection's, and a caller that does not take its answers must not keep others out.
    #[must_use]
    pub fn holding(mut self, place: InFlightPermit) -> Self {
        if let Either::Right(download) = &mut self.0 {
            download.hold(place);
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
