//! The one body type of the main port: an answer of ours, or the backend's as it comes.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Frame, SizeHint};

use super::exchange::{Download, DownloadError};
use super::headers::clean_trailers;
use crate::door::overload::Place;

/// A body of the main port. Dropping it half-way cuts the exchange with the backend that it comes from.
pub struct Body {
    content: Content,
    // Given back when the body has been sent or dropped.
    _place: Option<Place>,
}

enum Content {
    Full(Full<Bytes>),
    Stream(Download),
}

impl Body {
    /// A whole body.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self {
            content: Content::Full(Full::new(bytes.into())),
            _place: None,
        }
    }

    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// The backend's body.
    #[must_use]
    pub fn stream(download: Download) -> Self {
        Self {
            content: Content::Stream(download),
            _place: None,
        }
    }

    /// Keeps a request's place among those in flight until the backend's body is gone. A whole body gives it back at once: it is
    /// the connection's, and a caller that does not take its answers must not keep others out.
    #[must_use]
    pub fn holding(mut self, place: Place) -> Self {
        self._place = match self.content {
            Content::Full(_) => None,
            Content::Stream(_) => Some(place),
        };
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
    type Error = DownloadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        match &mut self.get_mut().content {
            Content::Full(full) => Pin::new(full).poll_frame(cx).map_err(|never| match never {}),
            Content::Stream(stream) => Pin::new(stream).poll_frame(cx).map_ok(|mut frame| {
                if let Some(trailers) = frame.trailers_mut() {
                    clean_trailers(trailers);
                }
                frame
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Full(full) => full.is_end_stream(),
            Content::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Full(full) => full.size_hint(),
            Content::Stream(stream) => stream.size_hint(),
        }
    }
}
