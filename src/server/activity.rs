//! What a connection is doing, so that one that is slow can be told from one that is idle, both are cut off in time, and
//! where there is no room for another, the one that is missed least makes it ([`slots`](super::connections)).
//!
//! Quiet until the first byte of a request, then a head, then busy until the last answer is sent or dropped. hyper's own
//! time-out for heads runs while a connection is idle too, which would cut an ingress's kept connections every few seconds; a tower
//! layer sees requests, and no connection without one.

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

/// How long a connection may take over what it is doing.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionTimeouts {
    /// For a request's head, from its first byte; for the first one, from the connection's beginning.
    pub head: Duration,
    /// Without any request, or without taking a byte of an answer.
    pub idle: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// It was accepted then, and nobody has looked at it yet.
    Begun(Instant),
    /// Nothing, since then.
    Quiet(Instant),
    /// Sending a head, since then.
    Head(Instant),
    /// Being served so many requests, of which so many are contract calls that have no answer yet.
    Busy { requests: u32, calls: u32 },
}

struct State {
    doing: Doing,
    /// Since when the caller takes nothing of what is written.
    stalled: Option<Instant>,
    /// When something of a request or an answer moved last.
    moved: Instant,
    has_heads_in_pieces: bool,
    allowance: FrameAllowance,
    asked: Asked,
    /// The connection's, which is woken when it is asked for something.
    task: Option<Waker>,
}

/// What one connection is doing. Clones are of the same connection.
#[derive(Clone)]
pub struct Activity {
    state: Arc<Mutex<State>>,
}

/// What a connection is asked for. What is asked later weighs more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asked {
    Nothing,
    /// To end after the requests at hand.
    ToFinish,
    /// To end at once, to make room for another.
    ToGo,
}

/// Whether a connection may go to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may, before all that would be missed more.
    Goes(Missed),
    /// It may soon, but has just begun: its first request may be a payout.
    Soon,
    /// A contract call on it waits for its answer.
    Stays,
}

/// How much a connection would be missed, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missed {
    rank: Rank,
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// It owes a head for longer than any caller in earnest needs.
    SlowHead,
    Quiet,
    /// It is served what is no contract call, or an answer that it has yet to take.
    Served,
}

/// A head comes in one packet or two, after a TLS greeting perhaps. One that takes longer than this goes before those that are
/// idle between requests; until then it has its chance.
const PROMPT_HEAD: Duration = Duration::from_millis(300);

impl Activity {
    /// A connection that has just begun, and owes its first request. `has_heads_in_pieces`: HTTP/1, where bytes on a quiet
    /// connection are the beginning of a head; in HTTP/2 they may be anything.
    #[must_use]
    pub fn new(has_heads_in_pieces: bool) -> Self {
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

    /// It is looked at for the first time. However busy we were until now, that was no slowness of the caller's.
    pub(super) fn looked_at(&self) {
        self.state().doing = Doing::Head(Instant::now());
    }

    /// TLS has agreed on HTTP/2.
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

    /// Something of a request's body came (HTTP/2).
    pub(super) fn data_came(&self) {
        self.state().moved = Instant::now();
    }

    /// Takes so many control frames (HTTP/2) out of the allowance. False: it has had more than its share.
    #[must_use]
    pub(super) fn spend(&self, frames: u32) -> bool {
        self.state().allowance.spend(frames, Instant::now())
    }

    /// A part of an answer was taken.
    fn answer_taken(&self, now: Instant) {
        let mut state = self.state();
        state.moved = now;
        state.allowance.earn_frame();
    }

    /// Whether it may go to make room for another connection.
    #[must_use]
    pub fn standing(&self, now: Instant) -> Standing {
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

    /// Asks the connection for something.
    pub(super) fn ask(&self, asked: Asked) {
        let mut state = self.state();
        state.asked = std::cmp::max(state.asked, asked);
        if let Some(task) = state.task.take() {
            task.wake();
        }
    }

    /// Resolves when the connection is to go, where nothing else of it is watched over yet.
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

    /// A request has come.
    pub(super) fn begin(&self, is_call: bool) -> Busy {
        let mut state = self.state();
        if !state.has_heads_in_pieces {
            // In HTTP/1 the head that has just come has moved it.
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
    /// What the connection is asked for; its task is woken by what it is asked for later.
    fn asked_in(&mut self, cx: &Context<'_>) -> Asked {
        // It is the same one from a connection's beginning to its end.
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
        }
        self.asked
    }

    /// When it is cut off, if it goes on like this.
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

/// A request that is being served. Its connection is busy until this is dropped.
pub(super) struct Busy {
    activity: Activity,
    /// Whether it is a contract call that has no answer yet.
    is_call: bool,
    /// When the last part of its answer was taken.
    ended: Option<Instant>,
}

impl Busy {
    /// Its answer is made, and has only to be taken: that is no reason any more to keep the connection.
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
    /// A connection's bytes, which are noted as they come.
    pub struct Noted<T> {
        #[pin]
        io: T,
        activity: Activity,
    }
}

impl<T> Noted<T> {
    /// Notes what comes over `io`.
    #[must_use]
    pub fn new(io: T, activity: Activity) -> Self {
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
    /// An answer's body; the request is over when it has been sent or dropped.
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

/// Why a connection was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// It took too long.
    Slow,
    /// It made room for another.
    MadeRoom,
}

pin_project! {
    /// A connection that ends by itself, or is cut off. It finishes when it is asked to.
    pub(super) struct Watched<C> {
        #[pin]
        connection: C,
        // Has it end after the requests at hand.
        finish: fn(Pin<&mut C>),
        is_finishing: bool,
        alarm: Alarm,
        activity: Activity,
        timeouts: ConnectionTimeouts,
    }
}

impl<C> Watched<C> {
    /// Watches over a connection, which `finish` has end after the requests at hand.
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
            // The lock is free again before anything of the connection's is done.
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
