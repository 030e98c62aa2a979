//! The quarantine: records of the log that can't be used, and which layer keeps which of them.
//!
//! ```text
//!   offsets   0 ······ from ══════════════ cut ─────────────▶
//!   kept by     speed    batch, one file      speed
//!            (older than a segment
//!             the rule)
//! ```
//!
//! Whether a record is refused is a pure function of its log partition's prefix, so it is Lambda like
//! everything else: the batch layer judges every archived segment by itself, the speed layer what
//! comes after the cut, and a reader puts both together by [`Division`]. What the speed layer loses
//! it judges again from the cut on; below it nothing of its is read.
//!
//! A record that a *view's expression* fails on is another matter: the source accepts it, and it
//! depends on the view's version. Those are kept by the speed layer alone, under that version.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::fingerprint::Fingerprint;
use crate::position::{Cut, LogPartition, Offset};

/// Why a record is in quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Refusal {
    /// It is no record of the source as declared.
    Undecodable,
    /// Its key belongs to another log partition.
    Misplaced,
    /// Another record of its identity and version came before it.
    Conflict,
    /// A view's expression failed on it; it counts for the source's other views.
    Expression,
}

impl Refusal {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Undecodable, Self::Misplaced, Self::Conflict, Self::Expression];

    /// Returns its name in files and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::Misplaced => "misplaced",
            Self::Conflict => "conflict",
            Self::Expression => "expression",
        }
    }

    /// Finds one by its name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.name() == name)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A record in quarantine, with all that is needed to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The log partition.
    pub partition: u32,
    /// The offset.
    pub offset: Offset,
    /// When the log took it, in microseconds since 1970 UTC.
    pub append_time_us: i64,
    /// Why, in a word.
    pub kind: Refusal,
    /// What is wrong, and where in the record.
    pub reason: String,
    /// The view version whose expression failed; none for the other kinds.
    pub view: Option<Fingerprint>,
    /// The record as it came.
    pub payload: Vec<u8>,
}

/// Says why a record is misplaced. One text for both layers, so that their lists are equal.
pub fn misplaced_reason(key: &str, home: u32, partition: LogPartition) -> String {
    format!("key {key:?} belongs to log partition {home}, not {partition}")
}

/// Says why a record conflicts with the one known of its identity. One text for both layers.
pub fn conflict_reason(version: i64, offset: Offset) -> String {
    format!(
        "version {version} came before at offset {offset} with other content: restate it with a higher version"
    )
}

/// How many records are in quarantine, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalCounts {
    /// Records of kind [`Refusal::Undecodable`].
    pub undecodable: u64,
    /// Records of kind [`Refusal::Misplaced`].
    pub misplaced: u64,
    /// Records of kind [`Refusal::Conflict`].
    pub conflict: u64,
    /// Records of kind [`Refusal::Expression`].
    pub expression: u64,
}

impl RefusalCounts {
    /// Counts records.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Quarantined>) -> Self {
        let mut counts = Self::default();
        records.into_iter().for_each(|record| *counts.at_mut(record.kind) += 1);
        counts
    }

    /// Returns the count of one kind.
    pub fn at(&self, kind: Refusal) -> u64 {
        match kind {
            Refusal::Undecodable => self.undecodable,
            Refusal::Misplaced => self.misplaced,
            Refusal::Conflict => self.conflict,
            Refusal::Expression => self.expression,
        }
    }

    /// Returns the count of one kind, to change it.
    pub fn at_mut(&mut self, kind: Refusal) -> &mut u64 {
        match kind {
            Refusal::Undecodable => &mut self.undecodable,
            Refusal::Misplaced => &mut self.misplaced,
            Refusal::Conflict => &mut self.conflict,
            Refusal::Expression => &mut self.expression,
        }
    }

    /// Adds other counts.
    pub fn add(&mut self, other: &Self) {
        Refusal::ALL.into_iter().for_each(|kind| *self.at_mut(kind) += other.at(kind));
    }

    /// Returns the sum over all kinds.
    pub fn total(&self) -> u64 {
        Refusal::ALL.into_iter().map(|kind| self.at(kind)).sum()
    }
}

/// Which offsets' quarantine the batch layer keeps; the speed layer has the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Division {
    /// Where the batch layer began to keep it: zero, but for sources archived before it did.
    pub from: Cut,
    /// The cut in force.
    pub cut: Cut,
}

impl Division {
    /// Returns the division where nothing is archived.
    pub fn beginning(partitions: u32) -> Self {
        Self { from: Cut::zero(partitions), cut: Cut::zero(partitions) }
    }

    /// Returns the offsets that are read from the batch layer, and that the speed layer may forget.
    pub fn batch(&self, partition: LogPartition) -> Range<Offset> {
        self.from.at(partition)..self.cut.at(partition)
    }

    /// Returns the offsets that are read from the speed layer: before and after the batch layer's.
    pub fn speed(&self, partition: LogPartition) -> [Range<Offset>; 2] {
        let batch = self.batch(partition);
        [0..batch.start, batch.end.max(batch.start)..Offset::MAX]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_offset_is_read_from_exactly_one_layer() {
        let division = Division { from: Cut::new(vec![4, 0, 8]), cut: Cut::new(vec![8, 0, 8]) };
        for partition in (0..3).map(LogPartition) {
            for offset in 0..20 {
                let [below, above] = division.speed(partition);
                let sides = [below, division.batch(partition), above];
                let holders = sides.iter().filter(|range| range.contains(&offset)).count();
                assert_eq!(holders, 1, "{partition} {offset}");
            }
        }
    }

    #[test]
    fn kinds_are_found_by_their_names_and_counted_apart() {
        let mut counts = RefusalCounts::default();
        for (kind, count) in Refusal::ALL.into_iter().zip(1..) {
            assert_eq!(Refusal::named(kind.name()), Some(kind));
            *counts.at_mut(kind) += count;
        }
        counts.add(&counts.clone());
        assert_eq!((counts.at(Refusal::Undecodable), counts.at(Refusal::Expression)), (2, 8));
        assert_eq!(counts.total(), 20);
        assert_eq!(Refusal::named("none"), None);
    }
}
