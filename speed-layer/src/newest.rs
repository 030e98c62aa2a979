//! The index of newest versions: what was newest of an identity *as of* an offset.
//!
//! ```text
//!            floor                          position
//!   ───────────┼──────────────────────────────┼──────────▶ offsets of one log partition
//!    base table│ accepted versions by offset  │ not yet indexed
//!      (newest │  a@3      a@17      a@40     │
//!      at the  │        as_of(a, 20) = a@17   │
//!      floor)  │                              │
//! ```
//!
//! Only accepted versions (those that became the newest when they came) are
//! stored, so of one identity the versions grow with the offset, and the last
//! one below an offset is the newest as of it. A replay therefore computes the
//! very effects that were computed the first time.
//!
//! Invariants: entries, position, counts and the watermark change in one step;
//! `floor <= position`; no question is asked below the floor.

use std::collections::BTreeMap;

use bytes::Bytes;
use sanso_catalog::RecordCounts;
use sanso_state::Offset;

use crate::error::Result;

/// One accepted version of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The offset of its record.
    pub offset: Offset,
    /// Its version: the version column, or the offset where there is none.
    pub version: i64,
    /// Its content, as the newest rule compares it.
    pub content: [u8; 32],
    /// Its row, by `Source::encode_rows`.
    pub row: Bytes,
}

/// A version that became the newest of its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The identity.
    pub identity: Bytes,
    /// The new newest version.
    pub version: Version,
    /// The version that it supersedes.
    pub superseded: Option<Version>,
}

/// What one span of offsets changes in the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The first offset of the span; the index's position before.
    pub from: Offset,
    /// The index's position after.
    pub to: Offset,
    /// The versions accepted in the span, in offset order.
    pub accepted: Vec<Accepted>,
    /// How the records of `[0, to)` were judged.
    pub counts: RecordCounts,
    /// The largest event time in `[0, to)` in microseconds, as the watermark counts it.
    pub max_event_us: Option<i64>,
    /// Whether `to` ends a segment; its watermark is then kept for rewinds.
    pub checkpoint: bool,
}

/// The index of one log partition. Calls may block on the local disk.
pub trait NewestIndex {
    /// Returns the lowest offset that [`NewestIndex::as_of`] can answer for.
    fn floor(&self) -> Offset;

    /// Returns the first offset not yet indexed.
    fn position(&self) -> Offset;

    /// Returns how the records below the position were judged.
    fn counts(&self) -> RecordCounts;

    /// Returns the largest event time below the position in microseconds.
    fn max_event_us(&self) -> Option<i64>;

    /// Returns the largest event time, in microseconds, below the last segment
    /// boundary (or the floor) at or below `offset`.
    fn checkpoint(&self, offset: Offset) -> Result<Option<i64>>;

    /// Looks up, for each question (identity, offset), the newest version
    /// among the offsets below it. Answers in the order of the questions.
    fn as_of(&self, questions: &[(&[u8], Offset)]) -> Result<Vec<Option<Version>>>;

    /// Applies one span in one atomic step. A crash keeps a prefix of the commits.
    ///
    /// # Panics
    /// When `from` is not the position: the index has no holes.
    fn commit(&mut self, commit: Commit) -> Result<()>;

    /// Raises the floor: forgets versions that were superseded below it. A
    /// floor that is not above the present one, or above the position, changes nothing.
    fn collapse(&mut self, floor: Offset) -> Result<()>;
}

/// An index in memory, for tests and simulation. A clone is a snapshot.
#[derive(Clone, Debug, Default)]
pub struct MemoryIndex {
    floor: Offset,
    position: Offset,
    counts: RecordCounts,
    max_event_us: Option<i64>,
    checkpoints: BTreeMap<Offset, Option<i64>>,
    versions: BTreeMap<Bytes, Vec<Version>>,
}

impl MemoryIndex {
    /// Creates an empty index of a log from its first offset.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an index from the newest-version table at `floor`.
    ///
    /// `max_event_us`: the largest event time below the floor in microseconds.
    pub fn based(
        floor: Offset,
        max_event_us: Option<i64>,
        base: impl IntoIterator<Item = (Bytes, Version)>,
    ) -> Self {
        let versions = base.into_iter().map(|(identity, version)| (identity, vec![version])).collect();
        let checkpoints = BTreeMap::from([(floor, max_event_us)]);
        Self { floor, position: floor, max_event_us, checkpoints, versions, ..Self::default() }
    }

    /// Forgets everything at or above `position`, as a crash that lost a
    /// suffix of the commits does. `position` must be the floor or a segment boundary.
    pub fn truncate(&mut self, position: Offset) {
        assert!(self.floor <= position && position <= self.position, "only a suffix can be lost");
        self.position = position;
        self.max_event_us = self.checkpoints.range(..=position).next_back().and_then(|(_, max)| *max);
        self.checkpoints.retain(|&offset, _| offset <= position);
        self.versions.values_mut().for_each(|versions| versions.retain(|v| v.offset < position));
        self.versions.retain(|_, versions| !versions.is_empty());
    }
}

impl NewestIndex for MemoryIndex {
    fn floor(&self) -> Offset {
        self.floor
    }

    fn position(&self) -> Offset {
        self.position
    }

    fn counts(&self) -> RecordCounts {
        self.counts
    }

    fn max_event_us(&self) -> Option<i64> {
        self.max_event_us
    }

    fn checkpoint(&self, offset: Offset) -> Result<Option<i64>> {
        Ok(self.checkpoints.range(..=offset).next_back().and_then(|(_, max)| *max))
    }

    fn as_of(&self, questions: &[(&[u8], Offset)]) -> Result<Vec<Option<Version>>> {
        let newest = |&(identity, offset): &(&[u8], Offset)| {
            let versions = self.versions.get(identity)?;
            versions.iter().rev().find(|version| version.offset < offset).cloned()
        };
        Ok(questions.iter().map(newest).collect())
    }

    fn commit(&mut self, commit: Commit) -> Result<()> {
        assert_eq!(commit.from, self.position, "the index is filled without holes");
        for accepted in commit.accepted {
            self.versions.entry(accepted.identity).or_default().push(accepted.version);
        }
        self.position = commit.to;
        self.counts = commit.counts;
        self.max_event_us = commit.max_event_us;
        if commit.checkpoint {
            self.checkpoints.insert(commit.to, commit.max_event_us);
        }
        Ok(())
    }

    fn collapse(&mut self, floor: Offset) -> Result<()> {
        if floor <= self.floor || floor > self.position {
            return Ok(());
        }
        for versions in self.versions.values_mut() {
            let kept = versions.partition_point(|version| version.offset < floor).saturating_sub(1);
            versions.drain(..kept);
        }
        let at_floor = self.checkpoint(floor)?;
        self.checkpoints = self.checkpoints.split_off(&floor);
        self.checkpoints.insert(floor, at_floor);
        self.floor = floor;
        Ok(())
    }
}
