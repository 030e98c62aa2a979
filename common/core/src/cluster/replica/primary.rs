//! What a replica does as the primary: orders the writes, sends them to the others, commits what all that
//! acknowledge have, asks control to admit who has caught up and to eject who is too slow.

use crate::cluster::ids::Holder;
use crate::cluster::map::Change;
use crate::cluster::mutant::Mutant;
use crate::cluster::protocol::{Answer, Effect, Replication, RequestId, State};
use crate::cluster::replica::Replica;

/// What a replica is given to take what is sent is doubled no more often than this.
const DOUBLED_MAX: u32 = 4;

/// What the primary knows of another replica.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// All up to here is there.
    matched: u64,
    /// All up to here is sent, or supposed to be there.
    sent: u64,
    /// The oldest state that may be on its way there, until what came since is there too: what follows it is kept.
    state_at: Option<u64>,
    /// All up to here is shown there.
    pub(super) shown: u64,
    /// Whether it has said how far it is.
    heard: bool,
    /// Since when it has made no progress although something was sent; none when all is acknowledged.
    waiting_since_us: Option<u64>,
    /// When it is asked how far it is.
    ask_at_us: u64,
    /// Before then nothing is sent a second time: what it says it lacks may be on its way.
    again_at_us: u64,
    /// How often something was since it last made progress: what is heavy may be waiting behind what was
    /// sent before, and each copy of it would make that worse.
    resent: u32,
    /// Before then its admission is not proposed.
    admit_at_us: u64,
    /// Whether it was in sync when the map was looked at last.
    in_sync: bool,
    /// The assignment's version under which its admission was proposed; from
    /// then on it is waited for.
    proposed: Option<u64>,
}

impl Peer {
    /// Takes note that something is sent that was sent before, and that takes so long.
    fn sends_again(&mut self, now_us: u64, taking_us: u64) {
        self.again_at_us = now_us + (taking_us << self.resent);
        self.resent = (self.resent + 1).min(DOUBLED_MAX);
    }
}

/// What a replica lacks of its primary's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owed {
    /// Entries.
    pub entries: u64,
    /// The bytes of those that are kept.
    pub bytes: usize,
}

impl<S: State> Replica<S> {
    /// Counts nobody's silence from before `now_us`, when this node itself was stopped.
    pub fn forgive(&mut self, now_us: u64) {
        let waited_for = self.peers.values_mut().filter_map(|peer| peer.waiting_since_us.as_mut());
        waited_for.for_each(|since_us| *since_us = now_us);
    }

    /// Begins to talk to new replicas, and drops those that left.
    pub(super) fn meet_peers(&mut self, now_us: u64, out: &mut Vec<Effect<S>>) {
        let assignment = &self.assignment;
        self.peers.retain(|peer, _| assignment.holders().any(|holder| holder == *peer));
        // An admission proposed under an older version is refused from now on.
        let in_sync = &assignment.in_sync;
        for peer in self.peers.iter_mut().filter(|(at, _)| !in_sync.contains(*at)).map(|(_, peer)| peer) {
            peer.proposed = None;
            if std::mem::take(&mut peer.in_sync) {
                peer.admit_at_us = now_us + self.config.readmit_us;
            }
        }
        let others: Vec<Holder> = assignment.holders().filter(|holder| *holder != self.me).collect();
        for other in others {
            if !self.peers.contains_key(&other) {
                let end = self.end();
                let peer = Peer {
                    matched: 0,
                    sent: end,
                    state_at: None,
                    shown: 0,
                    heard: false,
                    waiting_since_us: Some(now_us),
                    ask_at_us: now_us + self.config.ask_us,
                    again_at_us: now_us,
                    resent: 0,
                    admit_at_us: now_us,
                    in_sync: false,
                    proposed: None,
                };
                self.peers.insert(other, peer);
                // Asks how far it is.
                self.append(other, end, end, now_us, out);
            }
        }
        let in_sync = &self.assignment.in_sync;
        self.peers.iter_mut().for_each(|(at, peer)| peer.in_sync = in_sync.contains(at));
    }

    /// Takes a write.
    pub fn submit(&mut self, request: RequestId, op: S::Op, now_us: u64, out: &mut Vec<Effect<S>>) {
        if !self.is_primary() {
            return out.push(Effect::Answer(request, Answer::NotPrimary));
        }
        if self.waiting.len() >= self.config.waiting_max {
            return out.push(Effect::Answer(request, Answer::Busy));
        }
        if let Some(seq) = self.waits_as(&op) {
            let place = self.waiting.partition_point(|(waiting, _)| *waiting <= seq);
            return self.waiting.insert(place, (seq, request));
        }
        let weight = S::weight(&op);
        self.entries.push(self.assignment.epoch, op, weight);
        self.waiting.push_back((self.end(), request));
        self.send_new(now_us, out);
        self.advance(now_us, out);
    }

    /// Finds a write among those of its own that are not committed. A writer that loses patience sends
    /// one again; were each copy an entry, those who are slow would have the more to take the slower
    /// they are.
    fn waits_as(&self, op: &S::Op) -> Option<u64> {
        let is_again = |seq: &u64| S::is_again(op, self.entries.op(*seq));
        (self.commit.max(self.inherited) + 1..=self.end()).rev().find(is_again)
    }

