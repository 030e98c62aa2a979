//! Where a node's parts meet: what comes in goes to the engine or to control, what they want done
//! goes out.

mod states;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use sanso_control::{Change, Control, ControlError, KINDS, Proposer, Transport, TransportError};
use sanso_core::cluster::{
    ClusterMap, Event, HedgeConfig, Hedger, Message, NodeId, Partition, Refused, Replication,
};
use sanso_core::{Hosted, PartitionId};
use sanso_peer::{CallError, Handler, Lane, Peers, Refusal, Speaker};
use sanso_state::{AggregateKind, Fingerprint};
use tokio::sync::Semaphore;

use self::states::States;
use crate::engine::{Engine, Outside};
use crate::questions::Answering;
use crate::relay::RELAY;
use crate::voters::ControlPart;
use crate::wire::{self, Heard, Question, ReadAnswer, ReadCall, Reply, SubmitAnswer, SubmitCall};

/// The kinds of calls between nodes, beside those of control.
pub(crate) const SUBMIT: &str = "core.submit";
pub(crate) const READ: &str = "core.read";
pub(crate) const MAP: &str = "core.map";
pub(crate) const PART: &str = "core.control";

/// Tells the aggregates of a view version that this node has declared.
pub type KindsOf = Arc<dyn Fn(Fingerprint) -> Option<Arc<[AggregateKind]>> + Send + Sync>;

/// What is longer is encoded and decoded where it holds nobody up.
const LARGE_BYTES: usize = 1 << 20;
/// About what a group takes when it is sent.
pub(crate) const GROUP_BYTES: usize = 64;
/// Reads of this node's disks at a time.
const DISK_READS_MAX: usize = 64;
/// Messages that wait for the courier.
const COURIER_MAX: usize = 8_192;

/// Does what takes time for so many bytes; long work makes room for other tasks first.
pub(crate) fn at_length<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    making_room(bytes > LARGE_BYTES, work)
}

/// Does what may take long after making room for other tasks.
pub(crate) fn making_room<T>(takes_long: bool, work: impl FnOnce() -> T) -> T {
    if takes_long { tokio::task::block_in_place(work) } else { work() }
}

/// A node's parts. They know each other through it, so they are put in one after the other.
pub(crate) struct Hub {
    pub(crate) me: NodeId,
    /// Whether there is no other node, and never will be.
    pub(crate) is_alone: bool,
    pub(crate) engine: OnceLock<Arc<Engine>>,
    pub(crate) peers: OnceLock<Peers>,
    /// Control, while this node may take part in it.
    control: RwLock<Option<Arc<Control>>>,
    /// Speaks to control through others.
    proposer: OnceLock<Proposer>,
    /// Whether control knew nothing when it was opened.
    pub(crate) is_new: AtomicBool,
    /// Whether this node votes in control and has lost its folder.
    pub(crate) forgotten: AtomicBool,
    pub(crate) hedger: Mutex<Hedger>,
    /// Until when no other replica is asked for a better answer than this node's own.
    pub(crate) alone_until_us: AtomicU64,
    pub(crate) kinds_of: KindsOf,
    /// Who answers the layers' questions.
    pub(crate) answering: Answering,
    /// Proposals under way: the core repeats what it wants until the map shows it.
    proposing: Mutex<Vec<Change>>,
    /// Takes messages between replicas, which may be long, to be encoded and sent in their order by a
    /// thread of its own: heartbeats must not wait for them.
    courier: SyncSender<(NodeId, Message<Hosted>)>,
    states: States,
    disk_reads: Arc<Semaphore>,
    runtime: tokio::runtime::Handle,
    /// This hub, for what goes on in the background.
    own: Weak<Hub>,
}

