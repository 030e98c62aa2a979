//! Writers and readers outside the cluster, with the patience of ordinary ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::RngExt;

use super::guests::{Guests, Violation};
use super::ledger::{Ledger, WRITERS, Write};
use super::truth::Truth;
use super::world::{GUESTS_TO_US, NODES, World, alive};
use crate::cluster::{
    Answer, ClusterMap, Event, HedgeConfig, Hedger, Instance, NodeId, Partition, Position, Read, RequestId,
    Shown,
};

pub(super) const PARTITIONS: u32 = 4;
pub(super) const REPLICAS: usize = 3;
/// The last of them remembers nothing.
const READERS: usize = 5;

/// A writer gives up waiting for a node after so long and asks another.
pub(super) const WRITE_TIMEOUT_US: u64 = 40_000;
/// Wait before an immediate refusal is answered by another try.
pub(super) const RETRY_US: u64 = 2_000;

/// Sends one write after the other to one partition.
pub(super) struct Writer {
    pub(super) partition: Partition,
    pub(super) map: Arc<ClusterMap>,
    /// All before is acknowledged, in this life of the partition.
    pub(super) acknowledged: u64,
    /// The newest position answered.
    pub(super) seen: Position,
    /// What is being written.
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) begun_us: u64,
    /// Numbers its attempts; an answer to an earlier one is still an answer.
    pub(super) attempt: u64,
    /// Where the last attempt went.
    pub(super) target: Option<NodeId>,
    pub(super) asks_anybody: bool,
    pub(super) busy: bool,
    pub(super) worst_us: u64,
    pub(super) done: u64,
}

/// Reads one partition after the other, and never goes back.
pub(super) struct Reader {
    pub(super) map: Arc<ClusterMap>,
    pub(super) seen: BTreeMap<Partition, Position>,
    pub(super) partition: Partition,
    pub(super) begun_us: u64,
    /// Numbers its reads.
    pub(super) read: u64,
    pub(super) hedger: Hedger,
    /// The read on its way.
    pub(super) on_its_way: Option<Read>,
    pub(super) worst_us: u64,
    pub(super) done: u64,
}

impl Writer {
    pub(super) fn new(partition: Partition, map: Arc<ClusterMap>) -> Self {
        Self {
            partition,
            map,
            acknowledged: 0,
            seen: Position::default(),
            from: 0,
            to: 0,
            begun_us: 0,
            attempt: 0,
            target: None,
            asks_anybody: false,
            busy: false,
            worst_us: 0,
            done: 0,
        }
    }
}

impl Reader {
    pub(super) fn new(map: Arc<ClusterMap>) -> Self {
        Self {
            map,
            seen: BTreeMap::new(),
            partition: Partition(0),
            begun_us: 0,
            read: 0,
            hedger: Hedger::new(HedgeConfig::default(), None),
            on_its_way: None,
            worst_us: 0,
            done: 0,
        }
    }
}

/// Writers and readers, and what they were promised.
pub(super) struct Clients {
    pub(super) writers: Vec<Writer>,
    pub(super) readers: Vec<Reader>,
    truth: Truth,
}

impl Clients {
    pub(super) fn new(map: &Arc<ClusterMap>) -> Self {
        let writer = |w: usize| Writer::new(Partition(w as u32 % PARTITIONS), map.clone());
        Self {
            writers: (0..WRITERS).map(writer).collect(),
            readers: (0..READERS).map(|_| Reader::new(map.clone())).collect(),
            truth: Truth::default(),
        }
    }
}

/// What happens to clients.
pub(super) enum Happening {
    WriteNext(usize),
    WriteArrives {
        writer: usize,
        attempt: u64,
        node: NodeId,
        write: Write,
    },
    WriteAnswered {
        writer: usize,
        attempt: u64,
        answer: Answer<(bool, u64)>,
        map: Arc<ClusterMap>,
    },
    WriteGivenUp {
        writer: usize,
        attempt: u64,
    },
    WriteAgain {
        writer: usize,
        attempt: u64,
    },
    ReadNext(usize),
    ReadArrives {
        reader: usize,
        read: u64,
        node: NodeId,
        seen: Position,
    },
    ReadAnswered {
        reader: usize,
        read: u64,
        node: NodeId,
        shown: Option<Answered>,
        map: Option<Arc<ClusterMap>>,
    },
    Hedge {
        reader: usize,
        read: u64,
    },
}

