//! Stands between a connection and the HTTP library. Of HTTP/1 the library is given only bytes that [`framing`](super::framing)
//! found good, so that nothing is served that could be read in two ways; a request with a fault is answered here, and its
//! connection ends. Between two answers it writes what the library cannot: a backend's word before the answer (1xx).
//!
//! One request at a time: the bytes behind one are not looked at before it is answered, since they may be no HTTP at all
//! (after a 101). HTTP/2 passes as it is; its library is strict by itself.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::future::{Either, Ready, ready as at_once};
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::contract::{Call, refusal};
use super::framing::{Fault, Framer};

/// What HTTP/2 begins with. Source: RFC 9113, section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The most bytes of words before an answer that wait to be written; a backend that says more is not heard.
const MAX_WORDS: usize = 16 * 1024;

/// What a connection may begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// HTTP/1 only.
    Http1,
    /// HTTP/2 only.
    Http2,
    /// Either; the first bytes decide.
    Either,
}

/// How far the request at hand has come: what the reader of a connection's bytes and those who answer its requests tell each
/// other. One for each HTTP/1 connection; its requests carry it as an extension. Clones are of the same connection.
#[derive(Clone, Default)]
pub struct Wire(Arc<Shared>);

#[derive(Default)]
struct Shared {
    stage: AtomicU8,
    is_of_server: AtomicBool,
    has_extensions: AtomicBool,
    has_fault: AtomicBool,
    has_words: AtomicBool,
    has_reader: AtomicBool,
    rest: Mutex<Rest>,
}

/// What is needed rarely.
#[derive(Default)]
struct Rest {
    fault: Option<Fault>,
    words: VecDeque<Bytes>,
    /// Waits for the answer, with bytes at hand that follow the request.
    reader: Option<Waker>,
    /// The connection's task.
    task: Option<Waker>,
}

/// Being read.
const READ: u8 = 0;
/// Being answered.
const CALLED: u8 = 1;
/// Its answer is being written.
const ANSWERED: u8 = 2;
/// The connection is none of HTTP any more.
const SWITCHED: u8 = 3;

impl Wire {
    fn stage(&self) -> u8 {
        self.0.stage.load(Ordering::Acquire)
    }

    fn enter(&self, stage: u8) {
        self.0.stage.store(stage, Ordering::Release);
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.0.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) {
        self.enter(READ);
        self.note(&Framer::new(0));
        if self.0.has_words.swap(false, Ordering::AcqRel) {
            self.rest().words.clear();
        }
    }

    fn note(&self, framer: &Framer) {
        let notes = &self.0;
        notes.is_of_server.store(framer.is_of_server(), Ordering::Release);
        notes
            .has_extensions
            .store(framer.has_extensions(), Ordering::Release);
    }

    fn fault(&self) -> Option<Fault> {
        if self.0.has_fault.load(Ordering::Acquire) {
            self.rest().fault
        } else {
            None
        }
    }

    fn refuse(&self, fault: Fault) {
        self.rest().fault = Some(fault);
        self.0.has_fault.store(true, Ordering::Release);
    }

    fn answered(&self, status: StatusCode) {
        self.enter(if status == StatusCode::SWITCHING_PROTOCOLS {
            SWITCHED
        } else {
            ANSWERED
        });
        if self.0.has_reader.swap(false, Ordering::AcqRel)
            && let Some(reader) = self.rest().reader.take()
        {
            reader.wake();
        }
    }

    /// Wakes the connection's task when there is more to read.
    fn awaits_answer(&self, cx: &Context<'_>) {
        self.rest().reader = Some(cx.waker().clone());
        self.0.has_reader.store(true, Ordering::Release);
    }

    /// Learns which task is to be woken by a word.
    fn is_answered_in(&self, cx: &Context<'_>) {
        let task = &mut self.rest().task;
        // It is the same one from a connection's beginning to its end.
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
    }

    /// Whether the request asks about the server, by a target that names a host and no path.
    #[must_use]
    pub fn is_of_server(&self) -> bool {
        self.0.is_of_server.load(Ordering::Acquire)
    }

    /// Whether a chunk of the request had an extension, as far as it has been read. They are legal and mean nothing;
    /// readers have differed about where they end.
    #[must_use]
    pub fn has_chunk_extensions(&self) -> bool {
        self.0.has_extensions.load(Ordering::Acquire)
    }

