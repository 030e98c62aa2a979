//! The law: batch before the cut ⊕ speed after it = a naive fold of everything,
//! at every prefix, whatever was replayed, refused, adopted, lost or rebuilt.

use std::sync::Arc;

use proptest::prelude::*;
use sanso_state::{
    Block, Entry, LogPartition, MemoryRuns, Outcome, RunError, SegmentId, Snapshot, SortedRun, ViewPartition,
    encode_groups,
};

use crate::model::*;
use crate::oracle::cases;
use crate::windows::Panes;

proptest! {
    #![proptest_config(cases(1500))]
    #[test]
    fn answers_are_a_fold_over_everything_applied(history in history(), steps in steps()) {
        let mut published = Published::new();
        let mut held = ViewPartition::new(config(), published.newest());
        for step in steps {
            take(&mut held, &mut published, &history, &step)?;
            prop_assert_eq!(held.all(), listed(history.surviving(held.applied())), "after {:?}", step);
            prop_assert_eq!(held.violated_invariant(), None);
            audit_is_clean(&held, &history)?;
        }
    }

    #[test]
    fn a_copy_goes_on_as_the_original(history in history(), steps in steps(), panes in 0_i64..3) {
        let mut published = Published::new();
        let mut held = ViewPartition::new(config(), published.newest());
        if panes > 0 {
            held.emit(Arc::new(Panes(panes)));
        }
        for step in steps {
            let mut copy = copied(&held);
            if held.is_emitting() {
                prop_assert!(copy.emit(Arc::new(Panes(panes))));
            }
            take(&mut held, &mut published.clone(), &history, &step)?;
            take(&mut copy, &mut published, &history, &step)?;
            prop_assert_eq!(copy.snapshot(), held.snapshot());
            prop_assert_eq!(put_together(&held), held.snapshot());
            prop_assert_eq!(held.snapshot().map(|snapshot| snapshot.base), Ok(standing_on(&published, &held)));
            prop_assert_eq!(copy.all(), held.all());
            audit_is_clean(&copy, &history)?;
        }
    }

    #[test]
    fn contributions_are_the_difference_of_batch_versions(history in history(), advance in [0_u64..3, 0..3, 0..3]) {
        let mut published = Published::new();
        published.publish(&history, &[1, 1, 1]);
        let before = published.newest();
        published.publish(&history, &advance);
        let after = published.newest();
        let mut sum = before.groups.clone();
        for (l, (&from, &to)) in before.cut.offsets().iter().zip(after.cut.offsets()).enumerate() {
            for index in from / SEGMENT..to / SEGMENT {
                sum.combine(&history.contribution(SegmentId { partition: LogPartition(l as u32), index }));
            }
        }
        prop_assert_eq!(&sum, &after.groups);
    }
}

/// Takes one step and checks its outcome.
fn take(
    held: &mut ViewPartition,
    published: &mut Published,
    history: &History,
    step: &Step,
) -> Result<(), TestCaseError> {
    match step {
        Step::Next { l, length, idle } => {
            let delta = next_delta(history, held, *l, *length, *idle);
            let accepted = Outcome::Accepted { applied: delta.to };
            prop_assert_eq!(held.apply(Entry::Delta(delta)), accepted);
        }
        Step::Any { l, shift, length } => {
            let applied = held.applied()[*l];
            let from = applied.saturating_add_signed(*shift).min(history.head(*l));
            let to = (from + length).min(history.head(*l));
            let outcome = held.apply(Entry::Delta(history.delta(*l, from, to)));
            if to > from && from / SEGMENT != (to - 1) / SEGMENT {
                prop_assert!(matches!(outcome, Outcome::Invalid(_)), "{:?}", outcome);
            } else if from == applied {
                prop_assert_eq!(outcome, Outcome::Accepted { applied: to });
            } else {
                prop_assert_eq!(outcome, Outcome::Refused { from, applied });
            }
        }
        Step::Publish { segments } => published.publish(history, segments),
        Step::Adopt { which } => {
            let block = which.get(&published.0).clone();
            let newer = block.version > held.version();
            let outcome = held.apply(Entry::Adopt(block));
            prop_assert_eq!(outcome, if newer { Outcome::Adopted } else { Outcome::Stale });
        }
        Step::AdoptNewest => {
            held.apply(Entry::Adopt(published.newest()));
            prop_assert_eq!(held.version(), published.newest().version);
        }
        Step::Extend { of, which } => {
            let (of, to) = (of.get(&published.0).clone(), which.get(&published.0).clone());
            let (before, newer) = (held.version(), to.version > held.version());
            let outcome = held.apply(Entry::Extend(published.extension(&of, &to)));
            let expected = match newer {
                false => Outcome::Stale,
                true if of.version == before => Outcome::Adopted,
                true => Outcome::NotHeld,
            };
            prop_assert_eq!(outcome, expected);
        }
        Step::ExtendToNewest { shared } => {
            let copy = shared.then(|| held.clone());
            held.apply(Entry::Extend(published.newest_of(held.version())));
            prop_assert_eq!(held.version(), published.newest().version);
            prop_assert_eq!(held.snapshot().map(|snapshot| snapshot.base), Ok(published.newest()));
            if let Some(copy) = copy {
                let before = standing_on(published, &copy);
                prop_assert_eq!(copy.snapshot().map(|snapshot| snapshot.base), Ok(before));
            }
        }
        Step::Spill { .. } | Step::FailToSpill | Step::Load | Step::Unite | Step::Mend { .. } => {
            move_base(held, published, step)?;
        }
        Step::Lose => *held = ViewPartition::new(config(), published.newest()),
        Step::Rebuild { which } => {
            let complete = held.complete_segments();
            if !complete.is_empty() {
                let id = *which.get(&complete);
                prop_assert_eq!(held.apply(Entry::Rebuild(id, history.contribution(id))), Outcome::Rebuilt);
            }
        }
    }
    Ok(())
}

