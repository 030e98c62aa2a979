//! Who should hold what. Pure, and the same on every node.
//!
//! [`settle`] runs with every change: it gives each partition a primary and as
//! many replicas as it shall have. [`rebalance`] runs now and then and moves a
//! few partitions towards an even load. Load is a number of partitions; ties go
//! to the lowest node, so that equal maps change alike.

use std::collections::BTreeMap;

use crate::cluster::ids::{Epoch, Holder, Instance, NodeId};
use crate::cluster::map::{Assignment, ClusterMap, Refused, Standing};
use crate::cluster::mutant::Mutant;

/// Most partitions that [`rebalance`] sets in motion at a time.
pub(crate) const MOVES_MAX: usize = 4;

/// Gives every partition a primary that answers and as many replicas as it shall have.
pub(crate) fn settle(map: &mut ClusterMap) {
    for index in 0..map.partitions.len() {
        let mut assignment = std::mem::take(&mut map.partitions[index]);
        refill(map, &mut assignment);
        shed(map, &mut assignment);
        promote(map, &mut assignment);
        recruit(map, &mut assignment);
        map.partitions[index] = assignment;
    }
}

/// Begins an empty history where no replica is left.
fn refill(map: &ClusterMap, assignment: &mut Assignment) {
    if !assignment.in_sync.is_empty() {
        return;
    }
    let held = loads(map, Assignment::holders);
    let Some(node) = least(map, &held, |_| true) else { return };
    // Whoever was catching up has a piece of the history that is over.
    *assignment = Assignment {
        life: assignment.life + 1,
        epoch: assignment.epoch,
        version: assignment.version,
        primary: None,
        in_sync: vec![node],
        learners: Vec::new(),
    };
}

/// Lets go of silent replicas, and of surplus ones, as far as the floor allows.
fn shed(map: &ClusterMap, assignment: &mut Assignment) {
    let floor = map.floor();
    while assignment.in_sync.len() > floor {
        let Some(silent) = assignment.in_sync.iter().position(|held| !map.is_up(held.instance)) else {
            break;
        };
        let silent = assignment.in_sync.remove(silent);
        if assignment.primary == Some(silent) {
            assignment.primary = None;
        }
    }
    let answering = assignment.in_sync.iter().filter(|held| map.is_up(held.instance)).count();
    if answering > map.replicas
        && let Some(surplus) = surplus(map, &loads(map, in_sync), assignment)
    {
        assignment.in_sync.retain(|held| *held != surplus);
        assignment.primary = assignment.primary.filter(|primary| *primary != surplus);
    }
    if answering >= map.replicas {
        assignment.learners.truncate(1);
    }
}

/// Chooses the replica that one too many replicas can do without: one whose node has more than another one of them, rather a
/// backup. `held` are loads by what is in sync.
fn surplus(map: &ClusterMap, held: &BTreeMap<NodeId, usize>, assignment: &Assignment) -> Option<Holder> {
    let load = |holder: &Holder| held.get(&holder.instance.node).copied().unwrap_or(0);
    let least = assignment.in_sync.iter().map(load).min()?;
    let spare = |holder: &Holder| {
        let is_backup = Some(*holder) != assignment.primary;
        (is_draining(map, holder.instance), load(holder) > least, is_backup, load(holder), *holder)
    };
    assignment.in_sync.iter().copied().max_by_key(spare)
}

/// Makes a replica in sync the primary where there is none that answers.
fn promote(map: &ClusterMap, assignment: &mut Assignment) {
    if assignment.primary.is_some() {
        return;
    }
    let led = loads(map, |assignment| assignment.primary.into_iter());
    let unclean = map.mutants.has(Mutant::UncleanPromotion);
    let answering = assignment.in_sync.iter().chain(assignment.learners.iter().filter(|_| unclean));
    let answering = answering.copied().filter(|held| map.is_up(held.instance));
    let load = |held: &Holder| {
        let Instance { node, .. } = held.instance;
        (is_draining(map, held.instance), led.get(&node).copied(), node)
    };
    if let Some(primary) = answering.min_by_key(load) {
        assignment.primary = Some(primary);
        assignment.epoch = Epoch(assignment.epoch.0 + 1);
    }
}

/// Adds learners until enough nodes answer for the partition.
fn recruit(map: &ClusterMap, assignment: &mut Assignment) {
    while assignment.holders().filter(|holder| map.is_up(holder.instance)).count() < map.replicas {
        let held = loads(map, Assignment::holders);
        let free = |node: NodeId| assignment.holders().all(|holder| holder.instance.node != node);
        let Some(learner) = least(map, &held, free) else { return };
        assignment.learners.push(learner);
    }
}

