//! Writes one segment: reads it from the log, decodes it and puts it into the dataset.
//!
//! No more than one segment's rows and one read's payloads are in memory.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::error::ArrowError;
use sanso_dataset::{Dataset, SegmentFile, with_log_columns};
use sanso_log::{Log, LogError, Record, partition_for_key};
use sanso_state::{LogPartition, Quarantined, Refusal, SegmentId, conflict_reason, misplaced_reason};
use sanso_view::Source;

use crate::advance::Conflict;
use crate::error::{BatchError, Result};

/// Records read at once in search of conflicts, which are few, or come in runs.
const CONFLICTS_READ: usize = 64;

/// A segment that is in the dataset.
pub(crate) struct Archived {
    /// What the manifest lists.
    pub(crate) file: SegmentFile,
    /// What is not in it, in offset order: undecodable, or of another log partition.
    pub(crate) refused: Vec<Quarantined>,
}

/// Rows of a segment with their places in the log.
struct Rows {
    rows: RecordBatch,
    offsets: Vec<u64>,
    append_times_us: Vec<i64>,
    refused: Vec<Quarantined>,
}

/// Archives one complete segment. Idempotent: it may be archived again and gives the same file. What is
/// refused is not written: conflicts are found later, and belong into the same file.
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
            .map_err(|error| unreadable(source, error))?;
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

fn unreadable(archived: &Source, source: LogError) -> BatchError {
    let source_name = archived.name.clone();
    match source {
        LogError::Truncated { .. } => BatchError::BehindLog { source_name, source },
        _ => BatchError::Log { source_name, source },
    }
}

/// Decodes records; refuses what can't be, and what belongs to another log partition. Pure.
fn decode(source: &Source, partition: LogPartition, records: &[Record]) -> Rows {
    let decoded = source.decode(records.iter().map(|record| record.payload.as_ref()));
    let refuse = |at: usize, kind, reason| quarantined(partition, &records[at], kind, reason);
    let mut refused: Vec<Quarantined> = Vec::new();
    refused.extend(decoded.rejected.into_iter().map(|(at, why)| refuse(at, Refusal::Undecodable, why)));
    let keys = source.keys(&decoded.rows);
    let mut placed = Vec::with_capacity(decoded.rows.num_rows());
    for (row, &at) in decoded.index.iter().enumerate() {
        let home = partition_for_key(keys.value(row).as_bytes(), source.partitions);
        placed.push(home == partition.0);
        if home != partition.0 {
            let reason = misplaced_reason(keys.value(row), home, partition);
            refused.push(refuse(at, Refusal::Misplaced, reason));
        }
    }
    refused.sort_by_key(|record| record.offset);
    let kept = decoded.index.iter().zip(&placed).filter(|(_, placed)| **placed).map(|(&at, _)| &records[at]);
    let (offsets, append_times_us): (Vec<_>, Vec<_>) =
        kept.map(|record| (record.offset, record.append_time_us)).unzip();
    let rows = filter_record_batch(&decoded.rows, &BooleanArray::from(placed))
        .expect("the filter has one element for each row");
    Rows { rows, offsets, append_times_us, refused }
}

/// Returns what a segment's file holds of some records: the rows of those that can be decoded and
/// are of this log partition, with the columns of the log. Pure.
pub fn archived_rows(
    source: &Source,
    partition: LogPartition,
    records: &[Record],
) -> std::result::Result<RecordBatch, ArrowError> {
    let Rows { rows, offsets, append_times_us, .. } = decode(source, partition, records);
    with_log_columns(&rows, offsets, append_times_us)
}

fn quarantined(partition: LogPartition, record: &Record, kind: Refusal, reason: String) -> Quarantined {
    Quarantined {
        partition: partition.0,
        offset: record.offset,
        append_time_us: record.append_time_us,
        kind,
        reason,
        view: None,
        payload: record.payload.to_vec(),
    }
}

/// Reads the records of conflicts from the log once more: what the segment's file holds of them are
/// typed columns, not the bytes as they came. `conflicts`: of one log partition, in offset order.
pub(crate) async fn fetch_conflicts(
    log: &dyn Log,
    source: &Source,
    partition: LogPartition,
    conflicts: &[Conflict],
    read_bytes_max: usize,
) -> Result<Vec<Quarantined>> {
    let mut fetched = Vec::with_capacity(conflicts.len());
    while let Some(next) = conflicts.get(fetched.len()) {
        let batch = log
            .read(&source.topic, partition.0, next.offset, CONFLICTS_READ, read_bytes_max)
            .await
            .map_err(|error| unreadable(source, error))?;
        let before = fetched.len();
        for record in &batch.records {
            let wanted = conflicts.get(fetched.len()).filter(|wanted| wanted.offset == record.offset);
            if let Some(Conflict { version, known, .. }) = wanted {
                let reason = conflict_reason(*version, *known);
                fetched.push(quarantined(partition, record, Refusal::Conflict, reason));
            }
        }
        assert!(fetched.len() > before, "the log still holds what was just archived from it");
    }
    Ok(fetched)
}

fn join(source: &Source, parts: Vec<Rows>) -> Result<Rows> {
    let rows = concat_batches(&source.schema(), parts.iter().map(|part| &part.rows))
        .map_err(|error| BatchError::Rows { source_name: source.name.clone(), source: error })?;
    let mut joined = Rows { rows, offsets: Vec::new(), append_times_us: Vec::new(), refused: Vec::new() };
    for part in parts {
        joined.offsets.extend(part.offsets);
        joined.append_times_us.extend(part.append_times_us);
        joined.refused.extend(part.refused);
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
