//! Connections: accepted within a bound, cut off when their client holds them up.
//!
//! ```text
//!   client ──▶ waits in the kernel ──connections_max──▶ head within header_ms_max ──▶ router
//!          ◀── cut off when it takes nothing for write_stall_ms_max ◀── answer, events
//! ```

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};

use crate::config::ServingConfig;
use crate::service::Shared;

/// Most bytes of a request's head that are kept; a longer one is refused with 431.
const HEAD_BYTES_MAX: usize = 128 << 10;
/// Pause after the system refused a connection, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves connections until the layer is closing; then lets open requests finish.
pub(crate) async fn serve(shared: &Arc<Shared>, listener: TcpListener, router: Router) {
    let closing = shared.closing.subscribe();
    let mut connections = JoinSet::new();
    let mut failing = false;
    loop {
        let accept = async {
            let permit = Arc::clone(&shared.connections).acquire_owned().await;
            let permit = permit.expect("the semaphore is never closed");
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accept => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            () = closed(closing.clone()) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                failing = false;
                let config = shared.config.clone();
                connections.spawn(answer(stream, router.clone(), config, closing.clone(), permit));
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "accept a connection");
                }
                failing = true;
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Resolves when the layer is closing, or gone.
async fn closed(mut closing: watch::Receiver<bool>) {
    // An error says that the sender is gone.
    let _ = closing.wait_for(|closing| *closing).await;
}

/// Answers the requests of one connection.
async fn answer(
    stream: TcpStream,
    router: Router,
    config: ServingConfig,
    closing: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
) {
    // Events are small and should not wait for more.
    let _ = stream.set_nodelay(true);
    let stream = Impatient::new(stream, Duration::from_millis(config.write_stall_ms_max));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new());
    builder.header_read_timeout(Duration::from_millis(config.header_ms_max)).max_buf_size(HEAD_BYTES_MAX);
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closed(closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // The client's doing, in all its ways: it left, or was too slow, or spoke no HTTP.
        tracing::debug!(%error, "connection ended");
    }
}

/// A stream that fails when the other end takes nothing for too long.
struct Impatient<S> {
    stream: S,
    stall_max: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    fn new(stream: S, stall_max: Duration) -> Self {
        Self { stream, stall_max, stalled: None }
    }

    /// Starts the clock while a write can't go on, and stops it when one could.
    fn time<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(self.stall_max)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.time(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.time(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.time(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_cut_off() {
        let (ours, _theirs) = tokio::io::duplex(64);
        let written = Impatient::new(ours, Duration::from_millis(1)).write_all(&[0; 65]).await;
        assert_eq!(written.expect_err("nobody reads").kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_client_that_takes_something_gets_all_the_patience_again() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut ours = Impatient::new(ours, Duration::from_secs(3600));
        ours.write_all(&[7; 64]).await.expect("there is room");
        assert!(poll!(pin!(ours.write(&[7]))).is_pending());
        assert!(ours.stalled.is_some());
        theirs.read_exact(&mut [0; 64]).await.expect("reads");
        ours.write_all(&[7]).await.expect("there is room again");
        assert!(ours.stalled.is_none());
    }
}
