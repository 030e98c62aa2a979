//! Writes one segment: reads it from the log, decodes it and puts it into the dataset.
//!
//! No more than one segment's rows and one read's payloads are in memory.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use sanso_dataset::{Dataset, SegmentFile};
use sanso_log::{Log, Record, partition_for_key};
use sanso_state::{LogPartition, SegmentId};
use sanso_view::Source;

use crate::error::{BatchError, Result};

/// A segment that is in the dataset.
pub(crate) struct Archived {
    /// What the manifest lists.
    pub(crate) file: SegmentFile,
    /// Records that are not in it: undecodable, or of another log partition. The speed layer
    /// quarantines them.
    pub(crate) refused: u64,
}

/// Rows of a segment with their places in the log.
struct Rows {
    rows: RecordBatch,
    offsets: Vec<u64>,
    append_times_us: Vec<i64>,
    refused: u64,
}

/// Archives one complete segment. Idempotent: it may be archived again and gives the same file.
pub(crate) async fn archive(
    log: &dyn Log,
    dataset: &Dataset,
    source: &Arc<Source>,
    segment: SegmentId,
    read_bytes_max: usize,
) -> Result<Archived> {
    let segments = source.segments();
    let end = (segment.index + 1) * segments.size();
    let mut next = segment.index * segments.size();
    let mut parts = Vec::new();
    while next < end {
        let records_max = (end - next) as usize;
        let batch = log
            .read(&source.topic, segment.partition.0, next, records_max, read_bytes_max)
            .await
            .map_err(|error| BatchError::Log { source_name: source.name.clone(), source: error })?;
        assert!(batch.next > next, "a complete segment has something to read, or a hole to pass");
        next = batch.next;
        let decoder = Arc::clone(source);
        let partition = segment.partition;
        let mut records = batch.records;
        records.retain(|record| record.offset < end);
        parts.push(blocking(move || decode(&decoder, partition, &records)).await);
    }
    let Rows { rows, offsets, append_times_us, refused } = join(source, parts)?;
    let file = dataset.put_segment(&source.name, segment, &rows, offsets, append_times_us).await?;
    Ok(Archived { file, refused })
}

/// Decodes records and leaves out those whose key belongs to another log partition. Pure.
fn decode(source: &Source, partition: LogPartition, records: &[Record]) -> Rows {
    let decoded = source.decode(records.iter().map(|record| record.payload.as_ref()));
    let keys = source.keys(&decoded.rows);
    let placed: Vec<bool> = (0..decoded.rows.num_rows())
        .map(|row| partition_for_key(keys.value(row).as_bytes(), source.partitions) == partition.0)
        .collect();
    let kept = decoded.index.iter().zip(&placed).filter(|(_, placed)| **placed).map(|(&at, _)| &records[at]);
    let (offsets, append_times_us): (Vec<_>, Vec<_>) =
        kept.map(|record| (record.offset, record.append_time_us)).unzip();
    let rows = filter_record_batch(&decoded.rows, &BooleanArray::from(placed))
        .expect("the filter has one element for each row");
    let refused = (records.len() - offsets.len()) as u64;
    Rows { rows, offsets, append_times_us, refused }
}

fn join(source: &Source, parts: Vec<Rows>) -> Result<Rows> {
    let rows = concat_batches(&source.schema(), parts.iter().map(|part| &part.rows))
        .map_err(|error| BatchError::Rows { source_name: source.name.clone(), source: error })?;
    let mut joined = Rows { rows, offsets: Vec::new(), append_times_us: Vec::new(), refused: 0 };
    for part in parts {
        joined.offsets.extend(part.offsets);
        joined.append_times_us.extend(part.append_times_us);
        joined.refused += part.refused;
    }
    Ok(joined)
}

/// Runs work on the blocking pool.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => panic!("the runtime shuts down while rows are being computed"),
        },
    }
}
