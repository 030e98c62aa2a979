//! Which log partitions are this node's: the map's division, followed with patience.

use std::collections::BTreeSet;
use std::time::Duration;

use sanso_catalog::{Share, Shares};
use sanso_cluster::{NodeId, owners};
use sanso_state::LogPartition;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::cluster::member::{World, stopped};

/// How long a division of the log partitions has to hold before anybody begins to follow one, which
/// takes an index. Who feeds changes at once.
const FOLLOW_AFTER: Duration = Duration::from_secs(10);

/// Follows which log partitions are this node's, by the map.
pub(super) async fn follow(world: World, speed: BTreeSet<NodeId>, stop: watch::Receiver<bool>) {
    let mut maps = world.cluster.maps();
    let me = world.cluster.me().node;
    let sources = world.catalog.current().sources.clone();
    let take = |shares: Shares| world.catalog.update(|catalog| catalog.shares = Some(shares));
    let follow = async {
        let (mut wanted, mut holds) = (Shares::new(), Instant::now());
        loop {
            let nodes = owners::usable(&maps.borrow_and_update(), |node| speed.contains(&node));
            let mut mine = Shares::new();
            // Each source by itself: nodes that differ in the others agree on it.
            for source in sources.values() {
                let jobs: Vec<LogPartition> = (0..source.partitions).map(LogPartition).collect();
                let weight = |l: &LogPartition, node| owners::weight(&source.name, l.0, node);
                for (l, (feeds, follows)) in owners::assign_with_followers(&jobs, &nodes, weight) {
                    let job = (source.name.clone(), l);
                    if feeds == me {
                        mine.insert(job, Share::Feeds);
                    } else if follows == Some(me) {
                        mine.insert(job, Share::Follows);
                    }
                }
            }
            if mine != wanted {
                (wanted, holds) = (mine, Instant::now() + FOLLOW_AFTER);
                let held = world.catalog.current().shares.clone().unwrap_or_default();
                take(at_once(&held, &wanted));
            }
            let is_taken = world.catalog.current().shares.as_ref() == Some(&wanted);
            tokio::select! {
                changed = maps.changed() => if changed.is_err() { return },
                () = sleep_until(holds), if !is_taken => take(wanted.clone()),
            }
        }
    };
    tokio::select! {
        () = stopped(stop) => {}
        () = follow => {}
    }
}

/// Returns what to do at once of what is wanted, by one who holds some shares: to feed, and to keep what
/// it has until others have begun.
fn at_once(held: &Shares, wanted: &Shares) -> Shares {
    let mut shares: Shares = held.keys().map(|job| (job.clone(), Share::Follows)).collect();
    let feeds = wanted.iter().filter(|(_, share)| **share == Share::Feeds);
    shares.extend(feeds.map(|(job, share)| (job.clone(), *share)));
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_feeds_begins_at_once_and_nobody_lets_go_before_the_division_holds() {
        let shares = |shares: &[(u32, Share)]| -> Shares {
            shares.iter().map(|(l, share)| (("readings".to_owned(), LogPartition(*l)), *share)).collect()
        };
        let held = shares(&[(0, Share::Feeds), (1, Share::Feeds), (2, Share::Follows), (3, Share::Follows)]);
        let wanted =
            shares(&[(0, Share::Follows), (2, Share::Feeds), (4, Share::Feeds), (5, Share::Follows)]);
        let first = [
            (0, Share::Follows),
            (1, Share::Follows),
            (2, Share::Feeds),
            (3, Share::Follows),
            (4, Share::Feeds),
        ];
        assert_eq!(at_once(&held, &wanted), shares(&first));
        assert_eq!(at_once(&Shares::new(), &held), shares(&[(0, Share::Feeds), (1, Share::Feeds)]));
    }
}
