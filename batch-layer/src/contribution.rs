//! Contributions: what a segment's effects, or newest rows, are to a view. Pure.
//!
//! Both ways to a batch view go through here, and through [`View::lift`] like the speed layer:
//! view k = view k-1 ⊕ the contributions of the segments between, and view k = the lift of every row
//! of the newest-version table at k.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use sanso_state::{Groups, SegmentId};
use sanso_view::{Lifted, View};

use crate::advance::Effects;

/// Lifts rows into a view's groups, one map for each view partition.
pub struct Lifting(Vec<Groups>);

impl Lifting {
    /// Begins without rows.
    pub fn new(view: &View) -> Self {
        Self(vec![Groups::new(); view.partitions as usize])
    }

    /// Lifts rows of the source's columns and adds (`sign` 1) or takes away (`sign` -1) each.
    /// A row whose expressions fail contributes nothing, as in the speed layer.
    pub fn lift(&mut self, view: &View, rows: &RecordBatch, sign: impl Fn(usize) -> i64) {
        self.take(view, &view.lift(rows), sign);
    }

    /// Takes rows that are lifted already, as [`Lifting::lift`] does.
    pub fn take(&mut self, view: &View, lifted: &Lifted, sign: impl Fn(usize) -> i64) {
        for (groups, rows) in self.0.iter_mut().zip(lifted.by_view_partition(view.partitions)) {
            for wanted in [1, -1] {
                let rows = rows.iter().filter(|row| sign(row.row) == wanted);
                let chosen: Vec<u32> = rows.map(|row| row.at).collect();
                groups.update(&view.kinds, &lifted.grouped, &chosen, wanted);
            }
        }
    }

    /// Adds what was lifted elsewhere.
    pub fn combine(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| mine.combine(theirs));
    }

    /// Returns the groups by view partition.
    pub fn finish(self) -> Vec<Groups> {
        self.0
    }
}

/// What one segment adds to a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contribution {
    /// The segment.
    pub segment: SegmentId,
    /// The groups by view partition.
    pub parts: Vec<Groups>,
}

/// Computes a view's contributions, one for each segment, those without effects included.
pub fn contributions(view: &View, effects: &BTreeMap<SegmentId, Option<Effects>>) -> Vec<Contribution> {
    let contribution = |(&segment, effects): (&SegmentId, &Option<Effects>)| {
        let mut lifting = Lifting::new(view);
        if let Some(effects) = effects {
            lifting.lift(view, &effects.rows, |row| effects.signs[row]);
        }
        Contribution { segment, parts: lifting.finish() }
    };
    effects.iter().map(contribution).collect()
}
