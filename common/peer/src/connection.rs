//! A connection that came in, until it says whose it is and after.
//!
//! Whoever does not say hello in time is cut off, whatever it sends; whoever
//! closes the node cuts off all of them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use crate::handler::Speaker;
use crate::seats::Seat;

/// Bytes both ways: TCP, or TLS over it.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// What is known of who is at the other end.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) remote: SocketAddr,
    /// The certificate that TLS has verified.
    pub(crate) certificate: Option<CertificateDer<'static>>,
    /// Whose connection it is, once that was said and believed.
    pub(crate) greeting: OnceLock<(Speaker, Seat)>,
}

/// A connection that came in.
pub(crate) struct Inbound {
    io: Box<dyn Io>,
    caller: Arc<Caller>,
    hello_due: Option<Pin<Box<Sleep>>>,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Its place among the connections that may be open.
    _place: OwnedSemaphorePermit,
}

impl Inbound {
    pub(crate) fn new(
        io: Box<dyn Io>,
        caller: Caller,
        hello_within: Duration,
        closing: CancellationToken,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            io,
            caller: Arc::new(caller),
            hello_due: Some(Box::pin(sleep(hello_within))),
            closing: Box::pin(closing.cancelled_owned()),
            _place: place,
        }
    }

    fn end(&mut self, cx: &mut Context<'_>) -> Option<io::Error> {
        if self.closing.as_mut().poll(cx).is_ready() {
            return Some(io::Error::new(io::ErrorKind::ConnectionAborted, "the node closes"));
        }
        if self.caller.greeting.get().is_some() {
            self.hello_due = None;
        }
        let due = self.hello_due.as_mut()?;
        due.as_mut().poll(cx).is_ready().then(|| io::Error::new(io::ErrorKind::TimedOut, "no hello"))
    }
}

impl Connected for Inbound {
    type ConnectInfo = Arc<Caller>;

    fn connect_info(&self) -> Arc<Caller> {
        self.caller.clone()
    }
}

impl AsyncRead for Inbound {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.end(cx) {
            Some(error) => Poll::Ready(Err(error)),
            None => Pin::new(&mut this.io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Inbound {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
