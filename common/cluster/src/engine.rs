//! Drives the core of one node: a thread that steps it, and what others ask of it.
//!
//! ```text
//!   peers ─ message, broken ─┐                        ┌─▶ peers.send
//!   control ─ map, leads ────┼─▶ queue ─▶ Node::step ─┼─▶ control.propose
//!   layers ─ write ──────────┘      ▲                 └─▶ answer
//!                                 ticks
//!   readers ─▶ Node::read ─▶ the replica's view partitions, without the node's lock
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sanso_core::cluster::{
    Answer, Change, ClusterMap, Event, Instance, Message, Node, NodeConfig, NodeId, Output, Partition,
    Position, RequestId,
};
use sanso_core::{Encoded, Hosted, PartitionId, Readable, Written, home_of};
use tokio::sync::{oneshot, watch};

use crate::wire::{Question, Reply};

/// Most events that wait for the node. What comes when it is full is lost, as on a network.
const EVENTS_MAX: usize = 8_192;

/// Who does what the node wants done beyond itself.
pub(crate) trait Outside: Send + Sync + 'static {
    /// Sends a message to a node; may lose it.
    fn send(&self, to: NodeId, message: Message<Hosted>);

    /// Proposes a change to control; may lose it.
    fn propose(&self, change: Change);
}

/// One life of a node in the cluster.
pub(crate) struct Engine {
    node: Mutex<Node<Hosted>>,
    events: SyncSender<Event<Hosted>>,
    waiting: Mutex<HashMap<RequestId, oneshot::Sender<Answer<Written>>>>,
    requests: AtomicU64,
    started: Instant,
    map: watch::Sender<Arc<ClusterMap>>,
    /// Whether this life is over for the cluster.
    superseded: watch::Sender<bool>,
    stopped: AtomicBool,
}

impl Engine {
    /// Starts a life of a node. `outside` is told what the node wants.
    pub(crate) fn start(
        me: Instance,
        config: NodeConfig,
        outside: Arc<dyn Outside>,
    ) -> std::io::Result<Arc<Self>> {
        let (events, queue) = sync_channel(EVENTS_MAX);
        let node = Node::new(me, config, Hosted::default());
        let engine = Arc::new(Self {
            map: watch::Sender::new(Arc::clone(node.map())),
            node: Mutex::new(node),
            events,
            waiting: Mutex::default(),
            requests: AtomicU64::new(1),
            started: Instant::now(),
            superseded: watch::Sender::new(false),
            stopped: AtomicBool::new(false),
        });
        let (weak, tick) = (Arc::downgrade(&engine), Duration::from_micros(config.detector.heartbeat_us));
        let run = move || {
            let mut due = Instant::now();
            while let Some(engine) = weak.upgrade().filter(|engine| !engine.stopped.load(Ordering::Relaxed)) {
                due = engine.turn(&queue, due, tick, outside.as_ref());
            }
        };
        std::thread::Builder::new().name("sanso-core".to_owned()).spawn(run)?;
        Ok(engine)
    }

