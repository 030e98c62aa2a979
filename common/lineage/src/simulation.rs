//! The scheduler under random workers: they come, go, fail, lag, lose what they held and answer what nobody asked.
//! Every promise is looked at after every step.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::job::{Effect, Event, Failure, Held, RunId, SchedulerConfig, TaskId, TaskPlan, WorkerId};
use crate::scheduler::Scheduler;

const CONFIG: SchedulerConfig = SchedulerConfig {
    locality_wait_ms_max: 50,
    failures_max: 3,
    twin_factor: 2,
    twin_ms_min: 20,
    refusal_ms: 70,
};

/// What may happen; numbers choose among what there is.
#[derive(Clone, Debug)]
enum Act {
    Passes {
        ms: u64,
    },
    /// `held`: at a worker, this one or another; else safely.
    Done {
        which: usize,
        held: Option<Option<u16>>,
    },
    /// Results that it needs can't be had: those of which the bit is set.
    Lacks {
        which: usize,
        bits: u16,
    },
    Fails {
        which: usize,
        finally: bool,
    },
    Refuses {
        which: usize,
    },
    /// Says again, or ahead of time, what a run did.
    Strays {
        run: u64,
    },
    Worker {
        id: u16,
        slots: Option<usize>,
    },
    Cancel,
}

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0_u64..60).prop_map(|ms| Act::Passes { ms }),
        8 => (any::<usize>(), held()).prop_map(|(which, held)| Act::Done { which, held }),
        2 => (any::<usize>(), any::<u16>()).prop_map(|(which, bits)| Act::Lacks { which, bits }),
        2 => any::<usize>().prop_map(|which| Act::Fails { which, finally: false }),
        1 => (any::<usize>(), 0..40).prop_map(|(which, n)| Act::Fails { which, finally: n == 0 }),
        2 => any::<usize>().prop_map(|which| Act::Refuses { which }),
        1 => (0_u64..40).prop_map(|run| Act::Strays { run }),
        4 => (0_u16..5, proptest::option::of(0_usize..4)).prop_map(|(id, slots)| Act::Worker { id, slots }),
        1 => (0..30).prop_map(|n| if n == 0 { Act::Cancel } else { Act::Passes { ms: 1 } }),
    ]
}

/// Mostly at the worker that did it, at times at one that did the same before, at times nowhere to be lost.
fn held() -> impl Strategy<Value = Option<Option<u16>>> {
    prop_oneof![4 => Just(Some(None)), 1 => (0_u16..5).prop_map(|worker| Some(Some(worker))), 2 => Just(None)]
}

fn plans() -> impl Strategy<Value = Vec<TaskPlan>> {
    let plan = (proptest::option::of(0_u16..5), prop_oneof![Just(0), any::<u16>()]);
    vec(plan, 0..9).prop_map(|plans| {
        let plan = |(id, (prefers, bits)): (usize, (Option<u16>, u16))| TaskPlan {
            prefers: prefers.map(WorkerId),
            needs: chosen(bits, (0..id).map(TaskId)),
        };
        plans.into_iter().enumerate().map(plan).collect()
    })
}

/// Chooses those of which the bit is set.
fn chosen(bits: u16, among: impl Iterator<Item = TaskId>) -> Vec<TaskId> {
    among.enumerate().filter(|(at, _)| bits >> (at % 16) & 1 == 1).map(|(_, task)| task).collect()
}

/// What a driver of the scheduler would see.
struct World {
    scheduler: Scheduler,
    plans: Vec<TaskPlan>,
    now_ms: u64,
    workers: BTreeMap<WorkerId, usize>,
    runs: BTreeMap<RunId, (TaskId, WorkerId)>,
    started: BTreeSet<RunId>,
    /// The tasks that are done, and where their results are.
    completed: BTreeMap<TaskId, Held>,
    /// The same, by what the scheduler said.
    done: BTreeSet<TaskId>,
    failures: BTreeMap<TaskId, u32>,
    /// How often a result could not be had.
    missed: BTreeMap<TaskId, u32>,
    /// The results that could not be had in this step.
    missing: BTreeSet<TaskId>,
    /// Who refused a task, and when, since workers changed.
    refused: BTreeMap<(TaskId, WorkerId), u64>,
    /// Since when a task that could run has had no run.
    waits_since_ms: BTreeMap<TaskId, u64>,
    is_over: bool,
}

