//! Decides which view partitions a request reads and what it asks of each; pure.
//!
//! ```text
//!   keys ──hash──▶ view partition 0: keys a, d     (one read each)
//!                  view partition 2: key  b
//!   no key ──────▶ every view partition: scan
//! ```

use std::collections::{BTreeMap, BTreeSet};

use sanso_core::{PartitionId, ReadRequest};
use sanso_view::View;

/// What is wanted of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Encoded grouping keys; none means all groups.
    pub keys: Option<BTreeSet<Box<[u8]>>>,
    /// The first window start, in microseconds.
    pub from: i64,
    /// The first window start no longer wanted.
    pub to: i64,
}

impl Wanted {
    /// Wants everything.
    pub fn all() -> Self {
        Self { keys: None, from: i64::MIN, to: i64::MAX }
    }
}

/// One read of one view partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRead {
    /// The view partition.
    pub id: PartitionId,
    /// What to ask.
    pub request: ReadRequest,
}

/// Plans the reads of a request, in order of view partition, at most one for each.
///
/// Windows with `from <= start < to` may need panes beyond `to`; the caller
/// drops windows it did not ask for after finishing.
pub fn plan(view: &View, wanted: &Wanted) -> Vec<PartitionRead> {
    let (from, to) = view.pane_range(wanted.from, wanted.to);
    let read =
        |index: u32, request| PartitionRead { id: PartitionId { view: view.fingerprint, index }, request };
    let Some(keys) = &wanted.keys else {
        return (0..view.partitions).map(|index| read(index, ReadRequest::Scan { from, to })).collect();
    };
    let mut by_partition: BTreeMap<u32, Vec<Box<[u8]>>> = BTreeMap::new();
    for key in keys {
        by_partition.entry(view.partition_of(key)).or_default().push(key.clone());
    }
    by_partition.into_iter().map(|(index, keys)| read(index, ReadRequest::Keys { keys, from, to })).collect()
}
