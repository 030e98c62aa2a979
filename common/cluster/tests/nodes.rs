//! Three nodes in one process, each lost and back.

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use sanso_core::StoreError;
use sanso_state::Block;
use world::{World, config, feed, id, rows, shows, view};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_is_everywhere_and_outlives_any_node() {
    let world = World::new(1);
    let mut nodes = BTreeMap::new();
    for node in 1..=3 {
        nodes.insert(node, world.start(node).await);
    }
    world.whole(&nodes[&1]).await;
    assert!(matches!(rows(&nodes[&2].store(), 0).await, Err(StoreError::NotLive(_))));
    for index in 0..4 {
        nodes[&1].create(id(index), config(), Arc::new(Block::empty(view(), 1))).await.expect("made");
    }
    let mut expected = 0;
    for lost in 1..=3 {
        expected += 20;
        for index in 0..4 {
            feed(&nodes[&lost].store(), index, expected).await;
        }
        for (node, index) in nodes.values().flat_map(|node| (0..4).map(move |index| (node, index))) {
            shows(&node.store(), index, expected).await;
        }
        nodes.remove(&lost).expect("it runs").shutdown().await;
        expected += 20;
        for node in nodes.values() {
            for index in 0..4 {
                feed(&node.store(), index, expected).await;
                shows(&node.store(), index, expected).await;
            }
        }
        nodes.insert(lost, world.start(lost).await);
        world.whole(&nodes[&lost]).await;
        for index in 0..4 {
            shows(&nodes[&lost].store(), index, expected).await;
        }
    }
    nodes[&2].remove(view()).await.expect("removed");
    for node in nodes.values() {
        // A replica may show what was removed until it has heard of it.
        while !matches!(rows(&node.store(), 3).await, Err(StoreError::NotLive(_))) {
            tokio::task::yield_now().await;
        }
    }
}
