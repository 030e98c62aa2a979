//! Keeps one line to one peer connected.
//!
//! ```text
//!   dial ─▶ preface ─▶ TLS ─▶ HTTP/2 ─▶ hello ─▶ welcome ─▶ connected … broken
//!    ▲                                                                    │
//!    └────────────── pause, doubled up to its bound, or a new address ◀───┘
//! ```
//!
//! A channel lives for one connection: tonic's own reconnecting is not used, so a
//! connection that is dead is never taken for one that will come back, and every
//! break is seen here, once.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

use sanso_core::cluster::{Incarnation, Instance};

use crate::connection::Io;
use crate::error::with_causes;
use crate::lane::Line;
use crate::outbox::{Outbox, frames};
use crate::peer::Peer;
use crate::proto::Welcome;
use crate::proto::peer_client::PeerClient;
use crate::shared::Shared;

/// How one connection ended, or why it never began.
enum End {
    /// Nobody listens there, or it was reset at once.
    Closed(String),
    /// Nothing came back in time, or nothing that made sense.
    Failed(String),
    /// The peer does not want us.
    Denied(String),
    /// It was connected, and broke.
    Broken(String),
    /// The peer has another address.
    Moved,
}

/// One line to one peer.
pub(crate) struct Link {
    pub(crate) shared: Arc<Shared>,
    pub(crate) peer: Arc<Peer>,
    pub(crate) line: Line,
}

/// What was said already, so that it is said once.
#[derive(Default)]
struct Told {
    /// That the peer is gone; until it is connected again.
    broken: bool,
    reason: String,
    attempts: u32,
}

impl Link {
    /// Keeps the line connected until the peer is forgotten.
    pub(crate) async fn keep(self) {
        let mut told = Told::default();
        let mut address = self.peer.address.subscribe();
        loop {
            let at = address.borrow_and_update().clone();
            let moved = async {
                // Fails only when the peer is dropped, which this holds.
                let _ = address.changed().await;
            };
            let end = tokio::select! {
                () = self.peer.forgotten.cancelled() => break,
                end = self.live(&at, &mut told) => end,
                () = moved => End::Moved,
            };
            tokio::select! {
                () = self.peer.forgotten.cancelled() => break,
                () = self.over(end, &at, &mut told) => (),
            }
            let pause = self.pause(told.attempts);
            told.attempts = told.attempts.saturating_add(1);
            tokio::select! {
                () = self.peer.forgotten.cancelled() => break,
                () = sleep(pause) => (),
                _ = address.changed() => told.attempts = 0,
            }
        }
        self.peer.disconnected(self.line, "the node is forgotten, or this one closes");
    }

    fn pause(&self, attempts: u32) -> Duration {
        let limits = &self.shared.limits;
        let doubled = limits.backoff_ms_min.saturating_mul(1 << attempts.min(20));
        Duration::from_millis(doubled.min(limits.backoff_ms_max))
    }

    /// Tells what has ended: the handler of a break, people of a reason that is new.
    async fn over(&self, end: End, at: &str, told: &mut Told) {
        let (reason, broken) = match end {
            End::Moved => {
                self.peer.disconnected(self.line, "the node has another address");
                told.attempts = 0;
                return;
            }
            End::Closed(reason) | End::Broken(reason) => (reason, true),
            End::Failed(reason) | End::Denied(reason) => (reason, false),
        };
        self.peer.disconnected(self.line, &reason);
        if broken && self.line == Line::Beat && !told.broken {
            self.shared.filter.passable(self.peer.node).await;
            told.broken = true;
            self.shared.handler.broken(self.peer.node);
        }
        if self.line == Line::Beat {
            self.peer.status.send_modify(|status| status.attempts_failed = told.attempts);
        }
        if told.reason != reason {
            let (node, line) = (self.peer.node, self.line);
            tracing::warn!(%node, %line, at, reason, "not connected");
            told.reason = reason;
        }
    }

