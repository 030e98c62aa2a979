//! What it costs that a write is on several nodes before it is acknowledged: view deltas, whole blocks,
//! and the results of tasks. Three nodes of a cluster in this process, over real sockets; the writer is
//! the primary, so one replica is what a write costs without any other node.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::future::{Either, select};
use sanso_cluster::{
    ClusterConfig, ClusterNode, KindsOf, MemberAddress, NodeConfig, NodeId, Timings, VERSIONS, VotersPatience,
};
use sanso_core::{PartitionId, PartitionStore, home_of};
use sanso_state::{
    AggregateFunction, AggregateKind, Block, Delta, Entry, Fingerprint, GroupId, Groups, LogPartition,
    Outcome, Segments, Value, ViewPartitionConfig, encode_groups,
};
use tokio::runtime::Runtime;

use crate::figure::{Figure, quantile};

const NODES: u16 = 3;
const PARTITIONS: u32 = 8;
const DELTAS: u64 = 2_000;
/// Groups that a delta changes.
const DELTA_GROUPS: u64 = 32;
/// Sizes in MB, and how often each is written.
const BLOCKS: [(usize, usize); 3] = [(1, 30), (16, 10), (64, 6)];
/// Milliseconds of processor time that a task takes, and how often it is done.
const TASKS: [(u64, usize); 4] = [(20, 30), (100, 20), (500, 6), (2_000, 3)];
const PATIENCE: Duration = Duration::from_secs(30);
/// Where replicas lie is settled once nothing has changed for so long.
const SETTLED: Duration = Duration::from_secs(3);

/// Measures; see the head of the file.
pub(crate) fn run() -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut alone: BTreeMap<String, f64> = BTreeMap::new();
    for replicas in 1..=usize::from(NODES) {
        // A runtime of its own, so that nothing is left of the cluster before it.
        for (what, ms) in Runtime::new()?.block_on(measured(replicas))? {
            let figure = Figure::cost(format!("{what}, {replicas} replicas"), ms, "ms");
            figures.push(match alone.get(&what) {
                Some(one) => figure.against("one replica", *one),
                None => figure,
            });
            if replicas == 1 {
                alone.insert(what, ms);
            }
        }
    }
    Ok(figures)
}

async fn measured(replicas: usize) -> anyhow::Result<Vec<(String, f64)>> {
    let cluster = Cluster::start(replicas).await?;
    let mut figures = Vec::new();
    let mut add = |what: &str, mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        for (share, label) in [(0.5, "p50"), (0.99, "p99")] {
            figures.push((format!("{what}, {label}"), quantile(&times, share)));
        }
    };
    add(&format!("delta of {DELTA_GROUPS} groups"), cluster.deltas().await?);
    for (mb, times) in BLOCKS {
        let Blocks { taken, beside } = cluster.blocks(mb, times).await?;
        add(&format!("block of {mb} MB"), taken);
        add(&format!("longest delta beside a block of {mb} MB"), beside);
    }
    for (ms, times) in TASKS {
        add(&format!("result of a task of {ms} ms"), cluster.tasks(ms, times).await?);
    }
    cluster.stop().await;
    Ok(figures)
}

/// What was measured with blocks of one size, in milliseconds.
struct Blocks {
    taken: Vec<f64>,
    /// For each, the longest that a delta took for the same partition of the cluster meanwhile.
    beside: Vec<f64>,
}

struct Cluster {
    nodes: Vec<ClusterNode>,
    _folder: tempfile::TempDir,
}

fn kinds() -> Arc<[AggregateKind]> {
    Arc::new([AggregateKind::typed(AggregateFunction::CountRows, None).expect("it counts rows")])
}