/// Takes a step that changes how the base is kept, and not what it is.
fn move_base(held: &mut ViewPartition, published: &Published, step: &Step) -> Result<(), TestCaseError> {
    match step {
        Step::Spill { least } => {
            if let Some(moved) = held.to_spill(*least) {
                let run = moved.write(held.kinds(), &MemoryRuns).expect("it is in memory");
                prop_assert!(held.spilled(&moved, &run));
            }
        }
        Step::FailToSpill => _ = held.to_spill(1),
        Step::Load => {
            if let Some(moved) = held.to_load() {
                prop_assert!(held.loaded(&moved, &mut moved.read().expect("it is in memory")));
            }
            prop_assert!(held.base().is_some());
        }
        Step::Unite => {
            let before = held.runs_in_memory();
            if let Some(moved) = held.to_unite() {
                let run: Arc<dyn SortedRun> = Arc::new(moved.read().expect("it is in memory"));
                prop_assert!(held.spilled(&moved, &run));
                prop_assert!(held.runs_in_memory() < before);
            }
        }
        Step::Mend { which } => {
            let block = which.get(&published.0).clone();
            let is_it = block.version == held.version();
            prop_assert_eq!(held.mend(&block), is_it);
            prop_assert!(!is_it || held.runs().is_empty());
        }
        _ => unreachable!("it moves nothing"),
    }
    Ok(())
}

fn copied(held: &ViewPartition) -> ViewPartition {
    let snapshot = held.snapshot().expect("runs are in memory");
    ViewPartition::restore(held.config().clone(), snapshot).expect("it is a copy")
}

/// What a view partition holds, as whoever takes it piece by piece has it in the end.
fn put_together(held: &ViewPartition) -> Result<Snapshot, RunError> {
    let Snapshot { base, .. } = held.outline();
    let groups = held.base_groups()?.collect::<Result<_, _>>()?;
    let base = Arc::new(Block { groups, ..(*base).clone() });
    Ok(Snapshot { base, segments: held.segments().clone(), ..held.outline() })
}

/// The published version that a view partition stands on.
fn standing_on(published: &Published, held: &ViewPartition) -> Arc<Block> {
    Arc::clone(&published.0[held.version() as usize])
}

/// Every complete segment equals batch's computation byte for byte.
fn audit_is_clean(held: &ViewPartition, history: &History) -> Result<(), TestCaseError> {
    for id in held.complete_segments() {
        let batch = history.contribution(id);
        prop_assert_eq!(held.audit(id, &batch), Some(vec![]), "segment {}", id);
        let (from, to) = (id.index * SEGMENT, (id.index + 1) * SEGMENT);
        let speed = history.delta(id.partition.index(), from, to).groups;
        prop_assert_eq!(encode_groups(held.kinds(), &speed), encode_groups(held.kinds(), &batch));
    }
    Ok(())
}
