//! What a job waits for when a node is lost that had results of it at hand: recomputing them, reading them
//! from the dataset, or going on with copies. The experiments of the in-memory key-value store paper (recompute,
//! reload and failover), on blocks of our own cluster.
//!
//! Three nodes of a cluster in this process, each with a runtime of its own. One is lost by answering nothing and breaking its connections.
//! A job asks for all parts of a dataset, each from the node that the map names for it. All are at hand
//! at first; then a node is lost, and at the same moment the job is run again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use async_trait::async_trait;
use bytes::Bytes;
use sanso_block::{
    BlockId, BlockNode, BlockStore, Keeping, Made, Neighbours, NodeBlocks, OfferedBlock, PartId, Reading,
    Rows, SharedBlocks,
};
use sanso_cluster::{
    Answers, BlockHost, ClusterBlocks, ClusterConfig, ClusterNode, KindsOf, MemberAddress, NodeConfig,
    NodeId, Timings, VERSIONS, VotersPatience,
};
use sanso_state::{Fingerprint, LogPartition, StorageLevel};
use tokio::runtime::Runtime;

use super::Found;
use crate::plot::{Plot, Scale};
use crate::table::Table;

const NODES: u16 = 3;
/// The node that is lost, and the one where the job is driven.
const LOST: u16 = 3;
const DRIVER: u16 = 1;
const PARTS: u32 = 6;
const DATASET: &str = "results";
const PART: &str = "bench.part";
const PATIENCE: Duration = Duration::from_secs(60);
/// How a lost node's results are had again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// They are computed again.
    Lineage,
    /// They are read from the dataset, here a folder.
    Dataset,
    /// Another node has copies.
    Copies,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Lineage => "computing again",
            Self::Dataset => "reading the dataset",
            Self::Copies => "copies",
        }
    }
}

/// What a part is.
#[derive(Clone, Copy, Debug)]
struct Work {
    task: Duration,
    mb: usize,
}

/// Measures tasks of several lengths.
pub(crate) fn recompute(quick: bool) -> anyhow::Result<Found> {
    let lengths: &[u64] = if quick { &[20, 300] } else { &[20, 100, 300, 600, 2_000, 5_000] };
    let works =
        lengths.iter().map(|&ms| (format!("{ms} ms"), Work { task: Duration::from_millis(ms), mb: 0 }));
    compare("task", works.collect(), &[Mode::Copies, Mode::Dataset, Mode::Lineage], quick)
}

/// Measures blocks of several sizes.
pub(crate) fn reload(quick: bool) -> anyhow::Result<Found> {
    let sizes: &[usize] = if quick { &[1, 8] } else { &[8, 32, 64, 128, 256] };
    // A node has two parts.
    let works = sizes.iter().map(|&mb| (format!("{} MB", 2 * mb), Work { task: Duration::ZERO, mb }));
    compare("at hand on a node", works.collect(), &[Mode::Copies, Mode::Dataset], quick)
}

