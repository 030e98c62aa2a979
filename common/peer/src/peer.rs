//! One other node: its address, its outboxes, its client for calls, its state.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use sanso_core::cluster::{Incarnation, NodeId};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::error::{CallError, Dropped};
use crate::lane::{Lane, Line};
use crate::outbox::Outbox;
use crate::proto::peer_client::PeerClient;
use crate::shared::Shared;

/// What is known of the connections to a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStatus {
    /// The beat lane is connected.
    pub beat: bool,
    /// The data lane is connected.
    pub data: bool,
    /// Calls are connected.
    pub call: bool,
    /// How often the data lane was connected. What was sent under another number is lost, or behind.
    pub data_connections: u64,
    /// Attempts to connect the beat lane that failed, since it was connected last.
    pub attempts_failed: u32,
    /// The life that was connected to last.
    pub incarnation: Option<Incarnation>,
    /// The newest version that both speak, as agreed last.
    pub version: Option<u32>,
    /// Messages to it that were dropped since the start, for whatever reason.
    pub messages_dropped: u64,
}

impl PeerStatus {
    /// Says whether all connections are there.
    pub fn is_connected(&self) -> bool {
        self.beat && self.data && self.call
    }
}

/// How calls reach the node.
#[derive(Clone, Debug)]
pub(crate) enum Calls {
    /// The first attempt to connect is under way.
    Connecting,
    Connected(PeerClient<Channel>),
    Unreachable(String),
}

/// One other node.
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    pub(crate) address: watch::Sender<String>,
    pub(crate) status: watch::Sender<PeerStatus>,
    pub(crate) calls: watch::Sender<Calls>,
    /// Ends its connections; no later than the node closes.
    pub(crate) forgotten: CancellationToken,
    outboxes: [Mutex<Option<Outbox>>; 2],
    dropped: AtomicU64,
}

impl Peer {
    pub(crate) fn new(node: NodeId, address: String, forgotten: CancellationToken) -> Self {
        Self {
            node,
            address: watch::Sender::new(address),
            status: watch::Sender::default(),
            calls: watch::Sender::new(Calls::Connecting),
            forgotten,
            outboxes: Default::default(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Takes note that a line is connected; on a lane, messages go to `outbox` from now on.
    pub(crate) fn connected(&self, line: Line, outbox: Outbox, client: PeerClient<Channel>) {
        match line.lane() {
            Some(_) => *self.outboxes[line.index()].lock() = Some(outbox),
            None => drop(self.calls.send_replace(Calls::Connected(client))),
        }
        self.mark(line, true);
    }

    /// Takes note that a line is not connected.
    pub(crate) fn disconnected(&self, line: Line, reason: &str) {
        match line.lane() {
            Some(_) => *self.outboxes[line.index()].lock() = None,
            None => drop(self.calls.send_replace(Calls::Unreachable(reason.to_owned()))),
        }
        self.mark(line, false);
    }

    fn mark(&self, line: Line, is_connected: bool) {
        self.status.send_if_modified(|status| {
            let connected = match line {
                Line::Beat => &mut status.beat,
                Line::Data => &mut status.data,
                Line::Call => &mut status.call,
            };
            let changes = std::mem::replace(connected, is_connected) != is_connected;
            status.data_connections += u64::from(line == Line::Data && is_connected);
            changes
        });
    }

    /// Puts a message into a lane's outbox, or drops and counts it.
    pub(crate) fn send(&self, shared: &Shared, lane: Lane, bytes: Bytes) -> Result<(), Dropped> {
        let sent = self.put(shared, lane, bytes);
        if sent.is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    fn put(&self, shared: &Shared, lane: Lane, bytes: Bytes) -> Result<(), Dropped> {
        if bytes.len() > shared.limits.bytes_max(lane) {
            return Err(Dropped::TooLong);
        }
        let outbox = self.outboxes[Line::from(lane).index()].lock();
        let outbox = outbox.as_ref().ok_or(Dropped::NotConnected)?;
        if shared.filter.swallows_to(self.node) {
            return Ok(());
        }
        let delay = shared.filter.delay_to(self.node);
        outbox.put(bytes, delay.map(|delay| Instant::now() + delay))
    }

    /// Returns the client for calls; waits only while the first attempt to connect is under way.
    pub(crate) async fn client(&self) -> Result<PeerClient<Channel>, CallError> {
        let mut calls = self.calls.subscribe();
        let decided = calls.wait_for(|calls| !matches!(calls, Calls::Connecting)).await;
        match decided.as_deref() {
            Ok(Calls::Connected(client)) => Ok(client.clone()),
            Ok(Calls::Unreachable(reason)) => Err(CallError::Unreachable(reason.clone())),
            Ok(Calls::Connecting) | Err(_) => Err(CallError::Unreachable("the node is forgotten".into())),
        }
    }

    /// Returns how many bytes wait in its lanes.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.outboxes.iter().filter_map(|outbox| outbox.lock().as_ref().map(Outbox::waiting_bytes)).sum()
    }

    pub(crate) fn status(&self) -> PeerStatus {
        PeerStatus { messages_dropped: self.dropped.load(Ordering::Relaxed), ..*self.status.borrow() }
    }
}
