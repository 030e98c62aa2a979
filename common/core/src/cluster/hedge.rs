//! Which replica answers a read, and when a second one is asked. Pure.
//!
//! ```text
//!   begin ─▶ ask ── p95 of late, 10 ms at most ──▶ ask another ──▶ …
//!              └─ refused: ask another at once        first good answer wins
//! ```
//!
//! A read goes to a replica in sync, this node's own before others, in turn. One
//! that has not answered within the hedge delay is joined by another ("The Tail
//! at Scale", Dean and Barroso 2013). The delay is the 95th percentile of late
//! answers but never more than a bound: a percentile alone is dragged up by the
//! very node that is sick (CASSANDRA-14293). So in good times about one read in
//! twenty is sent twice. A node that owes an answer for longer is asked last:
//! one that stops costs the first reads one delay each, and the later ones
//! nothing, before any detector has noticed.

use std::collections::{BTreeMap, VecDeque};

use crate::cluster::ids::{NodeId, Partition};
use crate::cluster::map::ClusterMap;

/// Answers whose latency is remembered.
const LATENCIES: usize = 64;

/// When a second replica is asked.
#[derive(Clone, Copy, Debug)]
pub struct HedgeConfig {
    /// At the latest so long after the first.
    pub delay_us_max: u64,
}

impl Default for HedgeConfig {
    fn default() -> Self {
        Self { delay_us_max: 10_000 }
    }
}

/// Chooses replicas for the reads of one node, or of one client.
#[derive(Clone, Debug)]
pub struct Hedger {
    config: HedgeConfig,
    /// Holds replicas itself; none for a client.
    me: Option<NodeId>,
    latencies_us: VecDeque<u64>,
    delay_us: u64,
    /// Since when a node owes an answer, to whichever read.
    owing: BTreeMap<NodeId, u64>,
    turn: usize,
}

/// A read on its way.
#[derive(Clone, Debug)]
pub struct Read {
    partition: Partition,
    /// To be asked yet, the next one last.
    left: Vec<NodeId>,
    /// When whom was asked.
    asked: BTreeMap<NodeId, u64>,
    due_us: u64,
}

impl Read {
    /// Returns when [`Hedger::due`] is to be called, should no good answer come before.
    pub fn due_us(&self) -> u64 {
        self.due_us
    }

    /// Returns what is read.
    pub fn partition(&self) -> Partition {
        self.partition
    }
}

impl Hedger {
    /// Creates a chooser without experience.
    pub fn new(config: HedgeConfig, me: Option<NodeId>) -> Self {
        Self {
            config,
            me,
            latencies_us: VecDeque::new(),
            delay_us: config.delay_us_max,
            owing: BTreeMap::new(),
            turn: 0,
        }
    }

    /// Begins a read: the node to ask first, if the map has any.
    pub fn begin(&mut self, map: &ClusterMap, partition: Partition, now_us: u64) -> (Read, Option<NodeId>) {
        let mut read = Read { partition, left: Vec::new(), asked: BTreeMap::new(), due_us: now_us };
        let first = self.ask(&mut read, map, now_us);
        (read, first)
    }

    /// Says whom to ask as well, now that nobody has answered until [`Read::due_us`].
    pub fn due(&mut self, read: &mut Read, map: &ClusterMap, now_us: u64) -> Option<NodeId> {
        self.ask(read, map, now_us)
    }

    /// Says whom to ask now that a node has refused, or can't be reached.
    pub fn refused(
        &mut self,
        read: &mut Read,
        map: &ClusterMap,
        node: NodeId,
        now_us: u64,
    ) -> Option<NodeId> {
        self.gave_up(node);
        // Once all have refused, some time has to pass for anything to change.
        if read.left.is_empty() {
            return None;
        }
        self.ask(read, map, now_us)
    }

    /// Takes note that a node's answer is waited for no longer.
    pub fn gave_up(&mut self, node: NodeId) {
        self.owing.remove(&node);
    }

    /// Takes note of a node's good answer, also of one that comes after another's.
    pub fn answered(&mut self, read: &Read, node: NodeId, now_us: u64) {
        self.owing.remove(&node);
        let Some(asked_us) = read.asked.get(&node) else { return };
        if self.latencies_us.len() == LATENCIES {
            self.latencies_us.pop_front();
        }
        self.latencies_us.push_back(now_us.saturating_sub(*asked_us));
        let mut sorted: Vec<u64> = self.latencies_us.iter().copied().collect();
        sorted.sort_unstable();
        self.delay_us = sorted[sorted.len() * 95 / 100].min(self.config.delay_us_max);
        if sorted.len() < LATENCIES {
            self.delay_us = self.config.delay_us_max;
        }
    }