/// What a reader is told.
#[derive(Clone, Copy)]
pub(super) struct Answered {
    pub(super) at: Position,
    pub(super) digest: u64,
    pub(super) fresh: bool,
}

impl Guests for Clients {
    type State = Ledger;
    type Happening = Happening;

    fn begin(world: &mut World<Self>) {
        (0..WRITERS).for_each(|writer| world.after(500_000, Happening::WriteNext(writer)));
        (0..READERS).for_each(|reader| world.after(600_000, Happening::ReadNext(reader)));
    }

    fn process_of(happening: &Happening) -> Option<NodeId> {
        match happening {
            Happening::ReadArrives { node, .. } => Some(*node),
            _ => None,
        }
    }

    fn happen(world: &mut World<Self>, happening: Happening) -> Result<(), Violation> {
        match happening {
            Happening::WriteNext(writer) => world.write_next(writer),
            Happening::WriteArrives { writer, attempt, node, write } => {
                if world.life(node).is_none() {
                    let late_us = world.network.client_us();
                    world.after(late_us, Happening::WriteGivenUp { writer, attempt });
                }
                let request = RequestId(((writer as u64) << 32) | attempt);
                let partition = world.guests.writers[writer].partition;
                return world.step(node, Event::Submit(partition, request, write));
            }
            Happening::WriteAnswered { writer, attempt, answer, map } => {
                return world.write_answered(writer, attempt, &answer, map);
            }
            Happening::WriteGivenUp { writer, attempt } => {
                if world.guests.writers[writer].busy && world.guests.writers[writer].attempt == attempt {
                    world.guests.writers[writer].asks_anybody = true;
                    world.write(writer);
                }
            }
            Happening::WriteAgain { writer, attempt } => {
                if world.guests.writers[writer].busy && world.guests.writers[writer].attempt == attempt {
                    world.write(writer);
                }
            }
            Happening::ReadNext(reader) => world.read_next(reader),
            Happening::ReadArrives { reader, read, node, seen } => {
                return world.read_arrives(reader, read, node, seen);
            }
            Happening::ReadAnswered { reader, read, node, shown, map } => {
                return world.read_answered(reader, read, node, shown, map);
            }
            Happening::Hedge { reader, read } => world.hedge(reader, read),
        }
        Ok(())
    }

    fn unmet(world: &mut World<Self>, node: NodeId, happening: Happening) {
        if let Happening::ReadArrives { reader, read, .. } = happening {
            world.after(1_000, Happening::ReadAnswered { reader, read, node, shown: None, map: None });
        }
    }

    /// Tells writers that their connection to a node is broken.
    fn killed(world: &mut World<Self>, node: NodeId) {
        for number in 0..world.guests.writers.len() {
            let writer = &world.guests.writers[number];
            if writer.busy && writer.target == Some(node) {
                let attempt = writer.attempt;
                world.after(1_000, Happening::WriteGivenUp { writer: number, attempt });
            }
        }
    }

    fn stepped(world: &mut World<Self>, node: NodeId) -> Result<(), Violation> {
        let World { guests, machines, now_us, .. } = world;
        let Some(node) = &machines[node.0 as usize].node else { return Ok(()) };
        guests.truth.look(node, PARTITIONS, *now_us)
    }

    fn answered(
        world: &mut World<Self>,
        by: Instance,
        request: RequestId,
        answer: Answer<(bool, u64)>,
        map: Arc<ClusterMap>,
    ) -> Result<(), Violation> {
        let (writer, attempt) = ((request.0 >> 32) as usize, request.0 & 0xffff_ffff);
        if let Answer::Done { at, .. } = &answer {
            let partition = world.guests.writers[writer].partition;
            let World { guests, control, machines, .. } = world;
            guests
                .truth
                .acknowledge(partition, *at, by, &control.map, |instance| alive(machines, instance))?;
        }
        let late_us = world.network.client_us();
        world.after(late_us, Happening::WriteAnswered { writer, attempt, answer, map });
        Ok(())
    }

    fn committed(world: &mut World<Self>, map: &ClusterMap) -> Result<(), Violation> {
        let World { guests, machines, .. } = world;
        guests.truth.committed(map, |instance| alive(machines, instance))
    }

