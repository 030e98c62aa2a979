//! What a primary does about writers and replicas that are slow.

use super::*;
use crate::cluster::ids::{Incarnation, Instance, NodeId};

/// A write that is no more than a number, and the least of those that weigh a megabyte and a half.
const LIGHT: u64 = 7;
const HEAVY: u64 = 1_000;

/// Adds up what is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sum(u64);

impl State for Sum {
    type Op = u64;
    type Outcome = u64;

    fn apply(&mut self, op: &u64) -> u64 {
        self.0 += op;
        self.0
    }

    fn weight(op: &u64) -> usize {
        if *op >= HEAVY { 1_500_000 } else { 1 }
    }

    fn is_again(op: &u64, other: &u64) -> bool {
        op == other
    }
}

fn holder(node: u16) -> Holder {
    Holder { instance: Instance { node: NodeId(node), incarnation: Incarnation(1) }, since: 1 }
}

/// A primary with a backup that has said that it has nothing.
fn primary() -> Replica<Sum> {
    let mut replica = Replica::new(holder(1), Partition(0), ReplicaConfig::default(), Sum::default());
    let assignment = Assignment {
        life: 1,
        epoch: Epoch(1),
        version: 1,
        primary: Some(holder(1)),
        in_sync: vec![holder(1), holder(2)],
        ..Assignment::default()
    };
    let mut out = Vec::new();
    replica.adopt(&assignment, &Sum::default(), 0, &mut out);
    replica.receive(holder(2), Epoch(1), Replication::Appended { matched: 0, shown: 0 }, 0, &mut out);
    replica
}

/// Returns the numbers of entries sent, of each message that has some.
fn sent(out: &[Effect<Sum>]) -> Vec<usize> {
    let entries = |effect: &Effect<Sum>| match effect {
        Effect::Send(_, Replication::Append { entries, .. }) => Some(entries.len()),
        _ => None,
    };
    out.iter().filter_map(entries).filter(|entries| *entries > 0).collect()
}

#[test]
fn a_write_that_is_sent_again_before_it_is_committed_takes_no_place_and_is_answered_as_often() {
    let mut replica = primary();
    let mut out = Vec::new();
    for (request, op) in [(1, 7), (2, 9), (3, 7), (4, 7), (5, 9)] {
        replica.submit(RequestId(request), op, 1, &mut out);
    }
    assert_eq!((replica.end(), sent(&out)), (2, vec![1, 1]));
    out.clear();
    replica.receive(holder(2), Epoch(1), Replication::Appended { matched: 2, shown: 0 }, 2, &mut out);
    let answers = out.iter().filter_map(|effect| match effect {
        Effect::Answer(RequestId(request), Answer::Done { outcome, at, .. }) => {
            Some((*request, *outcome, at.seq))
        }
        _ => None,
    });
    assert_eq!(answers.collect::<Vec<_>>(), [(1, 7, 1), (3, 7, 1), (4, 7, 1), (2, 16, 2), (5, 16, 2)]);
    // Once it is committed it is a write like any other.
    replica.submit(RequestId(6), 7, 3, &mut out);
    assert_eq!(replica.end(), 3);
}

#[test]
fn who_has_not_answered_is_asked_and_sent_again_only_what_it_says_it_lacks() {
    let mut replica = primary();
    let mut out = Vec::new();
    replica.submit(RequestId(1), LIGHT, 0, &mut out);
    assert_eq!(sent(&out), [1]);
    out.clear();
    // Nothing is ejected within this time.
    for now_us in (0..80_000).step_by(1_000) {
        replica.tick(now_us, &mut out);
    }
    let asked = |effect: &Effect<Sum>| match effect {
        Effect::Send(_, Replication::Append { previous, entries, .. }) => {
            assert!(entries.is_empty(), "it may be on its way");
            previous.seq
        }
        other => panic!("it is asked only: {other:?}"),
    };
    assert_eq!(out.iter().map(asked).collect::<Vec<_>>(), [1, 1, 1]);
    out.clear();
    replica.receive(holder(2), Epoch(1), Replication::Mismatched { commit: 0 }, 80_000, &mut out);
    assert_eq!(sent(&out), [1]);
    // The other questions are answered alike.
    replica.receive(holder(2), Epoch(1), Replication::Mismatched { commit: 0 }, 80_001, &mut out);
    assert_eq!(sent(&out), [1]);
}