impl Hub {
    /// Creates the hub of a node whose parts are to come. Call within a tokio runtime.
    pub(crate) fn new(me: NodeId, is_alone: bool, kinds_of: KindsOf) -> std::io::Result<Arc<Self>> {
        let hedger = Hedger::new(HedgeConfig::default(), None);
        let (courier, post) = sync_channel::<(NodeId, Message<Hosted>)>(COURIER_MAX);
        let hub = Arc::new_cyclic(|own: &Weak<Hub>| Self {
            me,
            is_alone,
            engine: OnceLock::new(),
            peers: OnceLock::new(),
            control: RwLock::default(),
            proposer: OnceLock::new(),
            is_new: AtomicBool::new(false),
            forgotten: AtomicBool::new(false),
            hedger: Mutex::new(hedger),
            alone_until_us: AtomicU64::new(0),
            kinds_of,
            answering: Answering::default(),
            proposing: Mutex::default(),
            courier,
            states: States::default(),
            disk_reads: Arc::new(Semaphore::new(DISK_READS_MAX)),
            runtime: tokio::runtime::Handle::current(),
            own: own.clone(),
        });
        let own = Arc::downgrade(&hub);
        std::thread::Builder::new().name("sanso-courier".to_owned()).spawn(move || {
            while let Ok((to, message)) = post.recv() {
                let Some(hub) = own.upgrade() else { return };
                hub.put(to, Lane::Data, message);
            }
        })?;
        Ok(hub)
    }

    /// Returns control, if this node takes part in it.
    pub(crate) fn control(&self) -> Option<Arc<Control>> {
        self.control.read().clone()
    }

    /// Takes part in control from now on, or (none) no longer.
    pub(crate) fn set_control(&self, control: Option<Arc<Control>>) -> Option<Arc<Control>> {
        std::mem::replace(&mut *self.control.write(), control)
    }

    /// Returns who speaks to control for a node that does not vote; from the start on.
    pub(crate) fn proposer(&self) -> Option<&Proposer> {
        self.proposer.get()
    }

    /// Speaks to control through others, once its own is open: what it knew is shown from now on.
    pub(crate) fn set_proposer(&self, proposer: Proposer) {
        let _ = self.proposer.set(proposer);
    }

    /// Proposes a change of the map, as a voter or through one.
    pub(crate) async fn agree(&self, change: Change) -> Result<Result<u64, Refused>, ControlError> {
        if let Some(control) = self.control().filter(|control| self.votes(control)) {
            match control.propose(change.clone()).await {
                Err(ControlError::NoLeader | ControlError::Stopped(_)) => {}
                done => return done,
            }
        }
        self.proposer().ok_or(ControlError::NoLeader)?.propose(change).await
    }

    /// Says whether this node votes. One that was taken out may not have heard so from control.
    fn votes(&self, control: &Control) -> bool {
        let map = self.engine().map(|engine| engine.maps().borrow().clone());
        let is_out = map.is_some_and(|map| !map.voters.is_empty() && !map.voters.contains(&self.me));
        let status = control.status().borrow().clone();
        status.leader == Some(self.me) || (status.voters.contains(&self.me) && !is_out)
    }

    /// Returns the newest map that this node has; the first one, of no members, only if it is certain
    /// that this node was told of no other.
    fn known_map(&self) -> Option<Arc<ClusterMap>> {
        let map = self.engine()?.maps().borrow().clone();
        (map.version > 0 || self.is_new.load(Ordering::Relaxed)).then_some(map)
    }

    /// Says how this node takes part in control.
    pub(crate) fn part(&self) -> ControlPart {
        let part = self.control().map(|control| ControlPart::of(&control.status().borrow()));
        ControlPart { forgotten: self.forgotten.load(Ordering::Relaxed), ..part.unwrap_or_default() }
    }

    pub(crate) fn engine(&self) -> Option<&Arc<Engine>> {
        self.engine.get()
    }

    /// Calls another node.
    pub(crate) async fn ask(
        &self,
        to: NodeId,
        kind: &'static str,
        body: Vec<u8>,
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        let peers = self.peers.get().ok_or_else(|| CallError::Unreachable("this node starts".to_owned()))?;
        peers.call(to, kind, body.into(), deadline).await
    }

