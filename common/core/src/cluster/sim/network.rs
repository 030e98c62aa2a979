//! Links between nodes: latency with a tail, order kept, messages lost, cuts in
//! either direction, added delay.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::cluster::NodeId;

/// Carries messages; says when one arrives, if it does.
pub struct Network {
    rng: StdRng,
    /// Of 10,000 messages between nodes, so many are lost.
    pub(super) lost: u32,
    /// No message passes from the first to the second.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    /// Nodes that get no map.
    pub(super) uninformed: BTreeSet<NodeId>,
    /// Added to what goes to and from a node, in microseconds.
    pub(super) delay_us: BTreeMap<NodeId, u64>,
    last_us: BTreeMap<(NodeId, NodeId), u64>,
}

impl Network {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            lost: 0,
            cut: BTreeSet::new(),
            uninformed: BTreeSet::new(),
            delay_us: BTreeMap::new(),
            last_us: BTreeMap::new(),
        }
    }

    /// Returns when a message sent now arrives; what arrives keeps its order.
    pub fn carry(&mut self, from: NodeId, to: NodeId, now_us: u64) -> Option<u64> {
        let latency_us = self.latency_us(from, to);
        if self.cut.contains(&(from, to)) || self.rng.random_range(0..10_000) < self.lost {
            return None;
        }
        let last_us = self.last_us.entry((from, to)).or_default();
        *last_us = (now_us + latency_us).max(*last_us + 1);
        Some(*last_us)
    }

    /// Draws what one way takes: 0.2 to 1 ms, once in a hundred up to 20 ms.
    pub(super) fn latency_us(&mut self, from: NodeId, to: NodeId) -> u64 {
        let slow = self.rng.random_range(0..100) == 0;
        let latency_us = self.rng.random_range(200..if slow { 20_000 } else { 1_000 });
        let delay = |node: NodeId| self.delay_us.get(&node).copied().unwrap_or(0);
        latency_us + delay(from) + delay(to)
    }

    /// Draws what a client's message takes: no fault between nodes touches it.
    pub fn client_us(&mut self) -> u64 {
        self.rng.random_range(200..1_000)
    }

    /// Cuts a node off from all others.
    pub(super) fn isolate(&mut self, node: NodeId, others: impl Iterator<Item = NodeId>, ways: (bool, bool)) {
        for other in others.filter(|other| *other != node) {
            if ways.0 {
                self.cut.insert((node, other));
            }
            if ways.1 {
                self.cut.insert((other, node));
            }
        }
    }

    /// Says whether a message and its answer pass.
    pub fn connects(&self, a: NodeId, b: NodeId) -> bool {
        !self.cut.contains(&(a, b)) && !self.cut.contains(&(b, a))
    }
}
