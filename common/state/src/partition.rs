//! One view partition: batch base ⊕ speed segments, merged by compare-and-apply.
//!
//! ```text
//!               cut_k            applied
//!   log l  ───────┼────────┼───────┼──────▶ offsets
//!          base k │ seg i  │ i+1   │
//!                 └─ speed groups ─┘
//! ```
//!
//! The whole exactly-once protocol is in [`ViewPartition::apply`]: a delta
//! `D(l, [a, b))` is accepted exactly when `a = applied[l]`; anything else is
//! refused with the current `applied[l]`, and the sender resumes there.
//! State and `applied` change in one step.
//!
//! Invariants, see [`ViewPartition::violated_invariant`]:
//! - `applied[l] >= cut_k[l]` for every log partition;
//! - no segment ends at or below `cut_k[l]`;
//! - the running total equals the sum of the segments;
//! - no closed window is pending;
//! - what emits has its base in memory.
//!
//! The base is a block in memory, and sorted runs that it is to be added to; see [`Moving`]. An extension that is large, or comes
//! while somebody shares the block, makes a run of the block and takes its place, and so takes no time.
//!
//! Where it emits, a window is emitted once when it closes and again, marked late, whenever it
//! changes afterwards. Emitting is no part of what is replicated or restored: who begins to emit is
//! offered what is there, and compares it with what was written.

mod closing;
mod snapshot;
mod spilling;

pub use snapshot::Snapshot;
pub use spilling::{Moving, Reading};

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::sync::Arc;

use self::closing::Closing;
use crate::aggregate::AggregateKind;
use crate::entry::{Block, Delta, Difference, Entry, Extension, Outcome};
use crate::fingerprint::Fingerprint;
use crate::group::{GroupId, GroupState};
use crate::groups::Groups;
use crate::position::{Cut, Offset, SegmentId, Segments};
use crate::run::{Part, SortedRun};

/// So many groups are added to a base where it is: they take a millisecond or two.
const IN_PLACE_MAX: usize = 32_768;

/// What a view partition needs to know of its view.
#[derive(Clone, Debug)]
pub struct ViewPartitionConfig {
    /// The view's version.
    pub view: Fingerprint,
    /// The view's aggregates.
    pub kinds: Arc<[AggregateKind]>,
    /// The source's segment arithmetic.
    pub segments: Segments,
}

/// The pure state machine of one view partition.
///
/// Its groups are shared with its clones, and copied when one of these changes them.
#[derive(Clone, Debug)]
pub struct ViewPartition {
    config: ViewPartitionConfig,
    base: Arc<Block>,
    /// What is to be added to it, oldest first.
    runs: Vec<Arc<dyn SortedRun>>,
    applied: Vec<Offset>,
    watermarks_us: Vec<Option<i64>>,
    idle: Vec<bool>,
    segments: BTreeMap<SegmentId, Arc<Groups>>,
    total: Arc<Groups>,
    closed_until_us: i64,
    late_groups: u64,
    closing: Option<Closing>,
}

impl ViewPartition {
    /// Creates a view partition that starts from a published block (the empty
    /// block where nothing is published).
    ///
    /// # Panics
    /// When the block is not of this view, or its cut is not made of whole segments.
    pub fn new(config: ViewPartitionConfig, base: Arc<Block>) -> Self {
        let partitions = base.cut.partitions();
        let mut this = Self {
            base: Arc::new(Block::empty(config.view, partitions)),
            runs: Vec::new(),
            config,
            applied: vec![0; partitions as usize],
            watermarks_us: vec![None; partitions as usize],
            idle: vec![false; partitions as usize],
            segments: BTreeMap::new(),
            total: Arc::default(),
            closed_until_us: i64::MIN,
            late_groups: 0,
            closing: None,
        };
        if let Err(reason) = this.may_install(&base) {
            panic!("cannot start from a published block: {reason}");
        }
        this.applied.copy_from_slice(base.cut.offsets());
        this.watermarks_us.copy_from_slice(&base.watermarks_us);
        this.base = base;
        this.close_windows();
        this.debug_assert_invariants();
        this
    }

