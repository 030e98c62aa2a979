//! Three nodes in one process, each lost and back.

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sanso_cluster::{Answers, CallError, NodeId};
use sanso_core::StoreError;
use sanso_state::Block;
use tokio::sync::Notify;
use world::{LOOK, PATIENCE, World, config, feed, id, rows, shows, view};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_is_everywhere_and_outlives_any_node() {
    let world = World::new(1);
    let mut nodes = BTreeMap::new();
    for node in 1..=3 {
        nodes.insert(node, world.start(node).await);
    }
    for node in nodes.values() {
        world.whole(node).await;
    }
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
        let removed = async {
            while !matches!(rows(&node.store(), 3).await, Err(StoreError::NotLive(_))) {
                tokio::time::sleep(LOOK).await;
            }
        };
        let is_so = tokio::time::timeout(PATIENCE, removed).await.is_ok();
        assert!(is_so, "{:?}", rows(&node.store(), 3).await);
    }
}

/// Says what it is told, refuses `no`, and thinks about `wait` for ever.
#[derive(Default)]
struct Echo {
    begun: Notify,
    dropped: Notify,
}

struct Thinking<'a>(&'a Echo);

impl Drop for Thinking<'_> {
    fn drop(&mut self) {
        self.0.dropped.notify_one();
    }
}

#[async_trait]
impl Answers for Echo {
    async fn answer(&self, from: NodeId, question: Bytes) -> Result<Bytes, String> {
        assert_eq!(from, NodeId(1));
        match question.as_ref() {
            b"no" => Err("because".to_owned()),
            b"wait" => {
                let _thinking = Thinking(self);
                self.begun.notify_one();
                std::future::pending().await
            }
            _ => Ok(question),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layers_question_is_answered_elsewhere_and_dropped_when_nobody_waits() {
    let world = World::new(7);
    let mut nodes = BTreeMap::new();
    for node in 1..=3 {
        nodes.insert(node, world.start(node).await);
    }
    world.whole(&nodes[&1]).await;
    let echo = Arc::new(Echo::default());
    nodes[&2].answer("test.echo", Arc::clone(&echo) as Arc<dyn Answers>);
    let within = Duration::from_secs(30);
    let ask = |to, question: &[u8]| nodes[&1].ask(NodeId(to), "test.echo", question.to_vec(), within);
    assert_eq!(ask(2, b"yes").await.expect("an answer"), "yes");
    assert!(matches!(ask(2, b"no").await, Err(CallError::Failed(why)) if why == "because"));
    assert!(matches!(ask(3, b"yes").await, Err(CallError::UnknownKind(_))), "node 3 knows no such questions");
    tokio::select! {
        answer = ask(2, b"wait") => panic!("{answer:?}"),
        () = echo.begun.notified() => {}
    }
    tokio::time::timeout(within, echo.dropped.notified()).await.expect("nobody works on it any longer");
}
