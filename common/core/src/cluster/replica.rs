//! One replica of a partition: primary, backup or learner. Pure.
//!
//! ```text
//!   submit ─▶ primary: log ──Append──▶ backups: log          commit: what every one that
//!                       ◀─Appended──                          acknowledges has
//!             base        commit            end
//!   log  ──────┼────────────┼────────────────┼──▶ seq
//!     in state │  in state  │ not yet shown  │
//! ```
//!
//! Primary and backups under a configuration that control agrees on (PacificA,
//! Lin et al. 2008; Kafka's in-sync replicas). The primary orders the writes and
//! answers one when **every** replica in sync has it, so a lost node takes no
//! acknowledged write along, and whoever is in sync may become primary without
//! asking anybody. A replica shows its state at `commit` only.
//!
//! - **Fencing.** Every message carries the epoch; one of another epoch, or from
//!   someone else than the primary, is nothing.
//! - **Log matching.** A backup takes entries only after one that it has at the
//!   same position, so equal positions mean equal histories. What it has beyond,
//!   of an older primary and never acknowledged, gives way.
//! - **Asked before sent again.** Messages to a replica stay in their order, so one that has not answered is asked
//!   how far it is, behind what was sent; only what it then lacks is sent again.
//! - **Grow before asking, shrink after being told.** A learner that has caught up
//!   is waited for before control is asked to admit it; a slow replica is waited
//!   for until control has removed it.
//! - **A position is a proof.** A reader that has seen position `(epoch, seq)` has
//!   seen it committed; a replica with that entry may show it without waiting.
//!
//! Operations must be such that repeating one is harmless, as a delta by
//! compare-and-apply is: an answer may be lost, and then the writer sends again.

mod primary;

use std::collections::{BTreeMap, VecDeque};

use self::primary::Peer;
use crate::cluster::entries::Entries;
use crate::cluster::ids::{Epoch, Holder, Partition, Position};
use crate::cluster::map::Assignment;
use crate::cluster::mutant::{Mutant, Mutants};
use crate::cluster::protocol::{
    Answer, Effect, Logged, ReadRefusal, ReplicaConfig, Replication, RequestId, Shown, State,
};

pub use self::primary::Owed;

/// A replica of one partition on one node.
#[derive(Clone, Debug)]
pub struct Replica<S: State> {
    me: Holder,
    partition: Partition,
    config: ReplicaConfig,
    mutants: Mutants,
    assignment: Assignment,
    entries: Entries<S::Op>,
    commit: u64,
    state: S,
    /// The end of the log that the epoch began with, or with which this replica came in sync. The primary
    /// before may have acknowledged all of that.
    inherited: u64,
    /// As primary: the others.
    peers: BTreeMap<Holder, Peer>,
    /// As primary: who waits for which entry, in order.
    waiting: VecDeque<(u64, RequestId)>,
}