impl World {
    fn new(plans: Vec<TaskPlan>, found: &[(usize, Held)]) -> Self {
        let mut world = Self {
            scheduler: Scheduler::new(CONFIG, plans.clone(), 0),
            plans,
            now_ms: 0,
            workers: BTreeMap::new(),
            runs: BTreeMap::new(),
            started: BTreeSet::new(),
            completed: BTreeMap::new(),
            done: BTreeSet::new(),
            failures: BTreeMap::new(),
            missed: BTreeMap::new(),
            missing: BTreeSet::new(),
            refused: BTreeMap::new(),
            waits_since_ms: BTreeMap::new(),
            is_over: false,
        };
        for (task, held) in found.iter().filter(|(task, _)| *task < world.plans.len()) {
            world.completed.insert(TaskId(*task), *held);
            world.done.insert(TaskId(*task));
            assert!(world.scheduler.step(Event::Found(TaskId(*task), *held), 0).is_empty());
        }
        world.step(Event::Workers(BTreeMap::new()));
        world
    }

    fn act(&mut self, act: &Act) {
        let choose = |world: &Self, which: usize| {
            let count = world.runs.len();
            (count > 0).then(|| *world.runs.keys().nth(which % count).expect("it is below the count"))
        };
        match *act {
            Act::Passes { ms } => {
                self.now_ms += ms;
                self.step(Event::Tick);
            }
            Act::Done { which, held } => {
                if let Some(run) = choose(self, which) {
                    let (task, worker) = self.runs.remove(&run).expect("it runs");
                    let twins = self.runs_of(task);
                    let held = held.map(|other| other.map_or(worker, WorkerId));
                    let held = held.map_or(Held::Safely, Held::At);
                    self.completed.insert(task, held);
                    let effects = self.step(Event::Done(run, held));
                    assert!(effects.contains(&Effect::Completed(task)), "a result completes its task");
                    twins.iter().for_each(|twin| assert!(effects.contains(&Effect::Stop(*twin))));
                }
            }
            Act::Fails { which, finally } => {
                if let Some(run) = choose(self, which) {
                    self.fail(run, finally);
                }
            }
            Act::Lacks { which, bits } => {
                if let Some(run) = choose(self, which) {
                    self.lacks(run, bits);
                }
            }
            Act::Refuses { which } => {
                if let Some(run) = choose(self, which) {
                    self.refuse(run);
                }
            }
            Act::Strays { run } if !self.runs.contains_key(&RunId(run)) => {
                let before = self.completed.len();
                self.step(Event::Done(RunId(run), Held::Safely));
                self.step(Event::Lacks(RunId(run), vec![TaskId(0)]));
                assert_eq!(self.completed.len(), before, "a stray result completes nothing");
                self.step(Event::Failed(RunId(run), Failure::Final));
            }
            Act::Strays { .. } => {}
            Act::Worker { id, slots } => {
                match slots {
                    Some(slots) => _ = self.workers.insert(WorkerId(id), slots),
                    None => _ = self.workers.remove(&WorkerId(id)),
                }
                let there = self.workers.clone();
                self.refused.clear();
                self.step(Event::Workers(there));
                assert!(self.runs.values().all(|(_, worker)| self.workers.contains_key(worker)));
            }
            Act::Cancel => {
                self.step(Event::Cancel);
                self.is_over = true;
            }
        }
        self.check();
    }

    fn fail(&mut self, run: RunId, finally: bool) {
        let (task, _) = self.runs.remove(&run).expect("it runs");
        let failures = self.failures.entry(task).or_default();
        *failures += 1;
        let too_often = *failures >= CONFIG.failures_max && self.runs_of(task).is_empty();
        let failure = if finally { Failure::Final } else { Failure::Passing };
        let effects = self.step(Event::Failed(run, failure));
        let given_up = effects.contains(&Effect::GivenUp(task));
        assert_eq!(given_up, finally || too_often, "given up neither early nor late");
    }

    fn refuse(&mut self, run: RunId) {
        let (task, worker) = self.runs.remove(&run).expect("it runs");
        self.refused.insert((task, worker), self.now_ms);
        let is_last = self.workers.keys().all(|worker| !self.is_asked(task, *worker));
        let is_last = is_last && self.runs_of(task).is_empty();
        let effects = self.step(Event::Failed(run, Failure::Unable));
        assert_eq!(effects.contains(&Effect::GivenUp(task)), is_last, "given up when all have refused");
    }

