//! Control as one actor: linearizable, may go silent, gets another leader. Its
//! real counterpart is a Raft group with a suite of its own.

use std::sync::Arc;

use rand::RngExt;

use super::faults::{FAULTS_FROM_US, Moment};
use super::guests::{Guests, Violation};
use super::world::{Happening, NODES, World, describe};
use crate::cluster::{Change, ClusterMap, Event, Incarnation, Message, Node, NodeId};

/// Time from the loss of the leader to the next one, at least, in microseconds.
const ELECTION_US: std::ops::Range<u64> = 150_000..300_000;

pub(super) struct Control {
    pub(super) map: Arc<ClusterMap>,
    pub(super) leader: NodeId,
    pub(super) leader_life: Incarnation,
    /// Since when the leader reaches no majority.
    pub(super) silent_since_us: Option<u64>,
    /// How long the election takes that began then.
    pub(super) election_us: u64,
    /// Nothing is committed before then, whoever leads.
    pub(super) stopped_until_us: u64,
}

impl Control {
    /// Begins with a map without members, led by the first node.
    pub(super) fn new(map: Arc<ClusterMap>) -> Self {
        Self {
            map,
            leader: NodeId(0),
            leader_life: Incarnation(1),
            silent_since_us: None,
            election_us: 0,
            stopped_until_us: 0,
        }
    }

    /// Commits a change, if it changes anything; the new map is to be told.
    pub(super) fn commit(&mut self, change: &Change) -> Option<Arc<ClusterMap>> {
        let mut map = (*self.map).clone();
        map.apply(change).ok()?;
        self.map = Arc::new(map);
        Some(self.map.clone())
    }
}

impl<G: Guests> World<G> {
    pub(super) fn proposed(&mut self, from: NodeId, change: Change) {
        let leader = self.control.leader;
        let reaches = from == leader || self.network.connects(from, leader);
        if reaches && self.leads() {
            let late_us = self.rng.random_range(1_000..5_000);
            self.after_own(late_us, Happening::Commits(change));
        }
    }

    pub(super) fn commits(&mut self, change: &Change) -> Result<(), Violation> {
        if !self.leads() {
            return Ok(());
        }
        let Some(map) = self.control.commit(change) else { return Ok(()) };
        self.tell(|| format!("version {}: {change:?}", map.version));
        map.assignments().for_each(|(partition, assignment)| self.tell(|| describe(partition, assignment)));
        G::committed(self, &map)?;
        let leader = self.control.leader;
        self.step(leader, Event::Map(map.clone()))?;
        if let Some(me) = self.machines[leader.0 as usize].node.as_ref().map(Node::me) {
            for other in (0..NODES).map(NodeId).filter(|other| *other != leader) {
                self.send(me, other, Message::Map(map.clone()));
            }
        }
        if self.now_us >= FAULTS_FROM_US {
            self.changes += 1;
            self.strike(Moment::Change(self.changes), None);
        }
        Ok(())
    }

    /// Says whether control can commit now.
    fn leads(&self) -> bool {
        let leader = self.control.leader;
        let same_life = self.life(leader) == Some(self.control.leader_life);
        same_life && self.now_us >= self.control.stopped_until_us && self.reaches_majority(leader)
    }

    /// Says whether a node can lead: followers leave one whose heartbeats come late.
    fn reaches_majority(&self, node: NodeId) -> bool {
        let runs = |node: NodeId| {
            let prompt = !self.network.delay_us.contains_key(&node);
            prompt && self.life(node).is_some() && !self.machines[node.0 as usize].stopped
        };
        let others = (0..NODES).map(NodeId).filter(|other| *other != node && runs(*other));
        runs(node) && others.filter(|other| self.network.connects(node, *other)).count() >= 2
    }

    pub(super) fn watch_control(&mut self) -> Result<(), Violation> {
        self.after_own(10_000, Happening::WatchControl);
        if self.leads() {
            self.control.silent_since_us = None;
            return Ok(());
        }
        let Some(since_us) = self.control.silent_since_us else {
            self.control.silent_since_us = Some(self.now_us);
            self.control.election_us = self.rng.random_range(ELECTION_US);
            return Ok(());
        };
        let old = self.control.leader;
        let able = (0..NODES).map(NodeId).filter(|node| *node != old && self.reaches_majority(*node));
        let able: Vec<NodeId> = able.collect();
        if self.now_us < since_us + self.control.election_us || able.is_empty() {
            return Ok(());
        }
        let new = able[self.rng.random_range(0..able.len())];
        (self.control.leader, self.control.stopped_until_us) = (new, self.now_us);
        self.control.leader_life = self.life(new).expect("it reaches a majority");
        self.control.silent_since_us = None;
        self.tell(|| format!("{new} leads control"));
        self.step(old, Event::Leads(false))?;
        self.step(new, Event::Leads(true))?;
        self.step(new, Event::Map(self.control.map.clone()))
    }
}
