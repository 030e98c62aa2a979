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
//! Invariants (checked by `debug_assert_invariants` and by the law's tests):
//! - `applied[l] >= cut_k[l]` for every log partition;
//! - the running total equals the sum of the segments;
//! - no segment ends at or below `cut_k[l]`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::aggregate::AggregateKind;
use crate::fingerprint::Fingerprint;
use crate::group::{GroupId, GroupState, Groups};
use crate::position::{Cut, LogPartition, Offset, SegmentId, Segments};

/// What readings `[from, to)` of one log partition add to and retract from the
/// part of a view that one view partition holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// The view's version.
    pub view: Fingerprint,
    /// The log partition.
    pub partition: LogPartition,
    /// The first offset covered.
    pub from: Offset,
    /// The first offset no longer covered; equal to `from` in a heartbeat.
    pub to: Offset,
    /// The groups changed.
    pub groups: Groups,
    /// The log partition's watermark at `to`, in microseconds.
    pub watermark_us: Option<i64>,
    /// Whether the log partition has been quiet long enough not to hold the
    /// view's watermark back.
    pub idle: bool,
}

/// One view partition's share of a published batch version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The view's version.
    pub view: Fingerprint,
    /// The number of the batch version; 0 is the empty beginning.
    pub version: u64,
    /// The offsets below which batch covers everything.
    pub cut: Cut,
    /// The log partitions' watermarks at the cut, in microseconds.
    pub watermarks_us: Vec<Option<i64>>,
    /// The groups.
    pub groups: Groups,
}

impl Block {
    /// Creates the empty block that a view starts from when nothing is archived.
    pub fn empty(view: Fingerprint, partitions: u32) -> Self {
        Self {
            view,
            version: 0,
            cut: Cut::zero(partitions),
            watermarks_us: vec![None; partitions as usize],
            groups: Groups::new(),
        }
    }
}

/// One entry of a view partition's ordered log.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Merges a delta by compare-and-apply.
    Delta(Delta),
    /// Adopts a newer batch version.
    Adopt(Arc<Block>),
    /// Replaces a complete segment's groups after the audit found a difference.
    Rebuild(SegmentId, Groups),
}

/// What became of an [`Entry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The delta is merged; `applied[l]` is now this.
    Accepted {
        /// The new `applied[l]`.
        applied: Offset,
    },
    /// The delta does not continue what is applied; resume at `applied`.
    Refused {
        /// The delta's own `from`, so that the sender can tell a stale refusal.
        from: Offset,
        /// The current `applied[l]`.
        applied: Offset,
    },
    /// The entry is of another view version, or malformed (crosses a segment
    /// boundary, names an unknown log partition); never to be sent again.
    Invalid(&'static str),
    /// The batch version is adopted.
    Adopted,
    /// The batch version is not newer than the one held.
    Stale,
    /// The segment's groups are replaced.
    Rebuilt,
    /// The segment is not held (covered by batch, or incomplete).
    NotHeld,
}

/// The finished content of a closed window, to be written to an output topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emission {
    /// The grouping key and the window's start.
    pub group: GroupId,
    /// The window's end in microseconds.
    pub window_end: i64,
    /// The state of the whole window, or none when every row was retracted.
    pub state: Option<GroupState>,
    /// Whether the window had closed before the change that caused this.
    pub late: bool,
}

/// A difference the audit found between speed and batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The segment.
    pub segment: SegmentId,
    /// The group.
    pub group: GroupId,
    /// The speed layer's state of the group in this segment.
    pub speed: Option<GroupState>,
    /// The batch layer's.
    pub batch: Option<GroupState>,
}

/// Which windows a pane belongs to.
pub trait Windows: fmt::Debug + Send + Sync {
    /// Returns the windows `[start, end)` that contain the pane starting at
    /// `pane_start`; empty for a view without windows.
    fn windows_of(&self, pane_start: i64) -> Vec<(i64, i64)>;
}

/// What a view partition needs to know of its view.
#[derive(Clone, Debug)]
pub struct ViewPartitionConfig {
    /// The view's version.
    pub view: Fingerprint,
    /// The view's aggregates.
    pub kinds: Arc<[AggregateKind]>,
    /// The source's segment arithmetic.
    pub segments: Segments,
    /// The view's windows; present when closed windows are to be emitted.
    pub emit: Option<Arc<dyn Windows>>,
}

/// The pure state machine of one view partition.
#[derive(Clone, Debug)]
pub struct ViewPartition {
    config: ViewPartitionConfig,
    base: Arc<Block>,
    applied: Vec<Offset>,
    watermarks_us: Vec<Option<i64>>,
    idle: Vec<bool>,
    segments: BTreeMap<SegmentId, Groups>,
    total: Groups,
    pending: BTreeMap<i64, BTreeSet<GroupId>>,
    closed_until_us: i64,
    late_groups: u64,
    emissions: Vec<Emission>,
}

