//! Histories written by hand: each rule is broken once, and kept as narrowly as possible beside it.

use super::*;
use crate::history::{Attempt, Key, Mark, Operation, Request, Seen};
use crate::oracle::{Found, value_micro};

/// Milliseconds as the history has them.
fn ms(ms: u64) -> u64 {
    ms * 1000
}

/// A try at a node from and until some milliseconds.
fn tried(node: usize, began: u64, ended: u64) -> Attempt {
    Attempt { node: Some(node), began_us: ms(began), ended_us: ms(ended), error: None }
}

fn failed(node: usize, began: u64, ended: u64) -> Attempt {
    Attempt { error: Some("connection refused".into()), ..tried(node, began, ended) }
}

/// An operation that was due when its first attempt began.
fn operation(client: usize, request: Request, attempts: Vec<Attempt>) -> Operation {
    let due_us = attempts[0].began_us;
    Operation { client, request, due_us, taken_up_us: due_us, attempts, seen: None }
}

fn write(client: usize, key: Key, sequence: u32, attempts: Vec<Attempt>) -> Operation {
    operation(client, Request::Write { key, sequence }, attempts)
}

/// A question that was answered at once with so many readings.
fn read(client: usize, key: Key, readings: u64, began: u64, ended: u64) -> Operation {
    let seen = Some(Seen { readings, staleness_ms_max: None });
    Operation { seen, ..operation(client, Request::Point { key }, vec![tried(0, began, ended)]) }
}

fn history(operations: Vec<Operation>) -> History {
    let ended_us = operations.iter().map(Operation::ended_us).max().unwrap_or_default();
    History { operations, marks: Vec::new(), ended_us }
}

/// A final state with these readings, each once and as sent.
fn audit(readings: &[(Key, u32)]) -> Audit {
    let found = |(key, sequence)| Found { count: 1, value_micro: value_micro(key, sequence) };
    readings.iter().map(|&reading| (reading, found(reading))).collect()
}

fn rules(history: &History, audit: &Audit) -> Vec<Rule> {
    judge(history, Some(audit)).findings.into_iter().map(|finding| finding.rule).collect()
}

#[test]
fn a_reading_is_lost_only_if_it_was_acknowledged() {
    let acknowledged = write(0, 7, 0, vec![tried(0, 0, 5)]);
    let given_up = write(0, 7, 1, vec![failed(0, 5, 9), failed(1, 9, 12)]);
    let history = history(vec![acknowledged, given_up]);
    assert_eq!(rules(&history, &audit(&[(7, 0)])), []);
    assert_eq!(rules(&history, &audit(&[(7, 0), (7, 1)])), []);
    assert_eq!(rules(&history, &audit(&[(7, 1)])), [Rule::Lost]);
    let unread = judge(&history, None);
    assert_eq!((unread.acknowledged, unread.findings), (1, vec![]), "what can't be read is not lost");
}

#[test]
fn a_reading_counts_once_as_it_was_sent_and_only_if_it_was_sent() {
    let history = history(vec![write(0, 7, 0, vec![failed(0, 0, 1), tried(1, 1, 5)])]);
    let with = |count, value_micro| Audit::from([((7, 0), Found { count, value_micro })]);
    assert_eq!(rules(&history, &with(1, value_micro(7, 0))), []);
    assert_eq!(rules(&history, &with(2, 2 * value_micro(7, 0))), [Rule::Doubled]);
    assert_eq!(rules(&history, &with(0, 0)), [Rule::Doubled], "zero times is not once");
    assert_eq!(rules(&history, &with(1, value_micro(7, 0) + 1)), [Rule::Altered]);
    assert_eq!(rules(&history, &audit(&[(7, 0), (8, 0)])), [Rule::Doubled]);
}

#[test]
fn an_answer_has_no_more_than_what_had_been_sent() {
    let writes =
        [write(0, 7, 0, vec![tried(0, 0, 5)]), write(0, 7, 1, vec![failed(0, 10, 20), tried(1, 20, 40)])];
    let all = audit(&[(7, 0), (7, 1)]);
    let with = |answer: Operation| history(writes.iter().cloned().chain([answer]).collect());
    assert_eq!(rules(&with(read(1, 7, 2, 9, 10)), &all), [], "the second was just being sent");
    assert_eq!(rules(&with(read(1, 7, 2, 8, 9)), &all), [Rule::Doubled]);
    let total = |readings, ended| Operation { request: Request::Total, ..read(1, 7, readings, ended, ended) };
    assert_eq!(rules(&with(total(2, 10)), &all), []);
    assert_eq!(rules(&with(total(3, 10)), &all), [Rule::Doubled]);
}