/// Measures the modes on each work, several times; the median counts.
fn compare(what: &str, works: Vec<(String, Work)>, modes: &[Mode], quick: bool) -> anyhow::Result<Found> {
    let rounds = if quick { 1 } else { 3 };
    let head = [what.to_owned(), "before the loss, ms".to_owned()];
    let after = modes.iter().map(|mode| format!("after it, {}, ms", mode.name()));
    let mut table = Table::with_head(head.into_iter().chain(after).collect());
    let mut lines: Vec<(String, Vec<Option<f64>>)> =
        modes.iter().map(|mode| (mode.name().to_owned(), Vec::new())).collect();
    let mut worth: Vec<Option<String>> = vec![None; modes.len()];
    for (name, work) in &works {
        let mut medians = Vec::new();
        let mut before = 0.0_f64;
        for (mode, (_, line)) in modes.iter().zip(&mut lines) {
            let mut times = Vec::new();
            for _ in 0..rounds {
                let (at_hand, lost) = measured(*work, *mode)?;
                before = before.max(at_hand);
                times.push(lost);
            }
            times.sort_by(f64::total_cmp);
            let median = times[times.len() / 2];
            line.push(Some(median));
            medians.push(median);
        }
        let cells = medians.iter().map(|ms| format!("{ms:.0}"));
        table.row([name.clone(), format!("{before:.1}")].into_iter().chain(cells).collect::<Vec<_>>());
        for (worth, median) in worth.iter_mut().zip(&medians) {
            if worth.is_none() && *median > medians[0] * 1.2 {
                *worth = Some(name.clone());
            }
        }
    }
    let copies = lines[0].1.iter().flatten();
    let (least, most) =
        copies.fold((f64::INFINITY, 0.0_f64), |(least, most), ms| (least.min(*ms), most.max(*ms)));
    let crossings = modes.iter().zip(worth).skip(1).map(|(mode, from)| match from {
        Some(from) => format!("{} takes a fifth longer, or more, from {from} on", mode.name()),
        None => format!("{} takes hardly longer anywhere here", mode.name()),
    });
    let crossing = crossings.collect::<Vec<_>>().join("; ");
    let here = format!(
        "Here a job that finds a node lost takes {least:.0} to {most:.0} ms with copies, most of it until the node is \
         taken for lost; {crossing}."
    );
    let plot = Plot {
        title: "A job of six parts after the loss of one of three nodes".to_owned(),
        across: what.to_owned(),
        up: "ms".to_owned(),
        settings: works.into_iter().map(|(name, _)| name).collect(),
        scale: Scale::Logarithmic,
        lines,
    };
    let what = format!("Median of {rounds}, three nodes in one process, two processors shared by all:");
    Ok(Found { here, tables: vec![(what, table)], plots: vec![("loss", plot)] })
}

/// Returns how long a job takes before and after the loss of a node, in milliseconds.
fn measured(work: Work, mode: Mode) -> anyhow::Result<(f64, f64)> {
    let folder = tempfile::tempdir()?;
    let mut nodes = start(folder.path(), work, mode)?;
    let driver = nodes.remove(&DRIVER).context("the driver runs")?;
    let outcome = driver.runtime.block_on(async {
        // The first run computes, and all that is to be copied is.
        job(&driver.node).await?;
        if mode == Mode::Copies {
            copied(&driver.node).await?;
        }
        let before = job(&driver.node).await?;
        let lost = nodes.remove(&LOST).context("it runs")?;
        // It answers nothing from now on, and its connections break.
        lost.node.host.is_lost.store(true, Ordering::Relaxed);
        let (after, ()) = futures::join!(job(&driver.node), lost.node.cluster.shutdown());
        lost.runtime.shutdown_background();
        anyhow::Ok((before, after?))
    });
    driver.runtime.shutdown_background();
    nodes.into_values().for_each(|node| node.runtime.shutdown_background());
    outcome
}

/// A node and its runtime.
struct Running {
    runtime: Runtime,
    node: Arc<BenchNode>,
}

/// A node with blocks.
struct BenchNode {
    cluster: Arc<ClusterNode>,
    neighbours: Arc<ClusterBlocks>,
    host: Arc<Host>,
}

/// What a node does for others.
struct Host {
    blocks: SharedBlocks,
    mode: Mode,
    work: Work,
    /// The folder that stands for the dataset.
    dataset: PathBuf,
    is_lost: AtomicBool,
}

