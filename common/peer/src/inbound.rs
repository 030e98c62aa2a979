//! Connections that come in: accepted on the beat lane's thread, so that a
//! blocked runtime does not keep a peer's beats out, then served where their
//! line belongs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::chunk::FRAME_BYTES_MAX;
use crate::connection::{Caller, Inbound, Io};
use crate::lane::{Line, PREFACE_BYTES};
use crate::proto::peer_server::PeerServer;
use crate::service::Service;
use crate::shared::Shared;

/// The largest head of a request: ours has a few hundred bytes.
const HEAD_BYTES_MAX: u32 = 16 << 10;
/// Questions that may have been given up before they were looked at. Few by default, against
/// strangers; a node that is starved meets more, and its connection must not be closed for it.
const RESETS_MAX: usize = 4_096;
/// Pause after the system had no socket left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Where connections of each line are served.
#[derive(Clone)]
pub(crate) struct Doors {
    lines: [mpsc::Sender<Inbound>; 3],
    /// Runs everything but beats.
    main: Handle,
}

impl Doors {
    /// Opens the three lines: beats on the current runtime, the others on `main`.
    pub(crate) fn open(shared: &Arc<Shared>, beat: &Handle, main: Handle) -> Self {
        let lines = Line::ALL.map(|line| {
            let (door, connections) = mpsc::channel(16);
            let runtime = if line == Line::Beat { beat } else { &main };
            runtime.spawn(serve(shared.clone(), line, connections));
            door
        });
        Self { lines, main }
    }
}

/// Accepts connections until the node closes.
pub(crate) async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>, doors: Doors) {
    let listener = TcpListener::from_std(listener).expect("the listener is not blocking, in a runtime");
    let mut told_full = false;
    loop {
        let accepted = tokio::select! {
            () = shared.closing.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (tcp, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept a connection");
                sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let Ok(place) = shared.places.clone().try_acquire_owned() else {
            if !told_full {
                let connections_max = shared.limits.connections_max;
                tracing::warn!(%remote, connections_max, "all connections are taken, others are refused");
            }
            told_full = true;
            continue;
        };
        told_full = false;
        tokio::spawn(let_in(tcp, remote, place, shared.clone(), doors.clone()));
    }
}

/// Reads which line a connection is for, and hands it to who serves that.
async fn let_in(
    mut tcp: TcpStream,
    remote: SocketAddr,
    place: OwnedSemaphorePermit,
    shared: Arc<Shared>,
    doors: Doors,
) {
    let Some(line) = read_line(&mut tcp, &shared).await else {
        shared.tell_stranger(remote.ip(), "what connected is no node: it does not say which lane it is for");
        return;
    };
    let door = doors.lines[line.index()].clone();
    if line == Line::Beat {
        return secure(tcp, remote, place, shared, door).await;
    }
    // A socket belongs to the runtime that watches it.
    let Ok(tcp) = tcp.into_std() else { return };
    doors.main.spawn(async move {
        if let Ok(tcp) = TcpStream::from_std(tcp) {
            secure(tcp, remote, place, shared, door).await;
        }
    });
}

async fn read_line(tcp: &mut TcpStream, shared: &Shared) -> Option<Line> {
    // Beats are far apart and small: none may wait for the next.
    tcp.set_nodelay(true).ok()?;
    let mut preface = [0; PREFACE_BYTES];
    timeout(shared.limits.connect_within(), tcp.read_exact(&mut preface)).await.ok()?.ok()?;
    Line::announced_by(&preface)
}

/// Does the TLS handshake, where it is on, and hands the connection to gRPC.
async fn secure(
    tcp: TcpStream,
    remote: SocketAddr,
    place: OwnedSemaphorePermit,
    shared: Arc<Shared>,
    door: mpsc::Sender<Inbound>,
) {
    let within = shared.limits.connect_within();
    let (io, certificate): (Box<dyn Io>, _) = match &shared.security {
        None => (Box::new(tcp), None),
        Some(security) => match timeout(within, security.accept(tcp)).await {
            Ok(Ok(tls)) => {
                let chain = tls.get_ref().1.peer_certificates();
                let certificate = chain.and_then(|chain| chain.first()).map(|own| own.clone().into_owned());
                (Box::new(tls), certificate)
            }
            Ok(Err(error)) => return shared.tell_stranger(remote.ip(), &format!("TLS: {error}")),
            Err(_) => return shared.tell_stranger(remote.ip(), "TLS: the handshake takes too long"),
        },
    };
    let caller = Caller { remote, certificate, greeting: std::sync::OnceLock::new() };
    let inbound = Inbound::new(io, caller, within, shared.closing.clone(), place);
    // Nobody serves it only when the node closes.
    let _ = door.send(inbound).await;
}

/// Serves the connections of one line until the node closes.
async fn serve(shared: Arc<Shared>, line: Line, connections: mpsc::Receiver<Inbound>) {
    let limits = shared.limits;
    let lane = (2, FRAME_BYTES_MAX);
    let ((streams_max, message_bytes_max), window_bytes, frame_bytes_max) = match line {
        Line::Beat => (lane, 1 << 20, 16 << 10),
        // Frames of HTTP/2's usual 16 KiB would halve the rate of large messages.
        Line::Data => (lane, 8 << 20, 256 << 10),
        // A question's kind and what is around it take little.
        Line::Call => {
            ((limits.calls_max.saturating_add(1), limits.call_bytes_max + 1_024), 8 << 20, 64 << 10)
        }
    };
    let service = PeerServer::new(Service::new(shared.clone(), line))
        .max_decoding_message_size(message_bytes_max)
        .max_encoding_message_size(message_bytes_max);
    let closing: CancellationToken = shared.closing.clone();
    let connections = ReceiverStream::new(connections).map(Ok::<_, std::convert::Infallible>);
    let served = Server::builder()
        .max_concurrent_streams(streams_max)
        .initial_stream_window_size(window_bytes)
        .initial_connection_window_size(window_bytes)
        .max_frame_size(Some(frame_bytes_max))
        .http2_max_header_list_size(HEAD_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(RESETS_MAX))
        .http2_keepalive_interval(Some(Duration::from_millis(limits.keep_alive_ms)))
        .http2_keepalive_timeout(Some(Duration::from_millis(limits.keep_alive_timeout_ms)))
        .serve_with_incoming(service, connections);
    tokio::select! {
        () = closing.cancelled() => (),
        served = served => {
            if let Err(error) = served {
                tracing::error!(%line, %error, "serve connections of nodes");
            }
        }
    }
}
