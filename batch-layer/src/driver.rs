//! Drives one job: the tasks of one version, on whichever workers there are.
//!
//! What is in the dataset already is not done again, unless what it gave is lost. The scheduler decides; here are
//! the runs, the clock and what people are told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{AbortHandle, Abortable, BoxFuture};
use futures::stream::{self, FuturesUnordered};
use futures::{FutureExt, StreamExt, TryStreamExt};
use sanso_catalog::{BatchJob, JobOutcome, NodeTasks, RunningTask};
use sanso_lineage::{
    Effect, Event, Failure, RunId, Scheduler, SchedulerConfig, TaskId, TaskPlan, Why, WorkerId,
    WorkerProgress,
};
use sanso_state::Fingerprint;

use crate::error::{BatchError, Result, chain};
use crate::metrics;
use crate::service::now_us;
use crate::source_run::World;
use crate::task::{Task, TaskResult};
use crate::worker::TaskFailure;

/// Results that are looked for in the dataset at the same time.
const FINDS_AT_ONCE: usize = 16;

/// Does tasks, of which some may combine what others before them give. Returns the results of those that nobody
/// combines, in the same order. Dropped, it stops them everywhere.
pub(crate) async fn run_tasks(world: &World<'_>, tasks: &[Task]) -> Result<Vec<Arc<TaskResult>>> {
    let mut results: Vec<Option<Arc<TaskResult>>> = vec![None; tasks.len()];
    if world.executor.is_shared() {
        let finds: Vec<_> = tasks.iter().map(|task| task.find(world.dataset).boxed()).collect();
        let found: Vec<_> = stream::iter(finds).buffered(FINDS_AT_ONCE).try_collect().await?;
        results = found.into_iter().map(|found| found.map(Arc::new)).collect();
        for (task, _) in tasks.iter().zip(&results).filter(|(_, found)| found.is_some()) {
            tracing::info!(task = task.name(), "a task was done before, its result is used");
        }
    }
    let source = &world.source.name;
    let prefers = world.executor.prefers(source, world.source.partitions);
    let places: BTreeMap<Fingerprint, TaskId> =
        tasks.iter().enumerate().map(|(at, task)| (task.fingerprint(), TaskId(at))).collect();
    let plan = |task: &Task| TaskPlan {
        prefers: task.partition().and_then(|partition| *prefers.get(partition.index())?),
        needs: task.inputs().map(|(of, _)| places[&of]).collect(),
    };
    let plans: Vec<TaskPlan> = tasks.iter().map(plan).collect();
    let config = SchedulerConfig { twin_ms_min: world.config.twin_ms_min, ..SchedulerConfig::default() };
    let combined: BTreeSet<usize> = plans.iter().flat_map(|plan| &plan.needs).map(|need| need.0).collect();
    let job = Job {
        world,
        tasks,
        places,
        // Who is alone keeps pieces where they don't drive each other out.
        again: vec![!world.executor.is_shared(); tasks.len()],
        scheduler: Scheduler::new(config, plans, 0),
        results,
        started: Instant::now(),
        runs: FuturesUnordered::new(),
        stops: BTreeMap::new(),
        recovering: BTreeMap::new(),
        failure: None,
    };
    let mut told = Told { world, outcome: JobOutcome::Stopped };
    let outcome = job.run().await;
    told.outcome =
        outcome.as_ref().map_or_else(|error| JobOutcome::Failed(chain(error)), |_| JobOutcome::Done);
    let results = outcome?.into_iter().enumerate().filter(|(at, _)| !combined.contains(at));
    Ok(results.map(|(_, result)| result.expect("the job is done")).collect())
}

/// What comes of a run; none when it was stopped.
type Ended = (RunId, Option<Result<Arc<TaskResult>, TaskFailure>>);

