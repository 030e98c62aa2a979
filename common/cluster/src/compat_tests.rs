//! A rolling restart from the previous version of the wire to this one and back, under load.
//!
//! So that it is seen what a later version may do, this one says one field more in all that it says here, tells
//! rumours (a kind of message), and answers riddles (a kind of call). The previous one sends states as a whole, and is sent
//! them so; between two of this version they travel in pieces.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use sanso_core::cluster::{Change, Message, NodeId, Replication};
use sanso_core::{Hosted, PartitionStore};
use sanso_peer::{CallError, Handler, Lane, Refusal, Speaker};
use sanso_state::{Block, Entry, Outcome};
use tokio::sync::watch;

use crate::engine::Outside;
use crate::hub::Hub;
use crate::start::{ClusterNode, Faces};
use crate::wire::{self, Heard};
use crate::world::{self, World, delta, id, rows, shows, view};

const PREVIOUS: RangeInclusive<u32> = 1..=1;
const NEXT: RangeInclusive<u32> = 1..=2;
const RIDDLE: &str = "core.riddle";
/// `{"Rumour": {"about": 7}}`
const RUMOUR: &[u8] = b"\x81\xa6Rumour\x81\xa5about\x07";

/// What nodes have heard.
#[derive(Default)]
struct Ears {
    rumours: AtomicU64,
    /// States that came to nodes of the previous version, and to those of the next: whole ones, and pieces.
    states: [(AtomicU64, AtomicU64); 2],
}

