//! Workers in one process that know each other by bytes only, as the nodes of a cluster do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use sanso_batch::{BatchConfig, Executor, Task, TaskAnswer, TaskDone, TaskFailure, TaskWorker, WorkerId};
use sanso_catalog::{Catalog, CatalogHandle};
use sanso_log::Log;
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
}

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
}

impl Fleet {
    pub(crate) fn new(world: &World, workers: u16) -> Arc<Self> {
        let config = BatchConfig { tasks_at_once: 1, ..BatchConfig::default() };
        let worker = |catalog: CatalogHandle| {
            TaskWorker::new(config.clone(), Arc::clone(&world.log) as Arc<dyn Log>, world.dataset(), catalog)
        };
        let node = |id| {
            let outdated = CatalogHandle::new(Catalog { live: BTreeMap::new(), ..catalog(world) });
            (WorkerId(id), (worker(CatalogHandle::new(catalog(world))), worker(outdated)))
        };
        let there = (1..=workers).map(|id| (WorkerId(id), 1)).collect();
        Arc::new(Self {
            workers: watch::Sender::new(there),
            nodes: (1..=workers).map(node).collect(),
            manners: Mutex::default(),
            computed: Mutex::default(),
            runs: watch::Sender::new((0, 0)),
            bytes: AtomicUsize::new(0),
        })
    }

    pub(crate) fn behave(&self, worker: u16, manner: Manner) {
        self.manners.lock().insert(WorkerId(worker), manner);
    }

    /// Waits until so many runs got no further.
    pub(crate) async fn stuck(&self, count: usize) {
        self.runs.subscribe().wait_for(|(_, stuck)| *stuck >= count).await.expect("the fleet is there");
    }

    /// Tells how often each task was computed, and forgets it.
    pub(crate) fn computed(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut *self.computed.lock())
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
        let manner = self.manners.lock().get(&at).copied().unwrap_or(Manner::Well);
        let answer = match manner {
            Manner::Well => self.answer(at, task, false).await,
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
