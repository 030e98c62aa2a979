//! The partition map and every change of it. Pure.
//!
//! ```text
//!   suspicion, proof of restart,          ┌───────────────────────────────┐
//!   caught up, too slow, drain  ─▶ Change ─▶ ClusterMap::apply ─▶ version+1 │─▶ every node
//!                                         └───────────────────────────────┘
//! ```
//!
//! The map is the only place that says where data is. It changes by committed
//! entries of the control log alone, each applied by this function on every
//! node alike, so one entry moves all that a lost node held.
//!
//! Invariants, see [`ClusterMap::violated_invariant`]:
//! - a primary is in sync, and every holder is a current life of its node;
//! - suspicion never leaves fewer than [`ClusterMap::floor`] replicas in sync:
//!   the last holders keep every acknowledged write. Only proof that their
//!   memory is gone (a new incarnation, or a person's word) removes them;
//! - a partition's epoch grows with each primary, its version with each change.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::cluster::ids::{Epoch, Holder, Incarnation, Instance, NodeId, Partition};
use crate::cluster::mutant::{Mutant, Mutants};
use crate::cluster::placement;

/// Who the members are, and which of them hold which partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterMap {
    /// Grows by one with each change.
    pub version: u64,
    /// How many replicas each partition shall have.
    pub replicas: usize,
    /// The nodes that have joined.
    pub members: BTreeMap<NodeId, Member>,
    /// By number of partition.
    pub partitions: Vec<Assignment>,
    /// Those who vote in control and have taken part, as its leader saw them last; none before
    /// there was one. So all nodes know whom to ask, and one that has forgotten that it voted is
    /// told from a new one.
    #[serde(default)]
    pub voters: BTreeSet<NodeId>,
    #[serde(skip)]
    pub(crate) mutants: Mutants,
}

/// A node of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its present life.
    pub incarnation: Incarnation,
    /// What is expected of it.
    pub standing: Standing,
    /// Whether it is to be emptied.
    pub draining: bool,
}

/// What is expected of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// It answers.
    Up,
    /// It is silent; its memory may still hold what nobody else does.
    Suspected,
}

/// Who holds a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Which history of the partition; see [`crate::cluster::Position::life`].
    pub life: u32,
    /// Grows with each primary; replication messages of another are refused.
    pub epoch: Epoch,
    /// The version of the map in which this last changed.
    pub version: u64,
    /// Orders the writes. None while no replica in sync answers.
    pub primary: Option<Holder>,
    /// Holds every acknowledged write; the primary is one of them.
    pub in_sync: Vec<Holder>,
    /// Catches up.
    pub learners: Vec<Holder>,
}

/// A change of the map, as proposed to control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A node has started, or a suspected one answers again.
    Join(Instance),
    /// A node is silent.
    Down(Instance),
    /// A silent node will not come back: what only it held is lost.
    Forget(Instance),
    /// A learner of this partition has caught up and acknowledges all writes already.
    Admit {
        /// The partition.
        partition: Partition,
        /// The assignment's version that the proposer has seen.
        version: u64,
        /// The learner.
        holder: Holder,
    },
    /// A replica of this partition acknowledges too slowly.
    Eject {
        /// The partition.
        partition: Partition,
        /// The assignment's version that the proposer has seen.
        version: u64,
        /// The replica; not the primary.
        holder: Holder,
    },
    /// Empties a node, or (false) uses it again.
    Drain(NodeId, bool),
    /// Moves a few partitions towards an even load.
    Rebalance,
    /// These vote in control now, and have taken part.
    Voters(BTreeSet<NodeId>),
}

/// Why a change was not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refused {
    /// The proposer saw an older assignment.
    #[error("the partition's assignment has changed since")]
    Outdated,
    /// It would leave too few replicas in sync.
    #[error("too few replicas would stay in sync")]
    Floor,
    /// It speaks of a life that is over, or of no member.
    #[error("this is no present life of a member")]
    NotMember,
    /// Nothing would change.
    #[error("nothing would change")]
    Nothing,
}