    /// Applies one entry. Emissions it causes wait for [`Self::take_emissions`].
    pub fn apply(&mut self, entry: Entry) -> Outcome {
        let outcome = match entry {
            Entry::Delta(delta) => self.merge(delta),
            Entry::Adopt(block) => self.adopt(block),
            Entry::Extend(extension) => self.extend(extension),
            Entry::Rebuild(segment, groups) => self.rebuild(segment, groups),
        };
        self.debug_assert_invariants();
        outcome
    }

    fn merge(&mut self, delta: Delta) -> Outcome {
        if delta.view != self.config.view {
            return Outcome::Invalid("delta of another view version");
        }
        let Some(&applied) = self.applied.get(delta.partition.index()) else {
            return Outcome::Invalid("delta of an unknown log partition");
        };
        if !self.config.segments.within_one(delta.from, delta.to) {
            return Outcome::Invalid("delta crosses a segment boundary");
        }
        if delta.from == delta.to && !delta.groups.is_empty() {
            return Outcome::Invalid("delta of no offsets changes groups");
        }
        if delta.from != applied {
            return Outcome::Refused { from: delta.from, applied };
        }
        self.note_changes(&delta.groups);
        if delta.to > delta.from {
            let index = self.config.segments.index_of(delta.from);
            let id = SegmentId { partition: delta.partition, index };
            Arc::make_mut(&mut self.total).combine(&delta.groups);
            self.applied[delta.partition.index()] = delta.to;
            match self.segments.entry(id) {
                btree_map::Entry::Occupied(segment) => {
                    Arc::make_mut(segment.into_mut()).combine(&delta.groups);
                }
                // A segment's first delta, mostly its only one, is the segment so far.
                btree_map::Entry::Vacant(segment) => _ = segment.insert(Arc::new(delta.groups)),
            }
        }
        self.idle[delta.partition.index()] = delta.idle;
        let watermark = &mut self.watermarks_us[delta.partition.index()];
        *watermark = (*watermark).max(delta.watermark_us);
        self.close_windows();
        Outcome::Accepted { applied: delta.to }
    }

    fn adopt(&mut self, block: Arc<Block>) -> Outcome {
        if let Some(refused) = self.may_not_follow(&block) {
            return refused;
        }
        let before = std::mem::replace(&mut self.base, block);
        self.runs.clear();
        let dropped = self.drop_covered();
        if self.closing.is_some() {
            // The combination changes where batch covers more than was applied
            // here, or corrects it.
            let mut changes = self.base.groups.clone();
            changes.retract(&before.groups);
            dropped.iter().for_each(|groups| changes.retract(groups));
            self.note_changes(&changes);
        }
        self.close_windows();
        Outcome::Adopted
    }

    fn extend(&mut self, Extension { of, added }: Extension) -> Outcome {
        if let Some(refused) = self.may_not_follow(&added) {
            return refused;
        }
        if self.base.version != of {
            return Outcome::NotHeld;
        }
        let is_quick = added.groups.len() <= IN_PLACE_MAX && Arc::get_mut(&mut self.base).is_some();
        if is_quick || self.is_emitting() {
            Arc::make_mut(&mut self.base).extend(&added);
        } else {
            // Nobody waits for sums or copies of what is there already: it becomes a run as it is.
            let before = std::mem::replace(&mut self.base, Arc::clone(&added));
            if !before.groups.is_empty() {
                self.runs.push(before);
            }
        }
        let dropped = self.drop_covered();
        if self.closing.is_some() {
            let mut changes = added.groups.clone();
            dropped.iter().for_each(|groups| changes.retract(groups));
            self.note_changes(&changes);
        }
        self.close_windows();
        Outcome::Adopted
    }

    /// Says why a block's version can't be adopted, whatever its groups are.
    fn may_not_follow(&self, block: &Block) -> Option<Outcome> {
        if let Err(reason) = self.may_install(block) {
            return Some(Outcome::Invalid(reason));
        }
        if block.version <= self.base.version {
            return Some(Outcome::Stale);
        }
        let follows = self.base.cut.may_be_followed_by(&block.cut, self.config.segments);
        (!follows).then_some(Outcome::Invalid("block with a cut that goes back"))
    }

