//! What a node tells of the cluster in figures, as nodes come and go.

#[allow(dead_code, reason = "shared with the other tests")]
mod world;

use std::sync::Arc;
use std::time::Duration;

use sanso_cluster::{ClusterNode, Figure};
use sanso_state::Block;
use world::{World, config, feed, id, view};

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
            tokio::task::yield_now().await;
        }
    };
    let is_so = tokio::time::timeout(Duration::from_secs(30), looks).await.is_ok();
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
    let held = |node: &ClusterNode, role| sum(&node.figures(), "sanso_cluster_partitions_held", Some(role));
    for node in &nodes {
        until(node, |figures| members(figures, "up") == 3.0).await;
        until(node, |figures| sum(figures, "sanso_replication_lag_entries", None) == 0.0).await;
    }
    // Four partitions with three replicas each, of which one is the primary.
    assert_eq!(nodes.iter().map(|node| held(node, "primary")).sum::<f64>(), 4.0);
    assert_eq!(nodes.iter().map(|node| held(node, "backup")).sum::<f64>(), 8.0);
    let told = |node: &ClusterNode| {
        node.figures().iter().filter(|figure| figure.name == "sanso_replication_lag_bytes").count()
    };
    assert_eq!(nodes.iter().map(told).sum::<usize>(), 8, "a line for each replica, by its primary");

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
