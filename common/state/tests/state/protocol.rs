//! What a view partition accepts, refuses and never takes; audit and rebuild.

use std::sync::Arc;

use sanso_state::{
    Block, Cut, Delta, Difference, Entry, Extension, Fingerprint, GroupId, GroupState, Groups, LogPartition,
    MemoryRuns, Moving, Outcome, Part, SegmentId, SortedRun, Value, ViewPartition,
};

use crate::model::{config, kinds, view};
use crate::oracle::inputs;

fn id(key: i64, window_start: i64) -> GroupId {
    GroupId { key: Value::encode_key(&[Value::Int(key)]), window_start }
}

fn rows(updates: &[(i64, i64, i64, i64)]) -> Groups {
    let kinds = kinds();
    let mut groups = Groups::new();
    for (key, window, value, sign) in updates {
        groups.update_one(&kinds, &id(*key, *window), &inputs(&kinds, (Some(Some(*value)), *window)), *sign);
    }
    groups
}

fn delta(l: u32, from: u64, to: u64, groups: Groups) -> Delta {
    Delta { view: view(), partition: LogPartition(l), from, to, groups, watermark_us: None, idle: false }
}

fn block(version: u64, cut: &[u64], groups: Groups) -> Arc<Block> {
    let watermarks_us = vec![None; cut.len()];
    Arc::new(Block { view: view(), version, cut: Cut::new(cut.to_vec()), watermarks_us, groups })
}

fn empty() -> ViewPartition {
    ViewPartition::new(config(), Arc::new(Block::empty(view(), 2)))
}

fn sums(found: &[(GroupId, GroupState)]) -> Vec<(GroupId, Value)> {
    let kinds = kinds();
    found.iter().map(|(id, state)| (id.clone(), kinds[1].finish(&state.aggregates[1]))).collect()
}

#[test]
fn only_the_delta_that_continues_is_accepted() {
    let mut held = empty();
    let one = || rows(&[(1, 0, 5, 1)]);
    assert_eq!(held.apply(Entry::Delta(delta(0, 0, 3, one()))), Outcome::Accepted { applied: 3 });
    for (from, to) in [(0, 3), (2, 3), (0, 4), (4, 5), (0, 0), (5, 5)] {
        let groups = if to > from { one() } else { Groups::new() };
        let outcome = held.apply(Entry::Delta(delta(0, from, to, groups)));
        assert_eq!(outcome, Outcome::Refused { from, applied: 3 });
    }
    assert_eq!(held.applied(), [3, 0]);
    assert_eq!(sums(&held.all()), [(id(1, 0), Value::Decimal(5))]);
    assert_eq!(held.apply(Entry::Delta(delta(0, 3, 3, Groups::new()))), Outcome::Accepted { applied: 3 });
}

#[test]
fn malformed_deltas_are_never_taken() {
    let mut held = empty();
    let invalid = |held: &mut ViewPartition, delta: Delta| match held.apply(Entry::Delta(delta)) {
        Outcome::Invalid(reason) => reason,
        other => panic!("{other:?}"),
    };
    let foreign = Delta { view: Fingerprint::of(b"another"), ..delta(0, 0, 1, rows(&[(1, 0, 5, 1)])) };
    assert!(invalid(&mut held, foreign).contains("view version"));
    assert!(invalid(&mut held, delta(2, 0, 1, Groups::new())).contains("unknown log partition"));
    assert!(invalid(&mut held, delta(0, 0, 5, Groups::new())).contains("boundary"));
    assert!(invalid(&mut held, delta(0, 3, 1, Groups::new())).contains("boundary"));
    assert!(invalid(&mut held, delta(0, 0, 0, rows(&[(1, 0, 5, 1)]))).contains("no offsets"));
    assert_eq!(held.applied(), [0, 0]);
    assert!(held.all().is_empty());
    assert_eq!(held.apply(Entry::Delta(delta(0, 0, 4, Groups::new()))), Outcome::Accepted { applied: 4 });
}

