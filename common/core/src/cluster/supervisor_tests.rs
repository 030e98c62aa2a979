//! Whom a leader accuses, heartbeat by heartbeat.

use super::*;
use crate::cluster::detector::{DetectorConfig, Heartbeat};
use crate::cluster::ids::{Incarnation, NodeId};

const BEAT_US: u64 = 20_000;
const ME: Instance = instance(1);

const fn instance(node: u16) -> Instance {
    Instance { node: NodeId(node), incarnation: Incarnation(1) }
}

/// Five members, of which the first leads. Each other one is heard until a time of its own, and the leader looks every 2 ms.
/// Returns when the first one was accused, and all who were before `until_us`.
fn accused(heard_until_us: [(u16, u64); 4], until_us: u64) -> Option<(u64, Vec<u16>)> {
    let mut map = ClusterMap::new(4, 2);
    let mut detector = Detector::new(DetectorConfig::default());
    for node in 1..6 {
        map.apply(&Change::Join(instance(node))).expect("it is new");
        detector.expect(instance(node), 0);
    }
    let mut supervisor = Supervisor::new(SupervisorConfig::default());
    let mut first_us = None;
    let mut accused = Vec::new();
    for now_us in (0..until_us).step_by(2_000) {
        if now_us % BEAT_US == 0 {
            detector.tick(now_us);
            for (node, _) in heard_until_us.iter().filter(|(_, until_us)| now_us <= *until_us) {
                let heartbeat = Heartbeat { sent_us: now_us + 1, echo_us: now_us, map_version: 0 };
                detector.heard(instance(*node), heartbeat, now_us);
            }
        }
        for change in supervisor.decide(ME, &map, &detector, now_us) {
            if let Change::Down(lost) = change {
                first_us.get_or_insert(now_us);
                map.apply(&change).expect("it is up");
                accused.push(lost.node.0);
            }
        }
    }
    accused.sort_unstable();
    first_us.map(|first_us| (first_us, accused))
}

#[test]
fn those_who_are_silent_are_accused_at_once_if_others_are_heard() {
    let (always, until) = (u64::MAX, 1_000_000);
    let found = accused([(2, until), (3, always), (4, always), (5, always)], 2_000_000);
    assert_eq!(found, Some((1_122_000, vec![2])));
    let found = accused([(2, until), (3, always), (4, until - BEAT_US), (5, always)], 2_000_000);
    assert_eq!(found, Some((1_102_000, vec![2, 4])));
}

#[test]
fn who_hears_nobody_accuses_nobody_for_a_second() {
    let until = 1_000_000;
    let found = accused([(2, until), (3, until), (4, until), (5, until)], 3_000_000);
    assert_eq!(found, Some((2_122_000, vec![2, 3, 4, 5])));
}

/// Heartbeats that were on their way when the links went silent arrived from some, not from others.
#[test]
fn who_hears_nobody_accuses_nobody_for_a_second_though_some_fell_silent_a_heartbeat_earlier() {
    let until = 1_000_000;
    let found = accused([(2, until - BEAT_US), (3, until), (4, until - BEAT_US), (5, until)], 3_000_000);
    assert_eq!(found, Some((2_102_000, vec![2, 3, 4, 5])));
}
