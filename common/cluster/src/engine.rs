//! Drives the core of one node: a thread that steps it, and what others ask of it.
//!
//! ```text
//!   peers ─ message, broken ─┐                        ┌─▶ peers.send
//!   control ─ map, leads ────┼─▶ queue ─▶ Node::step ─┼─▶ control.propose
//!   layers ─ write ──────────┘      ▲                 └─▶ answer
//!                                 ticks
//!   readers ─▶ Node::read ─▶ the replica's view partitions, without the node's lock
//! ```
//!
//! What says who is there goes before all else in the queue, and while one step takes long another thread
//! beats in the core's stead ([`Pulse`]): a node that has much to do is not taken for one that is lost.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sanso_core::cluster::{
    Answer, Change, ClusterMap, Event, Instance, Message, Node, NodeConfig, NodeId, Output, Partition,
    Position, RequestId, Standing,
};
use sanso_core::{
    Begun, Encoded, Hosted, PartitionId, ReadReply, Readable, Staging, Written, finished, home_of,
};
use tokio::sync::{oneshot, watch};

use crate::figures::count_epochs;
use crate::pulse::Pulse;
use crate::wire::{Question, Reply};

/// Most events that wait for the node. What comes when it is full is lost, as on a network.
const EVENTS_MAX: usize = 8_192;

/// How long a step may take before its node counts as lost.
const BUSY_MAX: Duration = Duration::from_millis(500);

/// Who does what the node wants done beyond itself.
pub(crate) trait Outside: Send + Sync + 'static {
    /// Sends a message to a node; may lose it.
    fn send(&self, to: NodeId, message: Message<Hosted>);

    /// Proposes a change to control; may lose it.
    fn propose(&self, change: Change);
}

