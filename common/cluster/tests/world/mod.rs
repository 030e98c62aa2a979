//! Nodes in one process, over real sockets and real disks, and what is asked of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sanso_cluster::{
    ClusterConfig, ClusterNode, KindsOf, MemberAddress, NodeConfig, NodeId, Timings, VERSIONS, VotersPatience,
};
use sanso_core::{PartitionId, PartitionStore, ReadRequest, StoreError};
use sanso_state::{
    AggregateFunction, AggregateKind, Delta, Entry, Fingerprint, GroupId, Groups, LogPartition, Outcome,
    Segments, Value, ViewPartitionConfig,
};

/// How long a node may take over what it must do, on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at what is waited for: the nodes need the processors.
pub(crate) const LOOK: Duration = Duration::from_millis(5);

pub(crate) fn kinds() -> Arc<[AggregateKind]> {
    Arc::new([AggregateKind::typed(AggregateFunction::CountRows, None).expect("it counts rows")])
}

pub(crate) fn kinds_of() -> KindsOf {
    Arc::new(|_| Some(kinds()))
}

pub(crate) fn view() -> Fingerprint {
    Fingerprint::of(b"a view")
}

pub(crate) fn config() -> ViewPartitionConfig {
    ViewPartitionConfig { view: view(), kinds: kinds(), segments: Segments::new(1_000) }
}

pub(crate) fn id(index: u32) -> PartitionId {
    PartitionId { view: view(), index }
}

/// The delta of offsets `[from, to)`, one row each.
pub(crate) fn delta(from: u64, to: u64) -> Delta {
    let mut groups = Groups::new();
    let group = GroupId { key: Value::encode_key(&[Value::text("a meter")]), window_start: 0 };
    (from..to).for_each(|_| groups.update_one(&kinds(), &group, &[None], 1));
    Delta { view: view(), partition: LogPartition(0), from, to, groups, watermark_us: None, idle: false }
}

/// Times that a busy machine keeps. A node that is stopped is noticed at once all the same.
fn patient() -> NodeConfig {
    let mut config = NodeConfig { in_touch_us: 2_000_000, ..NodeConfig::default() };
    config.detector.suspect_us = 500_000;
    config.replica.eject_us = 500_000;
    config
}

pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    network: String,
    nodes: u16,
}

impl World {
    /// Makes a place for three nodes; each test has a number of its own.
    pub(crate) fn new(test: u8) -> Self {
        Self::of(test, 3)
    }

    /// Makes a place for so many nodes, of which the first three vote at first.
    pub(crate) fn of(test: u8, nodes: u16) -> Self {
        let folder = tempfile::tempdir().expect("make a folder");
        let pid = std::process::id();
        Self { folder, network: format!("127.{}.{}", 20 + pid % 200, (pid >> 8) as u8 ^ test), nodes }
    }

    pub(crate) fn config(&self, node: u16) -> ClusterConfig {
        let peer = |node: u16| format!("{}.{node}:7171", self.network);
        let members =
            (1..=self.nodes).map(|node| (NodeId(node), MemberAddress { peer: peer(node), voter: node <= 3 }));
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
            versions: VERSIONS,
            core: patient(),
            // A node that ends waits for its proposals, so they have less time than a test has.
            control: Timings {
                heartbeat_ms: 100,
                election_ms_min: 1_000,
                election_ms_max: 2_000,
                proposal_ms_max: 5_000,
                ..Timings::default()
            },
            patience: VotersPatience { answer_ms_max: 10_000, leader_ms_max: 20_000 },
        }
    }

    pub(crate) async fn start(&self, node: u16) -> ClusterNode {
        ClusterNode::start(self.config(node), kinds_of()).await.expect("the node starts")
    }

    /// Waits until all partitions have three replicas in sync, as a node sees it.
    pub(crate) async fn whole(&self, node: &ClusterNode) {
        let (me, mut maps) = (node.me(), node.maps());
        let whole = maps.wait_for(|map| {
            // A map from before the node was started again has its earlier life.
            map.members.get(&me.node).is_some_and(|member| member.incarnation == me.incarnation)
                && map.partitions.iter().all(|part| part.primary.is_some() && part.in_sync.len() == 3)
        });
        tokio::time::timeout(PATIENCE, whole).await.expect("in time").expect("the node runs");
    }
}

pub(crate) async fn rows(store: &PartitionStore, index: u32) -> Result<(u64, i64), StoreError> {
    let scan = ReadRequest::Scan { from: i64::MIN, to: i64::MAX };
    let reply = store.read(id(index), &scan).await?;
    Ok((reply.progress.applied[0], reply.groups.iter().map(|(_, state)| state.rows).sum()))
}

/// Applies offsets one after the other, as a worker does: resumes where a refusal says.
pub(crate) async fn feed(store: &PartitionStore, index: u32, to: u64) {
    let patience = Instant::now() + PATIENCE;
    let again = async |error: StoreError| {
        assert!(Instant::now() < patience, "{error}");
        tokio::time::sleep(LOOK).await;
    };
    // A replica shows what it has once it has heard that it is committed.
    let mut from = loop {
        match rows(store, index).await {
            Ok((applied, _)) => break applied,
            Err(error) => again(error).await,
        }
    };
    while from < to {
        match store.submit(id(index), Entry::Delta(delta(from, from + 1))).await {
            Ok(Outcome::Accepted { applied } | Outcome::Refused { applied, .. }) => from = applied,
            Ok(other) => panic!("{other:?}"),
            // There may be no primary for longer than a write is tried.
            Err(error) => again(error).await,
        }
    }
}

/// Waits until a node shows what was acknowledged: a replica learns of it a little later than the writer.
pub(crate) async fn shows(store: &PartitionStore, index: u32, expected: u64) {
    let patience = Instant::now() + PATIENCE;
    loop {
        let shown = rows(store, index).await;
        if shown.as_ref().is_ok_and(|(applied, rows)| *applied == expected && *rows == expected as i64) {
            return;
        }
        assert!(Instant::now() < patience, "expected {expected}, shown {shown:?}");
        tokio::time::sleep(LOOK).await;
    }
}
