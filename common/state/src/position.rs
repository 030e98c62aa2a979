//! Positions in the log: partitions, offsets, segments and cuts.
//!
//! ```text
//!   offsets   0 ........ N-1 | N ....... 2N-1 | 2N ...
//!   segment        0         |       1        |   2
//!   cut                      ^ a multiple of N for each log partition
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

/// An offset in one log partition. Ranges are `[from, to)` everywhere.
pub type Offset = u64;

/// A partition of a source's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogPartition(pub u32);

impl LogPartition {
    /// Returns the partition as an index into a per-partition vector.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for LogPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The segment arithmetic of a source: `N` consecutive offsets are a segment.
///
/// `N` never changes for a source, so a segment is a pure function of the offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segments {
    size: u64,
}

impl Segments {
    /// Creates the arithmetic for segments of `size` offsets.
    ///
    /// # Panics
    /// When `size` is zero.
    pub fn new(size: u64) -> Self {
        assert!(size > 0, "a segment holds at least one offset");
        Self { size }
    }

    /// Returns the number of offsets in a segment.
    pub fn size(self) -> u64 {
        self.size
    }

    /// Returns the index of the segment that holds `offset`.
    pub fn index_of(self, offset: Offset) -> u64 {
        offset / self.size
    }

    /// Returns the first offset after the segment that holds `offset`.
    pub fn end_of(self, offset: Offset) -> Offset {
        (self.index_of(offset) + 1) * self.size
    }

    /// Returns the largest multiple of the segment size that is at most `offset`.
    pub fn floor(self, offset: Offset) -> Offset {
        self.index_of(offset) * self.size
    }

    /// Says whether `[from, to)` lies within one segment.
    pub fn within_one(self, from: Offset, to: Offset) -> bool {
        from <= to && (from == to || self.index_of(from) == self.index_of(to - 1))
    }
}

/// Names one segment of one log partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SegmentId {
    /// The log partition.
    pub partition: LogPartition,
    /// The index of the segment: offsets `[index·N, (index+1)·N)`.
    pub index: u64,
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.index)
    }
}

/// A cut vector: for each log partition the offset up to which batch covers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut(Vec<Offset>);

impl Cut {
    /// Creates the cut at the beginning of `partitions` log partitions.
    pub fn zero(partitions: u32) -> Self {
        Self(vec![0; partitions as usize])
    }

    /// Creates a cut from one offset for each log partition.
    pub fn new(offsets: Vec<Offset>) -> Self {
        Self(offsets)
    }

    /// Returns the cut offset of one log partition.
    ///
    /// # Panics
    /// When the source has no such partition.
    pub fn at(&self, partition: LogPartition) -> Offset {
        self.0[partition.index()]
    }

    /// Returns the offsets, one for each log partition.
    pub fn offsets(&self) -> &[Offset] {
        &self.0
    }

    /// Returns the number of log partitions.
    pub fn partitions(&self) -> u32 {
        self.0.len() as u32
    }

    /// Says whether `next` may follow this cut: element by element at least
    /// this one, and every element a multiple of the segment size.
    pub fn may_be_followed_by(&self, next: &Cut, segments: Segments) -> bool {
        self.0.len() == next.0.len()
            && self.0.iter().zip(&next.0).all(|(a, b)| a <= b)
            && next.0.iter().all(|&o| segments.floor(o) == o)
    }
}
