//! The scheduler of one job: brings tasks to workers, and makes up for what is slow, fails or is lost.
//!
//! Promised, whatever happens in whatever order:
//! - a task is completed once, and again only after its result was lost; of several runs of it the first
//!   result wins, and the others are stopped;
//! - whatever runs has the results of all tasks that it needs: what loses one is stopped until it is there again;
//! - a result is lost only with the worker that held it alone, or when a run could not get it, and only while a
//!   task that is not done needs it; then its own task is done again, and no other;
//! - no worker is given more than it has slots for, nor two runs of one task;
//! - no task that could run waits while a worker that would do has a free slot, for longer than locality is worth;
//! - a worker that refused a task is not asked again before it may have changed, and that is no failure;
//! - a job that is given up or cancelled has no runs and starts none.
//!
//! Not promised: that a worker who was told to stop has stopped.

use std::collections::{BTreeMap, BTreeSet};

use crate::job::{Effect, Event, Failure, Held, RunId, SchedulerConfig, TaskId, TaskPlan, Why, WorkerId};
use crate::progress::Tally;

#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) plan: TaskPlan,
    /// The tasks that need it.
    needed_by: Vec<TaskId>,
    /// How many tasks lie before it, one needing the other.
    pub(crate) stage: usize,
    /// Where its result is, once it is done.
    pub(crate) result: Option<Held>,
    /// Who gave it, unless it was found.
    pub(crate) done_by: Option<WorkerId>,
    /// Since when it waits to be started, while it could be.
    ready_ms: u64,
    failures: u32,
    /// How often a run could not get its result.
    missed: u32,
    /// Where it failed, which is where it goes last.
    avoids: BTreeSet<WorkerId>,
    /// Who refused it, and until when it is not asked again.
    refused: BTreeMap<WorkerId, u64>,
    /// What became of the run, or of the result, before.
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
    /// How long the runs of each stage that gave results took, in order of length.
    pub(crate) took_ms: BTreeMap<usize, Vec<u64>>,
    pub(crate) tally: Tally,
    is_over: bool,
}

impl Scheduler {
    /// Begins a job. No worker is there yet.
    ///
    /// # Panics
    /// When a task needs one that is not before it.
    pub fn new(config: SchedulerConfig, plans: Vec<TaskPlan>, now_ms: u64) -> Self {
        let mut tasks: Vec<Task> = Vec::with_capacity(plans.len());
        for (id, plan) in plans.into_iter().enumerate() {
            assert!(plan.needs.iter().all(|need| need.0 < id), "a task needs only tasks before it");
            for need in &plan.needs {
                tasks[need.0].needed_by.push(TaskId(id));
            }
            tasks.push(Task {
                stage: plan.needs.iter().map(|need| tasks[need.0].stage + 1).max().unwrap_or(0),
                plan,
                needed_by: Vec::new(),
                result: None,
                done_by: None,
                ready_ms: now_ms,
                failures: 0,
                missed: 0,
                avoids: BTreeSet::new(),
                refused: BTreeMap::new(),
                after: None,
            });
        }
        Self {
            config,
            tasks,
            workers: BTreeMap::new(),
            runs: BTreeMap::new(),
            next_run: 0,
            took_ms: BTreeMap::new(),
            tally: Tally::default(),
            is_over: false,
        }
    }

    /// Takes what happened; returns what is to be done, in order. `now_ms` never goes back. What
    /// is said of runs that were stopped, or never were, is passed over.
    pub fn step(&mut self, event: Event, now_ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.is_over {
            return effects;
        }
        match event {
            Event::Workers(workers) => self.take_workers(workers, now_ms, &mut effects),
            Event::Found(task, held) => self.tasks[task.0].result = Some(held),
            Event::Done(run, held) => self.finish(run, held, now_ms, &mut effects),
            Event::Failed(run, failure) => self.fail(run, failure, now_ms, &mut effects),
            Event::Lacks(run, tasks) => self.miss(run, &tasks, now_ms, &mut effects),
            Event::Cancel => self.end(&mut effects),
            Event::Tick => {}
        }
        if !self.is_over {
            self.start_ready(now_ms, &mut effects);
            self.start_twins(now_ms, &mut effects);
        }
        effects
    }

    /// Says whether every task has its result, but for those that only done ones would need.
    pub fn is_done(&self) -> bool {
        !self.open().contains(&true)
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
        let alone = self.runs.values().filter(|run| self.runs_of(run.task).count() == 1);
        let twins = alone.filter_map(|run| Some(run.started_ms + self.slow_after_ms(run.task)?));
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
        self.lose_what_is_gone(now_ms, effects);
    }