#[test]
fn a_block_is_adopted_only_when_newer_whole_and_further() {
    let mut held = ViewPartition::new(config(), block(2, &[8, 4], Groups::new()));
    let apply = |held: &mut ViewPartition, block| held.apply(Entry::Adopt(block));
    assert_eq!(apply(&mut held, block(2, &[12, 4], Groups::new())), Outcome::Stale);
    assert_eq!(apply(&mut held, block(1, &[4, 4], Groups::new())), Outcome::Stale);
    for (cut, why) in [(vec![8, 6], "within"), (vec![12, 0], "goes back"), (vec![8], "number")] {
        let Outcome::Invalid(reason) = apply(&mut held, block(3, &cut, Groups::new())) else {
            panic!("{cut:?}")
        };
        assert!(reason.contains(why), "{reason}");
    }
    let foreign = Block { view: Fingerprint::of(b"another"), ..(*block(3, &[8, 4], Groups::new())).clone() };
    assert!(matches!(apply(&mut held, Arc::new(foreign)), Outcome::Invalid(_)));
    let short = Block { watermarks_us: vec![], ..(*block(3, &[8, 4], Groups::new())).clone() };
    assert!(matches!(apply(&mut held, Arc::new(short)), Outcome::Invalid(_)));
    assert_eq!((held.version(), held.applied()), (2, &[8, 4][..]));
    assert_eq!(apply(&mut held, block(5, &[8, 12], Groups::new())), Outcome::Adopted);
    assert_eq!((held.version(), held.applied()), (5, &[8, 12][..]));
}

#[test]
fn an_extension_is_adopted_on_its_version_alone_and_changes_no_other_holder_of_it() {
    let before = block(2, &[8, 4], rows(&[(1, 0, 5, 1), (2, 0, 7, 1)]));
    let mut held = ViewPartition::new(config(), Arc::clone(&before));
    held.apply(Entry::Delta(delta(0, 8, 12, rows(&[(1, 0, 5, -1), (1, 0, 9, 1)]))));
    let extension = |of, version, cut: &[u64]| {
        Entry::Extend(Extension { of, added: block(version, cut, rows(&[(1, 0, 5, -1), (1, 0, 9, 1)])) })
    };
    assert_eq!(held.apply(extension(1, 2, &[12, 4])), Outcome::Stale);
    assert_eq!(held.apply(extension(1, 3, &[12, 4])), Outcome::NotHeld);
    assert_eq!(held.apply(extension(3, 4, &[12, 4])), Outcome::NotHeld);
    for cut in [vec![8, 6], vec![4, 4], vec![8]] {
        assert!(matches!(held.apply(extension(2, 3, &cut)), Outcome::Invalid(_)), "{cut:?}");
    }
    assert_eq!((held.version(), held.group_counts()), (2, (2, 1)));
    assert_eq!(held.apply(extension(2, 3, &[12, 4])), Outcome::Adopted);
    let base = held.snapshot().expect("it is in memory").base;
    assert_eq!(base, block(3, &[12, 4], rows(&[(1, 0, 9, 1), (2, 0, 7, 1)])));
    assert_eq!((held.applied(), held.group_counts()), (&[12, 4][..], (3, 0)), "one is in both");
    assert_eq!(before, block(2, &[8, 4], rows(&[(1, 0, 5, 1), (2, 0, 7, 1)])));
}

#[test]
#[should_panic(expected = "cut within a segment")]
fn a_view_partition_does_not_start_within_a_segment() {
    ViewPartition::new(config(), block(1, &[3, 0], Groups::new()));
}

#[test]
fn adoption_drops_what_batch_covers_and_keeps_what_is_ahead() {
    let mut held = empty();
    held.apply(Entry::Delta(delta(0, 0, 4, rows(&[(1, 0, 5, 1)]))));
    held.apply(Entry::Delta(delta(0, 4, 6, rows(&[(1, 0, 70, 1)]))));
    held.apply(Entry::Delta(delta(1, 0, 2, rows(&[(1, 0, 100, 1)]))));
    assert_eq!(held.group_counts(), (0, 1));
    // Batch is ahead of log partition 1, behind log partition 0.
    held.apply(Entry::Adopt(block(1, &[4, 4], rows(&[(1, 0, 5, 1), (1, 0, 100, 1), (2, 0, 1000, 1)]))));
    assert_eq!(held.applied(), [6, 4]);
    let expected = [(id(1, 0), Value::Decimal(175)), (id(2, 0), Value::Decimal(1000))];
    assert_eq!(sums(&held.all()), expected);
    let late = held.apply(Entry::Delta(delta(1, 2, 4, rows(&[(2, 0, 1000, 1)]))));
    assert_eq!(late, Outcome::Refused { from: 2, applied: 4 });
    held.apply(Entry::Adopt(block(2, &[8, 4], rows(&[(1, 0, 180, 1)]))));
    assert_eq!(held.group_counts(), (1, 0));
    assert_eq!(held.applied(), [8, 4]);
}

