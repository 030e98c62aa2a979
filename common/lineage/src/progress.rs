//! How far a job is, and what is left of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::job::{TaskId, Why, WorkerId};
use crate::scheduler::Scheduler;

/// How far a job is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// All tasks.
    pub tasks: usize,
    /// Tasks that have their result.
    pub done: usize,
    /// Those of them whose result was there before the job began.
    pub found: usize,
    /// Tasks that run, somewhere.
    pub running: usize,
    /// Tasks that are still to be done and don't run. One that nobody needs any longer is neither done nor waits.
    pub waiting: usize,
    /// Runs that were begun beside another one, since that took long.
    pub twins: usize,
    /// Runs that were lost with their worker.
    pub lost: usize,
    /// Runs that failed.
    pub failed: usize,
    /// Runs that were refused by workers that can't do the task as they stand.
    pub refused: usize,
    /// The part of each worker that has or had one.
    pub workers: BTreeMap<WorkerId, WorkerProgress>,
    /// An estimate of what remains, in milliseconds: none before the first task of the job has ended.
    pub remaining_ms: Option<u64>,
}

/// A worker's part of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerProgress {
    /// Tasks of which it gave the result.
    pub done: usize,
    /// Runs that it has.
    pub running: usize,
    /// Tasks that wait and would best be done there.
    pub waiting: usize,
}

/// What became of the runs of a job so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) twins: usize,
    pub(crate) lost: usize,
    pub(crate) failed: usize,
    pub(crate) refused: usize,
}

impl Tally {
    pub(crate) fn begins(&mut self, why: Why) {
        self.twins += usize::from(matches!(why, Why::Slow(_)));
    }
}

impl Scheduler {
    /// Returns how far the job is.
    pub fn progress(&self, now_ms: u64) -> Progress {
        let running = self.running();
        let mut workers: BTreeMap<WorkerId, WorkerProgress> = BTreeMap::new();
        for run in self.runs.values() {
            workers.entry(run.worker).or_default().running += 1;
        }
        for worker in self.tasks.iter().filter_map(|task| task.done_by) {
            workers.entry(worker).or_default().done += 1;
        }
        let waiting = self.waiting();
        for task in &waiting {
            let prefers = self.tasks[task.0].plan.prefers;
            if let Some(worker) = prefers.filter(|at| self.workers.contains_key(at)) {
                workers.entry(worker).or_default().waiting += 1;
            }
        }
        let done = self.tasks.iter().filter(|task| task.result.is_some());
        let found = done.clone().filter(|task| task.done_by.is_none()).count();
        Progress {
            tasks: self.tasks.len(),
            done: done.count(),
            found,
            running: running.len(),
            waiting: waiting.len(),
            twins: self.tally.twins,
            lost: self.tally.lost,
            failed: self.tally.failed,
            refused: self.tally.refused,
            workers,
            remaining_ms: self.remaining_ms(now_ms),
        }
    }

