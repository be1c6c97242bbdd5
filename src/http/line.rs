//! A connection that can be cut from outside, whatever hyper waits for. hyper's client notices that nobody needs a
//! connection only at some points. A backend that has responded and no longer reads the upload would keep its
//! connection for ever. And hyper first writes out everything that it holds of a request, even if nobody waits for the
//! response any more and however slowly the other side reads.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::future::{MapOk, TryFutureExt as _};
use futures_util::task::AtomicWaker;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::net::TcpStream;

/// Cuts one connection. Each response that came over the connection has it among its extensions.
#[derive(Default)]
pub(crate) struct Line {
    is_cut: AtomicBool,
    // The task that both reads and writes.
    task: AtomicWaker,
}

impl Line {
    /// Makes every further read and write on the connection fail.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
        self.task.wake();
    }

    /// Fails once the connection is cut.
    fn check(&self) -> io::Result<()> {
        if self.is_cut.load(Ordering::Acquire) {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the exchange is over",
            ));
        }
        Ok(())
    }
}

/// Opens connections to one address.
#[derive(Clone)]
pub(crate) struct Lines {
    pub(crate) connector: HttpConnector,
    pub(crate) to: Uri,
}

impl tower::Service<Uri> for Lines {
    type Response = OnLine;
    type Error = <HttpConnector as tower::Service<Uri>>::Error;
    type Future = MapOk<<HttpConnector as tower::Service<Uri>>::Future, fn(TokioIo<TcpStream>) -> OnLine>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        tower::Service::poll_ready(&mut self.connector, cx)
    }

    fn call(&mut self, _pool: Uri) -> Self::Future {
        tower::Service::call(&mut self.connector, self.to.clone()).map_ok(OnLine::new)
    }
}

pin_project! {
    /// A connection, and the [`Line`] that cuts it.
    pub struct OnLine<S = TokioIo<TcpStream>> {
        #[pin]
        stream: S,
        line: Arc<Line>,
        says_farewell: bool,
    }
}

impl<S> OnLine<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            line: Arc::default(),
            says_farewell: true,
        }
    }

    /// A connection that ends only by being dropped: hyper's shutdown does nothing.
    pub(crate) fn without_farewell(stream: S) -> Self {
        Self {
            says_farewell: false,
            ..Self::new(stream)
        }
    }

    /// Cuts this connection.
    pub(crate) fn line(&self) -> &Arc<Line> {
        &self.line
    }
}

impl<S> Connection for OnLine<S> {
    fn connected(&self) -> Connected {
        Connected::new().extra(Arc::clone(&self.line))
    }
}

impl<S: Read> Read for OnLine<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        // One task reads and writes, and it always waits for something to read, whatever else it waits for.
        this.line.task.register(cx.waker());
        this.line.check()?;
        this.stream.poll_read(cx, buf)
    }
}

impl<S: Write> Write for OnLine<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.project();
        this.line.check()?;
        this.stream.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        this.line.check()?;
        this.stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        this.line.check()?;
        if *this.says_farewell {
            this.stream.poll_shutdown(cx)
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        this.line.check()?;
        this.stream.poll_write_vectored(cx, bufs)
    }
}
