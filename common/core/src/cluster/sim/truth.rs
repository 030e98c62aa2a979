//! What must hold after every step, whatever has gone wrong.

use std::collections::BTreeMap;

use super::clients::Answered;
use super::guests::Violation;
use super::ledger::Ledger;
use crate::cluster::{ClusterMap, Epoch, Instance, Node, Partition, Position};

/// What is called fresh is no older, whatever is cut off: the time without touch
/// that goes unsaid, and what a change of the map takes.
const STALE_US: u64 = 600_000;

/// One history of a partition, as far as a primary has committed it.
#[derive(Default)]
struct History {
    committed: u64,
    /// When how much was committed.
    times: Vec<(u64, u64)>,
    /// The epoch and digest after some entries.
    digests: BTreeMap<u64, (Epoch, u64)>,
}

/// All that was ever shown.
#[derive(Default)]
pub(super) struct Truth {
    histories: BTreeMap<(Partition, u32), History>,
    /// Who acknowledged in which epoch.
    primaries: BTreeMap<(Partition, Epoch), Instance>,
    map_version: u64,
    /// By partition: the last acknowledged write, and all who have had to have it.
    acknowledged: BTreeMap<Partition, (Position, Vec<Instance>)>,
    /// By partition: what each node was seen to show last.
    shown: Vec<BTreeMap<Instance, Position>>,
}

impl Truth {
    /// Holds what a node shows against what others have shown.
    pub(super) fn look(
        &mut self,
        node: &Node<Ledger>,
        partitions: u32,
        now_us: u64,
    ) -> Result<(), Violation> {
        self.shown.resize_with(partitions as usize, BTreeMap::new);
        for partition in (0..partitions).map(Partition) {
            let Some(replica) = node.replica(partition) else { continue };
            let commit = replica.commit();
            let at = replica.position(commit).expect("the commit is in the log");
            if self.shown[partition.0 as usize].insert(node.me(), at) == Some(at) && !replica.is_primary() {
                continue;
            }
            let history = self.histories.entry((partition, at.life)).or_default();
            let who = node.me();
            if replica.is_primary() {
                if commit > history.committed {
                    history.committed = commit;
                    history.times.push((now_us, commit));
                }
            } else if commit > history.committed {
                return Err(format!(
                    "{who} shows {commit} of {partition}, committed are {}",
                    history.committed
                ));
            }
            let digest = (at.epoch, replica.state().digest);
            let known = *history.digests.entry(commit).or_insert(digest);
            if known != digest {
                return Err(format!("{who} has another history of {partition} up to {commit}"));
            }
        }
        Ok(())
    }

    /// Holds an acknowledgement against those who must have the write.
    pub(super) fn acknowledge<'a>(
        &mut self,
        partition: Partition,
        at: Position,
        primary: Instance,
        map: &ClusterMap,
        node: impl Fn(Instance) -> Option<&'a Node<Ledger>>,
    ) -> Result<(), Violation> {
        let first = *self.primaries.entry((partition, at.epoch)).or_insert(primary);
        if first != primary {
            return Err(format!(
                "{first} and {primary} both acknowledge in epoch {} of {partition}",
                at.epoch.0
            ));
        }
        // By the map that the primary acts on: whom a newer one let go of since has the write, and may be lost with it.
        let replica = node(primary).and_then(|node| node.replica(partition));
        let in_sync = replica.map(|replica| replica.assignment().in_sync.iter().map(|held| held.instance));
        let in_sync = in_sync.into_iter().flatten().collect();
        let last = self.acknowledged.entry(partition).or_default();
        if (at.life, at.seq) > (last.0.life, last.0.seq) {
            *last = (at, in_sync);
        }
        self.held(partition, map, node)
    }

    /// Holds everybody in sync against the last acknowledged write.
    fn held<'a>(
        &self,
        partition: Partition,
        map: &ClusterMap,
        node: impl Fn(Instance) -> Option<&'a Node<Ledger>>,
    ) -> Result<(), Violation> {
        let assignment = map.assignment(partition);
        let Some((at, _)) = self.acknowledged.get(&partition).filter(|(at, _)| at.life == assignment.life)
        else {
            return Ok(());
        };
        for node in assignment.in_sync.iter().filter_map(|holder| node(holder.instance)) {
            let held = node.replica(partition).is_some_and(|replica| {
                let same_life = replica.position(replica.commit()).is_some_and(|p| p.life == at.life);
                same_life && (replica.commit() >= at.seq || replica.position(at.seq) == Some(*at))
            });
            if !held {
                return Err(format!("{} is in sync for {partition} without acknowledged {at:?}", node.me()));
            }
        }
        Ok(())
    }

    /// Holds an answer to a reader against what is committed and what it has seen.
    pub(super) fn answered(
        &self,
        partition: Partition,
        seen: Option<Position>,
        answered: Answered,
        asked_us: u64,
    ) -> Result<(), Violation> {
        let Answered { at, digest, fresh } = answered;
        if let Some(seen) = seen
            && (seen.life > at.life || (seen.life == at.life && seen.seq > at.seq))
        {
            return Err(format!("a reader of {partition} at {seen:?} was shown {at:?}"));
        }
        let history = self.histories.get(&(partition, at.life));
        let committed = history.map_or(0, |history| history.committed);
        if at.seq > committed {
            return Err(format!("a reader of {partition} was shown {}, committed are {committed}", at.seq));
        }
        let old = |history: &History| {
            let until = history.times.partition_point(|(us, _)| us + STALE_US < asked_us);
            until.checked_sub(1).map_or(0, |last| history.times[last].1)
        };
        if fresh && history.map_or(0, old) > at.seq {
            return Err(format!(
                "a reader of {partition} was shown {at:?} as fresh, more than {STALE_US} us old"
            ));
        }
        if history.and_then(|h| h.digests.get(&at.seq)).is_some_and(|known| known.1 != digest) {
            return Err(format!("a reader of {partition} was shown another history at {at:?}"));
        }
        Ok(())
    }

    /// Holds a new map against the one before, and against what is acknowledged.
    pub(super) fn committed<'a>(
        &mut self,
        map: &ClusterMap,
        node: impl Fn(Instance) -> Option<&'a Node<Ledger>>,
    ) -> Result<(), Violation> {
        if map.version <= self.map_version {
            return Err(format!("the map went from version {} to {}", self.map_version, map.version));
        }
        self.map_version = map.version;
        for (partition, assignment) in map.assignments() {
            self.held(partition, map, &node)?;
            let Some((at, holders)) = self.acknowledged.get_mut(&partition) else { continue };
            if assignment.life == at.life {
                let in_sync = assignment.in_sync.iter().map(|held| held.instance);
                let admitted: Vec<_> = in_sync.filter(|held| !holders.contains(held)).collect();
                holders.extend(admitted);
            }
            let dead = holders.iter().filter(|holder| node(**holder).is_none()).count();
            if assignment.life > at.life && dead < map.replicas.min(2) {
                return Err(format!("{partition} is given up after the loss of {dead} of {holders:?}"));
            }
        }
        map.violated_invariant().map_or(Ok(()), |invariant| Err(invariant.to_owned()))
    }
}
