//! The quarantine as a reader sees it: the batch layer's below the cut, the speed layer's from it on.
//!
//! ```text
//!   dataset: manifest ─ division ─▶ files of refused records ─┐
//!   speed's store ─────────────────▶ outside of batch's range ─┼─▶ one list, by (partition, offset)
//!   dataset: replays ──────────────▶ which of them, and where ─┘
//! ```
//!
//! Promised: a list is complete and exact for one version of the dataset: the speed layer drops its
//! part only after a version that holds it was committed, and a read during which the version
//! changed begins again.

mod marks;
mod read;
mod replay;

pub(crate) use marks::{Mark, ReplayMarks};
pub(crate) use read::{Ask, Wanted, read};
pub(crate) use replay::{Asked, replay};

use sanso_catalog::{BatchQuarantine, Catalog, QuarantineStore, StatusBoard};
use sanso_state::{Division, Fingerprint, LogPartition, RefusalCounts};

/// Counts a source's quarantine from what the layers posted; none while they have not, or while a new
/// version is being posted again and again.
pub(crate) fn posted_counts(board: &StatusBoard, catalog: &Catalog, source: &str) -> Option<RefusalCounts> {
    const ATTEMPTS: usize = 4;
    let views = live_views(catalog, source);
    let store = board.quarantine()?;
    for _ in 0..ATTEMPTS {
        let BatchQuarantine { division, counts, .. } = board.batch().remove(source)?.quarantine?;
        let counted = add_speed(store.as_ref(), source, &division, &views, counts).ok()?;
        let after = board.batch().remove(source)?.quarantine?;
        // Speed drops what was posted: a version posted meanwhile may have taken it from the count.
        if after.division == division {
            return Some(counted);
        }
    }
    None
}

/// Adds what the speed layer has to the batch layer's counts.
fn add_speed(
    store: &dyn QuarantineStore,
    source: &str,
    division: &Division,
    views: &[Fingerprint],
    mut counts: RefusalCounts,
) -> Result<RefusalCounts, String> {
    for partition in (0..division.cut.partitions()).map(LogPartition) {
        for range in division.speed(partition) {
            counts.add(&store.counts(source, partition.0, range)?);
        }
        counts.expression += store.expressions(source, partition.0, views)?;
    }
    Ok(counts)
}

/// Returns the live view versions of a source.
fn live_views(catalog: &Catalog, source: &str) -> Vec<Fingerprint> {
    catalog.live_of(source).iter().map(|view| view.fingerprint).collect()
}
