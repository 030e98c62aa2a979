//! Workers in one process that know each other by bytes only, as the nodes of a cluster do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sanso_batch::{BatchConfig, Executor, Task, TaskAnswer, TaskDone, TaskFailure, TaskWorker, WorkerId};
use sanso_block::{BlockId, BlockNode, BlockStore, Neighbours, NodeBlocks, OfferedBlock};
use sanso_catalog::{Catalog, CatalogHandle};
use sanso_dataset::Dataset;
use sanso_log::Log;
use sanso_state::LogPartition;
use tokio::sync::watch;

use crate::support::World;

/// How a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It does what it is told.
    Well,
    /// It takes tasks and does nothing.
    Hangs,
    /// It does them and says nothing.
    Silent,
    /// Another worker does the same at the same time.
    Doubled,
    /// It has an application without views.
    Outdated,
    /// It does what it is told, but combines nothing.
    Splits,
}

/// What happens once.
type Once = Box<dyn FnOnce(&Fleet) + Send>;

/// Workers 1, 2, 3, …
pub(crate) struct Fleet {
    pub(crate) workers: watch::Sender<BTreeMap<WorkerId, usize>>,
    nodes: BTreeMap<WorkerId, (TaskWorker, TaskWorker)>,
    manners: Mutex<BTreeMap<WorkerId, Manner>>,
    /// How often each task was computed.
    computed: Mutex<BTreeMap<String, usize>>,
    /// Runs under way, and those that got no further.
    pub(crate) runs: watch::Sender<(usize, usize)>,
    /// Bytes that went between driver and workers.
    pub(crate) bytes: AtomicUsize,
    /// What happens when the first task that combines is begun.
    before_combining: Mutex<Option<Once>>,
}

impl Fleet {
    pub(crate) fn new(world: &World, workers: u16) -> Arc<Self> {
        Self::with(world, workers, |_, _| world.dataset())
    }

    /// Workers that keep blocks and fetch them from each other.
    pub(crate) fn keeping(world: &World, stores: &[BlockStore]) -> (Arc<Self>, Arc<Net>) {
        let net = Arc::new(Net::default());
        let dataset = |id: u16, there: &watch::Sender<_>| {
            let dataset = world.dataset().with_blocks(stores[usize::from(id) - 1].clone());
            net.nodes.lock().insert(BlockNode(id), dataset.clone());
            dataset.join_neighbours(net.seen(id, there));
            dataset
        };
        (Self::with(world, stores.len() as u16, dataset), net)
    }

    fn with(
        world: &World,
        workers: u16,
        dataset: impl Fn(u16, &watch::Sender<BTreeMap<WorkerId, usize>>) -> Dataset,
    ) -> Arc<Self> {
        let there = watch::Sender::new((1..=workers).map(|id| (WorkerId(id), 1)).collect());
        let config = BatchConfig { tasks_at_once: 1, ..BatchConfig::default() };
        let node = |id| {
            let dataset = dataset(id, &there);
            let worker = |catalog: Catalog| {
                let log = Arc::clone(&world.log) as Arc<dyn Log>;
                TaskWorker::new(config.clone(), log, dataset.clone(), CatalogHandle::new(catalog))
            };
            let outdated = Catalog { live: BTreeMap::new(), ..catalog(world) };
            (WorkerId(id), (worker(catalog(world)), worker(outdated)))
        };
        let nodes = (1..=workers).map(node).collect();
        Arc::new(Self {
            workers: there,
            nodes,
            manners: Mutex::default(),
            computed: Mutex::default(),
            runs: watch::Sender::new((0, 0)),
            bytes: AtomicUsize::new(0),
            before_combining: Mutex::default(),
        })
    }

    pub(crate) fn behave(&self, worker: u16, manner: Manner) {
        self.manners.lock().insert(WorkerId(worker), manner);
    }

    /// Has something happen when the first task that combines is begun.
    pub(crate) fn before_combining(&self, happens: impl FnOnce(&Self) + Send + 'static) {
        *self.before_combining.lock() = Some(Box::new(happens));
    }

    /// Waits until so many runs got no further.
    pub(crate) async fn stuck(&self, count: usize) {
        self.runs.subscribe().wait_for(|(_, stuck)| *stuck >= count).await.expect("the fleet is there");
    }

    /// Tells how often each task was computed, and forgets it.
    pub(crate) fn computed(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut *self.computed.lock())
    }

    /// Tells how many tasks were computed.
    pub(crate) fn computed_tasks(&self) -> usize {
        self.computed.lock().len()
    }

    async fn answer(&self, at: WorkerId, task: &Task, outdated: bool) -> TaskAnswer {
        let (worker, other) = &self.nodes[&at];
        let call = task.call().encode();
        let answer = if outdated { other.answer(&call).await } else { worker.answer(&call).await };
        self.bytes.fetch_add(call.len() + answer.len(), Ordering::Relaxed);
        let answer = TaskAnswer::decode(&answer).expect("an answer");
        if answer == (TaskAnswer::Done { computed: true }) {
            *self.computed.lock().entry(task.name()).or_default() += 1;
        }
        answer
    }

    async fn gets_no_further(&self) -> TaskAnswer {
        self.runs.send_modify(|(_, stuck)| *stuck += 1);
        std::future::pending().await
    }
}

