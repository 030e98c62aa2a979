//! Windows close once, late readings amend them, and nothing holds the
//! watermark back for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use sanso_state::{
    Block, Cut, Delta, Emission, Entry, GroupId, GroupState, Groups, LogPartition, Outcome, SegmentId, Value,
    ViewPartition, Watermark, Windows,
};

use crate::model::*;
use crate::oracle::{cases, inputs};

/// Windows of `panes` panes, one starting at each pane.
#[derive(Debug)]
pub(crate) struct Panes(pub(crate) i64);

impl Windows for Panes {
    fn windows_of(&self, pane_start: i64) -> Vec<(i64, i64)> {
        let starts = (0..self.0).map(|i| pane_start - i * PANE_US);
        starts.map(|start| (start, start + self.0 * PANE_US)).collect()
    }
}

/// What a consumer of emissions knows.
#[derive(Default)]
struct Consumer {
    newest: BTreeMap<GroupId, Option<GroupState>>,
    closed_once: BTreeSet<GroupId>,
}

impl Consumer {
    fn consume(&mut self, emission: Emission) -> Result<(), TestCaseError> {
        if emission.late {
            let news = self.newest.get(&emission.group) != Some(&emission.state);
            prop_assert!(news || emission.state.is_none() || self.newest.contains_key(&emission.group));
        } else {
            prop_assert!(emission.state.is_some(), "an empty window closes silently");
            prop_assert!(
                self.closed_once.insert(emission.group.clone()),
                "closed twice: {:?}",
                emission.group
            );
            prop_assert!(!self.newest.contains_key(&emission.group), "amended before it closed");
        }
        self.newest.insert(emission.group, emission.state);
        Ok(())
    }

    /// Everything that has closed is known as it is now, and nothing else.
    fn check(
        &self,
        now: &BTreeMap<GroupId, GroupState>,
        closed_until: i64,
        size: i64,
    ) -> Result<(), TestCaseError> {
        for (group, state) in now {
            let known = self.newest.get(group).cloned().flatten();
            let closed = group.window_start + size <= closed_until;
            prop_assert_eq!(known.as_ref(), closed.then_some(state), "window {:?}", group);
        }
        for (group, state) in &self.newest {
            prop_assert_eq!(state.as_ref(), now.get(group), "window {:?}", group);
        }
        Ok(())
    }
}

fn windows_now(groups: Groups, windows: &Panes) -> BTreeMap<GroupId, GroupState> {
    let mut now: BTreeMap<GroupId, GroupState> = BTreeMap::new();
    for (pane, state) in groups.iter() {
        for (window_start, _) in windows.windows_of(pane.window_start) {
            let id = GroupId { key: pane.key.clone(), window_start };
            now.entry(id).or_insert_with(|| GroupState::zero(&kinds())).combine(&state);
        }
    }
    now
}

proptest! {
    #![proptest_config(cases(800))]
    #[test]
    fn windows_are_emitted_when_they_close_and_whenever_they_change_after(
        history in history(), steps in steps(), panes in prop_oneof![Just(1_i64), Just(3)],
    ) {
        let mut published = Published::new();
        let mut held = emitting(published.newest(), panes);
        let mut consumer = Consumer::default();
        let mut watermark = held.watermark_us();
        for step in steps {
            if take(&mut held, &mut published, &history, &step, panes) {
                (consumer, watermark) = (Consumer::default(), None);
            }
            for emission in held.take_emissions() {
                prop_assert!(Some(emission.window_end) <= held.watermark_us());
                consumer.consume(emission)?;
            }
            let now = windows_now(history.surviving(held.applied()), &Panes(panes));
            consumer.check(&now, held.closed_until_us(), panes * PANE_US)?;
            prop_assert!(held.watermark_us() >= watermark, "the watermark went back");
            watermark = held.watermark_us();
            prop_assert_eq!(held.violated_invariant(), None);
        }
    }
}

