//! One exchange with the backend: tracks when either direction last moved, and when both are done. The exchange decides
//! when the backend's connection ends: if the upload continues for [`GRACE`] after the end of the response, it cuts the
//! connection. Only then does the upload release its permit.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use pin_project_lite::pin_project;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::headers::clean_trailers;
use crate::http::alarm::Alarm;
use crate::http::in_flight::InFlightPermit;
use crate::http::line::Line;

/// How long an upload may continue after the end of the response: its last bytes are often in transit then.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// How long an exchange may stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExchangeTimeouts {
    /// If the backend sends nothing and takes nothing; `None` means for ever.
    pub backend: Option<Duration>,
    /// If the caller sends nothing of its body.
    pub caller: Duration,
}

/// One request and its response.
pub(super) struct Exchange {
    begun: Instant,
    /// When something last moved, in milliseconds since `begun`.
    moved: AtomicU64,
    /// Whether the backend would take more of a body, but the caller does not send it.
    awaits_caller: AtomicBool,
    uploaded: AtomicBool,
    upload_ended: Notify,
}

impl Exchange {
    pub(super) fn begin() -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            moved: AtomicU64::new(0),
            awaits_caller: AtomicBool::new(false),
            uploaded: AtomicBool::new(false),
            upload_ended: Notify::new(),
        })
    }

    fn moved(&self) {
        let passed = self.begun.elapsed().as_millis();
        self.moved
            .store(u64::try_from(passed).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn last_moved(&self) -> Instant {
        let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
        self.begun.checked_add(moved).unwrap_or(self.begun)
    }

    /// When the exchange has stalled for too long because of the backend. While it waits for the caller, the time does
    /// not count.
    fn deadline(&self, timeout: Duration) -> Option<Instant> {
        let since = if self.awaits_caller.load(Ordering::Relaxed) {
            Instant::now()
        } else {
            self.last_moved()
        };
        since.checked_add(timeout)
    }

    /// Resolves when nothing has moved for `timeout`, and the exchange does not wait for the caller.
    ///
    /// # Cancel safety
    /// The caller can drop it at any time.
    pub(super) async fn stands_still(&self, timeout: Option<Duration>) {
        let mut alarm = Alarm::default();
        let deadline = || timeout.and_then(|timeout| self.deadline(timeout));
        std::future::poll_fn(|cx| alarm.poll(cx, deadline)).await;
    }

    async fn uploaded(&self) {
        // There is at most one waiter, so a stored notification is never meant for another one.
        while !self.uploaded.load(Ordering::Acquire) {
            self.upload_ended.notified().await;
        }
    }
}

/// Why a request's body ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    /// The caller's connection or its framing broke.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    /// The caller sent nothing for too long.
    #[error("the caller sent nothing of the request's body for {0:?}")]
    Slow(Duration),
}

pin_project! {
    /// A request's body on its way to the backend. It holds the request's permit too, so the permit is free only when
    /// both directions are done.
    pub(super) struct Upload {
        #[pin]
        body: Incoming,
        guard: Guard,
        timeout: Duration,
        alarm: Alarm,
    }
}

struct Guard {
    exchange: Arc<Exchange>,
    _permit: Option<InFlightPermit>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let exchange = &self.exchange;
        exchange.awaits_caller.store(false, Ordering::Relaxed);
        exchange.uploaded.store(true, Ordering::Release);
        exchange.upload_ended.notify_one();
    }
}

impl Upload {
    pub(super) fn new(
        body: Incoming,
        exchange: Arc<Exchange>,
        permit: Option<InFlightPermit>,
        timeout: Duration,
    ) -> Self {
        Self {
            body,
            guard: Guard {
                exchange,
                _permit: permit,
            },
            timeout,
            alarm: Alarm::default(),
        }
    }
}