/// One life of a node in the cluster.
pub(crate) struct Engine {
    me: Instance,
    node: Mutex<Node<Hosted>>,
    /// None says that something urgent has come.
    events: SyncSender<Option<Event<Hosted>>>,
    /// What goes before all other events.
    urgent: Mutex<VecDeque<Event<Hosted>>>,
    pulse: Mutex<Pulse>,
    waiting: Mutex<HashMap<RequestId, oneshot::Sender<Answer<Written>>>>,
    /// Numbers for requests, and for blocks that are written in parts.
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
        let pulse = Pulse::new(config.detector.heartbeat_us, BUSY_MAX.as_micros() as u64);
        Self::start_with(pulse, me, config, outside)
    }

    fn start_with(
        pulse: Pulse,
        me: Instance,
        config: NodeConfig,
        outside: Arc<dyn Outside>,
    ) -> std::io::Result<Arc<Self>> {
        let (events, queue) = sync_channel(EVENTS_MAX);
        let node = Node::new(me, config, Hosted::default());
        let engine = Arc::new(Self {
            map: watch::Sender::new(Arc::clone(node.map())),
            me,
            node: Mutex::new(node),
            events,
            urgent: Mutex::default(),
            pulse: Mutex::new(pulse),
            waiting: Mutex::default(),
            requests: AtomicU64::new(1),
            started: Instant::now(),
            superseded: watch::Sender::new(false),
            stopped: AtomicBool::new(false),
        });
        let (weak, tick) = (Arc::downgrade(&engine), Duration::from_micros(config.detector.heartbeat_us));
        let (beating, through) = (Weak::clone(&weak), Arc::clone(&outside));
        let beat = move || {
            while let Some(engine) = beating.upgrade().filter(|engine| !engine.is_stopped()) {
                engine.beat(through.as_ref());
                drop(engine);
                std::thread::sleep(tick);
            }
        };
        std::thread::Builder::new().name("sanso-pulse".to_owned()).spawn(beat)?;
        let run = move || {
            let mut due = Instant::now();
            while let Some(engine) = weak.upgrade().filter(|engine| !engine.is_stopped()) {
                due = engine.turn(&queue, due, tick, outside.as_ref());
            }
        };
        std::thread::Builder::new().name("sanso-core".to_owned()).spawn(run)?;
        Ok(engine)
    }

    /// Takes what comes until the next tick, then ticks; returns when the one after is due.
    fn turn(
        &self,
        queue: &Receiver<Option<Event<Hosted>>>,
        due: Instant,
        tick: Duration,
        outside: &dyn Outside,
    ) -> Instant {
        loop {
            self.step_urgent(outside);
            let left = due.saturating_duration_since(Instant::now());
            match queue.recv_timeout(left) {
                Ok(event) => event.into_iter().for_each(|event| self.step(event, outside)),
                // Never disconnected while `self` is there.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
            // However much there is to do, time passes too.
            if left.is_zero() {
                break;
            }
        }
        self.step_urgent(outside);
        self.step(Event::Tick, outside);
        self.pulse.lock().ticked(self.now_us());
        // A tick that was missed is not made up for: it would say the same.
        (due + tick).max(Instant::now())
    }

    fn step_urgent(&self, outside: &dyn Outside) {
        // Not in one expression with the step: it would hold the lock.
        while let Some(event) = { self.urgent.lock().pop_front() } {
            self.step(event, outside);
        }
    }

    /// Beats in the stead of a core that is busy.
    fn beat(&self, outside: &dyn Outside) {
        let map = Arc::clone(&self.map.borrow());
        let others = map.members.keys().copied().filter(|node| *node != self.me.node);
        let beats = self.pulse.lock().beats(others, map.version, self.now_us());
        for (node, heartbeat) in beats {
            outside.send(node, Message::Heartbeat(heartbeat));
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn step(&self, event: Event<Hosted>, outside: &dyn Outside) {
        let mut node = self.node.lock();
        let outputs = node.step(event, self.now_us());
        if node.map().version != self.map.borrow().version {
            let before = self.map.send_replace(Arc::clone(node.map()));
            tell(&before, node.map());
            count_epochs(&before, node.map());
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

    /// Hands an event to the node; one that finds the queue full is lost. What says who is there goes
    /// before all else.
    pub(crate) fn happens(&self, event: Event<Hosted>) {
        let queued = match event {
            Event::Message(_, Message::Heartbeat(_) | Message::Map(_)) | Event::Broken(_) => {
                self.presses(event);
                return;
            }
            event => self.events.try_send(Some(event)),
        };
        match queued {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => lost(),
            Err(TrySendError::Disconnected(_)) => {}
        }
    }

    fn presses(&self, event: Event<Hosted>) {
        if let Event::Message(from, Message::Heartbeat(heartbeat)) = &event {
            self.pulse.lock().heard(*from, *heartbeat);
        }
        let mut urgent = self.urgent.lock();
        if urgent.len() == EVENTS_MAX {
            return lost();
        }
        urgent.push_back(event);
        drop(urgent);
        // Where the queue is full, nobody waits for it to be told.
        let _ = self.events.try_send(None);
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
        if self.events.try_send(Some(Event::Submit(partition, request, write))).is_err() {
            return Answer::Busy;
        }
        let answer = answered.await.unwrap_or(Answer::Unknown);
        drop(forget);
        answer
    }

    /// Names the writing of a block in parts.
    pub(crate) fn staging(&self) -> Staging {
        Staging { writer: self.me, number: self.requests.fetch_add(1, Ordering::Relaxed) }
    }

    /// Answers a question about a view partition from this node's replica, if it is in sync. None where that takes
    /// long.
    pub(crate) fn answer_now(
        &self,
        partition: Partition,
        id: PartitionId,
        question: &Question,
    ) -> Option<Reply> {
        let read = |begun: Begun<'_>| (!begun.takes_long()).then(|| finished(id, begun));
        self.answered(partition, id, question, read)
    }

    /// Answers a question, also one that takes long: for a thread that holds up nobody.
    pub(crate) fn answer(&self, partition: Partition, id: PartitionId, question: &Question) -> Reply {
        let answered = self.answered(partition, id, question, |begun| Some(finished(id, begun)));
        answered.expect("all is read")
    }

    fn answered(
        &self,
        partition: Partition,
        id: PartitionId,
        question: &Question,
        read: impl FnOnce(Begun<'_>) -> Option<Option<ReadReply>>,
    ) -> Option<Reply> {
        let Some((readable, fresh)) = self.readable(partition) else { return Some(Reply::NotInSync) };
        Some(match question {
            Question::Read(request) => {
                let Some(begun) = readable.begin(id, request) else { return Some(Reply::NotLive) };
                // Judged after the state was taken, never before.
                let fresh = fresh && self.node.lock().is_in_touch(self.now_us());
                // What can't be read here can be elsewhere.
                read(begun)?.map_or(Reply::NotInSync, |reply| Reply::Read(reply, fresh))
            }
            Question::Segment(segment) => {
                readable.segment(id, *segment).map_or(Reply::NotLive, Reply::Segment)
            }
        })
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

    /// Returns what this node holds as the primary.
    pub(crate) fn held_as_primary(&self) -> Vec<Readable> {
        let node = self.node.lock();
        let primaries = node.replicas().filter(|(_, replica)| replica.is_primary());
        primaries.map(|(_, replica)| replica.state().readable()).collect()
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

fn lost() {
    metrics::counter!("sanso_cluster_events_lost_total").increment(1);
}

/// Logs which nodes were lost or came back between two maps.
fn tell(before: &ClusterMap, after: &ClusterMap) {
    for (node, member) in &after.members {
        let known = before.members.get(node);
        match (known.map(|known| known.standing), member.standing) {
            (Some(Standing::Up) | None, Standing::Suspected) => {
                tracing::warn!(%node, map = after.version, "the node is silent: others take its part");
            }
            (Some(Standing::Suspected), Standing::Up) => {
                tracing::info!(%node, map = after.version, "the node answers again");
            }
            _ => {}
        }
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use sanso_core::cluster::{Heartbeat, Incarnation, Member};

    use super::*;

    /// Longer than any machine takes.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Stands still when the core sends something, and tells what others send.
    struct Still {
        entered: Sender<()>,
        go_on: Mutex<Receiver<()>>,
        sent: Sender<(NodeId, Message<Hosted>)>,
    }

    impl Outside for Still {
        fn send(&self, to: NodeId, message: Message<Hosted>) {
            if std::thread::current().name() == Some("sanso-core") {
                let _ = self.entered.send(());
                let _ = self.go_on.lock().recv();
            } else {
                let _ = self.sent.send((to, message));
            }
        }

        fn propose(&self, _change: Change) {}
    }

    fn life(node: u16) -> Instance {
        Instance { node: NodeId(node), incarnation: Incarnation(1) }
    }

    /// A map of two nodes.
    fn map(version: u64) -> Arc<ClusterMap> {
        let mut map = ClusterMap::new(1, 2);
        map.version = version;
        for node in [1, 2] {
            let Instance { node, incarnation } = life(node);
            map.members.insert(node, Member { incarnation, standing: Standing::Up, draining: false });
        }
        Arc::new(map)
    }

    #[test]
    fn a_busy_core_is_beaten_for_and_hears_of_members_however_much_waits_for_it() {
        let ((entered, is_in), (leave, go_on)) = (channel(), channel());
        let (sent, beats) = channel();
        let outside = Arc::new(Still { entered, go_on: Mutex::new(go_on), sent });
        let pulse = Pulse::new(20_000, u64::MAX);
        let engine = Engine::start_with(pulse, life(1), NodeConfig::default(), outside);
        let engine = engine.expect("start an engine");
        engine.happens(Event::Message(life(2), Message::Map(map(1))));
        is_in.recv_timeout(PATIENCE).expect("the core beats, and stands still");

        let heartbeat = Heartbeat { sent_us: 77, echo_us: 0, map_version: 1 };
        engine.happens(Event::Message(life(2), Message::Heartbeat(heartbeat)));
        let echoed = std::iter::from_fn(|| beats.recv_timeout(PATIENCE).ok()).any(|(to, message)| {
            to == NodeId(2) && matches!(message, Message::Heartbeat(beat) if beat.echo_us == 77)
        });
        assert!(echoed, "the pulse echoes in the core's stead");

        while engine.events.try_send(Some(Event::Leads(false))).is_ok() {}
        engine.happens(Event::Message(life(2), Message::Map(map(2))));
        drop(leave);
        let mut maps = engine.maps();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let known = runtime.block_on(async {
            tokio::time::timeout(PATIENCE, maps.wait_for(|map| map.version == 2)).await.is_ok()
        });
        assert!(known, "a map is never crowded out");
        engine.stop();
    }
}
