//! A cluster of one: the same store, with nobody to speak to.

#[allow(dead_code, reason = "shared with the other tests")]
mod world;

use std::sync::Arc;

use sanso_cluster::ClusterNode;
use sanso_core::StoreError;
use sanso_state::{Block, Cut, Entry, Outcome};
use world::{config, delta, feed, id, kinds_of, rows, view};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_alone_holds_all_at_once_and_takes_every_write_without_encoding_it() {
    let node = ClusterNode::alone(kinds_of()).expect("it starts");
    let store = node.store();
    assert!(store.is_in_touch());
    assert!(matches!(rows(&store, 0).await, Err(StoreError::NotLive(_))));
    for index in 0..5 {
        node.create(id(index), config(), Arc::new(Block::empty(view(), 1))).await.expect("made");
        feed(&store, index, 20).await;
        assert_eq!(rows(&store, index).await.expect("it is live"), (20, 20));
    }
    let again = store.submit(id(0), Entry::Delta(delta(0, 1))).await.expect("it is live");
    assert!(matches!(again, Outcome::Refused { applied: 20, .. }), "{again:?}");
    assert_eq!(store.emits_here().len(), 5);
    let rest = store.submit(id(0), Entry::Delta(delta(20, 1_000))).await.expect("it is live");
    assert_eq!(rest, Outcome::Accepted { applied: 1_000 }, "a segment is whole");
    let mut block = Block { version: 1, cut: Cut::new(vec![1_000]), ..Block::empty(view(), 1) };
    block.groups.combine(&delta(0, 1_000).groups);
    let adopted = store.submit(id(0), Entry::Adopt(Arc::new(block))).await.expect("it is live");
    assert_eq!(adopted, Outcome::Adopted);
    assert_eq!(rows(&store, 0).await.expect("it is live"), (1_000, 1_000));
    assert_eq!(node.replicas().iter().map(|replica| replica.held.len()).sum::<usize>(), 5);
    node.remove(view()).await.expect("removed");
    assert!(matches!(rows(&store, 3).await, Err(StoreError::NotLive(_))));
    node.shutdown().await;
}
