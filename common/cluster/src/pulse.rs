//! Heartbeats in the stead of a core that is busy. Pure.
//!
//! The core beats at each tick. A step that applies much may take longer than others wait for a beat, and a
//! node that works is not one that is lost: taking its part away would make more work of it. So another
//! thread beats for the core as long as that makes progress at all.

use std::collections::BTreeMap;

use sanso_core::cluster::{Heartbeat, Incarnation, Instance, NodeId};

/// What the beating thread knows.
#[derive(Debug)]
pub(crate) struct Pulse {
    heartbeat_us: u64,
    /// How long the core may take for one step before its node counts as lost.
    busy_us_max: u64,
    /// The newest time heard of each node's present life, by its clock.
    heard: BTreeMap<NodeId, (Incarnation, u64)>,
    /// When the core beat last.
    ticked_us: u64,
}

impl Pulse {
    /// Makes that of a node whose core beats as often as it says, if it is not busy for longer than it may.
    pub(crate) fn new(heartbeat_us: u64, busy_us_max: u64) -> Self {
        Self { heartbeat_us, busy_us_max, heard: BTreeMap::new(), ticked_us: 0 }
    }

    /// Takes a heartbeat of another node.
    pub(crate) fn heard(&mut self, from: Instance, heartbeat: Heartbeat) {
        let heard = self.heard.entry(from.node).or_insert((from.incarnation, 0));
        if from.incarnation > heard.0 {
            *heard = (from.incarnation, 0);
        }
        if from.incarnation == heard.0 {
            heard.1 = heard.1.max(heartbeat.sent_us);
        }
    }

    /// Takes note that the core has beaten.
    pub(crate) fn ticked(&mut self, now_us: u64) {
        self.ticked_us = now_us;
    }

    /// Returns the heartbeats to send in the core's stead: none while it beats itself, nor when it has
    /// made no progress for too long. `map_version`: that of the map that the core has.
    pub(crate) fn beats(
        &self,
        to: impl Iterator<Item = NodeId>,
        map_version: u64,
        now_us: u64,
    ) -> Vec<(NodeId, Heartbeat)> {
        let silent_us = now_us.saturating_sub(self.ticked_us);
        if silent_us <= self.heartbeat_us || silent_us > self.busy_us_max {
            return Vec::new();
        }
        let beat = |node| {
            let echo_us = self.heard.get(&node).map_or(0, |(_, heard_us)| *heard_us);
            (node, Heartbeat { sent_us: now_us, echo_us, map_version })
        };
        to.map(beat).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(incarnation: u64) -> Instance {
        Instance { node: NodeId(2), incarnation: Incarnation(incarnation) }
    }

    fn at(sent_us: u64) -> Heartbeat {
        Heartbeat { sent_us, echo_us: 0, map_version: 0 }
    }

    #[test]
    fn it_beats_while_the_core_is_busy_but_not_for_ever() {
        let mut pulse = Pulse::new(20, 500);
        pulse.heard(life(1), at(7));
        pulse.ticked(1_000);
        let beats = |pulse: &Pulse, now_us| pulse.beats([NodeId(2), NodeId(3)].into_iter(), 5, now_us);
        assert_eq!(beats(&pulse, 1_020), []);
        let beat = |echo_us| Heartbeat { sent_us: 1_021, echo_us, map_version: 5 };
        assert_eq!(beats(&pulse, 1_021), [(NodeId(2), beat(7)), (NodeId(3), beat(0))]);
        assert_eq!(beats(&pulse, 1_500).len(), 2);
        assert_eq!(beats(&pulse, 1_501), []);
        pulse.ticked(1_501);
        assert_eq!(beats(&pulse, 1_530).len(), 2);
    }

    #[test]
    fn it_echoes_the_newest_time_of_the_present_life() {
        let mut pulse = Pulse::new(20, 500);
        let echo = |pulse: &Pulse| pulse.beats([NodeId(2)].into_iter(), 0, 100)[0].1.echo_us;
        for (incarnation, sent_us, echo_us) in [(1, 50, 50), (1, 40, 50), (2, 3, 3), (1, 60, 3), (2, 9, 9)] {
            pulse.heard(life(incarnation), at(sent_us));
            assert_eq!(echo(&pulse), echo_us, "{incarnation} {sent_us}");
        }
    }
}
