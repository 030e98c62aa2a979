//! Changes of the map, one story each, and any of them in any order.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::cluster::mutant::Mutant;
use crate::cluster::protocol::{Effect, ReplicaConfig, Replication, RequestId};
use crate::cluster::replica::Replica;
use crate::cluster::replica::tests::Sum;

fn instance(node: u16, incarnation: u64) -> Instance {
    Instance { node: NodeId(node), incarnation: Incarnation(incarnation) }
}

/// Admits all learners, as primaries do that find them caught up.
fn caught_up(map: &mut ClusterMap) {
    while let Some(admit) = admission(map) {
        map.apply(&admit).expect("it is a learner");
    }
}

fn admission(map: &ClusterMap) -> Option<Change> {
    map.assignments().find_map(|(partition, assignment)| {
        assignment.primary?;
        let holder = *assignment.learners.first()?;
        Some(Change::Admit { partition, version: assignment.version, holder })
    })
}

/// A cluster of five in which all is well.
fn five() -> ClusterMap {
    five_broken_by(Mutants::default())
}

fn five_broken_by(mutants: Mutants) -> ClusterMap {
    let mut map = ClusterMap { mutants, ..ClusterMap::new(8, 3) };
    for node in 1..=5 {
        map.apply(&Change::Join(instance(node, 1))).expect("it is new");
    }
    caught_up(&mut map);
    while map.apply(&Change::Rebalance).is_ok() {
        caught_up(&mut map);
    }
    map
}

fn nodes(holders: &[Holder]) -> Vec<u16> {
    holders.iter().map(|holder| holder.instance.node.0).collect()
}

#[test]
fn load_is_even_once_it_was_balanced() {
    let map = five();
    for assignment in &map.partitions {
        assert_eq!((assignment.in_sync.len(), assignment.learners.len()), (3, 0));
    }
    let count = |chosen: &dyn Fn(&Assignment, NodeId) -> bool| -> Vec<usize> {
        map.members.keys().map(|node| map.partitions.iter().filter(|a| chosen(a, *node)).count()).collect()
    };
    let led = count(&|a, node| a.primary.is_some_and(|p| p.instance.node == node));
    let held = count(&|a, node| a.in_sync.iter().any(|h| h.instance.node == node));
    for loads in [&led, &held] {
        assert!(loads.iter().max() <= loads.iter().min().map(|least| least + 1).as_ref(), "{led:?} {held:?}");
    }
}

#[test]
fn one_change_moves_all_that_a_lost_node_held() {
    let mut map = five();
    map.apply(&Change::Down(instance(2, 1))).expect("it was up");
    for assignment in &map.partitions {
        assert!(assignment.primary.is_some_and(|primary| primary.instance.node.0 != 2));
        assert!(!nodes(&assignment.in_sync).contains(&2), "two others have every write");
        assert_eq!(assignment.holders().count(), 3, "another catches up");
    }
}

/// A replica lets go of a partition and gets it again, which the primary hears of at once only. Says whether it
/// proposes to admit the replica that is there now, and has nothing.
fn admits_one_that_has_nothing(mutants: Mutants) -> bool {
    let mut map = five_broken_by(mutants);
    let before = map.partitions[0].clone();
    let primary = before.primary.expect("all is well");
    let backups: Vec<Holder> = before.in_sync.iter().copied().filter(|holder| *holder != primary).collect();
    let (config, mut out) = (ReplicaConfig::default(), Vec::new());
    let mut replica = Replica::new(primary, Partition(0), config, Sum::default());
    replica.adopt(&before, &Sum::default(), 0, &mut out);
    replica.submit(RequestId(1), 7, 1, &mut out);
    for backup in &backups {
        replica.receive(*backup, before.epoch, Replication::Appended { matched: 1, shown: 1 }, 1, &mut out);
    }
    let gone = backups[0].instance;
    map.apply(&Change::Down(gone)).expect("it was up");
    map.apply(&Change::Join(gone)).expect("it answers again");
    let stood_in = map.partitions[0].learners[0].instance;
    map.apply(&Change::Down(stood_in)).expect("it was up");
    let after = map.partitions[0].clone();
    assert_eq!(nodes(&after.learners), [gone.node.0], "it has least to do");
    out.clear();
    replica.adopt(&after, &Sum::default(), 2, &mut out);
    (0..100).for_each(|tick| replica.tick(tick * 20_000, &mut out));
    out.iter().any(|effect| matches!(effect, Effect::Propose(Change::Admit { .. })))
}

#[test]
fn a_replica_that_was_let_go_of_counts_for_nothing_when_its_node_holds_the_partition_again() {
    assert!(!admits_one_that_has_nothing(Mutants::default()));
    assert!(admits_one_that_has_nothing(Mutants(Some(Mutant::AnyTenure))), "its tenure tells them apart");
}