impl Ears {
    fn hear(&self, is_next: bool, lane: Lane, bytes: &[u8]) {
        let (whole, pieces) = &self.states[usize::from(is_next)];
        match wire::heard(bytes) {
            Ok(Heard::Piece(_)) => _ = pieces.fetch_add(1, Ordering::Relaxed),
            Ok(Heard::Message(Message::Replication { message: Replication::Snapshot { .. }, .. })) => {
                assert_eq!(lane, Lane::Data);
                whole.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    /// Returns how many came whole, and how many pieces.
    fn states(&self, is_next: bool) -> (u64, u64) {
        let (whole, pieces) = &self.states[usize::from(is_next)];
        (whole.load(Ordering::Relaxed), pieces.load(Ordering::Relaxed))
    }
}

/// A node of the previous version, as the others see it.
struct Previous {
    hub: Arc<Hub>,
    ears: Arc<Ears>,
}

#[async_trait]
impl Handler for Previous {
    fn message(&self, from: Speaker, lane: Lane, bytes: Bytes) {
        self.ears.hear(false, lane, &bytes);
        Handler::message(&*self.hub, from, lane, bytes);
    }

    fn broken(&self, node: NodeId) {
        Handler::broken(&*self.hub, node);
    }

    async fn call(&self, from: Speaker, kind: &str, body: Bytes) -> Result<Bytes, Refusal> {
        Handler::call(&*self.hub, from, kind, body).await
    }
}

/// A node of the next version, as the others see it.
struct Next {
    hub: Arc<Hub>,
    ears: Arc<Ears>,
}

/// Adds a field to the last map of a document, which is `depth` maps of one field below the first.
fn with_field(mut bytes: Vec<u8>, depth: usize) -> Vec<u8> {
    let mut at = 0;
    for _ in 0..depth {
        match (bytes.first(), bytes.get(at + 1)) {
            (Some(0x81), Some(name @ 0xa0..=0xbf)) => at += 2 + usize::from(name & 0x1f),
            // A variant without fields.
            _ => return bytes,
        }
    }
    if let Some(count @ 0x80..=0x8e) = bytes.get_mut(at) {
        *count += 1;
        bytes.extend(b"\xa4mood\xa5sunny");
    }
    bytes
}

impl Outside for Next {
    fn send(&self, to: NodeId, message: Message<Hosted>) {
        let Some(peers) = self.hub.peers.get() else { return };
        let lane = match message {
            Message::Replication { message: Replication::Snapshot { .. }, .. } => {
                return self.hub.send(to, message);
            }
            Message::Replication { .. } => Lane::Data,
            Message::Heartbeat(_) | Message::Map(_) => Lane::Beat,
        };
        for bytes in [RUMOUR.to_vec(), with_field(wire::message(message).expect("all is in memory"), 1)] {
            let _ = peers.send(to, lane, bytes.into());
        }
    }

    fn propose(&self, change: Change) {
        self.hub.propose(change);
    }
}

#[async_trait]
impl Handler for Next {
    fn message(&self, from: Speaker, lane: Lane, bytes: Bytes) {
        if bytes == RUMOUR {
            assert_eq!(from.version, 2, "only the next version tells rumours");
            self.ears.rumours.fetch_add(1, Ordering::Relaxed);
        } else {
            self.ears.hear(true, lane, &bytes);
            Handler::message(&*self.hub, from, lane, bytes);
        }
    }

    fn broken(&self, node: NodeId) {
        Handler::broken(&*self.hub, node);
    }

    async fn call(&self, from: Speaker, kind: &str, body: Bytes) -> Result<Bytes, Refusal> {
        if kind == RIDDLE {
            return Ok(Bytes::from_static(b"a towel"));
        }
        let answer = Handler::call(&*self.hub, from, kind, body).await?.to_vec();
        // Answers of control begin with their form; those of the core with their kind.
        Ok(with_field(answer, usize::from(!kind.starts_with("control."))).into())
    }
}

/// Counts what this process has passed over.
struct Passed(Arc<AtomicU64>);

impl Recorder for Passed {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match key.name() {
            "sanso_cluster_messages_unknown_total" => Counter::from_arc(Arc::clone(&self.0)),
            _ => Counter::noop(),
        }
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// How long a client may find nobody who answers, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(20);

/// Nodes that clients are sent to.
type Open = watch::Receiver<BTreeMap<u16, PartitionStore>>;

/// Returns the node that is asked for the `turn`th time.
fn choose(open: &Open, turn: usize) -> PartitionStore {
    let open = open.borrow();
    open.values().nth(turn % open.len()).expect("two are open at any time").clone()
}

/// Clients that write and read until they are told to stop, through all open nodes in turn.
#[derive(Clone)]
struct Load {
    open: Open,
    /// The readings sent to each view partition.
    sent: Arc<[AtomicU64; 4]>,
    /// Answers to writes, and to reads.
    answers: Arc<[AtomicU64; 2]>,
    stop: Arc<AtomicBool>,
}

impl Load {
    /// Writes one reading after the other; returns how many each view partition has.
    async fn write(self) -> [u64; 4] {
        let mut applied = [0; 4];
        let mut pace = tokio::time::interval(Duration::from_millis(1));
        let (mut turn, mut answered_at) = (0, Instant::now());
        while !self.stop.load(Ordering::Relaxed) {
            pace.tick().await;
            let (index, store) = (turn % 4, choose(&self.open, turn));
            turn += 1;
            let from = applied[index];
            self.sent[index].store(from + 1, Ordering::SeqCst);
            match store.submit(id(index as u32), Entry::Delta(delta(from, from + 1))).await {
                Ok(Outcome::Accepted { applied: now } | Outcome::Refused { applied: now, .. }) => {
                    assert!(now == from || now == from + 1, "{now} readings are applied of {}", from + 1);
                    applied[index] = now;
                    answered_at = Instant::now();
                    self.answers[0].fetch_add(1, Ordering::Relaxed);
                }
                Ok(other) => panic!("{other:?}"),
                Err(error) => assert!(answered_at.elapsed() < PATIENCE, "nobody takes it: {error}"),
            }
        }
        applied
    }

    /// Reads: whatever the replica, all that was applied and nothing else.
    async fn read(self) {
        let mut pace = tokio::time::interval(Duration::from_millis(1));
        let (mut turn, mut answered_at) = (0, Instant::now());
        while !self.stop.load(Ordering::Relaxed) {
            pace.tick().await;
            let (index, store) = (turn % 4, choose(&self.open, turn / 4));
            turn += 1;
            match rows(&store, index as u32).await {
                Ok((applied, rows)) => {
                    let sent = self.sent[index].load(Ordering::SeqCst);
                    assert!(rows as u64 == applied && applied <= sent, "{rows} of {applied}, {sent} sent");
                    answered_at = Instant::now();
                    self.answers[1].fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => assert!(answered_at.elapsed() < PATIENCE, "nobody answers: {error}"),
            }
        }
    }

    /// Waits until both were answered so often again.
    async fn goes_on(&self, times: u64) {
        let counts = || [0, 1].map(|at: usize| self.answers[at].load(Ordering::Relaxed));
        let (before, began) = (counts(), Instant::now());
        while counts().iter().zip(before).any(|(now, before)| *now < before + times) {
            assert!(
                began.elapsed() < PATIENCE,
                "answers to writes and reads: {before:?}, then {:?}",
                counts()
            );
            tokio::time::sleep(world::LOOK).await;
        }
    }
}

async fn start(world: &World, node: u16, versions: &RangeInclusive<u32>, ears: &Arc<Ears>) -> ClusterNode {
    let mut config = world.config(node);
    config.versions = versions.clone();
    // So that who was away is sent the state.
    config.core.replica.kept_max = 4;
    let (ears, is_next) = (Arc::clone(ears), *versions == NEXT);
    let faces = |hub: &Arc<Hub>| {
        let hub = Arc::clone(hub);
        if is_next {
            let next = Arc::new(Next { hub, ears });
            Faces { outside: Arc::clone(&next) as _, handler: next as _ }
        } else {
            Faces { outside: Arc::clone(&hub) as _, handler: Arc::new(Previous { hub, ears }) as _ }
        }
    };
    ClusterNode::start_behind(config, world::kinds_of(), faces).await.expect("it starts")
}

/// Looks at each pair of nodes: what they have agreed to speak, and what one answers to a question of
/// the next version.
async fn look(nodes: &BTreeMap<u16, (ClusterNode, RangeInclusive<u32>)>) {
    for (one, (from, mine)) in nodes {
        for (other, (_, theirs)) in nodes.iter().filter(|(other, _)| *other != one) {
            let newest = *mine.end().min(theirs.end());
            let peers = from.hub.peers.get().expect("it has started");
            let agreed = peers
                .wait_for(NodeId(*other), |status| status.is_connected() && status.version == Some(newest));
            let agreed = tokio::time::timeout(PATIENCE, agreed).await;
            assert_eq!(agreed, Ok(true), "{one} and {other}: {:?}", peers.status());
            let answer = from.hub.ask(NodeId(*other), RIDDLE, Vec::new(), PATIENCE).await;
            match (answer, *theirs == NEXT) {
                (Ok(answer), true) => assert_eq!(answer, "a towel"),
                (Err(CallError::UnknownKind(kind)), false) => assert_eq!(kind, RIDDLE),
                (answer, _) => panic!("{one} asks {other}, which speaks {theirs:?}: {answer:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_neighbouring_versions_take_each_other_over_under_load() {
    let passed = Arc::new(AtomicU64::new(0));
    metrics::set_global_recorder(Passed(Arc::clone(&passed))).expect("there is none");
    let ears = Arc::<Ears>::default();
    let world = World::new(2);
    let mut nodes = BTreeMap::new();
    for node in 1..=3 {
        nodes.insert(node, (start(&world, node, &PREVIOUS, &ears).await, PREVIOUS));
    }
    world.whole(&nodes[&1].0).await;
    for index in 0..4 {
        let base = Arc::new(Block::empty(view(), 1));
        nodes[&1].0.create(id(index), world::config(), base).await.expect("made");
    }
    let all = nodes.iter().map(|(node, (started, _))| (*node, started.store())).collect();
    let open = watch::Sender::new(all);
    let (sent, answers) = (Arc::default(), Arc::default());
    let load = Load { open: open.subscribe(), sent, answers, stop: Arc::default() };
    let (writes, reads) = (tokio::spawn(load.clone().write()), tokio::spawn(load.clone().read()));
    look(&nodes).await;
    assert_eq!(passed.load(Ordering::Relaxed), 0);
    for versions in [NEXT, PREVIOUS] {
        for node in 1..=3 {
            open.send_modify(|open| _ = open.remove(&node));
            nodes.remove(&node).expect("it runs").0.shutdown().await;
            load.goes_on(20).await;
            nodes.insert(node, (start(&world, node, &versions, &ears).await, versions.clone()));
            world.whole(&nodes[&node].0).await;
            look(&nodes).await;
            open.send_modify(|open| _ = open.insert(node, nodes[&node].0.store()));
        }
        if versions == NEXT {
            let (passed_over, heard) = (passed.load(Ordering::Relaxed), ears.rumours.load(Ordering::Relaxed));
            assert!(passed_over > 0, "what the previous version does not know is counted");
            load.goes_on(20).await;
            assert!(ears.rumours.load(Ordering::Relaxed) > heard, "the next version knows it");
            assert_eq!(passed.load(Ordering::Relaxed), passed_over);
            assert!(ears.states(true).1 > 0, "those of this version take states in pieces");
        }
    }
    let (whole, pieces) = ears.states(false);
    assert!(whole > 0 && pieces == 0, "the previous version takes {whole} whole states and {pieces} pieces");
    load.stop.store(true, Ordering::Relaxed);
    let written = writes.await.expect("no write failed");
    reads.await.expect("no read failed");
    for (node, _) in nodes.values() {
        for (index, rows) in written.iter().enumerate() {
            shows(&node.store(), index as u32, *rows).await;
        }
    }
}
