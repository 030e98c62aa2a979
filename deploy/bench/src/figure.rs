//! One measured number, and what it is measured against.

use serde::{Deserialize, Serialize};

/// A measured number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) what: String,
    /// The number.
    pub(crate) value: f64,
    /// Its unit.
    pub(crate) unit: String,
    /// Whether more is better.
    pub(crate) more_is_better: bool,
    /// Who did the same work in the same run, and its number.
    pub(crate) against: Option<(String, f64)>,
}

impl Figure {
    /// Makes a rate: more is better.
    pub(crate) fn rate(what: impl Into<String>, value: f64, unit: &str) -> Self {
        Self { what: what.into(), value, unit: unit.to_owned(), more_is_better: true, against: None }
    }

    /// Makes a cost (a time, a size): less is better.
    pub(crate) fn cost(what: impl Into<String>, value: f64, unit: &str) -> Self {
        Self { more_is_better: false, ..Self::rate(what, value, unit) }
    }

    /// Says who did the same work in the same run.
    pub(crate) fn against(mut self, who: impl Into<String>, value: f64) -> Self {
        self.against = Some((who.into(), value));
        self
    }
}

/// Returns the value below which a share of sorted values lies.
///
/// # Panics
/// When there are no values.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len());
    sorted[at - 1]
}