    fn settled(world: &World<Self>) -> Result<(), Violation> {
        for (partition, assignment) in world.control.map.assignments() {
            let states: Vec<_> = world.in_sync(partition).map(|replica| replica.state()).collect();
            if states.iter().any(|state| *state != states[0]) {
                return Err(format!("the replicas of {partition} are not equal at the end"));
            }
            let writers = world.guests.writers.iter().enumerate();
            for (number, writer) in writers.filter(|(_, writer)| writer.partition == partition) {
                let applied = states[0].applied[number];
                if writer.seen.life == assignment.life && applied < writer.acknowledged {
                    return Err(format!("{partition} has lost {applied}..{}", writer.acknowledged));
                }
                if writer.busy {
                    return Err(format!("writer {number} waits still"));
                }
            }
        }
        if world.guests.readers.iter().any(|reader| reader.on_its_way.is_some()) {
            return Err("a reader waits still".to_owned());
        }
        Ok(())
    }
}

/// What clients do when something happens to them.
impl World<Clients> {
    fn write_next(&mut self, number: usize) {
        if self.now_us >= GUESTS_TO_US {
            return;
        }
        let size = self.rng.random_range(1..100);
        let writer = &mut self.guests.writers[number];
        (writer.from, writer.to) = (writer.acknowledged, writer.acknowledged + size);
        (writer.begun_us, writer.busy) = (self.now_us, true);
        self.write(number);
    }

    /// Sends the write to the primary, or to anybody when that one doesn't answer.
    fn write(&mut self, number: usize) {
        let turn = self.rng.random_range(1..NODES);
        let late_us = self.network.client_us();
        let writer = &mut self.guests.writers[number];
        writer.attempt += 1;
        let primary = writer.map.assignment(writer.partition).primary.map(|primary| primary.instance.node);
        let anybody = NodeId((writer.target.map_or(0, |node| node.0) + turn) % NODES);
        let node = primary.filter(|_| !writer.asks_anybody).unwrap_or(anybody);
        writer.asks_anybody = false;
        writer.target = Some(node);
        let (attempt, write) = (writer.attempt, Write { writer: number, from: writer.from, to: writer.to });
        self.after(late_us, Happening::WriteArrives { writer: number, attempt, node, write });
        self.after(WRITE_TIMEOUT_US, Happening::WriteGivenUp { writer: number, attempt });
    }

    fn write_answered(
        &mut self,
        number: usize,
        attempt: u64,
        answer: &Answer<(bool, u64)>,
        map: Arc<ClusterMap>,
    ) -> Result<(), Violation> {
        let now_us = self.now_us;
        let writer = &mut self.guests.writers[number];
        if map.version > writer.map.version {
            writer.map = map;
        }
        let Answer::Done { outcome: (_, applied), at, .. } = *answer else {
            if writer.busy && writer.attempt == attempt {
                // A new attempt, so that the answer to this one is not waited for as well.
                writer.attempt += 1;
                let attempt = writer.attempt;
                let target =
                    writer.map.assignment(writer.partition).primary.map(|primary| primary.instance.node);
                writer.asks_anybody = target.is_none() || target == writer.target;
                self.after(RETRY_US, Happening::WriteAgain { writer: number, attempt });
            }
            return Ok(());
        };
        // Late answers to attempts before say what was.
        if (at.life, at.seq) < (writer.seen.life, writer.seen.seq) || !writer.busy {
            return Ok(());
        }
        if at.life > writer.seen.life {
            // All replicas were lost, as the position says: the source sends again from where it stands.
            writer.acknowledged = applied;
        }
        writer.seen = at;
        if applied < writer.acknowledged || (applied > writer.to && applied > writer.from) {
            let (known, partition) = (writer.acknowledged, writer.partition);
            return Err(format!(
                "writer {number} stands at {applied} of {partition}, acknowledged were {known}"
            ));
        }
        if applied < writer.to && applied != writer.from {
            writer.from = applied;
        }
        if applied >= writer.to {
            writer.acknowledged = applied;
            writer.busy = false;
            writer.done += 1;
            writer.worst_us = writer.worst_us.max(now_us - writer.begun_us);
            let think_us = self.rng.random_range(500..4_000);
            self.after(think_us, Happening::WriteNext(number));
        } else if writer.attempt == attempt {
            self.write(number);
        }
        Ok(())
    }