#[test]
fn presence_is_the_row_count_and_never_the_sum() {
    let mut held = empty();
    held.apply(Entry::Delta(delta(0, 0, 1, rows(&[(1, 0, 5, 1), (1, 0, -5, 1), (2, 0, 0, 1)]))));
    assert_eq!(sums(&held.all()), [(id(1, 0), Value::Decimal(0)), (id(2, 0), Value::Decimal(0))]);
    held.apply(Entry::Delta(delta(0, 1, 2, rows(&[(2, 0, 0, -1)]))));
    assert_eq!(sums(&held.all()), [(id(1, 0), Value::Decimal(0))]);
}

#[test]
fn a_group_without_rows_is_not_shown_whatever_else_it_holds() {
    let mut held = empty();
    // Retractions of rows that were never added, as only a fault makes them.
    held.apply(Entry::Delta(delta(0, 0, 1, rows(&[(1, 0, 5, -1), (2, 0, 5, -1), (2, 0, 7, 1)]))));
    assert!(held.all().is_empty());
    assert_eq!(held.group_counts(), (0, 2));
}

#[test]
fn a_correction_of_a_batch_row_waits_with_no_rows_but_a_sum() {
    let mut held = ViewPartition::new(config(), block(1, &[4, 0], rows(&[(1, 0, 5, 1)])));
    held.apply(Entry::Delta(delta(0, 4, 5, rows(&[(1, 0, 5, -1), (1, 0, 9, 1)]))));
    assert_eq!(sums(&held.all()), [(id(1, 0), Value::Decimal(9))]);
    held.apply(Entry::Delta(delta(0, 5, 6, rows(&[(1, 0, 9, -1)]))));
    assert!(held.all().is_empty());
    assert_eq!(held.group_counts(), (1, 1), "negative until it is combined");
}

#[test]
fn ranges_are_half_open_in_windows() {
    let base = rows(&[(1, 0, 1, 1), (1, 10, 2, 1), (2, 0, 3, 1)]);
    let mut held = ViewPartition::new(config(), block(1, &[4, 0], base));
    held.apply(Entry::Delta(delta(
        1,
        0,
        1,
        rows(&[(1, -10, 4, 1), (1, 10, 5, 1), (1, 20, 6, 1), (3, 0, 7, 1)]),
    )));
    let key = |key: i64| Value::encode_key(&[Value::Int(key)]);
    let found = |found: Vec<(GroupId, GroupState)>| sums(&found);
    let sum = |key, window, sum| (id(key, window), Value::Decimal(sum));
    assert_eq!(found(held.range(&key(1), 0, 20)), [sum(1, 0, 1), sum(1, 10, 7)]);
    assert!(held.range(&key(1), 20, 0).is_empty());
    assert_eq!(held.all().len(), 6);
}

#[test]
fn a_scan_of_many_groups_shows_them_as_they_were_when_it_began() {
    let many: Vec<_> = (0..10_000).map(|key| (key / 2, key % 2 * 10, 1, 1)).collect();
    let mut held = ViewPartition::new(config(), block(1, &[4, 0], rows(&many)));
    // One has more, one is gone, one is new.
    let since = [(1, 0, 5, 1), (2, 0, 1, -1), (7_000, 0, 3, 1)];
    held.apply(Entry::Delta(delta(1, 0, 1, rows(&since))));
    let scan = held.reading(Part::of(None, 0, 10));
    assert!(scan.takes_long());
    let key = Value::encode_key(&[Value::Int(1)]);
    assert!(!held.reading(Part::of(Some(&key), 0, 10)).takes_long());
    held.apply(Entry::Delta(delta(1, 1, 2, rows(&[(1, 0, 100, 1)]))));
    let added = block(2, &[8, 0], rows(&[(3, 0, 100, 1)]));
    assert_eq!(held.apply(Entry::Extend(Extension { of: 1, added })), Outcome::Adopted);
    let value = |key| Value::Decimal(if key == 1 { 6 } else { 1 });
    let mut expected: Vec<_> =
        (0..5_000).filter(|key| *key != 2).map(|key| (id(key, 0), value(key))).collect();
    expected.push((id(7_000, 0), Value::Decimal(3)));
    let found = sums(&scan.finish().expect("it is in memory"));
    assert!(found.is_sorted_by_key(|(id, _)| id.clone()));
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(found, expected);
    assert_eq!(sums(&held.range(&key, 0, 10)), [(id(1, 0), Value::Decimal(106))]);
}

