//! Tracks what a connection is doing: it tells a slow connection from an idle one, closes both in time, and ranks
//! connections when one must make room for another ([`connections`](super::connections)).
//!
//! A connection is quiet until a request's first byte, then it receives a head, then it is busy until its last response
//! is sent or dropped. hyper's own timeout for heads also runs while a connection is idle, which would close an
//! ingress's kept connections every few seconds. A tower layer sees requests only, not a connection without one.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use http::Response;
use hyper::body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::control_frames::FrameAllowance;
use super::streams;
use crate::http::alarm::Alarm;

/// The timeouts of a connection's phases.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionTimeouts {
    /// For a request's head, from its first byte; for the first request, from the start of the connection.
    pub head: Duration,
    /// For a connection without a request, or one whose caller reads no byte of a response.
    pub idle: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// Accepted at this time; its task has not run yet.
    Begun(Instant),
    /// Idle since this time.
    Quiet(Instant),
    /// Receiving a head since this time.
    Head(Instant),
    /// Serving requests. `calls` of them are contract calls without a response.
    Busy { requests: u32, calls: u32 },
}

struct State {
    doing: Doing,
    /// Since when the caller has read nothing of what we write.
    stalled: Option<Instant>,
    /// When a part of a request or a response last moved.
    moved: Instant,
    has_heads_in_pieces: bool,
    allowance: FrameAllowance,
    asked: Asked,
    /// The connection's task. [`Activity::ask`] wakes it.
    task: Option<Waker>,
}

/// What one connection is doing. Clones refer to the same connection.
#[derive(Clone)]
pub(crate) struct Activity {
    state: Arc<Mutex<State>>,
}

/// What the connection is asked to do. A later variant overrides an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asked {
    Nothing,
    /// End after the current requests.
    ToFinish,
    /// End at once, to make room for another connection.
    ToGo,
}

/// Whether a connection may end to make room for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It may. The connection with the smallest [`Missed`] goes first.
    Goes(Missed),
    /// Not yet, but soon: it has just begun, and its first request may be a payout.
    Soon,
    /// No: a contract call on it waits for its response.
    Stays,
}

/// The order in which connections go, the first one smallest: by rank, then the one that has not moved for longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Missed {
    rank: Rank,
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// It has been receiving a head for longer than [`PROMPT_HEAD`], which no honest caller needs.
    SlowHead,
    Quiet,
    /// It serves requests that are no contract calls, or the caller has yet to read a response.
    Served,
}

/// A head comes in one packet or two, perhaps after a TLS handshake. A connection whose head takes longer than this
/// goes before those that are idle between requests. Until then it cannot be made to go.
const PROMPT_HEAD: Duration = Duration::from_millis(300);

