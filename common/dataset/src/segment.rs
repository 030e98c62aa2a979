//! Segments: one Parquet file for each complete segment of the log, rows in offset order.

use arrow::array::RecordBatch;
use bytes::Bytes;
use sanso_state::{Fingerprint, SegmentId};

use crate::dataset::{Dataset, blocking};
use crate::error::{DatasetError, RESTORE, Result};
use crate::layout::Layout;
use crate::manifest::SegmentFile;
use crate::{parquet_file, schema};

impl Dataset {
    /// Writes a segment's file and returns what a manifest lists of it. Idempotent: equal rows make
    /// equal bytes under the same name. Without a manifest that lists it the file means nothing.
    ///
    /// `rows` are the source's columns, in offset order; `offsets` and `append_times_us`
    /// (microseconds UTC) have one element for each row.
    pub async fn put_segment(
        &self,
        source: &str,
        segment: SegmentId,
        rows: &RecordBatch,
        offsets: Vec<u64>,
        append_times_us: Vec<i64>,
    ) -> Result<SegmentFile> {
        let path = Layout::segment(segment);
        if !offsets.is_sorted_by(|a, b| a < b) {
            return Err(DatasetError::Rows { path, what: "offsets must grow from row to row".to_owned() });
        }
        let rows = schema::with_log_columns(rows, offsets, append_times_us)
            .map_err(|source| DatasetError::Columns { path: path.clone(), source })?;
        let notes = [("sanso.source", source.to_owned()), ("sanso.segment", segment.to_string())];
        let count = rows.num_rows() as u64;
        let bytes = encode(&path, rows, notes.to_vec()).await?;
        let file = SegmentFile {
            segment,
            rows: count,
            dates: None,
            bytes: bytes.len() as u64,
            content: Fingerprint::of(&bytes),
            path,
        };
        self.put(&self.layout().listed(source, &file.path), bytes).await?;
        Ok(file)
    }

    /// Reads a segment: the source's columns, then the log's. Refuses a damaged file.
    pub async fn read_segment(&self, source: &str, file: &SegmentFile) -> Result<RecordBatch> {
        let path = self.layout().listed(source, &file.path);
        let bytes = self.get_checked(&path, file.content, RESTORE).await?;
        let decoded = blocking(move || parquet_file::decode_one(bytes)).await;
        let rows = decoded.map_err(|e| DatasetError::damaged(&path, e, RESTORE))?;
        schema::check_archived(&rows).map_err(|what| DatasetError::Rows { path: path.to_string(), what })?;
        Ok(rows)
    }
}

/// Encodes rows on the blocking pool.
pub(crate) async fn encode(
    path: &str,
    rows: RecordBatch,
    notes: Vec<(&'static str, String)>,
) -> Result<Bytes> {
    let encoded = blocking(move || parquet_file::encode(&rows, &notes)).await;
    encoded.map_err(|source| DatasetError::Encode { path: path.to_owned(), source })
}
