//! A simulated cluster: nodes, network, control and faults under one clock, and
//! guests that use it. One seed decides everything.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::control::Control;
use super::faults::{Fault, Kind, Moment, Plan};
use super::guests::{Guests, Violation};
use super::network::Network;
use crate::cluster::mutant::Mutants;
use crate::cluster::{
    Assignment, Change, ClusterMap, Event, Holder, Incarnation, Instance, Message, Node, NodeConfig, NodeId,
    Output, Partition, Position, ReadRefusal, Replica, ReplicaConfig, Shown,
};

/// How many nodes a simulated cluster has.
pub const NODES: u16 = 5;
const TICK_US: u64 = 20_000;
/// After the last fault is mended.
const HEALS_US: u64 = 4_000_000;
/// Guests ask for nothing after this, and nothing may be on its way at the end.
pub const GUESTS_TO_US: u64 = 6_000_000;
/// Where a run ends.
pub const END_US: u64 = 6_500_000;

/// What happens at a time.
pub(super) enum Happening<G: Guests> {
    Tick(NodeId, Incarnation),
    Arrives {
        from: Instance,
        to: NodeId,
        to_life: Incarnation,
        message: Message<G::State>,
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
    Guest(G::Happening),
}

/// What came to a stopped process, to be met when it continues.
enum Held<G: Guests> {
    Event(Event<G::State>),
    Guest(G::Happening),
}

/// A machine: its process, if it runs.
pub(super) struct Machine<G: Guests> {
    pub(super) node: Option<Node<G::State>>,
    incarnation: u64,
    pub(super) stopped: bool,
    held: Vec<Held<G>>,
    /// Its clock's lead over the others'.
    skew_us: u64,
}

/// What a run has come to, beside what its guests know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// A digest of all that happened.
    pub trace: u64,
    /// How many faults there were.
    pub faults: u32,
    /// Partitions that began another life.
    pub lives_lost: u32,
    /// The one fault of the run, if it was one.
    pub single: Option<Kind>,
}

/// How large the cluster is.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The number of partitions.
    pub partitions: u32,
    /// The replicas of each.
    pub replicas: usize,
    pub(crate) mutants: Mutants,
}

impl Setting {
    /// So many partitions, each with so many replicas.
    pub fn new(partitions: u32, replicas: usize) -> Self {
        Self { partitions, replicas, mutants: Mutants::default() }
    }
}

/// The cluster, and who uses it.
pub struct World<G: Guests> {
    /// Who uses it.
    pub guests: G,
    /// Draws what guests do.
    pub rng: StdRng,
    /// The links.
    pub network: Network,
    pub(super) now_us: u64,
    queue: BTreeMap<(u64, u64), Box<Happening<G>>>,
    serial: u64,
    pub(super) control: Control,
    pub(super) machines: Vec<Machine<G>>,
    pub(super) plan: Plan,
    pub(super) faults: u32,
    pub(super) changes: u32,
    admissions: u32,
    trace: u64,
    setting: Setting,
    /// Whether to print what happens: for one seed that fails.
    told: bool,
}