/// A view partition that emits from the beginning.
fn emitting(base: Arc<Block>, panes: i64) -> ViewPartition {
    let mut held = ViewPartition::new(config(), base);
    assert!(held.emit(Arc::new(Panes(panes))));
    held
}

/// Takes one step; says whether all that has closed is emitted again.
fn take(
    held: &mut ViewPartition,
    published: &mut Published,
    history: &History,
    step: &Step,
    panes: i64,
) -> bool {
    match step {
        Step::Next { l, length, idle } => {
            let delta = next_delta(history, held, *l, *length, *idle);
            held.apply(Entry::Delta(delta));
        }
        Step::Any { l, shift, length } => {
            let from = held.applied()[*l].saturating_add_signed(*shift).min(history.head(*l));
            let to = (from + length).min(history.head(*l));
            held.apply(Entry::Delta(history.delta(*l, from, to)));
        }
        Step::Publish { segments } => published.publish(history, segments),
        Step::Adopt { which } => {
            held.apply(Entry::Adopt(which.get(&published.0).clone()));
        }
        Step::AdoptNewest => {
            held.apply(Entry::Adopt(published.newest()));
        }
        Step::Extend { of, which } => {
            let (of, to) = (of.get(&published.0).clone(), which.get(&published.0).clone());
            held.apply(Entry::Extend(published.extension(&of, &to)));
        }
        Step::ExtendToNewest { shared } => {
            let _copy = shared.then(|| held.copy());
            held.apply(Entry::Extend(published.newest_of(held.version())));
        }
        Step::Spill { least } => assert!(held.to_spill(*least).is_none(), "what emits stays in memory"),
        Step::FailToSpill => assert!(held.to_spill(1).is_none()),
        Step::Load | Step::Unite => assert!(held.to_load().is_none() && held.to_unite().is_none()),
        Step::Mend { which } => _ = held.mend(which.get(&published.0)),
        Step::Lose => {
            *held = emitting(published.newest(), panes);
            held.offer(&held.group_ids());
            return true;
        }
        Step::Rebuild { which } => {
            let complete = held.complete_segments();
            if !complete.is_empty() {
                let id = *which.get(&complete);
                held.apply(Entry::Rebuild(id, history.contribution(id)));
            }
        }
    }
    false
}

fn one_row(window_start: i64, value: i64, sign: i64) -> Groups {
    let kinds = kinds();
    let id = GroupId { key: Value::encode_key(&[Value::Int(1)]), window_start };
    let mut groups = Groups::new();
    groups.update_one(&kinds, &id, &inputs(&kinds, (Some(Some(value)), window_start)), sign);
    groups
}

fn delta(l: u32, from: u64, to: u64, groups: Groups, watermark_us: Option<i64>) -> Entry {
    Entry::Delta(Delta {
        view: view(),
        partition: LogPartition(l),
        from,
        to,
        groups,
        watermark_us,
        idle: false,
    })
}

fn idle(l: u32, at: u64) -> Entry {
    let Entry::Delta(heartbeat) = delta(l, at, at, Groups::new(), None) else { unreachable!("a delta") };
    Entry::Delta(Delta { idle: true, ..heartbeat })
}

fn tumbling(partitions: u32) -> ViewPartition {
    emitting(Arc::new(Block::empty(view(), partitions)), 1)
}

fn brief(emissions: &[Emission]) -> Vec<(i64, Option<i64>, bool)> {
    emissions.iter().map(|e| (e.group.window_start, e.state.as_ref().map(|s| s.rows), e.late)).collect()
}

#[test]
fn a_window_closes_when_the_last_log_partition_has_passed_it() {
    let mut held = tumbling(2);
    held.apply(delta(0, 0, 1, one_row(0, 5, 1), Some(50)));
    assert_eq!(held.watermark_us(), None, "the other partition may still bring anything");
    assert!(held.take_emissions().is_empty());
    held.apply(delta(1, 0, 1, one_row(0, 6, 1), Some(9)));
    assert!(held.take_emissions().is_empty(), "the window ends at 10");
    held.apply(delta(1, 1, 2, Groups::new(), Some(10)));
    assert_eq!(brief(&held.take_emissions()), [(0, Some(2), false)]);
    held.apply(delta(1, 2, 3, Groups::new(), Some(30)));
    assert!(held.take_emissions().is_empty(), "closed once");
    assert_eq!(held.late_groups(), 0);
}

