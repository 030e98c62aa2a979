//! The oracle: a naive fold over a whole history.
//!
//! It shares with the engines only decoding, [`View::lift`] and one group's
//! state; rows are added one by one, not by column.
//! Which records count is written here once more, plainly and on purpose: the
//! newest rule of the engines is not called.

use std::collections::BTreeMap;

use sanso_state::{Groups, Offset};

use crate::view::View;

/// One record of a log partition: its offset and its payload.
pub type Record<'a> = (Offset, &'a [u8]);

/// Folds a history, one list of records in offset order for each log
/// partition, into the view's groups.
///
/// Of the records of one identity the highest version counts, and of equal
/// versions the lowest offset. Without versions the last record counts that
/// differs from the one before it. What can't be decoded counts for nothing.
pub fn fold(view: &View, history: &[&[Record<'_>]]) -> Groups {
    let mut groups = Groups::new();
    for records in history {
        let decoded = view.source.decode(records.iter().map(|(_, payload)| *payload));
        let survivors = survivors(view, &decoded.rows);
        let lifted = view.lift(&decoded.rows);
        for row in lifted.rows().filter(|lifted| survivors.contains(&lifted.row)) {
            let (id, inputs) = lifted.grouped.row(row.at as usize);
            groups.update_one(&view.kinds, &id, &inputs, 1);
        }
    }
    groups
}

/// Returns the rows that are the newest of their identity, in order.
fn survivors(view: &View, rows: &arrow::array::RecordBatch) -> std::collections::BTreeSet<usize> {
    let identities = view.source.identities(rows);
    let versions = view.source.versions(rows);
    let contents = view.source.contents(rows);
    let mut newest: BTreeMap<&[u8], usize> = BTreeMap::new();
    for row in 0..rows.num_rows() {
        let best = newest.entry(&identities[row]).or_insert(row);
        let replaces = match (versions[row], versions[*best]) {
            (Some(version), Some(best)) => version > best,
            _ => contents[row] != contents[*best],
        };
        if replaces {
            *best = row;
        }
    }
    newest.into_values().collect()
}