impl Cluster {
    async fn start(replicas: usize) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let ports = sanso_broker::ports::free(usize::from(NODES))?;
        let peer = |node: u16| format!("127.0.0.1:{}", ports[usize::from(node) - 1]);
        let members: BTreeMap<NodeId, MemberAddress> =
            (1..=NODES).map(|node| (NodeId(node), MemberAddress { peer: peer(node), voter: true })).collect();
        let mut nodes = Vec::new();
        for node in 1..=NODES {
            let config = ClusterConfig {
                name: "bench".to_owned(),
                node: NodeId(node),
                listen: peer(node).parse()?,
                members: members.clone(),
                partitions: PARTITIONS,
                replicas,
                folder: folder.path().join(node.to_string()),
                tls: None,
                insecure: false,
                core: NodeConfig::default(),
                control: Timings::default(),
                patience: VotersPatience::default(),
                versions: VERSIONS,
            };
            let kinds_of: KindsOf = Arc::new(|_| Some(kinds()));
            nodes.push(ClusterNode::start(config, kinds_of).await?);
        }
        let cluster = Self { nodes, _folder: folder };
        let mut maps = cluster.nodes[0].maps();
        let whole = maps.wait_for(|map| {
            map.members.len() == usize::from(NODES)
                && map.partitions.iter().all(|part| part.primary.is_some() && part.in_sync.len() == replicas)
        });
        tokio::time::timeout(PATIENCE, whole).await.context("the cluster is not whole in time")??;
        // Nothing is to be moved while something is measured.
        while tokio::time::timeout(SETTLED, maps.changed()).await.is_ok() {}
        Ok(cluster)
    }

    async fn stop(self) {
        for node in self.nodes {
            node.shutdown().await;
        }
    }

    /// Makes a view partition with a base, on the node that is its primary; returns that node's store.
    async fn create(&self, id: PartitionId, base: Block) -> anyhow::Result<PartitionStore> {
        let writer = self.primary(id)?;
        let config = ViewPartitionConfig { view: id.view, kinds: kinds(), segments: Segments::new(1_000) };
        writer.create(id, config, Arc::new(base)).await?;
        Ok(writer.store())
    }

    fn primary(&self, id: PartitionId) -> anyhow::Result<&ClusterNode> {
        let maps = self.nodes[0].maps();
        let map = maps.borrow();
        let home = &map.partitions[home_of(id, PARTITIONS).0 as usize];
        let primary = home.primary.context("there is no primary")?.instance.node;
        self.nodes.iter().find(|node| node.me().node == primary).context("a node that is not here")
    }

    /// Returns the times of deltas, one after the other, in milliseconds.
    async fn deltas(&self) -> anyhow::Result<Vec<f64>> {
        let id = PartitionId { view: Fingerprint::of(b"deltas"), index: 0 };
        let store = self.create(id, Block::empty(id.view, 1)).await?;
        let mut times = Vec::new();
        for at in 0..DELTAS {
            let delta = delta(id.view, at, DELTA_GROUPS);
            times.push(timed(store.submit(id, Entry::Delta(delta))).await?);
        }
        Ok(times)
    }

    /// Writes blocks of a size, one after the other.
    async fn blocks(&self, mb: usize, times: usize) -> anyhow::Result<Blocks> {
        let view = Fingerprint::of(format!("blocks of {mb} MB").as_bytes());
        let groups = groups_of(mb << 20);
        let mut measured = Blocks { taken: Vec::new(), beside: Vec::new() };
        for index in 0..times as u32 {
            let id = PartitionId { view, index };
            let base = Block { groups: groups.clone(), ..Block::empty(view, 1) };
            let beside = self.beside(id).await?;
            let began = Instant::now();
            let (mut block, mut longest) = (pin!(self.create(id, base)), 0_f64);
            for at in 0.. {
                let delta = delta(beside.0.view, at, DELTA_GROUPS);
                let written = pin!(timed(beside.1.submit(beside.0, Entry::Delta(delta))));
                match select(&mut block, written).await {
                    Either::Left((created, written)) => {
                        created?;
                        measured.taken.push(began.elapsed().as_secs_f64() * 1e3);
                        measured.beside.push(longest.max(written.await?));
                        break;
                    }
                    Either::Right((ms, _)) => longest = longest.max(ms?),
                }
            }
            self.nodes[0].remove(beside.0.view).await?;
        }
        self.nodes[0].remove(view).await?;
        Ok(measured)
    }

    /// Makes a view partition in the same partition of the cluster as another one.
    async fn beside(&self, other: PartitionId) -> anyhow::Result<(PartitionId, PartitionStore)> {
        let view = Fingerprint::of(b"beside");
        let home = home_of(other, PARTITIONS);
        let mut all = (0..).map(|index| PartitionId { view, index });
        let id = all.find(|id| home_of(*id, PARTITIONS) == home).context("each partition has some")?;
        Ok((id, self.create(id, Block::empty(view, 1)).await?))
    }

    /// Returns how long the results of tasks took to be kept, in milliseconds.
    async fn tasks(&self, ms: u64, times: usize) -> anyhow::Result<Vec<f64>> {
        let view = Fingerprint::of(format!("tasks of {ms} ms").as_bytes());
        let id = PartitionId { view, index: 0 };
        let store = self.create(id, Block::empty(view, 1)).await?;
        let mut taken = Vec::new();
        for at in 0..times as u64 {
            let result = tokio::task::spawn_blocking(move || busy(Duration::from_millis(ms))).await?;
            let delta = delta(view, at, 1 + result % 2);
            taken.push(timed(store.submit(id, Entry::Delta(delta))).await?);
        }
        Ok(taken)
    }
}

async fn timed<E: std::error::Error + Send + Sync + 'static>(
    written: impl Future<Output = Result<Outcome, E>>,
) -> anyhow::Result<f64> {
    let began = Instant::now();
    let outcome = written.await?;
    ensure!(matches!(outcome, Outcome::Accepted { .. }), "not taken: {outcome:?}");
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

fn group(number: u64) -> GroupId {
    GroupId { key: Value::encode_key(&[Value::text(format!("NMI{number:010}"))]), window_start: 0 }
}

/// The delta of one offset.
fn delta(view: Fingerprint, at: u64, changed: u64) -> Delta {
    let mut groups = Groups::new();
    (0..changed).for_each(|number| groups.update_one(&kinds(), &group(at * 7 + number), &[None], 1));
    Delta { view, partition: LogPartition(0), from: at, to: at + 1, groups, watermark_us: None, idle: false }
}

/// Makes groups that take about so many bytes when they are sent.
fn groups_of(bytes: usize) -> Groups {
    let make = |count: u64| {
        let mut groups = Groups::new();
        (0..count).for_each(|number| groups.update_one(&kinds(), &group(number), &[None], 1));
        groups
    };
    let thousand = encode_groups(&kinds(), &make(1_000)).len();
    make((bytes * 1_000 / thousand) as u64)
}

/// Adds Fibonacci numbers for a time.
fn busy(time: Duration) -> u64 {
    let began = Instant::now();
    let (mut last, mut sum) = (0_u64, 1_u64);
    while began.elapsed() < time {
        for _ in 0..10_000 {
            (last, sum) = (sum, std::hint::black_box(last.wrapping_add(sum)));
        }
    }
    sum
}
