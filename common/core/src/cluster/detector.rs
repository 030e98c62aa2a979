//! Who is alive: one detector for the whole cluster. Pure.
//!
//! ```text
//!   me ── heartbeat(sent 100) ──▶ peer
//!   me ◀─ heartbeat(sent 73, echo 100) ── peer     so the peer has heard what I sent at 100
//! ```
//!
//! A heartbeat carries the time at which it was sent, by its sender's clock, and
//! the newest such time heard from the receiver. Only the echo proves life: a
//! peer that I hear but that doesn't hear me is as good as lost, since nothing
//! that needs a reply will get one. Clocks are monotonic and never compared.
//!
//! A broken connection is suspicion at once. A tick that comes late says that
//! this node was starved or paused: its evidence is old, so it accuses nobody
//! until a new round trip could have been completed (the local health of
//! Lifeguard, Dadgar et al. 2018).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cluster::ids::{Incarnation, Instance, NodeId};
use crate::cluster::mutant::{Mutant, Mutants};

/// The detector's times, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct DetectorConfig {
    /// Between two heartbeats.
    pub heartbeat_us: u64,
    /// Silence after which a peer is suspected.
    pub suspect_us: u64,
    /// A tick later than this, beyond the heartbeat, shows that this node itself was stopped.
    pub late_us: u64,
}

impl Default for DetectorConfig {
    fn default() -> Self {
        Self { heartbeat_us: 20_000, suspect_us: 120_000, late_us: 40_000 }
    }
}

/// What a node sends to each other node, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// When it was sent, by the sender's clock.
    pub sent_us: u64,
    /// The newest `sent_us` that the sender has of the receiver's present life; 0 for none.
    pub echo_us: u64,
    /// The version of the map that the sender has.
    pub map_version: u64,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    incarnation: Incarnation,
    /// The newest time by the peer's clock.
    heard_us: u64,
    /// The newest time by this node's clock that the peer has echoed.
    proof_us: u64,
    /// Since when, by this node's clock, proofs have come without a gap.
    since_us: u64,
    /// The connection broke; proofs from before it count no longer.
    broken_us: Option<u64>,
}

/// Judges the peers of one node.
#[derive(Clone, Debug)]
pub struct Detector {
    config: DetectorConfig,
    mutants: Mutants,
    peers: BTreeMap<NodeId, Peer>,
    ticked_us: Option<u64>,
    /// Until when this node accuses nobody.
    guarded_until_us: u64,
}

impl Detector {
    /// Creates a detector that knows nobody.
    pub fn new(config: DetectorConfig) -> Self {
        Self {
            config,
            mutants: Mutants::default(),
            peers: BTreeMap::new(),
            ticked_us: None,
            guarded_until_us: 0,
        }
    }

    /// Breaks a rule on purpose, for tests of the tests.
    #[cfg(test)]
    pub(crate) fn broken_by(mut self, mutants: Mutants) -> Self {
        self.mutants = mutants;
        self
    }

    /// Notes the time; to be called at least once in each heartbeat's time.
    pub fn tick(&mut self, now_us: u64) {
        let DetectorConfig { heartbeat_us, suspect_us, late_us } = self.config;
        if self.ticked_us.is_some_and(|last_us| now_us > last_us + heartbeat_us + late_us) {
            self.guarded_until_us = now_us + suspect_us;
        }
        self.ticked_us = Some(now_us);
    }

    /// Makes the heartbeat to a peer.
    pub fn heartbeat(&self, to: NodeId, map_version: u64, now_us: u64) -> Heartbeat {
        let echo_us = self.peers.get(&to).map_or(0, |peer| peer.heard_us);
        Heartbeat { sent_us: now_us, echo_us, map_version }
    }

    /// Takes a peer's heartbeat; one of an earlier life of it is nothing.
    pub fn heard(&mut self, from: Instance, heartbeat: Heartbeat, now_us: u64) {
        let fresh = Peer {
            incarnation: from.incarnation,
            heard_us: 0,
            proof_us: 0,
            since_us: now_us,
            broken_us: None,
        };
        let peer = self.peers.entry(from.node).or_insert(fresh);
        if from.incarnation < peer.incarnation {
            return;
        }
        if from.incarnation > peer.incarnation {
            *peer = fresh;
        }
        peer.heard_us = peer.heard_us.max(heartbeat.sent_us);
        let echo_us = if self.mutants.has(Mutant::OneWay) { now_us } else { heartbeat.echo_us.min(now_us) };
        if peer.broken_us.is_some_and(|broken_us| echo_us <= broken_us) || echo_us <= peer.proof_us {
            return;
        }
        if peer.broken_us.take().is_some() || peer.proof_us + self.config.suspect_us < now_us {
            peer.since_us = now_us;
        }
        peer.proof_us = echo_us;
    }

    /// Takes note that the connection to a node is broken or refused.
    pub fn broken(&mut self, node: NodeId, now_us: u64) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.broken_us = Some(now_us);
        }
    }

    /// Expects heartbeats of a member from now on, so that one that never
    /// sends any is suspected too.
    pub fn expect(&mut self, instance: Instance, now_us: u64) {
        let peer = Peer {
            incarnation: instance.incarnation,
            heard_us: 0,
            proof_us: now_us,
            since_us: now_us,
            broken_us: None,
        };
        let known = self.peers.entry(instance.node).or_insert(peer);
        if known.incarnation < instance.incarnation {
            *known = peer;
        }
    }

    /// Says whether a life of a peer is to be suspected now.
    pub fn suspects(&self, instance: Instance, now_us: u64) -> bool {
        let Some(peer) = self.peers.get(&instance.node) else { return false };
        if now_us < self.guarded_until_us || peer.incarnation < instance.incarnation {
            return false;
        }
        peer.incarnation > instance.incarnation
            || peer.broken_us.is_some()
            || peer.proof_us + self.config.suspect_us < now_us
    }

    /// Says whether a life of a peer is suspected, or will be if its next heartbeat does not come either.
    pub fn suspects_soon(&self, instance: Instance, now_us: u64) -> bool {
        self.suspects(instance, now_us)
            || !self.is_guarded(now_us) && self.suspects(instance, now_us + self.config.heartbeat_us)
    }

    /// Says whether a round trip with a life of a peer began within the last `within_us`.
    pub fn is_in_touch(&self, instance: Instance, within_us: u64, now_us: u64) -> bool {
        let peer = self.peers.get(&instance.node).filter(|peer| peer.incarnation == instance.incarnation);
        peer.is_some_and(|peer| peer.heard_us > 0 && peer.proof_us + within_us >= now_us)
    }

    /// Returns for how long a life of a peer has answered without a gap, in
    /// microseconds; 0 when it is suspected or was never heard.
    pub fn healthy_us(&self, instance: Instance, now_us: u64) -> u64 {
        let peer = self.peers.get(&instance.node).filter(|peer| peer.incarnation == instance.incarnation);
        let answers = |peer: &&Peer| peer.heard_us > 0 && !self.suspects(instance, now_us);
        peer.filter(answers).map_or(0, |peer| now_us.saturating_sub(peer.since_us))
    }

    /// Says whether this node was stopped so recently that its view of others is old.
    pub fn is_guarded(&self, now_us: u64) -> bool {
        now_us < self.guarded_until_us
    }
}

#[cfg(test)]
mod tests;