impl ClusterMap {
    /// Creates the map of a cluster without members: the first that join hold everything.
    ///
    /// # Panics
    /// When there are to be no partitions or no replicas.
    pub fn new(partitions: u32, replicas: usize) -> Self {
        assert!(partitions > 0 && replicas > 0, "a cluster has partitions and replicas");
        let partitions = vec![Assignment::default(); partitions as usize];
        let (members, voters) = (BTreeMap::new(), BTreeSet::new());
        Self { version: 0, replicas, members, partitions, voters, mutants: Mutants::default() }
    }

    /// Returns the least number of replicas that suspicion leaves in sync, and that acknowledge a write.
    pub fn floor(&self) -> usize {
        if self.mutants.has(Mutant::NoFloor) { 1 } else { self.replicas.min(2) }
    }

    /// Applies a change, or refuses it and stays as it was.
    pub fn apply(&mut self, change: &Change) -> Result<(), Refused> {
        let before = self.clone();
        let changed = match *change {
            Change::Join(instance) => self.join(instance),
            Change::Down(instance) => self.down(instance),
            Change::Forget(instance) => self.forget(instance),
            Change::Admit { partition, version, holder } => self.admit(partition, version, holder),
            Change::Eject { partition, version, holder } => self.eject(partition, version, holder),
            Change::Drain(node, draining) => self.drain(node, draining),
            Change::Rebalance => placement::rebalance(self),
            Change::Voters(ref voters) => self.set_voters(voters),
        };
        if let Err(refused) = changed {
            *self = before;
            return Err(refused);
        }
        placement::settle(self);
        self.version += 1;
        for (now, then) in self.partitions.iter_mut().zip(&before.partitions) {
            if now != then {
                now.version = self.version;
            }
        }
        debug_assert_eq!(self.violated_invariant(), None, "after {change:?}");
        Ok(())
    }

    fn join(&mut self, instance: Instance) -> Result<(), Refused> {
        let known = self.members.get(&instance.node).copied();
        match known.map(|member| (member.incarnation.cmp(&instance.incarnation), member.standing)) {
            Some((std::cmp::Ordering::Greater, _)) => return Err(Refused::NotMember),
            Some((std::cmp::Ordering::Equal, Standing::Up)) => return Err(Refused::Nothing),
            Some((std::cmp::Ordering::Less, _)) if self.mutants.has(Mutant::RestartInSync) => {
                self.rename(instance);
            }
            Some((std::cmp::Ordering::Less, _)) => self.lose_memory(instance.node),
            _ => {}
        }
        let draining = known.is_some_and(|member| member.draining);
        let member = Member { incarnation: instance.incarnation, standing: Standing::Up, draining };
        self.members.insert(instance.node, member);
        Ok(())
    }

    fn down(&mut self, instance: Instance) -> Result<(), Refused> {
        let member = self.member_mut(instance)?;
        if member.standing == Standing::Suspected {
            return Err(Refused::Nothing);
        }
        member.standing = Standing::Suspected;
        for assignment in &mut self.partitions {
            assignment.learners.retain(|learner| learner.instance != instance);
            if assignment.primary.is_some_and(|primary| primary.instance == instance) {
                assignment.primary = None;
            }
        }
        Ok(())
    }

    fn forget(&mut self, instance: Instance) -> Result<(), Refused> {
        if self.member_mut(instance)?.standing == Standing::Up {
            return Err(Refused::Nothing);
        }
        self.lose_memory(instance.node);
        self.members.remove(&instance.node);
        Ok(())
    }

    fn admit(&mut self, partition: Partition, version: u64, holder: Holder) -> Result<(), Refused> {
        let assignment = self.current(partition, version)?;
        let learner = assignment.learners.iter().position(|learner| *learner == holder);
        let learner = learner.ok_or(Refused::Nothing)?;
        assignment.learners.remove(learner);
        assignment.in_sync.push(holder);
        Ok(())
    }

    fn eject(&mut self, partition: Partition, version: u64, holder: Holder) -> Result<(), Refused> {
        let floor = self.floor();
        let next = self.version + 1;
        let assignment = self.current(partition, version)?;
        if assignment.learners.contains(&holder) {
            // It acknowledges already, and an admission may be on its way: from now on that is outdated.
            assignment.version = next;
            return Ok(());
        }
        if assignment.in_sync.len() <= floor || assignment.primary == Some(holder) {
            return Err(Refused::Floor);
        }
        let held = assignment.in_sync.iter().position(|held| *held == holder).ok_or(Refused::Nothing)?;
        assignment.in_sync.remove(held);
        assignment.learners.push(holder);
        Ok(())
    }

