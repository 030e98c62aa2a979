//! The batch layer's jobs: what it works on, and what it worked on last.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// Ended jobs of one source and kind that are kept.
const ENDED_KEPT: usize = 3;

/// What a job is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// Makes a new version of a source.
    #[default]
    Advance,
    /// Computes views, which are new, from the newest-version table.
    Views,
}

/// The tasks of what the batch layer works on, while it does and drives it here. Fields may be added with a
/// default: nodes of versions next to each other tell each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchJob {
    /// The version's number.
    pub version: u64,
    /// How many tasks there are.
    pub tasks: u64,
    /// How many have their result.
    pub done: u64,
    /// Those that run now; one may run at two workers.
    pub running: Vec<RunningTask>,
    /// What it is for.
    #[serde(default)]
    pub kind: JobKind,
    /// The views that it computes or extends, by name.
    #[serde(default)]
    pub views: Vec<String>,
    /// Tasks that wait for a place.
    #[serde(default)]
    pub waiting: u64,
    /// Tasks of those done that had been done before, by a driver that is gone.
    #[serde(default)]
    pub found: u64,
    /// Runs that were begun beside another one, since that took long.
    #[serde(default)]
    pub twins: u64,
    /// Runs that were lost with their node.
    #[serde(default)]
    pub lost: u64,
    /// Runs that failed.
    #[serde(default)]
    pub failed: u64,
    /// Runs that nodes refused, as they don't know a view yet or have another version of the program.
    #[serde(default)]
    pub refused: u64,
    /// What each node has or had of it; 0 is a single node.
    #[serde(default)]
    pub nodes: BTreeMap<u16, NodeTasks>,
    /// Since it began, in milliseconds.
    #[serde(default)]
    pub elapsed_ms: u64,
    /// An estimate of what remains, in milliseconds; none before its first task has ended.
    #[serde(default)]
    pub remaining_ms: Option<u64>,
}

/// A task that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningTask {
    /// What it is.
    pub task: String,
    /// The number of the node where it runs; 0 on a single node.
    pub worker: u16,
    /// Since it began there, in milliseconds.
    #[serde(default)]
    pub elapsed_ms: u64,
}

/// A node's part of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeTasks {
    /// Tasks of which it gave the result.
    pub done: u64,
    /// Runs that it has.
    pub running: u64,
    /// Tasks that wait and would best be done there.
    pub waiting: u64,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobOutcome {
    /// All tasks have their results.
    Done,
    /// It was given up, for this error; the next run tries again.
    Failed(String),
    /// Its driver ceased to drive, or to want it.
    Stopped,
}

/// A job that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedJob {
    /// As it was last.
    pub job: BatchJob,
    /// How it ended.
    pub outcome: JobOutcome,
    /// When, in microseconds since 1970.
    pub ended_us: i64,
}

impl BatchJob {
    /// Returns the job as it is so much later, if nothing has happened meanwhile.
    fn later(&self, ms: u64) -> Self {
        let mut job = self.clone();
        job.elapsed_ms += ms;
        job.running.iter_mut().for_each(|run| run.elapsed_ms += ms);
        job.remaining_ms = job.remaining_ms.map(|left_ms| left_ms.saturating_sub(ms));
        job
    }
}

/// The jobs of one source.
#[derive(Default)]
pub(crate) struct Jobs {
    current: Option<(BatchJob, Instant)>,
    /// The newest first.
    ended: VecDeque<EndedJob>,
}

impl Jobs {
    pub(crate) fn post(&mut self, job: BatchJob) {
        self.current = Some((job, Instant::now()));
    }

    pub(crate) fn end(&mut self, outcome: JobOutcome, ended_us: i64) {
        let Some(job) = self.current() else { return };
        self.current = None;
        let kind = job.kind;
        self.ended.push_front(EndedJob { job, outcome, ended_us });
        let mut kept = 0;
        self.ended.retain(|ended| {
            kept += usize::from(ended.job.kind == kind);
            ended.job.kind != kind || kept <= ENDED_KEPT
        });
    }

    /// Returns the job under way as it is now.
    pub(crate) fn current(&self) -> Option<BatchJob> {
        let (job, posted) = self.current.as_ref()?;
        Some(job.later(u64::try_from(posted.elapsed().as_millis()).unwrap_or(u64::MAX)))
    }

    pub(crate) fn ended(&self) -> Vec<EndedJob> {
        self.ended.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(kind: JobKind, version: u64) -> BatchJob {
        BatchJob { kind, version, tasks: 1, ..BatchJob::default() }
    }

    #[test]
    fn a_job_grows_older_and_what_remains_grows_less_until_something_is_posted() {
        let running = vec![RunningTask { elapsed_ms: 10, ..RunningTask::default() }];
        let posted = BatchJob { running, elapsed_ms: 30, remaining_ms: Some(40), ..job(JobKind::Advance, 1) };
        let later = posted.later(15);
        assert_eq!((later.elapsed_ms, later.running[0].elapsed_ms, later.remaining_ms), (45, 25, Some(25)));
        assert_eq!(posted.later(50).remaining_ms, Some(0));
    }

    #[test]
    fn the_last_jobs_of_each_kind_are_kept() {
        let mut jobs = Jobs::default();
        jobs.end(JobOutcome::Stopped, 0);
        assert!(jobs.ended().is_empty(), "there was none");
        jobs.post(job(JobKind::Views, 1));
        jobs.end(JobOutcome::Failed("why".to_owned()), 1);
        for version in 2..=9 {
            jobs.post(job(JobKind::Advance, version));
            assert!(jobs.current().is_some_and(|job| job.version == version));
            jobs.end(JobOutcome::Done, version as i64);
        }
        assert_eq!(jobs.current(), None);
        let kept: Vec<_> = jobs.ended().iter().map(|ended| (ended.job.version, ended.ended_us)).collect();
        assert_eq!(kept, [(9, 9), (8, 8), (7, 7), (1, 1)]);
    }
}
