//! The scheduler of one job: brings tasks to workers, and makes up for what is slow, fails or is lost.
//!
//! Promised, whatever happens in whatever order:
//! - a task is completed once; of several runs of it the first result wins, and the others are stopped;
//! - no worker is given more than it has slots for, nor two runs of one task;
//! - no task waits while a worker that would do has a free slot, for longer than locality is worth;
//! - a job that is given up or cancelled has no runs and starts none.
//!
//! Not promised: that a worker who was told to stop has stopped.

use std::collections::{BTreeMap, BTreeSet};

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
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self { locality_wait_ms_max: 300, failures_max: 4, twin_factor: 3, twin_ms_min: 2_000 }
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

/// How far a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tasks that have their result.
    pub done: usize,
    /// Tasks that run, somewhere.
    pub running: usize,
    /// All tasks.
    pub tasks: usize,
}

#[derive(Clone, Debug)]
struct Task {
    preferred: Option<WorkerId>,
    is_done: bool,
    /// Since when it waits to be started, while it does.
    ready_ms: u64,
    failures: u32,
    /// Where it failed, which is where it goes last.
    avoids: BTreeSet<WorkerId>,
    /// What became of the run before.
    after: Option<Why>,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    task: TaskId,
    worker: WorkerId,
    started_ms: u64,
}

/// The scheduler of one job.
#[derive(Clone, Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    tasks: Vec<Task>,
    workers: BTreeMap<WorkerId, usize>,
    runs: BTreeMap<RunId, Run>,
    next_run: u64,
    /// How long the runs that gave results took, in order of length.
    took_ms: Vec<u64>,
    is_over: bool,
}

impl Scheduler {
    /// Begins a job; each task with the worker that it prefers. No worker is there yet.
    pub fn new(config: SchedulerConfig, preferred: Vec<Option<WorkerId>>, now_ms: u64) -> Self {
        let task = |preferred| Task {
            preferred,
            is_done: false,
            ready_ms: now_ms,
            failures: 0,
            avoids: BTreeSet::new(),
            after: None,
        };
        Self {
            config,
            tasks: preferred.into_iter().map(task).collect(),
            workers: BTreeMap::new(),
            runs: BTreeMap::new(),
            next_run: 0,
            took_ms: Vec::new(),
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
        self.tasks.iter().all(|task| task.is_done)
    }

    /// Returns how far the job is.
    pub fn counts(&self) -> Counts {
        let running: BTreeSet<TaskId> = self.runs.values().map(|run| run.task).collect();
        let done = self.tasks.iter().filter(|task| task.is_done).count();
        Counts { done, running: running.len(), tasks: self.tasks.len() }
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
        let waits = self.ready().map(|task| self.patient_until_ms(task));
        let slow = self.slow_after_ms();
        let alone = self.runs.values().filter(|run| self.runs_of(run.task).count() == 1);
        let twins = alone.filter_map(|run| Some(run.started_ms + slow?));
        waits.chain(twins).filter(|due_ms| *due_ms > now_ms).min()
    }

    fn take_workers(&mut self, workers: BTreeMap<WorkerId, usize>, now_ms: u64, effects: &mut Vec<Effect>) {
        self.workers = workers;
        let lost = self.runs.iter().filter(|(_, run)| !self.workers.contains_key(&run.worker));
        let lost: Vec<RunId> = lost.map(|(id, _)| *id).collect();
        for id in lost {
            let Some(run) = self.runs.remove(&id) else { continue };
            effects.push(Effect::Stop(id));
            self.make_ready(run.task, Why::Lost(run.worker), now_ms);
        }
    }

    fn finish(&mut self, id: RunId, now_ms: u64, effects: &mut Vec<Effect>) {
        let Some(run) = self.runs.remove(&id) else { return };
        let took_ms = now_ms.saturating_sub(run.started_ms);
        let at = self.took_ms.partition_point(|before| *before <= took_ms);
        self.took_ms.insert(at, took_ms);
        self.tasks[run.task.0].is_done = true;
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
        task.failures += 1;
        task.avoids.insert(run.worker);
        let too_often = task.failures >= self.config.failures_max && self.runs_of(run.task).next().is_none();
        if failure == Failure::Final || too_often {
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
            let others = self.free().filter(|(worker, _)| *worker != run.worker && !avoids.contains(worker));
            if let Some(worker) = freest(others).filter(|_| is_alone) {
                self.start(run.task, worker, Why::Slow(run.worker), now_ms, effects);
            }
        }
    }

    fn start(&mut self, task: TaskId, worker: WorkerId, why: Why, now_ms: u64, effects: &mut Vec<Effect>) {
        let run = RunId(self.next_run);
        self.next_run += 1;
        self.runs.insert(run, Run { task, worker, started_ms: now_ms });
        effects.push(Effect::Start { run, task, worker, why });
    }

    /// Says where a task that waits starts now, if anywhere.
    fn place(&self, task: TaskId, now_ms: u64) -> Option<WorkerId> {
        let Task { preferred, avoids, .. } = &self.tasks[task.0];
        let is_patient = now_ms < self.patient_until_ms(task);
        let would_do = |worker: &WorkerId| !avoids.contains(worker);
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
        freest(self.free())
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
    fn ready(&self) -> impl Iterator<Item = TaskId> + '_ {
        let all = self.tasks.iter().enumerate().map(|(id, task)| (TaskId(id), task));
        all.filter(|(id, task)| !task.is_done && self.runs_of(*id).next().is_none()).map(|(id, _)| id)
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

    const CONFIG: SchedulerConfig =
        SchedulerConfig { locality_wait_ms_max: 100, failures_max: 3, twin_factor: 3, twin_ms_min: 50 };

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
    fn counts_tell_tasks_not_runs() {
        let mut job = job(&[1, 2, 1]);
        step(&mut job, workers(&[(1, 1), (2, 1)]), 0);
        assert_eq!(job.counts(), Counts { done: 0, running: 2, tasks: 3 });
        step(&mut job, Event::Done(RunId(0)), 1);
        assert_eq!(job.counts(), Counts { done: 1, running: 2, tasks: 3 });
    }
}
