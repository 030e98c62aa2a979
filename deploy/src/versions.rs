//! Which view versions to bring up and which to retire; pure.
//!
//! ```text
//!   declared ──▶ backfilled ──▶ live, catching up ──▶ serving ──▶ retired
//!                                     └── the older version serves meanwhile ──┘
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use sanso_catalog::Catalog;
use sanso_state::{Fingerprint, Offset};
use sanso_view::View;

/// What it takes to get from what is live to what is declared.
#[derive(Default)]
pub(crate) struct Transition {
    /// View versions to backfill and make live.
    pub(crate) bring_up: Vec<Arc<View>>,
    /// View versions that nobody declares and that do not serve a declared name.
    pub(crate) retire: Vec<Fingerprint>,
}

/// Compares the live versions with the declared ones.
///
/// A version that still serves a declared name stays until its successor has
/// caught up; see [`caught_up`].
pub(crate) fn transition(catalog: &Catalog, declared: &[Arc<View>]) -> Transition {
    let wanted: BTreeSet<Fingerprint> = declared.iter().map(|view| view.fingerprint).collect();
    let names: BTreeSet<&str> = declared.iter().map(|view| view.name.as_str()).collect();
    let serves = |fingerprint: &Fingerprint| {
        catalog.serving.iter().any(|(name, serving)| serving == fingerprint && names.contains(name.as_str()))
    };
    Transition {
        bring_up: declared
            .iter()
            .filter(|view| !catalog.live.contains_key(&view.fingerprint))
            .cloned()
            .collect(),
        retire: catalog
            .live
            .keys()
            .filter(|fingerprint| !wanted.contains(fingerprint) && !serves(fingerprint))
            .copied()
            .collect(),
    }
}

/// Says whether a successor's view partitions have all applied at least what
/// the version it replaces had applied.
pub(crate) fn caught_up(successor: &[Vec<Offset>], target: &[Offset]) -> bool {
    successor.iter().all(|applied| applied.iter().zip(target).all(|(mine, theirs)| mine >= theirs))
}

/// Returns the furthest offset that any view partition has applied, for each log partition.
pub(crate) fn furthest(applied: &[Vec<Offset>]) -> Vec<Offset> {
    applied.iter().fold(Vec::new(), |mut furthest, one| {
        furthest.resize(one.len(), 0);
        furthest.iter_mut().zip(one).for_each(|(a, b)| *a = (*a).max(*b));
        furthest
    })
}