impl<G: Guests> World<G> {
    /// Founds a cluster. `plan` draws what goes wrong, `guests` come when there is a first map.
    pub fn new(
        seed: u64,
        setting: Setting,
        plan: impl FnOnce(&mut StdRng) -> Plan,
        guests: impl FnOnce(&mut StdRng, &Arc<ClusterMap>) -> G,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let plan = plan(&mut rng);
        let mut map = ClusterMap::new(setting.partitions, setting.replicas);
        map.mutants = setting.mutants;
        let map = Arc::new(map);
        let mut network = Network::new(rng.random());
        network.lost = plan.lost;
        let machine = |rng: &mut StdRng| Machine {
            node: None,
            incarnation: 0,
            stopped: false,
            held: Vec::new(),
            skew_us: rng.random_range(0..1_000_000_000),
        };
        let machines = (0..NODES).map(|_| machine(&mut rng)).collect();
        let guests = guests(&mut rng, &map);
        let mut world = Self {
            guests,
            rng,
            network,
            now_us: 0,
            queue: BTreeMap::new(),
            serial: 0,
            control: Control::new(map),
            machines,
            plan,
            faults: 0,
            changes: 0,
            admissions: 0,
            trace: seed,
            setting,
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
        G::begin(self);
        for (moment, fault) in self.plan.faults.clone() {
            if let Moment::At(at_us) = moment {
                self.at(at_us, Happening::Begins(fault));
            }
        }
    }

    /// Runs to the end, or to the first broken promise.
    pub fn run(&mut self) -> Result<Outcome, Violation> {
        while let Some(((at_us, serial), happening)) = self.queue.pop_first() {
            if at_us > END_US {
                break;
            }
            self.now_us = at_us;
            self.trace = mix(self.trace ^ at_us ^ serial.rotate_left(32));
            self.happen(*happening).map_err(|violation| format!("at {at_us} us: {violation}"))?;
        }
        self.recovered()?;
        G::settled(self)?;
        Ok(Outcome {
            trace: self.trace,
            faults: self.faults,
            lives_lost: self.control.map.partitions.iter().map(|assignment| assignment.life - 1).sum(),
            single: self.plan.single.then(|| self.plan.faults[0].1.kind),
        })
    }

    fn happen(&mut self, happening: Happening<G>) -> Result<(), Violation> {
        match happening {
            Happening::Tick(node, life) => {
                if self.life(node) == Some(life) {
                    self.after_own(TICK_US, Happening::Tick(node, life));
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
            Happening::Guest(happening) => self.meet(happening)?,
        }
        Ok(())
    }

    /// Lets something happen to the guests, or keeps it for when its process continues.
    fn meet(&mut self, happening: G::Happening) -> Result<(), Violation> {
        if let Some(node) = G::process_of(&happening) {
            let machine = &mut self.machines[node.0 as usize];
            if machine.stopped {
                machine.held.push(Held::Guest(happening));
                return Ok(());
            }
        }
        G::happen(self, happening)
    }

    /// Lets a node take an event, does what it wants, and looks at what it shows.
    pub fn step(&mut self, at: NodeId, event: Event<G::State>) -> Result<(), Violation> {
        let machine = &mut self.machines[at.0 as usize];
        let Some(node) = &mut machine.node else { return Ok(()) };
        if machine.stopped {
            machine.held.push(Held::Event(event));
            return Ok(());
        }
        let outputs = node.step(event, self.now_us + machine.skew_us);
        let me = node.me();
        let map = node.map().clone();
        G::stepped(self, at)?;
        for output in outputs {
            match output {
                Output::Send(to, message) => self.send(me, to, message),
                Output::Propose(change) => {
                    if let Change::Admit { holder, .. } = &change {
                        self.admissions += 1;
                        self.strike(Moment::Admission(self.admissions), Some((at, holder.instance.node)));
                    }
                    let late_us = self.network.latency_us(at, self.control.leader);
                    self.after_own(late_us, Happening::Proposed(at, change));
                }
                Output::Answer(request, answer) => G::answered(self, me, request, answer, map.clone())?,
                Output::Superseded => {
                    self.kill(at);
                    self.start(at);
                }
            }
        }
        Ok(())
    }

    pub(super) fn send(&mut self, from: Instance, to: NodeId, message: Message<G::State>) {
        if matches!(message, Message::Map(_)) && self.network.uninformed.contains(&to) {
            return;
        }
        let Some(arrives_us) = self.network.carry(from.node, to, self.now_us) else { return };
        let to_life = Incarnation(self.machines[to.0 as usize].incarnation);
        let message = G::carried(self, (from.node, to), message);
        self.at(arrives_us, Happening::Arrives { from, to, to_life, message });
    }

    pub(super) fn wake(&mut self, node: NodeId) -> Result<(), Violation> {
        let machine = &mut self.machines[node.0 as usize];
        machine.stopped = false;
        for held in std::mem::take(&mut machine.held) {
            match held {
                Held::Event(event) => self.step(node, event)?,
                Held::Guest(happening) => self.meet(happening)?,
            }
        }
        Ok(())
    }

    pub(super) fn start(&mut self, node: NodeId) {
        #[cfg(test)]
        let mutants = self.setting.mutants;
        let machine = &mut self.machines[node.0 as usize];
        machine.incarnation += 1;
        let life = Incarnation(machine.incarnation);
        let mut config = NodeConfig::default();
        // Few, so that learners need the state as well as the log.
        config.replica =
            ReplicaConfig { kept_max: 24, entries_max: 16, kept_for_state_weight_max: 64, ..config.replica };
        let me = Instance { node, incarnation: life };
        let fresh = Node::new(me, config, G::State::default());
        #[cfg(test)]
        let fresh = fresh.broken_by(mutants);
        machine.node = Some(fresh);
        let late_us = self.rng.random_range(0..TICK_US);
        self.after_own(late_us, Happening::Tick(node, life));
        G::started(self, node);
    }

    pub(super) fn kill(&mut self, node: NodeId) {
        let machine = &mut self.machines[node.0 as usize];
        (machine.node, machine.stopped) = (None, false);
        let held = std::mem::take(&mut machine.held);
        for other in (0..NODES).map(NodeId).filter(|other| *other != node) {
            self.breaks(other, node);
        }
        for held in held {
            if let Held::Guest(happening) = held {
                G::unmet(self, node, happening);
            }
        }
        G::killed(self, node);
    }

    /// Tells a node, unless it is cut off, that its connection to a dead one is broken.
    fn breaks(&mut self, at: NodeId, peer: NodeId) {
        if self.network.connects(at, peer) {
            self.after_own(1_000, Happening::Broken { at, peer });
        }
    }

    /// Shows a partition as a node has it to someone who has seen `seen` of it. None when there is
    /// no such process.
    pub fn read(
        &mut self,
        at: NodeId,
        partition: Partition,
        seen: Position,
    ) -> Option<Result<Shown<'_, G::State>, ReadRefusal>> {
        let machine = &mut self.machines[at.0 as usize];
        let now_us = self.now_us + machine.skew_us;
        Some(machine.node.as_mut()?.read(partition, seen, now_us))
    }

    /// Says whether a node hears from most members; false when its process does not run.
    pub fn is_in_touch(&self, at: NodeId) -> bool {
        let machine = &self.machines[at.0 as usize];
        machine.node.as_ref().is_some_and(|node| node.is_in_touch(self.now_us + machine.skew_us))
    }

    /// Returns whom a node asks in the stead of one that it doesn't hear.
    pub fn detour(&self, at: NodeId, to: Instance, turn: usize) -> Option<NodeId> {
        let machine = &self.machines[at.0 as usize];
        machine.node.as_ref()?.detour(to, turn, self.now_us + machine.skew_us)
    }

    /// Looks whether all partitions have all their replicas again, and these are alike.
    fn recovered(&self) -> Result<(), Violation> {
        for (partition, assignment) in self.control.map.assignments() {
            let ends: Vec<_> =
                self.in_sync(partition).map(|replica| (replica.commit(), replica.end())).collect();
            if ends.len() != self.setting.replicas || assignment.primary.is_none() {
                return Err(format!("{partition} has not recovered: {assignment:?}"));
            }
            if ends.iter().any(|end| *end != (ends[0].1, ends[0].1)) {
                return Err(format!("the replicas of {partition} are not equally far at the end: {ends:?}"));
            }
        }
        Ok(())
    }

    /// Iterates the replicas in sync of a partition, by control's map.
    pub fn in_sync(&self, partition: Partition) -> impl Iterator<Item = &Replica<G::State>> {
        let holders = &self.control.map.assignment(partition).in_sync;
        let nodes = holders.iter().filter_map(|held| alive(&self.machines, held.instance));
        nodes.filter_map(move |node| node.replica(partition))
    }

    /// Returns the map as control has it.
    pub fn committed_map(&self) -> &Arc<ClusterMap> {
        &self.control.map
    }

    /// Returns a node whose process runs, stopped or not.
    pub fn node(&self, node: NodeId) -> Option<&Node<G::State>> {
        self.machines[node.0 as usize].node.as_ref()
    }

    /// Returns the life that runs on a machine.
    pub fn life(&self, node: NodeId) -> Option<Incarnation> {
        self.node(node).map(|node| node.me().incarnation)
    }

    /// Returns the time, in microseconds since the beginning.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Tells what happens, to a person who follows one seed.
    #[allow(clippy::print_stderr, reason = "asked for, to follow one seed")]
    pub fn tell(&self, what: impl FnOnce() -> String) {
        if self.told {
            eprintln!("{:>9} {}", self.now_us, what());
        }
    }

    /// Mixes something into the digest of all that happened.
    pub fn trace(&mut self, what: u64) {
        self.trace = mix(self.trace ^ what);
    }

    /// Lets something happen to the guests after a while.
    pub fn after(&mut self, late_us: u64, happening: G::Happening) {
        self.after_own(late_us, Happening::Guest(happening));
    }

    pub(super) fn after_own(&mut self, late_us: u64, happening: Happening<G>) {
        self.at(self.now_us + late_us, happening);
    }

    pub(super) fn at(&mut self, at_us: u64, happening: Happening<G>) {
        self.serial += 1;
        self.queue.insert((at_us, self.serial), Box::new(happening));
    }
}

/// Returns the node of a life that is not over, stopped or not.
pub(super) fn alive<G: Guests>(machines: &[Machine<G>], instance: Instance) -> Option<&Node<G::State>> {
    machines[instance.node.0 as usize].node.as_ref().filter(|node| node.me() == instance)
}

pub(super) fn describe(partition: Partition, assignment: &Assignment) -> String {
    let list = |holders: &[Holder]| holders.iter().map(Holder::to_string).collect::<Vec<_>>().join(", ");
    let primary = assignment.primary.map_or("nobody".to_owned(), |primary| primary.to_string());
    let (life, epoch) = (assignment.life, assignment.epoch.0);
    let (in_sync, learners) = (list(&assignment.in_sync), list(&assignment.learners));
    format!("  {partition}: life {life}, epoch {epoch}: {primary} of [{in_sync}], learners [{learners}]")
}

/// Scatters a number's bits (the finisher of SplitMix64).
pub fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