    /// Sends a map to all its members; those who miss it are told when their heartbeats show it.
    pub(crate) fn tell_all(&self, map: &Arc<ClusterMap>) {
        for node in map.members.keys().filter(|node| **node != self.me) {
            self.send(*node, Message::Map(Arc::clone(map)));
        }
    }

    pub(crate) async fn submitted(&self, body: &[u8]) -> Result<SubmitAnswer, Refusal> {
        let SubmitCall { partition, write } =
            at_length(body.len(), || wire::decode(body)).map_err(refused)?;
        let write = at_length(write.len(), || wire::encoded(write.into_vec().into())).map_err(refused)?;
        let Some(engine) = self.engine() else { return Ok(SubmitAnswer::NotPrimary) };
        Ok(engine.submit(partition, write).await.into())
    }

    /// Answers a question from this node's disks, or about very much, on a thread of its own. There are few of them, so
    /// that a disk that hangs stops nothing else.
    pub(crate) async fn answer_apart(
        &self,
        engine: &Arc<Engine>,
        partition: Partition,
        id: PartitionId,
        question: Arc<Question>,
    ) -> Reply {
        let (turn, engine) = (Arc::clone(&self.disk_reads).acquire_owned().await, Arc::clone(engine));
        let answer = move || {
            let _turn = turn;
            engine.answer(partition, id, &question)
        };
        tokio::task::spawn_blocking(answer).await.unwrap_or(Reply::NotInSync)
    }

    /// Answers a read from this node's replica.
    pub(crate) async fn read(&self, body: &[u8]) -> Result<ReadAnswer, Refusal> {
        let call: ReadCall = wire::decode(body).map_err(refused)?;
        let (id, question) = call.question();
        let Some(engine) = self.engine() else { return Ok(ReadAnswer::NotInSync) };
        let partition = engine.home_of(id);
        let kinds = engine.readable(partition).and_then(|(readable, _)| readable.config(id));
        let Some(config) = kinds else {
            let in_sync = engine.readable(partition).is_some();
            return Ok(if in_sync { ReadAnswer::NotLive } else { ReadAnswer::NotInSync });
        };
        let reply = match engine.answer_now(partition, id, &question) {
            Some(reply) => reply,
            None => self.answer_apart(engine, partition, id, Arc::new(question)).await,
        };
        let groups = if let Reply::Read(reply, _) = &reply { reply.groups.len() } else { 0 };
        Ok(at_length(groups * GROUP_BYTES, || ReadAnswer::of(&config.kinds, reply)))
    }
}

pub(crate) fn refused(error: wire::WireError) -> Refusal {
    Refusal::Failed(error.to_string())
}

impl Outside for Hub {
    fn send(&self, to: NodeId, message: Message<Hosted>) {
        match message {
            Message::Heartbeat(_) | Message::Map(_) => self.put(to, Lane::Beat, message),
            Message::Replication { message: Replication::Snapshot { .. }, .. } => {
                self.send_state(to, message)
            }
            // What is not taken is sent again by the core.
            Message::Replication { .. } => _ = self.courier.try_send((to, message)),
        }
    }

    fn propose(&self, change: Change) {
        let mut proposing = self.proposing.lock();
        if proposing.contains(&change) {
            return;
        }
        proposing.push(change.clone());
        let Some(hub) = self.own.upgrade() else { return };
        self.runtime.spawn(async move {
            let proposed = hub.agree(change.clone()).await;
            tracing::debug!(?change, ?proposed, "proposed");
            if matches!(change, Change::Join(_)) && matches!(proposed, Ok(Ok(_))) {
                hub.fetch_map().await;
            }
            hub.proposing.lock().retain(|held| *held != change);
        });
    }
}

impl Hub {
    fn put(&self, to: NodeId, lane: Lane, message: Message<Hosted>) {
        if let Some(peers) = self.peers.get()
            && let Some(bytes) = encoded(to, message)
        {
            let _ = peers.send(to, lane, bytes.into());
        }
    }

