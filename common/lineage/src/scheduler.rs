//! The scheduler of one job: brings tasks to workers, and makes up for what is slow, fails or is lost.
//!
//! Promised, whatever happens in whatever order:
//! - a task is completed once; of several runs of it the first result wins, and the others are stopped;
//! - no worker is given more than it has slots for, nor two runs of one task;
//! - no task waits while a worker that would do has a free slot, for longer than locality is worth;
//! - a worker that refused a task is not asked again before it may have changed, and that is no failure;
//! - a job that is given up or cancelled has no runs and starts none.
//!
//! Not promised: that a worker who was told to stop has stopped.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::progress::Tally;

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

/// The scheduler's times and limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// How long a task waits for the worker that it prefers, in milliseconds, while others are free.
    pub locality_wait_ms_max: u64,
    /// Failed runs of one task after which the job is given up. At least 1.
    pub failures_max: u32,
    /// A run is given a twin when it takes so many times as long as half of those before it did…
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
    /// A run has its result.
    Done(RunId),
    /// A run has none.
    Failed(RunId, Failure),
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
    /// The worker that ran the task is gone.
    Lost(WorkerId),
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
    /// A task failed too often, or for good: the job is over.
    GivenUp(TaskId),
}

#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) preferred: Option<WorkerId>,
    /// Who gave its result.
    pub(crate) done_by: Option<WorkerId>,
    /// Since when it waits to be started, while it does.
    ready_ms: u64,
    failures: u32,
    /// Where it failed, which is where it goes last.
    avoids: BTreeSet<WorkerId>,
    /// Who refused it, and until when it is not asked again.
    refused: BTreeMap<WorkerId, u64>,
    /// What became of the run before.
    after: Option<Why>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) task: TaskId,
    pub(crate) worker: WorkerId,
    pub(crate) started_ms: u64,
}

/// The scheduler of one job.
#[derive(Clone, Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    pub(crate) tasks: Vec<Task>,
    pub(crate) workers: BTreeMap<WorkerId, usize>,
    pub(crate) runs: BTreeMap<RunId, Run>,
    next_run: u64,
    /// How long the runs that gave results took, in order of length.
    pub(crate) took_ms: Vec<u64>,
    pub(crate) tally: Tally,
    is_over: bool,
}

impl Scheduler {
    /// Begins a job; each task with the worker that it prefers. No worker is there yet.
    pub fn new(config: SchedulerConfig, preferred: Vec<Option<WorkerId>>, now_ms: u64) -> Self {
        let task = |preferred| Task {
            preferred,
            done_by: None,
            ready_ms: now_ms,
            failures: 0,
            avoids: BTreeSet::new(),
            refused: BTreeMap::new(),
            after: None,
        };
        Self {
            config,
            tasks: preferred.into_iter().map(task).collect(),
            workers: BTreeMap::new(),
            runs: BTreeMap::new(),
            next_run: 0,
            took_ms: Vec::new(),
            tally: Tally::default(),
            is_over: false,
        }
    }