impl hyper::body::Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let this = self.project();
        let exchange = &this.guard.exchange;
        let polled = this.body.poll_frame(cx);
        exchange
            .awaits_caller
            .store(polled.is_pending(), Ordering::Relaxed);
        if let Poll::Ready(frame) = polled {
            exchange.moved();
            return Poll::Ready(frame.map(|frame| Ok(frame?)));
        }
        let timeout = *this.timeout;
        ready!(this.alarm.poll(cx, || exchange.last_moved().checked_add(timeout)));
        Poll::Ready(Some(Err(UploadError::Slow(timeout))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Why a response's body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownloadError {
    /// The backend's connection or its framing broke.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    /// For too long, the backend sent nothing and took nothing of the request.
    #[error("the backend stood still for {0:?} in the middle of its answer")]
    Still(Duration),
}

pin_project! {
    /// The backend's body on its way to the caller. However it ends, the exchange ends with it.
    pub(crate) struct Download {
        #[pin]
        body: Incoming,
        ending: Ending,
        timeout: Option<Duration>,
        alarm: Alarm,
        // Released when the body has been sent or dropped.
        _permit: Option<InFlightPermit>,
    }
}

/// Ends the exchange when the response is over.
struct Ending {
    exchange: Arc<Exchange>,
    line: Option<Arc<Line>>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let Some(line) = self.line.take() else { return };
        if self.exchange.uploaded.load(Ordering::Acquire) {
            return;
        }
        let exchange = Arc::clone(&self.exchange);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return line.cut();
        };
        drop(runtime.spawn(async move {
            if tokio::time::timeout(GRACE, exchange.uploaded()).await.is_err() {
                tracing::debug!("an upload was cut off that went on after its answer");
                line.cut();
            }
        }));
    }
}

impl Download {
    pub(super) fn new(
        body: Incoming,
        exchange: Arc<Exchange>,
        line: Option<Arc<Line>>,
        timeout: Option<Duration>,
    ) -> Self {
        if !body.is_end_stream() {
            exchange.moved();
        }
        Self {
            body,
            ending: Ending { exchange, line },
            timeout,
            alarm: Alarm::default(),
            _permit: None,
        }
    }

    pub(super) fn hold(&mut self, permit: InFlightPermit) {
        self._permit = Some(permit);
    }
}

impl hyper::body::Body for Download {
    type Data = Bytes;
    type Error = DownloadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        let mut this = self.project();
        let exchange = &this.ending.exchange;
        if let Poll::Ready(frame) = this.body.as_mut().poll_frame(cx) {
            // The last frame waits for nothing but the caller.
            let is_last = this.body.is_end_stream();
            if !is_last {
                exchange.moved();
            }
            let kept = |data| if is_last { data } else { unpinned(data) };
            return Poll::Ready(frame.map(|frame| {
                let mut frame = frame?.map_data(kept);
                if let Some(trailers) = frame.trailers_mut() {
                    clean_trailers(trailers);
                }
                Ok(frame)
            }));
        }
        let Some(timeout) = *this.timeout else {
            return Poll::Pending;
        };
        ready!(this.alarm.poll(cx, || exchange.deadline(timeout)));
        let error = DownloadError::Still(timeout);
        tracing::warn!(%error, "an answer was broken off");
        Poll::Ready(Some(Err(error)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Chunks smaller than this are copied out of the read buffer. Otherwise each would keep the whole buffer while it
/// waits for the caller: events of 100 bytes would hold 8 KiB each.
const COPIED: usize = 2 * 1024;

fn unpinned(data: Bytes) -> Bytes {
    if data.len() < COPIED {
        Bytes::copy_from_slice(&data)
    } else {
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A_MINUTE: Option<Duration> = Some(Duration::from_secs(60));

    /// After how many seconds an exchange counts as stalled.
    async fn still_after(exchange: &Exchange) -> u64 {
        let begun = Instant::now();
        exchange.stands_still(A_MINUTE).await;
        begun.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_begins_anew_with_each_byte() {
        let exchange = Exchange::begin();
        let moving = exchange.clone();
        drop(tokio::spawn(async move {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(50)).await;
                moving.moved();
            }
        }));
        assert_eq!(still_after(&exchange).await, 560);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_sends_nothing_is_not_the_backends_fault() {
        let exchange = Exchange::begin();
        exchange.awaits_caller.store(true, Ordering::Relaxed);
        let sending = exchange.clone();
        drop(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(600)).await;
            sending.moved();
            sending.awaits_caller.store(false, Ordering::Relaxed);
        }));
        assert_eq!(still_after(&exchange).await, 660);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_timeout_nothing_is_cut_off() {
        let exchange = Exchange::begin();
        let waited = tokio::time::timeout(Duration::from_secs(1_000_000), exchange.stands_still(None));
        assert!(waited.await.is_err());
    }
}
