//! The states of replicas that a node sends and takes: driven here, cut and put together in `transfer.rs`.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sanso_core::Hosted;
use sanso_core::cluster::{ClusterMap, Event, Instance, Message, NodeId, Partition, Position, Replication};
use sanso_peer::{Dropped, Lane, Peers};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use super::{Hub, LARGE_BYTES, encoded, in_background, making_room};
use crate::figures::SNAPSHOTS;
use crate::transfer::{self, CutError, PIECE_BYTES, Piece, Transfer, Transfers};
use crate::wire::{self, PIECES_SINCE};

/// Between two looks at whether what was sent has left.
const LOOK: Duration = Duration::from_millis(5);
/// How long that may take. Who is slower holds up what others are to be sent.
const LEAVES_WITHIN: Duration = Duration::from_secs(60);

/// The states on their way from and to a node.
#[derive(Debug)]
pub(super) struct States {
    /// To whom which are to be sent.
    sending: Mutex<BTreeSet<(NodeId, Partition)>>,
    /// One at a time: what a replica changes while its state is on its way is there twice.
    turn: Semaphore,
    /// Transfers that have begun.
    begun: AtomicU64,
    arriving: Mutex<Transfers>,
}

impl Default for States {
    fn default() -> Self {
        Self {
            sending: Mutex::default(),
            turn: Semaphore::new(1),
            begun: AtomicU64::default(),
            arriving: Mutex::default(),
        }
    }
}

/// A state that is to be sent.
struct Outgoing {
    to: NodeId,
    of: Transfer,
    at: Position,
    state: Hosted,
}

impl Hub {
    /// Sends the state of a partition where it holds nobody up, unless one is still on its way. What does not
    /// arrive is asked for again by the core.
    pub(super) fn send_state(&self, to: NodeId, message: Message<Hosted>) {
        let Message::Replication { partition, epoch, from_since, to_since, message } = message else {
            return;
        };
        let Replication::Snapshot { at, state } = message else { return };
        let Some(hub) = self.own.upgrade() else { return };
        if !self.states.sending.lock().insert((to, partition)) {
            return;
        }
        let number = self.states.begun.fetch_add(1, Ordering::Relaxed);
        let of = Transfer { partition, epoch, from_since, to_since, number };
        self.runtime.spawn(async move {
            let turn = hub.states.turn.acquire().await;
            hub.send_in_turn(Outgoing { to, of, at, state }).await;
            hub.states.sending.lock().remove(&(to, partition));
            drop(turn);
        });
    }

    async fn send_in_turn(&self, outgoing: Outgoing) {
        let Some(peers) = self.peers.get() else { return };
        let (to, of) = (outgoing.to, outgoing.of);
        let status = peers.status().remove(&to).unwrap_or_default();
        let sent = match status.version {
            Some(version) if version >= PIECES_SINCE => {
                self.send_pieces(peers, outgoing, status.data_connections).await
            }
            Some(_) => self.send_whole(peers, outgoing).await,
            None => false,
        };
        if sent {
            metrics::counter!(SNAPSHOTS).increment(1);
        }
        tracing::debug!(%to, partition = %of.partition, transfer = of.number, sent, "a state was to be sent");
    }

    /// Sends a state in pieces, each once little waits, as long as it is wanted and the connection is the one that it began
    /// with. Returns whether all of it has left.
    async fn send_pieces(&self, peers: &Peers, outgoing: Outgoing, connection: u64) -> bool {
        let Outgoing { to, of, at, state } = outgoing;
        let (give, mut pieces) = mpsc::channel(1);
        let give = move |piece| give.blocking_send(wire::piece(piece)).is_ok();
        let cutting =
            in_background("sanso-snapshot", move || transfer::cut(of, at, state, PIECE_BYTES, give));
        let is_there = || {
            let status = peers.status().remove(&to).unwrap_or_default();
            let is_wanted = |map: &ClusterMap| of.is_wanted(map, self.me, to);
            let map = self.engine().map(|engine| engine.maps());
            status.data
                && status.data_connections == connection
                && map.is_some_and(|map| is_wanted(&map.borrow()))
        };
        let sending = async {
            while let Some(piece) = pieces.recv().await {
                if !is_there()
                    || peers.send(to, Lane::Data, piece.into()).is_err()
                    || !leaves(peers, to).await
                {
                    // The rest need not be cut.
                    pieces.close();
                    return false;
                }
            }
            true
        };
        let (cut, sent) = tokio::join!(cutting, sending);
        if let Some(Err(CutError::Unreadable(error))) = &cut {
            tracing::error!(%to, %error, "a replica's state can't be sent");
        }
        sent && matches!(cut, Some(Ok(())))
    }

    /// Sends a state as one message, to one who knows no pieces. Returns whether it has left.
    async fn send_whole(&self, peers: &Peers, outgoing: Outgoing) -> bool {
        let Outgoing { to, of, at, state } = outgoing;
        let message = of.message(Replication::Snapshot { at, state });
        let encode = move || encoded(to, message);
        let Some(bytes) = in_background("sanso-snapshot", encode).await.flatten() else { return false };
        let length = bytes.len();
        match peers.send(to, Lane::Data, bytes.into()) {
            Ok(()) => leaves(peers, to).await,
            Err(Dropped::TooLong) => {
                tracing::warn!(
                    %to,
                    partition = %of.partition,
                    bytes = length,
                    "a replica can't be sent the state that it lacks: it is too long for the version of that node, update it"
                );
                false
            }
            Err(_) => false,
        }
    }

    /// Takes a piece of a state that this node is sent.
    pub(super) fn take_piece(&self, from: Instance, piece: Piece) {
        let Some(engine) = self.engine() else { return };
        let taken = making_room(true, || {
            let mut arriving = self.states.arriving.lock();
            // Looked at with the lock, so that what is dropped for a newer map does not come back.
            let is_wanted = piece.of.is_wanted(&engine.maps().borrow(), from.node, self.me);
            if is_wanted { arriving.take(from, piece) } else { Ok(None) }
        });
        match taken {
            Ok(Some(message)) => engine.happens(Event::Message(from, message)),
            Ok(None) => {}
            Err(error) => tracing::debug!(%from, %error, "a state that was on its way is dropped"),
        }
    }

    /// Drops the incomplete states that the newest map no longer wants.
    pub(crate) fn drop_unwanted_states(&self) {
        let Some(maps) = self.engine().map(|engine| engine.maps()) else { return };
        making_room(true, || {
            let mut arriving = self.states.arriving.lock();
            let map = maps.borrow().clone();
            arriving.retain(|from, of| of.is_wanted(&map, from, self.me));
        });
    }

    /// Drops the incomplete state that a node was sending, as soon as nobody is held up by it.
    pub(super) fn forget_states_of(&self, node: NodeId) {
        let Some(hub) = self.own.upgrade() else { return };
        self.runtime.spawn(async move {
            making_room(true, || hub.states.arriving.lock().retain(|from, _| from != node));
        });
    }
}

/// Waits until little waits to be sent to a node; false when that takes too long.
async fn leaves(peers: &Peers, to: NodeId) -> bool {
    let left = async {
        while peers.waiting_bytes(to) > LARGE_BYTES {
            sleep(LOOK).await;
        }
    };
    timeout(LEAVES_WITHIN, left).await.is_ok()
}

#[cfg(test)]
#[path = "states_tests.rs"]
mod tests;
