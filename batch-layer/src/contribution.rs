//! Contributions: what a segment's effects, or newest rows, are to a view. Pure.
//!
//! Both ways to a batch view go through here, and through [`View::lift`] like the speed layer:
//! view k = view k-1 ⊕ the contributions of the segments between, and view k = the lift of every row
//! of the newest-version table at k.

use std::collections::BTreeMap;

use sanso_state::{Groups, SegmentId};
use sanso_view::View;

use crate::advance::Effects;
use crate::lifting::Lifting;

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
            lifting.add_signed(view, &view.lift(&effects.rows), |row| effects.signs[row]);
        }
        Contribution { segment, parts: lifting.finish() }
    };
    effects.iter().map(contribution).collect()
}