/// An application all of whose views are live.
pub(crate) fn catalog(world: &World) -> Catalog {
    let source = world.source();
    Catalog {
        sources: [(source.name.clone(), Arc::clone(source))].into(),
        live: world.views.iter().map(|view| (view.fingerprint, Arc::clone(view))).collect(),
        ..Catalog::default()
    }
}

/// Counts a run while it is under way.
struct Running<'a>(&'a Fleet);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.runs.send_modify(|(running, _)| *running -= 1);
    }
}

#[async_trait]
impl Executor for Fleet {
    fn workers(&self) -> watch::Receiver<BTreeMap<WorkerId, usize>> {
        self.workers.subscribe()
    }

    fn prefers(&self, _source: &str, partitions: u32) -> Vec<Option<WorkerId>> {
        let count = self.nodes.len() as u32;
        (0..partitions).map(|l| Some(WorkerId(1 + (l % count) as u16))).collect()
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn run(&self, at: WorkerId, task: &Task) -> Result<TaskDone, TaskFailure> {
        self.runs.send_modify(|(running, _)| *running += 1);
        let _running = Running(self);
        let combines = task.name().starts_with("combine");
        let happens = combines.then(|| self.before_combining.lock().take()).flatten();
        if let Some(happens) = happens {
            happens(self);
        }
        let manner = self.manners.lock().get(&at).copied().unwrap_or(Manner::Well);
        let answer = match manner {
            Manner::Well => self.answer(at, task, false).await,
            Manner::Splits if combines => self.gets_no_further().await,
            Manner::Splits => self.answer(at, task, false).await,
            Manner::Outdated => self.answer(at, task, true).await,
            Manner::Hangs => self.gets_no_further().await,
            Manner::Silent => {
                self.answer(at, task, false).await;
                self.gets_no_further().await
            }
            Manner::Doubled => {
                let other = *self.nodes.keys().find(|other| **other != at).expect("there is another");
                futures::join!(self.answer(at, task, false), self.answer(other, task, false)).0
            }
        };
        answer.outcome(task, at)
    }
}

/// What workers fetch from each other.
#[derive(Default)]
pub(crate) struct Net {
    nodes: Mutex<BTreeMap<BlockNode, Dataset>>,
    pub(crate) fetched: AtomicUsize,
    /// Whether a bit of the next block that is fetched flips.
    pub(crate) flips_a_bit: AtomicBool,
}

impl Net {
    /// Returns it as one of its nodes sees it.
    pub(crate) fn seen(
        self: &Arc<Self>,
        by: u16,
        there: &watch::Sender<BTreeMap<WorkerId, usize>>,
    ) -> Arc<dyn Neighbours> {
        Arc::new(Seen { me: BlockNode(by), net: Arc::clone(self), there: there.subscribe() })
    }
}

struct Seen {
    me: BlockNode,
    net: Arc<Net>,
    there: watch::Receiver<BTreeMap<WorkerId, usize>>,
}

impl Seen {
    fn node(&self, node: BlockNode) -> Result<Dataset, String> {
        let is_there = self.there.borrow().contains_key(&WorkerId(node.0));
        let node = self.net.nodes.lock().get(&node).cloned();
        node.filter(|_| is_there).ok_or_else(|| "gone".to_owned())
    }
}

#[async_trait]
impl Neighbours for Seen {
    fn me(&self) -> BlockNode {
        self.me
    }

    fn places(&self, _source: &str, _partition: LogPartition) -> Vec<BlockNode> {
        Vec::new()
    }

    fn nodes(&self) -> Vec<BlockNode> {
        self.net.nodes.lock().keys().copied().collect()
    }

    async fn held(&self, of: BlockNode) -> Result<NodeBlocks, String> {
        Ok(self.node(of)?.node_blocks())
    }

    async fn offer(&self, _to: BlockNode, _blocks: Vec<OfferedBlock>) -> Result<(), String> {
        Ok(())
    }

    async fn fetch(&self, from: BlockNode, id: BlockId) -> Result<Option<Bytes>, String> {
        let Some(bytes) = self.node(from)?.exported_block(id).await else { return Ok(None) };
        self.net.fetched.fetch_add(1, Ordering::Relaxed);
        let mut bytes = bytes.to_vec();
        if self.net.flips_a_bit.swap(false, Ordering::Relaxed) {
            *bytes.last_mut().expect("never empty") ^= 1;
        }
        Ok(Some(bytes.into()))
    }

    async fn forget(&self, at: BlockNode, blocks: Vec<BlockId>) -> Result<(), String> {
        self.node(at)?.forget_blocks(&blocks);
        Ok(())
    }
}