#[test]
fn an_answer_lacks_nothing_that_its_own_session_was_told_is_there() {
    let writes = [write(0, 7, 0, vec![tried(0, 0, 5)]), write(3, 8, 0, vec![tried(0, 0, 5)])];
    let all = audit(&[(7, 0), (8, 0)]);
    let with = |answer: Operation| history(writes.iter().cloned().chain([answer]).collect());
    assert_eq!(rules(&with(read(0, 7, 0, 5, 6)), &all), [Rule::SilentlyPartial]);
    assert_eq!(rules(&with(read(0, 7, 0, 4, 9)), &all), [], "asked before it was acknowledged");
    assert_eq!(rules(&with(read(1, 7, 0, 5, 6)), &all), [], "another session was told");
    assert_eq!(rules(&with(read(0, 8, 0, 5, 6)), &all), [], "nothing of key 8 was told to this one");
    let total = |client, readings| Operation { request: Request::Total, ..read(client, 7, readings, 6, 7) };
    assert_eq!(rules(&with(total(0, 1)), &all), []);
    assert_eq!(rules(&with(total(0, 0)), &all), [Rule::SilentlyPartial]);
}

#[test]
fn what_a_retry_held_counts_from_when_it_was_sent() {
    // Asked at 1, sent again at 8: by then the session had its acknowledgement.
    let retried = Operation { attempts: vec![failed(0, 1, 8), tried(1, 8, 9)], ..read(0, 7, 0, 1, 9) };
    let history = history(vec![write(0, 7, 0, vec![tried(0, 0, 5)]), retried]);
    assert_eq!(rules(&history, &audit(&[(7, 0)])), [Rule::SilentlyPartial]);
}

#[test]
fn a_session_never_sees_less_than_it_has_seen() {
    let written = || (0..3).map(|n| write(9, 7, n, vec![tried(0, 0, 1)]));
    let all = audit(&[(7, 0), (7, 1), (7, 2)]);
    let with = |answers: Vec<Operation>| history(written().chain(answers).collect());
    let back = with(vec![read(0, 7, 3, 2, 4), read(0, 7, 2, 4, 6)]);
    assert_eq!(rules(&back, &all), [Rule::WentBack]);
    let crossed = with(vec![read(0, 7, 3, 2, 4), read(0, 7, 2, 3, 6)]);
    assert_eq!(rules(&crossed, &all), [], "it was under way before the other was there");
    let others = with(vec![read(0, 7, 3, 2, 4), read(1, 7, 2, 4, 6)]);
    assert_eq!(rules(&others, &all), [], "another session may be behind");
    let again = with(vec![read(0, 7, 3, 2, 4), read(0, 7, 1, 5, 6), read(0, 7, 2, 7, 8)]);
    assert_eq!(rules(&again, &all), [Rule::WentBack; 2], "the most that was ever seen counts");
}

#[test]
fn staleness_is_the_age_of_what_an_answer_lacked_when_it_was_asked_for() {
    let written = || [write(9, 7, 0, vec![tried(0, 0, 10)]), write(9, 7, 1, vec![tried(0, 0, 20)])];
    let with = |answer: Operation| judge(&history(written().into_iter().chain([answer]).collect()), None);
    assert_eq!(with(read(0, 7, 2, 100, 101)).staleness_ms, 0.0);
    assert_eq!(with(read(0, 7, 1, 100, 101)).staleness_ms, 80.0);
    assert_eq!(with(read(0, 7, 0, 100, 500)).staleness_ms, 90.0);
    assert_eq!(with(read(0, 7, 0, 9, 500)).staleness_ms, 0.0, "nothing was acknowledged then");
}

#[test]
fn a_stall_lasts_from_when_a_request_was_due_to_its_good_answer() {
    // The instrument was late by 3 ms, and one attempt failed.
    let slow = Operation { due_us: ms(97), ..write(2, 7, 0, vec![failed(0, 100, 200), tried(1, 200, 397)]) };
    let judgement = judge(
        &history(vec![slow, write(3, 8, 0, vec![tried(0, 100, 101)])]),
        Some(&audit(&[(7, 0), (8, 0)])),
    );
    let worst = judgement.stalls.worst(Class::Write).expect("there were writes");
    assert_eq!((worst.ms, worst.client, worst.key, worst.due_ms), (300.0, 2, Some(7), 97.0));
    assert!(!worst.unended);
    assert_eq!(judgement.stalls.clients[&Class::Write], [(2, 300.0), (3, 1.0)].into());
    assert_eq!(judgement.stalls.keys[&Class::Write], [(7, 300.0), (8, 1.0)].into());
    assert_eq!(judgement.stalls.worst(Class::Read), None);
    assert_eq!((judgement.errors, judgement.given_up, judgement.instrument_late_ms), (1, 0, 3.0));
}

