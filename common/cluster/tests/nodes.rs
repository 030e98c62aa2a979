//! Three nodes in one process, over real sockets and real disks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sanso_cluster::{ClusterConfig, ClusterNode, KindsOf, MemberAddress, NodeConfig, NodeId, Timings};
use sanso_core::{PartitionId, PartitionStore, ReadRequest, StoreError};
use sanso_state::{
    AggregateFunction, AggregateKind, Block, Delta, Entry, Fingerprint, GroupId, Groups, LogPartition,
    Outcome, Segments, Value, ViewPartitionConfig,
};

fn kinds() -> Arc<[AggregateKind]> {
    Arc::new([AggregateKind::typed(AggregateFunction::CountRows, None).expect("it counts rows")])
}

fn view() -> Fingerprint {
    Fingerprint::of(b"a view")
}

fn config() -> ViewPartitionConfig {
    ViewPartitionConfig { view: view(), kinds: kinds(), segments: Segments::new(1_000), emit: None }
}

fn id(index: u32) -> PartitionId {
    PartitionId { view: view(), index }
}

/// The delta of offsets `[from, to)`, one row each.
fn delta(from: u64, to: u64) -> Delta {
    let mut groups = Groups::new();
    let group = GroupId { key: Value::encode_key(&[Value::text("a meter")]), window_start: 0 };
    (from..to).for_each(|_| groups.update_one(&kinds(), &group, &[None], 1));
    Delta { view: view(), partition: LogPartition(0), from, to, groups, watermark_us: None, idle: false }
}

struct World {
    folder: tempfile::TempDir,
    network: String,
}

impl World {
    fn new(test: u8) -> Self {
        let folder = tempfile::tempdir().expect("make a folder");
        let pid = std::process::id();
        Self { folder, network: format!("127.{}.{}", 20 + pid % 200, (pid >> 8) as u8 ^ test) }
    }

    fn config(&self, node: u16) -> ClusterConfig {
        let peer = |node: u16| format!("{}.{node}:7171", self.network);
        let members = (1..=3).map(|node| (NodeId(node), MemberAddress { peer: peer(node), voter: true }));
        ClusterConfig {
            name: "test".to_owned(),
            node: NodeId(node),
            listen: peer(node).parse().expect("an address"),
            members: members.collect::<BTreeMap<_, _>>(),
            partitions: 4,
            replicas: 3,
            folder: self.folder.path().join(node.to_string()),
            tls: None,
            insecure: false,
            core: NodeConfig::default(),
            control: Timings::default(),
        }
    }

    async fn start(&self, node: u16) -> ClusterNode {
        let kinds_of: KindsOf = Arc::new(|_| Some(kinds()));
        ClusterNode::start(self.config(node), kinds_of).await.expect("the node starts")
    }

    /// Waits until all partitions have three replicas in sync, as a node sees it.
    async fn whole(&self, node: &ClusterNode) {
        let mut maps = node.maps();
        let whole = maps.wait_for(|map| {
            map.version > 0
                && map.partitions.iter().all(|part| part.primary.is_some() && part.in_sync.len() == 3)
        });
        tokio::time::timeout(Duration::from_secs(30), whole).await.expect("in time").expect("the node runs");
    }
}

async fn rows(store: &PartitionStore, index: u32) -> Result<(u64, i64), StoreError> {
    let scan = ReadRequest::Scan { from: i64::MIN, to: i64::MAX };
    let reply = store.read(id(index), &scan).await?;
    Ok((reply.progress.applied[0], reply.groups.iter().map(|(_, state)| state.rows).sum()))
}

/// Applies offsets one after the other, as a worker does: resumes where a refusal says.
async fn feed(store: &PartitionStore, index: u32, to: u64) {
    let mut from = rows(store, index).await.expect("it is live").0;
    while from < to {
        match store.submit(id(index), Entry::Delta(delta(from, from + 1))).await.expect("a primary answers") {
            Outcome::Accepted { applied } | Outcome::Refused { applied, .. } => from = applied,
            other => panic!("{other:?}"),
        }
    }
}

/// Waits until a node shows what was acknowledged: a replica learns of it a little later than the writer.
async fn shows(store: &PartitionStore, index: u32, expected: u64) {
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        let shown = rows(store, index).await;
        if shown.as_ref().is_ok_and(|(applied, rows)| *applied == expected && *rows == expected as i64) {
            return;
        }
        assert!(Instant::now() < patience, "expected {expected}, shown {shown:?}");
        tokio::task::yield_now().await;
    }
}

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
