//! Sorted runs: groups that can be read in order, and never change.
//!
//! The batch base of a view partition is the sum of its runs, elsewhere or in memory, and of a block in memory. What is to be
//! elsewhere becomes a run there, together with the newest runs as long as these are not much larger; those in memory become one in the
//! same way. So there are few of them, and a group is written a number of times that is logarithmic in how many there are: the
//! logarithmic method of J. L. Bentley and J. B. Saxe, "Decomposable searching problems I" (1980); LSM trees call it
//! compaction by size tiers.

use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use crate::aggregate::AggregateKind;
use crate::entry::Block;
use crate::group::{GroupId, GroupState};
use crate::groups::Groups;

/// Which groups are read.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The encoded grouping key; none means all.
    pub key: Option<&'a [u8]>,
    /// The windows' starts, in microseconds; never the wrong way round.
    pub windows: (Bound<i64>, Bound<i64>),
}

impl<'a> Part<'a> {
    /// Everything.
    pub const ALL: Self = Self { key: None, windows: (Bound::Unbounded, Bound::Unbounded) };

    /// The groups of a key, or of all, with `from <= window start < to`.
    pub fn of(key: Option<&'a [u8]>, from: i64, to: i64) -> Self {
        Self { key, windows: (Bound::Included(from), Bound::Excluded(to.max(from))) }
    }

    /// Says whether a group is read.
    pub fn contains(&self, id: &GroupId) -> bool {
        self.key.is_none_or(|key| *key == *id.key) && self.windows.contains(&id.window_start)
    }
}

/// Why a run can't be written or read: the disk is full or broken, or a file is damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("groups on disk: {0}")]
pub struct RunError(pub String);

/// Groups in order, or what keeps the next one from being read; after that nothing is to be read.
pub type RunGroups<'a> = Box<dyn Iterator<Item = Result<(GroupId, GroupState), RunError>> + 'a>;

/// Groups in order of key and window. It is gone when nobody holds it any longer.
pub trait SortedRun: fmt::Debug + Send + Sync {
    /// Returns the number of groups.
    fn groups(&self) -> u64;

    /// Returns the groups, where they are in memory all the same.
    fn in_memory(&self) -> Option<&Groups> {
        None
    }

    /// Says whether it was found to be unreadable: what it held is to be had from elsewhere.
    fn is_lost(&self) -> bool {
        false
    }

    /// Reads some of them, in order.
    fn read<'a>(&'a self, part: Part<'a>) -> RunGroups<'a>;
}

/// Where runs are written.
pub trait RunStore: Send + Sync {
    /// Writes groups of the given aggregates, which come in order.
    fn write(
        &self,
        kinds: &Arc<[AggregateKind]>,
        groups: RunGroups<'_>,
    ) -> Result<Arc<dyn SortedRun>, RunError>;
}

impl SortedRun for Block {
    fn groups(&self) -> u64 {
        self.groups.len() as u64
    }

    fn in_memory(&self) -> Option<&Groups> {
        Some(&self.groups)
    }

    fn read<'a>(&'a self, part: Part<'a>) -> RunGroups<'a> {
        self.groups.read(part)
    }
}

/// Keeps runs as groups, as if these were elsewhere: for tests and simulations.
#[derive(Clone, Copy, Debug)]
pub struct MemoryRuns;

impl RunStore for MemoryRuns {
    fn write(&self, _: &Arc<[AggregateKind]>, groups: RunGroups<'_>) -> Result<Arc<dyn SortedRun>, RunError> {
        Ok(Arc::new(Elsewhere(groups.collect::<Result<_, _>>()?)))
    }
}

#[derive(Debug)]
struct Elsewhere(Groups);

impl SortedRun for Elsewhere {
    fn groups(&self) -> u64 {
        self.0.groups()
    }

    fn read<'a>(&'a self, part: Part<'a>) -> RunGroups<'a> {
        self.0.read(part)
    }
}

impl SortedRun for Groups {
    fn groups(&self) -> u64 {
        self.len() as u64
    }

    fn in_memory(&self) -> Option<&Groups> {
        Some(self)
    }

    fn read<'a>(&'a self, part: Part<'a>) -> RunGroups<'a> {
        match part.key {
            Some(_) => Box::new(Self::combined(self, &Self::new(), part, true).into_iter().map(Ok)),
            None => Box::new(self.iter().filter(move |(id, _)| part.contains(id)).map(Ok)),
        }
    }
}

/// The sum of groups that come in order from several places: in order, without neutral ones.
pub(crate) struct Sum<'a> {
    /// What comes next of each, and the rest.
    parts: Vec<(Option<(GroupId, GroupState)>, RunGroups<'a>)>,
}

impl<'a> Sum<'a> {
    pub(crate) fn of(parts: impl IntoIterator<Item = RunGroups<'a>>) -> Result<Self, RunError> {
        let begun = parts.into_iter().map(|mut rest| Ok((rest.next().transpose()?, rest)));
        Ok(Self { parts: begun.collect::<Result<_, _>>()? })
    }

    /// Takes the next group, as the sum of all that have it.
    fn take(&mut self) -> Result<Option<(GroupId, GroupState)>, RunError> {
        let names = self.parts.iter().filter_map(|(next, _)| next.as_ref().map(|(id, _)| id));
        let Some(least) = names.min().cloned() else { return Ok(None) };
        let mut sum: Option<GroupState> = None;
        for (next, rest) in &mut self.parts {
            if let Some((_, state)) = next.take_if(|(id, _)| *id == least) {
                *next = rest.next().transpose()?;
                match &mut sum {
                    Some(sum) => sum.combine(&state),
                    None => sum = Some(state),
                }
            }
        }
        Ok(sum.map(|sum| (least, sum)))
    }
}

impl Iterator for Sum<'_> {
    type Item = Result<(GroupId, GroupState), RunError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.take().transpose()? {
                Ok((_, state)) if state.is_zero() => {}
                found => return Some(found),
            }
        }
    }
}