    fn drain(&mut self, node: NodeId, draining: bool) -> Result<(), Refused> {
        let member = self.members.get_mut(&node).ok_or(Refused::NotMember)?;
        if member.draining == draining {
            return Err(Refused::Nothing);
        }
        member.draining = draining;
        Ok(())
    }

    fn set_voters(&mut self, voters: &BTreeSet<NodeId>) -> Result<(), Refused> {
        if self.voters == *voters {
            return Err(Refused::Nothing);
        }
        self.voters.clone_from(voters);
        Ok(())
    }

    /// Takes away all that a node held: its memory is gone.
    fn lose_memory(&mut self, node: NodeId) {
        for assignment in &mut self.partitions {
            assignment.in_sync.retain(|held| held.instance.node != node);
            assignment.learners.retain(|held| held.instance.node != node);
            if assignment.primary.is_some_and(|primary| primary.instance.node == node) {
                assignment.primary = None;
            }
        }
    }

    /// Believes that a restarted node holds what it held.
    fn rename(&mut self, instance: Instance) {
        for assignment in &mut self.partitions {
            let in_sync = assignment.in_sync.iter_mut();
            let holders = in_sync.chain(&mut assignment.learners).chain(&mut assignment.primary);
            let theirs = holders.filter(|holder| holder.instance.node == instance.node);
            theirs.for_each(|holder| holder.instance = instance);
        }
    }

    fn current(&mut self, partition: Partition, version: u64) -> Result<&mut Assignment, Refused> {
        let any = self.mutants.has(Mutant::AnyVersion);
        let assignment = self.partitions.get_mut(partition.0 as usize).ok_or(Refused::Nothing)?;
        if assignment.version == version || any { Ok(assignment) } else { Err(Refused::Outdated) }
    }

    fn member_mut(&mut self, instance: Instance) -> Result<&mut Member, Refused> {
        let member = self.members.get_mut(&instance.node);
        member.filter(|member| member.incarnation == instance.incarnation).ok_or(Refused::NotMember)
    }

    /// Returns who holds a partition.
    ///
    /// # Panics
    /// When there is no such partition.
    pub fn assignment(&self, partition: Partition) -> &Assignment {
        &self.partitions[partition.0 as usize]
    }

    /// Says whether this is the present life of a member.
    pub fn is_member(&self, instance: Instance) -> bool {
        self.members.get(&instance.node).is_some_and(|member| member.incarnation == instance.incarnation)
    }

    /// Says whether this is the present life of a member that answers.
    pub fn is_up(&self, instance: Instance) -> bool {
        let member = self.members.get(&instance.node);
        member.is_some_and(|m| m.incarnation == instance.incarnation && m.standing == Standing::Up)
    }

    /// Iterates the partitions with their numbers.
    pub fn assignments(&self) -> impl Iterator<Item = (Partition, &Assignment)> {
        (0..).map(Partition).zip(&self.partitions)
    }

    /// Names an invariant that does not hold; none when all is well.
    pub fn violated_invariant(&self) -> Option<&'static str> {
        for assignment in &self.partitions {
            if assignment.primary.is_some_and(|primary| !assignment.in_sync.contains(&primary)) {
                return Some("a primary is not in sync");
            }
            if !assignment.holders().all(|holder| self.is_member(holder.instance)) {
                return Some("a holder is no present life of a member");
            }
            let mut nodes: Vec<NodeId> = assignment.holders().map(|holder| holder.instance.node).collect();
            nodes.sort_unstable();
            if nodes.windows(2).any(|pair| pair[0] == pair[1]) {
                return Some("a node holds a partition twice");
            }
        }
        None
    }
}

impl Assignment {
    /// Iterates those in sync, then those that catch up.
    pub fn holders(&self) -> impl Iterator<Item = Holder> {
        self.in_sync.iter().chain(&self.learners).copied()
    }

    /// Returns a node's holding in this life, if it has one.
    pub fn holder(&self, instance: Instance) -> Option<Holder> {
        self.holders().find(|holder| holder.instance == instance)
    }
}

#[cfg(test)]
mod tests;