#[test]
fn what_comes_meanwhile_is_not_in_the_way_of_what_is_moved_but_another_base_is() {
    let mut held = ViewPartition::new(config(), block(1, &[4, 0], rows(&[(1, 0, 1, 1)])));
    let written = |moved: &Moving| moved.write(&config().kinds, &MemoryRuns).expect("it is in memory");
    let extension = |of, version, cut: u64| {
        let added = block(version, &[cut, 0], rows(&[(1, 0, 2, 1)]));
        Entry::Extend(Extension { of, added })
    };
    let moved = held.to_spill(1).expect("a group");
    assert_eq!((held.group_counts().0, held.run_groups()), (1, 0), "it is in memory until it is written");
    assert_eq!(held.apply(extension(1, 2, 8)), Outcome::Adopted);
    let again = held.to_spill(1).expect("what could not be written yet");
    let run = written(&moved);
    assert!(held.spilled(&moved, &run));
    assert!(!held.spilled(&again, &run), "it is there");
    assert_eq!((held.group_counts().0, held.run_groups()), (1, 1), "what came meanwhile is in memory");
    let loading = held.to_load().expect("a run");
    assert_eq!(held.apply(extension(2, 3, 12)), Outcome::Adopted);
    assert!(held.loaded(&loading, &mut loading.read().expect("it is in memory")));
    assert_eq!(sums(&held.all()), [(id(1, 0), Value::Decimal(5))]);
    let late = held.to_spill(1).expect("a group");
    assert_eq!(held.apply(Entry::Adopt(block(4, &[16, 0], rows(&[(1, 0, 9, 1)])))), Outcome::Adopted);
    assert!(held.runs().is_empty(), "the new base is all there is");
    assert!(!held.spilled(&late, &written(&late)), "another base is there");
    assert!(!held.loaded(&late, &mut Groups::new()));
    assert_eq!(sums(&held.all()), [(id(1, 0), Value::Decimal(9))]);
}

#[test]
fn an_extension_that_is_large_or_of_a_base_that_is_shared_takes_its_place_beside_it() {
    let several = |keys: std::ops::Range<i64>| rows(&keys.map(|key| (key, 0, 1, 1)).collect::<Vec<_>>());
    let extension = |of: u64, groups| {
        let added = block(of + 1, &[4 * (of + 1), 0], groups);
        Entry::Extend(Extension { of, added })
    };
    let mut held = empty();
    held.apply(extension(0, several(0..1_000)));
    assert_eq!((held.runs_in_memory(), held.group_counts()), (0, (1_000, 0)), "it is added where it is");
    let base = Arc::as_ptr(held.base().expect("it is one block"));
    held.apply(extension(1, several(500..40_000)));
    assert_eq!((held.runs_in_memory(), held.run_groups(), held.version()), (1, 0, 2));
    assert_eq!(Arc::as_ptr(&held.runs()[0]).cast(), base, "it was not copied");
    assert_eq!(
        sums(&held.range(&Value::encode_key(&[Value::Int(700)]), 0, 1)),
        [(id(700, 0), Value::Decimal(2))]
    );
    let shared = held.clone();
    held.apply(extension(2, several(0..1)));
    assert_eq!((shared.version(), shared.all().len()), (2, 40_000));
    assert_eq!((held.runs_in_memory(), held.all().len()), (2, 40_000));
    assert!(held.reading(Part::ALL).takes_long(), "so many are added up apart");
    // The newer is much larger, so both become one.
    let moved = held.to_unite().expect("two runs");
    held.apply(extension(3, several(0..1)));
    let run: Arc<dyn SortedRun> = Arc::new(moved.read().expect("it is in memory"));
    assert!(held.spilled(&moved, &run) && held.to_unite().is_none());
    assert_eq!((held.runs_in_memory(), held.group_counts().0), (1, 40_001));
    assert_eq!(
        sums(&held.range(&Value::encode_key(&[Value::Int(0)]), 0, 1)),
        [(id(0, 0), Value::Decimal(3))]
    );
}