/// Moves a few partitions towards an even load; refused when nothing is to be
/// moved, or the last moves are not done.
pub(crate) fn rebalance(map: &mut ClusterMap) -> Result<(), Refused> {
    let moving = map.partitions.iter().filter(|assignment| !assignment.learners.is_empty()).count();
    let mut moved = 0;
    while moving + moved < MOVES_MAX && (move_primary(map) || move_replica(map)) {
        moved += 1;
    }
    if moved == 0 { Err(Refused::Nothing) } else { Ok(()) }
}

/// Hands a primary from the node with most of them to a backup with fewer.
fn move_primary(map: &mut ClusterMap) -> bool {
    let led = loads(map, |assignment| assignment.primary.into_iter());
    let load = |holder: Holder| led.get(&holder.instance.node).copied().unwrap_or(0);
    let gain = |from: Holder, to: Holder| {
        let relieved = is_draining(map, from.instance) && !is_draining(map, to.instance);
        let fair = !is_draining(map, to.instance) && load(from) >= load(to) + 2;
        (relieved || fair).then(|| (relieved, load(from).saturating_sub(load(to))))
    };
    let moves = map.partitions.iter().enumerate().filter_map(|(index, assignment)| {
        let primary = assignment.primary?;
        let backups =
            assignment.in_sync.iter().copied().filter(|held| *held != primary && map.is_up(held.instance));
        backups.filter_map(|to| Some((gain(primary, to)?, index, to))).max()
    });
    let Some((_, index, to)) = moves.max() else { return false };
    let assignment = &mut map.partitions[index];
    assignment.primary = Some(to);
    assignment.epoch = Epoch(assignment.epoch.0 + 1);
    true
}

/// Recruits the least loaded node for a partition of a more loaded one, which
/// lets go of it once the newcomer is in sync.
///
/// Each move makes the sum of the squares of the loads smaller, so that moving comes to an end.
fn move_replica(map: &mut ClusterMap) -> bool {
    // As if all that is under way were done.
    let mut done = map.clone();
    for index in 0..done.partitions.len() {
        complete(&mut done, index);
    }
    let held = loads(&done, in_sync);
    let load = |held: &BTreeMap<NodeId, usize>, holder: Holder| {
        held.get(&holder.instance.node).copied().unwrap_or(0)
    };
    let moves = map.partitions.iter().enumerate().filter(|(_, assignment)| assignment.learners.is_empty());
    let moves = moves.filter_map(|(index, assignment)| {
        let to = least(map, &held, |node| assignment.holders().all(|holder| holder.instance.node != node))?;
        let (mut with, mut held) = (assignment.clone(), held.clone());
        for holder in &with.in_sync {
            held.entry(holder.instance.node).and_modify(|load| *load -= 1);
        }
        with.in_sync.push(to);
        let from = surplus(map, &held, &with).filter(|from| *from != to)?;
        let relieved = is_draining(map, from.instance);
        let gain = (relieved, load(&held, from).saturating_sub(load(&held, to)));
        (relieved || gain.1 > 0).then_some((gain, index, to))
    });
    let Some((_, index, to)) = moves.max() else { return false };
    map.partitions[index].learners.push(to);
    true
}

/// Makes a partition what it is once its learners are in sync.
fn complete(map: &mut ClusterMap, index: usize) {
    let mut assignment = std::mem::take(&mut map.partitions[index]);
    let learners = std::mem::take(&mut assignment.learners);
    assignment.in_sync.extend(learners);
    shed(map, &mut assignment);
    map.partitions[index] = assignment;
}

fn in_sync(assignment: &Assignment) -> std::iter::Copied<std::slice::Iter<'_, Holder>> {
    assignment.in_sync.iter().copied()
}

/// Counts, for each node, the partitions in which it is one of `chosen`.
fn loads<'a, I: Iterator<Item = Holder>>(
    map: &'a ClusterMap,
    chosen: impl Fn(&'a Assignment) -> I,
) -> BTreeMap<NodeId, usize> {
    let mut loads = BTreeMap::new();
    for holder in map.partitions.iter().flat_map(chosen) {
        *loads.entry(holder.instance.node).or_default() += 1;
    }
    loads
}

/// Makes a new holder of the least loaded member that answers, stays and is allowed.
fn least(
    map: &ClusterMap,
    loads: &BTreeMap<NodeId, usize>,
    allowed: impl Fn(NodeId) -> bool,
) -> Option<Holder> {
    let usable = map.members.iter().filter(|(_, member)| member.standing == Standing::Up && !member.draining);
    let usable = usable.filter(|(node, _)| allowed(**node));
    let chosen = usable.min_by_key(|(node, _)| (loads.get(node).copied().unwrap_or(0), **node));
    chosen.map(|(node, member)| Holder {
        instance: Instance { node: *node, incarnation: member.incarnation },
        since: if map.mutants.has(Mutant::AnyTenure) { 0 } else { map.version + 1 },
    })
}

fn is_draining(map: &ClusterMap, instance: Instance) -> bool {
    map.members.get(&instance.node).is_some_and(|member| member.draining)
}
