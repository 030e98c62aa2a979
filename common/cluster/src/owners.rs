//! Which node works on which log partition. Pure, so that all nodes with the same map agree.
//!
//! Each log partition is fed by one node and followed by another one, which is the one that would
//! feed it if the first were gone: it keeps an index, so it goes on at once, and nobody else has to
//! begin anything. By highest random weight (Thaler and Ravishankar 1998), with at most the fair
//! share for each node: the loss or return of a node moves little but what it had.

use std::collections::{BTreeMap, BTreeSet};

use sanso_core::cluster::{ClusterMap, NodeId, Standing};

/// Returns the members that answer and are not being emptied, of those that have a role.
pub fn usable(map: &ClusterMap, has_role: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
    let usable = map.members.iter().filter(|(_, member)| member.standing == Standing::Up && !member.draining);
    usable.map(|(node, _)| *node).filter(|node| has_role(*node)).collect()
}

/// Says which node does a job that one node does at a time.
pub fn holder_of(job: &str, nodes: &[NodeId]) -> Option<NodeId> {
    assign(&[()], nodes, |(), node| weight(job, 0, node)).remove(&())
}

/// Assigns `jobs` to nodes, each of them at most its fair share. Empty when there is no node.
pub fn assign<J: Ord + Clone>(
    jobs: &[J],
    nodes: &[NodeId],
    weight: impl Fn(&J, NodeId) -> u64,
) -> BTreeMap<J, NodeId> {
    let mut assigned = BTreeMap::new();
    if nodes.is_empty() {
        return assigned;
    }
    let share = jobs.len().div_ceil(nodes.len());
    let mut load: BTreeMap<NodeId, usize> = BTreeMap::new();
    let pairs = jobs.iter().flat_map(|job| nodes.iter().map(move |node| (job, *node)));
    let mut wishes: Vec<(u64, &J, NodeId)> =
        pairs.map(|(job, node)| (weight(job, node), job, node)).collect();
    wishes.sort_by(|a, b| b.cmp(a));
    for (_, job, node) in wishes {
        let held = load.entry(node).or_default();
        if *held < share && !assigned.contains_key(job) {
            *held += 1;
            assigned.insert(job.clone(), node);
        }
    }
    assigned
}

/// Says who feeds and who follows each job. Nobody follows where there is one node alone.
pub fn assign_with_followers<J: Ord + Clone>(
    jobs: &[J],
    nodes: &[NodeId],
    weight: impl Fn(&J, NodeId) -> u64,
) -> BTreeMap<J, (NodeId, Option<NodeId>)> {
    let feeds = assign(jobs, nodes, &weight);
    let mut both: BTreeMap<J, (NodeId, Option<NodeId>)> = BTreeMap::new();
    for lost in nodes {
        let others: Vec<NodeId> = nodes.iter().copied().filter(|node| node != lost).collect();
        let then = assign(jobs, &others, &weight);
        for (job, feeder) in feeds.iter().filter(|(_, feeder)| *feeder == lost) {
            both.insert(job.clone(), (*feeder, then.get(job).copied()));
        }
    }
    both
}

/// Says for each job who is to have what it takes, best first: who does it, who would without that one, who
/// would without both, and so on, `places` of them at most.
pub fn assign_places<J: Ord + Clone>(
    jobs: &[J],
    nodes: &[NodeId],
    places: usize,
    weight: impl Fn(&J, NodeId) -> u64,
) -> BTreeMap<J, Vec<NodeId>> {
    let mut without: BTreeMap<BTreeSet<NodeId>, BTreeMap<J, NodeId>> = BTreeMap::new();
    let mut of = |job: &J| {
        let mut chosen = Vec::new();
        while chosen.len() < places.min(nodes.len()) {
            let gone: BTreeSet<NodeId> = chosen.iter().copied().collect();
            let left = || nodes.iter().copied().filter(|node| !gone.contains(node)).collect::<Vec<_>>();
            let assigned = without.entry(gone.clone()).or_insert_with(|| assign(jobs, &left(), &weight));
            chosen.push(assigned[job]);
        }
        chosen
    };
    jobs.iter().map(|job| (job.clone(), of(job))).collect()
}