impl ViewPartition {
    /// Creates a view partition that starts from a published block (the empty
    /// block where nothing is published).
    pub fn new(config: ViewPartitionConfig, base: Arc<Block>) -> Self {
        let partitions = base.cut.partitions();
        let mut this = Self {
            config,
            base: Arc::new(Block::empty(base.view, partitions)),
            applied: vec![0; partitions as usize],
            watermarks_us: vec![None; partitions as usize],
            idle: vec![false; partitions as usize],
            segments: BTreeMap::new(),
            total: Groups::new(),
            pending: BTreeMap::new(),
            closed_until_us: i64::MIN,
            late_groups: 0,
            emissions: Vec::new(),
        };
        this.install(base);
        this
    }

    /// Applies one entry. Emissions it causes wait for [`Self::take_emissions`].
    pub fn apply(&mut self, entry: Entry) -> Outcome {
        let outcome = match entry {
            Entry::Delta(delta) => self.merge(delta),
            Entry::Adopt(block) => self.adopt(block),
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
        if delta.from != applied {
            return Outcome::Refused { from: delta.from, applied };
        }
        if delta.to > delta.from {
            let index = self.config.segments.index_of(delta.from);
            let id = SegmentId { partition: delta.partition, index };
            self.segments.entry(id).or_default().combine(&delta.groups);
            self.total.combine(&delta.groups);
            self.applied[delta.partition.index()] = delta.to;
        }
        self.idle[delta.partition.index()] = delta.idle;
        let watermark = &mut self.watermarks_us[delta.partition.index()];
        *watermark = (*watermark).max(delta.watermark_us);
        self.note_changes(delta.groups.iter().map(|(id, _)| id));
        Outcome::Accepted { applied: delta.to }
    }

    fn adopt(&mut self, block: Arc<Block>) -> Outcome {
        if block.view != self.config.view {
            return Outcome::Invalid("block of another view version");
        }
        if block.cut.partitions() as usize != self.applied.len() {
            return Outcome::Invalid("block of another number of log partitions");
        }
        if block.version <= self.base.version {
            return Outcome::Stale;
        }
        self.install(block);
        Outcome::Adopted
    }

    fn install(&mut self, block: Arc<Block>) {
        let segments = self.config.segments;
        self.segments.retain(|id, _| (id.index + 1) * segments.size() > block.cut.at(id.partition));
        let mut total = Groups::new();
        self.segments.values().for_each(|groups| total.combine(groups));
        self.total = total;
        let mut jumped = false;
        for (applied, &cut) in self.applied.iter_mut().zip(block.cut.offsets()) {
            jumped |= *applied < cut;
            *applied = (*applied).max(cut);
        }
        for (mine, &theirs) in self.watermarks_us.iter_mut().zip(&block.watermarks_us) {
            *mine = (*mine).max(theirs);
        }
        self.base = block;
        if jumped {
            // Offsets were covered that never came as deltas: any group may have changed.
            let base = Arc::clone(&self.base);
            self.note_changes(base.groups.iter().map(|(id, _)| id));
        }
    }

    fn rebuild(&mut self, segment: SegmentId, groups: Groups) -> Outcome {
        if !self.is_complete(segment) {
            return Outcome::NotHeld;
        }
        let old = self.segments.insert(segment, groups.clone()).unwrap_or_default();
        self.total.retract(&old);
        self.total.combine(&groups);
        self.note_changes(old.iter().chain(groups.iter()).map(|(id, _)| id));
        Outcome::Rebuilt
    }

    /// Compares a complete segment with the batch layer's computation of it.
    /// Returns None when the segment is not held complete, so nothing was compared.
    pub fn audit(&self, segment: SegmentId, batch: &Groups) -> Option<Vec<Difference>> {
        if !self.is_complete(segment) {
            return None;
        }
        let empty = Groups::new();
        let speed = self.segments.get(&segment).unwrap_or(&empty);
        if speed == batch {
            return Some(Vec::new());
        }
        let ids: BTreeSet<&GroupId> = speed.iter().chain(batch.iter()).map(|(id, _)| id).collect();
        let differences = ids.into_iter().filter(|id| speed.get(id) != batch.get(id));
        Some(
            differences
                .map(|id| Difference {
                    segment,
                    group: id.clone(),
                    speed: speed.get(id).cloned(),
                    batch: batch.get(id).cloned(),
                })
                .collect(),
        )
    }

    fn is_complete(&self, segment: SegmentId) -> bool {
        let size = self.config.segments.size();
        let Some(&applied) = self.applied.get(segment.partition.index()) else {
            return false;
        };
        segment.index * size >= self.base.cut.at(segment.partition) && (segment.index + 1) * size <= applied
    }

    /// Iterates the combined states (base ⊕ speed) of one key's groups with
    /// `from <= window start < to`. Groups without rows are left out.
    pub fn range(&self, key: &[u8], from: i64, to: i64) -> Vec<(GroupId, GroupState)> {
        combine_sorted(self.base.groups.range(key, from, to), self.total.range(key, from, to))
    }

    /// Iterates the combined states of the groups whose encoded key lies in
    /// `[from, to)`; an absent `to` is no bound. Groups without rows are left out.
    pub fn key_range(&self, from: &[u8], to: Option<&[u8]>) -> Vec<(GroupId, GroupState)> {
        combine_sorted(self.base.groups.key_range(from, to), self.total.key_range(from, to))
    }

    /// Returns the combined states of all groups that have rows.
    pub fn all(&self) -> Vec<(GroupId, GroupState)> {
        combine_sorted(self.base.groups.iter(), self.total.iter())
    }

    /// Returns `applied`, one offset for each log partition: the session token.
    pub fn applied(&self) -> &[Offset] {
        &self.applied
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

    /// Returns the view's aggregates.
    pub fn kinds(&self) -> &Arc<[AggregateKind]> {
        &self.config.kinds
    }

    /// Returns the number of groups held in the batch base and in the speed total.
    pub fn group_counts(&self) -> (usize, usize) {
        (self.base.groups.len(), self.total.len())
    }

    /// Returns how many groups were changed after their window had closed.
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

    fn note_changes<'a>(&mut self, changed: impl Iterator<Item = &'a GroupId>) {
        let Some(windows) = self.config.emit.clone() else {
            self.closed_until_us = self.watermark_us().unwrap_or(i64::MIN);
            return;
        };
        for id in changed {
            for (start, end) in windows.windows_of(id.window_start) {
                if end <= self.closed_until_us {
                    self.late_groups += 1;
                }
                let window = GroupId { key: id.key.clone(), window_start: start };
                self.pending.entry(end).or_default().insert(window);
            }
        }
        let before = self.closed_until_us;
        self.closed_until_us = self.watermark_us().unwrap_or(i64::MIN);
        while let Some(entry) = self.pending.first_entry() {
            if *entry.key() > self.closed_until_us {
                break;
            }
            let (end, groups) = entry.remove_entry();
            for group in groups {
                let state = self.window_state(&group, end);
                self.emissions.push(Emission { group, window_end: end, state, late: end <= before });
            }
        }
    }

    fn window_state(&self, window: &GroupId, end: i64) -> Option<GroupState> {
        let panes = self.range(&window.key, window.window_start, end);
        panes.into_iter().map(|(_, state)| state).reduce(|mut a, b| {
            a.combine(&b);
            a
        })
    }

    /// Says whether emissions wait for [`Self::take_emissions`].
    pub fn has_emissions(&self) -> bool {
        !self.emissions.is_empty()
    }

    /// Takes the emissions caused since the last call, oldest first.
    pub fn take_emissions(&mut self) -> Vec<Emission> {
        std::mem::take(&mut self.emissions)
    }

    fn debug_assert_invariants(&self) {
        debug_assert!(self.applied.iter().zip(self.base.cut.offsets()).all(|(a, c)| a >= c));
        debug_assert!(
            self.segments
                .keys()
                .all(|id| { (id.index + 1) * self.config.segments.size() > self.base.cut.at(id.partition) })
        );
        debug_assert_eq!(
            self.segments.values().fold(Groups::new(), |mut total, groups| {
                total.combine(groups);
                total
            }),
            self.total
        );
    }
}

/// Merges two sorted runs of groups; keeps those that have rows.
fn combine_sorted<'a>(
    base: impl Iterator<Item = (&'a GroupId, &'a GroupState)>,
    speed: impl Iterator<Item = (&'a GroupId, &'a GroupState)>,
) -> Vec<(GroupId, GroupState)> {
    let mut base = base.peekable();
    let mut speed = speed.peekable();
    let mut out = Vec::new();
    loop {
        let order = match (base.peek(), speed.peek()) {
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => return out,
        };
        let (id, state) = match order {
            std::cmp::Ordering::Less => cloned(base.next()),
            std::cmp::Ordering::Greater => cloned(speed.next()),
            std::cmp::Ordering::Equal => {
                let (id, mut state) = cloned(base.next());
                if let Some((_, other)) = speed.next() {
                    state.combine(other);
                }
                (id, state)
            }
        };
        if state.rows > 0 {
            out.push((id, state));
        }
    }
}

fn cloned(entry: Option<(&GroupId, &GroupState)>) -> (GroupId, GroupState) {
    let (id, state) = entry.expect("peeked");
    (id.clone(), state.clone())
}
