//! The tasks of an HTTP/2 connection's requests. If a caller keeps a stream's window closed, so that no part of the
//! response can be sent, the stream is reset after a timeout, and the connection's other streams continue. (In HTTP/1
//! such a caller reads nothing of what we write, which [`activity`](super::activity) notices.)

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::Executor;
use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::http::alarm::Alarm;

thread_local! {
    /// For the task that is being polled: since when a part of its response waits for the caller.
    static WAITING: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// hyper asks for the next part of a response, so it has sent the previous one.
pub(super) fn asked() {
    WAITING.set(None);
}

/// hyper takes a part of a response, to send it.
pub(super) fn offered(now: Instant) {
    WAITING.set(Some(now));
}

/// Runs the requests of HTTP/2 connections.
#[derive(Clone)]
pub(super) struct Streams {
    /// How long a part of a response may wait for its caller.
    pub(super) idle: Duration,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, request: F) {
        drop(tokio::spawn(Stream {
            request,
            waiting: None,
            alarm: Alarm::default(),
            idle: self.idle,
        }));
    }
}

pin_project! {
    /// One request. If it ends early, hyper drops its half of the stream, which resets the stream.
    struct Stream<F> {
        #[pin]
        request: F,
        waiting: Option<Instant>,
        alarm: Alarm,
        idle: Duration,
    }
}

impl<F: Future<Output = ()>> Future for Stream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        WAITING.set(*this.waiting);
        let polled = this.request.poll(cx);
        *this.waiting = WAITING.take();
        if polled.is_ready() {
            return Poll::Ready(());
        }
        let (waiting, idle) = (*this.waiting, *this.idle);
        ready!(
            this.alarm
                .poll(cx, || waiting.and_then(|since| since.checked_add(idle)))
        );
        tracing::debug!("a stream was reset whose caller took nothing of its answer");
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_whose_caller_takes_nothing() {
        let begun = Instant::now();
        let (alive, mut ended) = tokio::sync::mpsc::channel::<()>(1);
        let streams = Streams {
            idle: Duration::from_secs(75),
        };
        let shared = Arc::new(alive);
        let taken = Arc::clone(&shared);
        streams.execute(async move {
            // The caller takes five parts in time, but not the sixth.
            for _ in 0..5 {
                offered(Instant::now());
                tokio::time::sleep(Duration::from_secs(60)).await;
                asked();
                tokio::time::sleep(Duration::from_secs(200)).await;
            }
            offered(Instant::now());
            std::future::pending::<()>().await;
            drop(taken);
        });
        drop(shared);
        let ended = tokio::time::timeout(Duration::from_secs(100_000), ended.recv()).await;
        assert_eq!(ended.expect("it ends"), None);
        assert_eq!(begun.elapsed().as_secs(), 5 * 260 + 75);
    }
}
