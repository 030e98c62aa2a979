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

/// To look at more groups of a base takes long: 10 ms and more for 100,000, while what is written would wait.
const LONG_SCAN: usize = 4_096;

/// Groups that were found at one instant, to be added up without the view partition's lock.
#[derive(Debug)]
pub struct Reading<'a> {
    part: Part<'a>,
    /// Those in memory; where there are runs, also those that have no rows by themselves.
    held: Vec<(GroupId, GroupState)>,
    runs: Vec<Arc<dyn SortedRun>>,
    is_long_scan: bool,
}

impl Reading<'_> {
    /// Says whether it may take long: something is to be read from a disk, or very much.
    pub fn takes_long(&self) -> bool {
        self.is_long_scan || self.runs.iter().any(|run| !run.is_in_memory())
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

/// Runs that are to become one: the newest of a view partition.
#[derive(Debug)]
pub struct Moving(Vec<Arc<dyn SortedRun>>);

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
        Sum::of(self.0.iter().map(|run| run.read(Part::ALL)))
    }
}

impl ViewPartition {
    /// Begins to read; see [`Reading`].
    pub fn reading<'a>(&self, part: Part<'a>) -> Reading<'a> {
        let mut runs = self.runs.clone();
        let (none, mut base) = (Groups::new(), &self.base.groups);
        let is_long_scan = part.key.is_none() && base.len() > LONG_SCAN;
        if is_long_scan {
            // Looked at as a run is, without the lock.
            runs.push(Arc::clone(&self.base) as Arc<dyn SortedRun>);
            base = &none;
        }
        let held = Groups::combined(base, &self.total, part, !runs.is_empty());
        Reading { part, held, runs, is_long_scan }
    }

    /// Returns the runs, oldest first; those that wait for being written are in memory.
    pub fn runs(&self) -> &[Arc<dyn SortedRun>] {
        &self.runs
    }

    /// Returns the number of groups that are not in memory; those that several runs have count in each.
    pub fn run_groups(&self) -> u64 {
        self.runs.iter().filter(|run| !run.is_in_memory()).map(|run| run.groups()).sum()
    }

    /// Begins to move what of the base is in memory, if it is `least` groups or more, and returns what to write as a run. What
    /// emits stays, since each window that closes is looked at.
    ///
    /// The block in memory becomes a run as it is, so that nothing that is added to the base meanwhile is in the way.
    pub fn to_spill(&mut self, least: usize) -> Option<Moving> {
        if self.is_emitting() {
            return None;
        }
        // One that could not be written yet comes first.
        if self.waiting().next().is_none() {
            if self.base.groups.len() < least.max(1) {
                return None;
            }
            let rest = Arc::new(self.base.with_groups(Groups::new()));
            let block = std::mem::replace(&mut self.base, rest);
            self.runs.push(block);
        }
        let mut oldest = self.runs.len() - self.waiting().count();
        let mut size: u64 = self.waiting().map(|run| run.groups()).sum();
        while oldest > 0 && self.runs[oldest - 1].groups() <= 2 * size {
            oldest -= 1;
            size += self.runs[oldest].groups();
        }
        Some(Moving(self.runs[oldest..].to_vec()))
    }

    /// Returns what to read into memory: none where all is.
    pub fn to_load(&self) -> Option<Moving> {
        (!self.runs.is_empty()).then(|| Moving(self.runs.clone()))
    }

    /// Puts a run in the place of those that it was written of. Returns false where these are there no longer.
    pub fn spilled(&mut self, moved: &Moving, run: &Arc<dyn SortedRun>) -> bool {
        let is_there = self.ends_with(moved);
        if is_there {
            self.runs.truncate(self.runs.len() - moved.0.len());
            if run.groups() > 0 {
                self.runs.push(Arc::clone(run));
            }
        }
        is_there
    }

    /// Puts groups in the place of all runs that they were read of, and takes them. Leaves them and returns false where
    /// these are there no longer.
    pub fn loaded(&mut self, moved: &Moving, groups: &mut Groups) -> bool {
        let are_there = self.runs.len() == moved.0.len() && self.ends_with(moved);
        if are_there {
            groups.combine(&self.base.groups);
            self.base = Arc::new(self.base.with_groups(std::mem::take(groups)));
            self.runs.clear();
        }
        are_there
    }

    /// Says whether some of its base is lost: see [`ViewPartition::mend`].
    pub fn has_lost_a_run(&self) -> bool {
        self.runs.iter().any(|run| run.is_lost())
    }

    /// Puts the batch version that it stands on, as it was published, in the place of its base and all runs. Returns
    /// false where it stands on another one by now.
    pub fn mend(&mut self, published: &Arc<Block>) -> bool {
        let mine = &self.base;
        let is_it =
            (mine.view, mine.version, &mine.cut) == (published.view, published.version, &published.cut);
        if is_it {
            self.base = Arc::clone(published);
            self.runs.clear();
        }
        is_it
    }

    /// Iterates the runs that wait for being written; they are the newest.
    fn waiting(&self) -> impl Iterator<Item = &Arc<dyn SortedRun>> {
        self.runs.iter().rev().take_while(|run| run.is_in_memory())
    }

    fn ends_with(&self, moved: &Moving) -> bool {
        let newest = self.runs.len().checked_sub(moved.0.len()).map(|oldest| &self.runs[oldest..]);
        newest.is_some_and(|runs| runs.iter().zip(&moved.0).all(|(a, b)| Arc::ptr_eq(a, b)))
    }
}