#[test]
fn late_readings_amend_a_closed_window_down_to_none() {
    let mut held = tumbling(1);
    held.apply(delta(0, 0, 1, one_row(0, 5, 1), Some(10)));
    assert_eq!(brief(&held.take_emissions()), [(0, Some(1), false)]);
    held.apply(delta(0, 1, 2, one_row(0, 6, 1), Some(10)));
    assert_eq!(brief(&held.take_emissions()), [(0, Some(2), true)]);
    held.apply(delta(0, 2, 3, one_row(0, 5, -1), Some(10)));
    held.apply(delta(0, 3, 4, one_row(0, 6, -1), Some(10)));
    assert_eq!(brief(&held.take_emissions()), [(0, Some(1), true), (0, None, true)]);
    assert_eq!(held.late_groups(), 3);
}

#[test]
fn a_window_whose_rows_vanish_before_it_closes_is_not_emitted() {
    let mut held = tumbling(1);
    held.apply(delta(0, 0, 1, one_row(0, 5, 1), Some(1)));
    held.apply(delta(0, 1, 2, one_row(0, 5, -1), Some(100)));
    assert!(held.take_emissions().is_empty());
}

#[test]
fn idle_log_partitions_do_not_hold_the_watermark_back() {
    let mut held = tumbling(2);
    held.apply(delta(0, 0, 1, one_row(0, 5, 1), Some(50)));
    held.apply(idle(1, 0));
    assert_eq!(held.watermark_us(), Some(50));
    assert_eq!(brief(&held.take_emissions()), [(0, Some(1), false)]);
    held.apply(delta(1, 0, 1, one_row(0, 6, 1), Some(7)));
    assert_eq!(held.watermark_us(), Some(50), "back from idling, it does not take the watermark back");
    assert_eq!(brief(&held.take_emissions()), [(0, Some(2), true)]);
    held.apply(delta(1, 1, 2, Groups::new(), Some(20)));
    held.apply(idle(0, 1));
    assert_eq!(held.watermark_us(), Some(50));
    held.apply(idle(1, 2));
    assert_eq!(held.watermark_us(), Some(50), "all idle: as far as the furthest");
}

#[test]
fn a_refused_delta_moves_no_watermark_and_closes_nothing() {
    let mut held = tumbling(1);
    held.apply(delta(0, 0, 1, one_row(0, 5, 1), Some(1)));
    let refused = held.apply(delta(0, 3, 4, Groups::new(), Some(90)));
    assert_eq!(refused, Outcome::Refused { from: 3, applied: 1 });
    assert_eq!(held.watermark_us(), Some(1));
    assert!(held.take_emissions().is_empty());
}

#[test]
fn adopting_what_was_applied_anyway_emits_nothing_again() {
    let mut held = tumbling(1);
    held.apply(delta(0, 0, 4, one_row(0, 5, 1), Some(10)));
    assert_eq!(held.take_emissions().len(), 1);
    let block = |version, offset, value| Block {
        view: view(),
        version,
        cut: Cut::new(vec![offset]),
        watermarks_us: vec![Some(10)],
        groups: one_row(0, value, 1),
    };
    held.apply(Entry::Adopt(Arc::new(block(1, 4, 5))));
    assert!(held.take_emissions().is_empty());
    held.apply(Entry::Adopt(Arc::new(block(2, 8, 7))));
    assert_eq!(brief(&held.take_emissions()), [(0, Some(1), true)], "batch ran ahead and changed it");
    held.apply(Entry::Adopt(Arc::new(block(3, 8, 9))));
    assert_eq!(held.take_emissions().len(), 1, "batch corrects itself");
}

