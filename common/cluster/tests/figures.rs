//! What a node tells of the cluster in figures, as nodes come and go.

#[allow(dead_code, reason = "shared with the other tests")]
mod world;

use std::sync::Arc;

use sanso_cluster::{ClusterNode, Figure};
use sanso_state::Block;
use world::{LOOK, PATIENCE, World, config, feed, id, view};

/// Sums the figures of a name that have a label's value, if one is wanted.
fn sum(figures: &[Figure], name: &str, value: Option<&str>) -> f64 {
    let of = figures.iter().filter(|figure| figure.name == name);
    let of = of.filter(|figure| value.is_none_or(|value| figure.labels.iter().any(|(_, of)| of == value)));
    of.map(|figure| figure.value).sum()
}

/// Waits until a node's figures are as wanted.
async fn until(node: &ClusterNode, wanted: impl Fn(&[Figure]) -> bool) {
    let looks = async {
        while !wanted(&node.figures()) {
            tokio::time::sleep(LOOK).await;
        }
    };
    let is_so = tokio::time::timeout(PATIENCE, looks).await.is_ok();
    assert!(is_so, "{:?}", node.figures());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_roles_and_what_replicas_lack_are_told() {
    let world = World::new(41);
    let nodes = [world.start(1).await, world.start(2).await, world.start(3).await];
    world.whole(&nodes[0]).await;
    nodes[0].create(id(0), config(), Arc::new(Block::empty(view(), 1))).await.expect("made");
    feed(&nodes[0].store(), 0, 20).await;
    let members = |figures: &[Figure], standing| sum(figures, "sanso_cluster_members", Some(standing));
    for node in &nodes {
        until(node, |figures| members(figures, "up") == 3.0).await;
        until(node, |figures| sum(figures, "sanso_replication_lag_entries", None) == 0.0).await;
    }
    // Four partitions with three replicas each, of which one is the primary, and a line for each other
    // replica, by its primary. While primaries move, not all nodes have the same map.
    let of_all = |_: &[Figure]| {
        let figures: Vec<Figure> = nodes.iter().flat_map(ClusterNode::figures).collect();
        let held = |role| sum(&figures, "sanso_cluster_partitions_held", Some(role));
        let lines = figures.iter().filter(|figure| figure.name == "sanso_replication_lag_bytes").count();
        (held("primary"), held("backup"), lines) == (4.0, 8.0, 8)
    };
    until(&nodes[0], of_all).await;

    let [first, second, third] = nodes;
    third.shutdown().await;
    for node in [&first, &second] {
        until(node, |figures| {
            let lost = members(figures, "up") == 2.0 && members(figures, "suspected") == 1.0;
            // Two replicas are all that there can be.
            lost && sum(figures, "sanso_cluster_partitions_without_primary", None) == 0.0
                && sum(figures, "sanso_cluster_partitions_short", None) == 0.0
                && sum(figures, "sanso_cluster_in_touch", None) == 1.0
        })
        .await;
    }
    second.shutdown().await;
    until(&first, |figures| sum(figures, "sanso_cluster_in_touch", None) == 0.0).await;
}