    fn read_next(&mut self, number: usize) {
        if self.now_us >= GUESTS_TO_US {
            return;
        }
        let partition = Partition(self.rng.random_range(0..PARTITIONS));
        let reader = &mut self.guests.readers[number];
        reader.partition = partition;
        reader.read += 1;
        reader.begun_us = self.now_us;
        let (read, first) = reader.hedger.begin(&reader.map, partition, self.now_us);
        reader.on_its_way = Some(read);
        self.ask(number, first);
        self.watch(number);
    }

    /// Asks a node; anybody when the map knows nobody.
    fn ask(&mut self, number: usize, node: Option<NodeId>) {
        let late_us = self.network.client_us();
        let anybody = NodeId(self.rng.random_range(0..NODES));
        let reader = &self.guests.readers[number];
        let seen = reader.seen.get(&reader.partition).copied().unwrap_or_default();
        let (read, node) = (reader.read, node.unwrap_or(anybody));
        self.after(late_us, Happening::ReadArrives { reader: number, read, node, seen });
    }

    /// Looks again when the read is due.
    fn watch(&mut self, number: usize) {
        let reader = &self.guests.readers[number];
        if let Some(on_its_way) = &reader.on_its_way {
            let (due_us, read) = (on_its_way.due_us().max(self.now_us + 1), reader.read);
            self.after(due_us - self.now_us, Happening::Hedge { reader: number, read });
        }
    }

    fn hedge(&mut self, number: usize, read: u64) {
        let reader = &mut self.guests.readers[number];
        let Some(on_its_way) = reader.on_its_way.as_mut().filter(|_| reader.read == read) else { return };
        if on_its_way.due_us() <= self.now_us {
            let asked = reader.hedger.due(on_its_way, &reader.map, self.now_us);
            let nobody = reader.map.assignment(reader.partition).in_sync.is_empty();
            if asked.is_some() || nobody {
                self.ask(number, asked);
            }
        }
        self.watch(number);
    }

    /// Lets a node answer a read.
    fn read_arrives(
        &mut self,
        reader: usize,
        read: u64,
        node: NodeId,
        seen: Position,
    ) -> Result<(), Violation> {
        let (partition, stale) =
            (self.guests.readers[reader].partition, self.guests.readers[reader].read != read);
        let map = self.node(node).map(|node| node.map().clone());
        let mut shown = None;
        if map.is_some() {
            let found = if stale { None } else { self.read(node, partition, seen) };
            let answered =
                |s: Shown<'_, Ledger>| Answered { at: s.at, digest: s.state.digest, fresh: s.fresh };
            shown = found.and_then(Result::ok).map(answered);
            Clients::stepped(self, node)?;
        }
        let late_us = self.network.client_us();
        self.after(late_us, Happening::ReadAnswered { reader, read, node, shown, map });
        Ok(())
    }

    fn read_answered(
        &mut self,
        number: usize,
        read: u64,
        node: NodeId,
        shown: Option<Answered>,
        map: Option<Arc<ClusterMap>>,
    ) -> Result<(), Violation> {
        let reader = &mut self.guests.readers[number];
        if let Some(map) = map.filter(|map| map.version > reader.map.version) {
            reader.map = map;
        }
        let Some(on_its_way) = reader.on_its_way.as_mut().filter(|_| reader.read == read) else {
            return Ok(());
        };
        let partition = reader.partition;
        let life = reader.map.assignment(partition).life;
        let seen = reader.seen.get(&partition).copied();
        // A life that is over is no measure any longer.
        if seen.is_some_and(|seen| seen.life < life) {
            reader.seen.remove(&partition);
        }
        let Some(answered) = shown else {
            let next = reader.hedger.refused(on_its_way, &reader.map, node, self.now_us);
            if next.is_some() {
                self.ask(number, next);
            }
            return Ok(());
        };
        reader.hedger.answered(on_its_way, node, self.now_us);
        let begun_us = reader.begun_us;
        reader.on_its_way = None;
        reader.done += 1;
        reader.worst_us = reader.worst_us.max(self.now_us - begun_us);
        self.guests.truth.answered(partition, seen, answered, begun_us)?;
        if number + 1 < self.guests.readers.len() {
            self.guests.readers[number].seen.insert(partition, answered.at);
        }
        let think_us = self.rng.random_range(200..3_000);
        self.after(think_us, Happening::ReadNext(number));
        Ok(())
    }
}
