//! Whether this node may take part in control. Judged purely, from what the others say.
//!
//! A voter that lost its folder no longer knows for whom it has voted, and could vote twice. To control
//! it looks like a new one. The others know better: the map names those who have taken part.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use sanso_core::cluster::{ClusterMap, NodeId};

use crate::hub::{Hub, MAP};
use crate::wire;

/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a node may take to answer.
const ANSWER_MAX: Duration = Duration::from_millis(500);

/// What a node whose control knows nothing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Past {
    /// One of those who found the cluster.
    Founder,
    /// New to a cluster that there is, or taken out of its voters.
    None,
    /// A voter that has forgotten that it is one.
    Forgotten,
    /// Too few have answered.
    Unknown,
}

/// What a new node is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seat {
    /// Found the cluster.
    Founds,
    /// Wait until it is told what is agreed.
    Waits,
}

/// Judges by the maps of the others that have answered; `nodes` counts all, this one too.
fn judge(me: NodeId, founders: &BTreeSet<NodeId>, nodes: usize, maps: &BTreeMap<NodeId, ClusterMap>) -> Past {
    let founded = maps.values().filter(|map| map.version > 0);
    match founded.max_by_key(|map| map.version) {
        Some(map) if map.voters.contains(&me) => Past::Forgotten,
        // One that is behind may not know yet that this node has become a voter.
        Some(_) if (maps.len() + 1) * 2 > nodes => Past::None,
        Some(_) => Past::Unknown,
        None => {
            let others = maps.keys().filter(|node| founders.contains(node)).count();
            let most = (others + 1) * 2 > founders.len();
            if most && founders.contains(&me) { Past::Founder } else { Past::Unknown }
        }
    }
}

/// Asks the others until it is certain that this node, whose control knows nothing, has forgotten
/// nothing. One that has waits until it is taken out of the voters.
pub(crate) async fn find(hub: &Hub, founders: &BTreeSet<NodeId>, all: &BTreeSet<NodeId>) -> Seat {
    loop {
        let others = all.iter().filter(|node| **node != hub.me);
        let asked = others.map(async |node| {
            let answer = hub.ask(*node, MAP, Vec::new(), ANSWER_MAX).await.ok()?;
            Some((*node, wire::decode::<ClusterMap>(&answer).ok()?))
        });
        let maps = join_all(asked).await.into_iter().flatten().collect();
        let past = judge(hub.me, founders, all.len(), &maps);
        let forgotten = past == Past::Forgotten;
        if hub.forgotten.swap(forgotten, Ordering::Relaxed) != forgotten {
            if forgotten {
                tracing::error!(
                    node = %hub.me,
                    "this node votes in control and has lost its folder: it takes no part, as it could vote \
                     twice; take it out of the voters (sanso cluster voters --help), then add it again"
                );
            } else {
                tracing::info!(node = %hub.me, "this node is no voter any more, and may become one again");
            }
        }
        match past {
            Past::Founder => return Seat::Founds,
            Past::None => return Seat::Waits,
            Past::Forgotten | Past::Unknown => tokio::time::sleep(PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use sanso_core::cluster::Change;

    use super::*;

    fn ids(nodes: &[u16]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    /// The map of a cluster after `changes` of its voters.
    fn map(changes: &[&[u16]]) -> ClusterMap {
        let mut map = ClusterMap::new(4, 3);
        for voters in changes {
            map.apply(&Change::Voters(ids(voters))).expect("they are others");
        }
        map
    }

    #[test]
    fn a_node_without_a_past_founds_or_waits_and_one_that_forgot_its_past_does_neither() {
        let (unfounded, founded) = (map(&[]), map(&[&[1, 2], &[1, 2, 3]]));
        let (older, without) = (map(&[&[1, 2]]), map(&[&[1, 2], &[1, 2, 3], &[1, 2, 4]]));
        let check = |me, answers: &[(u16, &ClusterMap)], expected| {
            let maps = answers.iter().map(|(node, map)| (NodeId(*node), (*map).clone())).collect();
            assert_eq!(judge(NodeId(me), &ids(&[1, 2, 3]), 5, &maps), expected, "{me}: {answers:?}");
        };
        // Nobody knows of a cluster.
        check(3, &[], Past::Unknown);
        check(3, &[(4, &unfounded), (5, &unfounded)], Past::Unknown);
        check(3, &[(1, &unfounded)], Past::Founder);
        check(4, &[(1, &unfounded), (2, &unfounded), (3, &unfounded)], Past::Unknown);
        // Somebody does, and this node has voted.
        check(3, &[(1, &founded)], Past::Forgotten);
        check(3, &[(1, &founded), (2, &unfounded), (4, &older)], Past::Forgotten);
        // It has not, as far as most know.
        check(4, &[(1, &founded)], Past::Unknown);
        check(4, &[(1, &founded), (2, &older)], Past::None);
        check(3, &[(1, &older), (2, &unfounded)], Past::None);
        check(3, &[(1, &founded), (2, &without)], Past::None);
    }
}
