//! What the scheduler does, told step by step.

use crate::job::{Effect, Event, Failure, Held, RunId, SchedulerConfig, TaskId, TaskPlan, Why, WorkerId};
use crate::scheduler::Scheduler;

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

fn done(run: u64) -> Event {
    Event::Done(RunId(run), Held::Safely)
}

fn done_at(run: u64, worker: u16) -> Event {
    Event::Done(RunId(run), Held::At(WorkerId(worker)))
}

fn job(preferred: &[u16]) -> Scheduler {
    let plan = |worker: &u16| TaskPlan { prefers: Some(WorkerId(*worker)), needs: Vec::new() };
    Scheduler::new(CONFIG, preferred.iter().map(plan).collect(), 0)
}

/// So many tasks at workers 1, 2, …, and so many that need all of them.
fn two_stages(first: usize, second: usize) -> Scheduler {
    let of_first = (1..=first).map(|at| TaskPlan { prefers: Some(WorkerId(at as u16)), needs: Vec::new() });
    let of_second = (0..second).map(|_| TaskPlan { prefers: None, needs: (0..first).map(TaskId).collect() });
    Scheduler::new(CONFIG, of_first.chain(of_second).collect(), 0)
}

/// Steps, and tells the effects in short.
fn step(scheduler: &mut Scheduler, event: Event, now_ms: u64) -> Vec<String> {
    let say = |effect: &Effect| match effect {
        Effect::Start { run, task, worker, why } => {
            let why = match why {
                Why::Preferred => String::new(),
                Why::Free => ", free".to_owned(),
                Why::Lost(WorkerId(lost)) => format!(", {lost} lost"),
                Why::Missing => ", missing".to_owned(),
                Why::Failed(WorkerId(failed)) => format!(", {failed} failed"),
                Why::Slow(WorkerId(slow)) => format!(", {slow} slow"),
            };
            format!("run {}: {} at {}{why}", run.0, task.0, worker.0)
        }
        Effect::Stop(run) => format!("stop {}", run.0),
        Effect::Completed(task) => format!("completed {}", task.0),
        Effect::Lost(task) => format!("lost {}", task.0),
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
    assert_eq!(step(&mut job, done(10), 20), ["completed 0"]);
    assert!(job.is_done());
}

#[test]
fn a_run_that_takes_far_longer_than_others_is_given_a_twin_and_the_first_result_wins() {
    let mut job = job(&[1, 2, 3]);
    step(&mut job, workers(&[(1, 1), (2, 1), (3, 1)]), 0);
    assert_eq!(step(&mut job, done(0), 40), ["completed 0"]);
    assert_eq!(step(&mut job, done(1), 41), ["completed 1"]);
    assert_eq!(job.due_ms(41), Some(123), "three times as long as the slower of both");
    assert!(step(&mut job, Event::Tick, 122).is_empty());
    assert_eq!(step(&mut job, Event::Tick, 123), ["run 3: 2 at 1, 3 slow"]);
    assert_eq!(step(&mut job, Event::Tick, 500), [""; 0], "one twin is enough");
    let mut other = job.clone();
    assert_eq!(step(&mut job, done(3), 501), ["stop 2", "completed 2"]);
    assert!(step(&mut job, done(2), 502).is_empty());
    assert_eq!(step(&mut other, done(2), 501), ["stop 3", "completed 2"]);
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
    assert!(step(&mut job, done(0), 2).is_empty() && !job.is_done());
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
fn a_task_begins_when_all_that_it_needs_is_done() {
    let mut job = two_stages(2, 2);
    assert_eq!(step(&mut job, workers(&[(1, 2), (2, 1)]), 0), ["run 0: 0 at 1", "run 1: 1 at 2"]);
    assert_eq!(step(&mut job, done_at(1, 2), 10), ["completed 1"]);
    assert_eq!(
        step(&mut job, done_at(0, 1), 20),
        ["completed 0", "run 2: 2 at 1, free", "run 3: 3 at 1, free"]
    );
    step(&mut job, done(2), 30);
    assert_eq!(step(&mut job, done(3), 30), ["completed 3"]);
    assert!(job.is_done());
}

#[test]
fn what_a_lost_worker_had_done_is_done_again_only_while_it_is_needed() {
    let mut job = two_stages(2, 1);
    step(&mut job, workers(&[(1, 1), (2, 1), (3, 1)]), 0);
    step(&mut job, done_at(0, 1), 10);
    step(&mut job, done_at(1, 2), 10);
    assert_eq!(job.runs().next(), Some((RunId(2), TaskId(2), WorkerId(1))));
    assert_eq!(
        step(&mut job, workers(&[(1, 1), (3, 1)]), 20),
        ["lost 1", "stop 2", "run 3: 1 at 1, 2 lost"],
        "what needs it waits for it"
    );
    assert_eq!(step(&mut job, done_at(3, 1), 30), ["completed 1", "run 4: 2 at 1, free"]);
    assert_eq!(step(&mut job, done(4), 40), ["completed 2"]);
    assert!(step(&mut job, workers(&[(3, 1)]), 50).is_empty() && job.is_done());
}

#[test]
fn a_result_that_is_safe_outlives_its_worker() {
    let mut job = two_stages(1, 1);
    step(&mut job, workers(&[(1, 1), (2, 1)]), 0);
    step(&mut job, done(0), 10);
    assert_eq!(step(&mut job, workers(&[(2, 1)]), 20), ["stop 1", "run 2: 1 at 2, 1 lost"]);
}

#[test]
fn a_result_that_can_not_be_had_is_made_again_and_no_other() {
    let mut job = two_stages(3, 2);
    step(&mut job, workers(&[(1, 1), (2, 1), (3, 1)]), 0);
    (0..3).for_each(|run| _ = step(&mut job, done_at(run, run as u16 + 1), 10));
    let lacks = |run| Event::Lacks(RunId(run), vec![TaskId(1)]);
    assert_eq!(step(&mut job, lacks(3), 20), ["lost 1", "stop 4", "run 5: 1 at 2, missing"]);
    assert!(step(&mut job, lacks(4), 20).is_empty(), "it was stopped");
    assert_eq!(step(&mut job, done(5), 30), ["completed 1", "run 6: 3 at 1, free", "run 7: 4 at 2, free"]);
    assert_eq!(step(&mut job, lacks(6), 40), ["lost 1", "stop 7", "run 8: 1 at 2, missing"]);
    step(&mut job, done(8), 50);
    assert_eq!(step(&mut job, lacks(9), 60), ["lost 1", "stop 10", "given up 1"], "three times are enough");
    assert!(step(&mut job, workers(&[(4, 1)]), 70).is_empty());
}

#[test]
fn what_was_found_is_not_done_again_unless_its_worker_is_gone() {
    let mut job = two_stages(2, 1);
    step(&mut job, Event::Found(TaskId(0), Held::At(WorkerId(1))), 0);
    step(&mut job, Event::Found(TaskId(1), Held::At(WorkerId(7))), 0);
    let mut whole = job.clone();
    assert_eq!(step(&mut job, workers(&[(1, 1)]), 0), ["lost 1", "run 0: 1 at 1, 7 lost"]);
    assert_eq!(step(&mut whole, workers(&[(1, 1), (7, 1)]), 0), ["run 0: 2 at 1, free"]);
    let mut done_before = two_stages(2, 1);
    step(&mut done_before, Event::Found(TaskId(2), Held::Safely), 0);
    assert!(step(&mut done_before, workers(&[(1, 1)]), 0).is_empty() && done_before.is_done());
}

#[test]
fn runs_are_slow_by_what_others_of_their_stage_took() {
    let mut job = two_stages(1, 2);
    step(&mut job, workers(&[(1, 1), (2, 1), (3, 1)]), 0);
    step(&mut job, done(0), 1_000);
    assert_eq!(job.due_ms(1_000), None, "nothing is known of the second stage");
    step(&mut job, done(1), 1_010);
    assert_eq!(job.due_ms(1_010), Some(1_050));
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
    assert_eq!(step(&mut job, Event::Done(RunId(5), Held::Safely), 200), ["completed 0"]);
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
