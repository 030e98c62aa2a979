//! What goes wrong, when, and for how long: all drawn from the seed beforehand.

use rand::RngExt;
use rand::rngs::StdRng;

use super::guests::{Guests, Violation};
use super::world::{Happening, NODES, World};
use crate::cluster::NodeId;

/// A fault, and how long until it is mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: Kind,
    /// Where.
    pub node: NodeId,
    /// How long, in microseconds.
    pub lasts_us: u64,
}

/// What goes wrong with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its process is killed; it starts again with empty memory.
    Crash,
    /// Its process is stopped, and continues with all that has come meanwhile.
    Pause,
    /// Nothing passes between it and the others.
    Isolate,
    /// What it sends is lost.
    Mute,
    /// What is sent to it is lost.
    Deaf,
    /// It and one other node don't hear each other.
    Apart(NodeId),
    /// What it sends and gets takes 200 ms more.
    Delay,
    /// It wakes late, again and again.
    Starve,
    /// Control commits nothing.
    Silence,
    /// Maps that are sent to it are lost.
    Uninformed,
    /// All processes are killed, and all of them start again.
    Blackout,
}

/// When to strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// At a time, in microseconds.
    At(u64),
    /// When control commits the n-th change after the start of faults.
    Change(u32),
    /// When a primary proposes an admission, the n-th time. What it strikes are
    /// the primary and the learner.
    Admission(u32),
    /// When the guests say so, the n-th time. What it strikes are two nodes that they name.
    Named(&'static str, u32),
}

/// The faults of one run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What goes wrong, and when.
    pub faults: Vec<(Moment, Fault)>,
    /// Of 10,000 messages between nodes, so many are lost.
    pub lost: u32,
    /// Whether stalls are held against their bounds: one fault only.
    pub single: bool,
}

/// No fault begins before, in microseconds.
pub const FAULTS_FROM_US: u64 = 1_000_000;
/// No fault begins after, in microseconds.
pub const FAULTS_TO_US: u64 = 2_500_000;

impl Plan {
    /// Draws a plan: one fault alone, several at random, or several aimed at
    /// moments at which something changes.
    pub fn draw(rng: &mut StdRng, nodes: u16) -> Self {
        let style = rng.random_range(0..6);
        let lost = [0, 0, 50, 200][rng.random_range(0..4)];
        if style == 0 {
            let at = Moment::At(rng.random_range(FAULTS_FROM_US..FAULTS_TO_US));
            return Self { faults: vec![(at, fault(rng, nodes))], lost: 0, single: true };
        }
        if style == 1 {
            return Self { faults: amnesia(rng, nodes), lost, single: false };
        }
        if style == 3 {
            return Self { faults: at_admissions(rng, nodes), lost, single: false };
        }
        let moment = |rng: &mut StdRng| match rng.random_range(0..4) {
            _ if style == 2 => Moment::At(rng.random_range(FAULTS_FROM_US..FAULTS_TO_US)),
            0 => Moment::At(rng.random_range(FAULTS_FROM_US..FAULTS_TO_US)),
            1 => Moment::Admission(rng.random_range(0..8)),
            _ => Moment::Change(rng.random_range(0..12)),
        };
        let count = rng.random_range(2..7);
        let mut faults: Vec<_> = (0..count).map(|_| (moment(rng), fault(rng, nodes))).collect();
        // Something has to happen for a change to follow.
        faults.push((Moment::At(rng.random_range(FAULTS_FROM_US..FAULTS_TO_US)), fault(rng, nodes)));
        Self { faults, lost, single: false }
    }
}

/// Nodes that are back with empty memory before control has noticed.
fn amnesia(rng: &mut StdRng, nodes: u16) -> Vec<(Moment, Fault)> {
    let at_us = rng.random_range(FAULTS_FROM_US + 1_000_000..FAULTS_TO_US);
    let mut node = NodeId(rng.random_range(0..nodes));
    let silence = Fault { kind: Kind::Silence, node, lasts_us: rng.random_range(50_000..400_000) };
    let mut faults = vec![(Moment::At(at_us), silence)];
    for _ in 0..rng.random_range(1..3) {
        let crash = Fault { kind: Kind::Crash, node, lasts_us: rng.random_range(1_000..40_000) };
        faults.push((Moment::At(at_us + rng.random_range(1_000..60_000)), crash));
        node = NodeId((node.0 + 1) % nodes);
    }
    faults
}

/// Primaries and learners that are lost at an admission, the primary also without
/// having learnt of it; before that, two nodes that lose their memory.
fn at_admissions(rng: &mut StdRng, nodes: u16) -> Vec<(Moment, Fault)> {
    let at_us = rng.random_range(FAULTS_FROM_US..FAULTS_TO_US);
    let first = rng.random_range(0..nodes);
    let mut faults = Vec::new();
    for more in 0..rng.random_range(0..3) {
        let node = NodeId((first + more) % nodes);
        let crash = Fault { kind: Kind::Crash, node, lasts_us: rng.random_range(5_000..300_000) };
        faults.push((Moment::At(at_us + rng.random_range(0..20_000)), crash));
    }
    for _ in 0..4 {
        let moment = Moment::Admission(rng.random_range(8..20));
        let node = NodeId(0);
        let lasts_us = rng.random_range(5_000..40_000);
        faults.push((moment, Fault { kind: Kind::Uninformed, node, lasts_us }));
        let lasts_us = rng.random_range(100_000..800_000);
        faults.push((moment, Fault { kind: Kind::Crash, node, lasts_us }));
    }
    faults
}