    /// Asks the other nodes for their map; for one that has just joined, whom nobody may know yet.
    async fn fetch_map(&self) {
        let (Some(peers), Some(engine)) = (self.peers.get(), self.engine()) else { return };
        for node in peers.status().into_keys() {
            let answer = self.ask(node, MAP, Vec::new(), Duration::from_millis(200)).await;
            if let Ok(map) = answer
                .map_err(|error| error.to_string())
                .and_then(|bytes| wire::decode::<ClusterMap>(&bytes).map_err(|error| error.to_string()))
            {
                engine.knows(Arc::new(map), self);
            }
        }
    }
}

#[async_trait]
impl Handler for Hub {
    fn message(&self, from: Speaker, _lane: Lane, bytes: Bytes) {
        let Some(engine) = self.engine() else { return };
        match at_length(bytes.len(), || wire::heard(&bytes)) {
            Ok(Heard::Message(message)) => engine.happens(Event::Message(from.instance, message)),
            Ok(Heard::Piece(piece)) => self.take_piece(from.instance, piece),
            Err(error) => {
                metrics::counter!("sanso_cluster_messages_unknown_total").increment(1);
                tracing::debug!(from = %from.instance, %error, "a message is dropped");
            }
        }
    }

    fn broken(&self, node: NodeId) {
        if let Some(engine) = self.engine() {
            engine.happens(Event::Broken(node));
        }
        self.forget_states_of(node);
        let Some(control) = self.control().filter(|control| self.votes(control)) else { return };
        self.runtime.spawn(async move {
            if let Err(error) = control.succeed(node).await {
                tracing::debug!(%error, %node, "succeed a leader that is gone");
            }
        });
    }

    async fn call(&self, from: Speaker, kind: &str, body: Bytes) -> Result<Bytes, Refusal> {
        match kind {
            SUBMIT => Ok(wire::encode(&self.submitted(&body).await?).into()),
            RELAY => Ok(wire::encode(&self.relayed(body).await?).into()),
            READ => Ok(wire::encode(&self.read(&body).await?).into()),
            MAP => match self.known_map() {
                Some(map) => Ok(wire::encode(&*map).into()),
                None => Err(Refusal::Failed("this node starts".to_owned())),
            },
            PART => Ok(wire::encode(&self.part()).into()),
            kind if KINDS.contains(&kind) => match self.control() {
                Some(control) => {
                    let answer = control.handle(kind, &body).await;
                    answer.map(Bytes::from).map_err(|error| Refusal::Failed(error.to_string()))
                }
                // It starts, or has forgotten that it votes.
                None => Err(Refusal::UnknownKind),
            },
            kind => self.answered(from.instance.node, kind, body).await,
        }
    }
}

#[async_trait]
impl Transport for Hub {
    async fn call(
        &self,
        to: NodeId,
        kind: &'static str,
        body: Vec<u8>,
        deadline: Duration,
    ) -> Result<Vec<u8>, TransportError> {
        self.ask(to, kind, body, deadline).await.map(|bytes| bytes.to_vec()).map_err(|error| match error {
            CallError::Deadline(_) | CallError::Interrupted(_) => TransportError::Unanswered,
            CallError::Failed(reason) => TransportError::Failed(reason),
            unexecuted => TransportError::Unreachable(unexecuted.to_string()),
        })
    }
}

/// Encodes a message; one that can't be read is told, and not sent.
fn encoded(to: NodeId, message: Message<Hosted>) -> Option<Vec<u8>> {
    let encoded = wire::message(message);
    encoded.inspect_err(|error| tracing::error!(%to, %error, "a replica's state can't be sent")).ok()
}

/// Does what takes long and nobody waits for on a thread of its own, behind all others; none when there can
/// be no thread.
async fn in_background<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, result) = tokio::sync::oneshot::channel();
    let run = move || {
        sanso_core::run_in_background();
        // An error only says that nobody waits any longer.
        let _ = done.send(work());
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(run).ok()?;
    result.await.ok()
}

/// Says what a reply is worth to a reader.
pub(crate) fn is_good(reply: &Reply) -> bool {
    matches!(reply, Reply::Read(_, true) | Reply::Segment(_) | Reply::NotLive)
}
