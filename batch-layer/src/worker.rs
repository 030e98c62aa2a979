//! A worker: computes tasks, a bounded number at a time, for the driver of this process or another.

use std::sync::Arc;

use sanso_catalog::CatalogHandle;
use sanso_dataset::{Dataset, Manifest};
use sanso_lineage::{Failure, WorkerId};
use sanso_log::Log;
use tokio::sync::{Mutex, Semaphore};

use crate::call::{TaskAnswer, TaskCall};
use crate::config::BatchConfig;
use crate::error::{BatchError, chain};
use crate::metrics;
use crate::source_run::beginning;
use crate::task::{Means, Task, TaskResult, Work};

/// Why a run of a task has no result.
#[derive(Debug)]
pub struct TaskFailure {
    /// What it says of the task.
    pub failure: Failure,
    /// The cause.
    pub error: Box<BatchError>,
}

impl From<BatchError> for TaskFailure {
    fn from(error: BatchError) -> Self {
        let failure = if error.is_transient() { Failure::Passing } else { Failure::Final };
        Self { failure, error: Box::new(error) }
    }
}

/// What a worker says of a task that is done.
#[derive(Clone, Debug)]
pub struct TaskDone {
    /// Whether it was computed for this call, not found.
    pub computed: bool,
    /// The result; none where it is to be read from the dataset.
    pub result: Option<Arc<TaskResult>>,
}

/// Computes tasks. Clones share its places.
#[derive(Clone)]
pub struct TaskWorker(Arc<Inner>);

struct Inner {
    config: BatchConfig,
    log: Arc<dyn Log>,
    dataset: Dataset,
    catalog: CatalogHandle,
    places: Semaphore,
    /// The manifest that the last call from elsewhere stood on.
    manifest: Mutex<Option<Arc<Manifest>>>,
}

impl TaskWorker {
    /// Creates a worker; it does what it is asked to.
    pub fn new(config: BatchConfig, log: Arc<dyn Log>, dataset: Dataset, catalog: CatalogHandle) -> Self {
        let places = Semaphore::new(config.tasks_at_once.max(1));
        Self(Arc::new(Inner { config, log, dataset, catalog, places, manifest: Mutex::default() }))
    }

    /// Returns how many tasks it computes at the same time.
    pub fn places(&self) -> usize {
        self.0.config.tasks_at_once.max(1)
    }

    /// Computes a task, once there is a place. With `keep` its result is written to the dataset, unless it
    /// is there already. May be dropped at any point.
    pub async fn compute(&self, task: &Task, keep: bool) -> Result<TaskDone, TaskFailure> {
        let inner = &self.0;
        let _place = inner.places.acquire().await;
        if keep
            && !task.is_again()
            && let Some(found) = task.find(&inner.dataset).await?
        {
            metrics::record_task(&task.source().name, "found", 0);
            return Ok(TaskDone { computed: false, result: Some(Arc::new(found)) });
        }
        let means = Means {
            log: inner.log.as_ref(),
            dataset: &inner.dataset,
            source: task.source(),
            read_bytes_max: inner.config.read_bytes_max,
        };
        let computed = task.compute(means).await;
        let outcome = if computed.is_ok() { "computed" } else { "failed" };
        let result =
            Arc::new(computed.inspect_err(|_| metrics::record_task(&task.source().name, outcome, 0))?);
        if keep {
            task.store(&inner.dataset, &result).await?;
            let (task, took_ms) = (task.name(), result.took_ms);
            let pieces_at = result.held_by.map(tracing::field::display);
            tracing::info!(task, took_ms, tables_from = %result.read, pieces_at, "computed a task");
        }
        metrics::record_task(&task.source().name, outcome, result.took_ms);
        Ok(TaskDone { computed: true, result: Some(result) })
    }

    /// Answers another process: [`TaskCall`] and [`TaskAnswer`] as bytes.
    pub async fn answer(&self, call: &[u8]) -> Vec<u8> {
        let answer = match TaskCall::decode(call) {
            Ok(call) => self.serve(&call).await,
            Err(error) => failed(chain(&error), true),
        };
        answer.encode()
    }

    /// Does what another process calls for; the result is in the dataset before this returns.
    pub async fn serve(&self, call: &TaskCall) -> TaskAnswer {
        let task = match self.task_of(call).await {
            Ok(Some(task)) => task,
            Ok(None) => {
                let what = "this node makes another task of it: it has another application or version of the program";
                return failed(what.to_owned(), true);
            }
            Err(error) => return failed(chain(&error), false),
        };
        match self.compute(&task, true).await {
            Ok(done) => TaskAnswer::Done { computed: done.computed },
            Err(TaskFailure { failure, error }) => TaskAnswer::Failed {
                reason: chain(error.as_ref()),
                passing: failure == Failure::Passing,
                transient: error.is_transient(),
                lacks: match *error {
                    BatchError::Lacks { of, .. } => of,
                    _ => Vec::new(),
                },
                unable: failure == Failure::Unable,
            },
        }
    }

    /// Makes a task of a call; none where it would be another.
    async fn task_of(&self, call: &TaskCall) -> Result<Option<Task>, BatchError> {
        let catalog = self.0.catalog.current();
        let Some(source) = catalog.sources.get(&call.source) else { return Ok(None) };
        let views = call.views.iter().map(|view| catalog.live.get(view).cloned());
        let Some(views) = views.collect::<Option<Vec<_>>>() else { return Ok(None) };
        let stands_on = match call.stands_on {
            0 => Arc::new(beginning(source)),
            version => self.manifest(&call.source, version).await?,
        };
        if stands_on.watermarks.len() != source.partitions as usize {
            return Ok(None);
        }
        if matches!(call.work, Work::Combine { .. }) && views.len() != 1 {
            return Ok(None);
        }
        let task = Task::new(source, views, &stands_on, call.work.clone());
        let task = task.with(call.held.clone(), call.again);
        Ok(Some(task).filter(|task| task.fingerprint() == call.task))
    }

    /// Reads a manifest once for all tasks that stand on it.
    async fn manifest(&self, source: &str, version: u64) -> Result<Arc<Manifest>, BatchError> {
        let mut held = self.0.manifest.lock().await;
        if let Some(held) =
            held.as_ref().filter(|held| (held.source.as_str(), held.version) == (source, version))
        {
            return Ok(Arc::clone(held));
        }
        let read = self.0.dataset.manifest_at(source, version).await?;
        *held = Some(Arc::clone(&read));
        Ok(read)
    }
}

/// Says that another attempt may succeed; `unable`: at another process, and that it says nothing of the task.
fn failed(reason: String, unable: bool) -> TaskAnswer {
    TaskAnswer::Failed { reason, passing: true, transient: true, lacks: Vec::new(), unable }
}

impl TaskAnswer {
    /// Says what an answer from another process means.
    pub fn outcome(self, task: &Task, worker: WorkerId) -> Result<TaskDone, TaskFailure> {
        match self {
            Self::Done { computed } => Ok(TaskDone { computed, result: None }),
            Self::Failed { reason, passing, transient, lacks, unable } => {
                let failure = match (unable, passing) {
                    (true, _) => Failure::Unable,
                    (false, true) => Failure::Passing,
                    (false, false) => Failure::Final,
                };
                let task = task.name();
                let error = match lacks.is_empty() {
                    true => BatchError::Task { task, worker, reason, transient },
                    false => BatchError::Lacks { task, of: lacks },
                };
                Err(TaskFailure { failure, error: Box::new(error) })
            }
        }
    }
}