    fn is_asked(&self, task: TaskId, worker: WorkerId) -> bool {
        self.refused.get(&(task, worker)).is_none_or(|at_ms| self.now_ms >= at_ms + CONFIG.refusal_ms)
    }

    fn lacks(&mut self, run: RunId, bits: u16) {
        let (task, _) = self.runs[&run];
        let missing = chosen(bits, self.plans[task.0].needs.iter().copied());
        if missing.is_empty() {
            return self.fail(run, false);
        }
        self.runs.remove(&run);
        self.missing = missing.iter().copied().collect();
        let mut too_often = false;
        for missing in &missing {
            let missed = self.missed.entry(*missing).or_default();
            *missed += 1;
            too_often |= *missed >= CONFIG.failures_max;
        }
        let effects = self.step(Event::Lacks(run, missing.clone()));
        let given_up = effects.iter().any(|effect| matches!(effect, Effect::GivenUp(_)));
        assert_eq!(given_up, too_often, "given up neither early nor late");
        let lost = |task: &&TaskId| effects.contains(&Effect::Lost(**task));
        assert!(given_up || missing.iter().filter(lost).count() == missing.len(), "they are made again");
        self.missing.clear();
    }

    /// Says whether anybody needs a task, for what is still to be done.
    fn is_wanted(&self, task: TaskId) -> bool {
        let by = self.plans.iter().enumerate().filter(|(_, plan)| plan.needs.contains(&task));
        let by: Vec<TaskId> = by.map(|(by, _)| TaskId(by)).collect();
        by.is_empty() || by.iter().any(|by| !self.completed.contains_key(by) && self.is_wanted(*by))
    }

    fn has_needs(&self, task: TaskId) -> bool {
        self.plans[task.0].needs.iter().all(|need| self.completed.contains_key(need))
    }

    /// A result is lost with its worker, or because it could not be had, and while it is needed.
    fn lose(&mut self, task: TaskId) {
        let held = self.completed[&task];
        assert!(self.plans.iter().any(|plan| plan.needs.contains(&task)) && self.is_wanted(task));
        let is_gone = matches!(held, Held::At(worker) if !self.workers.contains_key(&worker));
        assert!(is_gone || self.missing.contains(&task), "{task:?} is lost, and was there");
        self.completed.remove(&task);
    }

    fn runs_of(&self, task: TaskId) -> Vec<RunId> {
        self.runs.iter().filter(|(_, (of, _))| *of == task).map(|(run, _)| *run).collect()
    }

    fn step(&mut self, event: Event) -> Vec<Effect> {
        let effects = self.scheduler.step(event, self.now_ms);
        for effect in &effects {
            match *effect {
                Effect::Start { run, task, worker, .. } => {
                    assert!(!self.is_over, "nothing starts once the job is over");
                    assert!(self.started.insert(run), "numbers are used once");
                    assert!(!self.completed.contains_key(&task), "what is completed is not started again");
                    assert!(self.has_needs(task) && self.is_wanted(task), "{task:?} is started for nothing");
                    let held = self.runs.values().filter(|(_, at)| *at == worker).count();
                    assert!(held < self.workers.get(&worker).copied().unwrap_or(0), "slots are enough");
                    let twins = self.runs_of(task);
                    assert!(self.is_asked(task, worker), "who refused a task is left alone");
                    assert!(twins.len() < 2, "a run has one twin");
                    assert!(twins.iter().all(|twin| self.runs[twin].1 != worker), "a twin is elsewhere");
                    self.runs.insert(run, (task, worker));
                }
                Effect::Stop(run) => {
                    self.runs.remove(&run).expect("only what runs is stopped");
                }
                Effect::Completed(task) => {
                    assert!(self.completed.contains_key(&task), "only a run that is done completes its task");
                    assert!(self.done.insert(task), "a task is completed once");
                }
                Effect::Lost(task) => {
                    assert!(self.done.remove(&task), "only what was there is lost");
                    self.lose(task);
                }
                Effect::GivenUp(_) => self.is_over = true,
            }
        }
        let waits = |task: &TaskId| {
            !self.completed.contains_key(task)
                && self.has_needs(*task)
                && self.is_wanted(*task)
                && self.runs_of(*task).is_empty()
        };
        let waiting: BTreeSet<TaskId> = (0..self.plans.len()).map(TaskId).filter(waits).collect();
        self.waits_since_ms.retain(|task, _| waiting.contains(task));
        for task in waiting {
            self.waits_since_ms.entry(task).or_insert(self.now_ms);
        }
        effects
    }

