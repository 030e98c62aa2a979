//! Where tasks run: in this process, or on all nodes of a cluster.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sanso_lineage::WorkerId;
use tokio::sync::watch;

use crate::task::Task;
use crate::worker::{TaskDone, TaskFailure, TaskWorker};

/// Runs tasks at workers.
#[async_trait]
pub trait Executor: Send + Sync {
    /// Follows which workers there are, and how many tasks each takes at a time.
    fn workers(&self) -> watch::Receiver<BTreeMap<WorkerId, usize>>;

    /// Says for each log partition of a source which worker is to do its tasks where it can: the same as
    /// long as the workers are the same.
    fn prefers(&self, source: &str, partitions: u32) -> Vec<Option<WorkerId>>;

    /// Says whether other processes may need a task's result: then plans and results are in the dataset
    /// before they are reported.
    fn is_shared(&self) -> bool;

    /// Runs a task at a worker. Dropped, it is stopped there too.
    async fn run(&self, at: WorkerId, task: &Task) -> Result<TaskDone, TaskFailure>;
}

/// Runs tasks in this process, for a driver whose results nobody else could use.
pub(crate) struct InProcess {
    worker: TaskWorker,
    workers: watch::Sender<BTreeMap<WorkerId, usize>>,
}

impl InProcess {
    pub(crate) fn new(worker: TaskWorker) -> Self {
        let workers = watch::Sender::new([(WorkerId(0), worker.places())].into());
        Self { worker, workers }
    }
}

#[async_trait]
impl Executor for InProcess {
    fn workers(&self) -> watch::Receiver<BTreeMap<WorkerId, usize>> {
        self.workers.subscribe()
    }

    fn prefers(&self, _source: &str, partitions: u32) -> Vec<Option<WorkerId>> {
        vec![None; partitions as usize]
    }

    fn is_shared(&self) -> bool {
        false
    }

    async fn run(&self, _at: WorkerId, task: &Task) -> Result<TaskDone, TaskFailure> {
        self.worker.compute(task, false).await
    }
}
