//! A view partition as plain data, for whoever keeps a copy of it elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{ViewPartition, ViewPartitionConfig, sum_of};
use crate::entry::Block;
use crate::groups::Groups;
use crate::position::{Offset, SegmentId};
use crate::run::{Part, RunError, RunGroups, SortedRun, Sum};

/// Everything that a [`ViewPartition`] holds and that does not follow from the rest; but for what it is
/// to emit, which is not replicated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The batch version it stands on.
    pub base: Arc<Block>,
    /// Offsets applied, one for each log partition.
    pub applied: Vec<Offset>,
    /// The log partitions' watermarks, in microseconds.
    pub watermarks_us: Vec<Option<i64>>,
    /// Which log partitions are idle.
    pub idle: Vec<bool>,
    /// The speed state, by segment.
    pub segments: BTreeMap<SegmentId, Arc<Groups>>,
    /// The event time up to which windows have closed.
    pub closed_until_us: i64,
    /// See [`ViewPartition::late_groups`].
    pub late_groups: u64,
}

impl ViewPartition {
    /// Returns everything it holds. The groups are shared, not copied, where they are in memory; else they
    /// are read.
    pub fn snapshot(&self) -> Result<Snapshot, RunError> {
        let base = match self.runs.is_empty() {
            true => Arc::clone(&self.base),
            false => Arc::new(self.base.with_groups(self.base_groups()?.collect::<Result<_, _>>()?)),
        };
        Ok(Snapshot { base, segments: self.segments.clone(), ..self.outline() })
    }

    /// Returns everything it holds but its groups.
    pub fn outline(&self) -> Snapshot {
        Snapshot {
            base: Arc::new(self.base.with_groups(Groups::new())),
            applied: self.applied.clone(),
            watermarks_us: self.watermarks_us.clone(),
            idle: self.idle.clone(),
            segments: BTreeMap::new(),
            closed_until_us: self.closed_until_us,
            late_groups: self.late_groups,
        }
    }

    /// Iterates the groups of the batch version it stands on, in order. Those that are not in memory are read as they are
    /// wanted.
    pub fn base_groups(&self) -> Result<RunGroups<'_>, RunError> {
        let held = self.base.groups.read(Part::ALL);
        if self.runs.is_empty() {
            return Ok(held);
        }
        let runs = self.runs.iter().map(|run| run.read(Part::ALL));
        Ok(Box::new(Sum::of(runs.chain([held]))?))
    }

    /// Returns the speed state, by segment.
    pub fn segments(&self) -> &BTreeMap<SegmentId, Arc<Groups>> {
        &self.segments
    }

    /// Creates the view partition that [`ViewPartition::snapshot`] was taken of; what can't be one is
    /// refused with the reason.
    pub fn restore(config: ViewPartitionConfig, snapshot: Snapshot) -> Result<Self, &'static str> {
        let partitions = snapshot.base.cut.partitions();
        let held = [snapshot.applied.len(), snapshot.watermarks_us.len(), snapshot.idle.len()];
        if held != [partitions as usize; 3] {
            return Err("snapshot of another number of log partitions");
        }
        if snapshot.segments.keys().any(|id| id.partition.0 >= partitions) {
            return Err("snapshot with a segment of an unknown log partition");
        }
        let size = config.segments.size();
        let ends = |id: &SegmentId| id.index.checked_add(1).and_then(|next| next.checked_mul(size));
        if size == 0 || snapshot.segments.keys().any(|id| ends(id).is_none()) {
            return Err("snapshot with a segment of no offsets");
        }
        if snapshot.base.view != config.view {
            return Err("snapshot of another view version");
        }
        let mut this = Self::new(config, Arc::new(Block::empty(snapshot.base.view, partitions)));
        this.may_install(&snapshot.base)?;
        this.total = Arc::new(sum_of(snapshot.segments.values().map(|groups| &**groups)));
        this.base = snapshot.base;
        this.applied = snapshot.applied;
        this.watermarks_us = snapshot.watermarks_us;
        this.idle = snapshot.idle;
        this.segments = snapshot.segments;
        this.closed_until_us = snapshot.closed_until_us;
        this.late_groups = snapshot.late_groups;
        this.violated_bound().map_or(Ok(this), Err)
    }

    /// Returns what speed holds of a segment; none when the segment is not held complete.
    pub fn complete_segment(&self, segment: SegmentId) -> Option<Groups> {
        self.is_complete(segment)
            .then(|| self.segments.get(&segment).map(|groups| (**groups).clone()).unwrap_or_default())
    }
}