    /// Writes a whole head of an answer before the answer, unless the answer itself has begun or too many wait already.
    /// Source: RFC 9110, section 15.2.
    pub fn say_first(&self, word: Bytes) {
        let mut rest = self.rest();
        let waiting: usize = rest.words.iter().map(Bytes::len).sum();
        if self.stage() != CALLED || waiting.saturating_add(word.len()) > MAX_WORDS {
            tracing::debug!("an answer before the answer came too late, or was one too many");
            return;
        }
        rest.words.push_back(word);
        self.0.has_words.store(true, Ordering::Release);
        if let Some(task) = &rest.task {
            task.wake_by_ref();
        }
    }

    fn next_word(&self) -> Option<Bytes> {
        if !self.0.has_words.load(Ordering::Acquire) {
            return None;
        }
        let mut rest = self.rest();
        let word = rest.words.pop_front();
        self.0.has_words.store(!rest.words.is_empty(), Ordering::Release);
        word
    }
}

/// What is done with the bytes that come.
enum Reading {
    Undecided,
    /// They pass as they are.
    Unread,
    Framed(Framer),
    /// The stand-in of a head with a fault is the last that passes.
    StoodIn,
    /// A body has a fault.
    Failed(Fault),
}

pin_project! {
    /// A connection's bytes, of which only the good ones pass.
    pub struct Strict<T> {
        #[pin]
        io: T,
        wire: Wire,
        max_head: usize,
        reading: Reading,
        // Bytes that have come and were not passed on; the first so many may be.
        held: BytesMut,
        passable: usize,
        // A word before the answer, in part written.
        word: Bytes,
        // The library has written everything that it had, since the request at hand was given to the service.
        is_clean: bool,
    }
}

impl<T> Strict<T> {
    /// Reads over `io` heads of at most `max_head` bytes.
    #[must_use]
    pub fn new(io: T, opening: Opening, max_head: usize, wire: Wire) -> Self {
        Self {
            io,
            wire,
            max_head,
            reading: match opening {
                Opening::Http1 => Reading::Framed(Framer::new(max_head)),
                Opening::Http2 => Reading::Unread,
                Opening::Either => Reading::Undecided,
            },
            held: BytesMut::new(),
            passable: 0,
            word: Bytes::new(),
            is_clean: false,
        }
    }
}

impl<T: AsyncRead> AsyncRead for Strict<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut this = self.project();
        loop {
            if *this.passable > 0 {
                let count = (*this.passable).min(buf.remaining());
                buf.put_slice(this.held.get(..count).unwrap_or_default());
                this.held.advance(count);
                *this.passable = this.passable.saturating_sub(count);
                if this.held.is_empty() {
                    *this.held = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            match this.reading {
                Reading::Unread => {
                    if this.held.is_empty() {
                        return this.io.poll_read(cx, buf);
                    }
                    *this.passable = this.held.len();
                    continue;
                }
                // The answer is made at once, and closes the connection.
                Reading::StoodIn => return Poll::Pending,
                Reading::Failed(fault) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, *fault)));
                }
                Reading::Framed(framer) if framer.is_ended() => match this.wire.stage() {
                    SWITCHED => {
                        *this.reading = Reading::Unread;
                        continue;
                    }
                    ANSWERED => {
                        framer.begin();
                        this.wire.begin();
                        if !this.held.is_empty() {
                            look(this.reading, *this.max_head, this.held, this.passable, this.wire);
                            continue;
                        }
                    }
                    _ => {
                        if !this.held.is_empty() {
                            this.wire.awaits_answer(cx);
                            return Poll::Pending;
                        }
                        // Nothing is owed now, but the caller's going away is to be seen.
                    }
                },
                Reading::Framed(_) | Reading::Undecided => {}
            }
            let before = buf.filled().len();
            ready!(this.io.as_mut().poll_read(cx, buf))?;
            let new = buf.filled().get(before..).unwrap_or_default();
            if new.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if let Reading::Framed(framer) = this.reading
                && this.held.is_empty()
                && !framer.is_ended()
            {
                // Nearly always all of it is good, and stays where it is.
                let step = framer.advance(new);
                this.wire.note(framer);
                match step.fault {
                    None => {
                        this.held
                            .extend_from_slice(new.get(step.pass..).unwrap_or_default());
                        buf.set_filled(before.saturating_add(step.pass));
                        if step.pass > 0 {
                            return Poll::Ready(Ok(()));
                        }
                    }
                    Some(fault) => {
                        this.held.extend_from_slice(new);
                        buf.set_filled(before);
                        *this.passable = step.pass;
                        refuse(fault, this.reading, this.held, this.passable, this.wire);
                    }
                }
                continue;
            }
            this.held.extend_from_slice(new);
            buf.set_filled(before);
            look(this.reading, *this.max_head, this.held, this.passable, this.wire);
        }
    }
}

