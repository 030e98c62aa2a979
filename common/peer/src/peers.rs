//! A node's wire: started once, handed to whoever speaks to other nodes.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use sanso_core::cluster::NodeId;
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use tonic::{Code, Request, Status};

use crate::config::PeerConfig;
use crate::error::{CallError, Dropped, PeerError, with_causes};
use crate::filter::LinkFilter;
use crate::handler::Handler;
use crate::inbound::{Doors, accept};
use crate::lane::{Lane, Line};
use crate::outbound::Link;
use crate::peer::{Peer, PeerStatus};
use crate::proto::Question;
use crate::proto::reply::Outcome;
use crate::shared::Shared;

/// How long after its deadline a question that nobody waits for is still worked on, at most.
const CANCELLED_WITHIN: Duration = Duration::from_secs(1);

/// A node's wire. Clones are the same; when the last is dropped, it closes. A
/// handler that holds one keeps it open until [`Peers::close`].
#[derive(Clone)]
pub struct Peers {
    wire: Arc<Wire>,
}

/// How much of its bounds a wire uses; the bounds are [`Limits`](crate::Limits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Room that is reserved for long messages being put together; `assembling_bytes_max`.
    pub assembling_bytes: usize,
    /// Connections that came in; `connections_max`.
    pub connections: usize,
    /// What waits to be sent, in all lanes to all nodes; `queue_bytes_max` each.
    pub queue_bytes: usize,
    /// Frames that were passed over since the start, as those of a later version are; has no bound.
    pub frames_unknown: u64,
}

struct Wire {
    shared: Arc<Shared>,
    peers: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
    local: SocketAddr,
    beat: Handle,
    main: Handle,
    tasks: TaskTracker,
    /// Lives as long as the thread of the beat lane.
    beating: watch::Receiver<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}