#[test]
fn runs_are_few_and_a_group_is_written_a_few_times() {
    let mut held = empty();
    let (mut written, mut most) = (0, 0);
    for version in 1..=1000 {
        let cut = [4 * version, 0];
        let added = block(version, &cut, rows(&[(version as i64, 0, 1, 1)]));
        assert_eq!(held.apply(Entry::Extend(Extension { of: version - 1, added })), Outcome::Adopted);
        let moved = held.to_spill(1).expect("a group");
        let run = moved.write(&config().kinds, &MemoryRuns).expect("it is in memory");
        written += run.groups();
        assert!(held.spilled(&moved, &run));
        most = most.max(held.runs().len());
    }
    assert_eq!(held.all().len(), 1000);
    assert!(most <= 10 && written <= 1000 * 10, "{most} runs, {written} groups are written");
}

#[test]
fn the_audit_names_every_group_that_differs_and_a_rebuild_heals_it() {
    let segment = SegmentId { partition: LogPartition(0), index: 0 };
    let right = rows(&[(1, 0, 5, 1), (2, 0, 6, 1)]);
    let wrong = rows(&[(1, 0, 5, 1), (2, 0, 7, 1), (3, 0, 8, 1)]);
    let mut held = empty();
    held.apply(Entry::Delta(delta(0, 0, 2, wrong.clone())));
    assert_eq!(held.audit(segment, &right), None, "not complete");
    assert_eq!(held.apply(Entry::Rebuild(segment, right.clone())), Outcome::NotHeld);
    held.apply(Entry::Delta(delta(0, 2, 4, Groups::new())));
    held.apply(Entry::Delta(delta(0, 4, 5, rows(&[(1, 0, 100, 1)]))));
    let of = |groups: &Groups, id: &GroupId| groups.get(id);
    let difference =
        |group: GroupId| Difference { segment, speed: of(&wrong, &group), batch: of(&right, &group), group };
    assert_eq!(held.audit(segment, &right), Some(vec![difference(id(2, 0)), difference(id(3, 0))]));
    assert_eq!(held.apply(Entry::Rebuild(segment, right.clone())), Outcome::Rebuilt);
    assert_eq!(held.audit(segment, &right), Some(vec![]));
    assert_eq!(sums(&held.all()), [(id(1, 0), Value::Decimal(105)), (id(2, 0), Value::Decimal(6))]);
    held.apply(Entry::Adopt(block(1, &[4, 0], right.clone())));
    assert_eq!(held.audit(segment, &right), None, "covered by batch");
    assert_eq!(held.apply(Entry::Rebuild(segment, right)), Outcome::NotHeld);
    let unknown = SegmentId { partition: LogPartition(9), index: 0 };
    assert_eq!(held.audit(unknown, &Groups::new()), None);
}

#[test]
fn the_audit_finds_a_fault_that_no_result_shows() {
    // Equal count and sum; only the multiset of values tells.
    let segment = SegmentId { partition: LogPartition(1), index: 0 };
    let mut held = empty();
    held.apply(Entry::Delta(delta(1, 0, 4, rows(&[(1, 0, 2, 1), (1, 0, 2, 1), (1, 0, 5, 1)]))));
    let batch = rows(&[(1, 0, 1, 1), (1, 0, 3, 1), (1, 0, 5, 1)]);
    assert_eq!(held.audit(segment, &batch).expect("complete").len(), 1);
    // A segment without groups must be found empty by batch too.
    held.apply(Entry::Delta(delta(0, 0, 4, Groups::new())));
    let silent = SegmentId { partition: LogPartition(0), index: 0 };
    assert_eq!(held.complete_segments(), [silent, segment]);
    assert_eq!(held.audit(silent, &batch).expect("complete").len(), 1);
    assert_eq!(held.audit(silent, &Groups::new()), Some(vec![]));
}