    fn check(&self) {
        let counted: Vec<_> = self.scheduler.runs().map(|(run, task, at)| (run, (task, at))).collect();
        assert_eq!(counted, self.runs.clone().into_iter().collect::<Vec<_>>());
        let is_final = |task: &usize| self.plans.iter().all(|plan| !plan.needs.contains(&TaskId(*task)));
        let finals = (0..self.plans.len()).filter(is_final).map(TaskId);
        let is_done = finals.clone().all(|task| self.completed.contains_key(&task));
        assert_eq!(self.scheduler.is_done(), is_done, "done is when what nothing else needs is done");
        assert!(self.runs.values().all(|(task, _)| self.has_needs(*task)), "a run has what it needs");
        assert_eq!(self.scheduler.progress(self.now_ms).done, self.completed.len());
        if self.is_over {
            assert!(self.runs.is_empty(), "what is over has no runs");
            return;
        }
        for (task, held) in &self.completed {
            let is_gone = matches!(held, Held::At(worker) if !self.workers.contains_key(worker));
            let is_final = self.plans.iter().all(|plan| !plan.needs.contains(task));
            assert!(!is_gone || is_final || !self.is_wanted(*task), "{task:?} is gone, and nobody makes it");
        }
        let held = |worker| self.runs.values().filter(|(_, at)| *at == worker).count();
        for (task, since_ms) in &self.waits_since_ms {
            let is_free = |(worker, slots): &(&WorkerId, &usize)| {
                held(**worker) < **slots && self.is_asked(*task, **worker)
            };
            let free: Vec<_> = self.workers.iter().filter(is_free).collect();
            let preferred = self.plans[task.0].prefers;
            let waited_enough = self.now_ms >= since_ms + CONFIG.locality_wait_ms_max;
            assert!(free.is_empty() || !waited_enough, "{task:?} starves while workers are free");
            let nothing_to_wait_for = !self.failures.contains_key(task)
                && preferred.is_none_or(|worker| !self.workers.contains_key(&worker));
            assert!(free.is_empty() || !nothing_to_wait_for, "{task:?} waits for nobody");
            // Whoever sleeps until the scheduler is due misses nothing.
            if !free.is_empty() {
                let due_ms = self.scheduler.due_ms(self.now_ms).expect("something waits");
                assert!(due_ms <= since_ms + CONFIG.locality_wait_ms_max);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_workers_do_every_promise_holds_and_the_job_ends(
        plans in plans(),
        found in vec((0_usize..9, prop_oneof![Just(Held::Safely), (0_u16..5).prop_map(|at| Held::At(WorkerId(at)))]), 0..3),
        acts in vec(acts(), 0..80),
    ) {
        let mut world = World::new(plans, &found);
        for act in &acts {
            world.act(act);
        }
        // From now on one worker does what it is given.
        world.workers = [(WorkerId(9), 1)].into();
        world.refused.clear();
        world.step(Event::Workers([(WorkerId(9), 1)].into()));
        let mut steps = 0;
        while !world.is_over && !world.scheduler.is_done() {
            steps += 1;
            assert!(steps < 100, "the job ends");
            world.act(&Act::Passes { ms: CONFIG.locality_wait_ms_max });
            world.act(&Act::Done { which: 0, held: Some(None) });
        }
    }

    /// A run that hangs at one worker delays a job by no more than its twin takes.
    #[test]
    fn no_job_waits_for_a_worker_that_hangs(hangs in 1_u16..4, tasks in 4_usize..12) {
        let at = |task: usize| Some(WorkerId(1 + task as u16 % 3));
        let plans = (0..tasks).map(|task| TaskPlan { prefers: at(task), needs: Vec::new() }).collect();
        let mut world = World::new(plans, &[]);
        for id in 1..4 {
            world.act(&Act::Worker { id, slots: Some(2) });
        }
        while !world.scheduler.is_done() {
            assert!(world.now_ms < 2_000, "it is done in spite of the worker that hangs");
            let at = |(_, worker): &(TaskId, WorkerId)| worker.0 != hangs;
            match world.runs.values().position(at) {
                Some(which) => {
                    world.act(&Act::Passes { ms: 5 });
                    if world.runs.values().nth(which).is_some_and(at) {
                        world.act(&Act::Done { which, held: Some(None) });
                    }
                }
                None => world.act(&Act::Passes { ms: 10 }),
            }
        }
    }
}