impl Peers {
    /// Listens, and begins to connect to the nodes whose addresses are known.
    /// Beats run on a thread of their own, everything else on the runtime that
    /// this is called in.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub fn start(config: PeerConfig, handler: Arc<dyn Handler>) -> Result<Self, PeerError> {
        config.check()?;
        let shared = Arc::new(Shared::new(&config, handler)?);
        let refused = |source| PeerError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let local = listener.local_addr().map_err(refused)?;
        let (main, (beat, beating)) = (Handle::current(), start_beating(&shared)?);
        let doors = Doors::open(&shared, &beat, main.clone());
        beat.spawn(accept(listener, shared.clone(), doors));
        let tasks = TaskTracker::new();
        let wire = Wire { shared, peers: RwLock::default(), local, beat, main, tasks, beating };
        let peers = Self { wire: Arc::new(wire) };
        for (node, address) in config.addresses {
            peers.set_address(node, address);
        }
        Ok(peers)
    }

    /// Returns where this node listens.
    pub fn local_address(&self) -> SocketAddr {
        self.wire.local
    }

    /// Returns the link filter, for drills and tests.
    pub fn filter(&self) -> &LinkFilter {
        &self.wire.shared.filter
    }

    /// Takes note of a node's address, `host:port`: a node that was unknown is
    /// connected to from now on, one at another address is reconnected. This
    /// node's own is passed over.
    pub fn set_address(&self, node: NodeId, address: impl Into<String>) {
        let wire = &self.wire;
        let address = address.into();
        if node == wire.shared.identity.me.node {
            return;
        }
        let mut peers = wire.peers.write();
        if let Some(peer) = peers.get(&node) {
            peer.address.send_if_modified(|known| {
                let moved = *known != address;
                *known = address;
                moved
            });
            return;
        }
        let peer = Arc::new(Peer::new(node, address, wire.shared.closing.child_token()));
        for line in Line::ALL {
            let link = Link { shared: wire.shared.clone(), peer: peer.clone(), line };
            let runtime = if line == Line::Beat { &wire.beat } else { &wire.main };
            wire.tasks.spawn_on(link.keep(), runtime);
        }
        peers.insert(node, peer);
    }

    /// Ends the connections to a node; what it sends is still heard.
    pub fn forget(&self, node: NodeId) {
        if let Some(peer) = self.wire.peers.write().remove(&node) {
            peer.forgotten.cancel();
        }
    }

    /// Sends a message, in order with those before it on this lane. Never waits:
    /// what can't go is dropped and counted. What is taken may still be lost,
    /// with the connection.
    pub fn send(&self, to: NodeId, lane: Lane, bytes: Bytes) -> Result<(), Dropped> {
        self.peer(to).ok_or(Dropped::Unknown)?.send(&self.wire.shared, lane, bytes)
    }

    /// Asks a node, and waits for its answer for at most `within`. Which errors
    /// leave open whether it was executed, [`CallError::is_unexecuted`] says.
    pub async fn call(
        &self,
        to: NodeId,
        kind: &str,
        body: Bytes,
        within: Duration,
    ) -> Result<Bytes, CallError> {
        let bytes_max = self.wire.shared.limits.call_bytes_max;
        if body.len() > bytes_max {
            return Err(CallError::TooLong { bytes: body.len(), bytes_max });
        }
        let unreachable = |reason: &str| CallError::Unreachable(reason.to_owned());
        let peer = self.peer(to).ok_or_else(|| unreachable("the node has no address"))?;
        let due = Instant::now() + within;
        let connecting = |_| unreachable("still connecting");
        let client = timeout_at(due, peer.client()).await.map_err(connecting)??;
        let mut request = Request::new(Question { kind: kind.to_owned(), body });
        // Ours ends it; the other side's is for a cancellation that never arrives.
        request.set_timeout(within.saturating_add(CANCELLED_WITHIN));
        let filter = &self.wire.shared.filter;
        let asked = async {
            filter.pass_to(to).await;
            let mut client = client;
            let reply = client.call(request).await;
            if filter.swallows_from(to) {
                std::future::pending::<()>().await;
            }
            reply
        };
        let reply = timeout_at(due, asked).await.map_err(|_| CallError::Deadline(within))?;
        match reply.map_err(|status| call_error(&status))?.into_inner().outcome {
            Some(Outcome::Body(body)) => Ok(body),
            Some(Outcome::Failed(reason)) => Err(CallError::Failed(reason)),
            Some(Outcome::UnknownKind(kind)) => Err(CallError::UnknownKind(kind)),
            Some(Outcome::Refused(reason)) => Err(CallError::Refused(reason)),
            None => Err(CallError::Interrupted("an answer of a kind that this version does not know".into())),
        }
    }

    /// Returns how many bytes wait to go to a node in lanes.
    pub fn waiting_bytes(&self, to: NodeId) -> usize {
        self.peer(to).map_or(0, |peer| peer.waiting_bytes())
    }

    /// Returns what is known of the connections to each node with an address.
    pub fn status(&self) -> BTreeMap<NodeId, PeerStatus> {
        self.wire.peers.read().iter().map(|(node, peer)| (*node, peer.status())).collect()
    }

    /// Waits until the connections to a node are as wanted; false when it has
    /// no address, or is forgotten.
    pub async fn wait_for(&self, node: NodeId, wanted: impl FnMut(&PeerStatus) -> bool) -> bool {
        let Some(mut status) = self.peer(node).map(|peer| peer.status.subscribe()) else { return false };
        status.wait_for(wanted).await.is_ok()
    }

    /// Returns how much of its bounds on memory the wire uses now.
    pub fn usage(&self) -> Usage {
        let shared = &self.wire.shared;
        let used = |all: usize, free: usize| all.saturating_sub(free);
        let room_kib = shared.limits.assembling_bytes_max.div_ceil(1 << 10);
        Usage {
            assembling_bytes: used(room_kib, shared.room.available_permits()) << 10,
            connections: used(shared.limits.connections_max, shared.places.available_permits()),
            queue_bytes: self.wire.peers.read().values().map(|peer| peer.waiting_bytes()).sum(),
            frames_unknown: shared.frames_unknown.load(Ordering::Relaxed),
        }
    }

    /// Closes all connections and the port, and waits until they are closed.
    pub async fn close(&self) {
        let Wire { shared, tasks, beating, .. } = &*self.wire;
        shared.closing.cancel();
        tasks.close();
        // Ends with an error, when the thread drops its end.
        let _ = beating.clone().changed().await;
        tasks.wait().await;
        let places = u32::try_from(shared.limits.connections_max).unwrap_or(u32::MAX);
        let _ = shared.places.acquire_many(places).await;
    }

    fn peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        self.wire.peers.read().get(&node).cloned()
    }
}

/// Starts the thread of the beat lane. Not a task of the main runtime: a node
/// whose workers are busy for longer than the detector's patience would be
/// taken for dead, and take others for dead.
fn start_beating(shared: &Arc<Shared>) -> Result<(Handle, watch::Receiver<()>), PeerError> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(PeerError::Thread)?;
    let beat = runtime.handle().clone();
    let (alive, beating) = watch::channel(());
    let closing = shared.closing.clone();
    let run = move || {
        runtime.block_on(closing.cancelled());
        // Looking up a name may take long, and nobody waits for it any more.
        runtime.shutdown_background();
        drop(alive);
    };
    std::thread::Builder::new().name("sanso-beat".into()).spawn(run).map_err(PeerError::Thread)?;
    Ok((beat, beating))
}

/// What a status of gRPC says of a question that was sent.
fn call_error(status: &Status) -> CallError {
    match status.code() {
        Code::FailedPrecondition => CallError::Refused(status.message().to_owned()),
        _ => CallError::Interrupted(with_causes(status)),
    }
}