#[test]
fn what_is_heavy_is_sent_again_less_and_less_often_until_there_is_progress() {
    let mut replica = primary();
    let resent_at = |replica: &mut Replica<Sum>, from_us: u64, to_us: u64| {
        let answers = (from_us..to_us).step_by(10_000);
        let resends = answers.filter(|now_us| {
            let mut out = Vec::new();
            replica.receive(holder(2), Epoch(1), Replication::Mismatched { commit: 0 }, *now_us, &mut out);
            !sent(&out).is_empty()
        });
        resends.map(|now_us| now_us / 1_000).collect::<Vec<_>>()
    };
    let mut out = Vec::new();
    // A replica may take 150 ms over this one.
    replica.submit(RequestId(1), HEAVY, 1_000_000, &mut out);
    assert_eq!(resent_at(&mut replica, 1_010_000, 4_000_000), [1_010, 1_180, 1_520, 2_200, 3_560]);
    // It is heard of: what else there is, is sent at once, and soon again.
    let taken = Replication::Appended { matched: 1, shown: 0 };
    replica.receive(holder(2), Epoch(1), taken, 4_000_000, &mut out);
    replica.submit(RequestId(2), HEAVY + 1, 4_000_000, &mut out);
    assert_eq!(resent_at(&mut replica, 4_010_000, 4_400_000), [4_010, 4_180]);
}

/// Has the primary and its backup commit so many writes.
fn commit(replica: &mut Replica<Sum>, writes: u64, op: u64, out: &mut Vec<Effect<Sum>>) {
    for _ in 0..writes {
        let matched = replica.end() + 1;
        replica.submit(RequestId(matched), op, 0, out);
        replica.receive(holder(2), Epoch(1), Replication::Appended { matched, shown: 0 }, 0, out);
    }
    assert_eq!(replica.commit(), replica.end());
}

/// Adds a learner that has nothing, and returns where the state is that it is sent.
fn learner(replica: &mut Replica<Sum>) -> u64 {
    let mut out = Vec::new();
    let assignment = Assignment { version: 2, learners: vec![holder(3)], ..replica.assignment().clone() };
    replica.adopt(&assignment, &Sum::default(), 0, &mut out);
    says(replica, 0, Replication::Mismatched { commit: 0 }).expect_err("the log does not reach back so far")
}

/// Has the learner say something, and returns how many entries it is sent for that, or where the state is.
fn says(replica: &mut Replica<Sum>, now_us: u64, message: Replication<Sum>) -> Result<usize, u64> {
    let mut out = Vec::new();
    replica.receive(holder(3), Epoch(1), message, now_us, &mut out);
    let to_learner = out.iter().rev().find_map(|effect| match effect {
        Effect::Send(to, Replication::Snapshot { at, .. }) if *to == holder(3) => Some(Err(at.seq)),
        Effect::Send(to, Replication::Append { entries, .. }) if *to == holder(3) => Some(Ok(entries.len())),
        _ => None,
    });
    to_learner.unwrap_or(Ok(0))
}

#[test]
fn a_state_on_its_way_is_not_outrun_by_what_is_written_meanwhile() {
    let (mut replica, mut out) = (primary(), Vec::new());
    let kept_max = replica.config.kept_max as u64;
    commit(&mut replica, 2 * kept_max, LIGHT, &mut out);
    let at = learner(&mut replica);
    assert_eq!(at, 2 * kept_max);
    commit(&mut replica, 5 * kept_max, LIGHT, &mut out);
    // Another state may be wanted before the first is there, and does not take its place.
    let other = says(&mut replica, 2_000_000, Replication::Mismatched { commit: 0 });
    assert_eq!(other, Err(7 * kept_max));
    commit(&mut replica, 5 * kept_max, LIGHT, &mut out);
    // It has the state, and says that it can do nothing with what was sent behind that.
    says(&mut replica, 3_000_000, Replication::Appended { matched: at, shown: at }).expect("no other state");
    let mismatched = Replication::Mismatched { commit: at };
    let mut matched = at + says(&mut replica, 3_000_000, mismatched).expect("no other state") as u64;
    while matched < replica.end() {
        let sent = says(&mut replica, 3_000_000, Replication::Appended { matched, shown: matched });
        let sent = sent.expect("no other state") as u64;
        assert!(sent > 0, "it is sent on");
        matched += sent;
    }
    says(&mut replica, 3_000_000, Replication::Appended { matched, shown: matched }).expect("no other state");
    replica.tick(3_000_000, &mut out);
    assert_eq!(replica.commit() - replica.entries.base().seq, kept_max, "nobody lacks the others any longer");
}

