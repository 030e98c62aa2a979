//! A simulated cluster: nodes, network, control, clients and faults under one
//! clock. One seed decides everything.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::clients::{Reader, Writer};
use super::control::Control;
use super::faults::{Fault, Kind, Moment, Plan};
use super::ledger::{Ledger, WRITERS, Write, mix};
use super::network::Network;
use super::truth::{Truth, Violation};
use crate::cluster::mutant::{Mutant, Mutants};
use crate::cluster::{
    Answer, Assignment, Change, ClusterMap, Event, Holder, Incarnation, Instance, Message, Node, NodeConfig,
    NodeId, Output, Partition, Position, ReplicaConfig, RequestId,
};

pub(super) const NODES: u16 = 5;
pub(super) const PARTITIONS: u32 = 4;
const REPLICAS: usize = 3;
/// The last of them remembers nothing.
const READERS: usize = 5;
const TICK_US: u64 = 20_000;
/// After the last fault is mended.
const HEALS_US: u64 = 4_000_000;
/// Clients stop here, and nothing may be on its way at the end.
pub(super) const CLIENTS_TO_US: u64 = 6_000_000;
pub(super) const END_US: u64 = 6_500_000;

/// What happens at a time.
pub(super) enum Happening {
    Tick(NodeId, Incarnation),
    Arrives {
        from: Instance,
        to: NodeId,
        to_life: Incarnation,
        message: Message<Ledger>,
    },
    Broken {
        at: NodeId,
        peer: NodeId,
    },
    Proposed(NodeId, Change),
    Commits(Change),
    WatchControl,
    /// From now on no message is lost.
    Heals,
    Begins(Fault),
    Mended(Fault),
    Nap(NodeId, u64),
    Wakes(NodeId),
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

/// What came to a stopped process, to be met when it continues.
enum Held {
    Event(Event<Ledger>),
    Read { reader: usize, read: u64, seen: Position },
}

/// A machine: its process, if it runs.
pub(super) struct Machine {
    pub(super) node: Option<Node<Ledger>>,
    incarnation: u64,
    pub(super) stopped: bool,
    held: Vec<Held>,
    /// Its clock's lead over the others'.
    skew_us: u64,
}

/// What a run has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// A digest of all that happened.
    pub(super) trace: u64,
    pub(super) worst_write_us: u64,
    pub(super) worst_read_us: u64,
    pub(super) writes: u64,
    pub(super) reads: u64,
    pub(super) faults: u32,
    /// Partitions that began another life.
    pub(super) lives_lost: u32,
    /// The one fault of the run, if it was one.
    pub(super) single: Option<Kind>,
}

pub(super) struct World {
    pub(super) now_us: u64,
    queue: BTreeMap<(u64, u64), Box<Happening>>,
    serial: u64,
    pub(super) rng: StdRng,
    pub(super) network: Network,
    pub(super) control: Control,
    pub(super) machines: Vec<Machine>,
    pub(super) writers: Vec<Writer>,
    pub(super) readers: Vec<Reader>,
    pub(super) truth: Truth,
    pub(super) plan: Plan,
    pub(super) faults: u32,
    pub(super) changes: u32,
    admissions: u32,
    trace: u64,
    mutants: Mutants,
    /// Whether to print what happens: for one seed that fails.
    told: bool,
}