impl Activity {
    /// A connection that has just begun and owes its first request. `has_heads_in_pieces` is true for HTTP/1, where
    /// bytes on a quiet connection start a head. In HTTP/2 they may be anything.
    #[must_use]
    pub(crate) fn new(has_heads_in_pieces: bool) -> Self {
        let now = Instant::now();
        Self {
            state: Arc::new(Mutex::new(State {
                doing: Doing::Begun(now),
                stalled: None,
                moved: now,
                has_heads_in_pieces,
                allowance: FrameAllowance::full(now),
                asked: Asked::Nothing,
                task: None,
            })),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection's task runs for the first time. The timeout of the head starts only now: the caller is not to
    /// blame for the time that we were busy.
    pub(super) fn looked_at(&self) {
        self.state().doing = Doing::Head(Instant::now());
    }

    /// TLS has negotiated HTTP/2.
    pub(super) fn has_no_heads_in_pieces(&self) {
        self.state().has_heads_in_pieces = false;
    }

    fn bytes_came(&self) {
        let mut state = self.state();
        if !state.has_heads_in_pieces {
            return;
        }
        let now = Instant::now();
        state.moved = now;
        if matches!(state.doing, Doing::Quiet(_)) {
            state.doing = Doing::Head(now);
        }
    }

    /// A part of a request's body arrived (HTTP/2).
    pub(super) fn data_came(&self) {
        self.state().moved = Instant::now();
    }

    /// Takes `frames` control frames (HTTP/2) from the allowance. Returns false if the caller has used it up.
    #[must_use]
    pub(super) fn spend(&self, frames: u32) -> bool {
        self.state().allowance.spend(frames, Instant::now())
    }

    /// hyper took a part of a response.
    fn answer_taken(&self, now: Instant) {
        let mut state = self.state();
        state.moved = now;
        state.allowance.earn_frame();
    }

    /// Whether the connection may end to make room for another.
    #[must_use]
    pub(crate) fn standing(&self, now: Instant) -> Standing {
        let state = self.state();
        let (rank, since) = match state.doing {
            Doing::Begun(_) => return Standing::Soon,
            Doing::Head(since) if now.saturating_duration_since(since) < PROMPT_HEAD => {
                return Standing::Soon;
            }
            Doing::Head(since) => (Rank::SlowHead, since),
            Doing::Quiet(since) => (Rank::Quiet, since),
            Doing::Busy { calls: 0, .. } => (Rank::Served, state.moved),
            Doing::Busy { .. } => return Standing::Stays,
        };
        Standing::Goes(Missed { rank, since })
    }

    /// Asks the connection to end.
    pub(super) fn ask(&self, asked: Asked) {
        let mut state = self.state();
        state.asked = std::cmp::max(state.asked, asked);
        if let Some(task) = state.task.take() {
            task.wake();
        }
    }

    /// Resolves when the connection must end at once. For the handshake, before [`Watched`] takes over.
    pub(super) async fn must_go(&self) {
        std::future::poll_fn(|cx| match self.state().asked_in(cx) {
            Asked::ToGo => Poll::Ready(()),
            Asked::Nothing | Asked::ToFinish => Poll::Pending,
        })
        .await;
    }

    fn wrote(&self, is_taken: bool) {
        let mut state = self.state();
        if is_taken {
            state.stalled = None;
        } else {
            state.stalled.get_or_insert_with(Instant::now);
        }
    }

    /// A request has come. The connection is busy until the caller drops the result.
    pub(super) fn begin(&self, is_call: bool) -> Busy {
        let mut state = self.state();
        if !state.has_heads_in_pieces {
            // In HTTP/1, `bytes_came` has set it for this head.
            state.moved = Instant::now();
        }
        let (requests, calls) = match state.doing {
            Doing::Begun(_) | Doing::Quiet(_) | Doing::Head(_) => (0, 0),
            Doing::Busy { requests, calls } => (requests, calls),
        };
        state.doing = Doing::Busy {
            requests: u32::saturating_add(requests, 1),
            calls: u32::saturating_add(calls, u32::from(is_call)),
        };
        state.allowance.earn_request();
        Busy {
            activity: self.clone(),
            is_call,
            ended: None,
        }
    }

    fn answered(&self, was_call: bool) {
        let mut state = self.state();
        if let Doing::Busy { calls, .. } = &mut state.doing {
            *calls = calls.saturating_sub(u32::from(was_call));
        }
        state.moved = Instant::now();
    }

    fn end(&self, was_call: bool, since: Option<Instant>) {
        let mut state = self.state();
        if let Doing::Busy { requests, calls } = state.doing {
            state.doing = match requests.saturating_sub(1) {
                0 => Doing::Quiet(since.unwrap_or_else(Instant::now)),
                requests => Doing::Busy {
                    requests,
                    calls: calls.saturating_sub(u32::from(was_call)),
                },
            };
        }
    }
}

impl State {
    /// What the connection is asked to do. A later request wakes the task of `cx`.
    fn asked_in(&mut self, cx: &Context<'_>) -> Asked {
        // The task is the same for the connection's whole life.
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
        }
        self.asked
    }

    /// When the connection times out, if nothing changes.
    fn deadline(&self, timeouts: ConnectionTimeouts) -> Option<Instant> {
        let doing = match self.doing {
            Doing::Quiet(since) => since.checked_add(timeouts.idle),
            Doing::Begun(since) | Doing::Head(since) => since.checked_add(timeouts.head),
            Doing::Busy { .. } => None,
        };
        let stalled = self.stalled.and_then(|since| since.checked_add(timeouts.idle));
        match (doing, stalled) {
            (Some(doing), Some(stalled)) => Some(std::cmp::min(doing, stalled)),
            (deadline, None) | (None, deadline) => deadline,
        }
    }
}

/// A request in progress. Its connection is busy until this is dropped.
pub(super) struct Busy {
    activity: Activity,
    /// Whether it is a contract call without a response.
    is_call: bool,
    /// When the last part of its response was taken.
    ended: Option<Instant>,
}

impl Busy {
    /// The response is made, and only the caller has to read it. From now on a contract call no longer protects the
    /// connection.
    pub(super) fn answered<A>(mut self, response: Response<A>) -> Response<Answering<A>> {
        self.activity.answered(std::mem::take(&mut self.is_call));
        response.map(|body| Answering { body, busy: self })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.activity.end(self.is_call, self.ended);
    }
}

pin_project! {
    /// A connection's stream that reports its bytes to an [`Activity`].
    pub struct Noted<T> {
        #[pin]
        io: T,
        activity: Activity,
    }
}

impl<T> Noted<T> {
    /// Reports what arrives over `io`, and whether writes progress.
    #[must_use]
    pub(crate) fn new(io: T, activity: Activity) -> Self {
        Self { io, activity }
    }
}

impl<T: AsyncRead> AsyncRead for Noted<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buf.filled().len();
        ready!(this.io.poll_read(cx, buf))?;
        if buf.filled().len() > before {
            this.activity.bytes_came();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite> AsyncWrite for Noted<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.project();
        let written = this.io.poll_write(cx, buf);
        this.activity.wrote(written.is_ready());
        written
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_shutdown(cx)
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let written = this.io.poll_write_vectored(cx, bufs);
        this.activity.wrote(written.is_ready());
        written
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

pin_project! {
    /// A response's body. The request ends when this has been sent or dropped.
    pub struct Answering<A> {
        #[pin]
        body: A,
        busy: Busy,
    }
}

impl<A: Body> Body for Answering<A> {
    type Data = A::Data;
    type Error = A::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<A::Data>, A::Error>>> {
        let mut this = self.project();
        streams::asked();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        if let Some(Ok(_)) = &frame {
            let now = Instant::now();
            this.busy.activity.answer_taken(now);
            this.busy.ended = this.body.is_end_stream().then_some(now);
            streams::offered(now);
        }
        Poll::Ready(frame)
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// A timeout passed.
    Slow,
    /// It made room for another connection.
    MadeRoom,
}

pin_project! {
    /// A connection that ends by itself or is closed. It finishes its requests if asked to.
    pub(super) struct Watched<C> {
        #[pin]
        connection: C,
        // Makes it end after the current requests.
        finish: fn(Pin<&mut C>),
        is_finishing: bool,
        alarm: Alarm,
        activity: Activity,
        timeouts: ConnectionTimeouts,
    }
}

impl<C> Watched<C> {
    /// Watches over a connection. `finish` must make it end after the current requests.
    #[must_use]
    pub(super) fn new(
        connection: C,
        finish: fn(Pin<&mut C>),
        activity: Activity,
        timeouts: ConnectionTimeouts,
    ) -> Self {
        Self {
            connection,
            finish,
            is_finishing: false,
            alarm: Alarm::default(),
            activity,
            timeouts,
        }
    }
}

impl<C: Future> Future for Watched<C> {
    type Output = Result<C::Output, Cut>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            if let Poll::Ready(ended) = this.connection.as_mut().poll(cx) {
                return Poll::Ready(Ok(ended));
            }
            // A statement of its own, so that the lock is released before the connection runs again.
            let asked = this.activity.state().asked_in(cx);
            match asked {
                Asked::ToGo => return Poll::Ready(Err(Cut::MadeRoom)),
                Asked::ToFinish if !*this.is_finishing => {
                    *this.is_finishing = true;
                    (this.finish)(this.connection.as_mut());
                }
                Asked::ToFinish | Asked::Nothing => break,
            }
        }
        let (activity, timeouts) = (this.activity, *this.timeouts);
        ready!(this.alarm.poll(cx, || activity.state().deadline(timeouts)));
        Poll::Ready(Err(Cut::Slow))
    }
}

#[cfg(test)]
mod tests;
