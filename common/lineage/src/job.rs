//! What is said of a job: its tasks, what happens to it, and what is to be done.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A task of a job: its place in the list that the job began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub usize);

/// Who computes: a node, or the process itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerId(pub u16);

impl std::fmt::Display for WorkerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node {}", self.0)
    }
}

/// One attempt at a task, at one worker. Numbers are not used twice in a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// A task as the scheduler knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskPlan {
    /// The worker that is to do it where that can be.
    pub prefers: Option<WorkerId>,
    /// The tasks whose results it takes, all of them before it in the list.
    pub needs: Vec<TaskId>,
}

/// Where the result of a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Where no worker takes it along.
    Safely,
    /// At this worker alone, and lost with it.
    At(WorkerId),
}

/// The scheduler's times and limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// How long a task waits for the worker that it prefers, in milliseconds, while others are free.
    pub locality_wait_ms_max: u64,
    /// Failed runs of one task after which the job is given up; also how often its result may turn out to be
    /// missing. At least 1.
    pub failures_max: u32,
    /// A run is given a twin when it takes so many times as long as half of those of its stage before it did…
    pub twin_factor: u64,
    /// … and at least so long, in milliseconds.
    pub twin_ms_min: u64,
    /// For how long a worker that refused a task is not asked again, in milliseconds, unless other workers
    /// come or go before.
    pub refusal_ms: u64,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            locality_wait_ms_max: 300,
            failures_max: 4,
            twin_factor: 3,
            twin_ms_min: 2_000,
            refusal_ms: 10_000,
        }
    }
}

/// What happens to a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// These workers are there now, and no others; each takes so many tasks at a time.
    Workers(BTreeMap<WorkerId, usize>),
    /// A task was done before the job began. Said before any worker is there.
    Found(TaskId, Held),
    /// A run has its result.
    Done(RunId, Held),
    /// A run has none.
    Failed(RunId, Failure),
    /// A run has none, since it could not get the results of these tasks, which it needs.
    Lacks(RunId, Vec<TaskId>),
    /// Nobody wants the job's results any longer.
    Cancel,
    /// Time has passed.
    Tick,
}

/// What a failed run says of its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Another run may succeed, best at another worker.
    Passing,
    /// No run will.
    Final,
    /// This worker can't do it as it stands, as it does not know a view yet: that says nothing of the task.
    /// Where all workers refuse one, the job is given up.
    Unable,
}

/// Why a run is started where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The task prefers this worker.
    Preferred,
    /// The worker that the task prefers is not there, or had no slot for long enough.
    Free,
    /// The worker that ran the task, or had its result, is gone.
    Lost(WorkerId),
    /// The result that the task had can't be had any longer.
    Missing,
    /// A run at that worker failed.
    Failed(WorkerId),
    /// The run at that worker takes longer than others did.
    Slow(WorkerId),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start a run.
    Start {
        /// Its number.
        run: RunId,
        /// The task.
        task: TaskId,
        /// Where.
        worker: WorkerId,
        /// Why there.
        why: Why,
    },
    /// Stop a run; what comes of it is passed over.
    Stop(RunId),
    /// A task has its result, that of the run that has just been done.
    Completed(TaskId),
    /// A task has its result no longer, and is done again.
    Lost(TaskId),
    /// A task failed too often, or for good, or its result was missing too often: the job is over.
    GivenUp(TaskId),
}