#[test]
fn a_rebuild_amends_the_closed_windows_it_changes() {
    let mut held = tumbling(1);
    let both = |value| {
        let mut groups = one_row(0, value, 1);
        groups.combine(&one_row(10, 1, 1));
        groups
    };
    held.apply(delta(0, 0, 4, both(5), Some(20)));
    assert_eq!(held.take_emissions().len(), 2);
    let segment = SegmentId { partition: LogPartition(0), index: 0 };
    held.apply(Entry::Rebuild(segment, both(6)));
    assert_eq!(brief(&held.take_emissions()), [(0, Some(1), true)], "the other is as it was");
}

#[test]
fn batch_running_ahead_brings_its_watermark_and_closes_windows() {
    let mut held = tumbling(2);
    held.apply(delta(0, 0, 1, one_row(0, 5, 1), Some(40)));
    assert_eq!(held.watermark_us(), None);
    let mut groups = one_row(0, 5, 1);
    groups.combine(&one_row(20, 5, 1));
    let watermarks_us = vec![Some(30), Some(25)];
    let block = Block { view: view(), version: 1, cut: Cut::new(vec![4, 4]), watermarks_us, groups };
    held.apply(Entry::Adopt(Arc::new(block)));
    assert_eq!(held.watermark_us(), Some(25));
    assert_eq!(brief(&held.take_emissions()), [(0, Some(1), false)]);
    held.apply(delta(1, 4, 5, Groups::new(), Some(90)));
    assert_eq!(held.watermark_us(), Some(40), "what was known of the first is not forgotten");
}

#[test]
fn who_begins_to_emit_is_offered_what_has_closed_and_what_waits() {
    let mut groups = one_row(0, 5, 1);
    groups.combine(&one_row(10, 5, 1));
    groups.combine(&one_row(20, 5, 1));
    let cut = Cut::new(vec![4]);
    let block = Arc::new(Block { view: view(), version: 3, cut, watermarks_us: vec![Some(20)], groups });
    let mut held = emitting(block, 1);
    assert!(held.take_emissions().is_empty(), "nothing is offered");
    held.offer(&held.group_ids());
    let mut offered = brief(&held.take_emissions());
    offered.sort();
    assert_eq!(offered, [(0, Some(1), false), (10, Some(1), false)]);
    held.apply(delta(0, 4, 5, Groups::new(), Some(30)));
    assert_eq!(brief(&held.take_emissions()), [(20, Some(1), false)], "it was open");
    let gone = GroupId { window_start: 40, ..held.group_ids()[0].clone() };
    held.offer_windows([(gone, 30)]);
    assert_eq!(brief(&held.take_emissions()), [(40, None, false)], "it has no rows, and may have had some");
    held.stop_emitting();
    held.apply(delta(0, 5, 6, one_row(0, 5, 1), Some(90)));
    held.offer(&held.group_ids());
    assert!(held.take_emissions().is_empty());
}

#[test]
fn an_event_from_the_far_future_does_not_advance_the_watermark() {
    let mut watermark = Watermark::new(5, 100);
    assert_eq!(watermark.value(), None);
    watermark.observe(1_000, 950);
    assert_eq!(watermark.value(), Some(995));
    watermark.observe(5_000, 960);
    assert_eq!(watermark.value(), Some(995), "4,040 after its append time");
    watermark.observe(1_060, 960);
    assert_eq!(watermark.value(), Some(1_055), "exactly as far as allowed");
    watermark.observe(10, 960);
    assert_eq!(watermark.value(), Some(1_055), "an old event does not take it back");
    let resumed = Watermark::new(5, 100).resume(watermark.max_event_us());
    assert_eq!(resumed, watermark);
    watermark.observe(i64::MAX, i64::MAX);
    assert_eq!(watermark.value(), Some(i64::MAX - 5));
}