    /// Lives through one connection.
    async fn live(&self, at: &str, told: &mut Told) -> End {
        let node = self.peer.node;
        let limits = &self.shared.limits;
        // A handshake needs both directions.
        self.shared.filter.passable(node).await;
        let channel = match timeout(limits.connect_within(), self.dial(at)).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(end)) => return end,
            Err(_) => return End::Failed(format!("no answer within {} ms", limits.connect_ms_max)),
        };
        let body_max = limits.call_bytes_max + 1_024;
        let mut client =
            PeerClient::new(channel).max_decoding_message_size(body_max).max_encoding_message_size(body_max);
        let (outbox, queue) = Outbox::new(limits.queue_messages_max, limits.queue_bytes_max);
        let greeted = async {
            let mut replies = client.exchange(frames(self.shared.clone(), node, queue)).await?.into_inner();
            let welcome = replies.message().await?;
            Ok((welcome, replies))
        };
        let (welcome, mut replies) = match timeout(limits.connect_within(), greeted).await {
            Ok(Ok((Some(welcome), replies))) => (welcome, replies),
            Ok(Ok((None, _))) => return End::Failed("no welcome".into()),
            Ok(Err(status)) => return not_welcome(&status),
            Err(_) => return End::Failed(format!("no welcome within {} ms", limits.connect_ms_max)),
        };
        if let Err(reason) = self.meet(&welcome) {
            return End::Denied(reason);
        }
        *told = Told::default();
        self.peer.connected(self.line, outbox.clone(), client);
        tracing::info!(%node, line = %self.line, at, version = welcome.version, "connected");
        // Nothing more is said until it ends; the outbox is kept, else that would be the end.
        let ended = replies.message().await;
        drop(outbox);
        match ended {
            Ok(_) => End::Broken("the node closed the connection".into()),
            Err(status) => End::Broken(with_causes(&status)),
        }
    }

    /// Looks at who answered.
    fn meet(&self, welcome: &Welcome) -> Result<(), String> {
        if !self.shared.identity.versions.contains(&welcome.version) {
            return Err(format!(
                "the node chose version {} of the wire, which was not offered",
                welcome.version
            ));
        }
        let incarnation = Incarnation(welcome.incarnation);
        let instance = Instance { node: self.peer.node, incarnation };
        self.shared
            .seats
            .meet(instance)
            .map_err(|newest| format!("{instance} answers there, an earlier life than #{}", newest.0))?;
        self.peer.status.send_modify(|status| {
            status.incarnation = Some(incarnation);
            status.version = Some(welcome.version);
            if self.line == Line::Beat {
                status.attempts_failed = 0;
            }
        });
        Ok(())
    }

    async fn dial(&self, at: &str) -> Result<Channel, End> {
        let mut tcp = TcpStream::connect(at).await.map_err(no_connection)?;
        tcp.set_nodelay(true).map_err(no_connection)?;
        tcp.write_all(self.line.preface()).await.map_err(no_connection)?;
        let io: Box<dyn Io> = match &self.shared.security {
            None => Box::new(tcp),
            Some(security) => {
                let tls = security.connect(tcp, self.peer.node).await;
                Box::new(tls.map_err(|error| End::Failed(format!("TLS: {error}")))?)
            }
        };
        let mut io = Some(TokioIo::new(io));
        let once = tower::service_fn(move |_: Uri| {
            let io = io
                .take()
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the connection is over"));
            std::future::ready(io)
        });
        let limits = &self.shared.limits;
        let window_bytes = if self.line == Line::Call { 8 << 20 } else { 64 << 10 };
        Endpoint::from_static("http://node.sanso")
            .initial_stream_window_size(window_bytes)
            .initial_connection_window_size(window_bytes)
            .http2_keep_alive_interval(Duration::from_millis(limits.keep_alive_ms))
            .keep_alive_timeout(Duration::from_millis(limits.keep_alive_timeout_ms))
            .keep_alive_while_idle(true)
            // What comes of a call that was given up is no fault of the other node.
            .http2_max_local_error_reset_streams(None)
            .connect_with_connector(once)
            .await
            .map_err(|error| End::Failed(with_causes(&error)))
    }
}

fn no_connection(error: io::Error) -> End {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => End::Closed(error.to_string()),
        _ => End::Failed(error.to_string()),
    }
}

fn not_welcome(status: &Status) -> End {
    match status.code() {
        Code::FailedPrecondition => End::Denied(format!("refused: {}", status.message())),
        _ => End::Failed(with_causes(status)),
    }
}