/// Draws a fault of any kind that strikes one node, or two that don't hear each other.
pub fn fault(rng: &mut StdRng, nodes: u16) -> Fault {
    let node = NodeId(rng.random_range(0..nodes));
    let other = NodeId((node.0 + rng.random_range(1..nodes)) % nodes);
    let kind = match rng.random_range(0..13) {
        0..=3 => Kind::Crash,
        4 | 5 => Kind::Pause,
        6 => Kind::Isolate,
        7 => Kind::Mute,
        8 => Kind::Deaf,
        9 => Kind::Apart(other),
        10 => Kind::Delay,
        11 => Kind::Starve,
        _ => Kind::Silence,
    };
    Fault { kind, node, lasts_us: rng.random_range(30_000..1_200_000) }
}

impl<G: Guests> World<G> {
    /// Begins the faults that wait for this moment, at the nodes that it is about.
    pub fn strike(&mut self, moment: Moment, pair: Option<(NodeId, NodeId)>) {
        if self.now_us >= FAULTS_TO_US {
            return;
        }
        let due: Vec<Fault> =
            self.plan.faults.iter().filter(|(at, _)| *at == moment).map(|(_, fault)| *fault).collect();
        for mut fault in due {
            let mut late_us = self.rng.random_range(0..3_000);
            match (fault.kind, pair) {
                (Kind::Apart(_), Some((node, other))) => {
                    (fault.node, fault.kind) = (node, Kind::Apart(other))
                }
                (Kind::Uninformed, Some((node, _))) => (fault.node, late_us) = (node, 0),
                // The primary before control has committed the admission, or the learner after it.
                (Kind::Crash, Some((node, _))) if self.rng.random() => fault.node = node,
                (Kind::Crash, Some((_, other))) => (fault.node, late_us) = (other, late_us + 3_000),
                (_, Some((node, _))) if matches!(moment, Moment::Named(..)) => fault.node = node,
                _ => {}
            }
            self.after_own(late_us, Happening::Begins(fault));
        }
    }

    pub(super) fn begins(&mut self, fault: Fault) {
        let node = fault.node;
        self.faults += 1;
        self.tell(|| format!("begins: {fault:?}, control is led by {}", self.control.leader));
        let others = (0..NODES).map(NodeId);
        match fault.kind {
            Kind::Crash => self.kill(node),
            Kind::Pause => self.machines[node.0 as usize].stopped = true,
            Kind::Isolate => self.network.isolate(node, others, (true, true)),
            Kind::Mute => self.network.isolate(node, others, (true, false)),
            Kind::Deaf => self.network.isolate(node, others, (false, true)),
            Kind::Apart(other) => {
                self.network.cut.extend([(node, other), (other, node)]);
            }
            Kind::Delay => _ = self.network.delay_us.insert(node, 200_000),
            Kind::Starve => self.at(self.now_us, Happening::Nap(node, self.now_us + fault.lasts_us)),
            Kind::Uninformed => _ = self.network.uninformed.insert(node),
            Kind::Silence => self.control.stopped_until_us = self.now_us + fault.lasts_us,
            Kind::Blackout => others.for_each(|node| self.kill(node)),
        }
        self.after_own(fault.lasts_us, Happening::Mended(fault));
    }

    pub(super) fn mended(&mut self, fault: Fault) -> Result<(), Violation> {
        self.tell(|| format!("mended: {fault:?}"));
        let node = fault.node;
        match fault.kind {
            Kind::Crash if self.machines[node.0 as usize].node.is_none() => self.start(node),
            Kind::Pause => self.wake(node)?,
            Kind::Isolate | Kind::Mute | Kind::Deaf | Kind::Apart(_) => {
                self.network.cut.retain(|(from, to)| *from != node && *to != node);
            }
            Kind::Delay => _ = self.network.delay_us.remove(&node),
            Kind::Uninformed => _ = self.network.uninformed.remove(&node),
            Kind::Blackout => {
                for node in (0..NODES).map(NodeId) {
                    if self.life(node).is_none() {
                        self.start(node);
                    }
                }
            }
            Kind::Crash | Kind::Starve | Kind::Silence => {}
        }
        Ok(())
    }

    /// Stops a starved process for a while, again and again until `until_us`.
    pub(super) fn nap(&mut self, node: NodeId, until_us: u64) {
        let (asleep_us, awake_us) =
            (self.rng.random_range(5_000..60_000), self.rng.random_range(1_000..20_000));
        self.machines[node.0 as usize].stopped = true;
        self.after_own(asleep_us, Happening::Wakes(node));
        if self.now_us < until_us {
            self.after_own(asleep_us + awake_us, Happening::Nap(node, until_us));
        }
    }
}
