//! A node's share of the core as one step function. Pure: the driver owns
//! sockets, timers and control's log.
//!
//! ```text
//!   tick, message, broken link, new map, write ─▶ Node::step ─▶ send, propose, answer
//! ```
//!
//! A node acts only on a map that names its own life ([`Incarnation`]); with any
//! other it knows where data is, holds nothing, and asks to join. Whoever hears a
//! heartbeat with an older version of the map sends the newer one, and who hears
//! one with a newer version shows the older one at once, so a map reaches
//! everybody who reaches anybody.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::detector::{Detector, DetectorConfig, Heartbeat};
use crate::cluster::ids::{Epoch, Holder, Instance, NodeId, Partition, Position};
use crate::cluster::map::{Change, ClusterMap};
use crate::cluster::mutant::{Mutant, Mutants};
use crate::cluster::protocol::{
    Answer, Effect, ReadRefusal, ReplicaConfig, Replication, RequestId, Shown, State,
};
use crate::cluster::replica::Replica;
use crate::cluster::supervisor::{Supervisor, SupervisorConfig};

/// A node's settings.
#[derive(Clone, Copy, Debug)]
pub struct NodeConfig {
    /// The failure detector's.
    pub detector: DetectorConfig,
    /// Its replicas'.
    pub replica: ReplicaConfig,
    /// The control leader's.
    pub supervisor: SupervisorConfig,
    /// A node that has not heard from most members for so long says that its answers may be old.
    pub in_touch_us: u64,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            detector: DetectorConfig::default(),
            replica: ReplicaConfig::default(),
            supervisor: SupervisorConfig::default(),
            in_touch_us: 400_000,
        }
    }
}

impl NodeConfig {
    /// Suspects a peer after so long a silence. Where that is longer than by default, whatever else waits for a silent
    /// node waits the longer.
    #[must_use]
    pub fn suspecting_after(self, suspect_us: u64) -> Self {
        let default = DetectorConfig::default().suspect_us;
        let longer = |us: u64| us.max(us * suspect_us / default);
        Self {
            detector: DetectorConfig { suspect_us, ..self.detector },
            replica: ReplicaConfig { eject_us: longer(self.replica.eject_us), ..self.replica },
            in_touch_us: self.in_touch_us.max(suspect_us),
            ..self
        }
    }
}

/// What nodes tell each other.
#[derive(Clone, Debug)]
pub enum Message<S: State> {
    /// That the sender lives, and whom it hears.
    Heartbeat(Heartbeat),
    /// A map that is newer than the receiver's.
    Map(Arc<ClusterMap>),
    /// From a replica to another.
    Replication {
        /// The partition.
        partition: Partition,
        /// The epoch in which it was sent.
        epoch: Epoch,
        /// [`Holder::since`] of the sender.
        from_since: u64,
        /// [`Holder::since`] of the receiver.
        to_since: u64,
        /// What it says.
        message: Replication<S>,
    },
}

/// What happens to a node.
#[derive(Clone, Debug)]
pub enum Event<S: State> {
    /// Time has passed; at least once in each heartbeat's time.
    Tick,
    /// A message of a life of another node.
    Message(Instance, Message<S>),
    /// The connection to a node is broken or refused.
    Broken(NodeId),
    /// Control has committed a map.
    Map(Arc<ClusterMap>),
    /// Whether this node leads control.
    Leads(bool),
    /// A write for a partition.
    Submit(Partition, RequestId, S::Op),
}

/// What a node wants done.
#[derive(Clone, Debug)]
pub enum Output<S: State> {
    /// Send to a node; may be lost, but what arrives arrives in order.
    Send(NodeId, Message<S>),
    /// Propose to control; may be lost.
    Propose(Change),
    /// Answer a write.
    Answer(RequestId, Answer<S::Outcome>),
    /// This life is over for the cluster: begin the next one, with empty memory.
    Superseded,
}

/// A node of the core.
#[derive(Clone, Debug)]
pub struct Node<S: State> {
    me: Instance,
    config: NodeConfig,
    mutants: Mutants,
    empty: S,
    map: Arc<ClusterMap>,
    /// Whether a map has named this life.
    joined: bool,
    leads: bool,
    replicas: BTreeMap<Partition, Replica<S>>,
    detector: Detector,
    supervisor: Supervisor,
}

impl<S: State> Node<S> {
    /// Creates a life of a node that holds nothing. `empty` is what every
    /// partition begins with.
    pub fn new(me: Instance, config: NodeConfig, empty: S) -> Self {
        Self {
            me,
            config,
            mutants: Mutants::default(),
            empty,
            map: Arc::new(ClusterMap::new(1, 1)),
            joined: false,
            leads: false,
            replicas: BTreeMap::new(),
            detector: Detector::new(config.detector),
            supervisor: Supervisor::new(config.supervisor),
        }
    }