#[test]
fn giving_up_ends_no_stall() {
    let gave_up = || write(2, 7, 0, vec![failed(0, 100, 150)]);
    let worst = |others: Vec<Operation>| {
        let all = history([gave_up()].into_iter().chain(others).collect());
        judge(&all, None).stalls.worst(Class::Write).expect("there was a write")
    };
    let next = |client, due, ended| write(client, 7, 1, vec![tried(0, due, ended)]);
    assert_eq!((worst(vec![next(2, 160, 190)]).ms, worst(vec![next(2, 160, 190)]).unended), (90.0, false));
    // What was due before it gave up says nothing of later; neither does another client, or a read.
    for other in [next(2, 120, 190), next(3, 160, 190), read(2, 7, 0, 160, 190)] {
        let stall = worst(vec![other]);
        assert_eq!((stall.ms, stall.unended), (90.0, true), "until the end, at 190");
    }
    assert_eq!(worst(vec![next(2, 160, 190), next(2, 170, 175)]).ms, 75.0, "the first good answer counts");
}

#[test]
fn a_stall_at_a_node_in_trouble_is_told_apart() {
    let mut history = history(vec![
        write(0, 1, 0, vec![failed(2, 100, 1100), tried(0, 1100, 1101)]),
        write(1, 2, 0, vec![tried(0, 100, 250)]),
        write(2, 3, 0, vec![failed(1, 100, 180), tried(0, 180, 181)]),
    ]);
    history.marks =
        vec![Mark { what: "pause".into(), nodes: [2].into(), from_us: ms(1000), to_us: ms(2000) }];
    let all = audit(&[(1, 0), (2, 0), (3, 0)]);
    let stalls = judge(&history, Some(&all)).stalls;
    assert_eq!((stalls.stranded[&Class::Write].ms, stalls.served[&Class::Write].ms), (1001.0, 150.0));
    assert_eq!(stalls.worst(Class::Write).map(|stall| stall.ms), Some(1001.0));
    // The same wait is the cluster's own doing at any other time, and where the node in trouble answered.
    for (from, to) in [(1101, 2000), (50, 99)] {
        (history.marks[0].from_us, history.marks[0].to_us) = (ms(from), ms(to));
        assert_eq!(judge(&history, Some(&all)).stalls.served[&Class::Write].ms, 1001.0, "{from} to {to}");
    }
    (history.marks[0].from_us, history.marks[0].nodes) = (ms(50), [0].into());
    history.marks[0].to_us = ms(2000);
    assert_eq!(judge(&history, Some(&all)).stalls.served[&Class::Write].ms, 1001.0);
}

#[test]
fn latencies_are_by_phase_and_by_rank() {
    let mut history = history((0..1000).map(|n| read(0, 1, 0, n, n + 1 + n % 100)).collect());
    history.marks = vec![Mark { what: "kill".into(), nodes: [0].into(), from_us: ms(200), to_us: ms(499) }];
    let latencies = judge(&history, Some(&audit(&[]))).latencies;
    let phases: Vec<_> = latencies.iter().map(|latency| (latency.phase, latency.answers)).collect();
    assert_eq!(phases, [(Phase::Before, 200), (Phase::During, 300), (Phase::After, 500)]);
    let before = &latencies[0];
    assert_eq!((before.p50_ms, before.p99_ms, before.p999_ms, before.max_ms), (50.0, 99.0, 100.0, 100.0));
    history.marks.clear();
    assert_eq!(judge(&history, Some(&audit(&[]))).latencies.len(), 1);
}

#[test]
fn what_failed_has_no_latency() {
    let history =
        history(vec![write(0, 1, 0, vec![failed(0, 0, 900)]), write(0, 1, 1, vec![tried(0, 0, 2)])]);
    let latencies = judge(&history, Some(&audit(&[(1, 1)]))).latencies;
    assert_eq!((latencies[0].answers, latencies[0].max_ms), (1, 2.0));
}