    /// Returns how long each run has taken so far, in milliseconds.
    pub fn running_ms(&self, now_ms: u64) -> impl Iterator<Item = (TaskId, WorkerId, u64)> + '_ {
        self.runs.values().map(move |run| (run.task, run.worker, now_ms.saturating_sub(run.started_ms)))
    }

    fn running(&self) -> BTreeSet<TaskId> {
        self.runs.values().map(|run| run.task).collect()
    }

    /// Returns the tasks that are still to be done and don't run, whether they could or not.
    fn waiting(&self) -> Vec<TaskId> {
        let (running, open) = (self.running(), self.open());
        let open = open.into_iter().enumerate().filter(|(_, is_open)| *is_open);
        open.map(|(id, _)| TaskId(id)).filter(|task| !running.contains(task)).collect()
    }

    /// Estimates what remains: a task takes as long as those of its stage did on average, or any where none of that
    /// has ended; all places are used, and a run that takes longer is about to end.
    fn remaining_ms(&self, now_ms: u64) -> Option<u64> {
        let mean_ms = |took_ms: &[u64]| took_ms.iter().sum::<u64>().checked_div(took_ms.len() as u64);
        let of_any = mean_ms(&self.took_ms.values().flatten().copied().collect::<Vec<_>>())?;
        let of_stage: BTreeMap<usize, u64> =
            self.took_ms.iter().filter_map(|(stage, took_ms)| Some((*stage, mean_ms(took_ms)?))).collect();
        let usual_ms = |task: TaskId| *of_stage.get(&self.tasks[task.0].stage).unwrap_or(&of_any);
        let mut left: BTreeMap<TaskId, u64> = BTreeMap::new();
        for (task, _, so_far_ms) in self.running_ms(now_ms) {
            let left_ms = usual_ms(task).saturating_sub(so_far_ms);
            // Of twins the first one to end counts.
            left.entry(task).and_modify(|least| *least = left_ms.min(*least)).or_insert(left_ms);
        }
        left.extend(self.waiting().into_iter().map(|task| (task, usual_ms(task))));
        let longest_ms = left.values().copied().max().unwrap_or(0);
        let places = self.workers.values().sum::<usize>().min(left.len()).max(1);
        Some(longest_ms.max(left.values().sum::<u64>().div_ceil(places as u64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Event, Failure, Held, RunId, SchedulerConfig, TaskPlan};

    fn job(preferred: &[u16], workers: &[(u16, usize)]) -> Scheduler {
        let config = SchedulerConfig { twin_ms_min: 50, ..SchedulerConfig::default() };
        let plan = |worker: &u16| TaskPlan { prefers: Some(WorkerId(*worker)), needs: Vec::new() };
        let mut job = Scheduler::new(config, preferred.iter().map(plan).collect(), 0);
        job.step(there(workers), 0);
        job
    }

    fn there(workers: &[(u16, usize)]) -> Event {
        Event::Workers(workers.iter().map(|(worker, slots)| (WorkerId(*worker), *slots)).collect())
    }

    fn of(job: &Scheduler, worker: u16) -> (usize, usize, usize) {
        let WorkerProgress { done, running, waiting } = job.progress(0).workers[&WorkerId(worker)];
        (done, running, waiting)
    }

    #[test]
    fn progress_tells_tasks_not_runs_and_what_each_worker_has() {
        let mut job = job(&[1, 2, 1], &[(1, 1), (2, 1)]);
        let progress = job.progress(0);
        assert_eq!((progress.done, progress.running, progress.tasks), (0, 2, 3));
        assert_eq!((of(&job, 1), of(&job, 2)), ((0, 1, 1), (0, 1, 0)));
        job.step(Event::Done(RunId(0), Held::Safely), 1);
        let progress = job.progress(1);
        assert_eq!((progress.done, progress.running, progress.tasks), (1, 2, 3));
        assert_eq!((of(&job, 1), of(&job, 2)), ((1, 1, 0), (0, 1, 0)));
        assert_eq!(
            job.running_ms(5).collect::<Vec<_>>(),
            [(TaskId(1), WorkerId(2), 5), (TaskId(2), WorkerId(1), 4)]
        );
    }

    #[test]
    fn what_was_lost_failed_refused_or_doubled_is_counted() {
        let mut job = job(&[1, 2], &[(1, 1), (2, 1), (3, 1)]);
        job.step(Event::Failed(RunId(0), Failure::Passing), 0);
        job.step(Event::Failed(RunId(1), Failure::Unable), 0);
        job.step(there(&[(3, 1), (4, 1)]), 300);
        let running: Vec<RunId> = job.runs().map(|(run, ..)| run).collect();
        job.step(Event::Done(running[0], Held::Safely), 310);
        job.step(Event::Tick, 2_000);
        let Progress { twins, lost, failed, refused, .. } = job.progress(2_000);
        assert_eq!((failed, refused), (1, 1));
        assert_eq!((lost, twins), (1, 1), "one was at worker 1, the other went to 3");
    }

    #[test]
    fn what_remains_is_unknown_until_a_task_has_ended_and_then_falls_to_nothing() {
        let mut job = job(&[1, 1, 1, 1, 1], &[(1, 2)]);
        assert_eq!(job.progress(5).remaining_ms, None);
        job.step(Event::Done(RunId(0), Held::Safely), 10);
        // Three wait at 10 ms each, one has just begun and one is as old as the first: 30 to 40 ms of work in two places.
        assert_eq!(job.progress(10).remaining_ms, Some(15));
        assert_eq!(job.progress(14).remaining_ms, Some(13), "time passes");
        job.step(Event::Done(RunId(1), Held::Safely), 10);
        job.step(Event::Done(RunId(2), Held::Safely), 20);
        job.step(Event::Done(RunId(3), Held::Safely), 20);
        assert_eq!(job.progress(20).remaining_ms, Some(10), "one task is not divided");
        assert_eq!(job.progress(90).remaining_ms, Some(0), "it is late");
        job.step(Event::Done(RunId(4), Held::Safely), 90);
        assert_eq!(job.progress(90).remaining_ms, Some(0));
    }

    /// Two tasks, and one that needs both, of which some were found; with one worker for one at a time.
    fn staged(found: &[usize]) -> Scheduler {
        let second = TaskPlan { prefers: None, needs: vec![TaskId(0), TaskId(1)] };
        let plans = vec![TaskPlan::default(), TaskPlan::default(), second];
        let mut job = Scheduler::new(SchedulerConfig::default(), plans, 0);
        for task in found {
            job.step(Event::Found(TaskId(*task), Held::Safely), 0);
        }
        job.step(there(&[(1, 1)]), 0);
        job
    }

    #[test]
    fn what_was_found_is_done_and_what_nobody_needs_does_not_wait() {
        let counts = |job: &Scheduler| {
            let Progress { done, found, running, waiting, .. } = job.progress(0);
            (done, found, running, waiting)
        };
        assert_eq!(counts(&staged(&[0])), (1, 1, 1, 1));
        assert_eq!(counts(&staged(&[2])), (1, 1, 0, 0));
    }

    #[test]
    fn a_stage_that_is_to_come_counts_and_is_told_by_its_own_as_soon_as_that_can_be() {
        let mut job = staged(&[]);
        job.step(Event::Done(RunId(0), Held::Safely), 10);
        assert_eq!(job.progress(10).remaining_ms, Some(20), "one runs, and one waits for it");
        job.step(Event::Done(RunId(1), Held::At(WorkerId(1))), 20);
        job.step(Event::Done(RunId(2), Held::Safely), 100);
        assert_eq!(job.progress(100).remaining_ms, Some(0));
    }
}
