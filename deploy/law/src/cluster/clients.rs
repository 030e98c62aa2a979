//! Producers and readers outside the cluster, with the patience of ordinary ones.
//!
//! Readers ask any node, and another one when that does not answer. Some remember nothing, some
//! never go back behind what they have seen, and some append a reading and wait until it is in
//! what they are answered.

use std::sync::Arc;

use rand::RngExt;
use sanso_core::cluster::NodeId;
use sanso_core::cluster::sim::{NODES, Violation, World};
use sanso_core::{PartitionId, ReadReply, ReadRequest};
use sanso_state::{MemoryRuns, Offset};
use sanso_view::View;

use super::layers::{Happening, Layers, Waiting};
use super::serving::Request;
use crate::history::PARTITIONS;

/// Nothing is appended after this.
const APPENDS_TO_US: u64 = 4_500_000;
const READS_TO_US: u64 = 5_800_000;
const APPEND_EVERY_US: std::ops::Range<u64> = 2_000..30_000;
/// A reader without a session gives a node so long; it has nothing to wait for.
const PATIENCE_US: u64 = 40_000;
/// One that asks for what it has seen gives it longer.
const PATIENCE_SEEN_US: u64 = 120_000;

/// What a reader asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Habit {
    /// Whatever there is.
    Forgets,
    /// Never less than it has seen.
    Remembers,
    /// What it has just appended.
    Watches,
}

pub(super) const HABITS: [Habit; 6] =
    [Habit::Forgets, Habit::Forgets, Habit::Remembers, Habit::Remembers, Habit::Watches, Habit::Watches];

/// Reads one view after the other.
pub(super) struct Reader {
    pub(super) habit: Habit,
    pub(super) seen: Vec<Offset>,
    view: usize,
    reads: Vec<(PartitionId, ReadRequest)>,
    begun_us: u64,
    attempt: u64,
    pub(super) node: NodeId,
    pub(super) busy: bool,
    pub(super) worst_us: u64,
    pub(super) done: u64,
}

impl Reader {
    pub(super) fn new(habit: Habit) -> Self {
        Self {
            habit,
            seen: vec![0; PARTITIONS as usize],
            view: 0,
            reads: Vec::new(),
            begun_us: 0,
            attempt: 0,
            node: NodeId(0),
            busy: false,
            worst_us: 0,
            done: 0,
        }
    }

    /// Numbers its requests.
    pub(super) fn attempt(&self) -> u64 {
        self.attempt
    }
}

/// Appends something, and again after a while.
pub(super) fn produce(world: &mut World<Layers>) {
    if world.now_us() >= APPENDS_TO_US {
        return;
    }
    append(world);
    move_bases(world);
    let late_us = world.rng.random_range(APPEND_EVERY_US);
    world.after(late_us, Happening::Produce);
}

/// Lets the replicas of one node move their bases out of memory, or back. In turn: if it were drawn, every seed would be
/// another history.
fn move_bases(world: &mut World<Layers>) {
    let turn = world.guests.count("bases looked at");
    let nodes = u64::from(NODES);
    let Some(node) = world.node(NodeId((turn % nodes) as u16)) else { return };
    let (mut moved, mut united) = (0, 0);
    for (_, replica) in node.replicas() {
        let held = replica.state().readable();
        for id in held.list() {
            united += u64::from(held.unite(id).expect("runs are in memory"));
            let done =
                if (turn / nodes).is_multiple_of(3) { held.load(id) } else { held.spill(id, &MemoryRuns, 1) };
            moved += u64::from(done.expect("runs are in memory"));
        }
    }
    *world.guests.happened.entry("base moved").or_default() += moved;
    *world.guests.happened.entry("runs put together").or_default() += united;
}

/// Appends something to the log, which acknowledges it.
fn append(world: &mut World<Layers>) {
    let rates = world.guests.rates.clone();
    world.guests.outside.history.append(&mut world.rng, &rates);
    for l in 0..PARTITIONS {
        let end = world.guests.outside.history.end(l);
        world.guests.acknowledged[l as usize] = end;
        let (woken, waiting) = world
            .guests
            .waiting
            .drain(..)
            .partition(|waiting| waiting.partition == l && end > waiting.position);
        world.guests.waiting = waiting;
        let woken: Vec<Waiting> = woken;
        for waiting in woken {
            let late_us = world.network.client_us();
            world.after(late_us, Happening::Wakes { at: waiting.at, task: Some(waiting.task) });
        }
    }
}