struct Job<'a> {
    world: &'a World<'a>,
    tasks: &'a [Task],
    /// The tasks by what they are made of.
    places: BTreeMap<Fingerprint, TaskId>,
    /// Whether what a task gives is to be safe, as after it was lost.
    again: Vec<bool>,
    results: Vec<Option<Arc<TaskResult>>>,
    scheduler: Scheduler,
    started: Instant,
    runs: FuturesUnordered<BoxFuture<'a, Ended>>,
    stops: BTreeMap<RunId, AbortHandle>,
    /// The runs that make up for a node that is lost.
    recovering: BTreeMap<RunId, WorkerId>,
    /// The last failure: what the job fails with, if it does.
    failure: Option<BatchError>,
}

impl<'a> Job<'a> {
    async fn run(mut self) -> Result<Vec<Option<Arc<TaskResult>>>> {
        let found = self.results.iter().enumerate();
        let found = found.filter_map(|(at, found)| Some(Event::Found(TaskId(at), found.as_ref()?.held())));
        for found in found.collect::<Vec<_>>() {
            self.happens(found)?;
        }
        let mut workers = self.world.executor.workers();
        let there = workers.borrow_and_update().clone();
        self.happens(Event::Workers(there))?;
        self.tell();
        while !self.scheduler.is_done() {
            let now_ms = self.now_ms();
            let due = self.scheduler.due_ms(now_ms).map(|due_ms| Duration::from_millis(due_ms - now_ms));
            let due = async {
                match due {
                    Some(due) => tokio::time::sleep(due).await,
                    None => std::future::pending().await,
                }
            };
            let changed = async {
                if workers.changed().await.is_err() {
                    // They stay as they are.
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                Some((run, ended)) = self.runs.next() => self.ended(run, ended)?,
                () = changed => {
                    let there = workers.borrow_and_update().clone();
                    self.happens(Event::Workers(there))?;
                }
                () = due => self.happens(Event::Tick)?,
            }
            self.tell();
        }
        Ok(self.results)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn ended(&mut self, run: RunId, ended: Option<Result<Arc<TaskResult>, TaskFailure>>) -> Result<()> {
        self.stops.remove(&run);
        let lost = self.recovering.remove(&run);
        let of = self.scheduler.runs().find(|(id, ..)| *id == run);
        // One that was stopped just when it ended is passed over.
        let (Some((_, task, worker)), Some(ended)) = (of, ended) else { return Ok(()) };
        match ended {
            Ok(result) => {
                if let Some(lost) = lost {
                    let (task, took_ms) = (self.task(task).name(), result.took_ms);
                    let read = &result.read;
                    tracing::info!(task, of = %lost, by = %worker, took_ms, tables_from = %read, "recovered");
                }
                let held = result.held();
                self.results[task.0] = Some(result);
                self.happens(Event::Done(run, held))
            }
            Err(TaskFailure { failure, error }) => {
                let (task, error_text) = (self.task(task).name(), chain(error.as_ref()));
                tracing::debug!(task, %worker, error = error_text, "a run of a task failed");
                if failure == Failure::Unable {
                    let error = &error_text;
                    tracing::info!(task, %worker, error, "a node can't do a task and is left out for a while");
                }
                let lacks = match error.as_ref() {
                    BatchError::Lacks { of, .. } => of.as_slice(),
                    _ => &[],
                };
                let lacks: Vec<TaskId> = lacks.iter().filter_map(|of| self.places.get(of).copied()).collect();
                self.failure = Some(*error);
                self.happens(match lacks.is_empty() {
                    true => Event::Failed(run, failure),
                    false => Event::Lacks(run, lacks),
                })
            }
        }
    }

    fn task(&self, task: TaskId) -> &Task {
        &self.tasks[task.0]
    }

    /// Tells the scheduler, and does what it says.
    fn happens(&mut self, event: Event) -> Result<()> {
        for effect in self.scheduler.step(event, self.now_ms()) {
            match effect {
                Effect::Start { run, task, worker, why } => self.start(run, task, worker, why),
                Effect::Stop(run) => {
                    if let Some(stop) = self.stops.remove(&run) {
                        stop.abort();
                    }
                }
                Effect::Completed(_) => {}
                Effect::Lost(task) => {
                    self.results[task.0] = None;
                    self.again[task.0] = true;
                }
                Effect::GivenUp(task) => {
                    let task = self.task(task).name();
                    tracing::debug!(task, "a job is given up");
                    return Err(self.failure.take().expect("a job is given up for a failure"));
                }
            }
        }
        Ok(())
    }

    fn start(&mut self, run: RunId, task: TaskId, worker: WorkerId, why: Why) {
        let held =
            |of: &Fingerprint| self.results[self.places[of].0].as_ref().and_then(|result| result.held_by);
        let again = self.again[task.0];
        let task = self.task(task).clone();
        let held = task.inputs().map(|(of, _)| held(&of)).collect();
        let task = task.with(held, again);
        self.say(&task, worker, why);
        if let Why::Lost(lost) = why {
            self.recovering.insert(run, lost);
        }
        let world = self.world;
        let result = async move {
            let done = world.executor.run(worker, &task).await?;
            if let Some(result) = done.result {
                return Ok(result);
            }
            let lost = || {
                let reason = "its result is not in the dataset".to_owned();
                Box::new(BatchError::Task { task: task.name(), worker, reason, transient: true })
            };
            let found = task.find(world.dataset).await?.map(Arc::new);
            found.ok_or_else(|| TaskFailure { failure: Failure::Passing, error: lost() })
        };
        let (stop, stopped) = AbortHandle::new_pair();
        self.stops.insert(run, stop);
        let ended = Abortable::new(result, stopped).map(move |ended| (run, ended.ok()));
        self.runs.push(ended.boxed());
    }

    /// Says of a task what is out of the ordinary.
    fn say(&self, task: &Task, worker: WorkerId, why: Why) {
        let (task, source) = (task.name(), &self.world.source.name);
        match why {
            Why::Preferred | Why::Free => tracing::debug!(task, %worker, "a task begins"),
            Why::Missing => {
                metrics::record_moved(source, "missing");
                tracing::info!(task, to = %worker, "a task is done again: what it gave can't be had");
            }
            Why::Lost(lost) => {
                metrics::record_moved(source, "lost");
                tracing::info!(task, of = %lost, to = %worker, "a task goes to another node: node lost");
            }
            Why::Failed(failed) => {
                metrics::record_moved(source, "failed");
                let error = self.failure.as_ref().map(|error| chain(error));
                tracing::info!(task, of = %failed, to = %worker, error, "a task is tried again: it failed");
            }
            Why::Slow(slow) => {
                metrics::record_moved(source, "slow");
                tracing::info!(task, of = %slow, to = %worker, "a task has a twin at another node: it takes long");
            }
        }
    }

    fn tell(&self) {
        let Some(first) = self.tasks.first() else { return };
        let now_ms = self.now_ms();
        let progress = self.scheduler.progress(now_ms);
        let running = self.scheduler.running_ms(now_ms).map(|(task, worker, elapsed_ms)| RunningTask {
            task: self.task(task).name(),
            worker: worker.0,
            elapsed_ms,
        });
        let nodes = progress.workers.iter().map(|(worker, its)| {
            let WorkerProgress { done, running, waiting } = *its;
            let tasks = NodeTasks { done: done as u64, running: running as u64, waiting: waiting as u64 };
            (worker.0, tasks)
        });
        let job = BatchJob {
            version: first.version(),
            tasks: self.tasks.len() as u64,
            done: progress.done as u64,
            running: running.collect(),
            kind: first.kind(),
            views: first.view_names(),
            waiting: progress.waiting as u64,
            found: progress.found as u64,
            twins: progress.twins as u64,
            lost: progress.lost as u64,
            failed: progress.failed as u64,
            refused: progress.refused as u64,
            nodes: nodes.collect(),
            elapsed_ms: now_ms,
            remaining_ms: progress.remaining_ms,
        };
        self.world.board.post_job(&self.world.source.name, job);
    }
}

/// Takes the job off the board, however it ends: dropped, it was stopped.
struct Told<'a> {
    world: &'a World<'a>,
    outcome: JobOutcome,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.world.board.end_job(&self.world.source.name, self.outcome.clone(), now_us());
    }
}
