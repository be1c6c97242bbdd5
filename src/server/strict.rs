//! The stream between a connection and the HTTP library. For HTTP/1 the library gets only bytes that
//! [`framing`](super::framing) accepts, so that the sidecar serves nothing that has two readings. This stream makes the
//! library answer a faulty request with an error, and the connection ends. Between two responses it writes what the
//! library cannot: a backend's interim responses (1xx).
//!
//! It handles one request at a time. It does not look at the bytes after a request before that request is answered,
//! since after a 101 they may not be HTTP. HTTP/2 passes unchanged; the library reads it strictly.
//! `docs/decisions/0013-strict-reader-before-hyper.md` says why.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{Request, Response, Version};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::contract_api::Call;
use super::control_frames::{Frames, PREFACE};
use super::framing::Framer;
use crate::http::framing_error::FramingError;
use crate::http::http1::{Http1Exchange, Stage};
use crate::http::responses::{Refused as _, closing, refusal, text_response};

/// What to do with incoming bytes.
enum Input {
    Undecided(Frames),
    /// Pass them unchanged, and count the frames.
    Http2(Frames),
    /// Pass them unchanged; they are no longer HTTP.
    Unread,
    Framed(Framer),
    /// Pass nothing more: the substitute head of a faulty request was the last.
    StoodIn,
    /// Fail: a body has a fault.
    Failed(FramingError),
}

pin_project! {
    /// A connection's stream that passes only good bytes.
    pub struct Strict<T> {
        #[pin]
        io: T,
        exchange: Http1Exchange,
        max_head: usize,
        reading: Input,
        // Bytes that arrived and were not passed on. The first `passable` of them may be.
        buffered: BytesMut,
        passable: usize,
        // The rest of an interim response that is partly written.
        word: Bytes,
        // The library has written everything that it had since the service got the current request.
        is_clean: bool,
    }
}

impl<T> Strict<T> {
    /// Reads HTTP/1 heads of at most `max_head` bytes over `io`. With `http2`, the connection may also start with
    /// HTTP/2.
    #[must_use]
    pub(crate) fn new(io: T, http2: Option<Frames>, max_head: usize, exchange: Http1Exchange) -> Self {
        Self {
            io,
            exchange,
            max_head,
            reading: match http2 {
                None => Input::Framed(Framer::new(max_head)),
                Some(frames) => Input::Undecided(frames),
            },
            buffered: BytesMut::new(),
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
                buf.put_slice(this.buffered.get(..count).unwrap_or_default());
                this.buffered.advance(count);
                *this.passable = this.passable.saturating_sub(count);
                if this.buffered.is_empty() {
                    *this.buffered = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            match this.reading {
                Input::Unread => {
                    if this.buffered.is_empty() {
                        return this.io.poll_read(cx, buf);
                    }
                    *this.passable = this.buffered.len();
                    continue;
                }
                Input::Http2(frames) => {
                    let before = buf.filled().len();
                    if this.buffered.is_empty() {
                        ready!(this.io.poll_read(cx, buf))?;
                        frames.came(buf.filled().get(before..).unwrap_or_default())?;
                        return Poll::Ready(Ok(()));
                    }
                    frames.came(this.buffered)?;
                    *this.passable = this.buffered.len();
                    continue;
                }
                // The substitute is answered at once, and the response closes the connection.
                Input::StoodIn => return Poll::Pending,
                Input::Failed(fault) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, *fault)));
                }
                Input::Framed(framer) if framer.is_ended() => match this.exchange.stage() {
                    Stage::Switched => {
                        *this.reading = Input::Unread;
                        continue;
                    }
                    Stage::Answered => {
                        framer.begin();
                        this.exchange.begin();
                        if !this.buffered.is_empty() {
                            look(
                                this.reading,
                                *this.max_head,
                                this.buffered,
                                this.passable,
                                this.exchange,
                            );
                            continue;
                        }
                    }
                    Stage::Read | Stage::Called => {
                        if !this.buffered.is_empty() {
                            this.exchange.wait_for_answer(cx);
                            return Poll::Pending;
                        }
                        // Nothing to pass on now, but read on to notice that the caller hangs up.
                    }
                },
                Input::Framed(_) | Input::Undecided(_) => {}
            }
            let before = buf.filled().len();
            ready!(this.io.as_mut().poll_read(cx, buf))?;
            let new = buf.filled().get(before..).unwrap_or_default();
            if new.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if let Input::Framed(framer) = this.reading
                && this.buffered.is_empty()
                && !framer.is_ended()
            {
                // Nearly always all bytes are good and stay where they are.
                let step = framer.advance(new);
                this.exchange.note(framer.is_of_server(), framer.has_extensions());
                match step.fault {
                    None => {
                        this.buffered
                            .extend_from_slice(new.get(step.pass..).unwrap_or_default());
                        buf.set_filled(before.saturating_add(step.pass));
                        if step.pass > 0 {
                            return Poll::Ready(Ok(()));
                        }
                    }
                    Some(fault) => {
                        this.buffered.extend_from_slice(new);
                        buf.set_filled(before);
                        *this.passable = step.pass;
                        refuse(fault, this.reading, this.buffered, this.passable, this.exchange);
                    }
                }
                continue;
            }
            this.buffered.extend_from_slice(new);
            buf.set_filled(before);
            look(
                this.reading,
                *this.max_head,
                this.buffered,
                this.passable,
                this.exchange,
            );
        }
    }
}