/// Lets a reader begin its next read.
pub(super) fn read_next(world: &mut World<Layers>, number: usize) {
    if world.now_us() >= READS_TO_US {
        return;
    }
    if world.guests.readers[number].habit == Habit::Watches {
        if world.now_us() >= APPENDS_TO_US {
            return;
        }
        append(world);
        let acknowledged = world.guests.acknowledged.clone();
        world.guests.readers[number].seen = acknowledged;
    }
    let at = world.rng.random_range(0..world.guests.views.len());
    let view = Arc::clone(&world.guests.views[at]);
    let reads = reads_of(world, &view);
    let node = NodeId(world.rng.random_range(0..NODES));
    let now_us = world.now_us();
    let reader = &mut world.guests.readers[number];
    (reader.view, reader.reads, reader.node) = (at, reads, node);
    (reader.begun_us, reader.busy) = (now_us, true);
    ask(world, number);
}

/// Chooses between the whole view and one key.
fn reads_of(world: &mut World<Layers>, view: &View) -> Vec<(PartitionId, ReadRequest)> {
    let (from, to) = (i64::MIN, i64::MAX);
    let id = |index| PartitionId { view: view.fingerprint, index };
    let keys: Vec<_> = world.guests.keys.get(&view.fingerprint).into_iter().flatten().cloned().collect();
    if keys.is_empty() || world.rng.random_bool(0.5) {
        return (0..view.partitions).map(|index| (id(index), ReadRequest::Scan { from, to })).collect();
    }
    let key = keys[world.rng.random_range(0..keys.len())].clone();
    vec![(id(view.partition_of(&key)), ReadRequest::Keys { keys: vec![key], from, to })]
}

fn ask(world: &mut World<Layers>, number: usize) {
    let late_us = world.network.client_us();
    let reader = &mut world.guests.readers[number];
    reader.attempt += 1;
    let remembers = reader.habit != Habit::Forgets;
    let within_us = if remembers { PATIENCE_SEEN_US } else { PATIENCE_US };
    let (attempt, node) = (reader.attempt, reader.node);
    let request = Request {
        reader: number,
        attempt,
        reads: reader.reads.clone(),
        seen: remembers.then(|| reader.seen.clone()),
        within_us,
    };
    world.after(late_us, Happening::RequestArrives { node, request });
    world.after(within_us, Happening::Answered { reader: number, attempt, replies: None });
}

/// Takes an answer, or that there is none: then another node is asked.
pub(super) fn answered(
    world: &mut World<Layers>,
    number: usize,
    attempt: u64,
    replies: Option<Vec<ReadReply>>,
) -> Result<(), Violation> {
    let now_us = world.now_us();
    let reader = &mut world.guests.readers[number];
    if !reader.busy || reader.attempt != attempt {
        return Ok(());
    }
    let Some(replies) = replies else {
        reader.node = NodeId((reader.node.0 + 1) % NODES);
        ask(world, number);
        return Ok(());
    };
    let waited_us = now_us - reader.begun_us;
    (reader.busy, reader.done) = (false, reader.done + 1);
    reader.worst_us = reader.worst_us.max(waited_us);
    let (reads, seen, habit) = (std::mem::take(&mut reader.reads), reader.seen.clone(), reader.habit);
    let view = Arc::clone(&world.guests.views[reader.view]);
    world.tell(|| format!("reader {number} ({habit:?}) is answered after {waited_us} us"));
    for ((id, request), reply) in reads.iter().zip(&replies) {
        let applied = &reply.progress.applied;
        if habit != Habit::Forgets && !reply.progress.covers(&seen) {
            return Err(format!("a reader that has seen {seen:?} is shown {id} at {applied:?}"));
        }
        world.guests.truth.answered(&world.guests.outside.history, &view, *id, request, reply)?;
        let reader = &mut world.guests.readers[number];
        reader.seen.iter_mut().zip(applied).for_each(|(seen, applied)| *seen = (*seen).max(*applied));
        if matches!(request, ReadRequest::Scan { .. }) {
            let keys = world.guests.keys.entry(view.fingerprint).or_default();
            keys.extend(reply.groups.iter().map(|(group, _)| group.key.clone()));
        }
    }
    let think_us = world.rng.random_range(500..20_000);
    world.after(think_us, Happening::ReadNext(number));
    Ok(())
}