impl<S: State> Replica<S> {
    /// Creates a replica without history. `empty` is the state that a history begins with.
    pub fn new(me: Holder, partition: Partition, config: ReplicaConfig, empty: S) -> Self {
        Self {
            me,
            partition,
            config,
            mutants: Mutants::default(),
            assignment: Assignment::default(),
            entries: Entries::after(Position::default()),
            commit: 0,
            state: empty,
            inherited: 0,
            peers: BTreeMap::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Breaks an invariant on purpose, for tests of the tests.
    #[cfg(test)]
    pub(crate) fn broken_by(mut self, mutants: Mutants) -> Self {
        self.mutants = mutants;
        self
    }

    /// Takes over what the map says now; an older assignment is nothing. `empty`
    /// is where a new history begins.
    pub fn adopt(&mut self, assignment: &Assignment, empty: &S, now_us: u64, out: &mut Vec<Effect<S>>) {
        if assignment.version <= self.assignment.version {
            return;
        }
        let led = self.is_primary().then_some(self.assignment.epoch);
        let begins = (assignment.life, assignment.epoch) != (self.assignment.life, self.assignment.epoch);
        if assignment.life != self.assignment.life {
            self.entries = Entries::after(Position { life: assignment.life, ..Position::default() });
            self.commit = 0;
            self.state.replace(empty.clone());
        }
        let joins = !self.assignment.in_sync.contains(&self.me) && assignment.in_sync.contains(&self.me);
        self.assignment = assignment.clone();
        if begins || joins {
            self.inherited = self.end();
        }
        if led.is_some() && led != self.leads() {
            let waiting = std::mem::take(&mut self.waiting);
            out.extend(waiting.into_iter().map(|(_, request)| Effect::Answer(request, Answer::Unknown)));
            self.peers.clear();
        }
        if self.is_primary() {
            self.meet_peers(now_us, out);
            self.advance(now_us, out);
        }
    }

    /// Takes a message of another replica, sent in `epoch` of this partition.
    pub fn receive(
        &mut self,
        from: Holder,
        epoch: Epoch,
        message: Replication<S>,
        now_us: u64,
        out: &mut Vec<Effect<S>>,
    ) {
        if epoch != self.assignment.epoch && !self.mutants.has(Mutant::NoFence) {
            return;
        }
        let from_primary = self.assignment.primary == Some(from) || self.mutants.has(Mutant::NoFence);
        match message {
            Replication::Append { previous, entries, commit } if from_primary => {
                let reply = self.take(previous, entries, commit);
                out.push(Effect::Send(from, reply));
            }
            Replication::Snapshot { at, state } if from_primary => {
                let reply = self.install(at, state);
                out.push(Effect::Send(from, reply));
            }
            Replication::Appended { matched, shown } if self.is_primary() => {
                if let Some(peer) = self.peers.get_mut(&from) {
                    peer.shown = peer.shown.max(shown);
                }
                self.acknowledged(from, matched, false, now_us, out);
            }
            Replication::Mismatched { commit } if self.is_primary() => {
                // What is committed is the same in both logs.
                self.acknowledged(from, commit, true, now_us, out);
            }
            _ => {}
        }
    }

    /// As backup: takes entries of the primary.
    fn take(&mut self, previous: Position, entries: Vec<Logged<S::Op>>, commit: u64) -> Replication<S> {
        // What is committed here is so everywhere: no need to compare it.
        if previous.seq > self.commit && self.position(previous.seq) != Some(previous) {
            return Replication::Mismatched { commit: self.commit };
        }
        let matched = previous.seq + entries.len() as u64;
        for (seq, entry) in (previous.seq + 1..).zip(entries) {
            if seq <= self.commit || self.position(seq).is_some_and(|held| held.epoch == entry.epoch) {
                continue;
            }
            assert!(seq > self.commit, "what is committed is never taken back");
            if seq <= self.end() {
                self.entries.take_back(seq);
            }
            let weight = S::weight(&entry.op);
            self.entries.push(entry.epoch, entry.op, weight);
        }
        let shown = if self.mutants.has(Mutant::DirtyRead) { matched } else { commit.min(matched) };
        self.show(shown);
        Replication::Appended { matched, shown: self.commit }
    }

    /// As backup: takes the primary's state.
    fn install(&mut self, at: Position, state: S) -> Replication<S> {
        if at.seq > self.commit {
            if self.position(at.seq) == Some(at) {
                self.show(at.seq);
            } else {
                self.entries = Entries::after(at);
                self.commit = at.seq;
                self.state.replace(state);
            }
        }
        Replication::Appended { matched: at.seq, shown: self.commit }
    }

    /// Forgets entries that only those who are far behind would need; but not what one still needs who is being sent the
    /// state, or has it and lacks what came since, unless that is too much.
    ///
    /// ```text
    ///       base                 a state on its way     commit
    ///   ──────┼──────────────────────────┼─────────────────┼──▶ seq
    ///         │ few: kept_max,           │ kept_for_state_weight_max
    ///         │      kept_weight_max     │
    /// ```
    fn drop_old(&mut self) {
        let ReplicaConfig { kept_max, kept_weight_max, kept_for_state_weight_max, .. } = self.config;
        let few = self
            .needed_after_state()
            .map_or(self.commit, |after| after.clamp(self.entries.base().seq, self.commit));
        self.entries.drop_before(few, kept_max, kept_weight_max);
        self.entries.drop_before(self.commit, usize::MAX, kept_for_state_weight_max.max(kept_weight_max));
    }

    /// Applies what is committed now; gives the outcomes.
    fn show(&mut self, commit: u64) -> Vec<S::Outcome> {
        let mut outcomes = Vec::new();
        while self.commit < commit {
            self.commit += 1;
            outcomes.push(self.state.apply(self.entries.op(self.commit)));
        }
        outcomes
    }

    /// Shows the state to a reader that has seen `seen` of this partition; the
    /// default position is that of a reader that has seen nothing.
    pub fn read(&mut self, seen: Position) -> Result<Shown<'_, S>, ReadRefusal> {
        if !self.assignment.in_sync.contains(&self.me) {
            return Err(ReadRefusal::NotInSync);
        }
        if seen.seq > 0 && seen.life != self.entries.base().life {
            return Err(ReadRefusal::OtherLife);
        }
        if seen.seq > self.commit {
            if self.position(seen.seq) != Some(seen) {
                return Err(ReadRefusal::Behind);
            }
            self.show(seen.seq);
        }
        let at = self.position(self.commit).expect("the commit is in the log");
        // While no write can be committed, one that was acknowledged before may not be shown yet.
        let commits = self.assignment.primary.is_some()
            && self.assignment.in_sync.len() >= self.config.copies_min
            && self.commit >= self.inherited.min(self.end());
        Ok(Shown { at, state: &self.state, fresh: commits })
    }

    /// Returns whose replica this is.
    pub fn me(&self) -> Holder {
        self.me
    }

    /// Says whether this replica is the primary, as far as it knows.
    pub fn is_primary(&self) -> bool {
        self.assignment.primary == Some(self.me)
    }

    fn leads(&self) -> Option<Epoch> {
        self.is_primary().then_some(self.assignment.epoch)
    }

    /// Returns the assignment that this replica acts on.
    pub fn assignment(&self) -> &Assignment {
        &self.assignment
    }

    /// Returns the number of the last entry.
    pub fn end(&self) -> u64 {
        self.entries.end()
    }

    /// Returns the number of the last entry that is shown.
    pub fn commit(&self) -> u64 {
        self.commit
    }

    /// Returns the state as it is shown.
    pub fn state(&self) -> &S {
        &self.state
    }

    /// Returns the position of an entry that is kept, or of the last one dropped.
    pub fn position(&self, seq: u64) -> Option<Position> {
        self.entries.position(seq)
    }
}

#[cfg(test)]
#[path = "replica_tests.rs"]
pub(crate) mod tests;