/// Reads the buffered bytes.
fn look(
    reading: &mut Input,
    max_head: usize,
    buffered: &mut BytesMut,
    passable: &mut usize,
    exchange: &Http1Exchange,
) {
    if matches!(reading, Input::Undecided(_)) {
        let count = buffered.len().min(PREFACE.len());
        if buffered.get(..count) != PREFACE.get(..count) {
            *reading = Input::Framed(Framer::new(max_head));
        } else if count == PREFACE.len()
            && let Input::Undecided(frames) = std::mem::replace(reading, Input::Unread)
        {
            *reading = Input::Http2(frames);
        }
    }
    if let Input::Framed(framer) = reading
        && !framer.is_ended()
    {
        let step = framer.advance(buffered);
        exchange.note(framer.is_of_server(), framer.has_extensions());
        *passable = step.pass;
        if let Some(fault) = step.fault {
            refuse(fault, reading, buffered, passable, exchange);
        }
    }
}

/// Replaces a faulty head with a substitute, which [`answer`] answers with the fault, or fails a faulty body.
fn refuse(
    fault: FramingError,
    reading: &mut Input,
    buffered: &mut BytesMut,
    passable: &mut usize,
    exchange: &Http1Exchange,
) {
    let Input::Framed(framer) = reading else { return };
    if framer.is_in_head() {
        let stand_in = framer.stand_in(buffered, fault);
        *buffered = BytesMut::from(stand_in.as_slice());
        *passable = buffered.len();
        exchange.fail(fault);
        *reading = Input::StoodIn;
    } else {
        *reading = Input::Failed(fault);
    }
}

impl<T: AsyncWrite> Strict<T> {
    /// Writes the interim responses that wait, unless another response is half written.
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
            match this.is_clean.then(|| this.exchange.next_interim()).flatten() {
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
        // The library flushes when it has nothing more to write. If a request is with the service, what the library
        // writes next is that request's response, from its first byte.
        if self.exchange.stage() == Stage::Called {
            *self.as_mut().project().is_clean = true;
        }
        ready!(self.as_mut().poll_words(cx))?;
        self.project().io.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_shutdown(cx)
    }
}

/// Makes `service` answer a request of this connection, or answers it with its fault. Tells the connection's reader
/// about the response.
pub(super) async fn answer<I, B: From<Bytes>>(
    exchange: Http1Exchange,
    mut request: Request<I>,
    mut service: impl tower::Service<Request<I>, Response = Response<B>, Error = Infallible>,
) -> Result<Response<B>, Infallible> {
    if let Some(fault) = exchange.fault() {
        return Ok(refused(&request, fault));
    }
    if request.version() == Version::HTTP_2 {
        return service.call(request).await;
    }
    exchange.call();
    request.extensions_mut().insert(exchange.clone());
    let mut answer = pin!(service.call(request));
    let answer = std::future::poll_fn(|cx| {
        let answer = answer.as_mut().poll(cx);
        if answer.is_pending() {
            exchange.is_answered_in(cx);
        }
        answer
    });
    let response = answer.await?;
    exchange.answered(response.status());
    Ok(response)
}

/// The response to a faulty request, in the contract's format on the contract's paths.
fn refused<I, B: From<Bytes>>(request: &Request<I>, fault: FramingError) -> Response<B> {
    tracing::debug!(method = %request.method(), path = request.uri().path(), %fault, "a request was refused");
    closing(match Call::of(request.uri().path()) {
        Some(_) => refusal(request.headers(), &fault),
        None => text_response(fault.status(), &fault.to_string()),
    })
}

#[cfg(test)]
mod tests;