    /// Says why a block can never be the base of this view partition.
    fn may_install(&self, block: &Block) -> Result<(), &'static str> {
        let partitions = self.applied.len();
        if block.view != self.config.view {
            return Err("block of another view version");
        }
        if block.cut.offsets().len() != partitions || block.watermarks_us.len() != partitions {
            return Err("block of another number of log partitions");
        }
        if !block.cut.may_be_followed_by(&block.cut, self.config.segments) {
            return Err("block with a cut within a segment");
        }
        Ok(())
    }

    /// Gives away the segments that the base covers, and takes note of what it has applied.
    fn drop_covered(&mut self) -> Vec<Arc<Groups>> {
        let (size, cut) = (self.config.segments.size(), &self.base.cut);
        let covered = |id: &SegmentId| (id.index + 1) * size <= cut.at(id.partition);
        let dropped: Vec<_> =
            self.segments.extract_if(.., |id, _| covered(id)).map(|(_, groups)| groups).collect();
        let left = || self.segments.values().map(|groups| groups.len()).sum::<usize>();
        if dropped.iter().map(|groups| groups.len()).sum::<usize>() < left() {
            let total = Arc::make_mut(&mut self.total);
            dropped.iter().for_each(|groups| total.retract(groups));
        } else {
            self.total = Arc::new(sum_of(self.segments.values().map(|groups| &**groups)));
        }
        for (applied, &cut) in self.applied.iter_mut().zip(cut.offsets()) {
            *applied = (*applied).max(cut);
        }
        for (mine, &theirs) in self.watermarks_us.iter_mut().zip(&self.base.watermarks_us) {
            *mine = (*mine).max(theirs);
        }
        dropped
    }

    fn rebuild(&mut self, segment: SegmentId, groups: Groups) -> Outcome {
        if !self.is_complete(segment) {
            return Outcome::NotHeld;
        }
        let mut changes = groups.clone();
        let old = self.segments.insert(segment, Arc::new(groups)).unwrap_or_default();
        changes.retract(&old);
        Arc::make_mut(&mut self.total).combine(&changes);
        self.note_changes(&changes);
        self.close_windows();
        Outcome::Rebuilt
    }

    /// Compares a complete segment with the batch layer's computation of it.
    /// Returns None when the segment is not held complete, so nothing was compared.
    pub fn audit(&self, segment: SegmentId, batch: &Groups) -> Option<Vec<Difference>> {
        if !self.is_complete(segment) {
            return None;
        }
        let empty = Groups::new();
        Some(compare(segment, self.segments.get(&segment).map_or(&empty, |held| held), batch))
    }

    fn is_complete(&self, segment: SegmentId) -> bool {
        let size = self.config.segments.size();
        let Some(&applied) = self.applied.get(segment.partition.index()) else {
            return false;
        };
        let start = segment.index.saturating_mul(size);
        start >= self.base.cut.at(segment.partition) && start.saturating_add(size) <= applied
    }

    /// Returns the combined states (base ⊕ speed) of one key's groups with
    /// `from <= window start < to`. Groups without rows are left out.
    ///
    /// # Panics
    /// When a run can't be read; [`ViewPartition::reading`] tells it.
    pub fn range(&self, key: &[u8], from: i64, to: i64) -> Vec<(GroupId, GroupState)> {
        self.reading(Part::of(Some(key), from, to)).finish().expect("its runs can be read")
    }

    /// Returns the combined states of all groups that have rows.
    ///
    /// # Panics
    /// When a run can't be read; [`ViewPartition::reading`] tells it.
    pub fn all(&self) -> Vec<(GroupId, GroupState)> {
        self.reading(Part::ALL).finish().expect("its runs can be read")
    }

    /// Returns `applied`, one offset for each log partition: the session token.
    pub fn applied(&self) -> &[Offset] {
        &self.applied
    }

    /// Returns the batch version; none where not all of it is in memory.
    pub fn base(&self) -> Option<&Arc<Block>> {
        self.runs.is_empty().then_some(&self.base)
    }

    /// Shares what a newer batch version may replace, for one who will free it at a better moment.
    pub fn replaceable(&self) -> impl Send + use<> {
        let speed = self.segments.values().chain([&self.total]).map(Arc::clone);
        (Arc::clone(&self.base), self.runs.clone(), speed.collect::<Vec<_>>())
    }

    /// Returns the batch version's number.
    pub fn version(&self) -> u64 {
        self.base.version
    }

    /// Returns the batch version's cut.
    pub fn cut(&self) -> &Cut {
        &self.base.cut
    }

    /// Returns the view's version.
    pub fn view(&self) -> Fingerprint {
        self.config.view
    }

    /// Returns what it was created with.
    pub fn config(&self) -> &ViewPartitionConfig {
        &self.config
    }

    /// Returns the view's aggregates.
    pub fn kinds(&self) -> &Arc<[AggregateKind]> {
        &self.config.kinds
    }

    /// Returns the number of groups held in memory: of the batch base and in the speed total.
    pub fn group_counts(&self) -> (usize, usize) {
        let runs: usize = self.runs.iter().filter_map(|run| run.in_memory()).map(Groups::len).sum();
        (self.base.groups.len() + runs, self.total.len())
    }

    /// Returns how many times a group was changed after a window of it had
    /// closed; counted while it emits.
    pub fn late_groups(&self) -> u64 {
        self.late_groups
    }

    /// Returns the segments that are held complete, not yet covered by batch.
    pub fn complete_segments(&self) -> Vec<SegmentId> {
        self.segments.keys().copied().filter(|&id| self.is_complete(id)).collect()
    }

    /// Returns the view's watermark: the least of the log partitions' that are
    /// not idle, or the greatest of all when every one is idle. It never goes
    /// back. None before a log partition that is not idle has had an event.
    pub fn watermark_us(&self) -> Option<i64> {
        let mut active = self.watermarks_us.iter().zip(&self.idle).filter(|(_, idle)| !**idle).peekable();
        let current = if active.peek().is_some() {
            active.map(|(w, _)| *w).min().flatten()
        } else {
            self.watermarks_us.iter().copied().max().flatten()
        };
        let closed = (self.closed_until_us > i64::MIN).then_some(self.closed_until_us);
        current.max(closed)
    }

    /// Returns the event time up to which windows have closed; `i64::MIN` at first.
    pub fn closed_until_us(&self) -> i64 {
        self.closed_until_us
    }

    /// Names an invariant that does not hold; none when all is well. Costs as
    /// much as adding up all segments: for tests, simulation and debug builds.
    pub fn violated_invariant(&self) -> Option<&'static str> {
        if sum_of(self.segments.values().map(|groups| &**groups)) != *self.total {
            return Some("the running total is not the sum of the segments");
        }
        self.violated_bound()
    }

    /// Names an invariant that does not hold, of those that are quickly looked at.
    fn violated_bound(&self) -> Option<&'static str> {
        let size = self.config.segments.size();
        let cut = &self.base.cut;
        if self.applied.iter().zip(cut.offsets()).any(|(applied, cut)| applied < cut) {
            return Some("applied is below the cut");
        }
        if self.segments.keys().any(|id| (id.index + 1) * size <= cut.at(id.partition)) {
            return Some("a segment below the cut is held");
        }
        if self.a_closed_window_is_pending() {
            return Some("a closed window is pending");
        }
        if self.is_emitting() && !self.runs.is_empty() {
            return Some("it emits what is not in its block");
        }
        None
    }

    fn debug_assert_invariants(&self) {
        debug_assert_eq!(self.violated_invariant(), None);
    }
}

/// Lists where the speed layer's groups of a segment are not the batch layer's.
pub fn compare(segment: SegmentId, speed: &Groups, batch: &Groups) -> Vec<Difference> {
    if speed == batch {
        return Vec::new();
    }
    let ids: BTreeSet<GroupId> = speed.ids().chain(batch.ids()).collect();
    let all = ids.into_iter().map(|group| {
        let (speed, batch) = (speed.get(&group), batch.get(&group));
        Difference { segment, group, speed, batch }
    });
    all.filter(|difference| difference.speed != difference.batch).collect()
}

fn sum_of<'a>(parts: impl IntoIterator<Item = &'a Groups>) -> Groups {
    parts.into_iter().fold(Groups::new(), |mut total, groups| {
        total.combine(groups);
        total
    })
}