fn start(folder: &Path, work: Work, mode: Mode) -> anyhow::Result<BTreeMap<u16, Running>> {
    let ports = sanso_broker::ports::free(usize::from(NODES))?;
    let peer = |node: u16| format!("127.0.0.1:{}", ports[usize::from(node) - 1]);
    let members: BTreeMap<NodeId, MemberAddress> =
        (1..=NODES).map(|node| (NodeId(node), MemberAddress { peer: peer(node), voter: true })).collect();
    let all: BTreeSet<NodeId> = members.keys().copied().collect();
    let dataset = folder.join("dataset");
    std::fs::create_dir_all(&dataset)?;
    let mut nodes = BTreeMap::new();
    for node in 1..=NODES {
        let runtime = Runtime::new()?;
        let config = ClusterConfig {
            name: "bench".to_owned(),
            node: NodeId(node),
            listen: peer(node).parse()?,
            members: members.clone(),
            partitions: 8,
            replicas: 3,
            folder: folder.join(node.to_string()),
            tls: None,
            insecure: false,
            core: NodeConfig::default(),
            control: Timings::default(),
            patience: VotersPatience::default(),
            versions: VERSIONS,
        };
        let (all, dataset) = (all.clone(), dataset.clone());
        let node_of = runtime.block_on(async move {
            let kinds_of: KindsOf = Arc::new(|_| None);
            let cluster = Arc::new(ClusterNode::start(config, kinds_of).await?);
            let blocks = SharedBlocks::new(BlockStore::in_memory(4 << 30));
            let host = Arc::new(Host { blocks, mode, work, dataset, is_lost: AtomicBool::new(false) });
            let neighbours = ClusterBlocks::serve(&cluster, all, Arc::clone(&host) as Arc<dyn BlockHost>);
            host.blocks.join(Arc::clone(&neighbours) as Arc<dyn Neighbours>);
            cluster.answer(PART, Arc::new(Parts(Arc::clone(&host))));
            let copying = Arc::clone(&host);
            tokio::spawn(async move { copying.blocks.copy(copying.as_ref()).await });
            anyhow::Ok(Arc::new(BenchNode { cluster, neighbours, host }))
        })?;
        nodes.insert(node, Running { runtime, node: node_of });
    }
    for running in nodes.values() {
        running.runtime.block_on(async {
            let mut maps = running.node.cluster.maps();
            let whole = maps.wait_for(|map| map.members.len() == usize::from(NODES));
            tokio::time::timeout(PATIENCE, whole).await.context("the cluster is not whole in time")??;
            anyhow::Ok(())
        })?;
    }
    Ok(nodes)
}