/// Looks at the bytes that are held.
fn look(reading: &mut Reading, max_head: usize, held: &mut BytesMut, passable: &mut usize, wire: &Wire) {
    if matches!(reading, Reading::Undecided) {
        let count = held.len().min(PREFACE.len());
        if held.get(..count) != PREFACE.get(..count) {
            *reading = Reading::Framed(Framer::new(max_head));
        } else if count == PREFACE.len() {
            *reading = Reading::Unread;
        }
    }
    if let Reading::Framed(framer) = reading
        && !framer.is_ended()
    {
        let step = framer.advance(held);
        wire.note(framer);
        *passable = step.pass;
        if let Some(fault) = step.fault {
            refuse(fault, reading, held, passable, wire);
        }
    }
}

/// Sees to it that the request is answered by what is wrong with it.
fn refuse(fault: Fault, reading: &mut Reading, held: &mut BytesMut, passable: &mut usize, wire: &Wire) {
    let Reading::Framed(framer) = reading else { return };
    if framer.is_in_head() {
        let stand_in = framer.stand_in(held, fault);
        *held = BytesMut::from(stand_in.as_slice());
        *passable = held.len();
        wire.refuse(fault);
        *reading = Reading::StoodIn;
    } else {
        *reading = Reading::Failed(fault);
    }
}

impl<T: AsyncWrite> Strict<T> {
    /// Writes the words that come before the answer, where nothing else is half written.
    fn poll_words(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut this = self.project();
        loop {
            if !this.word.is_empty() {
                let count = ready!(this.io.as_mut().poll_write(cx, this.word))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                this.word.advance(count);
                continue;
            }
            match this.is_clean.then(|| this.wire.next_word()).flatten() {
                Some(word) => *this.word = word,
                None => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<T: AsyncWrite> AsyncWrite for Strict<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.as_mut().poll_words(cx))?;
        let this = self.project();
        *this.is_clean = false;
        this.io.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.as_mut().poll_words(cx))?;
        let this = self.project();
        *this.is_clean = false;
        this.io.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The library flushes when it has nothing more to write; what it still has to say to a request that is being
        // answered is that answer, from its first byte.
        if self.wire.stage() == CALLED {
            *self.as_mut().project().is_clean = true;
        }
        ready!(self.as_mut().poll_words(cx))?;
        self.project().io.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_shutdown(cx)
    }
}

/// A service that is called for requests without a fault only, and whose answers the connection's reader learns of.
#[derive(Clone)]
pub struct Framed<S> {
    inner: S,
    wire: Wire,
}

impl<S> Framed<S> {
    /// The requests of one connection to `inner`.
    #[must_use]
    pub fn new(inner: S, wire: Wire) -> Self {
        Self { inner, wire }
    }
}

impl<S, I, B> tower::Service<Request<I>> for Framed<S>
where
    S: tower::Service<Request<I>, Response = Response<B>, Error = Infallible>,
    B: From<Bytes>,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response<B>, Infallible>>, Answering<S::Future>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<I>) -> Self::Future {
        if let Some(fault) = self.wire.fault() {
            return Either::Left(at_once(Ok(refused(&request, fault).map(B::from))));
        }
        let wire = (request.version() < Version::HTTP_2).then(|| {
            self.wire.enter(CALLED);
            request.extensions_mut().insert(self.wire.clone());
            self.wire.clone()
        });
        Either::Right(Answering {
            answer: self.inner.call(request),
            wire,
        })
    }
}

/// The answer to a request with a fault, in the contract's terms on the contract's paths.
fn refused<I>(request: &Request<I>, fault: Fault) -> Response<Bytes> {
    tracing::debug!(method = %request.method(), path = request.uri().path(), %fault, "a request was refused");
    let (status, text) = (fault.status(), fault.to_string());
    let mut response = match Call::of(request.uri().path()) {
        Some(_) => refusal(status, request.headers(), &text),
        None => {
            let mut response = Response::new(Bytes::from(format!("payout-sidecar: {text}\n")));
            *response.status_mut() = status;
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, plain);
            response
        }
    };
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    response
}

pin_project! {
    /// An answer that is being made.
    pub struct Answering<F> {
        #[pin]
        answer: F,
        wire: Option<Wire>,
    }
}

impl<F, B> Future for Answering<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let answer = this.answer.poll(cx);
        if let Some(wire) = this.wire {
            match &answer {
                Poll::Ready(Ok(response)) => wire.answered(response.status()),
                Poll::Ready(Err(never)) => match *never {},
                Poll::Pending => wire.is_answered_in(cx),
            }
        }
        answer
    }
}

#[cfg(test)]
mod tests;