    /// Takes what happened; returns what is to be done, in order. `now_ms` never goes back. What
    /// is said of runs that were stopped, or never were, is passed over.
    pub fn step(&mut self, event: Event, now_ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Workers(workers) => self.take_workers(workers, now_ms, &mut effects),
            Event::Done(run) => self.finish(run, now_ms, &mut effects),
            Event::Failed(run, failure) => self.fail(run, failure, now_ms, &mut effects),
            Event::Cancel => self.end(&mut effects),
            Event::Tick => {}
        }
        if !self.is_over {
            self.start_ready(now_ms, &mut effects);
            self.start_twins(now_ms, &mut effects);
        }
        effects
    }

    /// Says whether every task has its result.
    pub fn is_done(&self) -> bool {
        self.tasks.iter().all(|task| task.done_by.is_some())
    }

    /// Returns the runs under way: which task, where.
    pub fn runs(&self) -> impl Iterator<Item = (RunId, TaskId, WorkerId)> + '_ {
        self.runs.iter().map(|(id, run)| (*id, run.task, run.worker))
    }

    /// Returns when a [`Event::Tick`] may change something, if nothing else happens before.
    pub fn due_ms(&self, now_ms: u64) -> Option<u64> {
        if self.is_over || self.free().next().is_none() {
            return None;
        }
        let waits = self.ready().flat_map(|task| {
            let refused = self.tasks[task.0].refused.values().copied();
            refused.chain([self.patient_until_ms(task)])
        });
        let slow = self.slow_after_ms();
        let alone = self.runs.values().filter(|run| self.runs_of(run.task).count() == 1);
        let twins = alone.filter_map(|run| Some(run.started_ms + slow?));
        waits.chain(twins).filter(|due_ms| *due_ms > now_ms).min()
    }

    fn take_workers(&mut self, workers: BTreeMap<WorkerId, usize>, now_ms: u64, effects: &mut Vec<Effect>) {
        self.workers = workers;
        // Whoever refused a task may be another one now.
        self.tasks.iter_mut().for_each(|task| task.refused.clear());
        let lost = self.runs.iter().filter(|(_, run)| !self.workers.contains_key(&run.worker));
        let lost: Vec<RunId> = lost.map(|(id, _)| *id).collect();
        for id in lost {
            let Some(run) = self.runs.remove(&id) else { continue };
            effects.push(Effect::Stop(id));
            self.tally.lost += 1;
            self.make_ready(run.task, Why::Lost(run.worker), now_ms);
        }
    }

    fn finish(&mut self, id: RunId, now_ms: u64, effects: &mut Vec<Effect>) {
        let Some(run) = self.runs.remove(&id) else { return };
        let took_ms = now_ms.saturating_sub(run.started_ms);
        let at = self.took_ms.partition_point(|before| *before <= took_ms);
        self.took_ms.insert(at, took_ms);
        self.tasks[run.task.0].done_by = Some(run.worker);
        let others: Vec<RunId> = self.runs_of(run.task).collect();
        for other in others {
            self.runs.remove(&other);
            effects.push(Effect::Stop(other));
        }
        effects.push(Effect::Completed(run.task));
        self.is_over = self.is_done();
    }

    fn fail(&mut self, id: RunId, failure: Failure, now_ms: u64, effects: &mut Vec<Effect>) {
        let Some(run) = self.runs.remove(&id) else { return };
        let task = &mut self.tasks[run.task.0];
        let is_hopeless = match failure {
            Failure::Final => true,
            Failure::Passing => {
                task.failures += 1;
                task.avoids.insert(run.worker);
                task.failures >= self.config.failures_max
            }
            Failure::Unable => {
                task.refused.insert(run.worker, now_ms + self.config.refusal_ms);
                self.workers.keys().all(|worker| !self.is_asked(run.task, *worker, now_ms))
            }
        };
        match failure {
            Failure::Unable => self.tally.refused += 1,
            Failure::Passing | Failure::Final => self.tally.failed += 1,
        }
        let has_twin = self.runs_of(run.task).next().is_some();
        if failure == Failure::Final || (is_hopeless && !has_twin) {
            effects.push(Effect::GivenUp(run.task));
            self.end(effects);
            return;
        }
        self.make_ready(run.task, Why::Failed(run.worker), now_ms);
    }

    /// Ends the job as it is.
    fn end(&mut self, effects: &mut Vec<Effect>) {
        effects.extend(std::mem::take(&mut self.runs).into_keys().map(Effect::Stop));
        self.is_over = true;
    }

    /// A task that a run of was lost begins to wait, unless it has another one.
    fn make_ready(&mut self, task: TaskId, after: Why, now_ms: u64) {
        if self.runs_of(task).next().is_none() {
            let task = &mut self.tasks[task.0];
            task.ready_ms = now_ms;
            task.after = Some(after);
        }
    }

    fn start_ready(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let ready: Vec<TaskId> = self.ready().collect();
        for task in ready {
            if let Some(worker) = self.place(task, now_ms) {
                let prefers = self.tasks[task.0].preferred == Some(worker);
                let why = if prefers { Why::Preferred } else { Why::Free };
                let why = self.tasks[task.0].after.unwrap_or(why);
                self.start(task, worker, why, now_ms, effects);
            }
        }
    }

    fn start_twins(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let Some(slow_ms) = self.slow_after_ms() else { return };
        let slow = self.runs.values().filter(|run| now_ms >= run.started_ms + slow_ms);
        let slow: Vec<Run> = slow.copied().collect();
        for run in slow {
            let is_alone = self.runs_of(run.task).count() == 1;
            let avoids = &self.tasks[run.task.0].avoids;
            let would_do = |worker: &WorkerId| {
                *worker != run.worker && !avoids.contains(worker) && self.is_asked(run.task, *worker, now_ms)
            };
            let others = self.free().filter(|(worker, _)| would_do(worker));
            if let Some(worker) = freest(others).filter(|_| is_alone) {
                self.start(run.task, worker, Why::Slow(run.worker), now_ms, effects);
            }
        }
    }

    fn start(&mut self, task: TaskId, worker: WorkerId, why: Why, now_ms: u64, effects: &mut Vec<Effect>) {
        self.tally.begins(why);
        let run = RunId(self.next_run);
        self.next_run += 1;
        self.runs.insert(run, Run { task, worker, started_ms: now_ms });
        effects.push(Effect::Start { run, task, worker, why });
    }

    /// Says where a task that waits starts now, if anywhere.
    fn place(&self, task: TaskId, now_ms: u64) -> Option<WorkerId> {
        let Task { preferred, avoids, .. } = &self.tasks[task.0];
        let is_patient = now_ms < self.patient_until_ms(task);
        let is_asked = |worker: &WorkerId| self.is_asked(task, *worker, now_ms);
        let would_do = |worker: &WorkerId| !avoids.contains(worker) && is_asked(worker);
        if let Some(preferred) =
            preferred.filter(|worker| self.workers.contains_key(worker) && would_do(worker))
        {
            if self.free().any(|(worker, _)| worker == preferred) {
                return Some(preferred);
            }
            if is_patient {
                return None;
            }
        }
        let better = freest(self.free().filter(|(worker, _)| would_do(worker)));
        if better.is_some() || (is_patient && self.workers.keys().any(would_do)) {
            return better;
        }
        freest(self.free().filter(|(worker, _)| is_asked(worker)))
    }

    /// Says whether a worker has not refused a task a moment ago.
    fn is_asked(&self, task: TaskId, worker: WorkerId, now_ms: u64) -> bool {
        self.tasks[task.0].refused.get(&worker).is_none_or(|until_ms| now_ms >= *until_ms)
    }

    fn patient_until_ms(&self, task: TaskId) -> u64 {
        self.tasks[task.0].ready_ms + self.config.locality_wait_ms_max
    }

    /// Returns how long a run may take before it is called slow; none while nothing is known.
    fn slow_after_ms(&self) -> Option<u64> {
        let usual_ms = self.took_ms.get(self.took_ms.len() / 2)?;
        Some(usual_ms.saturating_mul(self.config.twin_factor).max(self.config.twin_ms_min))
    }

    /// Returns the tasks that wait to be started, in order.
    pub(crate) fn ready(&self) -> impl Iterator<Item = TaskId> + '_ {
        let all = self.tasks.iter().enumerate().map(|(id, task)| (TaskId(id), task));
        all.filter(|(id, task)| task.done_by.is_none() && self.runs_of(*id).next().is_none())
            .map(|(id, _)| id)
    }

    fn runs_of(&self, task: TaskId) -> impl Iterator<Item = RunId> + '_ {
        self.runs.iter().filter(move |(_, run)| run.task == task).map(|(id, _)| *id)
    }

    /// Returns the workers that have slots free, with how many.
    fn free(&self) -> impl Iterator<Item = (WorkerId, usize)> + '_ {
        let taken = |worker| self.runs.values().filter(|run| run.worker == worker).count();
        let free =
            self.workers.iter().map(move |(worker, slots)| (*worker, slots.saturating_sub(taken(*worker))));
        free.filter(|(_, free)| *free > 0)
    }
}