#[test]
fn suspicion_keeps_the_last_two_holders_and_a_restart_does_not() {
    let mut map = five();
    let held = nodes(&map.partitions[0].in_sync);
    map.apply(&Change::Down(instance(held[0], 1))).expect("it was up");
    map.apply(&Change::Down(instance(held[1], 1))).expect("it was up");
    assert_eq!(map.partitions[0].in_sync.len(), 2, "a silent one may have what nobody else has");
    assert!(map.partitions[0].primary.is_some());
    map.apply(&Change::Join(instance(held[1], 2))).expect("it is a new life");
    assert_eq!(nodes(&map.partitions[0].in_sync), [held[2]], "its memory is gone");
}

#[test]
fn a_partition_without_any_holder_begins_another_life() {
    let mut map = five();
    let life = map.partitions[0].life;
    let held = nodes(&map.partitions[0].in_sync);
    for node in &held {
        map.apply(&Change::Join(instance(*node, 2))).expect("it is a new life");
    }
    let assignment = &map.partitions[0];
    assert_eq!(assignment.life, life + 1);
    assert!(assignment.primary.is_some());
    assert_eq!(assignment.in_sync.len(), 1);
}

#[test]
fn a_forgotten_node_takes_what_only_it_held() {
    let mut map = ClusterMap::new(1, 1);
    map.apply(&Change::Join(instance(1, 1))).expect("it is new");
    map.apply(&Change::Join(instance(2, 1))).expect("it is new");
    map.apply(&Change::Down(instance(1, 1))).expect("it was up");
    assert_eq!(map.partitions[0].primary, None, "nobody else has it");
    map.apply(&Change::Forget(instance(1, 1))).expect("it is silent");
    assert_eq!(nodes(&map.partitions[0].in_sync), [2]);
    assert_eq!(map.partitions[0].life, 2);
    assert_eq!(map.apply(&Change::Down(instance(1, 1))), Err(Refused::NotMember));
}

#[test]
fn an_outdated_admission_is_refused() {
    let mut map = five();
    map.apply(&Change::Down(instance(2, 1))).expect("it was up");
    let (partition, assignment) =
        map.assignments().find(|(_, assignment)| !assignment.learners.is_empty()).expect("some are moved");
    let (version, holder) = (assignment.version, assignment.learners[0]);
    let admit = Change::Admit { partition, version, holder };
    // It goes and comes back before the admission arrives.
    map.apply(&Change::Down(holder.instance)).expect("it was up");
    map.apply(&Change::Join(holder.instance)).expect("it was silent");
    assert_eq!(map.apply(&admit), Err(Refused::Outdated));
}

#[test]
fn a_drained_node_ends_up_empty_and_stays_so() {
    let mut map = five();
    map.apply(&Change::Drain(NodeId(3), true)).expect("it is a member");
    while map.apply(&Change::Rebalance).is_ok() {
        assert!(map.partitions.iter().filter(|a| !a.learners.is_empty()).count() <= placement::MOVES_MAX);
        caught_up(&mut map);
    }
    assert!(map.partitions.iter().all(|assignment| !nodes(&assignment.in_sync).contains(&3)));
    assert!(map.partitions.iter().all(|assignment| assignment.in_sync.len() == 3));
    assert_eq!(map.apply(&Change::Drain(NodeId(3), true)), Err(Refused::Nothing));
}

/// A change by small numbers; those of partitions take what the map says then.
#[derive(Clone, Debug)]
enum Step {
    Join(u16, u64),
    Down(u16),
    Forget(u16),
    Admit(usize, usize),
    Eject(usize, usize),
    Drain(u16, bool),
    Rebalance,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u16..5, 0_u64..2).prop_map(|(node, more)| Step::Join(node, more)),
        3 => (0_u16..5).prop_map(Step::Down),
        1 => (0_u16..5).prop_map(Step::Forget),
        6 => (0_usize..4, 0_usize..3).prop_map(|(partition, at)| Step::Admit(partition, at)),
        2 => (0_usize..4, 0_usize..4).prop_map(|(partition, at)| Step::Eject(partition, at)),
        1 => (0_u16..5, any::<bool>()).prop_map(|(node, draining)| Step::Drain(node, draining)),
        2 => Just(Step::Rebalance),
    ]
}

impl Step {
    fn change(&self, map: &ClusterMap) -> Option<Change> {
        let present = |node: u16| {
            let incarnation = map.members.get(&NodeId(node))?.incarnation;
            Some(Instance { node: NodeId(node), incarnation })
        };
        let pick = |partition: usize, at: usize, learner: bool| {
            let assignment = &map.partitions[partition];
            let holders = if learner { &assignment.learners } else { &assignment.in_sync };
            Some((Partition(partition as u32), assignment.version, *holders.get(at)?))
        };
        Some(match *self {
            Self::Join(node, more) => {
                Change::Join(instance(node, present(node).map_or(0, |held| held.incarnation.0) + more))
            }
            Self::Down(node) => Change::Down(present(node)?),
            Self::Forget(node) => Change::Forget(present(node)?),
            Self::Admit(partition, at) => {
                let (partition, version, holder) = pick(partition, at, true)?;
                Change::Admit { partition, version, holder }
            }
            Self::Eject(partition, at) => {
                let (partition, version, holder) = pick(partition, at, false)?;
                Change::Eject { partition, version, holder }
            }
            Self::Drain(node, draining) => Change::Drain(NodeId(node), draining),
            Self::Rebalance => Change::Rebalance,
        })
    }
}

