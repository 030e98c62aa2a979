//! What the leader of control proposes of itself. Pure.
//!
//! The detectors of all nodes watch all nodes, so whoever becomes leader has
//! fresh evidence; only the leader's counts, so there is no second opinion.

use crate::cluster::detector::Detector;
use crate::cluster::ids::Instance;
use crate::cluster::map::{Change, ClusterMap, Standing};

use std::collections::BTreeMap;

/// The supervisor's times, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct SupervisorConfig {
    /// A suspected member that answers for so long is taken back.
    pub return_us: u64,
    /// A member that is silent for so long is given up: what only it held is lost, and made again.
    pub forget_us: u64,
    /// When most members seem silent, or will within a heartbeat, it is more likely this node that doesn't
    /// hear: they are accused only after so long. By then another leads, if one can.
    pub most_silent_us: u64,
    /// Between two looks at the balance of load.
    pub rebalance_us: u64,
}

impl Default for SupervisorConfig {
    fn default() -> Self {
        Self { return_us: 500_000, forget_us: 60_000_000, most_silent_us: 1_000_000, rebalance_us: 1_000_000 }
    }
}

/// Decides what the leader proposes.
#[derive(Clone, Debug)]
pub struct Supervisor {
    config: SupervisorConfig,
    /// Since when a member is suspected, as far as this node has seen.
    silent_since_us: BTreeMap<Instance, u64>,
    most_silent_since_us: Option<u64>,
    rebalanced_us: u64,
}

impl Supervisor {
    /// Creates a supervisor that has seen nothing.
    pub fn new(config: SupervisorConfig) -> Self {
        Self { config, silent_since_us: BTreeMap::new(), most_silent_since_us: None, rebalanced_us: 0 }
    }

    /// Returns what should change, as seen by the leader `me`. What is
    /// proposed already is proposed again until the map shows it.
    pub fn decide(
        &mut self,
        me: Instance,
        map: &ClusterMap,
        detector: &Detector,
        now_us: u64,
    ) -> Vec<Change> {
        let others = map.members.iter().filter(|(node, _)| **node != me.node);
        let others =
            others.map(|(node, m)| (Instance { node: *node, incarnation: m.incarnation }, m.standing));
        let (up, suspected): (Vec<_>, Vec<_>) = others.partition(|(_, standing)| *standing == Standing::Up);
        let silent = up.iter().map(|(at, _)| *at).filter(|at| detector.suspects(*at, now_us));
        let mut changes: Vec<Change> = silent.map(Change::Down).collect();
        let all_well = changes.is_empty() && suspected.is_empty();
        // Who was heard last a heartbeat earlier than others is suspected so much earlier.
        let soon = up.iter().filter(|(at, _)| detector.suspects_soon(*at, now_us)).count();
        if changes.is_empty() || soon * 2 <= up.len() {
            self.most_silent_since_us = None;
        } else if now_us < *self.most_silent_since_us.get_or_insert(now_us) + self.config.most_silent_us {
            changes.clear();
        }
        if !map.is_up(me) {
            // Who leads reaches most others, whatever the leader before thought.
            changes.push(Change::Join(me));
        }
        self.silent_since_us.retain(|at, _| suspected.iter().any(|(held, _)| held == at));
        for (at, _) in suspected {
            let since_us = *self.silent_since_us.entry(at).or_insert(now_us);
            if detector.healthy_us(at, now_us) >= self.config.return_us {
                changes.push(Change::Join(at));
            } else if now_us >= since_us + self.config.forget_us && !detector.is_guarded(now_us) {
                changes.push(Change::Forget(at));
            }
        }
        if all_well && now_us >= self.rebalanced_us + self.config.rebalance_us {
            self.rebalanced_us = now_us;
            if map.clone().apply(&Change::Rebalance).is_ok() {
                changes.push(Change::Rebalance);
            }
        }
        changes
    }
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
