//! A part of the newest-version table is the same by whatever steps it was advanced.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use proptest::prelude::*;
use sanso_batch::advance::{Advanced, advance};
use sanso_dataset::{offsets, with_log_columns};
use sanso_state::{Fingerprint, LogPartition, SegmentId};

use crate::support::{Reading, SMALL, Shape, views};

fn reading() -> impl Strategy<Value = Reading> {
    (0..3u8, 0..2u8, 0..3u32, prop::option::of(0..2i16), 0..3u8)
        .prop_map(|(meter, channel, hour, value, version)| Reading { meter, channel, hour, value, version })
}

/// The readings of consecutive segments, as archived.
fn segments(shape: Shape, lots: &[Vec<Reading>]) -> Vec<(SegmentId, RecordBatch)> {
    let source = &views(shape)[0].source;
    let mut offset = 0;
    let segment = |(index, lot): (u64, &Vec<Reading>)| {
        let payloads: Vec<String> = lot.iter().map(Reading::payload).collect();
        let rows = source.decode(payloads.iter().map(String::as_bytes)).rows;
        let from = offset;
        offset += lot.len() as u64;
        let rows = with_log_columns(&rows, (from..offset).collect(), vec![0; lot.len()]);
        (SegmentId { partition: LogPartition(0), index }, rows.expect("two more columns"))
    };
    (0..).zip(lots).map(segment).collect()
}

proptest! {
    #[test]
    fn one_step_and_many_give_the_same(
        lots in prop::collection::vec(prop::collection::vec(reading(), 1..20), 1..6),
        versioned: bool,
        pieces in 1..5usize,
    ) {
        let shape = Shape { versioned, ..SMALL };
        let source = &views(shape)[0].source;
        let segments = segments(shape, &lots);
        let at_once = advance(source, Vec::new(), segments.clone()).expect("advance");
        let mut stepwise: Option<Advanced> = None;
        for segment in segments {
            // As a file gives it back: in several batches.
            let before: Vec<RecordBatch> = stepwise.iter().flat_map(|before| cut(&before.rows, pieces)).collect();
            let mut next = advance(source, before, vec![segment]).expect("advance");
            if let Some(before) = stepwise {
                next.effects.extend(before.effects);
                next.conflicts.extend(before.conflicts);
            }
            stepwise = Some(next);
        }
        let stepwise = stepwise.expect("there is a segment");
        prop_assert_eq!(&stepwise.rows, &at_once.rows);
        prop_assert_eq!(&stepwise.conflicts, &at_once.conflicts);
        prop_assert_eq!(stepwise.effects.len(), at_once.effects.len());
        for (segment, effects) in &stepwise.effects {
            prop_assert_eq!(&effects.rows, &at_once.effects[segment].rows);
            prop_assert_eq!(&effects.signs, &at_once.effects[segment].signs);
        }
    }

    #[test]
    fn the_rows_are_the_newest_in_order_of_identity(
        lots in prop::collection::vec(prop::collection::vec(reading(), 1..20), 1..6),
        versioned: bool,
    ) {
        let shape = Shape { versioned, ..SMALL };
        let source = &views(shape)[0].source;
        let segments = segments(shape, &lots);
        let mut newest: BTreeMap<bytes::Bytes, (i64, u64, Fingerprint)> = BTreeMap::new();
        for (_, rows) in &segments {
            let (identities, versions) = (source.identities(rows), source.versions(rows));
            let contents = source.contents(rows);
            for (row, identity) in identities.into_iter().enumerate() {
                let offset = offsets(rows).value(row);
                let version = versions[row].unwrap_or(offset as i64);
                let row = (version, offset, contents[row]);
                let known = newest.entry(identity).or_insert(row);
                // Without versions the offset is the version, and what says the same again is no news.
                if row.0 > known.0 && row.2 != known.2 {
                    *known = row;
                }
            }
        }
        let rows = advance(source, Vec::new(), segments).expect("advance").rows;
        let found: Vec<_> = source.identities(&rows).into_iter().zip(offsets(&rows).values().iter().copied()).collect();
        let wanted: Vec<_> = newest.into_iter().map(|(identity, (_, offset, _))| (identity, offset)).collect();
        prop_assert_eq!(found, wanted);
    }
}

fn cut(rows: &RecordBatch, pieces: usize) -> Vec<RecordBatch> {
    let size = rows.num_rows().div_ceil(pieces).max(1);
    let froms = (0..rows.num_rows()).step_by(size);
    froms.map(|from| rows.slice(from, size.min(rows.num_rows() - from))).collect()
}