    /// Breaks a rule on purpose, for tests of the tests.
    #[cfg(test)]
    pub(crate) fn broken_by(mut self, mutants: Mutants) -> Self {
        self.mutants = mutants;
        self.detector = self.detector.broken_by(mutants);
        self
    }

    /// Takes one event.
    pub fn step(&mut self, event: Event<S>, now_us: u64) -> Vec<Output<S>> {
        let mut out = Vec::new();
        match event {
            Event::Tick => self.tick(now_us, &mut out),
            Event::Message(from, Message::Heartbeat(heartbeat)) => {
                self.detector.heard(from, heartbeat, now_us);
                if heartbeat.map_version < self.map.version {
                    out.push(Output::Send(from.node, Message::Map(self.map.clone())));
                } else if heartbeat.map_version > self.map.version {
                    // So that it learns at once what this node lacks; one that has just joined has
                    // nobody else to tell.
                    let behind = self.detector.heartbeat(from.node, self.map.version, now_us);
                    out.push(Output::Send(from.node, Message::Heartbeat(behind)));
                }
            }
            Event::Message(_, Message::Map(map)) | Event::Map(map) => self.adopt(map, now_us, &mut out),
            Event::Message(
                from,
                Message::Replication { partition, epoch, from_since, to_since, message },
            ) => {
                let from = Holder { instance: from, since: from_since };
                self.with_replica(partition, &mut out, |replica, effects| {
                    if replica.me().since == to_since {
                        replica.receive(from, epoch, message, now_us, effects);
                    }
                });
            }
            Event::Broken(node) => {
                self.detector.broken(node, now_us);
                self.supervise(now_us, &mut out);
            }
            Event::Leads(leads) => self.leads = leads,
            Event::Submit(partition, request, op) => {
                let taken = self.with_replica(partition, &mut out, |replica, effects| {
                    replica.submit(request, op, now_us, effects);
                });
                if !taken {
                    out.push(Output::Answer(request, Answer::NotPrimary));
                }
            }
        }
        out
    }

    fn tick(&mut self, now_us: u64, out: &mut Vec<Output<S>>) {
        self.detector.tick(now_us);
        if !self.map.is_member(self.me) {
            out.push(Output::Propose(Change::Join(self.me)));
        }
        let others = self.map.members.keys().filter(|node| **node != self.me.node);
        out.extend(others.map(|node| {
            let heartbeat = self.detector.heartbeat(*node, self.map.version, now_us);
            Output::Send(*node, Message::Heartbeat(heartbeat))
        }));
        let guarded = self.detector.is_guarded(now_us);
        let partitions: Vec<Partition> = self.replicas.keys().copied().collect();
        for partition in partitions {
            self.with_replica(partition, out, |replica, effects| {
                if guarded {
                    replica.forgive(now_us);
                }
                replica.tick(now_us, effects);
            });
        }
        self.supervise(now_us, out);
    }

    /// As leader of control: proposes what follows from who is alive.
    fn supervise(&mut self, now_us: u64, out: &mut Vec<Output<S>>) {
        if self.leads {
            let changes = self.supervisor.decide(self.me, &self.map, &self.detector, now_us);
            out.extend(changes.into_iter().map(Output::Propose));
        }
    }

    fn adopt(&mut self, map: Arc<ClusterMap>, now_us: u64, out: &mut Vec<Output<S>>) {
        if map.version <= self.map.version && !self.mutants.has(Mutant::OlderMap) {
            return;
        }
        self.map = map.clone();
        for (node, member) in map.members.iter().filter(|(node, _)| **node != self.me.node) {
            self.detector.expect(Instance { node: *node, incarnation: member.incarnation }, now_us);
        }
        let mine = map.members.get(&self.me.node).map(|member| member.incarnation);
        if mine.is_some_and(|mine| mine > self.me.incarnation) || (mine.is_none() && self.joined) {
            out.push(Output::Superseded);
            return;
        }
        let any = self.mutants.has(Mutant::AnyIncarnation) && mine.is_some();
        if mine != Some(self.me.incarnation) && !any {
            return;
        }
        self.joined = true;
        let me = if any {
            Instance { node: self.me.node, incarnation: mine.expect("it is some") }
        } else {
            self.me
        };
        for (partition, assignment) in map.assignments() {
            let holder = assignment.holder(me);
            let held = self.replicas.get(&partition).map(Replica::me);
            let empty = self.empty.clone();
            if held.is_some() && held != holder {
                // So that who waits for it is answered.
                self.with_replica(partition, out, |replica, effects| {
                    replica.adopt(assignment, &empty, now_us, effects);
                });
                self.replicas.remove(&partition);
            }
            let Some(holder) = holder else { continue };
            self.replicas.entry(partition).or_insert_with(|| {
                let replica = Replica::new(holder, partition, self.config.replica, self.empty.clone());
                #[cfg(test)]
                let replica = replica.broken_by(self.mutants);
                replica
            });
            self.with_replica(partition, out, |replica, effects| {
                replica.adopt(assignment, &empty, now_us, effects);
            });
        }
    }

