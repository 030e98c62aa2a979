//! The batch layer's tasks on all nodes that have it: given out by the one that drives, done by each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sanso_batch::{
    BatchError, Executor, Failure, Task, TaskAnswer, TaskCall, TaskDone, TaskFailure, TaskWorker, WorkerId,
};
use sanso_catalog::{Catalog, CatalogHandle};
use sanso_cluster::{Answers, ClusterMap, ClusterNode, NodeId, owners};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// The kind of call by which a node is given a task.
const TASK: &str = "batch.task";
/// How long a task may take. A node that is lost is noticed by the cluster, long before.
const TASK_MAX: Duration = Duration::from_secs(3_600);

/// How long a view's version that is not known yet is waited for.
const KNOWN_WITHIN: Duration = Duration::from_secs(3);

/// Gives tasks to the nodes that the map shows.
pub(crate) struct ClusterTasks {
    cluster: Arc<ClusterNode>,
    /// Those that have the batch layer.
    nodes: BTreeSet<NodeId>,
    worker: TaskWorker,
    workers: watch::Sender<BTreeMap<WorkerId, usize>>,
}

impl ClusterTasks {
    /// Does tasks for other nodes from now on, in the background.
    pub(crate) fn serve(
        cluster: Arc<ClusterNode>,
        nodes: BTreeSet<NodeId>,
        (worker, catalog): (TaskWorker, CatalogHandle),
        background: Handle,
    ) -> Arc<Self> {
        cluster.answer(TASK, Arc::new(Serving { worker: worker.clone(), catalog, background }));
        let tasks = Self { cluster, nodes, worker, workers: watch::Sender::default() };
        tasks.take(&tasks.cluster.maps().borrow());
        Arc::new(tasks)
    }

    /// Returns the nodes that have the batch layer.
    pub(crate) fn nodes(&self) -> &BTreeSet<NodeId> {
        &self.nodes
    }

    /// Follows which nodes there are, for as long as this node drives.
    pub(crate) async fn follow(&self) {
        let mut maps = self.cluster.maps();
        loop {
            self.take(&maps.borrow_and_update());
            if maps.changed().await.is_err() {
                return;
            }
        }
    }

    fn take(&self, map: &ClusterMap) {
        // Each is taken to have as many places as this one; one that has fewer lets tasks wait.
        let places = self.worker.places();
        let workers: BTreeMap<_, _> = owners::usable(map, |node| self.nodes.contains(&node))
            .into_iter()
            .map(|node| (WorkerId(node.0), places))
            .collect();
        self.workers.send_if_modified(|known| {
            let changed = *known != workers;
            *known = workers;
            changed
        });
    }
}

#[async_trait]
impl Executor for ClusterTasks {
    fn workers(&self) -> watch::Receiver<BTreeMap<WorkerId, usize>> {
        self.workers.subscribe()
    }

    fn prefers(&self, source: &str, partitions: u32) -> Vec<Option<WorkerId>> {
        let nodes: Vec<NodeId> = self.workers.borrow().keys().map(|worker| NodeId(worker.0)).collect();
        let jobs: Vec<u32> = (0..partitions).collect();
        let assigned = owners::assign(&jobs, &nodes, |l, node| owners::weight(source, *l, node));
        jobs.iter().map(|l| assigned.get(l).map(|node| WorkerId(node.0))).collect()
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn run(&self, at: WorkerId, task: &Task) -> Result<TaskDone, TaskFailure> {
        if NodeId(at.0) == self.cluster.me().node {
            return self.worker.compute(task, true).await;
        }
        let unanswered = |reason: String| TaskFailure {
            failure: Failure::Passing,
            error: Box::new(BatchError::Task { task: task.name(), worker: at, reason, transient: true }),
        };
        let answer = self.cluster.ask(NodeId(at.0), TASK, task.call().encode(), TASK_MAX).await;
        let answer = answer.map_err(|error| unanswered(error.to_string()))?;
        TaskAnswer::decode(&answer).map_err(|error| unanswered(error.to_string()))?.outcome(task, at)
    }
}

/// Does tasks for whoever drives.
struct Serving {
    worker: TaskWorker,
    catalog: CatalogHandle,
    background: Handle,
}

#[async_trait]
impl Answers for Serving {
    async fn answer(&self, _from: NodeId, question: Bytes) -> Result<Bytes, String> {
        let (worker, mut catalogs) = (self.worker.clone(), self.catalog.subscribe());
        let done = self.background.spawn(async move {
            // Who drives may have heard of a view's version a moment before this node.
            if let Ok(call) = TaskCall::decode(&question) {
                let knows =
                    |catalog: &Arc<Catalog>| call.views.iter().all(|view| catalog.live.contains_key(view));
                let _ = tokio::time::timeout(KNOWN_WITHIN, catalogs.wait_for(knows)).await;
            }
            worker.answer(&question).await
        });
        let done = AbortOnDropHandle::new(done).await.map_err(|error| error.to_string())?;
        Ok(done.into())
    }
}