/// Has all parts, each from who is to have it; returns how long that took, in milliseconds.
async fn job(driver: &BenchNode) -> anyhow::Result<f64> {
    let began = Instant::now();
    let parts = (0..PARTS).map(|part| async move {
        // Until who has it answers: a node that is lost is no longer who is asked, once that is known.
        loop {
            let home = driver.neighbours.places(DATASET, LogPartition(part)).first().copied();
            let home = home.context("no node has blocks")?;
            if home == driver.neighbours.me() {
                return driver.host.part(part).await.map(drop).map_err(anyhow::Error::msg);
            }
            let question = part.to_le_bytes().to_vec();
            let asked = driver.cluster.ask(NodeId(home.0), PART, question, PATIENCE);
            // Ends also when the node that is asked is no longer the one to ask.
            let moved = async {
                let mut maps = driver.cluster.maps();
                let is_home = || driver.neighbours.places(DATASET, LogPartition(part)).first() == Some(&home);
                while is_home() && maps.changed().await.is_ok() {}
            };
            tokio::select! {
                answer = asked => match answer {
                    Ok(_) => return anyhow::Ok(()),
                    Err(_) => tokio::task::yield_now().await,
                },
                () = moved => {}
            }
            ensure!(began.elapsed() < PATIENCE, "part {part} is not had in time");
        }
    });
    futures::future::try_join_all(parts).await?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

/// Waits until two nodes have each part.
async fn copied(driver: &BenchNode) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let mut held: BTreeMap<BlockId, usize> = BTreeMap::new();
        for node in driver.neighbours.nodes() {
            let said = match node == driver.neighbours.me() {
                true => driver.host.held(),
                false => driver.neighbours.held(node).await.map_err(anyhow::Error::msg)?,
            };
            said.blocks.iter().for_each(|block| *held.entry(block.id).or_default() += 1);
        }
        if held.len() == PARTS as usize && held.values().all(|copies| *copies >= 2) {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "not copied in time: {held:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Host {
    /// Has a part, by the cheapest way that there is.
    async fn part(&self, part: u32) -> Result<Arc<Rows>, String> {
        let id = id_of(part);
        let (store, level) = (self.blocks.store(), StorageLevel::Memory);
        if let Some(rows) = store.get(id, level, Reading::Again).await {
            return Ok(rows);
        }
        let file = self.dataset.join(format!("{part}.block"));
        if self.mode == Mode::Dataset
            && let Ok(bytes) = tokio::fs::read(&file).await
        {
            let rows = BlockStore::decoded(id, bytes.into()).await?;
            store.put(id, level, Arc::clone(&rows)).await;
            return Ok(rows);
        }
        let work = self.work;
        let computed = tokio::task::spawn_blocking(move || compute(part, work)).await;
        let rows = Arc::new(computed.map_err(|error| error.to_string())?);
        let made = Made { id, version: 1, file_bytes: rows.bytes() };
        self.blocks.put(part_id(part), made, level, Arc::clone(&rows)).await;
        if self.mode == Mode::Dataset {
            let bytes = store.export(id).await.ok_or("it is not kept")?;
            tokio::fs::write(&file, bytes).await.map_err(|error| error.to_string())?;
        }
        Ok(rows)
    }
}

impl Keeping for Host {
    fn level(&self, _dataset: &str) -> Option<StorageLevel> {
        Some(StorageLevel::Memory)
    }

    fn replicas(&self, _dataset: &str) -> u8 {
        if self.mode == Mode::Copies { 2 } else { 1 }
    }
}

#[async_trait]
impl BlockHost for Host {
    fn log_partitions(&self, _source: &str) -> u32 {
        PARTS
    }

    fn offered(&self, from: BlockNode, blocks: Vec<OfferedBlock>) {
        self.blocks.offered(from, blocks);
    }

    async fn exported(&self, id: BlockId) -> Option<Bytes> {
        self.blocks.store().export(id).await
    }

    fn held(&self) -> NodeBlocks {
        NodeBlocks { blocks: self.blocks.store().held(), tables: BTreeMap::new() }
    }

    fn forget(&self, blocks: Vec<BlockId>) {
        blocks.into_iter().for_each(|id| self.blocks.store().remove(id));
    }
}

/// Has parts for whoever asks, and answers with how many rows they have.
struct Parts(Arc<Host>);

#[async_trait]
impl Answers for Parts {
    async fn answer(&self, _from: NodeId, question: Bytes) -> Result<Bytes, String> {
        if self.0.is_lost.load(Ordering::Relaxed) {
            return std::future::pending().await;
        }
        let part = question.as_ref().try_into().map_err(|_| "no part's number".to_owned())?;
        let rows = self.0.part(u32::from_le_bytes(part)).await?;
        let rows: usize = rows.batches().iter().map(RecordBatch::num_rows).sum();
        Ok(Bytes::from(rows.to_le_bytes().to_vec()))
    }
}

fn id_of(part: u32) -> BlockId {
    BlockId(Fingerprint::of(&part.to_le_bytes()))
}

fn part_id(part: u32) -> PartId {
    PartId { source: DATASET.to_owned(), partition: LogPartition(part), date: None }
}

/// Computes a part: Fibonacci numbers for its time, then its rows.
fn compute(part: u32, work: Work) -> Rows {
    let began = Instant::now();
    let (mut last, mut sum) = (0_u64, u64::from(part) + 1);
    while began.elapsed() < work.task {
        for _ in 0..10_000 {
            (last, sum) = (sum, std::hint::black_box(last.wrapping_add(sum)));
        }
    }
    // Rows that do not compress, as readings hardly do.
    let count = ((work.mb << 20) / 8).max(128) as u64;
    let mixed = |n: u64| (n ^ sum).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) as i64;
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values((0..count).map(mixed)));
    let batch = RecordBatch::try_from_iter([("n", numbers)]).expect("one column");
    Rows::new(vec![batch])
}
