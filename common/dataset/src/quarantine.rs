//! The quarantine below the cut: one Parquet file for each segment that has refused records.
//!
//! It is written with the segment, from the same judgement, and listed by the same manifest, so a
//! reader of a version has the quarantine of exactly that version.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use sanso_state::{Division, Fingerprint, Quarantined, Refusal, RefusalCounts, SegmentId};
use serde::{Deserialize, Serialize};

use crate::dataset::{Dataset, blocking};
use crate::error::{DatasetError, RESTORE, Result};
use crate::layout::Layout;
use crate::manifest::Manifest;
use crate::segment::encode;
use crate::{parquet_file, schema};

/// The quarantine of one segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineFile {
    /// The segment.
    pub segment: SegmentId,
    /// Its records by kind; never none at all.
    pub counts: RefusalCounts,
    /// The file's size.
    pub bytes: u64,
    /// The fingerprint of the file's bytes.
    pub content: Fingerprint,
    /// The file, relative to the source's folder.
    pub path: String,
}

impl Manifest {
    /// Returns which offsets' quarantine this version holds. A manifest of a program that did not keep
    /// it yet holds none: all of it is the speed layer's.
    pub fn division(&self) -> Division {
        let from = self.quarantine_from.clone().unwrap_or_else(|| self.cut.clone());
        Division { from, cut: self.cut.clone() }
    }

    /// Counts the quarantine that this version holds.
    pub fn refusals(&self) -> RefusalCounts {
        let mut counts = RefusalCounts::default();
        self.quarantine.iter().for_each(|file| counts.add(&file.counts));
        counts
    }
}

impl Dataset {
    /// Writes a segment's quarantine and returns what a manifest lists of it; nothing where no record
    /// was refused. Idempotent, as [`Dataset::put_segment`] is. `records` in offset order.
    pub async fn put_quarantine(
        &self,
        source: &str,
        segment: SegmentId,
        records: &[Quarantined],
    ) -> Result<Option<QuarantineFile>> {
        if records.is_empty() {
            return Ok(None);
        }
        let path = Layout::quarantine(segment);
        if !records.is_sorted_by(|a, b| a.offset < b.offset) {
            return Err(DatasetError::Rows { path, what: "offsets must grow from row to row".to_owned() });
        }
        let rows = rows_of(records).map_err(|source| DatasetError::Columns { path: path.clone(), source })?;
        let notes = [("sanso.source", source.to_owned()), ("sanso.segment", segment.to_string())];
        let bytes = encode(&path, rows, notes.to_vec()).await?;
        let file = QuarantineFile {
            segment,
            counts: RefusalCounts::of(records),
            bytes: bytes.len() as u64,
            content: Fingerprint::of(&bytes),
            path,
        };
        self.put(&self.layout().listed(source, &file.path), bytes).await?;
        Ok(Some(file))
    }

    /// Reads a segment's quarantine, in offset order. Refuses a damaged file.
    pub async fn read_quarantine(&self, source: &str, file: &QuarantineFile) -> Result<Vec<Quarantined>> {
        let path = self.layout().listed(source, &file.path);
        let bytes = self.get_checked(&path, file.content, RESTORE).await?;
        let decoded = blocking(move || parquet_file::decode_one(bytes)).await;
        let rows = decoded.map_err(|e| DatasetError::damaged(&path, e, RESTORE))?;
        let broken = |what| DatasetError::Rows { path: path.to_string(), what };
        schema::check_archived(&rows).map_err(broken)?;
        records_of(&rows, file.segment).ok_or_else(|| broken("not the columns of a quarantine".to_owned()))
    }
}

fn rows_of(records: &[Quarantined]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let text = |name| Field::new(name, DataType::Utf8, false);
    let fields = vec![text("kind"), text("reason"), Field::new("payload", DataType::Binary, false)];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(records.iter().map(|record| record.kind.name()))),
        Arc::new(StringArray::from_iter_values(records.iter().map(|record| &record.reason))),
        Arc::new(BinaryArray::from_iter_values(records.iter().map(|record| &record.payload))),
    ];
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    let (offsets, times) = records.iter().map(|record| (record.offset, record.append_time_us)).unzip();
    schema::with_log_columns(&rows, offsets, times)
}

fn records_of(rows: &RecordBatch, segment: SegmentId) -> Option<Vec<Quarantined>> {
    let kinds = rows.column_by_name("kind")?.as_string_opt::<i32>()?;
    let reasons = rows.column_by_name("reason")?.as_string_opt::<i32>()?;
    let payloads = rows.column_by_name("payload")?.as_binary_opt::<i32>()?;
    let (offsets, times) = (schema::offsets(rows), schema::append_times(rows));
    let record = |row: usize| {
        Some(Quarantined {
            partition: segment.partition.0,
            offset: offsets.value(row),
            append_time_us: times.value(row),
            kind: Refusal::named(kinds.value(row))?,
            reason: reasons.value(row).to_owned(),
            view: None,
            payload: payloads.value(row).to_vec(),
        })
    };
    (0..rows.num_rows()).map(record).collect()
}
