//! The newest-version table: for each log partition and UTC date of event time one file with the
//! newest version of each reading, in order of identity.
//!
//! A file is named by the fingerprint of what it was made from, so equal names mean equal
//! content, and a version carries the files that no new segment touches by reference.

use std::time::Instant;

use arrow::array::RecordBatch;
use futures::{Stream, StreamExt, TryStreamExt};
use sanso_block::Reading;
use sanso_state::{Fingerprint, LogPartition, Offset};

use crate::dataset::{Dataset, blocking};
use crate::error::{DatasetError, RESTORE, Result};
use crate::layout::Layout;
use crate::manifest::{Manifest, NewestFile};
use crate::segment::encode;
use crate::{parquet_file, schema};

/// How often a read starts again because a newer version replaced the files under it.
const ATTEMPTS: usize = 4;

/// Rows in one piece of those at hand, so that whoever works on them needs no more memory than for a file.
const PIECE_ROWS: usize = 8192;

/// Some columns of a file, piece by piece.
pub type NewestColumns = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

/// The newest-version table of one log partition at a cut.
#[derive(Clone, Debug)]
pub struct NewestBase {
    /// The version it belongs to.
    pub version: u64,
    /// The log partition's cut: the table holds what is newest as of this offset.
    pub floor: Offset,
    /// The largest event time below the cut, in microseconds, as the watermark counts it.
    pub max_event_us: Option<i64>,
    /// The rows: the source's columns, then the log's. In order of (date, identity).
    pub batches: Vec<RecordBatch>,
}

impl Dataset {
    /// Writes one file of the newest-version table and returns what a manifest lists of it. Its rows
    /// stay at hand where the table's storage level says so.
    ///
    /// `version`: of the table. `rows`: the source's columns, then the log's, in order of identity.
    /// `fingerprint`: of all that the rows were made from; it names the file.
    #[allow(
        clippy::too_many_arguments,
        reason = "each says another thing of the file, and none belongs to another"
    )]
    pub async fn put_newest(
        &self,
        source: &str,
        version: u64,
        partition: LogPartition,
        date: Option<i32>,
        fingerprint: Fingerprint,
        rows: RecordBatch,
    ) -> Result<NewestFile> {
        let path = Layout::newest(partition, date, fingerprint);
        schema::check_archived(&rows).map_err(|what| DatasetError::Rows { path: path.clone(), what })?;
        let (count, kept) = (rows.num_rows() as u64, rows.clone());
        let notes = vec![("sanso.source", source.to_owned()), ("sanso.made_from", fingerprint.to_string())];
        let bytes = encode(&path, rows, notes).await?;
        let content = Fingerprint::of(&bytes);
        let file = NewestFile {
            partition,
            date,
            rows: count,
            bytes: bytes.len() as u64,
            fingerprint,
            content,
            path,
        };
        self.put(&self.layout().listed(source, &file.path), bytes).await?;
        self.keep_newest(source, version, &file, kept).await;
        Ok(file)
    }

    /// Reads one file of the newest-version table. Refuses a damaged file.
    pub async fn read_newest(&self, source: &str, file: &NewestFile) -> Result<Vec<RecordBatch>> {
        let started = Instant::now();
        let path = self.layout().listed(source, &file.path);
        let bytes = self.get_checked(&path, file.content, RESTORE).await?;
        let decoded = blocking(move || parquet_file::decode(bytes)).await;
        let batches = decoded.map_err(|e| DatasetError::damaged(&path, e, RESTORE))?;
        for rows in &batches {
            schema::check_archived(rows)
                .map_err(|what| DatasetError::Rows { path: path.to_string(), what })?;
        }
        self.observe_read(source, file, started);
        Ok(batches)
    }

    /// Reads some columns of one file of the newest-version table, by their indexes, ascending: from the
    /// rows at hand, if they are, else from the file. Refuses a damaged file. Rows are decoded as the
    /// iterator goes, which blocks.
    pub async fn read_newest_columns(
        &self,
        source: &str,
        file: &NewestFile,
        columns: &[usize],
    ) -> Result<NewestColumns> {
        if let Some((rows, _)) = self.newest_at_hand(source, 0, file, Reading::Once).await {
            let columns = columns.to_vec();
            let pieces = (0..rows.batches().len()).flat_map(move |index| {
                let batch = rows.batches()[index].project(&columns).expect("columns that the file has");
                (0..batch.num_rows())
                    .step_by(PIECE_ROWS)
                    .map(move |from| Ok(batch.slice(from, PIECE_ROWS.min(batch.num_rows() - from))))
            });
            return Ok(Box::new(pieces));
        }
        let path = self.layout().listed(source, &file.path);
        let bytes = self.get_checked(&path, file.content, RESTORE).await?;
        let damaged = move |error| DatasetError::damaged(&path, error, RESTORE);
        let batches = parquet_file::decode_columns(bytes, columns).map_err(&damaged)?;
        Ok(Box::new(batches.map(move |batch| batch.map_err(&damaged))))
    }

    /// Reads the newest-version table of one log partition at a manifest, file by file, so that no
    /// more than one file is in memory. Rows in order of (date, identity).
    pub fn newest_stream<'a>(
        &'a self,
        manifest: &'a Manifest,
        partition: LogPartition,
    ) -> impl Stream<Item = Result<RecordBatch>> + 'a {
        let files = manifest.newest.iter().filter(move |file| file.partition == partition);
        futures::stream::iter(files)
            .then(move |file| self.read_newest(&manifest.source, file))
            .map_ok(|batches| futures::stream::iter(batches.into_iter().map(Ok)))
            .try_flatten()
    }

    /// Reads the newest-version table of one log partition at the newest manifest; none when
    /// nothing is archived yet.
    pub async fn newest_rows(&self, source: &str, partition: LogPartition) -> Result<Option<NewestBase>> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let Some(manifest) = self.manifest(source).await? else { return Ok(None) };
            match self.newest_stream(&manifest, partition).try_collect().await {
                Ok(batches) => {
                    return Ok(Some(NewestBase {
                        version: manifest.version,
                        floor: manifest.cut.at(partition),
                        max_event_us: manifest.watermarks[partition.index()],
                        batches,
                    }));
                }
                // Newer versions may have come, and the files of this one gone.
                Err(DatasetError::Missing { .. }) if attempt < ATTEMPTS => {}
                Err(error) => return Err(error),
            }
        }
    }
}
