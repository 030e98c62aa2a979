//! A view partition's base, moved out of memory and back.
//!
//! This changes how a replica keeps its base, not what that is: each does it when it likes, and it is no part
//! of what is replicated. Whoever moves it reads and writes without the view partition's lock, and
//! puts the result in its place only where nothing has changed meanwhile.

use std::sync::Arc;

use super::ViewPartition;
use crate::aggregate::AggregateKind;
use crate::entry::Block;
use crate::group::{GroupId, GroupState};
use crate::groups::Groups;
use crate::run::{Part, RunError, RunGroups, RunStore, SortedRun, Sum};

/// Groups that were found at one instant, to be added up without the view partition's lock.
#[derive(Debug)]
pub struct Reading<'a> {
    part: Part<'a>,
    /// Those in memory; where there are runs, also those that have no rows by themselves.
    held: Vec<(GroupId, GroupState)>,
    runs: Vec<Arc<dyn SortedRun>>,
}

impl Reading<'_> {
    /// Says whether something is to be read from where it may take long.
    pub fn takes_long(&self) -> bool {
        !self.runs.is_empty()
    }

    /// Returns the combined states of the groups that have rows, in order.
    pub fn finish(self) -> Result<Vec<(GroupId, GroupState)>, RunError> {
        if self.runs.is_empty() {
            return Ok(self.held);
        }
        let held: RunGroups<'_> = Box::new(self.held.into_iter().map(Ok));
        let runs = self.runs.iter().map(|run| run.read(self.part));
        let all = Sum::of(runs.chain([held]))?;
        all.filter(|group| group.as_ref().is_ok_and(|(_, state)| state.rows > 0) || group.is_err()).collect()
    }
}

/// A base that is to be moved, as it was.
#[derive(Debug)]
pub struct Moving {
    base: Arc<Block>,
    /// The runs that are moved with what is in memory; all others are older.
    runs: Vec<Arc<dyn SortedRun>>,
}

impl Moving {
    /// Writes the groups as one run.
    pub fn write(
        &self,
        kinds: &Arc<[AggregateKind]>,
        to: &dyn RunStore,
    ) -> Result<Arc<dyn SortedRun>, RunError> {
        to.write(kinds, Box::new(self.all()?))
    }

    /// Adds the groups up in memory.
    pub fn read(&self) -> Result<Groups, RunError> {
        self.all()?.collect()
    }

    fn all(&self) -> Result<Sum<'_>, RunError> {
        let runs = self.runs.iter().map(|run| run.read(Part::ALL));
        Sum::of(runs.chain([self.base.groups.read(Part::ALL)]))
    }

    /// Returns the block with other groups.
    pub(super) fn with(&self, groups: Groups) -> Arc<Block> {
        let Block { view, version, cut, watermarks_us, groups: _ } = &*self.base;
        let (cut, watermarks_us) = (cut.clone(), watermarks_us.clone());
        Arc::new(Block { view: *view, version: *version, cut, watermarks_us, groups })
    }
}

impl ViewPartition {
    /// Begins to read; see [`Reading`].
    pub fn reading<'a>(&self, part: Part<'a>) -> Reading<'a> {
        let also_without_rows = !self.runs.is_empty();
        let held = Groups::combined(&self.base.groups, &self.total, part, also_without_rows);
        Reading { part, held, runs: self.runs.clone() }
    }

    /// Returns what of the base is not in memory, oldest first.
    pub fn runs(&self) -> &[Arc<dyn SortedRun>] {
        &self.runs
    }

    /// Returns the number of groups in runs; those that several have count in each.
    pub fn run_groups(&self) -> u64 {
        self.runs.iter().map(|run| run.groups()).sum()
    }

    /// Returns what to write as a run: none where less than `least` groups of the base are in memory. What
    /// emits stays there, since each window that closes is looked at.
    pub fn to_spill(&self, least: usize) -> Option<Moving> {
        let mut size = self.base.groups.len() as u64;
        if self.is_emitting() || size < (least as u64).max(1) {
            return None;
        }
        let mut oldest = self.runs.len();
        while oldest > 0 && self.runs[oldest - 1].groups() <= 2 * size {
            oldest -= 1;
            size += self.runs[oldest].groups();
        }
        Some(Moving { base: Arc::clone(&self.base), runs: self.runs[oldest..].to_vec() })
    }

    /// Returns what to read into memory: none where all is.
    pub fn to_load(&self) -> Option<Moving> {
        let moving = || Moving { base: Arc::clone(&self.base), runs: self.runs.clone() };
        (!self.runs.is_empty()).then(moving)
    }

    /// Puts a run in the place of what it was written of. Returns false where that is there no longer.
    pub fn spilled(&mut self, moved: &Moving, run: Arc<dyn SortedRun>) -> bool {
        let is_there = !self.is_emitting() && self.holds(moved);
        if is_there {
            self.runs.truncate(self.runs.len() - moved.runs.len());
            if run.groups() > 0 {
                self.runs.push(run);
            }
            self.base = moved.with(Groups::new());
        }
        is_there
    }

    /// Puts groups in the place of the runs that they were read of. Returns false where those are there no longer.
    pub fn loaded(&mut self, moved: &Moving, groups: Groups) -> bool {
        let is_there = self.runs.len() == moved.runs.len() && self.holds(moved);
        if is_there {
            self.runs.clear();
            self.base = moved.with(groups);
        }
        is_there
    }

    fn holds(&self, moved: &Moving) -> bool {
        let newest = self.runs.len().checked_sub(moved.runs.len()).map(|oldest| &self.runs[oldest..]);
        let same = |runs: &[Arc<dyn SortedRun>]| runs.iter().zip(&moved.runs).all(|(a, b)| Arc::ptr_eq(a, b));
        Arc::ptr_eq(&self.base, &moved.base) && newest.is_some_and(same)
    }
}
