//! Two detectors that talk over a link which the test decides about.

use super::*;
use crate::cluster::ids::Incarnation;

const BEAT_US: u64 = 20_000;

struct Pair {
    now_us: u64,
    me: Detector,
    other: Detector,
}

fn instance(node: u16) -> Instance {
    Instance { node: NodeId(node), incarnation: Incarnation(1) }
}

impl Pair {
    fn new() -> Self {
        let detector = Detector::new(DetectorConfig::default());
        let mut pair = Self { now_us: 1_000_000, me: detector.clone(), other: detector };
        pair.me.expect(instance(2), pair.now_us);
        pair.other.expect(instance(1), pair.now_us);
        pair
    }

    /// Lets so many heartbeats pass each way, or be lost.
    fn beat(&mut self, times: u32, there: bool, back: bool) {
        for _ in 0..times {
            self.now_us += BEAT_US;
            self.me.tick(self.now_us);
            self.other.tick(self.now_us);
            let mine = self.me.heartbeat(NodeId(2), 0, self.now_us);
            let theirs = self.other.heartbeat(NodeId(1), 0, self.now_us);
            if there {
                self.other.heard(instance(1), mine, self.now_us + 300);
            }
            if back {
                self.me.heard(instance(2), theirs, self.now_us + 300);
            }
        }
    }

    fn suspected(&self) -> bool {
        self.me.suspects(instance(2), self.now_us)
    }
}

#[test]
fn a_peer_that_answers_is_not_suspected_and_its_health_grows() {
    let mut pair = Pair::new();
    pair.beat(50, true, true);
    assert!(!pair.suspected());
    assert!(pair.me.healthy_us(instance(2), pair.now_us) > 900_000);
}

#[test]
fn a_silent_peer_is_suspected_after_the_bound_and_healthy_again_from_its_return_on() {
    let mut pair = Pair::new();
    pair.beat(10, true, true);
    pair.beat(5, false, false);
    assert!(!pair.suspected(), "100 ms of silence are within the bound");
    pair.beat(3, false, false);
    assert!(pair.suspected());
    assert_eq!(pair.me.healthy_us(instance(2), pair.now_us), 0);
    pair.beat(3, true, true);
    assert!(!pair.suspected());
    assert!(pair.me.healthy_us(instance(2), pair.now_us) <= 3 * BEAT_US);
}

#[test]
fn a_peer_that_does_not_hear_is_suspected_though_it_is_heard() {
    let mut pair = Pair::new();
    pair.beat(10, true, true);
    pair.beat(10, false, true);
    assert!(pair.suspected());
}

#[test]
fn a_broken_connection_is_suspicion_until_an_answer_to_something_sent_later() {
    let mut pair = Pair::new();
    pair.beat(10, true, true);
    let before = pair.other.heartbeat(NodeId(1), 0, pair.now_us);
    pair.me.broken(NodeId(2), pair.now_us + 400);
    assert!(pair.suspected());
    pair.me.heard(instance(2), before, pair.now_us + 500);
    assert!(pair.suspected(), "it was sent before the connection broke");
    pair.beat(2, true, true);
    assert!(!pair.suspected());
}

#[test]
fn a_member_that_was_never_heard_is_suspected_after_the_bound() {
    let mut pair = Pair::new();
    assert!(!pair.suspected());
    pair.beat(8, true, false);
    assert!(pair.suspected());
}

#[test]
fn who_was_stopped_itself_accuses_nobody_until_answers_can_have_come() {
    let mut pair = Pair::new();
    pair.beat(10, true, true);
    pair.now_us += 2_000_000;
    pair.me.tick(pair.now_us);
    assert!(!pair.suspected());
    assert!(pair.me.is_guarded(pair.now_us));
    pair.beat(8, false, false);
    assert!(pair.suspected(), "it is silent still");
}

#[test]
fn an_earlier_life_proves_nothing_and_is_suspected_at_once() {
    let mut pair = Pair::new();
    pair.beat(10, true, true);
    let reborn = Instance { node: NodeId(2), incarnation: Incarnation(2) };
    let beat = Heartbeat { sent_us: 5, echo_us: pair.now_us, map_version: 0 };
    pair.me.heard(reborn, beat, pair.now_us + 300);
    assert!(pair.suspected(), "its next life has spoken");
    let stale = pair.other.heartbeat(NodeId(1), 0, pair.now_us);
    pair.me.heard(instance(2), stale, pair.now_us + 400);
    assert!(pair.suspected());
    assert!(!pair.me.suspects(reborn, pair.now_us + 400));
}