#[test]
fn what_is_kept_behind_a_state_has_a_bound_beyond_which_another_is_sent() {
    let (mut replica, mut out) = (primary(), Vec::new());
    replica.config.kept_for_state_weight_max = 20 * Sum::weight(&HEAVY);
    commit(&mut replica, 100, HEAVY, &mut out);
    let at = learner(&mut replica);
    commit(&mut replica, 100, HEAVY, &mut out);
    assert_eq!(replica.end() - replica.entries.base().seq, 20);
    assert_eq!(says(&mut replica, 2_000_000, Replication::Mismatched { commit: at }), Err(200));
    commit(&mut replica, 20, HEAVY, &mut out);
    let sent = says(&mut replica, 4_000_000, Replication::Mismatched { commit: 200 });
    assert!(sent.is_ok_and(|sent| sent > 0), "{sent:?}: as much as the bound is there behind the second");
}

/// A backup, node 2, of a primary that the test speaks for.
struct Backup(Replica<Sum>);

impl Backup {
    fn new() -> Self {
        Self(Replica::new(holder(2), Partition(0), ReplicaConfig::default(), Sum::default()))
    }

    /// Learns of an epoch with this primary.
    fn epoch(&mut self, version: u64, epoch: u64, primary: u16, in_sync: &[u16]) {
        let in_sync: Vec<_> = in_sync.iter().map(|node| holder(*node)).collect();
        let learners = if in_sync.contains(&holder(2)) { vec![] } else { vec![holder(2)] };
        let (epoch, primary) = (Epoch(epoch), Some(holder(primary)));
        let assignment = Assignment { life: 1, epoch, version, primary, in_sync, learners };
        self.0.adopt(&assignment, &Sum::default(), 0, &mut Vec::new());
    }

    /// Is sent more of the log by the primary.
    fn append(&mut self, entries: &[u64], commit: u64) {
        let Assignment { epoch, primary, .. } = *self.0.assignment();
        let previous = self.0.position(self.0.end()).expect("it is in the log");
        let entries = entries.iter().map(|op| Logged { epoch, op: *op }).collect();
        let message = Replication::Append { previous, entries, commit };
        self.0.receive(primary.expect("there is one"), epoch, message, 0, &mut Vec::new());
    }

    fn shown(&mut self) -> (u64, bool) {
        let shown = self.0.read(Position::default()).expect("it is in sync");
        (shown.at.seq, shown.fresh)
    }
}

#[test]
fn a_backup_may_lack_what_was_acknowledged_until_its_new_primary_has_committed_what_both_inherited() {
    let mut backup = Backup::new();
    backup.epoch(1, 1, 1, &[1, 2, 3]);
    backup.append(&[5, 6], 1);
    // In an epoch the primary says it again until it is shown.
    assert_eq!(backup.shown(), (1, true));
    backup.epoch(2, 2, 3, &[1, 2, 3]);
    assert_eq!(backup.shown(), (1, false), "the second may have been acknowledged");
    backup.append(&[], 1);
    assert_eq!(backup.shown(), (1, false));
    backup.append(&[7], 2);
    assert_eq!(backup.shown(), (2, true));
}

/// Seed 117,291 of the simulation: a learner was admitted with what its primary had inherited, which was not committed yet.
#[test]
fn a_newly_admitted_backup_may_lack_what_was_acknowledged_until_it_shows_all_that_it_was_admitted_with() {
    let mut backup = Backup::new();
    backup.epoch(1, 2, 3, &[1, 3]);
    backup.append(&[5, 6], 1);
    backup.epoch(2, 2, 3, &[3, 2]);
    assert_eq!(backup.shown(), (1, false), "the primary of epoch 1 may have acknowledged the second");
    backup.append(&[7], 2);
    assert_eq!(backup.shown(), (2, true));
}