impl World {
    pub(super) fn new(seed: u64, mutant: Option<Mutant>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let plan = Plan::draw(&mut rng, NODES);
        let mutants = Mutants(mutant);
        let mut map = ClusterMap::new(PARTITIONS, REPLICAS);
        map.mutants = mutants;
        let map = Arc::new(map);
        let mut network = Network::new(rng.random());
        network.lost = plan.lost;
        let control = Control {
            map: map.clone(),
            leader: NodeId(0),
            leader_life: Incarnation(1),
            silent_since_us: None,
            election_us: 0,
            stopped_until_us: 0,
        };
        let machine = |rng: &mut StdRng| Machine {
            node: None,
            incarnation: 0,
            stopped: false,
            held: Vec::new(),
            skew_us: rng.random_range(0..1_000_000_000),
        };
        let machines = (0..NODES).map(|_| machine(&mut rng)).collect();
        let mut world = Self {
            now_us: 0,
            queue: BTreeMap::new(),
            serial: 0,
            rng,
            network,
            control,
            machines,
            writers: (0..WRITERS)
                .map(|w| Writer::new(Partition(w as u32 % PARTITIONS), map.clone()))
                .collect(),
            readers: (0..READERS).map(|_| Reader::new(map.clone())).collect(),
            truth: Truth::default(),
            plan,
            faults: 0,
            changes: 0,
            admissions: 0,
            trace: seed,
            mutants,
            told: std::env::var_os("TRACE").is_some(),
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for node in (0..NODES).map(NodeId) {
            self.start(node);
        }
        self.step(NodeId(0), Event::Leads(true)).expect("nothing is promised yet");
        self.at(0, Happening::WatchControl);
        self.at(HEALS_US, Happening::Heals);
        (0..WRITERS).for_each(|writer| self.at(500_000, Happening::WriteNext(writer)));
        (0..READERS).for_each(|reader| self.at(600_000, Happening::ReadNext(reader)));
        for (moment, fault) in self.plan.faults.clone() {
            if let Moment::At(at_us) = moment {
                self.at(at_us, Happening::Begins(fault));
            }
        }
    }

    /// Runs to the end, or to the first broken promise.
    pub(super) fn run(mut self) -> Result<Outcome, Violation> {
        while let Some(((at_us, serial), happening)) = self.queue.pop_first() {
            if at_us > END_US {
                break;
            }
            self.now_us = at_us;
            self.trace = mix(self.trace ^ at_us ^ serial.rotate_left(32));
            self.happen(*happening).map_err(|violation| format!("at {at_us} us: {violation}"))?;
        }
        self.settled()?;
        let lives_lost = self.control.map.partitions.iter().map(|assignment| assignment.life - 1).sum();
        let single = self.plan.single.then(|| self.plan.faults[0].1.kind);
        Ok(Outcome {
            trace: self.trace,
            worst_write_us: self.writers.iter().map(|writer| writer.worst_us).max().unwrap_or(0),
            worst_read_us: self.readers.iter().map(|reader| reader.worst_us).max().unwrap_or(0),
            writes: self.writers.iter().map(|writer| writer.done).sum(),
            reads: self.readers.iter().map(|reader| reader.done).sum(),
            faults: self.faults,
            lives_lost,
            single,
        })
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Violation> {
        match happening {
            Happening::Tick(node, life) => {
                if self.life(node) == Some(life) {
                    self.after(TICK_US, Happening::Tick(node, life));
                    self.step(node, Event::Tick)?;
                }
            }
            Happening::Arrives { from, to, to_life, message } => match self.life(to) {
                Some(life) if life == to_life => self.step(to, Event::Message(from, message))?,
                Some(_) => {}
                None => self.breaks(from.node, to),
            },
            Happening::Broken { at, peer } => self.step(at, Event::Broken(peer))?,
            Happening::Proposed(from, change) => self.proposed(from, change),
            Happening::Commits(change) => self.commits(&change)?,
            Happening::WatchControl => self.watch_control()?,
            Happening::Heals => self.network.lost = 0,
            Happening::Begins(fault) => self.begins(fault),
            Happening::Mended(fault) => self.mended(fault)?,
            Happening::Nap(node, until_us) => self.nap(node, until_us),
            Happening::Wakes(node) => self.wake(node)?,
            other => self.client(other)?,
        }
        Ok(())
    }

    /// Lets a node take an event, does what it wants, and looks at what it shows.
    pub(super) fn step(&mut self, at: NodeId, event: Event<Ledger>) -> Result<(), Violation> {
        let machine = &mut self.machines[at.0 as usize];
        let Some(node) = &mut machine.node else { return Ok(()) };
        if machine.stopped {
            machine.held.push(Held::Event(event));
            return Ok(());
        }
        let outputs = node.step(event, self.now_us + machine.skew_us);
        let me = node.me();
        let map = node.map().clone();
        self.truth.look(node, PARTITIONS, self.now_us)?;
        for output in outputs {
            match output {
                Output::Send(to, message) => self.send(me, to, message),
                Output::Propose(change) => {
                    if let Change::Admit { holder, .. } = &change {
                        self.admissions += 1;
                        self.strike(Moment::Admission(self.admissions), Some((at, holder.instance.node)));
                    }
                    let late_us = self.network.latency_us(at, self.control.leader);
                    self.after(late_us, Happening::Proposed(at, change));
                }
                Output::Answer(request, answer) => self.answer(me, request, answer, map.clone())?,
                Output::Superseded => {
                    self.kill(at);
                    self.start(at);
                }
            }
        }
        Ok(())
    }

    pub(super) fn send(&mut self, from: Instance, to: NodeId, message: Message<Ledger>) {
        if matches!(message, Message::Map(_)) && self.network.uninformed.contains(&to) {
            return;
        }
        let Some(arrives_us) = self.network.carry(from.node, to, self.now_us) else { return };
        let to_life = Incarnation(self.machines[to.0 as usize].incarnation);
        self.at(arrives_us, Happening::Arrives { from, to, to_life, message });
    }

    fn answer(
        &mut self,
        primary: Instance,
        request: RequestId,
        answer: Answer<(bool, u64)>,
        map: Arc<ClusterMap>,
    ) -> Result<(), Violation> {
        let (writer, attempt) = ((request.0 >> 32) as usize, request.0 & 0xffff_ffff);
        if let Answer::Done { at, .. } = &answer {
            let partition = self.writers[writer].partition;
            let Self { truth, control, machines, .. } = self;
            truth.acknowledge(partition, *at, primary, &control.map, |instance| alive(machines, instance))?;
        }
        let late_us = self.network.client_us();
        self.after(late_us, Happening::WriteAnswered { writer, attempt, answer, map });
        Ok(())
    }

    pub(super) fn wake(&mut self, node: NodeId) -> Result<(), Violation> {
        let machine = &mut self.machines[node.0 as usize];
        machine.stopped = false;
        for held in std::mem::take(&mut machine.held) {
            match held {
                Held::Event(event) => self.step(node, event)?,
                Held::Read { reader, read, seen } => self.read(reader, read, node, seen)?,
            }
        }
        Ok(())
    }

    pub(super) fn start(&mut self, node: NodeId) {
        let machine = &mut self.machines[node.0 as usize];
        machine.incarnation += 1;
        let life = Incarnation(machine.incarnation);
        let mut config = NodeConfig::default();
        // Few, so that learners need the state as well as the log.
        config.replica = ReplicaConfig { kept_max: 24, entries_max: 16, ..config.replica };
        let me = Instance { node, incarnation: life };
        machine.node = Some(Node::new(me, config, Ledger::default()).broken_by(self.mutants));
        let late_us = self.rng.random_range(0..TICK_US);
        self.after(late_us, Happening::Tick(node, life));
    }

    pub(super) fn kill(&mut self, node: NodeId) {
        let machine = &mut self.machines[node.0 as usize];
        (machine.node, machine.stopped) = (None, false);
        let held = std::mem::take(&mut machine.held);
        for other in (0..NODES).map(NodeId).filter(|other| *other != node) {
            self.breaks(other, node);
        }
        for held in held {
            if let Held::Read { reader, read, .. } = held {
                self.after(1_000, Happening::ReadAnswered { reader, read, node, shown: None, map: None });
            }
        }
        self.clients_lose(node);
    }

    /// Tells a node, unless it is cut off, that its connection to a dead one is broken.
    fn breaks(&mut self, at: NodeId, peer: NodeId) {
        if self.network.connects(at, peer) {
            self.after(1_000, Happening::Broken { at, peer });
        }
    }

    /// Lets a node answer a read, or keeps it for when the process continues.
    pub(super) fn read(
        &mut self,
        reader: usize,
        read: u64,
        at: NodeId,
        seen: Position,
    ) -> Result<(), Violation> {
        let partition = self.readers[reader].partition;
        let machine = &mut self.machines[at.0 as usize];
        if machine.stopped {
            machine.held.push(Held::Read { reader, read, seen });
            return Ok(());
        }
        let (shown, map) = match &mut machine.node {
            None => (None, None),
            Some(node) => {
                let stale = self.readers[reader].read != read;
                let now_us = self.now_us + machine.skew_us;
                let shown = if stale { None } else { node.read(partition, seen, now_us).ok() };
                let shown = shown.map(|s| Answered { at: s.at, digest: s.state.digest, fresh: s.fresh });
                self.truth.look(node, PARTITIONS, self.now_us)?;
                (shown, Some(node.map().clone()))
            }
        };
        let late_us = self.network.client_us();
        self.after(late_us, Happening::ReadAnswered { reader, read, node: at, shown, map });
        Ok(())
    }

    /// Looks whether all is well again some time after the last fault.
    fn settled(&self) -> Result<(), Violation> {
        for (partition, assignment) in self.control.map.assignments() {
            let nodes = assignment.in_sync.iter().filter_map(|held| alive(&self.machines, held.instance));
            let replicas: Vec<_> = nodes.filter_map(|node| node.replica(partition)).collect();
            if replicas.len() != REPLICAS || assignment.primary.is_none() {
                return Err(format!("{partition} has not recovered: {assignment:?}"));
            }
            if replicas.iter().any(|r| {
                (r.commit(), r.end(), r.state())
                    != (replicas[0].end(), replicas[0].end(), replicas[0].state())
            }) {
                return Err(format!("the replicas of {partition} are not equal at the end"));
            }
            for (number, writer) in self.writers.iter().enumerate().filter(|(_, w)| w.partition == partition)
            {
                let applied = replicas[0].state().applied[number];
                if writer.seen.life == assignment.life && applied < writer.acknowledged {
                    return Err(format!("{partition} has lost {applied}..{}", writer.acknowledged));
                }
                if writer.busy {
                    return Err(format!("writer {number} waits still"));
                }
            }
        }
        if self.readers.iter().any(|reader| reader.on_its_way.is_some()) {
            return Err("a reader waits still".to_owned());
        }
        Ok(())
    }

    /// Returns the life that runs on a machine.
    pub(super) fn life(&self, node: NodeId) -> Option<Incarnation> {
        self.machines[node.0 as usize].node.as_ref().map(|node| node.me().incarnation)
    }

    #[allow(clippy::print_stderr, reason = "asked for, to follow one seed")]
    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        if self.told {
            eprintln!("{:>9} {}", self.now_us, what());
        }
    }

    pub(super) fn after(&mut self, late_us: u64, happening: Happening) {
        self.at(self.now_us + late_us, happening);
    }

    pub(super) fn at(&mut self, at_us: u64, happening: Happening) {
        self.serial += 1;
        self.queue.insert((at_us, self.serial), Box::new(happening));
    }
}

/// Returns the node of a life that is not over, stopped or not.
pub(super) fn alive(machines: &[Machine], instance: Instance) -> Option<&Node<Ledger>> {
    machines[instance.node.0 as usize].node.as_ref().filter(|node| node.me() == instance)
}

pub(super) fn describe(partition: Partition, assignment: &Assignment) -> String {
    let list = |holders: &[Holder]| holders.iter().map(Holder::to_string).collect::<Vec<_>>().join(", ");
    let primary = assignment.primary.map_or("nobody".to_owned(), |primary| primary.to_string());
    let (life, epoch) = (assignment.life, assignment.epoch.0);
    let (in_sync, learners) = (list(&assignment.in_sync), list(&assignment.learners));
    format!("  {partition}: life {life}, epoch {epoch}: {primary} of [{in_sync}], learners [{learners}]")
}
