//! A view partition's base, moved out of memory and back, and put together.
//!
//! This changes how a replica keeps its base, not what that is: each does it when it likes, and it is no part
//! of what is replicated. Whoever moves it reads and writes without the view partition's lock, and
//! puts the result in its place only where nothing has changed meanwhile.

use std::cmp::Reverse;
use std::sync::Arc;

use super::{ViewPartition, sum_of};
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
        self.is_long_scan || self.runs.iter().any(|run| run.in_memory().is_none())
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
        match self.0.iter().map(|run| run.in_memory()).collect::<Option<Vec<_>>>() {
            Some(mut all) => {
                // The largest is copied, the others are added to it.
                all.sort_by_key(|groups| Reverse(groups.len()));
                Ok(sum_of(all))
            }
            None => self.all()?.collect(),
        }
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
        let is_long_scan = part.key.is_none() && self.group_counts().0 > LONG_SCAN;
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
        self.runs.iter().filter(|run| run.in_memory().is_none()).map(|run| run.groups()).sum()
    }

    /// Returns the number of runs in memory.
    pub fn runs_in_memory(&self) -> usize {
        self.runs.iter().filter(|run| run.in_memory().is_some()).count()
    }

    /// Begins to move what of the base is in memory, if it is `least` groups or more, and returns what to write as a run. What
    /// emits stays, since each window that closes is looked at.
    pub fn to_spill(&mut self, least: usize) -> Option<Moving> {
        if self.is_emitting() {
            return None;
        }
        // One that could not be written yet comes first.
        if self.waiting().next().is_none() {
            if self.base.groups.len() < least.max(1) {
                return None;
            }
            self.set_aside();
        }
        Some(self.newest(self.waiting().count(), self.runs.len()))
    }

    /// Returns runs in memory that are to become one there: the newest, none where it is one alone.
    pub fn to_unite(&self) -> Option<Moving> {
        let moving = self.newest(1, self.waiting().count());
        (moving.0.len() > 1).then_some(moving)
    }

    /// Returns so many of the newest runs, and with them older ones, up to a number, as long as they are not much larger.
    fn newest(&self, least: usize, most: usize) -> Moving {
        let (all, mut taken) = (self.runs.len(), least.min(most));
        let size = |taken| self.runs[all - taken..].iter().map(|run| run.groups()).sum::<u64>();
        while taken < most && self.runs[all - taken - 1].groups() <= 2 * size(taken) {
            taken += 1;
        }
        Moving(self.runs[all - taken..].to_vec())
    }

    /// Begins to make one block in memory of the base: none where it is.
    pub fn to_load(&mut self) -> Option<Moving> {
        if self.runs.is_empty() {
            return None;
        }
        if !self.base.groups.is_empty() {
            self.set_aside();
        }
        Some(Moving(self.runs.clone()))
    }

    /// Makes a run of the block in memory as it is, so that nothing that is added to the base meanwhile is in the way.
    fn set_aside(&mut self) {
        let rest = Arc::new(self.base.with_groups(Groups::new()));
        let block = std::mem::replace(&mut self.base, rest);
        self.runs.push(block);
    }

    /// Puts a run in the place of those that it was made of. Returns false where these are there no longer.
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

    /// Iterates the newest runs that are in memory, of which those of a view on disk wait for being written.
    fn waiting(&self) -> impl Iterator<Item = &Arc<dyn SortedRun>> {
        self.runs.iter().rev().take_while(|run| run.in_memory().is_some())
    }

    fn ends_with(&self, moved: &Moving) -> bool {
        let newest = self.runs.len().checked_sub(moved.0.len()).map(|oldest| &self.runs[oldest..]);
        newest.is_some_and(|runs| runs.iter().zip(&moved.0).all(|(a, b)| Arc::ptr_eq(a, b)))
    }
}
