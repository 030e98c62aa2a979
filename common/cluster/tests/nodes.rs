//! Three nodes in one process, each lost and back.

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sanso_cluster::{Answers, CallError, NodeId};
use sanso_core::{PartitionStore, StoreError, home_of};
use sanso_state::{Block, Cut, Entry, GroupId, Groups, Outcome, Value};
use tokio::sync::Notify;
use world::{LOOK, PATIENCE, World, config, feed, id, kinds, rows, shows, view};

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

/// A batch version whose groups take some megabytes.
fn large(version: u64, rows: i64) -> Block {
    let mut groups = Groups::new();
    for meter in 0..100_000 {
        let key = Value::encode_key(&[Value::text(format!("the meter with the number {meter}"))]);
        groups.update_one(&kinds(), &GroupId { key, window_start: 0 }, &[None], rows);
    }
    let cut = Cut::new(vec![1_000]);
    Block { version, cut, groups, ..Block::empty(view(), 1) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_block_is_written_while_the_primary_is_lost_and_deltas_go_on() {
    let world = World::new(3);
    let mut nodes = BTreeMap::new();
    for node in 1..=3 {
        nodes.insert(node, world.start(node).await);
    }
    for node in nodes.values() {
        world.whole(node).await;
    }
    nodes[&1].create(id(0), config(), Arc::new(Block::empty(view(), 1))).await.expect("made");
    feed(&nodes[&1].store(), 0, 1_000).await;
    let map = nodes[&1].maps().borrow().clone();
    let home = home_of(id(0), map.partitions.len() as u32);
    let primary = map.assignment(home).primary.expect("it is whole").instance.node;
    let others: Vec<u16> = (1..=3).filter(|node| NodeId(*node) != primary).collect();
    let (writer, other) = (nodes[&others[0]].store(), nodes[&others[1]].store());
    let feeder = other.clone();
    let written =
        tokio::spawn(async move { writer.submit(id(0), Entry::Adopt(Arc::new(large(2, 1)))).await });
    let fed = tokio::spawn(async move { feed(&feeder, 0, 1_100).await });
    // Once some of it is there.
    let staged = async {
        while other.groups() < 2_000 {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, staged).await.expect("parts come");
    nodes.remove(&primary.0).expect("it runs").shutdown().await;
    // It is stale if nobody heard that it was adopted.
    let outcome = written.await.expect("no panic").expect("there is another primary");
    assert!(matches!(outcome, Outcome::Adopted | Outcome::Stale), "{outcome:?}");
    fed.await.expect("no panic");
    // The hundred readings behind the cut, and those of the block.
    let whole = async |store: &PartitionStore| {
        while !matches!(rows(store, 0).await, Ok((1_100, 100_100))) {
            tokio::time::sleep(LOOK).await;
        }
    };
    nodes.insert(primary.0, world.start(primary.0).await);
    world.whole(&nodes[&primary.0]).await;
    for node in nodes.values() {
        tokio::time::timeout(PATIENCE, whole(&node.store())).await.expect("each shows it");
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
