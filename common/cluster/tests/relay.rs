//! One broken link between two nodes of three, over real sockets: control hears both ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sanso_cluster::{
    Assignment, ClusterConfig, ClusterMap, ClusterNode, KindsOf, Link, MemberAddress, NodeConfig, NodeId,
    Timings, VERSIONS, VotersPatience,
};
use sanso_core::PartitionId;
use sanso_state::{
    AggregateFunction, AggregateKind, Block, Delta, Entry, Fingerprint, Groups, LogPartition, Outcome,
    Segments, ViewPartitionConfig,
};

const NODES: std::ops::RangeInclusive<u16> = 1..=3;

fn kinds() -> Arc<[AggregateKind]> {
    Arc::new([AggregateKind::typed(AggregateFunction::CountRows, None).expect("it counts rows")])
}

async fn start(node: u16, network: &str, folder: &std::path::Path) -> ClusterNode {
    let peer = |node: u16| format!("{network}.{node}:7172");
    let members = NODES.map(|node| (NodeId(node), MemberAddress { peer: peer(node), voter: true }));
    let config = ClusterConfig {
        name: "test".to_owned(),
        node: NodeId(node),
        listen: peer(node).parse().expect("an address"),
        members: members.collect::<BTreeMap<_, _>>(),
        partitions: 3,
        replicas: 3,
        folder: folder.join(node.to_string()),
        tls: None,
        insecure: false,
        core: NodeConfig::default(),
        // Whoever leads at first leads to the end.
        control: Timings {
            heartbeat_ms: 100,
            election_ms_min: 1_000,
            election_ms_max: 2_000,
            ..Timings::default()
        },
        patience: VotersPatience::default(),
        versions: VERSIONS,
    };
    let kinds_of: KindsOf = Arc::new(|_| Some(kinds()));
    ClusterNode::start(config, kinds_of).await.expect("the node starts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_does_not_reach_a_primary_goes_by_another_node() {
    let folder = tempfile::tempdir().expect("make a folder");
    let pid = std::process::id();
    let network = format!("127.{}.{}", 20 + pid % 200, (pid >> 8) as u8 ^ 3);
    let mut nodes = BTreeMap::new();
    for node in NODES {
        nodes.insert(NodeId(node), start(node, &network, folder.path()).await);
    }
    let mut maps = nodes[&NodeId(1)].maps();
    let whole =
        |map: &ClusterMap| map.version > 0 && map.partitions.iter().all(|part| part.in_sync.len() == 3);
    let patience = Duration::from_secs(30);
    let held = tokio::time::timeout(patience, maps.wait_for(|map| whole(map))).await;
    held.expect("in time").expect("it runs");

    // Neither end leads control, or its leader would not hear the other one.
    let known = async {
        loop {
            match nodes[&NodeId(1)].control_leader() {
                Some(leader) => break leader,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let leader = tokio::time::timeout(patience, known).await.expect("somebody leads");
    let led = |part: &Assignment| part.primary.map(|held| held.instance.node).filter(|node| *node != leader);
    let spread = maps.wait_for(|map| whole(map) && map.partitions.iter().any(|part| led(part).is_some()));
    let map = tokio::time::timeout(patience, spread).await.expect("in time").expect("it runs").clone();
    let mut leads = (0..).zip(&map.partitions).filter_map(|(index, part)| Some((index, led(part)?)));
    let (index, primary) = leads.next().expect("it was waited for");
    let writer = *nodes.keys().find(|node| ![leader, primary].contains(node)).expect("there are three");
    let view = Fingerprint::of(b"a view");
    let id = PartitionId { view, index };
    let config = ViewPartitionConfig { view, kinds: kinds(), segments: Segments::new(1_000) };
    nodes[&writer].create(id, config, Arc::new(Block::empty(view, 1))).await.expect("made");

    let cut = Link { cut_in: true, cut_out: true, ..Link::default() };
    nodes[&primary].filter().set(writer, cut);
    nodes[&writer].filter().set(primary, cut);
    let (groups, partition) = (Groups::new(), LogPartition(0));
    let delta = Delta { view, partition, from: 0, to: 1, groups, watermark_us: None, idle: false };
    let store = nodes[&writer].store();
    let submitted = tokio::time::timeout(patience, store.submit(id, Entry::Delta(delta))).await;
    let outcome = submitted.expect("in time").expect("it does not wait for the link");
    // One that was given up may have been applied, and is refused when it is sent again.
    let applied = matches!(outcome, Outcome::Accepted { applied: 1 } | Outcome::Refused { applied: 1, .. });
    assert!(applied, "{outcome:?}");
    for node in nodes.into_values() {
        node.shutdown().await;
    }
}
