//! The scheduler under random workers: they come, go, fail, lag and answer what nobody asked. Every
//! promise is looked at after every step.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::scheduler::{Effect, Event, Failure, RunId, Scheduler, SchedulerConfig, TaskId, WorkerId};

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
    Done {
        which: usize,
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
        8 => any::<usize>().prop_map(|which| Act::Done { which }),
        2 => any::<usize>().prop_map(|which| Act::Fails { which, finally: false }),
        1 => (any::<usize>(), 0..40).prop_map(|(which, n)| Act::Fails { which, finally: n == 0 }),
        2 => any::<usize>().prop_map(|which| Act::Refuses { which }),
        1 => (0_u64..40).prop_map(|run| Act::Strays { run }),
        4 => (0_u16..5, proptest::option::of(0_usize..4)).prop_map(|(id, slots)| Act::Worker { id, slots }),
        1 => (0..30).prop_map(|n| if n == 0 { Act::Cancel } else { Act::Passes { ms: 1 } }),
    ]
}

/// What a driver of the scheduler would see.
struct World {
    scheduler: Scheduler,
    preferred: Vec<Option<WorkerId>>,
    now_ms: u64,
    workers: BTreeMap<WorkerId, usize>,
    runs: BTreeMap<RunId, (TaskId, WorkerId)>,
    started: BTreeSet<RunId>,
    completed: BTreeSet<TaskId>,
    failures: BTreeMap<TaskId, u32>,
    /// Who refused a task, and when, since workers changed.
    refused: BTreeMap<(TaskId, WorkerId), u64>,
    /// Since when a task has had no run.
    waits_since_ms: BTreeMap<TaskId, u64>,
    is_over: bool,
}

impl World {
    fn new(preferred: Vec<Option<WorkerId>>) -> Self {
        let waits_since_ms = (0..preferred.len()).map(|task| (TaskId(task), 0)).collect();
        Self {
            scheduler: Scheduler::new(CONFIG, preferred.clone(), 0),
            preferred,
            now_ms: 0,
            workers: BTreeMap::new(),
            runs: BTreeMap::new(),
            started: BTreeSet::new(),
            completed: BTreeSet::new(),
            failures: BTreeMap::new(),
            refused: BTreeMap::new(),
            waits_since_ms,
            is_over: false,
        }
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
            Act::Done { which } => {
                if let Some(run) = choose(self, which) {
                    let (task, _) = self.runs.remove(&run).expect("it runs");
                    let twins = self.runs_of(task);
                    let effects = self.step(Event::Done(run));
                    assert!(effects.contains(&Effect::Completed(task)), "a result completes its task");
                    twins.iter().for_each(|twin| assert!(effects.contains(&Effect::Stop(*twin))));
                }
            }
            Act::Fails { which, finally } => {
                if let Some(run) = choose(self, which) {
                    self.fail(run, finally);
                }
            }
            Act::Refuses { which } => {
                if let Some(run) = choose(self, which) {
                    self.refuse(run);
                }
            }
            Act::Strays { run } if !self.runs.contains_key(&RunId(run)) => {
                let before = self.completed.len();
                self.step(Event::Done(RunId(run)));
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
        self.waits(task);
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
        self.waits(task);
        let effects = self.step(Event::Failed(run, Failure::Unable));
        assert_eq!(effects.contains(&Effect::GivenUp(task)), is_last, "given up when all have refused");
    }

    fn is_asked(&self, task: TaskId, worker: WorkerId) -> bool {
        self.refused.get(&(task, worker)).is_none_or(|at_ms| self.now_ms >= at_ms + CONFIG.refusal_ms)
    }

    fn waits(&mut self, task: TaskId) {
        if self.runs_of(task).is_empty() && !self.completed.contains(&task) {
            self.waits_since_ms.insert(task, self.now_ms);
        }
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
                    assert!(!self.completed.contains(&task), "what is completed is not started again");
                    let held = self.runs.values().filter(|(_, at)| *at == worker).count();
                    assert!(held < self.workers.get(&worker).copied().unwrap_or(0), "slots are enough");
                    let twins = self.runs_of(task);
                    assert!(self.is_asked(task, worker), "who refused a task is left alone");
                    assert!(twins.len() < 2, "a run has one twin");
                    assert!(twins.iter().all(|twin| self.runs[twin].1 != worker), "a twin is elsewhere");
                    self.runs.insert(run, (task, worker));
                    self.waits_since_ms.remove(&task);
                }
                Effect::Stop(run) => {
                    let (task, _) = self.runs.remove(&run).expect("only what runs is stopped");
                    self.waits(task);
                }
                Effect::Completed(task) => {
                    assert!(self.completed.insert(task), "a task is completed once");
                    self.waits_since_ms.remove(&task);
                }
                Effect::GivenUp(_) => self.is_over = true,
            }
        }
        effects
    }

    fn check(&self) {
        let counted: Vec<_> = self.scheduler.runs().map(|(run, task, at)| (run, (task, at))).collect();
        assert_eq!(counted, self.runs.clone().into_iter().collect::<Vec<_>>());
        assert_eq!(self.scheduler.is_done(), self.completed.len() == self.preferred.len());
        if self.is_over {
            assert!(self.runs.is_empty(), "what is over has no runs");
            return;
        }
        let held = |worker| self.runs.values().filter(|(_, at)| *at == worker).count();
        for (task, since_ms) in &self.waits_since_ms {
            let is_free = |(worker, slots): &(&WorkerId, &usize)| {
                held(**worker) < **slots && self.is_asked(*task, **worker)
            };
            let free: Vec<_> = self.workers.iter().filter(is_free).collect();
            let preferred = self.preferred[task.0];
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
        preferred in vec(proptest::option::of(0_u16..5).prop_map(|worker| worker.map(WorkerId)), 0..9),
        acts in vec(acts(), 0..80),
    ) {
        let mut world = World::new(preferred);
        for act in &acts {
            world.act(act);
        }
        // From now on one worker does what it is given.
        world.workers = [(WorkerId(9), 1)].into();
        world.step(Event::Workers([(WorkerId(9), 1)].into()));
        let mut steps = 0;
        while !world.is_over && !world.scheduler.is_done() {
            steps += 1;
            assert!(steps < 100, "the job ends");
            world.act(&Act::Passes { ms: CONFIG.locality_wait_ms_max });
            world.act(&Act::Done { which: 0 });
        }
    }

    /// A run that hangs at one worker delays a job by no more than its twin takes.
    #[test]
    fn no_job_waits_for_a_worker_that_hangs(hangs in 1_u16..4, tasks in 4_usize..12) {
        let preferred = (0..tasks).map(|task| Some(WorkerId(1 + task as u16 % 3))).collect();
        let mut world = World::new(preferred);
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
                        world.act(&Act::Done { which });
                    }
                }
                None => world.act(&Act::Passes { ms: 10 }),
            }
        }
    }
}