    /// Takes what comes until the next tick, then ticks; returns when the one after is due.
    fn turn(
        &self,
        queue: &Receiver<Event<Hosted>>,
        due: Instant,
        tick: Duration,
        outside: &dyn Outside,
    ) -> Instant {
        loop {
            let left = due.saturating_duration_since(Instant::now());
            match queue.recv_timeout(left) {
                Ok(event) if !left.is_zero() => self.step(event, outside),
                Ok(event) => {
                    // However much there is to do, time passes too.
                    self.step(event, outside);
                    break;
                }
                Err(RecvTimeoutError::Timeout) => break,
                // Not while `self` is there.
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.step(Event::Tick, outside);
        // A tick that was missed is not made up for: it would say the same.
        (due + tick).max(Instant::now())
    }

    fn step(&self, event: Event<Hosted>, outside: &dyn Outside) {
        let mut node = self.node.lock();
        let outputs = node.step(event, self.now_us());
        if node.map().version != self.map.borrow().version {
            self.map.send_replace(Arc::clone(node.map()));
        }
        drop(node);
        for output in outputs {
            match output {
                Output::Send(to, message) => outside.send(to, message),
                Output::Propose(change) => outside.propose(change),
                Output::Answer(request, answer) => {
                    if let Some(waits) = self.waiting.lock().remove(&request) {
                        // An error only says that nobody waits any longer.
                        let _ = waits.send(answer);
                    }
                }
                Output::Superseded => _ = self.superseded.send_replace(true),
            }
        }
    }

    fn now_us(&self) -> u64 {
        // Not 0, which stands for never.
        self.started.elapsed().as_micros() as u64 + 1
    }

    /// Hands an event to the node; one that finds the queue full is lost.
    pub(crate) fn happens(&self, event: Event<Hosted>) {
        match self.events.try_send(event) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => metrics::counter!("sanso_cluster_events_lost_total").increment(1),
            Err(TrySendError::Disconnected(_)) => {}
        }
    }

    /// Hands a map to the node, however much there is to do.
    pub(crate) fn knows(&self, map: Arc<ClusterMap>, outside: &dyn Outside) {
        self.step(Event::Map(map), outside);
    }

    /// Says whether this node leads control.
    pub(crate) fn leads(&self, leads: bool, outside: &dyn Outside) {
        self.step(Event::Leads(leads), outside);
    }

    /// Writes to a partition that this node is the primary of.
    pub(crate) async fn submit(&self, partition: Partition, write: Encoded) -> Answer<Written> {
        let request = RequestId(self.requests.fetch_add(1, Ordering::Relaxed));
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().insert(request, answer);
        let forget = Forget { engine: self, request };
        if self.events.try_send(Event::Submit(partition, request, write)).is_err() {
            return Answer::Busy;
        }
        let answer = answered.await.unwrap_or(Answer::Unknown);
        drop(forget);
        answer
    }

    /// Answers a question about a view partition from this node's replica, if it is in sync.
    pub(crate) fn answer(&self, partition: Partition, id: PartitionId, question: &Question) -> Reply {
        let Some((readable, fresh)) = self.readable(partition) else { return Reply::NotInSync };
        match question {
            Question::Read(request) => match readable.read(id, request) {
                Some(reply) => {
                    // Judged after the state was taken, never before.
                    let fresh = fresh && self.node.lock().is_in_touch(self.now_us());
                    Reply::Read(reply, fresh)
                }
                None => Reply::NotLive,
            },
            Question::Segment(segment) => {
                readable.segment(id, *segment).map_or(Reply::NotLive, Reply::Segment)
            }
        }
    }

    /// Returns what this node's replica of a partition shows, when it is in sync, and whether that
    /// is all that was acknowledged.
    pub(crate) fn readable(&self, partition: Partition) -> Option<(Readable, bool)> {
        let mut node = self.node.lock();
        let now_us = self.now_us();
        let shown = node.read(partition, Position::default(), now_us).ok()?;
        Some((shown.state.readable(), shown.fresh))
    }

    /// Returns what each replica of this node holds, in sync or not.
    pub(crate) fn held(&self) -> Vec<(Partition, Readable)> {
        let node = self.node.lock();
        node.replicas().map(|(partition, replica)| (partition, replica.state().readable())).collect()
    }

    /// Returns which partition holds a view partition, by the newest map.
    pub(crate) fn home_of(&self, id: PartitionId) -> Partition {
        home_of(id, self.map.borrow().partitions.len() as u32)
    }

    /// Returns whom to ask in the stead of a node that this one doesn't hear; see [`Node::detour`].
    pub(crate) fn detour(&self, to: Instance, turn: usize) -> Option<NodeId> {
        self.with(|node, now_us| node.detour(to, turn, now_us))
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Looks at the node.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&Node<Hosted>, u64) -> T) -> T {
        look(&self.node.lock(), self.now_us())
    }

    /// Follows the newest map that the node has.
    pub(crate) fn maps(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.map.subscribe()
    }

    /// Becomes true when the cluster has declared this life to be over.
    pub(crate) fn superseded(&self) -> watch::Receiver<bool> {
        self.superseded.subscribe()
    }
}

/// Forgets a request that nobody waits for any longer.
struct Forget<'a> {
    engine: &'a Engine,
    request: RequestId,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.engine.waiting.lock().remove(&self.request);
    }
}