    fn finish(&mut self, id: RunId, held: Held, now_ms: u64, effects: &mut Vec<Effect>) {
        let Some(run) = self.runs.remove(&id) else { return };
        let took_ms = now_ms.saturating_sub(run.started_ms);
        let all = self.took_ms.entry(self.tasks[run.task.0].stage).or_default();
        all.insert(all.partition_point(|before| *before <= took_ms), took_ms);
        self.tasks[run.task.0].result = Some(held);
        self.tasks[run.task.0].done_by = Some(run.worker);
        self.stop_runs(|run_of| run_of == run.task, effects);
        effects.push(Effect::Completed(run.task));
        self.lose_what_is_gone(now_ms, effects);
        for next in self.tasks[run.task.0].needed_by.clone() {
            if self.has_needs(next) {
                self.tasks[next.0].ready_ms = now_ms;
            }
        }
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

    /// A run could not get results: these are lost. It is no failure of its own task.
    fn miss(&mut self, id: RunId, missing: &[TaskId], now_ms: u64, effects: &mut Vec<Effect>) {
        let Some(run) = self.runs.get(&id) else { return };
        let needs = &self.tasks[run.task.0].plan.needs;
        let missing: BTreeSet<TaskId> = missing.iter().filter(|task| needs.contains(task)).copied().collect();
        if missing.is_empty() {
            return self.fail(id, Failure::Passing, now_ms, effects);
        }
        self.runs.remove(&id);
        for task in missing {
            self.lose(task, Why::Missing, now_ms, effects);
            let missed = &mut self.tasks[task.0].missed;
            *missed += 1;
            if *missed >= self.config.failures_max {
                effects.push(Effect::GivenUp(task));
                return self.end(effects);
            }
        }
        self.lose_what_is_gone(now_ms, effects);
    }

    /// Loses the results that are needed and were held by workers that are not there.
    fn lose_what_is_gone(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let mut open = vec![false; self.tasks.len()];
        // What a lost task needs is needed again, and lies before it.
        for id in (0..self.tasks.len()).rev() {
            let Task { result, needed_by, .. } = &self.tasks[id];
            let is_needed = needed_by.iter().any(|next| open[next.0]);
            let gone = match result {
                Some(Held::At(worker)) if !self.workers.contains_key(worker) => Some(*worker),
                _ => None,
            };
            open[id] = result.is_none() && (is_needed || needed_by.is_empty());
            if let Some(gone) = gone.filter(|_| is_needed) {
                open[id] = true;
                self.lose(TaskId(id), Why::Lost(gone), now_ms, effects);
            }
        }
    }

    fn lose(&mut self, task: TaskId, why: Why, now_ms: u64, effects: &mut Vec<Effect>) {
        let lost = &mut self.tasks[task.0];
        (lost.result, lost.done_by) = (None, None);
        (lost.ready_ms, lost.after) = (now_ms, Some(why));
        let needed_by = lost.needed_by.clone();
        effects.push(Effect::Lost(task));
        self.stop_runs(|of| needed_by.contains(&of), effects);
    }

    fn stop_runs(&mut self, of: impl Fn(TaskId) -> bool, effects: &mut Vec<Effect>) {
        self.runs.retain(|id, run| {
            let stops = of(run.task);
            if stops {
                effects.push(Effect::Stop(*id));
            }
            !stops
        });
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
                let prefers = self.tasks[task.0].plan.prefers == Some(worker);
                let why = if prefers { Why::Preferred } else { Why::Free };
                let why = self.tasks[task.0].after.unwrap_or(why);
                self.start(task, worker, why, now_ms, effects);
            }
        }
    }

    fn start_twins(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let is_slow =
            |run: &&Run| self.slow_after_ms(run.task).is_some_and(|slow| now_ms >= run.started_ms + slow);
        let slow: Vec<Run> = self.runs.values().filter(is_slow).copied().collect();
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
        let Task { plan, avoids, .. } = &self.tasks[task.0];
        let is_patient = now_ms < self.patient_until_ms(task);
        let is_asked = |worker: &WorkerId| self.is_asked(task, *worker, now_ms);
        let would_do = |worker: &WorkerId| !avoids.contains(worker) && is_asked(worker);
        if let Some(preferred) =
            plan.prefers.filter(|worker| self.workers.contains_key(worker) && would_do(worker))
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

    /// Returns how long a run of a task may take before it is called slow; none while nothing is known.
    fn slow_after_ms(&self, task: TaskId) -> Option<u64> {
        let took_ms = self.took_ms.get(&self.tasks[task.0].stage)?;
        let usual_ms = took_ms.get(took_ms.len() / 2)?;
        Some(usual_ms.saturating_mul(self.config.twin_factor).max(self.config.twin_ms_min))
    }

    /// Returns the tasks that wait to be started, in order.
    pub(crate) fn ready(&self) -> impl Iterator<Item = TaskId> + '_ {
        let open = self.open().into_iter().enumerate().filter(|(_, is_open)| *is_open);
        let open = open.map(|(id, _)| TaskId(id));
        open.filter(|id| self.has_needs(*id) && self.runs_of(*id).next().is_none())
    }

    /// Says of each task whether it is to be done: it has no result, and whoever wants the job, or a task that is
    /// to be done, waits for it.
    pub(crate) fn open(&self) -> Vec<bool> {
        let mut open = vec![false; self.tasks.len()];
        for (id, task) in self.tasks.iter().enumerate().rev() {
            let is_wanted = task.needed_by.is_empty() || task.needed_by.iter().any(|next| open[next.0]);
            open[id] = task.result.is_none() && is_wanted;
        }
        open
    }

    fn has_needs(&self, task: TaskId) -> bool {
        self.tasks[task.0].plan.needs.iter().all(|need| self.tasks[need.0].result.is_some())
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