    /// Chooses the next node; begins anew with those of the present map when all were asked.
    fn ask(&mut self, read: &mut Read, map: &ClusterMap, now_us: u64) -> Option<NodeId> {
        read.due_us = now_us + self.delay_us;
        if read.left.is_empty() {
            read.left =
                map.assignment(read.partition).in_sync.iter().map(|held| held.instance.node).collect();
            self.turn = self.turn.wrapping_add(1);
            let turn = self.turn % read.left.len().max(1);
            read.left.rotate_left(turn);
            // The last is asked first.
            let late = |node: &NodeId| {
                self.owing.get(node).is_some_and(|since_us| now_us >= since_us + self.config.delay_us_max)
            };
            read.left.sort_by_key(|node| (!late(node), Some(*node) == self.me));
        }
        let node = read.left.pop()?;
        read.asked.insert(node, now_us);
        self.owing.entry(node).or_insert(now_us);
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::ids::{Holder, Incarnation, Instance};

    const MS: u64 = 1_000;

    fn map() -> ClusterMap {
        let mut map = ClusterMap::new(1, 3);
        let holder = |node| Holder {
            instance: Instance { node: NodeId(node), incarnation: Incarnation(1) },
            since: 1,
        };
        map.partitions[0].in_sync = (1..=3).map(holder).collect();
        map
    }

    fn hedger(me: Option<u16>) -> Hedger {
        Hedger::new(HedgeConfig::default(), me.map(NodeId))
    }

    #[test]
    fn reads_go_to_all_replicas_in_turn() {
        let (mut hedger, map) = (hedger(None), map());
        let mut firsts: Vec<_> = (0..3).map(|_| hedger.begin(&map, Partition(0), 0).1).collect();
        firsts.sort();
        assert_eq!(firsts, [1, 2, 3].map(|node| Some(NodeId(node))));
    }

    #[test]
    fn a_nodes_own_replica_is_asked_first() {
        let (mut hedger, map) = (hedger(Some(2)), map());
        assert!((0..5).all(|_| hedger.begin(&map, Partition(0), 0).1 == Some(NodeId(2))));
    }

    #[test]
    fn a_silent_replica_is_joined_by_another_and_is_asked_last_from_then_on() {
        let (mut hedger, map) = (hedger(None), map());
        let (mut read, first) = hedger.begin(&map, Partition(0), 0);
        assert_eq!(read.due_us(), 10 * MS);
        let second = hedger.due(&mut read, &map, 10 * MS).expect("there are others");
        assert_ne!(Some(second), first);
        hedger.answered(&read, second, 11 * MS);
        for _ in 0..6 {
            assert_ne!(hedger.begin(&map, Partition(0), 12 * MS).1, first);
        }
        hedger.answered(&read, first.expect("it was asked"), 20 * MS);
        let asked: Vec<_> = (0..3).map(|_| hedger.begin(&map, Partition(0), 21 * MS).1).collect();
        assert!(asked.contains(&first), "it has answered");
    }

    #[test]
    fn a_refusal_moves_on_at_once_until_all_have_refused() {
        let (mut hedger, map) = (hedger(None), map());
        let (mut read, first) = hedger.begin(&map, Partition(0), 0);
        let second = hedger.refused(&mut read, &map, first.expect("asked"), MS).expect("there are others");
        let third = hedger.refused(&mut read, &map, second, MS).expect("there is another");
        assert_eq!(hedger.refused(&mut read, &map, third, MS), None);
        let due_us = read.due_us();
        assert!(hedger.due(&mut read, &map, due_us).is_some(), "after a while all are asked again");
    }

    #[test]
    fn the_delay_follows_fast_answers_and_never_exceeds_its_bound() {
        let (mut hedger, map) = (hedger(None), map());
        for (latency_us, expected_us) in [(300, 300), (50 * MS, 10 * MS)] {
            for _ in 0..LATENCIES {
                let (read, node) = hedger.begin(&map, Partition(0), 0);
                hedger.answered(&read, node.expect("there are some"), latency_us);
            }
            assert_eq!(hedger.begin(&map, Partition(0), 0).0.due_us(), expected_us);
        }
    }

    #[test]
    fn in_good_times_about_one_read_in_twenty_is_sent_twice() {
        let (mut hedger, map) = (hedger(None), map());
        let mut twice = 0;
        for begun in 0..2_000 {
            let now_us = begun * 100 * MS;
            let (mut read, first) = hedger.begin(&map, Partition(0), now_us);
            let answers_us = now_us + 300 + begun * 7_919 % 500;
            if read.due_us() < answers_us {
                let due_us = read.due_us();
                twice += u32::from(hedger.due(&mut read, &map, due_us).is_some());
            }
            hedger.answered(&read, first.expect("there are some"), answers_us);
        }
        assert!((50..=160).contains(&twice), "{twice} of 2,000");
    }
}