    /// Lets a replica act and passes on what it wants; false when there is none.
    fn with_replica(
        &mut self,
        partition: Partition,
        out: &mut Vec<Output<S>>,
        act: impl FnOnce(&mut Replica<S>, &mut Vec<Effect<S>>),
    ) -> bool {
        let Some(replica) = self.replicas.get_mut(&partition) else { return false };
        let mut effects = Vec::new();
        act(replica, &mut effects);
        let (epoch, from_since) = (replica.assignment().epoch, replica.me().since);
        out.extend(effects.into_iter().map(|effect| match effect {
            Effect::Send(to, message) => {
                let to_since = to.since;
                let message = Message::Replication { partition, epoch, from_since, to_since, message };
                Output::Send(to.instance.node, message)
            }
            Effect::Propose(change) => Output::Propose(change),
            Effect::Answer(request, answer) => Output::Answer(request, answer),
        }));
        true
    }

    /// Shows a partition to a reader that has seen `seen` of it. To be judged
    /// at `now_us` after the state was taken, never before.
    pub fn read(
        &mut self,
        partition: Partition,
        seen: Position,
        now_us: u64,
    ) -> Result<Shown<'_, S>, ReadRefusal> {
        let (me, within_us) = (self.me, self.config.in_touch_us);
        let in_touch = self.is_in_touch(now_us);
        let detector = &self.detector;
        let replica = self.replicas.get_mut(&partition).ok_or(ReadRefusal::NotInSync)?;
        let primary = replica.assignment().primary.map(|primary| primary.instance);
        // What the primary acknowledged before it fell silent, only its next message would have told; and those who
        // would put another in its place may themselves have been away.
        let hears_primary =
            primary.is_some_and(|primary| primary == me || detector.is_in_touch(primary, within_us, now_us));
        let shown = replica.read(seen)?;
        Ok(Shown { fresh: shown.fresh && in_touch && hears_primary, ..shown })
    }

    /// Says whether this node has heard from most members so lately that a map
    /// without it would have reached it: whoever meets a node with an older map
    /// sends it the newer one, and most members have to agree to a map.
    pub fn is_in_touch(&self, now_us: u64) -> bool {
        let within_us = self.config.in_touch_us;
        let others = self.map.members.iter().filter(|(node, _)| **node != self.me.node);
        let others = others.map(|(node, m)| Instance { node: *node, incarnation: m.incarnation });
        let heard = others.filter(|other| self.detector.is_in_touch(*other, within_us, now_us)).count();
        let member = self.map.is_member(self.me) || self.mutants.has(Mutant::AnyIncarnation);
        member && (heard + 1) * 2 > self.map.members.len()
    }

    /// Returns a member that may reach another one which this node doesn't hear: each turn the next
    /// one. None while it hears that one, or nobody. Control hears both ends of one broken link and
    /// removes neither, so whoever has to reach the other end goes round.
    pub fn detour(&self, to: Instance, turn: usize, now_us: u64) -> Option<NodeId> {
        if !self.detector.suspects(to, now_us) {
            return None;
        }
        let others = self.map.members.iter().filter(|(node, _)| ![self.me.node, to.node].contains(node));
        let others = others.map(|(node, m)| Instance { node: *node, incarnation: m.incarnation });
        let heard: Vec<NodeId> =
            others.filter(|other| !self.detector.suspects(*other, now_us)).map(|other| other.node).collect();
        heard.get(turn % heard.len().max(1)).copied()
    }

    /// Returns the newest map that this node has.
    pub fn map(&self) -> &Arc<ClusterMap> {
        &self.map
    }

    /// Returns this life's name.
    pub fn me(&self) -> Instance {
        self.me
    }

    /// Iterates the replicas that this node holds.
    pub fn replicas(&self) -> impl Iterator<Item = (Partition, &Replica<S>)> {
        self.replicas.iter().map(|(partition, replica)| (*partition, replica))
    }

    /// Returns a replica that this node holds.
    pub fn replica(&self, partition: Partition) -> Option<&Replica<S>> {
        self.replicas.get(&partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_longer_for_a_silent_node_ejects_it_later_and_a_hasty_one_ejects_nobody_sooner() {
        let times = |suspect_us| {
            let config = NodeConfig::default().suspecting_after(suspect_us);
            (config.detector.suspect_us, config.replica.eject_us, config.in_touch_us)
        };
        assert_eq!(times(120_000), (120_000, 80_000, 400_000));
        assert_eq!(times(60_000), (60_000, 80_000, 400_000));
        assert_eq!(times(1_200_000), (1_200_000, 800_000, 1_200_000));
    }
}