/// Returns the worker with the most free slots; of equal ones the first.
fn freest(free: impl Iterator<Item = (WorkerId, usize)>) -> Option<WorkerId> {
    free.max_by(|(a, free_a), (b, free_b)| free_a.cmp(free_b).then(b.cmp(a))).map(|(worker, _)| worker)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: SchedulerConfig = SchedulerConfig {
        locality_wait_ms_max: 100,
        failures_max: 3,
        twin_factor: 3,
        twin_ms_min: 50,
        refusal_ms: 1_000,
    };

    fn workers(slots: &[(u16, usize)]) -> Event {
        Event::Workers(slots.iter().map(|(worker, slots)| (WorkerId(*worker), *slots)).collect())
    }

    fn job(preferred: &[u16]) -> Scheduler {
        Scheduler::new(CONFIG, preferred.iter().map(|worker| Some(WorkerId(*worker))).collect(), 0)
    }

    /// Steps, and tells the effects in short.
    fn step(scheduler: &mut Scheduler, event: Event, now_ms: u64) -> Vec<String> {
        let say = |effect: &Effect| match effect {
            Effect::Start { run, task, worker, why } => {
                let why = match why {
                    Why::Preferred => String::new(),
                    Why::Free => ", free".to_owned(),
                    Why::Lost(WorkerId(lost)) => format!(", {lost} lost"),
                    Why::Failed(WorkerId(failed)) => format!(", {failed} failed"),
                    Why::Slow(WorkerId(slow)) => format!(", {slow} slow"),
                };
                format!("run {}: {} at {}{why}", run.0, task.0, worker.0)
            }
            Effect::Stop(run) => format!("stop {}", run.0),
            Effect::Completed(task) => format!("completed {}", task.0),
            Effect::GivenUp(task) => format!("given up {}", task.0),
        };
        scheduler.step(event, now_ms).iter().map(say).collect()
    }

    #[test]
    fn a_task_waits_for_the_worker_that_it_prefers_but_not_for_long() {
        let mut job = job(&[1, 1, 2]);
        assert_eq!(step(&mut job, workers(&[(1, 1), (2, 2)]), 0), ["run 0: 0 at 1", "run 1: 2 at 2"]);
        assert_eq!(job.due_ms(0), Some(100));
        assert!(step(&mut job, Event::Tick, 99).is_empty());
        assert_eq!(step(&mut job, Event::Tick, 100), ["run 2: 1 at 2, free"]);
    }

    #[test]
    fn a_task_that_lost_its_worker_waits_again_for_the_one_that_it_prefers() {
        let mut job = job(&[1, 1]);
        step(&mut job, workers(&[(1, 1), (2, 1)]), 0);
        assert_eq!(step(&mut job, Event::Tick, 100), ["run 1: 1 at 2, free"]);
        assert_eq!(step(&mut job, workers(&[(1, 1), (3, 1)]), 200), ["stop 1"]);
        assert_eq!(step(&mut job, Event::Tick, 300), ["run 2: 1 at 3, 2 lost"]);
    }

    #[test]
    fn a_task_whose_worker_is_not_there_starts_elsewhere_at_once() {
        assert_eq!(step(&mut job(&[7]), workers(&[(1, 1), (2, 2)]), 0), ["run 0: 0 at 2, free"]);
    }

    #[test]
    fn what_a_lost_worker_ran_goes_elsewhere_and_is_no_failure() {
        let mut job = job(&[1]);
        step(&mut job, workers(&[(1, 1)]), 0);
        for lost in 0..10 {
            assert_eq!(step(&mut job, workers(&[]), 10), [format!("stop {lost}")]);
            assert_eq!(
                step(&mut job, workers(&[(2, 1)]), 10),
                [format!("run {}: 0 at 2, {} lost", lost + 1, if lost == 0 { 1 } else { 2 })]
            );
        }
        assert_eq!(step(&mut job, Event::Done(RunId(10)), 20), ["completed 0"]);
        assert!(job.is_done());
    }

    #[test]
    fn a_run_that_takes_far_longer_than_others_is_given_a_twin_and_the_first_result_wins() {
        let mut job = job(&[1, 2, 3]);
        step(&mut job, workers(&[(1, 1), (2, 1), (3, 1)]), 0);
        assert_eq!(step(&mut job, Event::Done(RunId(0)), 40), ["completed 0"]);
        assert_eq!(step(&mut job, Event::Done(RunId(1)), 41), ["completed 1"]);
        assert_eq!(job.due_ms(41), Some(123), "three times as long as the slower of both");
        assert!(step(&mut job, Event::Tick, 122).is_empty());
        assert_eq!(step(&mut job, Event::Tick, 123), ["run 3: 2 at 1, 3 slow"]);
        assert_eq!(step(&mut job, Event::Tick, 500), [""; 0], "one twin is enough");
        let mut other = job.clone();
        assert_eq!(step(&mut job, Event::Done(RunId(3)), 501), ["stop 2", "completed 2"]);
        assert!(step(&mut job, Event::Done(RunId(2)), 502).is_empty());
        assert_eq!(step(&mut other, Event::Done(RunId(2)), 501), ["stop 3", "completed 2"]);
    }

    #[test]
    fn a_failed_run_is_tried_again_elsewhere_up_to_a_bound() {
        let mut job = job(&[1]);
        let fail = |run| Event::Failed(RunId(run), Failure::Passing);
        step(&mut job, workers(&[(1, 1), (2, 1)]), 0);
        assert_eq!(step(&mut job, fail(0), 1), ["run 1: 0 at 2, 1 failed"]);
        assert_eq!(step(&mut job, fail(1), 2), ["run 2: 0 at 1, 2 failed"], "when it failed everywhere");
        assert_eq!(step(&mut job, fail(2), 3), ["given up 0"]);
        assert!(step(&mut job, workers(&[(3, 1)]), 4).is_empty());
    }

    #[test]
    fn a_task_that_failed_waits_a_while_for_a_worker_where_it_did_not() {
        let mut job = job(&[1, 2]);
        step(&mut job, workers(&[(1, 1), (2, 1)]), 0);
        assert!(step(&mut job, Event::Failed(RunId(0), Failure::Passing), 10).is_empty());
        assert_eq!(step(&mut job, Event::Tick, 110), ["run 2: 0 at 1, 1 failed"]);
    }

    #[test]
    fn a_final_failure_ends_the_job_at_once() {
        let mut job = job(&[1, 2]);
        step(&mut job, workers(&[(1, 1), (2, 1)]), 0);
        assert_eq!(step(&mut job, Event::Failed(RunId(1), Failure::Final), 1), ["given up 1", "stop 0"]);
        assert!(step(&mut job, Event::Done(RunId(0)), 2).is_empty() && !job.is_done());
    }

    #[test]
    fn a_cancelled_job_stops_and_starts_nothing() {
        let mut job = job(&[1, 1, 1]);
        step(&mut job, workers(&[(1, 2)]), 0);
        assert_eq!(step(&mut job, Event::Cancel, 1), ["stop 0", "stop 1"]);
        assert!(step(&mut job, workers(&[(1, 9)]), 2).is_empty());
        assert_eq!(job.due_ms(3), None);
    }

    #[test]
    fn workers_that_refuse_a_task_are_no_failures_of_it_and_are_not_asked_for_a_while() {
        let mut job = job(&[1]);
        let refuse = |run| Event::Failed(RunId(run), Failure::Unable);
        step(&mut job, workers(&[(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]), 0);
        // More of them than a task may fail.
        for (run, next) in [(0, 2), (1, 3), (2, 4), (3, 5)] {
            assert_eq!(
                step(&mut job, refuse(run), 0),
                [format!("run {}: 0 at {next}, {} failed", run + 1, next - 1)]
            );
        }
        let failed = Event::Failed(RunId(4), Failure::Passing);
        assert_eq!(step(&mut job, failed, 1), ["run 5: 0 at 5, 5 failed"], "there is nobody else to ask");
        assert_eq!(step(&mut job, Event::Done(RunId(5)), 200), ["completed 0"]);
    }

    #[test]
    fn a_worker_that_refused_is_asked_again_later_or_when_workers_change() {
        let mut job = job(&[1, 1]);
        step(&mut job, workers(&[(1, 2), (2, 0)]), 0);
        let refused = Event::Failed(RunId(0), Failure::Unable);
        assert!(step(&mut job, refused, 1).is_empty());
        let mut other = job.clone();
        assert_eq!(job.due_ms(101), Some(1_001));
        assert!(step(&mut job, Event::Tick, 1_000).is_empty());
        assert_eq!(step(&mut job, Event::Tick, 1_001), ["run 2: 0 at 1, 1 failed"]);
        assert_eq!(step(&mut other, workers(&[(1, 2)]), 2), ["run 2: 0 at 1, 1 failed"]);
    }

    #[test]
    fn a_task_that_all_refuse_ends_the_job() {
        let mut job = job(&[1]);
        step(&mut job, workers(&[(1, 1), (2, 1)]), 0);
        step(&mut job, Event::Failed(RunId(0), Failure::Unable), 1);
        assert_eq!(step(&mut job, Event::Failed(RunId(1), Failure::Unable), 2), ["given up 0"]);
    }
}
