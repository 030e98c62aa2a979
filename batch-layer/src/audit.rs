//! The audit: speed's state of each segment against batch's own computation of it, and likewise what
//! either has refused of it.

use std::sync::Arc;

use sanso_catalog::{AuditCounts, StatusBoard};
use sanso_core::{PartitionId, PartitionStore, StoreError};
use sanso_dataset::Manifest;
use sanso_state::{Difference, Entry, GroupState, Groups, Outcome, RefusalCounts, SegmentId, Value};
use sanso_view::View;

/// Differences logged one by one for each segment and view partition; the rest is counted.
const LOGGED_MAX: usize = 20;

/// Compares each segment of one view partition; reports every difference and rebuilds the segment
/// from batch's computation. Returns what was compared.
pub(crate) async fn audit(
    store: &PartitionStore,
    view: &Arc<View>,
    id: PartitionId,
    contributions: &[(SegmentId, Groups)],
) -> Result<AuditCounts, StoreError> {
    let mut counts = AuditCounts::default();
    for (segment, batch) in contributions {
        let Some(differences) = store.audit(id, *segment, batch).await? else {
            counts.skipped += 1;
            continue;
        };
        counts.compared += 1;
        if differences.is_empty() {
            continue;
        }
        counts.differing += 1;
        report(view, id, &differences);
        let outcome = store.submit(id, Entry::Rebuild(*segment, batch.clone())).await?;
        let rebuilt = outcome == Outcome::Rebuilt;
        tracing::error!(view = view.name, partition = %id, %segment, rebuilt, "the segment is rebuilt from batch");
    }
    Ok(counts)
}

/// Compares how many records of each segment are in quarantine with what the speed layer has refused of
/// it. What batch found stands; a difference is reported, for one of both has judged wrongly. To be
/// called before the version is posted: then the speed layer drops its own.
pub(crate) fn audit_quarantine(
    board: &StatusBoard,
    manifest: &Manifest,
    segments: &[SegmentId],
) -> AuditCounts {
    let mut counts = AuditCounts::default();
    let speed = board.speed().remove(&manifest.source).unwrap_or_default();
    let store = board.quarantine();
    for segment in segments {
        let offsets = segment.index * manifest.segment_size..(segment.index + 1) * manifest.segment_size;
        let partition = segment.partition.0;
        let judged = speed.get(&partition).is_some_and(|progress| progress.position >= offsets.end);
        let kept = store.as_ref().filter(|_| judged);
        let kept = kept.and_then(|store| store.counts(&manifest.source, partition, offsets).ok());
        let Some(kept) = kept else {
            counts.skipped += 1;
            continue;
        };
        counts.compared += 1;
        let file = manifest.quarantine.iter().find(|file| file.segment == *segment);
        let batch = file.map_or_else(RefusalCounts::default, |file| file.counts);
        if batch != (RefusalCounts { expression: 0, ..kept }) {
            counts.differing += 1;
            let source = &manifest.source;
            tracing::error!(source, %segment, speed = ?kept, ?batch, "audit: speed and batch refuse differently");
        }
    }
    counts
}

fn report(view: &View, id: PartitionId, differences: &[Difference]) {
    for difference in differences.iter().take(LOGGED_MAX) {
        tracing::error!(
            view = view.name,
            partition = %id,
            segment = %difference.segment,
            key = key_text(view, &difference.group.key),
            window = window_text(view, difference.group.window_start),
            speed = state_text(difference.speed.as_ref()),
            batch = state_text(difference.batch.as_ref()),
            "audit: speed and batch differ"
        );
    }
    let more = differences.len().saturating_sub(LOGGED_MAX);
    if more > 0 {
        tracing::error!(view = view.name, partition = %id, more, "audit: more groups of the segment differ");
    }
}

fn key_text(view: &View, key: &[u8]) -> String {
    let Ok(values) = Value::decode_key(key) else { return format!("{key:02x?}") };
    let named = view.key_columns.iter().zip(&values).map(|((name, _), value)| format!("{name}={value}"));
    named.collect::<Vec<_>>().join(", ")
}

fn window_text(view: &View, start_us: i64) -> String {
    if !view.window.is_some() {
        return "none".to_owned();
    }
    let start = chrono::DateTime::from_timestamp_micros(start_us);
    start.map_or_else(|| format!("{start_us} µs"), |start| start.to_rfc3339())
}

fn state_text(state: Option<&GroupState>) -> String {
    state.map_or_else(|| "no rows".to_owned(), |state| format!("{} rows, {:?}", state.rows, state.aggregates))
}