proptest! {
    #[test]
    fn whatever_changes_keeps_the_invariants(steps in prop::collection::vec(step(), 1..80)) {
        let mut map = ClusterMap::new(4, 3);
        for step in steps {
            let before = map.clone();
            let Some(change) = step.change(&map) else { continue };
            if map.apply(&change).is_err() {
                prop_assert_eq!(&map, &before, "a refused change changes nothing");
                continue;
            }
            prop_assert_eq!(map.violated_invariant(), None);
            prop_assert_eq!(map.version, before.version + 1);
            for (now, then) in map.partitions.iter().zip(&before.partitions) {
                prop_assert!(now.epoch >= then.epoch && now.life >= then.life);
                let new_primary = now.primary.is_some() && now.primary != then.primary;
                prop_assert!(!new_primary || now.epoch > then.epoch, "a new primary has a new epoch");
                prop_assert_eq!(now.version > then.version, now != then);
                let gone = then.in_sync.iter().filter(|held| !now.in_sync.contains(held)).count();
                let memory_lost = matches!(change, Change::Join(_) | Change::Forget(_));
                prop_assert!(
                    gone == 0 || memory_lost || now.in_sync.len() >= map.floor(),
                    "suspicion leaves the last holders: {:?} after {:?}", now, change
                );
            }
        }
    }
}

/// Admits learners in any order, a number of them or all.
fn some_caught_up(map: &mut ClusterMap, order: &mut StdRng, most: usize) {
    for _ in 0..most {
        let learners = map.assignments().filter(|(_, assignment)| assignment.primary.is_some());
        let learners = learners.filter_map(|(partition, assignment)| {
            let holder = *assignment.learners.first()?;
            Some(Change::Admit { partition, version: assignment.version, holder })
        });
        let Some(admit) = learners.choose(order) else { return };
        map.apply(&admit).expect("it is a learner");
    }
}

/// Partitions that each node holds, and that it leads.
fn held_and_led(map: &ClusterMap) -> Vec<(usize, usize)> {
    let count = |node: NodeId, chosen: fn(&Assignment) -> Vec<Holder>| {
        let holds =
            |assignment: &&Assignment| chosen(assignment).iter().any(|held| held.instance.node == node);
        map.partitions.iter().filter(holds).count()
    };
    let nodes = map.members.iter().filter(|(_, member)| !member.draining).map(|(node, _)| *node);
    nodes
        .map(|node| {
            let led = count(node, |assignment| assignment.primary.into_iter().collect());
            (count(node, |assignment| assignment.in_sync.clone()), led)
        })
        .collect()
}

proptest! {
    #[test]
    fn balancing_comes_to_an_end_and_leaves_an_even_load(
        (replicas, partitions) in (1_usize..5, 1_u32..40),
        joins in prop::collection::vec((1_u16..8, 0_usize..90), 1..12),
        drained in prop::option::of(1_u16..8),
        lost in prop::option::of(1_u16..8),
        seed: u64,
    ) {
        let mut order = StdRng::seed_from_u64(seed);
        let mut map = ClusterMap::new(partitions, replicas);
        for (node, admitted) in joins {
            let _ = map.apply(&Change::Join(instance(node, 1)));
            some_caught_up(&mut map, &mut order, admitted);
        }
        if let Some(node) = drained {
            let _ = map.apply(&Change::Drain(NodeId(node), true));
        }
        if let Some(node) = lost {
            let _ = map.apply(&Change::Down(instance(node, 1)));
            some_caught_up(&mut map, &mut order, 10);
            let _ = map.apply(&Change::Join(instance(node, 1)));
        }
        some_caught_up(&mut map, &mut order, usize::MAX);
        let mut turns = 0;
        loop {
            let moved = map.apply(&Change::Rebalance).is_ok();
            let is_moving = map.partitions.iter().any(|assignment| !assignment.learners.is_empty());
            if !moved && !is_moving {
                break;
            }
            let most = order.random_range(1..6);
            some_caught_up(&mut map, &mut order, most);
            turns += 1;
            prop_assert!(turns < 500, "it goes on for ever: {:?}", held_and_led(&map));
        }
        let loads = held_and_led(&map);
        let spread = |all: Vec<usize>| all.iter().max().unwrap_or(&0) - all.iter().min().unwrap_or(&0);
        let held = spread(loads.iter().map(|load| load.0).collect());
        let led = spread(loads.iter().map(|load| load.1).collect());
        prop_assert!(held <= 1 && led <= 2, "{loads:?}");
    }
}