/// The weight of a node for a log partition: a hash, the same everywhere.
pub fn weight(source: &str, partition: u32, node: NodeId) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let bytes = source.bytes().chain(partition.to_le_bytes()).chain(node.0.to_le_bytes());
    for byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    // FNV leaves the last bytes close together; the finisher of SplitMix64 spreads them.
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(count: u32) -> Vec<(String, u32)> {
        (0..count).map(|l| ("readings".to_owned(), l)).collect()
    }

    fn nodes(names: &[u16]) -> Vec<NodeId> {
        names.iter().copied().map(NodeId).collect()
    }

    fn by_hash(job: &(String, u32), node: NodeId) -> u64 {
        weight(&job.0, job.1, node)
    }

    #[test]
    fn every_job_is_one_nodes_and_no_node_has_more_than_its_share() {
        for count in 0..40 {
            for names in [&[1][..], &[1, 2], &[1, 2, 3], &[1, 3, 4, 7, 9]] {
                let assigned = assign(&jobs(count), &nodes(names), by_hash);
                assert_eq!(assigned.len(), count as usize);
                for node in nodes(names) {
                    let held = assigned.values().filter(|held| **held == node).count();
                    assert!(held <= (count as usize).div_ceil(names.len()), "{node} has {held} of {count}");
                }
            }
        }
        assert!(assign(&jobs(4), &[], by_hash).is_empty());
    }

    #[test]
    fn a_follower_is_who_feeds_once_the_feeder_is_gone() {
        let (jobs, all) = (jobs(16), nodes(&[1, 2, 3, 4, 5]));
        let both = assign_with_followers(&jobs, &all, by_hash);
        for lost in &all {
            let left: Vec<NodeId> = all.iter().copied().filter(|node| node != lost).collect();
            let then = assign(&jobs, &left, by_hash);
            for (job, (feeder, follower)) in &both {
                assert_ne!(Some(*feeder), *follower);
                if feeder == lost {
                    assert_eq!(then.get(job).copied(), *follower);
                }
            }
        }
        assert!(
            assign_with_followers(&jobs, &nodes(&[1]), by_hash)
                .values()
                .all(|(_, follows)| follows.is_none())
        );
    }

    #[test]
    fn the_places_of_a_job_are_those_who_do_it_as_one_after_the_other_is_lost() {
        let (jobs, all) = (jobs(16), nodes(&[1, 2, 3, 4]));
        let places = assign_places(&jobs, &all, 3, by_hash);
        for (job, places) in &places {
            assert_eq!(places.len(), 3);
            let mut left = all.clone();
            for place in places {
                assert_eq!(assign(&jobs, &left, by_hash)[job], *place);
                left.retain(|node| node != place);
            }
        }
        let both = assign_with_followers(&jobs, &all, by_hash);
        assert!(places.iter().all(|(job, places)| both[job] == (places[0], Some(places[1]))));
        assert!(assign_places(&jobs, &nodes(&[7]), 3, by_hash).values().all(|places| places.len() == 1));
        assert!(assign_places(&jobs, &[], 3, by_hash).values().all(Vec::is_empty));
    }

    #[test]
    fn the_loss_of_a_node_moves_little_else() {
        let (jobs, all) = (jobs(64), nodes(&[1, 2, 3, 4, 5]));
        let before = assign(&jobs, &all, by_hash);
        for lost in &all {
            let left: Vec<NodeId> = all.iter().copied().filter(|node| node != lost).collect();
            let then = assign(&jobs, &left, by_hash);
            let moved = before.iter().filter(|(job, node)| *node != lost && then[*job] != **node).count();
            assert!(moved <= 6, "the loss of {lost} moves {moved} of the others' {}", jobs.len());
        }
    }
}