    /// Sends what is new to those who have all before it.
    fn send_new(&mut self, now_us: u64, out: &mut Vec<Effect<S>>) {
        let end = self.end();
        let behind: Vec<(Holder, u64)> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.sent < end)
            .map(|(at, peer)| (*at, peer.sent))
            .collect();
        for (other, sent) in behind {
            self.append(other, sent, end, now_us, out);
            let peer = self.peers.get_mut(&other).expect("it was listed");
            peer.waiting_since_us.get_or_insert(now_us);
        }
    }

    /// Sends entries `(from, to]`, as many as a message takes, or the state when
    /// the log doesn't reach back so far.
    fn append(&mut self, other: Holder, from: u64, to: u64, now_us: u64, out: &mut Vec<Effect<S>>) {
        let peer = self.peers.get_mut(&other).expect("only peers are sent to");
        let base = self.entries.base().seq;
        if from < base {
            peer.sent = self.commit;
            // A first one may still arrive; what follows one that is older than the log is not there for it.
            peer.state_at = peer.state_at.filter(|at| *at >= base).or(Some(self.commit));
            peer.ask_at_us = now_us + self.config.ask_us;
            peer.sends_again(now_us, self.config.snapshot_resend_us);
            let at = self.position(self.commit).expect("the commit is in the log");
            out.push(Effect::Send(other, Replication::Snapshot { at, state: self.state.clone() }));
            return;
        }
        let to = to.min(from + self.config.entries_max as u64);
        let to = self.entries.within(from, to, self.config.entries_weight_max);
        let peer = self.peers.get_mut(&other).expect("only peers are sent to");
        peer.sent = to;
        peer.ask_at_us = now_us + self.config.ask_us;
        let entries = self.entries.between(from, to);
        let previous = self.position(from).expect("it is in the log");
        out.push(Effect::Send(other, Replication::Append { previous, entries, commit: self.commit }));
    }

    /// Returns after which entry all are needed by those who were sent the state.
    pub(super) fn needed_after_state(&self) -> Option<u64> {
        self.peers.values().filter_map(|peer| Some(peer.state_at?.max(peer.matched))).min()
    }

    /// Asks one that has not answered how far it is. Where it lacks what was sent, it learns nothing from
    /// that of what is committed; so it is told as of what it has, too.
    fn ask(&mut self, other: Holder, peer: Peer, now_us: u64, out: &mut Vec<Effect<S>>) {
        let base = self.entries.base().seq;
        if (base..peer.sent).contains(&peer.matched) && peer.shown < self.commit.min(peer.matched) {
            let previous = self.position(peer.matched).expect("it is in the log");
            let says = Replication::Append { previous, entries: Vec::new(), commit: self.commit };
            out.push(Effect::Send(other, says));
        }
        if peer.sent >= base || now_us >= peer.again_at_us {
            self.append(other, peer.sent, peer.sent, now_us, out);
        }
    }

    /// Returns how long any replica takes at most over the entries `(from, to]`, as far as they are kept.
    fn taking_us(&self, from: u64, to: u64) -> u64 {
        let (base, end) = (self.entries.base().seq, self.end());
        let from = from.clamp(base, end);
        self.entries.weight_between(from, to.clamp(from, end)) as u64 / self.config.weight_per_us
    }

    /// Takes note that a replica has all up to `matched`, and, when
    /// `again`, that it needs what follows once more.
    pub(super) fn acknowledged(
        &mut self,
        from: Holder,
        matched: u64,
        again: bool,
        now_us: u64,
        out: &mut Vec<Effect<S>>,
    ) {
        let (end, base) = (self.end(), self.entries.base().seq);
        let Some(Peer { matched: had, sent, .. }) = self.peers.get(&from).copied() else { return };
        let taking_us = self.config.ask_us + self.taking_us(had.max(matched), sent);
        let peer = self.peers.get_mut(&from).expect("it was just there");
        if !peer.heard || matched > peer.matched {
            peer.waiting_since_us = Some(now_us);
            peer.resent = 0;
            peer.ask_at_us = now_us + self.config.ask_us;
            peer.again_at_us = now_us;
        }
        peer.heard = true;
        peer.matched = peer.matched.max(matched);
        peer.sent = peer.sent.max(peer.matched);
        if peer.matched >= self.commit {
            peer.state_at = None;
        }
        if again && now_us >= peer.again_at_us {
            peer.sent = peer.matched;
            // The state, where it is sent, counts for itself.
            if peer.matched >= base {
                peer.sends_again(now_us, taking_us);
            }
        }
        if peer.matched == end {
            peer.waiting_since_us = None;
        }
        self.send_new(now_us, out);
        self.advance(now_us, out);
        self.propose_admission(from, now_us, out);
    }

    /// Waits for a learner that has caught up, then asks control to admit it.
    fn propose_admission(&mut self, learner: Holder, now_us: u64, out: &mut Vec<Effect<S>>) {
        let early = self.mutants.has(Mutant::EarlyAdmission);
        let needed = if early { self.commit } else { self.commit.max(self.inherited) };
        let end = self.end();
        if !self.assignment.learners.contains(&learner) {
            return;
        }
        let Some(peer) = self.peers.get_mut(&learner) else { return };
        let near = peer.matched >= needed && end - peer.matched <= self.config.entries_max as u64;
        if peer.heard && peer.proposed.is_none() && near && now_us >= peer.admit_at_us {
            let version = self.assignment.version;
            peer.proposed = Some(version);
            out.push(Effect::Propose(Change::Admit { partition: self.partition, version, holder: learner }));
        }
    }

    /// Commits what all that acknowledge have, and answers.
    pub(super) fn advance(&mut self, now_us: u64, out: &mut Vec<Effect<S>>) {
        if !self.is_primary() {
            return;
        }
        let acknowledging = self.acknowledging();
        // Who is not admitted yet has the write too, but control would not promote it.
        let pending = self.mutants.has(Mutant::PendingCounts);
        let copies = if pending { acknowledging.len() } else { self.assignment.in_sync.len() };
        if copies < self.config.copies_min {
            return;
        }
        let matched = |at: &Holder| if *at == self.me { self.end() } else { self.peers[at].matched };
        let mut all: Vec<u64> = acknowledging.iter().map(matched).collect();
        all.sort_unstable();
        let commit = if self.mutants.has(Mutant::MajorityAck) { all[(all.len() - 1) / 2] } else { all[0] };
        if commit <= self.commit {
            return;
        }
        let first = self.commit + 1;
        let outcomes = self.show(commit);
        for (seq, outcome) in (first..).zip(outcomes) {
            let at = self.position(seq).expect("what was just shown is kept");
            while let Some((_, request)) = self.waiting.pop_front_if(|(waiting, _)| *waiting == seq) {
                out.push(Effect::Answer(request, Answer::Done { outcome: outcome.clone(), at, copies }));
            }
        }
        self.drop_old();
        // So that the others show it too; what is new tells it as well.
        let others: Vec<Holder> =
            self.peers.iter().filter(|(_, peer)| peer.matched == peer.sent).map(|(at, _)| *at).collect();
        for other in others {
            let sent = self.peers[&other].sent;
            if sent >= self.entries.base().seq {
                self.append(other, sent, sent, now_us, out);
            }
        }
    }

    /// Returns the replicas that must have a write before it is acknowledged.
    fn acknowledging(&self) -> Vec<Holder> {
        let early = !self.mutants.has(Mutant::GrowLate);
        let admitted = self.peers.iter().filter(|(_, peer)| early && peer.proposed.is_some());
        let mut all = self.assignment.in_sync.clone();
        all.extend(admitted.map(|(at, _)| *at).filter(|at| !self.assignment.in_sync.contains(at)));
        if self.mutants.has(Mutant::ShrinkEarly) {
            all.retain(|at| self.peers.get(at).is_none_or(|peer| peer.waiting_since_us.is_none()));
        }
        all
    }

    /// Takes note of the time: asks those who have not answered, and control to remove who is too slow.
    pub fn tick(&mut self, now_us: u64, out: &mut Vec<Effect<S>>) {
        self.drop_old();
        if !self.is_primary() {
            return;
        }
        let peers: Vec<(Holder, Peer)> = self.peers.iter().map(|(at, peer)| (*at, *peer)).collect();
        for (other, peer) in peers {
            if now_us < peer.ask_at_us {
                continue;
            }
            let Some(since_us) = peer.waiting_since_us else {
                if peer.shown < self.commit {
                    self.append(other, peer.sent, peer.sent, now_us, out);
                }
                self.propose_admission(other, now_us, out);
                continue;
            };
            self.ask(other, peer, now_us, out);
            let end = self.end();
            let waited_for = peer.proposed.is_some() || self.assignment.in_sync.contains(&other);
            let patience_us = self.config.eject_us + self.taking_us(peer.matched, end);
            if waited_for && now_us >= since_us + patience_us {
                let (partition, version) = (self.partition, self.assignment.version);
                out.push(Effect::Propose(Change::Eject { partition, version, holder: other }));
            }
        }
        // A proposal may be lost; the assignment's version makes a second one harmless.
        let proposed =
            self.peers.iter().filter(|(at, p)| p.proposed.is_some() && self.assignment.learners.contains(at));
        for (learner, peer) in proposed {
            let version = peer.proposed.expect("it was filtered");
            let admit = Change::Admit { partition: self.partition, version, holder: *learner };
            out.push(Effect::Propose(admit));
        }
    }

    /// Tells what each other replica lacks of this log. Of what it lacks and is kept no longer, the bytes
    /// are not counted: it is sent the state instead.
    pub fn owed(&self) -> impl Iterator<Item = (Holder, Owed)> {
        let (base, end) = (self.entries.base().seq, self.end());
        self.peers.iter().map(move |(holder, peer)| {
            let from = peer.matched.clamp(base, end);
            let owed = Owed {
                entries: end.saturating_sub(peer.matched),
                bytes: self.entries.weight_between(from, end),
            };
            (*holder, owed)
        })
    }
}
